//! [`TokenCache`]: one session, shared by whoever needs its token.
//!
//! ```text
//!            a token comes                    either clock says so
//!  Empty ───────────────────► Fresh ─────────► Due ─────────► Expired
//!    │                          ▲  ▲             │ renewed behind  │
//!    │ callers wait             │  └─────────────┘ the callers     │ callers wait
//!    │ for the flight           │                                  │ for the flight
//!    └──────────────────────────┤◄─────────────────────────────────┘
//!                               │
//!  Fresh, Due ── the current one is rejected ──► Rejected: callers wait for the flight;
//!                                               if it fails, the old one is served on, since
//!                                               the server's own answer tells more than ours
//! ```
//!
//! A read of a fresh token takes no lock: one load of a pointer, and one reading of both clocks. Everything else goes through
//! one small mutex, which is never held while anything waits, polls or wakes.

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::sync::watch;

use super::{
    issued::{Generation, Issued, Lookup, Replacement},
    refresh_task,
    state::{Settings, Shared},
    status::CacheStatus,
};
use crate::{
    error::TokenError, origins::Origins, schedule::Schedule, token::Token,
    token_source::TokenSource,
};

/// A session's token, obtained when first needed, renewed ahead of its end, shared by all clones.
///
/// A layer makes its own with [`BearerAuthLayer::new`](crate::BearerAuthLayer::new); make one yourself to share it with
/// further layers, or for uses that are not HTTP requests.
///
/// - *One flight*: however many callers wait, one call of the source runs, in a task of its own that no caller's
///   cancellation reaches; all share its result.
/// - *Fail-soft*: while the current token is usable, a failing refresh disturbs nobody.
/// - *No hammering*: failed attempts are spaced by backoff with full jitter (1 second, doubling, at most a minute) or by
///   what the server asks for; failures that time won't mend are remembered and answered at once.
///
/// The flight needs a Tokio runtime with its time driver enabled: the one that the first waiting caller runs in.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{BearerAuthLayer, Token, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
/// let cache = TokenCache::new(source_fn(|_| async {
///     Ok(Token::new("abc")?.expires_in(Duration::from_secs(900)))
/// }));
/// let layer = BearerAuthLayer::from(cache.clone());
///
/// let header = cache.token().await?.header().clone(); // prebuilt, sensitive
/// assert_eq!(header, "Bearer abc");
/// # let _ = layer;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TokenCache {
    shared: Arc<Shared>,
}

