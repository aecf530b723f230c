//! [`SessionsBuilder`].

use std::{fmt, future::Future, hash::Hash, time::Duration};

use super::{
    handle::Sessions,
    shared::{Factory, Settings, Shared},
};
use crate::{cache::TokenCache, error::TokenError};

/// Configures [`Sessions`]. Made by [`Sessions::builder`].
#[must_use]
pub struct SessionsBuilder<K> {
    factory: Factory<K>,
    settings: Settings,
}

impl<K> SessionsBuilder<K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    pub(super) fn new<F, Fut>(factory: F) -> Self
    where
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<TokenCache, TokenError>> + Send + 'static,
    {
        Self {
            factory: Box::new(move |key| Box::pin(factory(key))),
            settings: Settings {
                capacity: 10_000,
                idle_timeout: Duration::from_secs(30 * 60),
                creation_timeout: Duration::from_secs(30),
                memory_stores_allowed: false,
            },
        }
    }

    /// How many sessions are kept in memory, roughly. Default: 10,000.
    ///
    /// Beyond it, sessions that are used seldom are dropped to make room for others. The map has several parts, each with its
    /// share of the capacity: so some are dropped a little sooner or later.
    ///
    /// A session that is in use is not dropped: while requests wait or are sent, while a refresh runs, or while something
    /// could not be saved. So there may be more, until others are made after that use, or until the idle timeout.
    ///
    /// Sessions that are being made do not count.
    pub fn capacity(mut self, sessions: usize) -> Self {
        self.settings.capacity = sessions;
        self
    }

    /// How long a session is kept after its last request began. Default: 30 minutes, at least a second.
    ///
    /// It is dropped after this time, and before five quarters of it are over, unless it is still in use: then soon after
    /// that. A session with [`background_refresh`](crate::Schedule::background_refresh) is refreshed until then, and no
    /// longer.
    ///
    /// This needs the runtime on which a session was made: while that stands still, nothing is dropped for being idle.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.settings.idle_timeout = idle_timeout;
        self
    }

    /// How long the factory may take. Default: 30 seconds.
    ///
    /// A call that takes longer is dropped, and all who wait for it get an error.
    pub fn creation_timeout(mut self, limit: Duration) -> Self {
        self.settings.creation_timeout = limit;
        self
    }

    /// Allows sessions whose refresh token is only in memory: it is lost when the session is dropped, and a person has to
    /// log in again.
    ///
    /// By default, such a session is an error when it is made. A session that begins anew by itself, as with client
    /// credentials or an exchange token that may be used again, needs no durable store.
    pub fn allow_memory_stores(mut self) -> Self {
        self.settings.memory_stores_allowed = true;
        self
    }

    /// Builds the map. Nothing is made yet.
    pub fn build(self) -> Sessions<K> {
        Sessions::from_shared(Shared::new(self.factory, self.settings))
    }
}

impl<K> fmt::Debug for SessionsBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionsBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
