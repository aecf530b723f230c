//! The inner service takes the caller's bodies instead of `ReplayBody`, and `check_service` makes the compiler say so.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, ServiceBuilder, util::BoxCloneService};
use tower_bearer::{BearerAuthLayer, Token, source_fn};

type Inner = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;

fn main() {
    let _ = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") })))
        .check_service::<Inner, Request<Full<Bytes>>, _, _>();
}

//~ ReplayBody<http_body_util::Full<
//~ required for `BearerAuth<BoxCloneService<
