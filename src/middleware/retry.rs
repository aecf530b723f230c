//! [`RefreshOnReject`], the policy for `tower::retry::Retry`, and the settings of replays.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response};
use tower::retry::{
    Policy,
    budget::{Budget, TpsBudget},
};

use super::extensions::TokenRejected;
use crate::{
    body::ReplayBody,
    cache::{Lookup, SentToken, TokenCache, Waiter},
    error::{TokenError, TokenErrorKind},
};

/// How many replays the budget allows for each of its ten seconds. If a session is revoked while thousands of requests are
/// in flight, all of them must be sent again.
const REPLAYS_PER_SECOND: u32 = 1_000;
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// A [`tower::retry::Policy`] that sends a request again, once, if its token was rejected.
///
/// [`BearerAuthLayer`](crate::BearerAuthLayer) includes it. By itself it stands above an
/// [`AddTokenLayer`](crate::AddTokenLayer), which adds a [`TokenRejected`](crate::TokenRejected) to the extensions of
/// rejected responses. The request's body must be a [`ReplayBody`]. Compared with the layer, it drops the rejected response
/// before it waits for the new token, and it clones the headers of every request.
///
/// Nothing else is sent again: no error, no timeout, no other status. Such requests may have had their effect.
///
/// # Examples
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_bearer::{AddTokenLayer, RefreshOnReject, ReplayBody, Token, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
/// let cache = TokenCache::new(source_fn(|cx| async move {
///     Token::new(if cx.rejected_token().is_some() { "new" } else { "old" })
/// }));
/// let service = ServiceBuilder::new()
///     .retry(RefreshOnReject::new(cache.clone()))
///     .layer(AddTokenLayer::from(cache))
///     .service(service_fn(|request: Request<ReplayBody<String>>| async move {
///         let good = request.headers()["authorization"] == "Bearer new";
///         let status = if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
///         Response::builder().status(status).body(())
///     }));
///
/// let body = ReplayBody::new(String::from("hello"), 64 * 1024);
/// let response = service.oneshot(Request::post("https://api.example.com/").body(body)?).await?;
/// assert_eq!(response.status(), StatusCode::OK);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RefreshOnReject {
    // One pointer, because `Retry` clones its policy for each request.
    shared: Arc<Shared>,
    /// The request of this clone has been sent again.
    is_replay: bool,
}

#[derive(Clone, Debug)]
struct Shared {
    cache: TokenCache,
    replays: Arc<ReplaySettings>,
}

impl RefreshOnReject {
    /// A policy for requests that are sent with tokens of `cache`.
    pub fn new(cache: TokenCache) -> Self {
        Self::with_settings(cache, Arc::new(ReplaySettings::default()))
    }

    fn with_settings(cache: TokenCache, replays: Arc<ReplaySettings>) -> Self {
        Self {
            shared: Arc::new(Shared { cache, replays }),
            is_replay: false,
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut ReplaySettings)) -> Self {
        change(Arc::make_mut(&mut Arc::make_mut(&mut self.shared).replays));
        self
    }

    /// The budget for replays. Each replay withdraws from it, and deposits again if it is not rejected.
    ///
    /// Default: 1,000 replays a second, saved for up to 10 seconds.
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.edit(|replays| replays.budget = Arc::new(budget))
    }

    /// Sends only idempotent methods again (RFC 9110 §9.2.2). Default: `false`, all methods.
    ///
    /// A server that rejects the token has not processed the request, so sending it again does not repeat it. Turn this on
    /// for servers that are known to process a request and then reject its token.
    pub fn only_idempotent(self, on: bool) -> Self {
        self.edit(|replays| replays.only_idempotent = on)
    }
}

/// Which requests may be sent again, and how many.
#[derive(Clone)]
pub(super) struct ReplaySettings {
    pub(super) budget: Arc<dyn Budget + Send + Sync>,
    pub(super) only_idempotent: bool,
}

impl Default for ReplaySettings {
    fn default() -> Self {
        Self {
            budget: Arc::new(TpsBudget::new(BUDGET_WINDOW, REPLAYS_PER_SECOND, 1.0)),
            only_idempotent: false,
        }
    }
}

impl ReplaySettings {
    #[inline]
    pub(super) fn allow_method(&self, method: &Method) -> bool {
        !self.only_idempotent || method.is_idempotent()
    }

