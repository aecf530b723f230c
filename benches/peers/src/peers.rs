//! The peers: other clients that add a token, each over the same inner service as the layers.

use std::{
    env, fs,
    future::Future,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener},
    path::PathBuf,
    pin::{Pin, pin},
    process,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant, SystemTime},
};

use aws_smithy_async::{rt::sleep::TokioSleep, time::SystemTimeSource};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::{
    identity::{
        ResolveCachedIdentity, SharedIdentityCache, SharedIdentityResolver,
        http::Token as SmithyToken,
    },
    runtime_components::{RuntimeComponents, RuntimeComponentsBuilder},
};
use aws_smithy_types::config_bag::ConfigBag;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    http::{
        AsyncRawResponse, Context as AzureContext, Method, Request as AzureRequest, StatusCode,
        Url,
        headers::Headers,
        policies::{Policy, PolicyResult, auth::BearerTokenAuthorizationPolicy},
    },
    time::OffsetDateTime,
};
use bytes::Bytes;
use google_cloud_auth::credentials::{CacheableResource, Credentials, user_account};
use http::{Extensions, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::{Empty, Full};
use kube_client::{Config, client::ConfigExt, config::AuthInfo};
use serde_json::json;
use tokio::{runtime::Runtime, sync::RwLock};
use tower::{BoxError, Service, ServiceBuilder};

use crate::support::{
    contenders::{self, BARE, Load},
    work::{Bare, Model, Runner, TOKEN, contender},
};

pub(crate) const HEADERS: usize = 6;
pub(crate) const LOAD: Load = Load::Kilobyte;
const HOUR: Duration = Duration::from_secs(3_600);
const KILOBYTE: &[u8] = &[7; 1024];

/// Everything that is compared, and what it needs to run.
pub(crate) struct Contenders {
    /// The contenders of the other benches in their order, then the peers, of which the hand-written one is first.
    pub(crate) runners: Vec<Box<dyn Runner>>,
    /// The inner service of azure_core alone.
    azure_bare: usize,
    token_file: PathBuf,
    runtime: Runtime,
}

impl Contenders {
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let inside = runtime.enter();
        let session = runtime.block_on(contenders::session());
        let token_file = env::temp_dir().join(format!("peers-token-{}", process::id()));
        fs::write(&token_file, TOKEN)?;

        let model = Model::new(HEADERS, Full::new(Bytes::from_static(KILOBYTE)));
        let bare = Bare { reads: false };
        let mut runners = LOAD.contenders(&session, HEADERS);
        runners.push(contender("RwLock, boxed future", ByHand::new(bare), &model));
        let mut config = Config::new("https://api.example.com".parse().expect("it is one"));
        config.auth_info = AuthInfo {
            token_file: token_file.to_str().map(String::from),
            ..AuthInfo::default()
        };
        let layer = config
            .auth_layer()
            .expect("the file is there")
            .expect("it has a token");
        let below = ServiceBuilder::new().map_err(BoxError::from).service(bare);
        let kube = ServiceBuilder::new().layer(layer).service(below);
        runners.push(contender("kube-client, token file", kube, &model));
        let google = Google::new(bare, &runtime)?;
        runners.push(contender("google-cloud-auth, user", google, &model));
        runners.push(contender(
            "aws-smithy, lazy cache",
            Smithy::new(bare),
            &model,
        ));
        let azure_bare = runners.len();
        runners.push(Box::new(Azure::new("azure_core, bare", false)));
        runners.push(Box::new(Azure::new("azure_core", true)));
        drop(inside);
        Ok(Self {
            runners,
            azure_bare,
            token_file,
            runtime,
        })
    }

    /// Calls a function with each contender, inside a Tokio runtime.
    pub(crate) fn each<T>(&mut self, what: impl FnMut(&mut Box<dyn Runner>) -> T) -> Vec<T> {
        let _inside = self.runtime.enter();
        self.runners.iter_mut().map(what).collect()
    }

    /// The service below one of them, which may be itself.
    pub(crate) fn bare(&self, number: usize) -> usize {
        if number < self.azure_bare {
            BARE
        } else {
            self.azure_bare
        }
    }

    /// What each takes beyond the service below it.
    pub(crate) fn added(&self, all: &[f64]) -> Vec<f64> {
        (0..all.len())
            .map(|number| all[number] - all[self.bare(number)])
            .collect()
    }
}

impl Drop for Contenders {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.token_file));
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What people write in an afternoon.
#[derive(Clone)]
struct ByHand {
    inner: Bare,
    token: Arc<RwLock<(String, Instant)>>,
}

