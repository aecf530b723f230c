//! hyper and reqwest over real TLS, with a certificate authority of the test, and a server that drops connections.

#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    error::Error,
    future::ready,
    io, iter,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::{FullRequest, text};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};
use tower::{
    BoxError, Layer, Service, ServiceExt, service_fn,
    util::{BoxCloneService, BoxCloneSyncService},
};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, Origins, RefreshTokenSource, ReplayBody,
    ReqwestTransport, Schedule, TokenCache, TokenError,
    testing::{AuthorizationServer, Dialect, ProtectedApi, ResponseBody},
};

/// Not a loopback name, so only https is allowed.
const HOST: &str = "api.example.com";

// ---------------------------------------------------------------------------------------------------------------------
// The certificate authority.

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// The configuration of a server for [`HOST`].
    fn server(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([HOST.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// The configuration of a client that trusts only this authority.
    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

// ---------------------------------------------------------------------------------------------------------------------
// The server.

type Serve = BoxCloneService<Request<hyper::body::Incoming>, Response<CutBody>, io::Error>;

/// A server behind TLS. It stops when it is dropped.
struct TlsServer {
    addr: SocketAddr,
    _open: JoinSet<()>,
}

impl TlsServer {
    /// `open` decides for each connection whether it is accepted or closed at once.
    async fn open(
        config: ServerConfig,
        service: Serve,
        mut open: impl FnMut() -> bool + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if !open() {
                    continue;
                }
                stream.set_nodelay(true).unwrap();
                let (acceptor, service) = (acceptor.clone(), service.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let answer = hyper::service::service_fn(move |request| {
                        let service = service.clone();
                        service.oneshot(request)
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    // The client notices a broken connection.
                    let serving = server.serve_connection(TokioIo::new(stream), answer);
                    serving.await.ok();
                });
            }
        });
        Self {
            addr,
            _open: accepting,
        }
    }

    async fn serve(config: ServerConfig, service: impl InMemory) -> Self {
        let service = service
            .map_response(|response: Response<ResponseBody>| response.map(CutBody::uncut))
            .map_err(io::Error::other);
        Self::open(config, BoxCloneService::new(service), || true).await
    }

    fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.addr.port())
    }
}

trait InMemory:
    Service<
        Request<hyper::body::Incoming>,
        Response = Response<ResponseBody>,
        Error = BoxError,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
}

impl InMemory for AuthorizationServer {}
impl InMemory for ProtectedApi {}

/// A response body that may break the connection before its end.
struct CutBody {
    inner: ResponseBody,
    /// The number of polls before that: one for a frame, and one to let that frame be sent.
    after: Option<usize>,
}

