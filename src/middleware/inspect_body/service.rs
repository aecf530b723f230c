//! [`InspectBody`]: the service.

use std::{
    fmt,
    task::{Context, Poll},
};

use http::{Request, Response, header};
use http_body::Body;
use tower_service::Service;

use super::{
    future::InspectBodyFuture,
    layer::{InspectFn, Inspection},
};
use crate::{
    body::PeekBody,
    challenge::{ResponseHead, Verdict},
};

/// Finds rejections of the token in response bodies; made by [`InspectBodyLayer`](super::InspectBodyLayer).
///
/// # Errors
///
/// Those of the inner service. An error of a response body stays in that body.
#[derive(Clone)]
pub struct InspectBody<S, P = InspectFn> {
    inner: S,
    inspection: Inspection<P>,
}

impl<S, P> InspectBody<S, P> {
    pub(super) fn new(inner: S, inspection: Inspection<P>) -> Self {
        Self { inner, inspection }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, P, B, R> Service<Request<B>> for InspectBody<S, P>
where
    S: Service<Request<B>, Response = Response<R>>,
    P: Fn(ResponseHead<'_>, &[u8]) -> Option<Verdict> + Clone,
    R: Body + Unpin,
{
    type Response = Response<PeekBody<R>>;
    type Error = S::Error;
    type Future = InspectBodyFuture<S::Future, P, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let has_token = request.headers().contains_key(header::AUTHORIZATION);
        let inspection = has_token.then(|| self.inspection.clone());
        InspectBodyFuture::new(self.inner.call(request), inspection)
    }
}

impl<S: fmt::Debug, P> fmt::Debug for InspectBody<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
