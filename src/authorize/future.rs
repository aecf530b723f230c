//! The futures of `Authorize`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, header::AUTHORIZATION};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::layer::Guard;
use crate::{
    cache::{Issued, TokenCache, Wait},
    error::TokenError,
    retry::{Refused, ResponseHead, Verdict},
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
        let (mut response, issued) = ready!(this.sending.poll(cx))?;
        if let Some(issued) = issued {
            let head = ResponseHead::of(&response);
            match this.guard.classifier.classify(head) {
                Verdict::Refused => {
                    // Reported at once: the next request, or the retry policy above, finds the renewal under way.
                    drop(this.guard.cache.reject_issued(&issued));
                    response.extensions_mut().insert(Refused(issued));
                }
                verdict if head.proves_token(verdict) => issued.prove(),
                _ => {}
            }
        }
        Poll::Ready(Ok(response))
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
            issued: Option<Arc<Issued>>,
        },
        // There is no token yet. No readiness of `inner` is held.
        Waiting {
            #[pin]
            wait: Wait,
            parked: Option<Box<Parked<S, B>>>,
        },
        // The token is there; `inner` must become ready again.
        Readying {
            parked: Option<Box<Parked<S, B>>>,
            issued: Option<Arc<Issued>>,
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
    pub(super) fn sent(future: S::Future, issued: Option<Arc<Issued>>) -> Self {
        Self {
            state: State::Sent { future, issued },
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

impl<S, B, R> Future for Authorizing<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<(Response<R>, Option<Arc<Issued>>), BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { future, issued } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into)?;
                    return Poll::Ready(Ok((response, issued.take())));
                }
                StateProj::Waiting { wait, parked } => {
                    let issued = ready!(wait.poll(cx))?;
                    let parked = parked.take();
                    state.set(State::Readying {
                        parked,
                        issued: Some(issued),
                    });
                }
                StateProj::Readying { parked, issued } => {
                    let ready = parked.as_mut().expect("polled after completion");
                    ready!(ready.inner.poll_ready(cx)).map_err(Into::into)?;
                    let Parked {
                        mut inner,
                        mut request,
                        cache,
                    } = *parked.take().expect("just looked at");
                    // Readiness can take longer than a token lasts.
                    let issued = issued.take().map(|issued| cache.current_or(issued));
                    if let Some(issued) = &issued {
                        let header = issued.token().header().clone();
                        request.headers_mut().insert(AUTHORIZATION, header);
                    }
                    let future = inner.call(request);
                    state.set(State::Sent { future, issued });
                }
                StateProj::Failed { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }
}
