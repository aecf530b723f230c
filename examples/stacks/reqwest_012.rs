//! reqwest 0.12 under the layer, although the crate itself uses 0.13.
//!
//! `cargo run -p stack-examples --example reqwest_012`
//!
//! The adapter in `support/reqwest_012.rs`, [`client`] and [`send`] are what a program of yours would contain. The rest
//! is servers on this machine, and checks.

#[path = "support/reqwest_012.rs"]
mod reqwest_012;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use http::{Request, Response};
use reqwest012::Body;
use support::{Options, check};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, ClientCredentialsSource, OAuthClient,
    testing::{self, AuthorizationServer, Dialect},
};

type Client = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

fn client(http: reqwest012::Client, auth: BearerAuthLayer) -> Client {
    let stack = ServiceBuilder::new()
        .layer(auth)
        .service(reqwest_012::service(http));
    BoxCloneSyncService::new(stack)
}

/// Takes reqwest's request and returns reqwest's response.
async fn send(
    client: &Client,
    request: reqwest012::RequestBuilder,
) -> Result<reqwest012::Response, BoxError> {
    let request = Request::<Body>::try_from(request.build()?)?;
    Ok(client.clone().oneshot(request).await?.into())
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const OPTIONS: Options = Options::new(
    "-p stack-examples --example reqwest_012",
    "Sends two orders with reqwest 0.12, the second one with a token that has been revoked.",
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

    let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let auth = BearerAuthLayer::new(ClientCredentialsSource::new(oauth));
    let http = reqwest012::Client::builder()
        .redirect(reqwest012::redirect::Policy::none())
        .no_proxy()
        .build()?;
    let client = client(http.clone(), auth);

    for order in ["a bicycle", "a bell"] {
        let response = send(&client, http.post(&url).body(order)).await?;
        println!("POST /orders: {}", response.status());
        check("the API received it", response.text().await? == order)?;
        server.revoke_access_tokens();
    }
    check(
        "the second order was sent again with a new token",
        (api.accepted(), api.rejected(), server.token_requests()) == (2, 1, 2),
    )
}
