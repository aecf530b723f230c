//! A tonic client with the layer: all four kinds of calls, and the status of a call when there is no token.
//!
//! `cargo run -p stack-examples --example tonic_client`
//!
//! [`connect`] is what a program of yours would contain, and `tonic-build` generates clients like `EchoClient`. The rest
//! is servers on this machine, and checks.

#[path = "support/grpc.rs"]
mod grpc;
#[path = "../support/mod.rs"]
mod support;

use std::{error::Error, process::ExitCode, sync::Arc};

use grpc::EchoClient;
use http::{Request, Uri};
use support::{Options, check};
use tokio_stream::{StreamExt as _, iter};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{BoxError, ServiceBuilder, service_fn, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, ReplayBody, TokenError,
    TokenErrorKind,
    testing::{self, AuthorizationServer, Dialect},
};

/// The type parameter of a generated client.
type Stack = BoxCloneSyncService<Request<Body>, http::Response<Body>, BoxError>;

/// The stack between a generated client and its `Channel`.
fn connect(session: BearerAuthLayer, url: &str) -> Result<EchoClient<Stack>, BoxError> {
    let channel: Channel = Endpoint::from_shared(url.to_owned())?.connect_lazy();
    let stack = ServiceBuilder::new()
        .map_result(with_status)
        .layer(session)
        // The layer sends bodies of type `ReplayBody`; a `Channel` takes tonic's own.
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel);
    // The origin lets the layer check where the token would go. Without it, that is wherever the `Channel` is connected.
    let origin: Uri = url.parse()?;
    Ok(EchoClient::with_origin(
        BoxCloneSyncService::new(stack),
        origin,
    ))
}

/// tonic looks for a [`Status`] in the errors of a service. Without one, the call fails with `UNKNOWN`. It drops the
/// extensions of a response, and with them the reason why a rejected call was not sent again.
fn with_status(
    result: Result<http::Response<Body>, BoxError>,
) -> Result<http::Response<Body>, BoxError> {
    let (code, error) = match result {
        Ok(mut response) => match response.extensions_mut().remove::<TokenError>() {
            Some(reason) => (Code::Unauthenticated, reason),
            None => return Ok(response),
        },
        Err(error) => match *error.downcast::<TokenError>()? {
            error if error.is_transient() => (Code::Unavailable, error),
            error => (Code::Unauthenticated, error),
        },
    };
    let mut status = Status::new(code, error.to_string());
    // Callers find the reason in `status.source()`.
    status.set_source(Arc::new(error));
    Err(status.into())
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, and checks.

const OPTIONS: Options = Options::new(
    "-p stack-examples --example tonic_client",
    "Calls a gRPC service with tonic in all four ways, each time with a token that has just been revoked.",
);

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, async |_| call_the_service().await).await
}

async fn call_the_service() -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let token_endpoint = testing::serve(server.clone()).await?;
    let tokens = server.clone();
    let echo = testing::serve(service_fn(move |request| {
        let tokens = tokens.clone();
        grpc::answer(request, move |token| {
            let rejected = || Status::unauthenticated("the token has been revoked");
            tokens.is_live(token).then_some(()).ok_or_else(rejected)
        })
    }))
    .await?;

    let token_url = format!("{}{}", token_endpoint.url(), server.token_path());
    let log_in = |token_url: &str, refresh_token: String| {
        let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
        let source = RefreshTokenSource::new(oauth, refresh_token);
        connect(BearerAuthLayer::new(source), &echo.url())
    };
    let client = log_in(&token_url, server.issue_refresh_token())?;
    let texts = || iter(["a ", "bicycle"]).map(String::from);

    check(
        "a call gets its response",
        client.say("hello").await? == "hello",
    )?;
    println!("unary: answered");

    // From here on each call is sent with a revoked token first. The server rejects it with UNAUTHENTICATED, and the layer
    // sends the call again.
    server.revoke_access_tokens();
    let text = client.say("hello again").await?;
    check("a unary call is sent again", text == "hello again")?;
    println!("unary, token revoked: answered");

    server.revoke_access_tokens();
    let joined = client.join(texts()).await?;
    check(
        "the whole stream of requests is sent again",
        joined == "a bicycle",
    )?;
    println!("client streaming, token revoked: answered");

    server.revoke_access_tokens();
    let mut words = client.split("one bicycle with a bell").await?;
    let mut count = 0;
    while words.message().await?.is_some() {
        count += 1;
    }
    check("all responses arrive", count == 5)?;
    println!("server streaming, token revoked: {count} words");

    server.revoke_access_tokens();
    let mut chat = client.chat(texts()).await?;
    let mut received = String::new();
    while let Some(text) = chat.message().await? {
        received.push_str(&text);
    }
    check("both streams begin again", received == "a bicycle")?;
    println!("bidirectional streaming, token revoked: {received:?}");
    check("one refresh for each token", server.refreshes() == 5)?;

    // Without a token no call is sent. Its status says whether a later attempt may succeed.
    let client = log_in(&token_url, String::from("an-expired-refresh-token"))?;
    let status = client.say("hello").await.err();
    let status = status.ok_or("the call succeeded without a session")?;
    println!(
        "with an expired refresh token: {:?}, {}",
        status.code(),
        status.message()
    );
    check(
        "the status is UNAUTHENTICATED",
        status.code() == Code::Unauthenticated,
    )?;
    let error = status.source().and_then(|why| why.downcast_ref());
    check(
        "its source is the token error",
        error.map(TokenError::kind) == Some(TokenErrorKind::ReauthRequired),
    )?;

    drop(token_endpoint);
    let client = log_in(&token_url, server.issue_refresh_token())?;
    let status = client.say("hello").await.err();
    let status = status.ok_or("the call succeeded without a token")?;
    println!(
        "without a token endpoint: {:?}, {}",
        status.code(),
        status.message()
    );
    check(
        "the status is UNAVAILABLE",
        status.code() == Code::Unavailable,
    )
}
