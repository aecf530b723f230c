//! hyper's client is declared with the caller's body type. It must be `ReplayBody` of that, or left to inference.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, Token, source_fn};

fn main() {
    let hyper: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") })))
        .service(hyper);
    let _ = client.oneshot(Request::new(Full::<Bytes>::default()));
}

//~ the method `oneshot` exists for struct `BearerAuth<Client<
//~ but its trait bounds were not satisfied
