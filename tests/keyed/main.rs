//! A session for each key: `Sessions` and `BearerAuthLayer::keyed`.

#![cfg(all(feature = "sessions", feature = "testing", feature = "file-store"))]

mod refreshes;
mod schedules;
mod sessions;
mod stores;
mod world;

use http::{Request, Response};
use tower::BoxError;
use tower_bearer::{
    ReplayBody, SessionKey, Token, TokenCache, TokenError, TokenErrorKind, source_fn,
};

/// A session that lasts for ever.
fn cache_of(key: u64) -> TokenCache {
    TokenCache::new(source_fn(move |_| async move {
        Token::new(format!("token-of-{key}"))
    }))
}

fn request(key: u64) -> Request<String> {
    Request::get("https://api.example.com/")
        .extension(SessionKey(key))
        .body(String::new())
        .unwrap()
}

/// An API that answers with the `Authorization` of the request.
async fn echo(request: Request<ReplayBody<String>>) -> Result<Response<String>, BoxError> {
    let authorization = request.headers().get("authorization");
    let text = authorization.map_or("", |value| value.to_str().unwrap());
    Ok(Response::new(text.to_owned()))
}

fn kind(error: &BoxError) -> TokenErrorKind {
    error.downcast_ref::<TokenError>().unwrap().kind()
}
