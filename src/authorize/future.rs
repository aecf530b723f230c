//! The futures of `Authorize`.

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

use super::layer::{Guard, put_on};
use crate::{
    cache::{Issued, Sent, TokenCache, Wait},
    error::TokenError,
    retry::Refused,
};

pin_project! {
    /// Response future of [`Authorize`](super::Authorize).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        sending: Authorizing<S, B>,
        guard: Arc<Guard>,
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn new(sending: Authorizing<S, B>, guard: Arc<Guard>) -> Self {
        Self { sending, guard }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let guard = &*this.guard;
        this.sending.poll_then(cx, |mut response, sent| {
            if let Some(sent) = sent
                && guard.refuses(&response, sent)
            {
                // Reported at once: the next request, or the retry policy above, finds the renewal under way.
                guard.cache.reject_sent(sent.generation);
                response.extensions_mut().insert(Refused(sent.generation));
            }
            response
        })
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// Sends one request with a token, and tells with which.
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
    pub(super) fn sent(future: S::Future, sent: Option<Sent>) -> Self {
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

    pub(super) fn failed(error: TokenError) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
        }
    }
}

impl<S, B, R> Authorizing<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    /// Polls, and makes of the response and of what was sent what `then` makes of them. (A future of both would be two
    /// moves of the response more.)
    #[inline]
    pub(crate) fn poll_then<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        then: impl FnOnce(Response<R>, Option<Sent>) -> T,
    ) -> Poll<Result<T, BoxError>> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { future, sent } => {
                    return match future.poll(cx) {
                        Poll::Ready(Ok(response)) => Poll::Ready(Ok(then(response, *sent))),
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                        Poll::Pending => Poll::Pending,
                    };
                }
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
                    // Readiness can take longer than a token lasts.
                    let sent = put_on(&cache.current_or(issued), request.headers_mut());
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
