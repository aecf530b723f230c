//! A service that acts for several tenants: a session for each, kept in a database, and a page that lists them.
//!
//! `cargo run -p stack-examples --example tenants` runs it once, checks what it does, and ends. With `-- --serve` it goes on
//! until Ctrl-C, so that you can look at the page. Sessions are in SQLite, in a temporary folder, or in Postgres with
//! `--postgres postgres://user@host/database`.
//!
//! [`sessions`], [`Service`] and its handlers are what a program of yours would contain. The rest is servers on this
//! machine, and checks.

#[path = "../support/mod.rs"]
mod support;

use std::{fmt::Write as _, process::ExitCode, time::SystemTime};

use axum::{
    Router,
    extract::{Path, State},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use support::{Options, check};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, BoxTokenStore, ClientAuth, Identity, KeyedSessions, OAuthClient,
    Origins, PostgresStore, RefreshTokenSource, ReplayBody, SessionKey, Sessions, SqlStore,
    SqliteStore, StoredSession, TokenCache, TokenError, TokenErrorKind, TokenState, TokenStore,
    testing::{self, AuthorizationServer, Dialect},
};

/// The tenants of this service. In a program of yours they are in its database.
const TENANTS: [&str; 3] = ["north", "south", "west"];

/// A tenant, in its canonical form.
type Tenant = String;

/// Where the sessions of all tenants are stored, over one pool of connections.
#[derive(Clone)]
enum Database {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Database {
    /// Connects to Postgres, or opens SQLite in `folder`. Makes the table if it is not there.
    async fn open(postgres: Option<&str>, folder: &std::path::Path) -> Result<Self, TokenError> {
        async fn ready<DB>(store: SqlStore<DB>) -> Result<SqlStore<DB>, TokenError> {
            store.create_table().await?;
            Ok(store)
        }
        Ok(match postgres {
            Some(url) => Self::Postgres(ready(PostgresStore::new(url, "tenants")?).await?),
            None => {
                Self::Sqlite(ready(SqliteStore::new(folder.join("sessions.db"), "tenants")?).await?)
            }
        })
    }

    /// The store of one tenant.
    fn store(&self, tenant: &Tenant) -> Result<BoxTokenStore, TokenError> {
        let name = format!("tenant-{tenant}");
        Ok(match self {
            Self::Sqlite(store) => store.session(name)?.boxed(),
            Self::Postgres(store) => store.session(name)?.boxed(),
        })
    }
}

/// The sessions of all tenants. One is made when the tenant's first request needs it.
fn sessions(database: Database, oauth: OAuthClient, origins: Origins) -> Sessions<Tenant> {
    Sessions::builder(move |tenant: Tenant| {
        let (database, oauth, origins) = (database.clone(), oauth.clone(), origins.clone());
        async move {
            // A request names its tenant. Only those that exist get a session.
            if !TENANTS.contains(&&*tenant) {
                return Err(TokenError::new(
                    TokenErrorKind::Config,
                    "there is no such tenant",
                ));
            }
            let source = RefreshTokenSource::stored(oauth)
                // The authorization server of this example has another port each time. One that stays needs no name.
                .session_name(&tenant)
                .store(database.store(&tenant)?)
                .origins(origins)
                .reauth_hint("press \"log in\" on the page of the sessions");
            // Logs tell the tenant. Metrics have all tenants in one group.
            Ok(TokenCache::builder(source)
                .group("tenants")
                .name(tenant)
                .build())
        }
    })
    .capacity(1_000)
    .build()
}

type HttpClient = Client<HttpConnector, ReplayBody<Full<Bytes>>>;
type ApiClient = BearerAuth<HttpClient, KeyedSessions<Tenant>>;

#[derive(Clone)]
struct Service {
    sessions: Sessions<Tenant>,
    /// One client for both APIs: what differs is the URL.
    client: ApiClient,
    orders: String,
    invoices: String,
    /// Stands for the page of the authorization server on which a person logs in.
    person: AuthorizationServer,
}

impl Service {
    /// The page of a real service is behind a login of its own, and its forms are protected against other sites.
    fn router(self) -> Router {
        Router::new()
            .route("/", get(page))
            .route("/{tenant}/orders", get(orders))
            .route("/{tenant}/invoices", get(invoices))
            .route("/{tenant}/login", post(login))
            .route("/{tenant}/revoke", post(revoke))
            .with_state(self)
    }

