//! Rejections that are told when the answer is over: in the trailers of a gRPC stream.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    cache::TokenCache,
    challenge::{is_grpc, is_unauthenticated},
};

/// Listens for gRPC's `UNAUTHENTICATED` at the end of streams, so that the next call has another token; it stands
/// *below* [`BearerAuthLayer`](crate::BearerAuthLayer), with the same cache.
///
/// A gRPC server that rejects a call at once says so in the headers (`grpc-status: 16`, "trailers-only"): such a call is
/// healed by [`BearerChallenge`](crate::BearerChallenge) and a replay. A stream whose token ends on the way gets the
/// status in its trailers. Its messages have been delivered, so it isn't sent again; but its token is known to be bad
/// from then on. Only that one: if another has come in the meantime, that stays.
///
/// Nothing is read ahead or held back, and nothing is allocated.
///
/// # Examples
///
/// ```
/// use http::{HeaderMap, Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_bearer::{BearerAuthLayer, RejectOnTrailersLayer, ReplayBody, Token, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
/// let cache = TokenCache::new(source_fn(|request| async move {
///     Token::new(if request.rejected_token().is_some() { "new" } else { "old" })
/// }));
/// let client = ServiceBuilder::new()
///     .layer(BearerAuthLayer::from(cache.clone()))
///     .layer(RejectOnTrailersLayer::new(cache.clone()))
///     .service(service_fn(|_: Request<ReplayBody<String>>| async {
///         let end = HeaderMap::from_iter([("grpc-status".parse()?, "16".parse()?)]);
///         let body = Full::<bytes::Bytes>::from("a message").with_trailers(async { Some(Ok(end)) });
///         let response = Response::builder().header("content-type", "application/grpc").body(body)?;
///         Ok::<_, tower::BoxError>(response)
///     }));
///
/// let request = Request::post("/prices.Prices/Watch").body(String::new())?;
/// client.oneshot(request).await?.into_body().collect().await?;
/// assert_eq!(cache.token().await?.header(), "Bearer new");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RejectOnTrailersLayer {
    cache: TokenCache,
}

impl RejectOnTrailersLayer {
    /// A layer for what is sent with tokens of `cache`.
    pub fn new(cache: TokenCache) -> Self {
        Self { cache }
    }
}

impl<S> Layer<S> for RejectOnTrailersLayer {
    type Service = RejectOnTrailers<S>;

    fn layer(&self, inner: S) -> RejectOnTrailers<S> {
        RejectOnTrailers {
            inner,
            cache: self.cache.clone(),
        }
    }
}

/// Listens for gRPC's `UNAUTHENTICATED` at the end of streams; made by [`RejectOnTrailersLayer`].
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
        let watch = request.headers().get(AUTHORIZATION).map(|sent| Watch {
            sent: sent.clone(),
            cache: self.cache.clone(),
            served: false,
        });
        RejectOnTrailersFuture {
            inner: self.inner.call(request),
            watch,
        }
    }
}

/// What was sent, and whom to tell if it was rejected.
struct Watch {
    sent: HeaderValue,
    cache: TokenCache,
    /// Messages came: the token was good for something.
    served: bool,
}

pin_project! {
    /// Response future of [`RejectOnTrailers`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RejectOnTrailersFuture<F> {
        #[pin]
        inner: F,
        watch: Option<Watch>,
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
        let watch = this.watch.take().filter(|_| is_grpc(response.headers()));
        Poll::Ready(Ok(
            response.map(|inner| RejectOnTrailersBody { inner, watch })
        ))
    }
}

pin_project! {
    /// Response body of [`RejectOnTrailers`]: the inner one, frame by frame.
    #[must_use = "a body does nothing unless it is polled"]
    pub struct RejectOnTrailersBody<R> {
        #[pin]
        inner: R,
        watch: Option<Watch>,
    }
}

impl<R> RejectOnTrailersBody<R> {
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
        if let (Some(Ok(frame)), Some(watch)) = (&frame, this.watch) {
            watch.hear(frame);
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

impl Watch {
    fn hear<D>(&mut self, frame: &Frame<D>) {
        match frame.trailers_ref() {
            Some(trailers) if is_unauthenticated(trailers) => {
                self.cache.reject_header(&self.sent, self.served);
            }
            Some(_) => {}
            None => self.served = true,
        }
    }
}

impl<F> fmt::Debug for RejectOnTrailersFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectOnTrailersFuture")
            .finish_non_exhaustive()
    }
}

impl<R: fmt::Debug> fmt::Debug for RejectOnTrailersBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectOnTrailersBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
