//! A service that is operated by people: health, metrics for Prometheus, log lines, and an end that loses nothing.
//!
//! `cargo run -p stack-examples --example observed_service` runs it once, checks what it shows, and ends. With `-- --serve`
//! it goes on until Ctrl-C, so that you can look at `/health` and `/metrics`, and let a Prometheus read them.
//! `observed_service/rules.yml` has rules for alerts: the first one says that a person must log in.
//!
//! [`Service`] and its handlers are what a program of yours would contain. The rest is servers on this machine, and checks.

#[path = "../support/mod.rs"]
mod support;

use std::{
    future::Future,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use support::{Options, check};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{interval, sleep},
};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, Identity, OAuthClient, Origins, RefreshTokenSource,
    ReplayBody, StoredSession, TokenCache, TokenError, TokenErrorKind,
    testing::{self, AuthorizationServer, Dialect, Fault},
};
use tracing_subscriber::EnvFilter;

/// In seconds. Without them, the histograms would become summaries, which cannot be added up.
const BUCKETS: [f64; 8] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

type HttpClient = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

#[derive(Clone)]
struct Service {
    cache: TokenCache,
    client: BearerAuth<HttpClient>,
    orders: String,
    metrics: PrometheusHandle,
}

impl Service {
    fn router(self) -> Router {
        Router::new()
            .route("/orders", get(orders))
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// Installs what the process needs once. It comes before caches are built: they look for the recorder then.
fn install() -> Result<PrometheusHandle, BoxError> {
    // `RUST_LOG=tower_bearer::events=debug` shows each refresh.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &BUCKETS)?
        .install_recorder()?;
    Ok(handle)
}

/// The session of this service, and the names that it has in logs and metrics.
fn session(source: RefreshTokenSource) -> TokenCache {
    TokenCache::builder(source)
        .group("orders-api")
        .name("orders of the example")
        .metrics()
        .build()
}

async fn orders(State(service): State<Service>) -> Result<String, Failure> {
    let request = Request::get(&service.orders).body(Full::default())?;
    let response = service.client.clone().oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(format!("{status}: {}", String::from_utf8_lossy(&body)))
}

/// 503 if a person must log in: nothing else ends that. A failed refresh is no reason while the token is good.
async fn health(State(service): State<Service>) -> Response {
    let status = service.cache.status();
    let needs_login = status.last_error.as_ref().is_some_and(TokenError::is_final);
    let code = if needs_login {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let since_1970 = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
    let expiry = status.expires_at.and_then(since_1970);
    let health = json!({
        "session": service.cache.name(),
        "state": status.state,
        "needs_login": needs_login,
        "expires_at": expiry.as_ref().map(Duration::as_secs),
        "last_error": status.last_error.as_ref().map(TokenError::kind),
    });
    (code, Json(health)).into_response()
}

async fn metrics(State(service): State<Service>) -> impl IntoResponse {
    // Moves what was recorded into the buckets. A listener of the exporter would do it by itself.
    service.metrics.run_upkeep();
    let content_type = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, service.metrics.render())
}

/// The response if something fails.
struct Failure(BoxError);

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = self.0.downcast_ref::<TokenError>();
        let status = match error {
            Some(error) if error.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        // Errors of this crate contain no secrets.
        (status, format!("{}\n", self.0)).into_response()
    }
}

/// Serves until `stop` ends. Then requests that are running end, and so does a refresh: if it was cut off, a rotated refresh
/// token could be lost.
async fn serve(
    listener: TcpListener,
    service: Service,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), BoxError> {
    let cache = service.cache.clone();
    axum::serve(listener, service.router())
        .with_graceful_shutdown(stop)
        .await?;
    cache.close().await?;
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const SERVE: &str = "serve";
const LISTEN: &str = "listen";

const OPTIONS: Options = Options {
    optional: &[(LISTEN, "where to listen. Default: 127.0.0.1:0")],
    switches: &[(
        SERVE,
        "after the run, go on with one request a second until Ctrl-C, so that /metrics can be read",
    )],
    endless: Some(SERVE),
    ..Options::new(
        "-p stack-examples --example observed_service",
        "Runs an axum service that shows the health and the metrics of its session.",
    )
};

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, async |arguments| {
        let handle = install()?;
        let server = AuthorizationServer::new(Dialect::Rfc6749)
            .detect_reuse(true)
            .access_lifetime(Duration::from_secs(900));
        let (token_endpoint, api) = (
            testing::serve(server.clone()).await?,
            testing::serve(server.api()).await?,
        );
        let oauth = OAuthClient::new(format!("{}{}", token_endpoint.url(), server.token_path()))?
            .client_auth(ClientAuth::client_secret_basic(
                AuthorizationServer::CLIENT_ID,
                AuthorizationServer::CLIENT_SECRET,
            ));
        let source = RefreshTokenSource::new(oauth, server.issue_refresh_token())
            .origins(Origins::only([api.url()])?)
            .reauth_hint("log in at the portal, and give the new session to this service");
        let cache = session(source);
        let service = Service {
            client: ServiceBuilder::new()
                .layer(BearerAuthLayer::from(cache.clone()))
                .service(Client::builder(TokioExecutor::new()).build_http()),
            orders: format!("{}/orders", api.url()),
            metrics: handle,
            cache: cache.clone(),
        };
        let address = arguments.find(LISTEN).unwrap_or("127.0.0.1:0");
        let listener = TcpListener::bind(address).await?;
        let browser = Browser::new(listener.local_addr()?);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(serve(listener, service, async {
            // Dropping the sender is the same as sending.
            stopped.await.unwrap_or_default();
        }));
        look(&browser, &server, &cache).await?;
        if arguments.is_on(SERVE) {
            println!(
                "{}/metrics and /health can be read. Ctrl-C ends the service.",
                browser.url
            );
            go_on(&browser).await?;
        }
        // The token is rejected, and the refresh takes a second: the service ends in the middle of it.
        server.revoke_access_tokens();
        server.fault(Fault::Delay(Duration::from_secs(1)));
        let (last, ()) = tokio::join!(browser.get("/orders"), async {
            sleep(Duration::from_millis(300)).await;
            drop(stop);
        });
        running.await??;
        println!(
            "the last request was answered during the shutdown: {}",
            last?.1
        );
        check("no refresh runs any more", !cache.status().refreshing)?;
        check(
            "no refresh token was sent twice",
            server.reuse_detected() == 0,
        )
    })
    .await
}

