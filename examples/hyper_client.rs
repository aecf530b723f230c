//! hyper's pooled client under the layer, by HTTP/1.1 and by HTTP/2, both with one session.
//!
//! `cargo run --example hyper_client`
//!
//! [`clients`] is what you would write; the rest is a stage for it on this machine, and checks.

mod support;

use std::process::ExitCode;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use support::check;
use tokio::task::JoinSet;
use tower::{BoxError, Layer, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, ReplayBody,
    testing::{self, AuthorizationServer, Dialect},
};

/// The layer hands on bodies that can be sent again; beyond that, it is hyper's client with any connector. The type can
/// be named, so it can be a field of your structs.
type Hyper = BearerAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>;

/// Two clients, one session: both use the token that either has got.
fn clients(session: &BearerAuthLayer) -> (Hyper, Hyper) {
    let mut builder = Client::builder(TokioExecutor::new());
    let http1 = builder.build_http();
    let http2 = builder.http2_only(true).build_http();
    (session.layer(http1), session.layer(http2))
}

async fn order(client: Hyper, url: String, what: String) -> Result<Version, BoxError> {
    let request = Request::post(url).body(Full::from(what.clone()))?;
    let response = client.oneshot(request).await?;
    let (head, body) = response.into_parts();
    check("the API takes the order", head.status == 200)?;
    check(
        "its echo is the order",
        body.collect().await?.to_bytes() == what,
    )?;
    Ok(head.version)
}

// ---------------------------------------------------------------------------------------------------------------------
// The stage.

const ORDERS: usize = 20;

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
    let endpoint = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
    let (http1, http2) = clients(&BearerAuthLayer::new(source));
    let url = format!("{}/orders", orders.url());

    for round in ["with a first token", "after that was revoked"] {
        let mut sending = JoinSet::new();
        for n in 0..ORDERS {
            let client = if n % 2 == 0 { &http1 } else { &http2 };
            let what = format!("bicycle {n}, {round}");
            sending.spawn(order(client.clone(), url.clone(), what));
        }
        let (mut by_http1, mut by_http2) = (0, 0);
        while let Some(version) = sending.join_next().await {
            match version?? {
                Version::HTTP_2 => by_http2 += 1,
                _ => by_http1 += 1,
            }
        }
        println!("{round}: {by_http1} orders by HTTP/1.1, {by_http2} by HTTP/2");
        check("half of them went by each", by_http1 == by_http2)?;
        server.revoke_access_tokens();
    }
    println!(
        "{} refreshes, {} requests rejected and sent again",
        server.refreshes(),
        api.rejected()
    );
    check(
        "one refresh got the first token, another the second",
        server.refreshes() == 2,
    )
}
