//! [`BearerAuth`]: `Retry` over [`SendWithToken`], and the replayable body.
//!
//! A request without a token waits before it gets to `Retry`: nothing needs to be kept for a replay of what was not sent.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{
    BoxError, Layer,
    retry::{Retry, future::ResponseFuture as RetryFuture},
};
use tower_service::Service;

use super::{
    attempt::{Attempt, Outcome, SendAgainIfDecided, Sent},
    layer::BearerAuthLayer,
    send::{BearerSettings, SendWithToken},
};
use crate::{
    body::ReplayBody,
    cache::TokenCache,
    middleware::sending::{HeldRequest, NotReady},
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
pub struct BearerAuth<S, T = TokenCache> {
    pub(super) retry: RetrySend<S>,
    pub(super) tokens: T,
}

/// What all sessions of a layer have in common.
pub(super) type RetrySend<S> = Retry<SendAgainIfDecided, SendWithToken<S>>;

impl<S> BearerAuth<S> {
    /// Wraps `inner`, with the default settings of [`BearerAuthLayer`].
    pub fn new(inner: S, cache: TokenCache) -> Self
    where
        S: Clone,
    {
        BearerAuthLayer::from(cache).layer(inner)
    }
}

impl<S, T> BearerAuth<S, T> {
    pub(super) fn with_settings(inner: S, tokens: T, settings: Arc<BearerSettings>) -> Self {
        Self {
            retry: Retry::new(SendAgainIfDecided, SendWithToken { inner, settings }),
            tokens,
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
        start(&mut self.retry, &self.tokens, request)
    }
}

/// Sends a request with a token of `cache`, as soon as there is one.
#[inline]
pub(super) fn start<S, B, R>(
    retry: &mut RetrySend<S>,
    cache: &TokenCache,
    mut request: Request<B>,
) -> BearerAuthFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    R: Body,
{
    let settings = &retry.get_ref().settings.send;
    match settings.prepare(cache, &mut request) {
        Ok(sent) => send_at_once(retry, request, Sent::new(sent, cache)),
        Err(not_ready) => hold(retry, cache, request, not_ready),
    }
}

/// Sends a request that has its token, or gets none.
#[inline]
pub(super) fn send_at_once<S, B, R>(
    retry: &mut RetrySend<S>,
    request: Request<B>,
    sent: Option<Sent>,
) -> BearerAuthFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    R: Body,
{
    BearerAuthFuture {
        state: State::Sent {
            future: send(retry, request, sent),
        },
    }
}

#[cold]
fn hold<S, B, R>(
    retry: &mut RetrySend<S>,
    cache: &TokenCache,
    request: Request<B>,
    not_ready: NotReady,
) -> BearerAuthFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    BearerAuthFuture {
        state: State::Held {
            held: HeldRequest::new(retry, request, not_ready, cache.clone()),
        },
    }
}

type RetrySendFuture<S, B> = RetryFuture<SendAgainIfDecided, SendWithToken<S>, Attempt<B>>;

/// Sends a request, whose token `sent` tells. Not inlined, so that the large future is constructed in its final position.
#[inline(never)]
fn send<S, B, R>(
    retry: &mut RetrySend<S>,
    request: Request<B>,
    sent: Option<Sent>,
) -> RetrySendFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    R: Body,
{
    // A request without our token is never sent again.
    let limit = match sent {
        Some(_) => retry.get_ref().settings.replay_limit,
        None => 0,
    };
    let request = request.map(|body| ReplayBody::new(body, limit));
    retry.call(Attempt::First { request, sent })
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
        state: State<RetrySend<S>, B, RetrySendFuture<S, B>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        // There is a token, or none is needed.
        Sent {
            #[pin]
            future: F,
        },
        // Nothing is kept for a replay yet. Not boxed: it needs no more room than the other state.
        Held {
            held: HeldRequest<S, B>,
        },
    }
}

impl<S, B, R> Future for BearerAuthFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { future } => {
                    return Poll::Ready(Ok(match ready!(future.poll(cx))? {
                        Outcome::Answered(response) => response,
                        Outcome::SendAgain(rejected) => {
                            // The policy takes it only to send the request again, and then this is not the end.
                            rejected.expect("polled after completion").response
                        }
                    }));
                }
                StateProj::Held { held } => {
                    let (retry, request, sent, cache) = ready!(held.poll_send::<Attempt<B>>(cx))?;
                    let future = send(retry, request, Sent::new(sent, cache));
                    state.set(State::Sent { future });
                }
            }
        }
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