impl CutBody {
    fn uncut(inner: ResponseBody) -> Self {
        Self { inner, after: None }
    }
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.after {
            Some(0) => return Poll::Ready(Some(Err(io::Error::other("cut")))),
            Some(polls @ 1) => {
                *polls = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(polls) => *polls -= 1,
            None => {}
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        polled.map_err(|never| match never {})
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The clients.

type Http = BoxCloneSyncService<FullRequest, Response<Received>, BoxError>;
type Received = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

#[derive(Clone, Copy, Debug)]
enum ClientKind {
    Hyper { http2: bool },
    Reqwest,
}

const CLIENT_KINDS: [ClientKind; 3] = [
    ClientKind::Hyper { http2: false },
    ClientKind::Hyper { http2: true },
    ClientKind::Reqwest,
];

/// Resolves any name to this machine.
#[derive(Clone)]
struct LocalResolver;

impl Service<Name> for LocalResolver {
    type Response = iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(iter::once(SocketAddr::from(([127, 0, 0, 1], 0)))))
    }
}

fn hyper<B>(
    config: ClientConfig,
    http2: bool,
) -> Client<HttpsConnector<HttpConnector<LocalResolver>>, B>
where
    B: Body<Data: Send> + Send,
{
    let mut http_connector = HttpConnector::new_with_resolver(LocalResolver);
    http_connector.enforce_http(false);
    http_connector.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only();
    let connector = if http2 {
        tls.enable_http2().wrap_connector(http_connector)
    } else {
        tls.enable_http1().wrap_connector(http_connector)
    };
    Client::builder(TokioExecutor::new()).build(connector)
}

fn reqwest(config: ClientConfig) -> ReqwestTransport {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .resolve(HOST, here)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .https_only(true);
    ReqwestTransport::from_client(client.build().unwrap())
}

fn received<B>(response: Response<B>) -> Response<Received>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// A client whose token requests and API requests both use `client_kind` over TLS.
fn session(
    client_kind: ClientKind,
    config: &ClientConfig,
    server: &AuthorizationServer,
    tokens: &str,
) -> Http {
    let endpoint = match client_kind {
        ClientKind::Hyper { http2 } => {
            OAuthClient::with_transport(tokens, hyper(config.clone(), http2))
        }
        ClientKind::Reqwest => OAuthClient::with_transport(tokens, reqwest(config.clone())),
    };
    let endpoint = endpoint
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
    let cache = TokenCache::builder(source)
        .schedule(Schedule::default().min_interval(Duration::from_millis(1)))
        .build();
    let bearer = BearerAuthLayer::from(cache).origins(Origins::any_https());
    match client_kind {
        ClientKind::Hyper { http2 } => {
            let client = hyper::<ReplayBody<Full<Bytes>>>(config.clone(), http2);
            BoxCloneSyncService::new(bearer.layer(client).map_response(received))
        }
        ClientKind::Reqwest => {
            let client = bearer.layer(reqwest(config.clone()));
            BoxCloneSyncService::new(ServiceExt::<FullRequest>::map_response(client, received))
        }
    }
}

fn order(url: &str, id: &str) -> FullRequest {
    Request::post(url)
        .header("x-request-id", id)
        .body(Full::from("a bicycle"))
        .unwrap()
}

// ---------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn tokens_are_sent_and_refreshed_over_tls() {
    let authority = Authority::new();
    for client_kind in CLIENT_KINDS {
        let server = AuthorizationServer::new(Dialect::Rfc6749);
        let api = server.api();
        let tokens = TlsServer::serve(authority.server(), server.clone()).await;
        let api_server = TlsServer::serve(authority.server(), api.clone()).await;
        let token_url = tokens.url(&server.token_path());
        let client = session(client_kind, &authority.client(), &server, &token_url);
        for id in ["first", "revoked"] {
            let request = order(&api_server.url("/orders"), id);
            let response = client.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200, "{client_kind:?}");
            if let ClientKind::Hyper { http2 } = client_kind {
                assert_eq!(response.version() == Version::HTTP_2, http2);
            }
            assert_eq!(text(response).await, "a bicycle");
            server.revoke_access_tokens();
        }
        assert_eq!((api.accepted(), api.rejected()), (2, 1), "{client_kind:?}");
        assert_eq!(server.refreshes(), 2, "{client_kind:?}");
    }
}

#[tokio::test]
async fn no_token_is_sent_to_a_server_with_an_unknown_certificate_authority() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for client_kind in CLIENT_KINDS {
        let server = AuthorizationServer::new(Dialect::Rfc6749);
        let api = server.api();

        // The refresh token is not sent.
        let tokens = TlsServer::serve(theirs.server(), server.clone()).await;
        let api_server = TlsServer::serve(ours.server(), api.clone()).await;
        let token_url = tokens.url(&server.token_path());
        let client = session(client_kind, &ours.client(), &server, &token_url);
        let error = client.oneshot(order(&api_server.url("/"), "a")).await.err();
        let error = error.expect("the token request must fail");
        let error: &TokenError = error.downcast_ref().unwrap();
        assert!(error.is_transient(), "{error:?}");
        assert!(
            cause_chain(error).contains("InvalidCertificate"),
            "{}",
            cause_chain(error)
        );
        assert_eq!((server.token_requests(), api.received()), (0, 0));

        // The access token is not sent.
        let tokens = TlsServer::serve(ours.server(), server.clone()).await;
        let api_server = TlsServer::serve(theirs.server(), api.clone()).await;
        let token_url = tokens.url(&server.token_path());
        let client = session(client_kind, &ours.client(), &server, &token_url);
        let error = client.oneshot(order(&api_server.url("/"), "b")).await.err();
        let error = error.expect("the API request must fail");
        assert!(!error.is::<TokenError>(), "{error:?}");
        let causes = cause_chain(&*error);
        assert!(causes.contains("InvalidCertificate"), "{causes}");
        assert_eq!((server.refreshes(), api.received()), (1, 0));
    }
}

fn cause_chain(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    format!("{:?}", causes.collect::<Vec<_>>())
}

// ---------------------------------------------------------------------------------------------------------------------
// A server that drops connections.

/// The result of an attempt, as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptResult {
    Served,
    Rejected,
    /// No response: the connection was closed after the request had been read.
    Dropped,
    /// The connection was closed in the middle of the response body.
    Cut,
}

