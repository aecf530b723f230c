//! What all handles share: the map, and the sessions that are being made.

use std::{
    collections::HashMap,
    future::Future,
    hash::{Hash, RandomState},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use quick_cache::{OptionsBuilder, UnitWeighter, sync::Cache};
use tokio::sync::watch;

use super::{
    creation::Creation,
    session::{KeepPinned, Session},
};
use crate::{cache::TokenCache, error::TokenError};

pub(super) type Made = Pin<Box<dyn Future<Output = Result<TokenCache, TokenError>> + Send>>;
pub(super) type Factory<K> = Box<dyn Fn(K) -> Made + Send + Sync>;

type Map<K> = Cache<K, Arc<Session>, UnitWeighter, RandomState, KeepPinned>;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) capacity: usize,
    pub(super) idle_timeout: Duration,
    pub(super) creation_timeout: Duration,
    pub(super) memory_stores_allowed: bool,
}

pub(super) struct Shared<K> {
    pub(super) map: Map<K>,
    /// A session is here or in the map, never in both for longer than a moment.
    creations: Mutex<Creations<K>>,
    pub(super) factory: Factory<K>,
    pub(super) settings: Settings,
    /// Counts up while time passes: see `idle.rs`.
    pub(super) round: AtomicU32,
    pub(super) drops_idle_sessions: AtomicBool,
    /// Closed when the last handle is dropped.
    pub(super) alive: watch::Sender<()>,
}

pub(super) struct Creations<K> {
    pub(super) running: HashMap<K, Creation>,
    pub(super) last_id: u64,
}

impl<K: Clone + Eq + Hash> Shared<K> {
    pub(super) fn new(factory: Factory<K>, settings: Settings) -> Self {
        let capacity = settings.capacity.max(1);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(capacity)
            .weight_capacity(capacity as u64)
            .build()
            .expect("both capacities are set");
        let hasher = RandomState::new();
        Self {
            map: Cache::with_options(options, UnitWeighter, hasher, KeepPinned),
            creations: Mutex::new(Creations {
                running: HashMap::new(),
                last_id: 0,
            }),
            factory,
            settings,
            round: AtomicU32::new(0),
            drops_idle_sessions: AtomicBool::new(false),
            alive: watch::Sender::new(()),
        }
    }

    /// The session of `key`, if it was made. It counts as used.
    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<Arc<Session>> {
        let session = self.map.get(key)?;
        session.use_in(self.round.load(Ordering::Relaxed));
        Some(session)
    }
}

impl<K> Shared<K> {
    pub(super) fn creations(&self) -> MutexGuard<'_, Creations<K>> {
        self.creations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
