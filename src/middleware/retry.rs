//! The policy of `tower::retry`.

use std::{error::Error, fmt, mem, sync::Arc, time::Duration};

use http::{Method, Request, Response};
use http_body::Body;
use tower::{
    BoxError,
    retry::{
        Policy,
        budget::{Budget, TpsBudget},
    },
};

use super::{
    bearer::{Attempt, Healed, Rejected},
    drain::{Drain, Renewed},
};
use crate::{
    body::ReplayBody,
    cache::{Replacement, TokenCache},
    error::{TokenError, TokenErrorKind},
};

/// How many replays stand in reserve for each second of the budget's ten: a session that is revoked while thousands of
/// requests are under way must be able to heal them all.
const REPLAYS_PER_SECOND: u32 = 1_000;
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// A [`tower::retry::Policy`] that sends again, once, what was rejected for its token.
///
/// [`BearerAuthLayer`](crate::BearerAuthLayer) brings it along. By itself it stands above an
/// [`AddTokenLayer`](crate::AddTokenLayer), which tells it what was rejected, with requests whose body is a
/// [`ReplayBody`]. There it waits for the new token only after it has let go of the rejected response, and it clones
/// each request's headers up front; the layer does neither.
///
/// Nothing else is retried: no error, no timeout, no other status. Such requests may have had their effect.
///
/// # Examples
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_bearer::{AddTokenLayer, RefreshOnReject, ReplayBody, Token, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
/// let cache = TokenCache::new(source_fn(|request| async move {
///     Token::new(if request.rejected_token().is_some() { "new" } else { "old" })
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
    // One pointer: `Retry` clones its policy for each request.
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    cache: TokenCache,
    replays: Arc<Replays>,
}

impl RefreshOnReject {
    /// A policy for what was sent with tokens of `cache`.
    pub fn new(cache: TokenCache) -> Self {
        Self::with_settings(cache, Arc::new(Replays::default()))
    }

    pub(crate) fn with_settings(cache: TokenCache, replays: Arc<Replays>) -> Self {
        let shared = Arc::new(Shared { cache, replays });
        Self { shared }
    }

    fn edit(mut self, change: impl FnOnce(&mut Replays)) -> Self {
        change(Arc::make_mut(&mut Arc::make_mut(&mut self.shared).replays));
        self
    }

    /// The budget that replays are charged to. A replay that is accepted is paid back.
    ///
    /// Default: 1,000 replays a second, saved up for ten.
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.edit(|replays| replays.budget = Arc::new(budget))
    }

    /// Replays only methods that are idempotent (RFC 9110 §9.2.2). Default: all.
    ///
    /// A server that answers 401 to the token has not processed the request, so that sending it again is no repetition.
    /// That is what "rejected" means here. For servers that are known to act first and to reject later, turn this on.
    pub fn only_idempotent(self, on: bool) -> Self {
        self.edit(|replays| replays.only_idempotent = on)
    }
}

/// What may be sent again, and how much of it.
#[derive(Clone)]
pub(crate) struct Replays {
    pub(crate) budget: Arc<dyn Budget + Send + Sync>,
    pub(crate) only_idempotent: bool,
}

impl Default for Replays {
    fn default() -> Self {
        Self {
            budget: Arc::new(TpsBudget::new(BUDGET_WINDOW, REPLAYS_PER_SECOND, 1.0)),
            only_idempotent: false,
        }
    }
}

impl Replays {
    /// Whether requests of this method may be sent again.
    #[inline]
    pub(crate) fn allow_method(&self, method: &Method) -> bool {
        !self.only_idempotent || method.is_idempotent()
    }

    /// Whether a request may be sent again whose method is allowed, or not, and whose body is kept, or not; budget aside.
    pub(crate) fn allow(method: bool, body: bool) -> Result<(), TokenError> {
        if !method {
            let reason = "only idempotent methods are sent again here";
            Err(TokenError::new(TokenErrorKind::NotReplayed, reason))
        } else if !body {
            Err(not_kept())
        } else {
            Ok(())
        }
    }