struct Browser {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Browser {
    fn new(address: SocketAddr) -> Self {
        Self {
            url: format!("http://{address}"),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    async fn get(&self, path: &str) -> Result<(u16, String), BoxError> {
        let request = Request::get(format!("{}{path}", self.url)).body(Full::default())?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((
            head.status.as_u16(),
            String::from_utf8_lossy(&body).into_owned(),
        ))
    }

    async fn health(&self) -> Result<(u16, Value), BoxError> {
        let (status, text) = self.get("/health").await?;
        println!("/health: {status} {text}");
        Ok((status, serde_json::from_str(&text)?))
    }
}

/// A day in the life of a session, in some seconds.
async fn look(
    browser: &Browser,
    server: &AuthorizationServer,
    cache: &TokenCache,
) -> Result<(), BoxError> {
    let (status, health) = browser.health().await?;
    check(
        "before the first request there is no token",
        health["state"] == "empty",
    )?;
    check("which is no problem", status == 200)?;

    for _ in 0..5 {
        let (status, _) = browser.get("/orders").await?;
        check("the API answers", status == 200)?;
    }
    let (_, health) = browser.health().await?;
    check("the token is fresh", health["state"] == "fresh")?;

    server.revoke_access_tokens();
    let (status, text) = browser.get("/orders").await?;
    check(
        "the request was sent again",
        status == 200 && text.starts_with("200"),
    )?;

    // The authorization server ends the session. The service notices it when the API rejects the token.
    server.revoke_sessions();
    server.revoke_access_tokens();
    browser.get("/orders").await?;
    let (status, health) = browser.health().await?;
    check("a person must log in", status == 503)?;
    check("and the page says so", health["needs_login"] == true)?;
    let kind = serde_json::to_value(TokenErrorKind::ReauthRequired)?;
    check("with the kind of the error", health["last_error"] == kind)?;
    let (_, text) = browser.get("/metrics").await?;
    let labels = r#"{group="orders-api",grant="refresh_token"}"#;
    let dead = format!("tower_bearer_reauth_required{labels} 1");
    check("the alert has its metric", text.contains(&dead))?;
    check("no metric has the name", !text.contains(cache.name()))?;

    // A person logs in, and the service goes on without a restart.
    let refresh_token = server.issue_refresh_token();
    let identity = Identity::new("refresh", &refresh_token);
    let session = StoredSession::new(identity).with_refresh_token(refresh_token);
    cache.login(session).await?;
    let (status, _) = browser.get("/orders").await?;
    check("after a login it goes on", status == 200)?;
    let (status, _) = browser.health().await?;
    check("and is healthy", status == 200)?;

    let (_, text) = browser.get("/metrics").await?;
    let healthy = format!("tower_bearer_reauth_required{labels} 0");
    check("the alert ends", text.contains(&healthy))?;
    println!("/metrics:");
    let is_counter = |line: &&str| line.contains("_total{");
    for line in text.lines().filter(is_counter) {
        println!("  {line}");
    }
    Ok(())
}

/// One request a second, until Ctrl-C.
async fn go_on(browser: &Browser) -> Result<(), BoxError> {
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = ticks.tick() => drop(browser.get("/orders").await?),
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
    }
}
