//! A closure over `BoxError` above the layer, in a future that is spawned. A function with a name compiles.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, Token, source_fn};

fn main() {
    let client = ServiceBuilder::new()
        .map_err(|error: BoxError| error)
        .layer(BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") })))
        .service(Client::builder(TokioExecutor::new()).build_http());
    tokio::spawn(async move { client.oneshot(Request::new(Full::<Bytes>::default())).await });
}

//~ implementation of `FnOnce` is not general enough