    /// Fails if the method or the body keeps a request from being sent again.
    pub(super) fn check(method_allowed: bool, body_kept: bool) -> Result<(), TokenError> {
        if !method_allowed {
            let message = "this client sends only idempotent methods again";
            Err(TokenError::new(TokenErrorKind::NotReplayed, message))
        } else if !body_kept {
            Err(body_not_kept())
        } else {
            Ok(())
        }
    }

    pub(super) fn withdraw(&self) -> Result<(), TokenError> {
        if self.budget.withdraw() {
            return Ok(());
        }
        let message = "the replay budget is used up, because the API rejects most tokens";
        Err(TokenError::new(TokenErrorKind::NotReplayed, message))
    }

    pub(super) fn deposit(&self) {
        self.budget.deposit();
    }
}

pub(super) fn body_not_kept() -> TokenError {
    let message = "the body was not kept: it is larger than the replay limit, or it failed";
    TokenError::new(TokenErrorKind::NotReplayed, message)
}

pub(super) fn rejected_again() -> TokenError {
    let message =
        "the request was sent again with a new token, and the API rejected that token too";
    TokenError::new(TokenErrorKind::Rejected, message)
}

pub(super) fn more_needed_again() -> TokenError {
    let message = "the request was sent again, and the API asks for more than the new token has";
    TokenError::new(TokenErrorKind::InsufficientScope, message)
}

impl fmt::Debug for ReplaySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplaySettings")
            .field("only_idempotent", &self.only_idempotent)
            .finish_non_exhaustive()
    }
}

/// By itself, above an [`AddTokenLayer`](crate::AddTokenLayer).
impl<B, R, E> Policy<Request<ReplayBody<B>>, Response<R>, E> for RefreshOnReject {
    type Future = RefreshOnRejectFuture;

    fn retry(
        &mut self,
        request: &mut Request<ReplayBody<B>>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<RefreshOnRejectFuture> {
        let Ok(response) = result else {
            if std::mem::take(&mut self.is_replay) {
                self.shared.cache.replay_failed(None);
            }
            return None;
        };
        // Removed, so that a policy above, which may have another cache, does not send the request again as well.
        let Some(rejected) = response.extensions_mut().remove::<TokenRejected>() else {
            if std::mem::take(&mut self.is_replay) {
                self.shared.cache.replay_accepted(None);
                self.shared.replays.deposit();
            }
            return None;
        };
        match self.replay(rejected.sent(), request) {
            Ok(future) => {
                self.is_replay = true;
                Some(future)
            }
            Err(reason) => {
                if !self.is_replay {
                    self.shared.cache.not_replayed(rejected.sent(), &reason);
                }
                response.extensions_mut().insert(reason);
                None
            }
        }
    }

    fn clone_request(
        &mut self,
        request: &Request<ReplayBody<B>>,
    ) -> Option<Request<ReplayBody<B>>> {
        Some(request.clone())
    }
}

impl RefreshOnReject {
    /// What to wait for before the request is sent again, or why it is not.
    fn replay<B>(
        &self,
        rejected: SentToken,
        request: &Request<ReplayBody<B>>,
    ) -> Result<RefreshOnRejectFuture, TokenError> {
        let Shared { cache, replays } = &*self.shared;
        if self.is_replay {
            cache.replay_rejected(rejected);
            return Err(rejected_again());
        }
        let method_allowed = replays.allow_method(request.method());
        ReplaySettings::check(method_allowed, request.body().can_replay())?;
        let waiter = match cache.replacement(rejected, None) {
            Lookup::Ready(_) => None,
            Lookup::Wait(waiter) => Some(waiter),
            Lookup::Failed(error) => return Err(error),
        };
        replays.withdraw()?;
        Ok(RefreshOnRejectFuture { waiter })
    }
}

/// Waits until a rejected token has been replaced, or the refresh failed. The policy future of [`RefreshOnReject`].
///
/// After a failure the request is sent again all the same, and the layer below fails with the error of the refresh.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct RefreshOnRejectFuture {
    waiter: Option<Waiter>,
}

impl Future for RefreshOnRejectFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.waiter {
            Some(waiter) => Pin::new(waiter).poll(cx).map(drop),
            None => Poll::Ready(()),
        }
    }
}
