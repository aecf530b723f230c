//! [`RejectOnTrailers`]: the service.

use std::task::{Context, Poll};

use http::{Request, Response, header::AUTHORIZATION};
use tower_service::Service;

use super::{
    body::{RejectOnTrailersBody, StreamToken},
    future::RejectOnTrailersFuture,
};
use crate::cache::TokenCache;

/// Reports gRPC's `UNAUTHENTICATED` in trailers; made by [`RejectOnTrailersLayer`](super::RejectOnTrailersLayer).
///
/// # Errors
///
/// Those of the inner service.
#[derive(Clone, Debug)]
pub struct RejectOnTrailers<S> {
    inner: S,
    cache: TokenCache,
}

impl<S> RejectOnTrailers<S> {
    pub(super) fn new(inner: S, cache: TokenCache) -> Self {
        Self { inner, cache }
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

impl<S, B, R> Service<Request<B>> for RejectOnTrailers<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<RejectOnTrailersBody<R>>;
    type Error = S::Error;
    type Future = RejectOnTrailersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let header = request.headers().get(AUTHORIZATION);
        let token = header.map(|header| StreamToken::new(header.clone(), self.cache.clone()));
        RejectOnTrailersFuture::new(self.inner.call(request), token)
    }
}
