//! reqwest's client takes reqwest's requests. `ReqwestTransport` makes it a service of `http::Request`.

use http::Request;
use tower::{ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, Token, source_fn};

fn main() {
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") })))
        .service(reqwest::Client::new());
    let _ = client.oneshot(Request::new(reqwest::Body::default()));
}

//~ the method `oneshot` exists for struct `BearerAuth<Client>`
//~ but its trait bounds were not satisfied
