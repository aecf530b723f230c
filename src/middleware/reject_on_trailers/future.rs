//! [`RejectOnTrailersFuture`]: the response future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::body::{RejectOnTrailersBody, StreamToken};
use crate::challenge::is_grpc;

pin_project! {
    /// Response future of [`RejectOnTrailers`](super::RejectOnTrailers).
    #[must_use = "futures do nothing unless polled"]
    pub struct RejectOnTrailersFuture<F> {
        #[pin]
        inner: F,
        token: Option<StreamToken>,
    }
}

impl<F> RejectOnTrailersFuture<F> {
    pub(super) fn new(inner: F, token: Option<StreamToken>) -> Self {
        Self { inner, token }
    }
}

impl<F, R, E> Future for RejectOnTrailersFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<RejectOnTrailersBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let token = this.token.take().filter(|_| is_grpc(response.headers()));
        Poll::Ready(Ok(
            response.map(|inner| RejectOnTrailersBody::new(inner, token))
        ))
    }
}

impl<F> fmt::Debug for RejectOnTrailersFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectOnTrailersFuture")
            .finish_non_exhaustive()
    }
}
