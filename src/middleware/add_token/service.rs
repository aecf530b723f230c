//! [`AddToken`].

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::BoxError;
use tower_service::Service;

use super::AddTokenFuture;
use crate::{
    cache::TokenCache,
    middleware::sending::{HeldRequest, NotReady, SendSettings, Sending},
};

/// Adds the token to each request. Made by [`AddTokenLayer`](crate::AddTokenLayer).
///
/// # Errors
///
/// The errors of the inner service, and a [`TokenError`](crate::TokenError) if there is no token to send the request with.
///
/// # Readiness
///
/// It is ready when the inner service is. While a request waits for a token, it gives the readiness of the inner service
/// back: otherwise a token request through the same client and the same concurrency limit could not be sent. For that the
/// inner service must be [`Clone`]. If it is not, put it behind a `tower::buffer::Buffer`.
#[derive(Clone, Debug)]
pub struct AddToken<S> {
    inner: S,
    settings: Arc<AddTokenSettings>,
}

#[derive(Clone, Debug)]
pub(super) struct AddTokenSettings {
    pub(super) cache: TokenCache,
    pub(super) send: SendSettings,
}

impl AddTokenSettings {
    pub(super) fn new(cache: TokenCache) -> Self {
        Self {
            cache,
            send: SendSettings::default(),
        }
    }
}

impl<S> AddToken<S> {
    /// Wraps `inner`, with the default settings of [`AddTokenLayer`](crate::AddTokenLayer).
    pub fn new(inner: S, cache: TokenCache) -> Self {
        Self::with_settings(inner, Arc::new(AddTokenSettings::new(cache)))
    }

    pub(super) fn with_settings(inner: S, settings: Arc<AddTokenSettings>) -> Self {
        Self { inner, settings }
    }

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

impl<S> AddToken<S> {
    #[cold]
    fn hold<B>(&mut self, request: Request<B>, not_ready: NotReady) -> Sending<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        let cache = self.settings.cache.clone();
        Sending::held(HeldRequest::new(&mut self.inner, request, not_ready, cache))
    }
}

impl<S, B, R> Service<Request<B>> for AddToken<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = AddTokenFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let AddTokenSettings { cache, send } = &*self.settings;
        let sending = match send.prepare(cache, &mut request) {
            Ok(sent) => Sending::sent(self.inner.call(request), sent),
            Err(not_ready) => self.hold(request, not_ready),
        };
        AddTokenFuture::new(sending, Arc::clone(&self.settings))
    }
}
