//! [`TokenCache`]: the public handle of a session.

use std::{fmt, sync::Arc};

use tokio::{sync::watch, time};

use super::{
    builder::TokenCacheBuilder, lookup::Lookup, rejection::RejectedBy, shared::Shared,
    status::CacheStatus,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    freshness::Freshness,
    origins::Origins,
    token::Token,
    token_source::TokenSource,
};

/// The token of one session: obtained when first needed, refreshed before it expires, shared by all clones.
///
/// A layer creates its own cache with [`BearerAuthLayer::new`](crate::BearerAuthLayer::new). Create one yourself to share a
/// session between layers, or to use its token outside of HTTP requests.
///
/// - *One refresh*: however many callers wait, one call of the source runs, in a task that no caller can cancel. All of
///   them get its result.
/// - *Failing refreshes*: while the current token is usable, a failing refresh disturbs no caller.
/// - *Pauses*: failed refreshes are spaced by backoff with full jitter (1 second, doubling, at most a minute), or by
///   what the server asks for, up to [a limit](crate::Schedule::max_retry_after).
/// - *No giving up*: after an error that somebody has to correct, and after a response that makes no sense, a refresh is
///   tried again after 30 seconds, doubling up to 15 minutes, while callers want a token. In between they get the error at
///   once. Only if the server declares the grant dead, [for good](TokenError::is_final), it is not sent again until
///   the source reports a change or the cache is [reset](TokenCache::reset).
/// - *Rejections*: a rejected token is replaced at once, and requests wait for the next one. If new tokens do not help
///   either, the pauses between refreshes grow, as the table below says. Meanwhile the token stays in use. A success ends
///   the pause, if its request was sent after the rejection and to the same origin.
///
/// | What the API does | Pause between two refreshes |
/// |---|---|
/// | rejects new tokens at once | 2 seconds, doubling, up to a minute |
/// | accepts tokens, and rejects them early, as several servers do of which one is not well | [`min_interval`](crate::Schedule::min_interval) for the first ten in a row, then twice that, doubling, up to 15 minutes |
/// | rejects tokens later | `min_interval` |
///
/// Early is within five times `min_interval`, or within a fortieth of the lifetime if that is shorter.
///
/// A refresh needs a Tokio runtime with its time driver: that of the caller that starts it. Without the driver
/// (`enable_time`), Tokio panics in the first call that waits for a token.
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
    pub(super) shared: Arc<Shared>,
}