type AttemptLog = Arc<Mutex<HashMap<String, Vec<AttemptResult>>>>;
type SharedRng = Arc<Mutex<fastrand::Rng>>;

/// The API behind unreliable connections.
fn unreliable(api: ProtectedApi, rng: SharedRng, log: AttemptLog) -> Serve {
    BoxCloneService::new(service_fn(move |request: Request<_>| {
        let (api, rng, log) = (api.clone(), rng.clone(), log.clone());
        async move {
            let id = request.headers()["x-request-id"]
                .to_str()
                .unwrap()
                .to_owned();
            let response = api.oneshot(request).await.map_err(io::Error::other)?;
            let attempts = match rng.lock().unwrap().u8(..8) {
                0 => AttemptResult::Dropped,
                _ if response.status() == 401 => AttemptResult::Rejected,
                1 => AttemptResult::Cut,
                _ => AttemptResult::Served,
            };
            log.lock().unwrap().entry(id).or_default().push(attempts);
            match attempts {
                AttemptResult::Dropped => Err(io::Error::other("dropped")),
                attempts => Ok(response.map(|inner| CutBody {
                    inner,
                    after: (attempts == AttemptResult::Cut).then_some(2),
                })),
            }
        }
    }))
}

#[tokio::test]
async fn when_connections_break_only_rejected_requests_are_sent_again() {
    const REQUESTS: usize = 300;
    let authority = Authority::new();
    for (client_kind, seed) in CLIENT_KINDS.into_iter().zip([1, 2, 3]) {
        let server = AuthorizationServer::new(Dialect::Rfc6749);
        let tokens = TlsServer::serve(authority.server(), server.clone()).await;
        let (rng, log) = (SharedRng::default(), AttemptLog::default());
        rng.lock().unwrap().seed(seed);
        let service = unreliable(server.api(), rng.clone(), log.clone());
        let open = move || rng.lock().unwrap().u8(..8) != 0;
        let api_server = TlsServer::open(authority.server(), service, open).await;
        let token_url = tokens.url(&server.token_path());
        let client = session(client_kind, &authority.client(), &server, &token_url);

        let mut counts = HashMap::<_, usize>::new();
        for n in 0..REQUESTS {
            // Ten times: so many tokens in a row may be rejected soon after they came.
            if n % 30 == 29 {
                server.revoke_access_tokens();
            }
            let id = format!("order-{n}");
            let request = order(&api_server.url("/orders"), &id);
            let result = match client.clone().oneshot(request).await {
                Ok(response) => {
                    assert_eq!(
                        response.status(),
                        200,
                        "{client_kind:?} {id}: only the token is rejected"
                    );
                    match response.into_body().collect().await {
                        Ok(body) => {
                            assert_eq!(body.to_bytes(), "a bicycle", "{client_kind:?} {id}");
                            "answered"
                        }
                        Err(_) => "cut",
                    }
                }
                Err(error) => {
                    assert!(!error.is::<TokenError>(), "{client_kind:?} {id}: {error:?}");
                    "failed"
                }
            };
            // The results of the attempts at the server, and the result that the caller must see.
            let attempts = log.lock().unwrap().remove(&id).unwrap_or_default();
            let expected = match attempts[..] {
                [AttemptResult::Served] | [AttemptResult::Rejected, AttemptResult::Served] => {
                    "answered"
                }
                [AttemptResult::Cut] | [AttemptResult::Rejected, AttemptResult::Cut] => "cut",
                // Never sent, or without a response: its effect is unknown, so it is not sent again.
                []
                | [AttemptResult::Dropped | AttemptResult::Rejected]
                | [AttemptResult::Rejected, AttemptResult::Dropped] => "failed",
                _ => panic!("{client_kind:?} {id}: {attempts:?}"),
            };
            assert_eq!(result, expected, "{client_kind:?} {id}: {attempts:?}");
            *counts.entry((result, attempts.len() > 1)).or_default() += 1;
        }
        // Each kind of result must have occurred, or the test would show nothing.
        for seen in [
            ("answered", false),
            ("answered", true),
            ("failed", false),
            ("cut", false),
        ] {
            assert!(
                counts.contains_key(&seen),
                "{client_kind:?}: no {seen:?} in {counts:?}"
            );
        }
        assert_eq!(server.live_sessions(), 1);
        assert_eq!(server.reuse_detected(), 0);
    }
}
