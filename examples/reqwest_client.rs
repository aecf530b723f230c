//! reqwest with a session: `send_with(&auth)` in the place of `send()`. Nothing of Tower is needed.
//!
//! `cargo run --example reqwest_client`
//!
//! [`session`] and the calls of `send_with` are what a program of yours would contain. The rest is servers on this
//! machine, and checks.

mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    process::ExitCode,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use support::{Options, check};
use tower::BoxError;
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, RequestBuilderExt, TokenError,
    testing::{self, AuthorizationServer, Dialect},
};

/// The session that requests are sent with. A program has one, and clones it.
fn session(token_url: &str, refresh_token: String) -> Result<BearerAuthLayer, TokenError> {
    let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    Ok(BearerAuthLayer::new(RefreshTokenSource::new(
        oauth,
        refresh_token,
    )))
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const OPTIONS: Options = Options::new(
    "--example reqwest_client",
    "Sends orders with reqwest: with a first token, with a revoked one, and after the session has ended.",
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
    let url = format!("{}/orders", served_api.url());

    let auth = session(&token_url, server.issue_refresh_token())?;
    // No proxy, because the API is on this machine. A program of yours uses `reqwest::Client::new`, or any other
    // client.
    let http = reqwest::Client::builder().no_proxy().build()?;

    let order = http.post(&url).body("a bicycle");
    let response = order.send_with(&auth).await?;
    println!("POST /orders: {}", response.status());
    check(
        "the API received the order",
        response.text().await? == "a bicycle",
    )?;

    server.revoke_access_tokens();
    // A body in pieces, like a file that is read while it is sent.
    let pieces = Pieces(["a bicycle, ", "with ", "a bell"].into());
    let order = http.post(&url).body(reqwest::Body::wrap(pieces));
    let mut response = order.send_with(&auth).await?.error_for_status()?;
    println!(
        "POST /orders with a revoked token, in pieces: {}",
        response.status()
    );
    let mut echo = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        echo.extend_from_slice(&chunk);
    }
    check(
        "the API received the whole order, which was sent twice",
        echo == b"a bicycle, with a bell" && (api.accepted(), api.rejected()) == (2, 1),
    )?;

    // The session has ended: the caller gets the API's own response, with the reason in its extensions.
    server.revoke_sessions();
    let response = http.get(&url).send_with(&auth).await?;
    println!("GET /orders after the session ended: {}", response.status());
    let error = response.extensions().get::<TokenError>();
    println!("  {}", error.ok_or("the response does not say why")?);
    check("the response is the API's", response.status() == 401)
}

/// A body of several data frames.
struct Pieces(VecDeque<&'static str>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.pop_front();
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece.into()))))
    }
}