    /// Calls an API with the session of a tenant.
    async fn call(&self, tenant: Tenant, url: &str) -> Result<String, Failure> {
        let request = Request::get(url)
            // The only place that says whose token the request gets.
            .extension(SessionKey(tenant))
            .body(Full::default())
            .map_err(BoxError::from)?;
        let response = self.client.clone().oneshot(request).await?;
        let text = response
            .into_body()
            .collect()
            .await
            .map_err(BoxError::from)?;
        Ok(String::from_utf8_lossy(&text.to_bytes()).into_owned())
    }
}

async fn orders(
    State(service): State<Service>,
    Path(tenant): Path<Tenant>,
) -> Result<String, Failure> {
    service.call(tenant, &service.orders).await
}

async fn invoices(
    State(service): State<Service>,
    Path(tenant): Path<Tenant>,
) -> Result<String, Failure> {
    service.call(tenant, &service.invoices).await
}

/// A person has logged in again. The running session goes on with what that brought, here and in all other processes.
async fn login(
    State(service): State<Service>,
    Path(tenant): Path<Tenant>,
) -> Result<Redirect, Failure> {
    let refresh_token = service.person.issue_refresh_token();
    let session = StoredSession::new(Identity::new("refresh", &refresh_token))
        .with_refresh_token(refresh_token);
    service.sessions.get(&tenant).await?.login(session).await?;
    Ok(Redirect::to("/"))
}

/// Ends the session at the authorization server and in the store.
async fn revoke(
    State(service): State<Service>,
    Path(tenant): Path<Tenant>,
) -> Result<Redirect, Failure> {
    service.sessions.get(&tenant).await?.revoke().await?;
    Ok(Redirect::to("/"))
}

/// The response if something fails. A person who has to log in gets a status of its own.
struct Failure(BoxError);

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let kind = self.0.downcast_ref().map(TokenError::kind);
        let status = match kind {
            Some(TokenErrorKind::ReauthRequired) => StatusCode::CONFLICT,
            Some(TokenErrorKind::Config) => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_GATEWAY,
        };
        // Errors of this crate contain no secrets.
        (status, format!("{}\n", self.0)).into_response()
    }
}

/// Lists the sessions with their state.
async fn page(State(service): State<Service>) -> Html<String> {
    let mut rows = String::new();
    for tenant in TENANTS {
        let cache = service.sessions.peek(&tenant.to_owned());
        let status = cache.map(|cache| cache.status());
        let problem = status
            .as_ref()
            .and_then(|status| status.last_error.as_ref());
        let (state, class) = match &status {
            None => ("not in memory", "idle"),
            Some(_) if problem.is_some_and(TokenError::is_final) => ("log in again", "dead"),
            Some(status) if matches!(status.state, TokenState::Fresh | TokenState::Due) => {
                (status.state.as_str(), "live")
            }
            Some(status) => (status.state.as_str(), "idle"),
        };
        let problem = problem.map_or_else(String::new, |error| escaped(&error.to_string()));
        let expiry = status.as_ref().and_then(|status| status.expires_at);
        let expiry = expiry.and_then(|at| at.duration_since(SystemTime::now()).ok());
        let expiry = expiry.map_or_else(String::new, |left| format!("in {} s", left.as_secs()));
        let _ = write!(
            rows,
            "<tr><th scope=row>{tenant}<td class={class}>{state}<td>{expiry}<td>{problem}\
             <td class=actions><a href=/{tenant}/orders>orders</a> <a href=/{tenant}/invoices>invoices</a>\
             <form method=post action=/{tenant}/login><button>log in</button></form>\
             <form method=post action=/{tenant}/revoke><button>revoke</button></form>"
        );
    }
    Html(format!(
        "{PAGE_START}<table><tr><th>Tenant<th>Session<th>Token ends<th>Last problem<th>Actions{rows}</table>"
    ))
}

