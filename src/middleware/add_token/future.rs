//! The futures of `AddToken`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::layer::{Guard, authorize};
use crate::{
    cache::{Issued, Sent, TokenCache, Wait},
    error::TokenError,
    middleware::bearer::Rejected,
};

pin_project! {
    /// Response future of [`AddToken`](super::AddToken).
    #[must_use = "futures do nothing unless polled"]
    pub struct AddTokenFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        sending: Authorizing<S, B>,
        guard: Arc<Guard>,
    }
}

impl<S, B> AddTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn new(sending: Authorizing<S, B>, guard: Arc<Guard>) -> Self {
        Self { sending, guard }
    }
}

impl<S, B, R> Future for AddTokenFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut polled = this.sending.as_mut().poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Some(sent) = this.sending.sent_with()
            && this.guard.rejects(response, sent)
        {
            // Reported at once: the next request, or the retry policy above, finds the renewal under way.
            this.guard.cache.reject_sent(sent.generation);
            response.extensions_mut().insert(Rejected(sent.generation));
        }
        polled
    }
}

impl<S, B> fmt::Debug for AddTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddTokenFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// Sends one request with a token.
    pub(crate) struct Authorizing<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        // The inner service has the request.
        Sent {
            #[pin]
            future: F,
            // With which token, if with one of ours.
            sent: Option<Sent>,
        },
        // There is no token yet. No readiness of `inner` is held.
        Waiting {
            #[pin]
            wait: Wait,
            parked: Option<Box<Parked<S, B>>>,
        },
        // The token is there; `inner` must become ready again.
        Readying {
            parked: Option<(Box<Parked<S, B>>, Arc<Issued>)>,
        },
        // There is no token to be had.
        Failed {
            error: Option<TokenError>,
        },
    }
}

/// A request that waits, and the service that will take it. Boxed, since almost none does, and all would be as large.
struct Parked<S, B> {
    inner: S,
    request: Request<B>,
    cache: TokenCache,
}

impl<S, B> Authorizing<S, B>
where
    S: Service<Request<B>>,
{
    #[inline]
    pub(crate) fn sent(future: S::Future, sent: Option<Sent>) -> Self {
        Self {
            state: State::Sent { future, sent },
        }
    }

    pub(super) fn waiting(wait: Wait, inner: S, request: Request<B>, cache: TokenCache) -> Self {
        let parked = Parked {
            inner,
            request,
            cache,
        };
        Self {
            state: State::Waiting {
                wait,
                parked: Some(Box::new(parked)),
            },
        }
    }

    /// The token that it was sent with, if it is one of ours.
    #[inline]
    pub(crate) fn sent_with(&self) -> Option<Sent> {
        match self.state {
            State::Sent { sent, .. } => sent,
            _ => None,
        }
    }

    pub(super) fn failed(error: TokenError) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
        }
    }
}

impl<S, B, R> Future for Authorizing<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { future, .. } => return future.poll(cx).map_err(Into::into),
                StateProj::Waiting { wait, parked } => {
                    let issued = ready!(wait.poll(cx))?;
                    let parked = parked.take().map(|parked| (parked, issued));
                    state.set(State::Readying { parked });
                }
                StateProj::Readying { parked } => {
                    let (ready, _) = parked.as_mut().expect("polled after completion");
                    ready!(ready.inner.poll_ready(cx)).map_err(Into::into)?;
                    let (ready, issued) = parked.take().expect("just looked at");
                    let Parked {
                        mut inner,
                        mut request,
                        cache,
                    } = *ready;
                    // Until it was polled, and until it was ready, can take longer than a token lasts.
                    let headers = request.headers_mut();
                    let sent = cache.read_or(&issued, |issued| authorize(issued, headers));
                    let future = inner.call(request);
                    state.set(State::Sent { future, sent });
                }
                StateProj::Failed { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }
}
