//! A session goes on while its token is revoked under a hundred requests.
//!
//! `cargo run --example quickstart`
//!
//! Everything runs on this machine: an authorization server and an API, behind real sockets on loopback ports, and a
//! client that sends through a [`BearerAuthLayer`]. [`session`] is what you would write; the rest is a stage for it, and
//! checks that what happened is what was promised.

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
use tokio::{task::JoinSet, time::timeout};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, OAuthClient, Origins, RefreshTokenSource, ReplayBody,
    testing::{self, AuthorizationServer, Dialect, ProtectedApi},
};

type HttpClient = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// This is all: where tokens come from, where they may go, and one layer in the stack.
fn session(
    token_url: &str,
    refresh_token: String,
    api_url: &str,
) -> Result<BearerAuth<HttpClient>, BoxError> {
    let endpoint = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source =
        RefreshTokenSource::new(endpoint, refresh_token).origins(Origins::only([api_url])?);

    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(Client::builder(TokioExecutor::new()).build_http());
    Ok(client)
}

/// From here on the client is an ordinary Tower service: nobody who sends an order thinks of tokens.
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
    if status == StatusCode::OK && echo != "one bicycle" {
        return Err("the API got another order than was sent".into());
    }
    Ok(status)
}

// ---------------------------------------------------------------------------------------------------------------------
// The stage.

const BEFORE: usize = 5;
const IN_FLIGHT: usize = 100;
/// Nothing here takes as long.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    match timeout(LIMIT, show()).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("quickstart: not done after {LIMIT:?}; something hangs");
            ExitCode::FAILURE
        }
    }
}

async fn show() -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    let token_site = testing::serve(server.clone()).await?;
    let api_site = testing::serve(api.clone()).await?;

    let token_url = format!("{}{}", token_site.url(), server.token_path());
    let client = session(&token_url, server.issue_refresh_token(), &api_site.url())?;
    let url = format!("{}/orders", api_site.url());
    let send = |id: String| order(client.clone(), url.clone(), id);
    let mut table = Table::new(&server, &api);

    let mut answers = Vec::new();
    for n in 0..BEFORE {
        answers.push(send(format!("before-{n}")).await?);
    }
    table.row("one after the other", &answers);

    // The API holds the requests until all of them are there with the token that is then revoked.
    api.hold();
    let mut sending: JoinSet<_> = (0..IN_FLIGHT)
        .map(|n| send(format!("under-way-{n}")))
        .collect();
    api.wait_for_held(IN_FLIGHT).await;
    server.revoke_access_tokens();
    api.release();
    let mut answers = Vec::new();
    while let Some(answer) = sending.join_next().await {
        answers.push(answer??);
    }
    table.row("in flight, token revoked", &answers);

    table.print();
    table.check()
}

/// What was sent, and what the servers saw of it.
struct Table<'a> {
    server: &'a AuthorizationServer,
    api: &'a ProtectedApi,
    since: Instant,
    rows: Vec<Row>,
}

struct Row {
    what: &'static str,
    requests: usize,
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

    fn row(&mut self, what: &'static str, answers: &[StatusCode]) {
        let before = |count: fn(&Row) -> usize| self.rows.iter().map(count).sum::<usize>();
        let row = Row {
            what,
            requests: answers.len(),
            ok: answers.iter().filter(|status| status.is_success()).count(),
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
            "{:<26}{:>8}{:>8}{:>10}{:>9}{:>11}{:>10}",
            "requests", "sent", "200", "arrived", "rejected", "refreshes", "took"
        );
        for row in &self.rows {
            println!(
                "{:<26}{:>8}{:>8}{:>10}{:>9}{:>11}{:>7} ms",
                row.what,
                row.requests,
                row.ok,
                row.received,
                row.rejected,
                row.refreshes,
                row.took.as_millis()
            );
        }
        println!();
        println!(
            "Two refreshes are at least a second apart (`Schedule::min_interval`): hence the time."
        );
    }

    fn check(&self) -> Result<(), BoxError> {
        let [before, under_way] = &self.rows[..] else {
            return Err("there should be two rows".into());
        };
        let often = self.api.attempts().into_values().max().unwrap_or_default();
        let promises = [
            (
                before.ok == BEFORE,
                "a request before the revocation did not succeed",
            ),
            (
                before.refreshes == 1,
                "the first token should have cost one refresh",
            ),
            (
                under_way.ok == IN_FLIGHT,
                "a request was lost to the revocation",
            ),
            (
                under_way.rejected == IN_FLIGHT,
                "the token was not rejected to all in flight",
            ),
            (
                under_way.refreshes == 1,
                "the revocation should have cost one refresh",
            ),
            (often <= 2, "a request was sent more than twice"),
            (
                self.server.reuse_detected() == 0,
                "a refresh token was used twice",
            ),
        ];
        let broken: Vec<_> = promises
            .into_iter()
            .filter_map(|(kept, otherwise)| (!kept).then_some(otherwise))
            .collect();
        if !broken.is_empty() {
            return Err(broken.join("; ").into());
        }
        println!(
            "All succeeded, with one refresh for all of them, and none was sent more than twice."
        );
        Ok(())
    }
}
