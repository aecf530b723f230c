//! [`MemoryStore`]: a session in memory.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as LeaseMutex, OwnedMutexGuard};

use super::{StoreLease, StoredSession, TokenStore, version_mismatch};
use crate::error::TokenError;

/// Keeps a session in memory, as long as the process runs. The default of the sources.
///
/// Clones are the same store. A caller waits for a lease without a time limit, because only this process can hold it.
///
/// If the server rotates refresh tokens, the configured refresh token is no longer valid after the first refresh. Then a
/// restart needs a durable store, such as `FileStore` or `RedisStore`.
///
/// # Examples
///
/// ```
/// use tower_bearer::MemoryStore;
///
/// let store = MemoryStore::new();
/// let shared_with_another_source = store.clone();
/// # let _ = shared_with_another_source;
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    session: Arc<Mutex<Option<StoredSession>>>,
    lease: Arc<LeaseMutex<()>>,
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl TokenStore for MemoryStore {
    type Lease = MemoryLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        Ok(self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }

    async fn lease(&self) -> Result<MemoryLease, TokenError> {
        Ok(MemoryLease {
            session: Arc::clone(&self.session),
            _held: Arc::clone(&self.lease).lock_owned().await,
        })
    }

    fn is_durable(&self) -> bool {
        false
    }
}

/// The lease of a [`MemoryStore`].
pub struct MemoryLease {
    session: Arc<Mutex<Option<StoredSession>>>,
    _held: OwnedMutexGuard<()>,
}

impl StoreLease for MemoryLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let mut stored = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if stored
            .as_ref()
            .is_some_and(|stored| stored.is_written_like(session))
        {
            return Ok(());
        }
        let version = stored.as_ref().map_or(0, StoredSession::version);
        if version != replaces {
            return Err(version_mismatch(replaces, version));
        }
        *stored = Some(session.clone());
        Ok(())
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        Ok(true)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLease").finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::store_conformance;

    #[tokio::test(start_paused = true)]
    async fn clones_conform() {
        let store = MemoryStore::new();
        store_conformance(|| store.clone()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clones_on_several_threads_conform() {
        let store = MemoryStore::new();
        store_conformance(|| store.clone()).await;
    }
}
