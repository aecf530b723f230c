//! Several processes share one session in Redis, and use each refresh token once.
//!
//! `REDIS_URL=redis://127.0.0.1:6379/ cargo run --example fleet`, or with `-- --help`.
//!
//! The authorization server and the API are on this machine; the server is strict: it gives a new refresh token with each
//! answer, and ends the session if an old one comes back. [`session`] is what you would write in each of your processes.

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
use support::{check, local_vendor::LocalVendor};
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

/// All processes say the same, also with the same refresh token: it begins the session, and the store has what came of it.
fn session(
    redis_url: &str,
    name: &str,
    token_url: &str,
    refresh_token: &str,
    api: &str,
) -> Result<BearerAuth<HttpClient>, BoxError> {
    let store = RedisStore::new(redis_url, name)?
        // Nothing of this example is to stay behind; yours should live longer than a refresh token does.
        .session_ttl(Duration::from_secs(60));
    let endpoint = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source = RefreshTokenSource::new(endpoint, refresh_token)
        .origins(Origins::only([api])?)
        .store(store);
    Ok(ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(Client::builder(TokioExecutor::new()).build_http()))
}

// ---------------------------------------------------------------------------------------------------------------------
// The stage.

const PROCESSES: usize = 4;
const ORDERS: usize = 50;
/// Long enough for every process to have the next token before that one is revoked, too.
const BETWEEN_REVOCATIONS: Duration = Duration::from_secs(2);

const HELP: &str = "\
Starts 4 processes that share one session in Redis, and revokes their tokens under them.

Usage: REDIS_URL=redis://[user][:password@]host[:port][/database] cargo run --example fleet

Without REDIS_URL nothing is started. What is stored ends by itself within a minute.
";

#[tokio::main]
async fn main() -> ExitCode {
    support::run(async {
        let arguments: Vec<String> = env::args().skip(1).collect();
        match &arguments[..] {
            [help] if help == "--help" || help == "-h" => {
                print!("{HELP}");
                Ok(())
            }
            [] => {
                let Ok(redis_url) = env::var("REDIS_URL") else {
                    println!("There is no REDIS_URL, so there is nothing to share: see --help.");
                    return Ok(());
                };
                fleet(&redis_url).await
            }
            [member, name, token_url, api] if member == "member" => {
                order(name, token_url, api).await
            }
            _ => Err("unknown arguments: see --help".into()),
        }
    })
    .await
}

/// What each of the processes does.
async fn order(name: &str, token_url: &str, api: &str) -> Result<(), BoxError> {
    // Secrets are not for command lines, which others can see.
    let client = session(
        &env::var("REDIS_URL")?,
        name,
        token_url,
        &env::var("REFRESH_TOKEN")?,
        api,
    )?;
    for _ in 0..ORDERS {
        let request =
            Request::post(format!("{api}/orders")).body(Full::<Bytes>::from("one bicycle"))?;
        let response = client.clone().oneshot(request).await?;
        check(
            "each order is accepted",
            response.status() == StatusCode::OK,
        )?;
        sleep(Duration::from_millis(100)).await;
    }
    println!("{ORDERS} orders accepted");
    Ok(())
}

async fn fleet(redis_url: &str) -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749).detect_reuse(true);
    let vendor = LocalVendor::open(server.clone()).await?;
    let name = format!("example-{:016x}", fastrand::u64(..));
    let refresh_token = server.issue_refresh_token();
    let token_url = format!("{}{}", vendor.url(), server.token_path());

    let launch = || -> Result<Child, BoxError> {
        let process = Command::new(env::current_exe()?)
            .args(["member", &name, &token_url, &vendor.url()])
            .env("REDIS_URL", redis_url)
            .env("REFRESH_TOKEN", &refresh_token)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(process)
    };
    let mut processes = (0..PROCESSES)
        .map(|_| launch())
        .collect::<Result<Vec<_>, _>>()?;
    let mut revoked = 0;
    while processes
        .iter_mut()
        .any(|process| !matches!(process.try_wait(), Ok(Some(_))))
    {
        sleep(BETWEEN_REVOCATIONS).await;
        server.revoke_access_tokens();
        revoked += 1;
    }
    for (n, process) in processes.iter_mut().enumerate() {
        let mut told = String::new();
        if let Some(output) = &mut process.stdout {
            output.read_to_string(&mut told).await?;
        }
        println!("process {}: {}", n + 1, told.trim_end());
        check(
            "each process does its work",
            process.wait().await?.success(),
        )?;
    }
    println!(
        "Tokens were revoked {revoked} times: {} refreshes, {} requests rejected, {} orders accepted.",
        server.refreshes(),
        vendor.api.rejected(),
        vendor.api.accepted()
    );
    check(
        "all orders were accepted",
        vendor.api.accepted() == PROCESSES * ORDERS,
    )?;
    check(
        "each refresh token was used once",
        server.reuse_detected() == 0 && server.refreshes() == server.token_requests(),
    )?;
    check(
        "one refresh served all processes",
        server.refreshes() <= revoked + 1,
    )?;
    check("the session is alive", server.live_sessions() == 1)
}
