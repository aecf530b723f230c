//! [`RejectOnTrailersBody`]: the response body, which reads the trailers as they pass.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{cache::TokenCache, challenge::is_unauthenticated};

/// The token of a request, and the cache to report its rejection to.
pub(super) struct StreamToken {
    header: HeaderValue,
    cache: TokenCache,
    /// Messages have arrived, so the API accepted the token at first.
    accepted: bool,
}

impl StreamToken {
    pub(super) fn new(header: HeaderValue, cache: TokenCache) -> Self {
        Self {
            header,
            cache,
            accepted: false,
        }
    }

    fn observe<D>(&mut self, frame: &Frame<D>) {
        match frame.trailers_ref() {
            Some(trailers) if is_unauthenticated(trailers) => {
                self.cache.reject_header(&self.header, self.accepted);
            }
            Some(_) => {}
            None => self.accepted = true,
        }
    }
}

pin_project! {
    /// Response body of [`RejectOnTrailers`](super::RejectOnTrailers): the inner one, frame by frame.
    #[must_use = "a body does nothing unless it is polled"]
    pub struct RejectOnTrailersBody<R> {
        #[pin]
        inner: R,
        token: Option<StreamToken>,
    }
}

impl<R> RejectOnTrailersBody<R> {
    pub(super) fn new(inner: R, token: Option<StreamToken>) -> Self {
        Self { inner, token }
    }

    /// The inner body.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner body.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The inner body.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Body> Body for RejectOnTrailersBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let (Some(Ok(frame)), Some(token)) = (&frame, this.token) {
            token.observe(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<R: fmt::Debug> fmt::Debug for RejectOnTrailersBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectOnTrailersBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
