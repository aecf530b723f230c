//! hyper's pooled client under the layer, over HTTP/1.1 and HTTP/2 with one session.
//!
//! `cargo run --example hyper_client`
//!
//! [`clients`] is what a program of yours would contain. The rest is servers on this machine, and checks.

mod support;

use std::process::ExitCode;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use support::{Options, check};
use tokio::task::JoinSet;
use tower::{BoxError, Layer, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, ReplayBody,
    testing::{self, AuthorizationServer, Dialect},
};

/// The layer sends bodies of type [`ReplayBody`]; otherwise this is hyper's client with any connector. The type can be
/// named, so it can be a field of your structs.
type HyperClient = BearerAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>;

/// Two clients that share a session: both use the token that either of them has got.
fn clients(layer: &BearerAuthLayer) -> (HyperClient, HyperClient) {
    let mut builder = Client::builder(TokioExecutor::new());
    let http1 = builder.build_http();
    let http2 = builder.http2_only(true).build_http();
    (layer.layer(http1), layer.layer(http2))
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const ORDERS: usize = 20;

const OPTIONS: Options = Options::new(
    "--example hyper_client",
    "Sends orders with hyper's client over HTTP/1.1 and HTTP/2, and revokes the token that both share.",
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
    let client = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source = RefreshTokenSource::new(client, server.issue_refresh_token());
    let (http1, http2) = clients(&BearerAuthLayer::new(source));
    let url = format!("{}/orders", served_api.url());

    for round in ["with the first token", "after it was revoked"] {
        let mut orders = JoinSet::new();
        for n in 0..ORDERS {
            let client = if n % 2 == 0 { &http1 } else { &http2 };
            let text = format!("bicycle {n}, {round}");
            orders.spawn(order(client.clone(), url.clone(), text));
        }
        let (mut by_http1, mut by_http2) = (0, 0);
        while let Some(version) = orders.join_next().await {
            match version?? {
                Version::HTTP_2 => by_http2 += 1,
                _ => by_http1 += 1,
            }
        }
        println!("{round}: {by_http1} orders over HTTP/1.1, {by_http2} over HTTP/2");
        check("each client sent half of them", by_http1 == by_http2)?;
        server.revoke_access_tokens();
    }
    println!(
        "{} refreshes, {} requests rejected and sent again",
        server.refreshes(),
        api.rejected()
    );
    check(
        "one refresh brought the first token, another the second",
        server.refreshes() == 2,
    )
}

async fn order(client: HyperClient, url: String, text: String) -> Result<Version, BoxError> {
    let request = Request::post(url).body(Full::from(text.clone()))?;
    let response = client.oneshot(request).await?;
    let (head, body) = response.into_parts();
    check("the API accepts the order", head.status == 200)?;
    let echo = body.collect().await?.to_bytes();
    check("the API received the order as it was sent", echo == text)?;
    Ok(head.version)
}
