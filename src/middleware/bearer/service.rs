//! [`BearerAuth`]: `Retry` over [`SendWithToken`], and the replayable body.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, header::AUTHORIZATION};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{
    BoxError, Layer,
    retry::{Retry, future::ResponseFuture as RetryFuture},
};
use tower_service::Service;

use super::{
    attempt::{Attempt, Outcome},
    layer::BearerAuthLayer,
    send::{BearerSettings, SendWithToken},
};
use crate::{
    body::ReplayBody,
    cache::TokenCache,
    middleware::{extensions::WithoutToken, retry::RefreshOnReject},
    origins::OriginMatch,
};

/// Adds a token to each request, and sends a request again if its token is rejected. Made by [`BearerAuthLayer`].
///
/// The inner service gets bodies of type [`ReplayBody<B>`](ReplayBody).
///
/// # Errors
///
/// The errors of the inner service, and a [`TokenError`](crate::TokenError) if there is no token to send the request with.
/// A rejected request whose token cannot be replaced is no error: the caller gets the server's own response, unread, with
/// the `TokenError` that says why in its extensions.
///
/// # Readiness
///
/// It is ready when the inner service is. While a request waits for a token, it gives the readiness of the inner service
/// back. For that and for replays the inner service must be [`Clone`]. If it is not, put it behind a
/// `tower::buffer::Buffer`.
///
/// # If it does not compile
///
/// For a method like `oneshot` the compiler only says that "its trait bounds were not satisfied". Mostly the inner service
/// takes the caller's bodies instead of [`ReplayBody`]s, or the caller's bodies are not [`Unpin`]. Put
/// [`check_service`](tower::ServiceBuilder::check_service) below the line of the layer, and the compiler says which.
///
/// ```
/// # use http::{Request, Response};
/// # use tower::{BoxError, ServiceBuilder, util::BoxCloneService};
/// # use tower_bearer::{BearerAuthLayer, ReplayBody, Token, source_fn};
/// # let layer = BearerAuthLayer::new(source_fn(|_| async { Token::new("abc") }));
/// type Inner = BoxCloneService<Request<ReplayBody<String>>, Response<String>, BoxError>;
///
/// let stack = ServiceBuilder::new()
///     .layer(layer)
///     .check_service::<Inner, Request<String>, _, _>();
/// # let _ = stack;
/// ```
#[derive(Clone, Debug)]
pub struct BearerAuth<S> {
    retry: Retry<RefreshOnReject, SendWithToken<S>>,
    replay_limit: usize,
}

impl<S> BearerAuth<S> {
    /// Wraps `inner`, with the default settings of [`BearerAuthLayer`].
    pub fn new(inner: S, cache: TokenCache) -> Self
    where
        S: Clone,
    {
        BearerAuthLayer::from(cache).layer(inner)
    }

    pub(super) fn with_settings(
        inner: S,
        settings: Arc<BearerSettings>,
        replay_limit: usize,
    ) -> Self {
        let cache = settings.send.cache.clone();
        let policy = RefreshOnReject::with_settings(cache, Arc::clone(&settings.replays));
        Self {
            retry: Retry::new(policy, SendWithToken { inner, settings }),
            replay_limit,
        }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.retry.get_ref().inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.retry.get_mut().inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.retry.into_inner().inner
    }
}

impl<S, B, R> Service<Request<B>> for BearerAuth<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    R: Body,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = BearerAuthFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::<Attempt<B>>::poll_ready(&mut self.retry, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let has_own = request.headers().contains_key(AUTHORIZATION);
        let opts_out = request.extensions().get::<WithoutToken>().is_some();
        let origin = if has_own || opts_out {
            OriginMatch::NotAllowed
        } else {
            let settings = &self.retry.get_ref().settings;
            settings.send.origins.check(request.uri())
        };
        // A request without our token is never sent again.
        let limit = match origin {
            OriginMatch::Allowed => self.replay_limit,
            OriginMatch::NotAllowed | OriginMatch::Insecure => 0,
        };
        let request = request.map(|body| ReplayBody::new(body, limit));
        BearerAuthFuture {
            inner: call_retry(&mut self.retry, Attempt::First { request, origin }),
        }
    }
}

/// Not inlined, so that the large future is constructed in its final position.
#[inline(never)]
fn call_retry<S, B, R>(
    retry: &mut Retry<RefreshOnReject, SendWithToken<S>>,
    attempt: Attempt<B>,
) -> RetryFuture<RefreshOnReject, SendWithToken<S>, Attempt<B>>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    R: Body,
{
    retry.call(attempt)
}

pin_project! {
    /// Response future of [`BearerAuth`].
    #[must_use = "futures do nothing unless polled"]
    pub struct BearerAuthFuture<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
        S: Clone,
        S::Error: Into<BoxError>,
        R: Body,
    {
        #[pin]
        inner: RetryFuture<RefreshOnReject, SendWithToken<S>, Attempt<B>>,
    }
}

impl<S, B, R> Future for BearerAuthFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.project().inner.poll(cx))? {
            Outcome::Answered(response) => Ok(response),
            Outcome::SendAgain(rejected) => {
                // The policy takes it only to send the request again, and then this is not the end.
                Ok(rejected.expect("polled after completion").response)
            }
        })
    }
}

impl<S, B, R> fmt::Debug for BearerAuthFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerAuthFuture").finish_non_exhaustive()
    }
}
