//! [`HeldRequest`]: a request that waits for its token, and then for the service.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Request;
use tower::BoxError;
use tower_service::Service;

use super::{NotReady, add_current_or};
use crate::{
    cache::{Issued, SentToken, TokenCache, Waiter},
    error::TokenError,
};

/// A request that cannot be sent yet, and the service that it will be sent to. It holds no readiness of that service.
pub(crate) struct HeldRequest<S, B> {
    inner: S,
    request: Option<Request<B>>,
    cache: TokenCache,
    state: HeldState,
}

enum HeldState {
    /// There is no token yet.
    Waiting(Waiter),
    /// There is a token. The service must become ready again.
    Readying(Arc<Issued>),
    /// No token can be had.
    Failed(Option<TokenError>),
}

impl<S: Clone, B> HeldRequest<S, B> {
    /// Gives back the readiness of `inner`.
    #[cold]
    pub(crate) fn new(
        inner: &mut S,
        request: Request<B>,
        not_ready: NotReady,
        cache: TokenCache,
    ) -> Self {
        Self {
            inner: give_back_readiness(inner),
            request: Some(request),
            cache,
            state: match not_ready {
                NotReady::Wait(waiter) => HeldState::Waiting(waiter),
                NotReady::Failed(error) => HeldState::Failed(Some(error)),
            },
        }
    }
}

/// Readiness belongs to the instance that acquired it, and ends when that is dropped. Returns another clone, not yet ready.
pub(crate) fn give_back_readiness<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    drop(mem::replace(inner, clone.clone()));
    clone
}

/// A service that is ready, the request for it, the token that the request has if it is one of ours, and the cache of that.
pub(crate) type ReadyToSend<'a, S, B> = (&'a mut S, Request<B>, Option<SentToken>, &'a TokenCache);

impl<S, B> HeldRequest<S, B> {
    /// Waits for a token, and for the service to be ready for a request `Q`. Adds the token.
    pub(crate) fn poll_send<Q>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ReadyToSend<'_, S, B>, BoxError>>
    where
        S: Service<Q>,
        S::Error: Into<BoxError>,
    {
        loop {
            match &mut self.state {
                HeldState::Waiting(waiter) => {
                    let issued = ready!(Pin::new(waiter).poll(cx))?;
                    self.state = HeldState::Readying(issued);
                }
                HeldState::Readying(issued) => {
                    ready!(self.inner.poll_ready(cx)).map_err(Into::into)?;
                    let mut request = self.request.take().expect("polled after completion");
                    // The token that came may have expired while this future was not polled, or not ready.
                    let sent = add_current_or(&self.cache, &mut request, issued);
                    return Poll::Ready(Ok((&mut self.inner, request, sent, &self.cache)));
                }
                HeldState::Failed(error) => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }
}
