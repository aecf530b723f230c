//! Revokes a token while a hundred requests use it. One refresh replaces it, and every request succeeds.
//!
//! `cargo run --example quickstart`
//!
//! Everything runs on this machine: an authorization server and an API on loopback ports, and a client that sends through
//! a [`BearerAuthLayer`]. [`client`] is what a program of yours would contain. The rest is servers, and checks.

mod support;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use support::{Options, check};
use tokio::task::JoinSet;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, OAuthClient, Origins, RefreshTokenSource, ReplayBody,
    testing::{self, AuthorizationServer, Dialect, ProtectedApi},
};

type HttpClient = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// Where tokens come from, where they may go, and one layer in the stack.
fn client(
    token_url: &str,
    refresh_token: String,
    api_url: &str,
) -> Result<BearerAuth<HttpClient>, BoxError> {
    let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source = RefreshTokenSource::new(oauth, refresh_token).origins(Origins::only([api_url])?);

    Ok(ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(Client::builder(TokioExecutor::new()).build_http()))
}

/// Sends an order. The client is an ordinary Tower service: nothing here is about tokens.
async fn order<S>(client: S, url: String, id: String) -> Result<StatusCode, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<hyper::body::Incoming>>,
    S::Error: Into<BoxError>,
{
    let request = Request::post(url)
        .header("x-request-id", id)
        .body(Full::from("one bicycle"))?;
    let response = client.oneshot(request).await.map_err(Into::into)?;
    let status = response.status();
    let echo = response.into_body().collect().await?.to_bytes();
    check(
        "the API received the order as it was sent",
        status != StatusCode::OK || echo == "one bicycle",
    )?;
    Ok(status)
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const SEQUENTIAL: usize = 5;
const CONCURRENT: usize = 100;

const OPTIONS: Options = Options::new(
    "--example quickstart",
    "Revokes a token while 100 requests use it. One refresh replaces it, and every request succeeds.",
);

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, async |_| send_orders().await).await
}

async fn send_orders() -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    let token_endpoint = testing::serve(server.clone()).await?;
    let served_api = testing::serve(api.clone()).await?;

    let token_url = format!("{}{}", token_endpoint.url(), server.token_path());
    let client = client(&token_url, server.issue_refresh_token(), &served_api.url())?;
    let url = format!("{}/orders", served_api.url());
    let send = |id: String| order(client.clone(), url.clone(), id);
    let mut table = Table::new(&server, &api);

    let mut statuses = Vec::new();
    for n in 0..SEQUENTIAL {
        statuses.push(send(format!("sequential-{n}")).await?);
    }
    table.add_row("one after the other", &statuses);

    // The API answers nothing until all requests have arrived with the token. Then the token is revoked.
    api.hold();
    let mut requests: JoinSet<_> = (0..CONCURRENT)
        .map(|n| send(format!("concurrent-{n}")))
        .collect();
    api.wait_for_held(CONCURRENT).await;
    server.revoke_access_tokens();
    api.release();
    let mut statuses = Vec::new();
    while let Some(status) = requests.join_next().await {
        statuses.push(status??);
    }
    table.add_row("at once, token revoked", &statuses);

    table.print();
    table.check()
}

/// What was sent, and what the servers received.
struct Table<'a> {
    server: &'a AuthorizationServer,
    api: &'a ProtectedApi,
    since: Instant,
    rows: Vec<Row>,
}

struct Row {
    requests: &'static str,
    sent: usize,
    ok: usize,
    received: usize,
    rejected: usize,
    refreshes: usize,
    took: Duration,
}

impl<'a> Table<'a> {
    fn new(server: &'a AuthorizationServer, api: &'a ProtectedApi) -> Self {
        Self {
            server,
            api,
            since: Instant::now(),
            rows: Vec::new(),
        }
    }

    fn add_row(&mut self, requests: &'static str, statuses: &[StatusCode]) {
        let before = |count: fn(&Row) -> usize| self.rows.iter().map(count).sum::<usize>();
        let row = Row {
            requests,
            sent: statuses.len(),
            ok: statuses.iter().filter(|status| status.is_success()).count(),
            received: self.api.received() - before(|row| row.received),
            rejected: self.api.rejected() - before(|row| row.rejected),
            refreshes: self.server.refreshes() - before(|row| row.refreshes),
            took: self.since.elapsed(),
        };
        self.since = Instant::now();
        self.rows.push(row);
    }

    fn print(&self) {
        println!(
            "{:<24}{:>6}{:>6}{:>10}{:>10}{:>11}{:>10}",
            "requests", "sent", "200", "received", "rejected", "refreshes", "took"
        );
        for row in &self.rows {
            println!(
                "{:<24}{:>6}{:>6}{:>10}{:>10}{:>11}{:>7} ms",
                row.requests,
                row.sent,
                row.ok,
                row.received,
                row.rejected,
                row.refreshes,
                row.took.as_millis()
            );
        }
        println!();
    }

    fn check(&self) -> Result<(), BoxError> {
        let [sequential, concurrent] = &self.rows[..] else {
            return Err("there should be two rows".into());
        };
        check(
            "every request before the revocation succeeded",
            sequential.ok == SEQUENTIAL,
        )?;
        check(
            "the first token took one refresh",
            sequential.refreshes == 1,
        )?;
        check(
            "all concurrent requests were rejected",
            concurrent.rejected == CONCURRENT,
        )?;
        check(
            "one refresh replaced the revoked token",
            concurrent.refreshes == 1,
        )?;
        check(
            "every rejected request succeeded in the end",
            concurrent.ok == CONCURRENT,
        )?;
        check(
            "no request was sent more than twice",
            self.api.attempts().into_values().all(|times| times <= 2),
        )?;
        check(
            "no refresh token was used twice",
            self.server.reuse_detected() == 0,
        )?;
        println!(
            "All requests succeeded. One refresh replaced the revoked token, and no request was sent more than twice.\n\
             The second row takes a second because refreshes are at least that far apart (`Schedule::min_interval`)."
        );
        Ok(())
    }
}
