//! reqwest under the layer, with reqwest's own requests and responses at both ends.
//!
//! `cargo run --example reqwest_client`
//!
//! [`session`] and [`send`] are what you would write; the rest is a stage for it on this machine, and checks.

mod support;

use std::process::ExitCode;

use support::check;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, ReqwestTransport,
    TokenError,
    testing::{self, AuthorizationServer, Dialect},
};

type StoredSession = BearerAuth<ReqwestTransport>;

/// One reqwest client for both, token requests and the API. It follows no redirects, or the secrets of a token request
/// would be posted wherever the answer points.
fn session(
    reqwest: reqwest::Client,
    token_url: &str,
    refresh_token: String,
) -> Result<StoredSession, TokenError> {
    let transport = ReqwestTransport::new(reqwest);
    let endpoint = OAuthClient::with_transport(token_url, transport.clone())?.client_auth(
        ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ),
    );
    Ok(ServiceBuilder::new()
        .layer(BearerAuthLayer::new(RefreshTokenSource::new(
            endpoint,
            refresh_token,
        )))
        .service(transport))
}

/// Sends what was built with reqwest, and gives what reqwest gives.
async fn send(
    session: &StoredSession,
    request: reqwest::RequestBuilder,
) -> Result<reqwest::Response, BoxError> {
    let request = http::Request::<reqwest::Body>::try_from(request.build()?)?;
    Ok(session.clone().oneshot(request).await?.into())
}

// ---------------------------------------------------------------------------------------------------------------------
// The stage.

#[tokio::main]
async fn main() -> ExitCode {
    support::run(show()).await
}

async fn show() -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    let tokens = testing::serve(server.clone()).await?;
    let orders = testing::serve(api.clone()).await?;
    let token_url = format!("{}{}", tokens.url(), server.token_path());
    let url = format!("{}/orders", orders.url());

    let reqwest = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()?;
    let session = session(reqwest.clone(), &token_url, server.issue_refresh_token())?;

    let order = send(&session, reqwest.post(&url).body("a bicycle")).await?;
    println!("POST /orders: {}", order.status());
    check("the order arrived", order.text().await? == "a bicycle")?;

    server.revoke_access_tokens();
    // In pieces, as a file would come.
    let pieces = tokio_stream::iter(["a bicycle, ", "with ", "a bell"]);
    let pieces = http_body_util::StreamBody::new(tokio_stream::StreamExt::map(pieces, |piece| {
        Ok::<_, BoxError>(http_body::Frame::data(bytes::Bytes::from(piece)))
    }));
    let order = reqwest.post(&url).body(reqwest::Body::wrap(pieces));
    let mut order = send(&session, order).await?.error_for_status()?;
    println!("POST /orders, its token revoked: {}", order.status());
    let mut echo = Vec::new();
    while let Some(chunk) = order.chunk().await? {
        echo.extend_from_slice(&chunk);
    }
    check(
        "the order arrived whole, though it was sent twice",
        echo == b"a bicycle, with a bell" && (api.accepted(), api.rejected()) == (2, 1),
    )?;

    // The session is over: no error hides the server's own answer, and the reason comes along.
    server.revoke_sessions();
    let answer = send(&session, reqwest.get(&url)).await?;
    println!("GET /orders, logged out: {}", answer.status());
    let reason = answer.extensions().get::<TokenError>();
    println!("  {}", reason.ok_or("no reason came along")?);
    check("the answer is the API's", answer.status() == 401)
}