impl TokenCache {
    /// A cache over `source`, with the source's own [`Schedule`](crate::Schedule) and [`Origins`].
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// A cache over `source` with other settings.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder::new(source)
    }

    pub(super) fn from_shared(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Returns a usable token: the current one, or the next one, waiting for it if needed.
    ///
    /// Callers that wait at the same time share one refresh. Dropping the returned future does not cancel it.
    ///
    /// # Errors
    ///
    /// Returns the error of the refresh, or one of kind [`Timeout`](crate::TokenErrorKind::Timeout) if it takes longer than
    /// [`max_wait`](TokenCacheBuilder::max_wait) (default: 30 seconds).
    pub async fn token(&self) -> Result<Token, TokenError> {
        token_of(self.lookup()).await
    }

    /// Returns the current token if it is usable, without waiting: for code that is not async. If the token is due, or
    /// there is none, a refresh starts.
    ///
    /// For places where only a header or metadata can be set, such as an interceptor of tonic or a callback of an
    /// exporter. Prefer a layer where you can. This knows nothing of requests and responses:
    ///
    /// - It does not check where the token goes. Check [`origins`](TokenCache::origins) before you connect.
    /// - A rejected request is not sent again. A rejected token stays in use until it is due, unless you
    ///   [report](TokenCache::reject) it.
    /// - It does not wait: the first call fails. Await [`token`](TokenCache::token) first.
    /// - A refresh needs a Tokio runtime. Exporters often call from a thread without one. So turn on
    ///   [`background_refresh`](crate::Schedule::background_refresh), which runs where [`token`](TokenCache::token) was
    ///   awaited.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::TokenErrorKind::Timeout) while the refresh runs, the error of the last refresh if it has
    /// failed, and [`Config`](crate::TokenErrorKind::Config) if there is no runtime to start a refresh in.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{HeaderMap, header::AUTHORIZATION};
    /// use tower_bearer::{Schedule, Token, TokenCache, TokenError, source_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), TokenError> {
    /// let cache = TokenCache::builder(source_fn(|_| async { Token::new("abc") }))
    ///     .schedule(Schedule::default().background_refresh(true))
    ///     .build();
    /// cache.token().await?; // the first one
    ///
    /// let add_token = move |headers: &mut HeaderMap| {
    ///     headers.insert(AUTHORIZATION, cache.try_token()?.header().clone());
    ///     Ok::<(), TokenError>(())
    /// };
    ///
    /// let mut headers = HeaderMap::new();
    /// std::thread::spawn(move || {
    ///     add_token(&mut headers).unwrap();
    ///     assert_eq!(headers[AUTHORIZATION], "Bearer abc");
    /// }).join().unwrap();
    /// # Ok(()) }
    /// ```
    pub fn try_token(&self) -> Result<Token, TokenError> {
        if let Some(token) = self.read(|issued| Some(issued.token().clone())) {
            return Ok(token);
        }
        match self.shared.want(None) {
            Lookup::Ready(issued) => Ok(issued.token().clone()),
            Lookup::Wait(_) => Err(TokenError::new(
                TokenErrorKind::Timeout,
                "a refresh runs, and this call does not wait for it; await `TokenCache::token` before the first call",
            )),
            Lookup::Failed(error) => Err(error),
        }
    }

    /// Returns the current token if it is usable. Starts no refresh and waits for none.
    pub fn peek(&self) -> Option<Token> {
        let published = self.shared.published.load();
        let issued = published.as_ref()?;
        let is_usable = issued.freshness(&self.shared.settings.clock) != Freshness::Expired;
        is_usable.then(|| issued.token().clone())
    }

    /// Returns a new token, even if the current one is usable. The current one stays in use until the new one is there.
    ///
    /// Callers at the same time share one refresh. [`min_interval`](crate::Schedule::min_interval) holds, and so does the
    /// backoff after a failure: call [`reset`](TokenCache::reset) first to try again at once.
    ///
    /// # Errors
    ///
    /// As [`token`](TokenCache::token). A usable token stays in use.
    pub async fn refresh(&self) -> Result<Token, TokenError> {
        let current = self
            .shared
            .published
            .load()
            .as_ref()
            .map(|issued| issued.generation);
        token_of(self.shared.want(current).with_waiter(current)).await
    }

    /// Reports that the API rejected `token`. If it is still the current one, a refresh starts, and callers wait for it.
    ///
    /// The layers do this themselves. It is for uses of [`token`](TokenCache::token) outside of them.
    pub fn reject(&self, token: &Token) {
        self.reject_if(|current| current.same_secret(token), false);
    }

    /// Forgets failures and their backoff, because something has changed that the next refresh should try. A credential that
    /// the server has declared dead is sent once more, also if the store says so.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Waits until no refresh runs, and saves a session that could not be saved so far. For example before the process
    /// exits: a refresh that is cut off can lose a rotated refresh token.
    ///
    /// It neither starts a refresh nor prevents one. So call it when no more requests are sent. It returns at once if there
    /// is nothing to do.
    ///
    /// # Errors
    ///
    /// Returns the error of the store if the session could not be saved: see
    /// [`TokenSource::flush`](crate::TokenSource::flush).
    ///
    /// # Examples
    ///
    /// ```
    /// # use tower_bearer::{Token, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
    /// # let cache = TokenCache::new(source_fn(|_| async { Token::new("abc") }));
    /// # cache.token().await?;
    /// // after the server has shut down gracefully:
    /// cache.close().await?;
    /// assert!(!cache.status().refreshing);
    /// # Ok(()) }
    /// ```
    pub async fn close(&self) -> Result<(), TokenError> {
        let limit = self.shared.settings.refresh_timeout;
        while let Some(running) = self.shared.running_result() {
            // If its runtime is not polled, the refresh never ends, and is given up some time after its limit.
            drop(time::timeout(limit, running.ended()).await);
        }
        self.shared.source.flush().await
    }

    /// Returns the state of the session.
    pub fn status(&self) -> CacheStatus {
        self.shared.status()
    }

    /// Returns a [`watch`] of the status. It changes with each new token, each failed refresh, each rejection of the current
    /// token, and each reset.
    ///
    /// It does not change when the token becomes due or expires, or when a session is saved whose first save failed: [`status`](TokenCache::status) tells that. The receiver
    /// does not keep the cache alive, and ends with it.
    pub fn subscribe(&self) -> watch::Receiver<CacheStatus> {
        self.shared.subscribe()
    }

    /// Returns the [name](TokenCacheBuilder::name) of the session.
    pub fn name(&self) -> &str {
        &self.shared.events.names().name
    }

    /// Returns the [group](TokenCacheBuilder::group) of the session.
    pub fn group(&self) -> &str {
        &self.shared.events.names().group
    }

    /// Returns the origins that layers over this cache send its tokens to, unless a layer has
    /// [others](crate::BearerAuthLayer::origins).
    pub fn origins(&self) -> &Origins {
        &self.shared.settings.origins
    }

    /// Whether there are other handles: clones, requests on their way, or a refresh that runs.
    #[cfg(feature = "sessions")]
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    #[cfg(feature = "sessions")]
    pub(crate) fn is_durable(&self) -> bool {
        self.shared.source.is_durable()
    }

    #[cfg(feature = "sessions")]
    pub(crate) fn has_unsaved(&self) -> bool {
        self.shared.source.has_unsaved()
    }

    /// Rejects the current token if it is the one meant. An older one has been replaced.
    pub(super) fn reject_if(&self, is_meant: impl FnOnce(&Token) -> bool, was_accepted: bool) {
        let published = self.shared.published.load();
        if let Some(issued) = &*published
            && is_meant(issued.token())
        {
            drop(
                self.shared
                    .reject(issued.generation, RejectedBy::Several, was_accepted, None),
            );
        }
    }
}

async fn token_of(lookup: Lookup) -> Result<Token, TokenError> {
    match lookup {
        Lookup::Ready(issued) => Ok(issued.token().clone()),
        Lookup::Wait(waiter) => Ok(waiter.await?.token().clone()),
        Lookup::Failed(error) => Err(error),
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