impl ByHand {
    fn new(inner: Bare) -> Self {
        let token = (String::from(TOKEN), Instant::now() + HOUR);
        Self {
            inner,
            token: Arc::new(RwLock::new(token)),
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, BoxError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Service<Request<Full<Bytes>>> for ByHand {
    type Response = Response<Empty<Bytes>>;
    type Error = BoxError;
    type Future = Boxed<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Full<Bytes>>) -> Self::Future {
        let (mut inner, token) = (self.inner, Arc::clone(&self.token));
        Box::pin(async move {
            let value = {
                let token = token.read().await;
                if token.1 < Instant::now() {
                    return Err("the token has expired".into());
                }
                bearer(&token.0)?
            };
            request.headers_mut().insert(AUTHORIZATION, value);
            Ok(inner.call(request).await?)
        })
    }
}

/// A user's credentials in Google's own crate. Only their own task can fill their token cache, so they get a token from an
/// endpoint on a loopback port. Like Google's clients, this asks for headers with each request, without the tag of the
/// last ones.
#[derive(Clone)]
struct Google {
    inner: Bare,
    credentials: Credentials,
}

impl Google {
    fn new(inner: Bare, runtime: &Runtime) -> io::Result<Self> {
        let user = json!({
            "type": "authorized_user",
            "client_id": "orders",
            "client_secret": "made-up",
            "refresh_token": "made-up",
        });
        let credentials = user_account::Builder::new(user)
            .with_token_uri(format!("http://{}/token", token_endpoint()?))
            .build()
            .map_err(io::Error::other)?;
        // Waits for the token.
        runtime
            .block_on(credentials.headers(Extensions::new()))
            .map_err(io::Error::other)?;
        Ok(Self { inner, credentials })
    }
}

impl Service<Request<Full<Bytes>>> for Google {
    type Response = Response<Empty<Bytes>>;
    type Error = BoxError;
    type Future = Boxed<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Full<Bytes>>) -> Self::Future {
        let (mut inner, credentials) = (self.inner, self.credentials.clone());
        Box::pin(async move {
            match credentials.headers(Extensions::new()).await? {
                CacheableResource::New { data, .. } => request.headers_mut().extend(data),
                CacheableResource::NotModified => {
                    return Err("the headers should be new, because no tag was sent".into());
                }
            }
            Ok(inner.call(request).await?)
        })
    }
}

/// Answers one token request of any kind.
fn token_endpoint() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while request.read_line(&mut line)? > 2 {
            line.clear();
        }
        let token = json!({ "access_token": TOKEN, "token_type": "Bearer", "expires_in": 3_600 });
        let (token, kind) = (token.to_string(), "content-type: application/json");
        let length = token.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\n{kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{token}",
        )?;
        stream.shutdown(Shutdown::Write)?;
        // Unread bytes of the request would reset the connection.
        io::copy(&mut request, &mut io::sink())
    });
    Ok(address)
}

/// The lazy cache of an SDK and the header of its signer, without its orchestrator.
#[derive(Clone)]
struct Smithy {
    inner: Bare,
    shared: Arc<SmithyParts>,
}

struct SmithyParts {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
    config: ConfigBag,
}

impl Smithy {
    fn new(inner: Bare) -> Self {
        let token = SmithyToken::new(TOKEN, Some(SystemTime::now() + HOUR));
        let components = RuntimeComponentsBuilder::for_tests()
            .with_time_source(Some(SystemTimeSource::new()))
            .with_sleep_impl(Some(TokioSleep::new()))
            .build()
            .expect("all is there");
        let parts = SmithyParts {
            cache: IdentityCache::lazy().build(),
            resolver: SharedIdentityResolver::new(token),
            components,
            config: ConfigBag::base(),
        };
        Self {
            inner,
            shared: Arc::new(parts),
        }
    }
}

impl Service<Request<Full<Bytes>>> for Smithy {
    type Response = Response<Empty<Bytes>>;
    type Error = BoxError;
    type Future = Boxed<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Full<Bytes>>) -> Self::Future {
        let (mut inner, shared) = (self.inner, Arc::clone(&self.shared));
        Box::pin(async move {
            let SmithyParts {
                cache,
                resolver,
                components,
                config,
            } = &*shared;
            let identity = cache
                .resolve_cached_identity(resolver.clone(), components, config)
                .await?;
            let token = identity.data::<SmithyToken>().ok_or("another identity")?;
            let value = bearer(token.token())?;
            request.headers_mut().insert(AUTHORIZATION, value);
            Ok(inner.call(request).await?)
        })
    }
}

#[derive(Debug)]
struct Credential;

#[async_trait::async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new(TOKEN, OffsetDateTime::now_utc() + HOUR))
    }
}

/// The last policy of a pipeline, which answers at once.
#[derive(Debug)]
struct Transport;

#[async_trait::async_trait]
impl Policy for Transport {
    async fn send(
        &self,
        _: &AzureContext,
        request: &mut AzureRequest,
        _: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        std::hint::black_box(request);
        let answer = AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), Bytes::new());
        Ok(answer)
    }
}

struct Azure {
    name: &'static str,
    policies: Vec<Arc<dyn Policy>>,
    requests: Vec<AzureRequest>,
    url: Url,
}

impl Azure {
    fn new(name: &'static str, authorizes: bool) -> Self {
        let mut policies: Vec<Arc<dyn Policy>> = vec![Arc::new(Transport)];
        if authorizes {
            let policy = BearerTokenAuthorizationPolicy::new(Arc::new(Credential), ["orders"]);
            policies.insert(0, Arc::new(policy));
        }
        Self {
            name,
            policies,
            requests: Vec::new(),
            url: "https://api.example.com/v1/orders?id=42"
                .parse()
                .expect("it is one"),
        }
    }
}

impl Runner for Azure {
    fn name(&self) -> &'static str {
        self.name
    }

    fn fill(&mut self, count: usize) {
        self.requests.clear();
        for _ in 0..count {
            let mut request = AzureRequest::new(self.url.clone(), Method::Post);
            for number in 0..HEADERS {
                request.insert_header(
                    format!("x-further-{number}"),
                    format!("value number {number}"),
                );
            }
            request.set_body(Bytes::from_static(KILOBYTE));
            self.requests.push(request);
        }
    }

    fn run(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for mut request in self.requests.drain(..) {
            let context = AzureContext::new();
            let sending = self.policies[0].send(&context, &mut request, &self.policies[1..]);
            let answer = pin!(sending).poll(&mut cx);
            assert!(matches!(answer, Poll::Ready(Ok(_))));
        }
    }
}
