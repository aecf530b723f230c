//! The inner service is not `Clone`.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, ServiceBuilder, util::BoxService};
use tower_bearer::{BearerAuthLayer, ReplayBody, Token, source_fn};

type Inner = BoxService<Request<ReplayBody<Full<Bytes>>>, Response<Full<Bytes>>, BoxError>;

fn main() {
    let inner: Inner = unimplemented!();
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") })))
        .service(inner);
}

//~ the trait `Clone` is not implemented for `BoxService<
//~ required for `BearerAuthLayer` to implement `Layer<BoxService<
