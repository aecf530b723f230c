//! Several processes share a session in Redis and use each refresh token once.
//!
//! `REDIS_URL=redis://127.0.0.1:6379/ cargo run -p stack-examples --example fleet`
//!
//! The authorization server and the API run on this machine. The server is strict: each refresh replaces the refresh
//! token, and using an old one ends the session. [`client`] is what each of your processes would contain. The rest is
//! servers, processes, and checks.

#[path = "../vendor/local_vendor.rs"]
mod local_vendor;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env,
    process::{ExitCode, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use local_vendor::LocalVendor;
use support::{Options, check};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::sleep,
};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, OAuthClient, Origins, RedisStore, RefreshTokenSource,
    ReplayBody,
    testing::{AuthorizationServer, Dialect},
};

type HttpClient = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// All processes pass the same arguments, the first refresh token included: it begins the session, and from then on the
/// store has the refresh token that works.
fn client(
    redis_url: &str,
    session: &str,
    token_url: &str,
    refresh_token: &str,
    api: &str,
) -> Result<BearerAuth<HttpClient>, BoxError> {
    let store = RedisStore::new(redis_url, session)?
        // The example leaves nothing behind. A real session must be kept for longer than a refresh token lives.
        .session_ttl(Duration::from_secs(60));
    let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source = RefreshTokenSource::new(oauth, refresh_token)
        .origins(Origins::only([api])?)
        .store(store);
    Ok(ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(Client::builder(TokioExecutor::new()).build_http()))
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, processes, and checks.

const PROCESSES: usize = 4;
const ORDERS: usize = 50;
/// Every process gets the next token before that one is revoked as well.
const BETWEEN_REVOCATIONS: Duration = Duration::from_secs(2);

/// The variables that tell a process what to do. Command lines would show the refresh token to other users.
const SESSION: &str = "FLEET_SESSION";
const TOKEN_URL: &str = "FLEET_TOKEN_URL";
const REFRESH_TOKEN: &str = "FLEET_REFRESH_TOKEN";
const API: &str = "FLEET_API";

const OPTIONS: Options = Options::new(
    "-p stack-examples --example fleet",
    "Starts 4 processes that share one session in Redis, and revokes their tokens while they send orders.\n\n\
     Set REDIS_URL to redis://[user][:password@]host[:port][/database]. Without it, nothing is started. The session is\n\
     deleted from Redis within a minute.",
);

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, async |_| {
        let Ok(redis_url) = env::var("REDIS_URL") else {
            println!("REDIS_URL is not set, so there is nothing to do: see --help.");
            return Ok(());
        };
        if env::var_os(SESSION).is_some() {
            send_orders(&redis_url).await
        } else {
            start_processes(&redis_url).await
        }
    })
    .await
}

/// What each process does.
async fn send_orders(redis_url: &str) -> Result<(), BoxError> {
    let api = env::var(API)?;
    let client = client(
        redis_url,
        &env::var(SESSION)?,
        &env::var(TOKEN_URL)?,
        &env::var(REFRESH_TOKEN)?,
        &api,
    )?;
    for _ in 0..ORDERS {
        let request =
            Request::post(format!("{api}/orders")).body(Full::<Bytes>::from("one bicycle"))?;
        let response = client.clone().oneshot(request).await?;
        check(
            "the API accepts each order",
            response.status() == StatusCode::OK,
        )?;
        sleep(Duration::from_millis(100)).await;
    }
    println!("{ORDERS} orders accepted");
    Ok(())
}

async fn start_processes(redis_url: &str) -> Result<(), BoxError> {
    let vendor = LocalVendor::start(Dialect::Rfc6749).await?;
    let server = &vendor.server;
    let session = format!("example-{:016x}", fastrand::u64(..));
    let refresh_token = server.issue_refresh_token();
    let token_url = format!("{}{}", vendor.url(), server.token_path());

    let start = || -> Result<Child, BoxError> {
        let process = Command::new(env::current_exe()?)
            .env("REDIS_URL", redis_url)
            .env(SESSION, &session)
            .env(TOKEN_URL, &token_url)
            .env(REFRESH_TOKEN, &refresh_token)
            .env(API, vendor.url())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(process)
    };
    let mut processes = (0..PROCESSES)
        .map(|_| start())
        .collect::<Result<Vec<_>, _>>()?;
    let mut revocations = 0;
    while processes
        .iter_mut()
        .any(|process| !matches!(process.try_wait(), Ok(Some(_))))
    {
        sleep(BETWEEN_REVOCATIONS).await;
        server.revoke_access_tokens();
        revocations += 1;
    }
    for (n, process) in processes.iter_mut().enumerate() {
        let mut output = String::new();
        if let Some(stdout) = &mut process.stdout {
            stdout.read_to_string(&mut output).await?;
        }
        println!("process {}: {}", n + 1, output.trim_end());
        check("each process succeeds", process.wait().await?.success())?;
    }
    println!(
        "Tokens were revoked {revocations} times: {} refreshes, {} requests rejected, {} orders accepted.",
        server.refreshes(),
        vendor.api.rejected(),
        vendor.api.accepted()
    );
    check(
        "the API accepted all orders",
        vendor.api.accepted() == PROCESSES * ORDERS,
    )?;
    check(
        "each refresh token was used once",
        server.reuse_detected() == 0 && server.refreshes() == server.token_requests(),
    )?;
    check(
        "one refresh was enough for all processes",
        server.refreshes() <= revocations + 1,
    )?;
    check("the session is alive", server.live_sessions() == 1)
}
