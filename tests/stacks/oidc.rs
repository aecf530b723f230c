//! Sessions at a real authorization server, npm's `oidc-provider`. It is certified, rotates refresh tokens, and ends a
//! session when a used refresh token or code is used again. The same test runs with each client library.
//!
//! Needs Node.js, and `OIDC_PROVIDER_HOME`: a folder where `npm install oidc-provider@9.13.3` has been run.

#[allow(dead_code, reason = "`main` and the demonstration of the example")]
#[path = "../../examples/stacks/axum_gateway.rs"]
mod axum_gateway;
#[path = "../../examples/stacks/support/grpc.rs"]
mod grpc;
#[path = "support/oidc_provider.rs"]
mod oidc_provider;
#[path = "../support/mod.rs"]
mod support;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body as AxumBody;
use bytes::Bytes;
use grpc::EchoClient;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use oidc_provider::OidcProvider;
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{
    Code, Status,
    body::Body as TonicBody,
    transport::{Channel, Endpoint},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, ExchangeTokenSource, OAuthClient, RefreshTokenSource, ReplayBody,
    ReqwestTransport, Schedule, TokenCache, TokenError, TokenErrorKind,
    testing::{self, Served},
};

const CLIENT_ID: &str = "client:1";
const CLIENT_SECRET: &str = "s3cr+t/=&% and more";
const AT_ONCE: usize = 10;

// ---------------------------------------------------------------------------------------------------------------------
// The servers.

/// The authorization server, and the requests that it gets from others than its client.
struct Provider {
    url: String,
    http: reqwest::Client,
    _process: OidcProvider,
}

