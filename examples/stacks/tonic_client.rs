//! A tonic client under the layer: all four kinds of calls, and what a caller sees when there is no token.
//!
//! `cargo run --example tonic_client`
//!
//! [`connect`] is what you would write, and `EchoClient` is what `tonic-build` would write for you; the rest is a stage
//! for it on this machine, and checks.

#[path = "support/grpc.rs"]
mod grpc;
#[path = "../support/mod.rs"]
mod support;

use std::{error::Error, process::ExitCode, sync::Arc};

use grpc::EchoClient;
use http::{Request, Uri};
use support::check;
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

/// What generated clients take as their `T`.
type Stack = BoxCloneSyncService<Request<Body>, http::Response<Body>, BoxError>;

/// The stack between a generated client and its `Channel`.
fn connect(session: BearerAuthLayer, url: &str) -> Result<EchoClient<Stack>, BoxError> {
    let channel: Channel = Endpoint::from_shared(url.to_owned())?.connect_lazy();
    let stack = ServiceBuilder::new()
        .map_err(status)
        .layer(session)
        // The layer hands on bodies that can be sent again; a `Channel` takes tonic's own.
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel);
    // With its origin, so that the layer sees where the token would go: without it, wherever the `Channel` is connected.
    let origin: Uri = url.parse()?;
    Ok(EchoClient::with_origin(
        BoxCloneSyncService::new(stack),
        origin,
    ))
}

/// tonic looks for a [`Status`] in what a service fails with, and calls anything else `UNKNOWN`.
fn status(error: BoxError) -> BoxError {
    match error.downcast::<TokenError>() {
        Ok(error) => {
            let mut status = if error.is_transient() {
                Status::unavailable(error.to_string())
            } else {
                Status::unauthenticated(error.to_string())
            };
            // For callers who ask why: `status.source()`.
            status.set_source(Arc::new(*error));
            status.into()
        }
        Err(error) => error,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The stage.

#[tokio::main]
async fn main() -> ExitCode {
    support::run(show()).await
}

async fn show() -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let tokens = testing::serve(server.clone()).await?;
    let live = server.clone();
    let echo = testing::serve(service_fn(move |request| {
        let live = live.clone();
        grpc::answer(request, move |token| {
            let rejected = || Status::unauthenticated("the token is not good");
            live.is_live(token).then_some(()).ok_or_else(rejected)
        })
    }))
    .await?;

    let token_url = format!("{}{}", tokens.url(), server.token_path());
    let log_in = |token_url: &str, refresh_token: String| {
        let endpoint = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
        let source = RefreshTokenSource::new(endpoint, refresh_token);
        connect(BearerAuthLayer::new(source), &echo.url())
    };
    let client = log_in(&token_url, server.issue_refresh_token())?;
    let texts = || iter(["a ", "bicycle"]).map(String::from);

    check(
        "a call gets its answer",
        client.say("hello").await? == "hello",
    )?;
    println!("unary: answered");

    // Each call begins with a token that has been revoked. The server says UNAUTHENTICATED, and no caller hears of it.
    server.revoke_access_tokens();
    let said = client.say("hello again").await?;
    check("a unary call heals", said == "hello again")?;
    println!("unary, token revoked: answered");

    server.revoke_access_tokens();
    let joined = client.join(texts()).await?;
    check(
        "a stream of requests is sent again, whole",
        joined == "a bicycle",
    )?;
    println!("client streaming, token revoked: answered");

    server.revoke_access_tokens();
    let mut words = client.split("one bicycle with a bell").await?;
    let mut count = 0;
    while words.message().await?.is_some() {
        count += 1;
    }
    check("all responses come", count == 5)?;
    println!("server streaming, token revoked: {count} words");

    server.revoke_access_tokens();
    let mut chat = client.chat(texts()).await?;
    let mut heard = String::new();
    while let Some(text) = chat.message().await? {
        heard.push_str(&text);
    }
    check("a conversation begins again, whole", heard == "a bicycle")?;
    println!("bidirectional streaming, token revoked: {heard:?}");
    check("each token cost one refresh", server.refreshes() == 5)?;

    // Without a token, no call is sent, and its status says whether waiting would help.
    let ended = log_in(&token_url, String::from("a refresh token of another age"))?;
    let status = ended.say("anybody?").await.err();
    let status = status.ok_or("a call succeeded without a session")?;
    println!("log in again: {:?}, {}", status.code(), status.message());
    check(
        "it is UNAUTHENTICATED",
        status.code() == Code::Unauthenticated,
    )?;
    let reason = status.source().and_then(|why| why.downcast_ref());
    check(
        "and tells why",
        reason.map(TokenError::kind) == Some(TokenErrorKind::ReauthRequired),
    )?;

    drop(tokens);
    let too_early = log_in(&token_url, server.issue_refresh_token())?;
    let status = too_early.say("anybody?").await.err();
    let status = status.ok_or("a call succeeded without a token")?;
    println!(
        "no token endpoint: {:?}, {}",
        status.code(),
        status.message()
    );
    check("it is UNAVAILABLE", status.code() == Code::Unavailable)
}