    pub(crate) fn withdraw(&self) -> Result<(), TokenError> {
        if self.budget.withdraw() {
            return Ok(());
        }
        let reason = "the replay budget is used up: most tokens are rejected";
        Err(TokenError::new(TokenErrorKind::NotReplayed, reason))
    }

    /// A replay was accepted: it gives back what it cost.
    pub(crate) fn deposit(&self) {
        self.budget.deposit();
    }
}

pub(crate) fn not_kept() -> TokenError {
    let reason = "its body can't be sent again: it failed, or it is larger than the replay limit";
    TokenError::new(TokenErrorKind::NotReplayed, reason)
}

impl fmt::Debug for Replays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replays")
            .field("only_idempotent", &self.only_idempotent)
            .finish_non_exhaustive()
    }
}

/// Inside of [`BearerAuth`](crate::BearerAuth), where a new token has been waited for before the response is let go of.
impl<B, R> Policy<Attempt<B>, Response<R>, BoxError> for RefreshOnReject
where
    R: Body,
{
    type Future = Drain<R>;

    fn retry(
        &mut self,
        attempt: &mut Attempt<B>,
        result: &mut Result<Response<R>, BoxError>,
    ) -> Option<Drain<R>> {
        let Ok(response) = result else { return None };
        let Healed(by) = response.extensions_mut().remove()?;
        let Attempt::Again(snapshot) = attempt else {
            return None;
        };
        let replays = &self.shared.replays;
        let allowed = replays.withdraw().and_then(|()| {
            let begun = snapshot.begin_replay(by);
            begun.inspect_err(|_| replays.deposit())
        });
        if let Err(reason) = allowed {
            response.extensions_mut().insert(reason);
            return None;
        }
        // What is to be sent again has no result yet, so nobody reads what is left in its place.
        let response = mem::replace(result, Err(SentAgain.into())).ok()?;
        Some(Drain::new(response.into_body()))
    }

    #[inline]
    fn clone_request(&mut self, attempt: &Attempt<B>) -> Option<Attempt<B>> {
        attempt.snapshot()
    }
}

/// Stands where the response was of a request that is sent again.
#[derive(Debug)]
struct SentAgain;

impl fmt::Display for SentAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request is being sent again")
    }
}

impl Error for SentAgain {}

/// By itself, above an [`AddTokenLayer`](crate::AddTokenLayer).
impl<B, R, E> Policy<Request<ReplayBody<B>>, Response<R>, E> for RefreshOnReject {
    type Future = Renewed;

    fn retry(
        &mut self,
        request: &mut Request<ReplayBody<B>>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Renewed> {
        let Ok(response) = result else { return None };
        let Some(Rejected(generation)) = response.extensions_mut().remove() else {
            if request.extensions_mut().remove::<Replayed>().is_some() {
                self.shared.cache.replay_accepted();
                self.shared.replays.deposit();
            }
            return None;
        };
        let allowed = if request.extensions().get::<Replayed>().is_some() {
            self.shared.cache.replay_rejected(generation);
            let reason = "the token that replaced a rejected one was rejected as well";
            Err(TokenError::new(TokenErrorKind::Rejected, reason))
        } else {
            let method = self.shared.replays.allow_method(request.method());
            Replays::allow(method, request.body().can_replay())
                .and_then(|()| self.shared.cache.replacement(generation))
                .and_then(|replacement| self.shared.replays.withdraw().map(|()| replacement))
        };
        match allowed {
            Ok(replacement) => {
                request.extensions_mut().insert(Replayed);
                Some(Renewed::new(match replacement {
                    Replacement::Here(_) => None,
                    Replacement::Coming(wait) => Some(wait),
                }))
            }
            Err(reason) => {
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

/// Marks a request that is sent for the second time.
#[derive(Clone, Debug)]
struct Replayed;
