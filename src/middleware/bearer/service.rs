//! [`BearerAuth`]: the assembly of `AddToken`, `Retry` and the replayable body.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{
    BoxError,
    retry::{Retry, future::ResponseFuture as RetryFuture},
};
use tower_service::Service;

use super::{attempt::Attempt, send::Renew};
use crate::{
    body::ReplayBody,
    middleware::RefreshOnReject,
    middleware::add_token::{AddToken, Guard},
    origins::OriginMatch,
};

/// Puts a token on each request, and heals those that are rejected for it; made by
/// [`BearerAuthLayer`](crate::BearerAuthLayer).
///
/// The inner service is called with bodies of type [`ReplayBody<B>`](ReplayBody).
///
/// # Errors
///
/// Those of the inner service; and [`TokenError`](crate::TokenError) if there is no token to send a request with. A
/// rejected request whose token can't be replaced is no error: the caller gets the server's own response, unread, and
/// finds the `TokenError` that says why in its extensions.
///
/// # Readiness
///
/// It is ready when the inner service is, but holds no readiness while it waits for a token. For that and for replays
/// the inner service must be [`Clone`]; one that isn't can stand behind a `tower::buffer::Buffer`.
///
/// # If it is no service
///
/// Of a method like `oneshot` the compiler says only that "its trait bounds were not satisfied": mostly because the inner
/// service takes the caller's bodies instead of [`ReplayBody`]s, or because the caller's bodies are not [`Unpin`]. Put
/// [`check_service`](tower::ServiceBuilder::check_service) below the layer's line, and it says which.
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
    retry: Retry<RefreshOnReject, Renew<S>>,
    replay_limit: usize,
}

impl<S> BearerAuth<S> {
    pub(crate) fn new(inner: S, guard: Arc<Guard>, replay_limit: usize) -> Self {
        let policy =
            RefreshOnReject::with_settings(guard.cache.clone(), Arc::clone(&guard.replays));
        let renew = Renew::new(AddToken::new(inner, guard));
        Self {
            retry: Retry::new(policy, renew),
            replay_limit,
        }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        self.retry.get_ref().get_ref()
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        self.retry.get_mut().get_mut()
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.retry.into_inner().into_inner()
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
        let scope = self.retry.get_ref().judge(&request);
        // What has no token of ours is never sent again.
        let limit = if scope == OriginMatch::Allowed {
            self.replay_limit
        } else {
            0
        };
        let request = request.map(|body| ReplayBody::new(body, limit));
        BearerAuthFuture {
            inner: begin(&mut self.retry, Attempt::First { request, scope }),
        }
    }
}

/// A call that stays one: what it returns is large, and is then made where it will stay.
#[inline(never)]
fn begin<S, B, R>(
    retry: &mut Retry<RefreshOnReject, Renew<S>>,
    attempt: Attempt<B>,
) -> RetryFuture<RefreshOnReject, Renew<S>, Attempt<B>>
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
        inner: RetryFuture<RefreshOnReject, Renew<S>, Attempt<B>>,
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
        self.project().inner.poll(cx)
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
