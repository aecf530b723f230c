//! Helpers for the tests of the public API: sources, requests, and checks of errors.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of these helpers"
)]

pub mod failing_store;
pub mod step_up;

use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Service, ServiceExt};
use tower_bearer::{
    ClientAuth, OAuthClient, RefreshTokenSource, TokenCache, TokenContext, TokenError, TokenSource,
    testing::AuthorizationServer,
};

pub const API: &str = "https://api.example.com";
pub const TOKEN_URL: &str = "https://login.example.com/token";

pub type FullRequest = Request<Full<Bytes>>;

/// A source for a server of the standard dialect, with a session of its own.
pub fn source(server: &AuthorizationServer) -> RefreshTokenSource {
    let endpoint = OAuthClient::with_transport(TOKEN_URL, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    RefreshTokenSource::new(endpoint, server.issue_refresh_token())
}

pub fn get(url: &str) -> FullRequest {
    Request::get(url).body(Full::default()).unwrap()
}

/// An order. The API counts it by its `id`, and echoes the body.
pub fn order(id: &str, body: &'static str) -> FullRequest {
    Request::post(format!("{API}/orders"))
        .header("x-request-id", id)
        .body(Full::from(body))
        .unwrap()
}

pub async fn send<S, Q, R>(client: &S, request: Q) -> Result<Response<R>, BoxError>
where
    S: Service<Q, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    client.clone().oneshot(request).await.map_err(Into::into)
}

pub async fn status<S, Q, R>(client: &S, request: Q) -> u16
where
    S: Service<Q, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    send(client, request).await.unwrap().status().as_u16()
}

pub async fn text<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

/// The `TokenError` of a failed request.
pub fn failure<R>(outcome: Result<R, BoxError>) -> TokenError {
    let error = outcome.err().expect("no token, so no response");
    *error.downcast().expect("a `TokenError`")
}

/// The `TokenError` in the extensions of a response.
pub fn reason<R>(response: &Response<R>) -> TokenError {
    let reason = response.extensions().get();
    reason.cloned().expect("a `TokenError` in the extensions")
}

/// The error of a source that has no first token.
pub async fn first_error(source: impl TokenSource) -> TokenError {
    source.token(TokenContext::new()).await.unwrap_err()
}

/// Gets a token, reports it as rejected, and gets another one.
pub async fn two_tokens(source: impl TokenSource) -> Result<TokenCache, TokenError> {
    let cache = TokenCache::new(source);
    let first = cache.token().await?;
    cache.reject(&first);
    let second = cache.token().await?;
    assert_ne!(first.expose_secret(), second.expose_secret());
    Ok(cache)
}

/// Panics if the error or one of its causes shows one of the secrets in `Display` or `Debug`.
#[track_caller]
pub fn assert_hides(error: &TokenError, secrets: &[&str]) {
    let mut shown = vec![format!("{error}{error:?}{error:#?}")];
    let mut cause = error.source();
    while let Some(error) = cause {
        shown.push(format!("{error}{error:?}{error:#?}"));
        cause = error.source();
    }
    let shown = shown.concat();
    for secret in secrets {
        assert!(!shown.contains(secret), "`{secret}` is shown in: {shown}");
    }
}
