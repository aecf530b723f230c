//! The caller's body is not `Unpin`.

use std::{convert::Infallible, marker::PhantomPinned, pin::Pin, task};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tower::{BoxError, Service, ServiceBuilder, util::BoxCloneService};
use tower_bearer::{BearerAuthLayer, ReplayBody, Token, source_fn};

struct Pinned(PhantomPinned);

impl Body for Pinned {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        task::Poll::Ready(None)
    }
}

type Inner = BoxCloneService<Request<ReplayBody<Pinned>>, Response<Full<Bytes>>, BoxError>;

fn send<S: Service<Request<Pinned>>>(_: S) {}

fn main() {
    let inner: Inner = unimplemented!();
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") })))
        .service(inner);
    send(client);
}

//~ the trait `Unpin` is not implemented for `PhantomPinned`
//~ required because it appears within the type `Pinned`
