//! One session as the map holds it.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
};

use quick_cache::Lifecycle;

use crate::cache::TokenCache;

/// The cache of one key.
pub(crate) struct Session {
    cache: TokenCache,
    /// The round in which it was used last. Rounds are counted by `idle.rs`.
    used_in: AtomicU32,
}

impl Session {
    pub(super) fn new(cache: TokenCache, round: u32) -> Self {
        Self {
            cache,
            used_in: AtomicU32::new(round),
        }
    }

    pub(crate) fn cache(&self) -> &TokenCache {
        &self.cache
    }

    /// Remembers the round. Writes only once in each, so that threads that use one session do not contend for it.
    #[inline]
    pub(super) fn use_in(&self, round: u32) {
        if self.used_in.load(Ordering::Relaxed) != round {
            self.used_in.store(round, Ordering::Relaxed);
        }
    }

    /// How many rounds ago it was used last.
    pub(super) fn idle_rounds(&self, round: u32) -> u32 {
        round.wrapping_sub(self.used_in.load(Ordering::Relaxed))
    }

    /// Whether it must stay in the map: a refresh runs, a request is on its way, somebody has a handle of its cache, or
    /// something of it is not saved yet. So no key ever has two caches, and nothing is lost.
    ///
    /// Exact if the map is locked: then a new handle can only come from one that exists. But for a background refresh that
    /// becomes due in this moment: its task holds no handle in between. It finishes and is saved, and the next session of
    /// the key waits for the lease of the store.
    pub(super) fn is_pinned(self: &Arc<Self>) -> bool {
        // The counts are read without order. A fence after each, because the thread that dropped the last handle may have
        // taken one of the cache before, or left something unsaved.
        if Arc::strong_count(self) > 1 {
            return true;
        }
        fence(Ordering::Acquire);
        if self.cache.is_shared() {
            return true;
        }
        fence(Ordering::Acquire);
        self.has_unsaved()
    }

    /// Whether something would be lost with it.
    ///
    /// The source is asked while the map is locked. If it panicked, the lock would be poisoned for all keys.
    pub(super) fn has_unsaved(&self) -> bool {
        let asked = panic::catch_unwind(AssertUnwindSafe(|| self.cache.has_unsaved()));
        asked.unwrap_or(true)
    }
}

/// Keeps the map from evicting pinned sessions. Evicted ones are dropped when the map is no longer locked.
#[derive(Clone)]
pub(super) struct KeepPinned;

impl<K> Lifecycle<K, Arc<Session>> for KeepPinned {
    type RequestState = Vec<(K, Arc<Session>)>;

    fn is_pinned(&self, _: &K, session: &Arc<Session>) -> bool {
        session.is_pinned()
    }

    fn on_evict(&self, evicted: &mut Self::RequestState, key: K, session: Arc<Session>) {
        evicted.push((key, session));
    }
}