const PAGE_START: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Sessions</title>\
     <meta name=viewport content='width=device-width, initial-scale=1'><style>\
     body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}\
     table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.5rem;border-bottom:1px solid #ddd;\
     vertical-align:top}.live{color:#0a6b2d}.dead{color:#a11}.idle{color:#666}\
     .actions{white-space:nowrap}form{display:inline;margin-left:.5rem}\
     @media(max-width:40rem){tr{display:block;padding:.5rem 0}tr:first-child{display:none}th,td{display:block;border:0;\
     padding:.1rem 0}.actions{white-space:normal}}</style><h1>Sessions</h1>";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const SERVE: &str = "serve";

const OPTIONS: Options = Options {
    optional: &[(
        "postgres",
        "the URL of a Postgres database, instead of SQLite",
    )],
    switches: &[(
        SERVE,
        "go on until Ctrl-C, to look at the page in a browser",
    )],
    endless: Some(SERVE),
    ..Options::new(
        "-p stack-examples --example tenants",
        "Runs an axum service with a session for each tenant, kept in a database, and a page that lists the sessions.",
    )
};

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, async |arguments| {
        let folder = tempfile::tempdir()?;
        let server = AuthorizationServer::new(Dialect::Rfc6749).detect_reuse(true);
        let token_endpoint = testing::serve(server.clone()).await?;
        let [orders, invoices] = [
            testing::serve(server.api()).await?,
            testing::serve(server.api()).await?,
        ];
        let url = token_endpoint.url();
        let oauth = OAuthClient::new(format!("{url}{}", server.token_path()))?
            .revocation_url(format!("{url}/revoke"))?
            .client_auth(ClientAuth::client_secret_basic(
                AuthorizationServer::CLIENT_ID,
                AuthorizationServer::CLIENT_SECRET,
            ));
        let database = Database::open(arguments.find("postgres"), folder.path()).await?;
        let origins = Origins::only([orders.url(), invoices.url()])?;
        let sessions = sessions(database, oauth, origins);
        if arguments.find("postgres").is_some() {
            // What an earlier run has left: its authorization server is gone.
            for tenant in TENANTS {
                sessions.get(&tenant.to_owned()).await?.revoke().await?;
            }
        }
        let service = Service {
            client: ServiceBuilder::new()
                .layer(BearerAuthLayer::keyed(sessions.clone()))
                .service(Client::builder(TokioExecutor::new()).build_http()),
            sessions: sessions.clone(),
            orders: format!("{}/orders", orders.url()),
            invoices: format!("{}/invoices", invoices.url()),
            person: server.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let page = format!("http://{}", listener.local_addr()?);
        let running = tokio::spawn(axum::serve(listener, service.router()).into_future());
        if arguments.is_on(SERVE) {
            println!("{page}/ lists the sessions. Ctrl-C ends the service.");
            tokio::signal::ctrl_c().await?;
        } else {
            use_the_service(&page, &server).await?;
        }
        running.abort();
        // Nothing is lost: a running refresh ends, and what could not be saved is saved.
        sessions.close().await?;
        Ok(())
    })
    .await
}

async fn use_the_service(page: &str, server: &AuthorizationServer) -> Result<(), BoxError> {
    let browser: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let send = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{page}{path}"));
        let response = browser.request(request.body(Full::default())?).await?;
        let (head, body) = response.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        Ok::<_, BoxError>((head.status.as_u16(), text))
    };

    let (status, text) = send("GET", "/north/orders").await?;
    println!("before anybody has logged in: {status}, {text}");
    check("somebody has to log in first", status == 409)?;

    for tenant in TENANTS {
        send("POST", &format!("/{tenant}/login")).await?;
        for api in ["orders", "invoices"] {
            let (status, _) = send("GET", &format!("/{tenant}/{api}")).await?;
            check("both APIs answer", status == 200)?;
        }
    }
    check("a session and a refresh for each", server.refreshes() == 3)?;
    println!("three tenants have logged in, and both APIs answer each of them");

    // All access tokens are rejected from now on. Each session refreshes, and its request is sent again.
    server.revoke_access_tokens();
    for tenant in TENANTS {
        let (status, _) = send("GET", &format!("/{tenant}/orders")).await?;
        check("the request was sent again", status == 200)?;
    }

    send("POST", "/south/revoke").await?;
    let (status, text) = send("GET", "/south/orders").await?;
    println!("after the session of south was revoked: {status}, {text}");
    check("the session has ended", status == 409)?;
    let (status, _) = send("GET", "/north/orders").await?;
    check("the others go on", status == 200)?;
    let (_, text) = send("GET", "/").await?;
    check("the page says so", text.contains("log in again"))?;

    send("POST", "/south/login").await?;
    let (status, _) = send("GET", "/south/orders").await?;
    check("after a login it goes on, without a restart", status == 200)?;
    let (status, _) = send("GET", "/elsewhere/orders").await?;
    check("a tenant that does not exist has no session", status == 404)?;
    check(
        "no refresh token was sent twice",
        server.reuse_detected() == 0,
    )
}
