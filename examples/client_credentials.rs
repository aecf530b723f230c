//! Machine to machine: a service requests tokens for itself, and a hundred requests share one.
//!
//! `cargo run --example client_credentials`
//!
//! Everything runs on this machine: an authorization server and an API on loopback ports. [`client`] is what a program of
//! yours would contain. The rest is servers, and checks.

mod support;

use std::process::ExitCode;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use support::{Options, check};
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, ClientAuth, ClientCredentialsSource, OAuthClient, Origins,
    ReplayBody,
    testing::{self, AuthorizationServer, Dialect, Fault},
};

type HttpClient = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

/// Who the service is, what it asks for, where the tokens may go, and one layer in the stack.
fn client(token_url: &str, api_url: &str) -> Result<BearerAuth<HttpClient>, BoxError> {
    let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));
    let source = ClientCredentialsSource::new(oauth)
        .scope("invoices:read")
        .origins(Origins::only([api_url])?);

    Ok(ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(Client::builder(TokioExecutor::new()).build_http()))
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const REQUESTS: usize = 100;

const OPTIONS: Options = Options::new(
    "--example client_credentials",
    "Requests tokens for a service itself. 100 requests share one, and another one replaces it when it is revoked.",
);

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, async |_| read_invoices().await).await
}

async fn read_invoices() -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    let token_endpoint = testing::serve(server.clone()).await?;
    let served_api = testing::serve(api.clone()).await?;
    let token_url = format!("{}{}", token_endpoint.url(), server.token_path());
    let client = client(&token_url, &served_api.url())?;
    let url = format!("{}/invoices", served_api.url());

    read_all(&client, &url).await?;
    check(
        "a hundred requests cost one token",
        server.token_requests() == 1,
    )?;
    let requests = server.requests();
    let [request] = &requests[..] else {
        return Err("there should be one token request".into());
    };
    check(
        "the service asked for what it needs, and for nothing else",
        request.body == "grant_type=client_credentials&scope=invoices%3Aread",
    )?;

    // The token endpoint fails once when the next token is needed.
    server.revoke_access_tokens();
    server.fault(Fault::Html(StatusCode::BAD_GATEWAY));
    let status = read(client.clone(), url.clone()).await?;
    check(
        "without another token, the caller gets the response of the API",
        status == StatusCode::UNAUTHORIZED,
    )?;
    while read(client.clone(), url.clone()).await? != StatusCode::OK {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    check(
        "one more token replaced it",
        server.client_credentials() == 2,
    )?;
    println!(
        "{REQUESTS} requests shared one token. When it was revoked, another one replaced it: {} token requests in all, one of \
         them answered by a failing gateway.",
        server.token_requests()
    );
    Ok(())
}

async fn read_all(client: &BearerAuth<HttpClient>, url: &str) -> Result<(), BoxError> {
    let mut requests: JoinSet<_> = (0..REQUESTS)
        .map(|_| read(client.clone(), url.to_owned()))
        .collect();
    while let Some(status) = requests.join_next().await {
        check("every request succeeds", status?? == StatusCode::OK)?;
    }
    Ok(())
}

async fn read(client: BearerAuth<HttpClient>, url: String) -> Result<StatusCode, BoxError> {
    let request = Request::get(url).body(Full::default())?;
    Ok(client.oneshot(request).await?.status())
}