impl Provider {
    async fn start() -> Self {
        let process = OidcProvider::start().await;
        Self {
            url: process.url.clone(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _process: process,
        }
    }

    async fn post(&self, path: &str, user: (&str, &str), form: &[(&str, &str)]) -> (u16, Bytes) {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        // RFC 6749 §2.3.1
        let encode = |part: &str| form_urlencoded::byte_serialize(part.as_bytes()).collect();
        let (id, secret): (String, String) = (encode(user.0), encode(user.1));
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .basic_auth(id, Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap())
    }

    /// Logs in, and returns the refresh token or the code that the session begins with.
    async fn log_in(&self, grant: InitialGrant) -> String {
        let path = match grant {
            InitialGrant::RefreshToken => "/login/refresh_token",
            InitialGrant::Code => "/login/code",
        };
        let (status, token) = self.post(path, (CLIENT_ID, CLIENT_SECRET), &[]).await;
        assert_eq!(status, 200);
        String::from_utf8(token.into()).unwrap()
    }

    /// Revokes one access token. The session goes on.
    async fn revoke_access_token(&self, access_token: &str) {
        let path = format!("/revoke_access_token/{access_token}");
        let (status, _) = self.post(&path, (CLIENT_ID, CLIENT_SECRET), &[]).await;
        assert_eq!(status, 200);
        assert!(!self.is_live(access_token).await);
    }

    /// Logs out (RFC 7009). This server revokes the refresh token, too.
    async fn log_out(&self, access_token: &str) {
        let form = [("token", access_token)];
        let user = (CLIENT_ID, CLIENT_SECRET);
        assert_eq!(self.post("/token/revocation", user, &form).await.0, 200);
    }

    /// Introspects the token (RFC 7662), as an API does for each request.
    async fn is_live(&self, access_token: &str) -> bool {
        let form = [("token", access_token)];
        let user = ("api", "api-secret");
        let (status, answer) = self.post("/token/introspection", user, &form).await;
        assert_eq!(status, 200);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        answer["active"] == true
    }

    /// Uses the initial refresh token or code again, as a thief would.
    async fn reuse(&self, grant: InitialGrant, token: &str) {
        let form = match grant {
            InitialGrant::RefreshToken => {
                [("grant_type", "refresh_token"), ("refresh_token", token)]
            }
            InitialGrant::Code => [("grant_type", "authorization_code"), ("code", token)],
        };
        let (status, answer) = self.post("/token", (CLIENT_ID, CLIENT_SECRET), &form).await;
        assert_eq!(status, 400, "{answer:?}");
    }

    fn source(&self, grant: InitialGrant, token: String) -> TokenCache {
        let endpoint = OAuthClient::new(format!("{}/token", self.url))
            .unwrap()
            .client_auth(ClientAuth::client_secret_basic(CLIENT_ID, CLIENT_SECRET));
        let schedule = Schedule::default().min_interval(Duration::from_millis(1));
        match grant {
            InitialGrant::RefreshToken => {
                let source = RefreshTokenSource::new(endpoint, token);
                TokenCache::builder(source).schedule(schedule).build()
            }
            InitialGrant::Code => {
                let source = ExchangeTokenSource::new(endpoint, token)
                    .grant_type("authorization_code", "code")
                    .reusable(false);
                TokenCache::builder(source).schedule(schedule).build()
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum InitialGrant {
    RefreshToken,
    Code,
}

#[derive(Clone, Copy, Debug)]
enum SessionEnd {
    Theft,
    LogOut,
}

/// An API that echoes over HTTP and gRPC if the provider says that the token is active.
async fn api(provider: &Arc<Provider>) -> Served {
    let provider = provider.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let provider = provider.clone();
        async move {
            let token = request.headers().get(header::AUTHORIZATION);
            let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
            let live = provider.is_live(token.unwrap_or_default()).await;
            if request.uri().path().starts_with("/echo.Echo/") {
                let rejected = || Status::unauthenticated("the token is not active");
                let check = |_: &str| live.then_some(()).ok_or_else(rejected);
                let answer = grpc::answer(request, check).await?;
                return Ok::<_, Infallible>(answer.map(AxumBody::new));
            }
            let (status, body) = if live {
                (StatusCode::OK, AxumBody::new(request.into_body()))
            } else {
                (StatusCode::UNAUTHORIZED, AxumBody::empty())
            };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            Ok(response)
        }
    });
    testing::serve(service).await.unwrap()
}

// ---------------------------------------------------------------------------------------------------------------------
// The clients.

/// Sends a text and returns its echo, or the error that the caller sees.
type Echo = BoxCloneSyncService<String, String, EchoError>;

#[derive(Clone, Debug, PartialEq)]
enum EchoError {
    /// The API's own response, with the reason in its extensions.
    Response(StatusCode, Option<TokenErrorKind>),
    Grpc(Code),
}

/// Sends a text with any HTTP client.
async fn echo_over_http<S, B>(client: S, url: String, text: String) -> Result<String, EchoError>
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<B>, Error: std::fmt::Debug>,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let request = Request::post(url).body(Full::from(text)).unwrap();
    let response = client.oneshot(request).await.unwrap();
    if response.status() != StatusCode::OK {
        let reason = response.extensions().get().map(TokenError::kind);
        return Err(EchoError::Response(response.status(), reason));
    }
    Ok(support::text(response).await)
}

fn hyper(session: &TokenCache, api: &Served) -> Echo {
    let client = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Full<Bytes>>>();
    let client = BearerAuthLayer::from(session.clone()).layer(client);
    let url = api.url();
    BoxCloneSyncService::new(service_fn(move |text| {
        echo_over_http(client.clone(), url.clone(), text)
    }))
}

fn reqwest(session: &TokenCache, api: &Served) -> Echo {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let client =
        BearerAuthLayer::from(session.clone()).layer(ReqwestTransport::from_client(client));
    let url = api.url();
    BoxCloneSyncService::new(service_fn(move |text| {
        echo_over_http(client.clone(), url.clone(), text)
    }))
}

fn tonic(session: &TokenCache, api: &Served) -> Echo {
    let channel: Channel = Endpoint::from_shared(api.url()).unwrap().connect_lazy();
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(session.clone()))
        .map_request(|request: Request<ReplayBody<TonicBody>>| request.map(TonicBody::new))
        .service(channel);
    let client = EchoClient::with_origin(stack, api.url().parse().unwrap());
    BoxCloneSyncService::new(service_fn(move |text: String| {
        let client = client.clone();
        async move {
            let echo = client.say(text).await;
            echo.map_err(|status| EchoError::Grpc(status.code()))
        }
    }))
}

async fn axum(session: &TokenCache, api: &Served) -> Echo {
    let outbound = axum_gateway::api_client(BearerAuthLayer::from(session.clone()));
    let gateway = axum_gateway::gateway(outbound, &api.url()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, gateway).into_future());
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    BoxCloneSyncService::new(service_fn(move |text| {
        echo_over_http(client.clone(), url.clone(), text)
    }))
}