impl TokenCache {
    /// A cache over `source`, with the source's own [`Schedule`].
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// A cache over `source`, with more to say about it.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder {
            settings: Settings::new(source.schedule()),
            origins: source.origins(),
            source: Arc::new(source),
        }
    }

    /// A usable token: the current one, or the next, waited for.
    ///
    /// # Errors
    ///
    /// Why none could be had; of [`Timeout`](crate::TokenErrorKind::Timeout) kind if it took longer than
    /// [`max_wait`](TokenCacheBuilder::max_wait).
    pub async fn token(&self) -> Result<Token, TokenError> {
        match self.shared.lookup() {
            Lookup::Ready(issued) => Ok(issued.token().clone()),
            Lookup::Wait(wait) => Ok(wait.await?.token().clone()),
            Lookup::Failed(error) => Err(error),
        }
    }

    /// The current token if it is usable. Starts nothing and waits for nothing.
    pub fn peek(&self) -> Option<Token> {
        self.shared.peek()
    }

    /// A new token, whatever the current one is worth; the current one stays in use until it is there.
    ///
    /// Callers at the same time share one. The attempt floor of the [`Schedule`] holds, and so does the pause after a
    /// failure: to try at once what has failed, [`reset`](TokenCache::reset) first.
    ///
    /// # Errors
    ///
    /// Why none could be had. The current token stays, if it is usable.
    pub async fn refresh(&self) -> Result<Token, TokenError> {
        match self.shared.refresh() {
            Lookup::Ready(issued) => Ok(issued.token().clone()),
            Lookup::Wait(wait) => Ok(wait.await?.token().clone()),
            Lookup::Failed(error) => Err(error),
        }
    }

    /// Reports that the API rejected `token`. If it is still the current one, another is fetched, and callers from now on
    /// wait for that.
    ///
    /// The layers do this by themselves; it is for uses of [`token`](TokenCache::token) outside of them.
    pub fn reject(&self, token: &Token) {
        self.shared.reject_token(token);
    }

    /// Forgets remembered failures and their backoff: something has changed that the next attempt should try.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// What state the session is in.
    pub fn status(&self) -> CacheStatus {
        self.shared.status()
    }

    /// A [`watch`] that tells of each new token, each failure to get one, each rejection of the current one, and each reset.
    /// That a token is due or has expired is no event; [`status`](TokenCache::status) tells.
    ///
    /// It doesn't keep the cache alive, and ends with it.
    pub fn subscribe(&self) -> watch::Receiver<CacheStatus> {
        self.shared.subscribe()
    }

    /// Where the source said that its tokens may go.
    pub(crate) fn origins(&self) -> &Origins {
        self.shared.origins()
    }

    /// Takes from the current token what is needed, if it is usable; what a request does.
    #[inline]
    pub(crate) fn read<T>(&self, take: impl FnOnce(&Arc<Issued>) -> Option<T>) -> Option<T> {
        self.shared.read(take)
    }

    pub(crate) fn lookup(&self) -> Lookup {
        self.shared.lookup()
    }

    /// The same of the current token if it is of use, else of the one that was waited for: what has come so far goes on.
    pub(crate) fn read_or<T>(&self, waited_for: &Issued, mut take: impl FnMut(&Issued) -> T) -> T {
        match self.shared.read(|it| (!it.rejected).then(|| take(it))) {
            Some(taken) => taken,
            None => take(waited_for),
        }
    }

    /// The API accepted what was sent with this token.
    pub(crate) fn prove(&self, accepted: Generation) {
        self.shared.prove(accepted);
    }

    /// Reports that the API rejected what was sent with this token.
    pub(crate) fn reject_sent(&self, rejected: Generation) {
        drop(self.shared.reject(rejected, false));
    }

    /// Reports that the API rejected what was sent in this `Authorization`: a token of this cache, perhaps of the past;
    /// `served` if it had been accepted at first.
    pub(crate) fn reject_header(&self, sent: &HeaderValue, served: bool) {
        self.shared.reject_header(sent, served);
    }

    /// What to wait for until the rejected token has been replaced, if anything.
    pub(crate) fn replacement(&self, rejected: Generation) -> Result<Replacement, TokenError> {
        let boarding = self.shared.reject(rejected, false);
        match boarding.lookup(Some(rejected)) {
            Lookup::Ready(issued) => issued
                .replaces(rejected)
                .map(|()| Replacement::Here(issued)),
            Lookup::Wait(wait) => Ok(Replacement::Coming(wait)),
            Lookup::Failed(error) => Err(error),
        }
    }

    pub(crate) fn replay_rejected(&self, rejected: Generation) {
        self.shared.replay_rejected(rejected);
    }

    pub(crate) fn replay_accepted(&self) {
        self.shared.replay_accepted();
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// What there is to say about a [`TokenCache`] beside its source.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{Schedule, Token, TokenCache, source_fn};
///
/// let source = source_fn(|_| async { Token::new("abc") });
/// let cache = TokenCache::builder(source)
///     .schedule(Schedule::default().refresh_ahead(0.5, Duration::from_secs(3_600)))
///     .max_wait(Duration::from_secs(10))
///     .build();
/// assert!(cache.peek().is_none());
/// ```
#[must_use]
pub struct TokenCacheBuilder {
    source: Arc<dyn refresh_task::DynSource>,
    pub(crate) settings: Settings,
    origins: Origins,
}

impl TokenCacheBuilder {
    /// When tokens are renewed. Default: what the source says.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.settings.schedule = schedule;
        self
    }

    /// How long a caller waits for a token. The attempt goes on without him.
    ///
    /// Default: 30 seconds.
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.settings.max_wait = limit;
        self
    }

    /// How long one attempt may take before it is given up.
    ///
    /// It bounds sources that hang; those of this crate have time limits of their own, and giving them up can lose a
    /// rotated refresh token. Default: 2 minutes.
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.settings.refresh_timeout = limit;
        self
    }

    /// The cache. If its schedule keeps it warm and this is a Tokio runtime, it begins to.
    pub fn build(self) -> TokenCache {
        let shared = Arc::new(Shared::new(self.source, self.settings, self.origins));
        Shared::background_refresh(&shared);
        TokenCache { shared }
    }
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("settings", &self.settings)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}
