//! The same mistake, asked in the way that the README recommends: the compiler names the missing bound.

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
    let _ = ServiceExt::<Request<Full<Bytes>>>::oneshot(client, Request::default());
}

//~ Service<http::Request<ReplayBody<
//~ is not satisfied
