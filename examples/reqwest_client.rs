//! reqwest under the layer, with reqwest's own requests and responses at both ends.
//!
//! `cargo run --example reqwest_client`
//!
//! [`client`] and [`send`] are what a program of yours would contain. The rest is servers on this machine, and checks.

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
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, ReqwestTransport,
    TokenError,
    testing::{self, AuthorizationServer, Dialect},
};

type Client = BearerAuth<ReqwestTransport>;

/// One reqwest client for token requests and for the API. It must not follow redirects: a redirect of a token request
/// would send the client's secrets to another server.
fn client(
    reqwest: reqwest::Client,
    token_url: &str,
    refresh_token: String,
) -> Result<Client, TokenError> {
    let transport = ReqwestTransport::from_client(reqwest);
    let oauth = OAuthClient::with_transport(token_url, transport.clone())?.client_auth(
        ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ),
    );
    let source = RefreshTokenSource::new(oauth, refresh_token);
    Ok(ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(transport))
}

/// Takes reqwest's request and returns reqwest's response.
async fn send(
    client: &Client,
    request: reqwest::RequestBuilder,
) -> Result<reqwest::Response, BoxError> {
    let request = http::Request::<reqwest::Body>::try_from(request.build()?)?;
    Ok(client.clone().oneshot(request).await?.into())
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

    let reqwest = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;
    let client = client(reqwest.clone(), &token_url, server.issue_refresh_token())?;

    let response = send(&client, reqwest.post(&url).body("a bicycle")).await?;
    println!("POST /orders: {}", response.status());
    check(
        "the API received the order",
        response.text().await? == "a bicycle",
    )?;

    server.revoke_access_tokens();
    // A body in pieces, like a file that is read while it is sent.
    let pieces = Pieces(["a bicycle, ", "with ", "a bell"].into());
    let order = reqwest.post(&url).body(reqwest::Body::wrap(pieces));
    let mut response = send(&client, order).await?.error_for_status()?;
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
    let response = send(&client, reqwest.get(&url)).await?;
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
