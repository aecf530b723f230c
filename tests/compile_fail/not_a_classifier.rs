//! A status code is not a classifier.

use http::StatusCode;
use tower_bearer::{BearerAuthLayer, Token, source_fn};

fn main() {
    let _ = BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") }))
        .classifier(StatusCode::UNAUTHORIZED);
}

//~ `StatusCode` can't tell whether a response rejects the token
//~ a closure `|head: ResponseHead<'_>| -> Verdict` is one
