//! [`TokenCacheBuilder`].

use std::{fmt, sync::Arc, time::Duration};

use super::{
    background,
    shared::{Settings, Shared},
    token_cache::TokenCache,
};
use crate::{
    clock::Clock,
    origins::Origins,
    schedule::Schedule,
    token_source::{BoxTokenSource, TokenSource},
};

/// Configures a [`TokenCache`]. Made by [`TokenCache::builder`].
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
    source: BoxTokenSource,
    pub(crate) settings: Settings,
}

impl TokenCacheBuilder {
    pub(super) fn new(source: impl TokenSource) -> Self {
        Self {
            settings: Settings {
                schedule: source.schedule(),
                origins: source.origins(),
                max_wait: Duration::from_secs(30),
                refresh_timeout: Duration::from_secs(120),
                clock: Clock::System,
                seed: None,
            },
            source: source.boxed(),
        }
    }

    /// When tokens are refreshed. Default: what the source says.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.settings.schedule = schedule;
        self
    }

    /// Where tokens may be sent by layers over this cache. Default: what the source says.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.settings.origins = origins;
        self
    }

    /// How long a caller waits for a token. The refresh goes on without that caller.
    ///
    /// Default: 30 seconds.
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.settings.max_wait = limit;
        self
    }

    /// How long one refresh may take before it is dropped.
    ///
    /// It is for sources that may hang. The sources of this crate have time limits of their own, and dropping one of them
    /// can lose a rotated refresh token. Default: 2 minutes.
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.settings.refresh_timeout = limit;
        self
    }

    /// Builds the cache. If its schedule refreshes in the background, and this is called inside a Tokio runtime, that
    /// starts now.
    #[must_use = "a cache that is dropped refreshes nothing"]
    pub fn build(self) -> TokenCache {
        let shared = Arc::new(Shared::new(self.source, self.settings));
        background::start(&shared);
        TokenCache::from_shared(shared)
    }
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
