//! The inner service takes the caller's bodies instead of replayable ones.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Service, ServiceBuilder, util::BoxCloneService};
use tower_bearer::{BearerAuthLayer, Token, source_fn};

type Inner = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;

fn send<S: Service<Request<Full<Bytes>>>>(_: S) {}

fn main() {
    let inner: Inner = unimplemented!();
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") })))
        .service(inner);
    send(client);
}

//~ ReplayBody<http_body_util::Full<
//~ required for `BearerAuth<BoxCloneService<