// ---------------------------------------------------------------------------------------------------------------------

/// Runs a session from its beginning to its end.
async fn run_session(make: impl AsyncFn(TokenCache, Arc<Served>) -> Echo, logged_out: EchoError) {
    let provider = Arc::new(Provider::start().await);
    let api = Arc::new(api(&provider).await);
    for (grant, end) in [
        (InitialGrant::RefreshToken, SessionEnd::Theft),
        (InitialGrant::Code, SessionEnd::Theft),
        (InitialGrant::Code, SessionEnd::LogOut),
    ] {
        let first = provider.log_in(grant).await;
        let session = provider.source(grant, first.clone());
        let echo = make(session.clone(), api.clone()).await;
        let say = |text: &str| echo.clone().oneshot(text.to_owned());

        assert_eq!(say("hello").await.unwrap(), "hello", "{grant:?}");
        // The refresh token rotates each time.
        for n in 1..4 {
            let token = session.token().await.unwrap();
            provider.revoke_access_token(token.expose_secret()).await;
            assert_eq!(say("and again").await.unwrap(), "and again", "{grant:?}");
            let status = session.status();
            assert_eq!((status.issued, status.rejected), (n + 1, n), "{grant:?}");
        }

        let token = session.token().await.unwrap();
        provider.revoke_access_token(token.expose_secret()).await;
        let mut saying: JoinSet<_> = (0..AT_ONCE).map(|n| say(&n.to_string())).collect();
        while let Some(result) = saying.join_next().await {
            result
                .unwrap()
                .expect("each request succeeds after a replay");
        }
        assert_eq!(session.status().issued, 5, "one refresh for all of them");

        let token = session.token().await.unwrap();
        match end {
            // The initial token has been used since, so the server ends the session.
            SessionEnd::Theft => provider.reuse(grant, &first).await,
            SessionEnd::LogOut => provider.log_out(token.expose_secret()).await,
        }
        assert!(!provider.is_live(token.expose_secret()).await);
        assert_eq!(
            say("after the end").await.unwrap_err(),
            logged_out,
            "{grant:?}"
        );
        let error = session.refresh().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{grant:?}");
        assert_eq!(error.oauth_code(), Some("invalid_grant"), "{grant:?}");
    }
}

fn unauthorized() -> EchoError {
    EchoError::Response(
        StatusCode::UNAUTHORIZED,
        Some(TokenErrorKind::ReauthRequired),
    )
}

#[tokio::test]
#[ignore = "needs npm oidc-provider: a folder with it in `OIDC_PROVIDER_HOME`"]
async fn a_session_with_hyper() {
    run_session(async |session, api| hyper(&session, &api), unauthorized()).await;
}

#[tokio::test]
#[ignore = "needs npm oidc-provider: a folder with it in `OIDC_PROVIDER_HOME`"]
async fn a_session_with_reqwest() {
    run_session(async |session, api| reqwest(&session, &api), unauthorized()).await;
}

#[tokio::test]
#[ignore = "needs npm oidc-provider: a folder with it in `OIDC_PROVIDER_HOME`"]
async fn a_session_with_tonic() {
    let unauthenticated = EchoError::Grpc(Code::Unauthenticated);
    run_session(async |session, api| tonic(&session, &api), unauthenticated).await;
}

#[tokio::test]
#[ignore = "needs npm oidc-provider: a folder with it in `OIDC_PROVIDER_HOME`"]
async fn a_session_with_axum() {
    // The gateway does not pass the session's error on to its callers.
    let bad_gateway = EchoError::Response(StatusCode::BAD_GATEWAY, None);
    run_session(async |session, api| axum(&session, &api).await, bad_gateway).await;
}
