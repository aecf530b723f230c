//! A store that cannot save while a test says so.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tower_bearer::{
    MemoryLease, MemoryStore, StoreLease, StoredSession, TokenError, TokenErrorKind, TokenStore,
};

/// A memory store that cannot save while `fails` is set.
#[derive(Clone, Default)]
pub struct FailingStore {
    pub inner: MemoryStore,
    pub fails: Arc<AtomicBool>,
}

pub struct FailingLease(MemoryLease, Arc<AtomicBool>);

impl TokenStore for FailingStore {
    type Lease = FailingLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.inner.load().await
    }

    async fn lease(&self) -> Result<FailingLease, TokenError> {
        Ok(FailingLease(self.inner.lease().await?, self.fails.clone()))
    }
}

impl StoreLease for FailingLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        if self.1.load(Ordering::SeqCst) {
            return Err(TokenError::new(TokenErrorKind::Store, "the disk is full"));
        }
        self.0.save(replaces, session).await
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.0.is_held().await
    }
}
