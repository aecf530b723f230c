//! [`BoxTokenStore`]: a store whose type is chosen at run time.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tokio::sync::watch;

use super::{StoreLease, StoredSession, TokenStore};
use crate::error::TokenError;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A [`TokenStore`] of any type, for a store that is chosen at run time. Made by [`TokenStore::boxed`].
///
/// Clones are the same store.
///
/// # Examples
///
/// ```
/// use tower_bearer::{BoxTokenStore, MemoryStore, TokenError, TokenStore};
///
/// /// `SESSION_STORE` is a path, a URL of Redis, or not set.
/// fn configured(store: Option<&str>) -> Result<BoxTokenStore, TokenError> {
///     Ok(match store {
/// #       #[cfg(feature = "redis-store")]
///         Some(url) if url.starts_with("redis://") => {
///             tower_bearer::RedisStore::new(url, "winbooks")?.boxed()
///         }
/// #       #[cfg(feature = "file-store")]
///         Some(path) => tower_bearer::FileStore::new(path)?.boxed(),
/// #       #[cfg(not(feature = "file-store"))]
/// #       Some(_) => unreachable!(),
///         None => MemoryStore::new().boxed(),
///     })
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), TokenError> {
/// let store = configured(std::env::var("SESSION_STORE").ok().as_deref())?;
/// assert!(store.load().await?.is_none());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct BoxTokenStore(Arc<dyn ErasedStore>);

impl BoxTokenStore {
    pub(super) fn new(store: impl TokenStore) -> Self {
        Self(Arc::new(store))
    }
}

impl TokenStore for BoxTokenStore {
    type Lease = BoxStoreLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.0.load().await
    }

    async fn lease(&self) -> Result<BoxStoreLease, TokenError> {
        self.0.lease().await.map(BoxStoreLease)
    }

    async fn lease_and_load(&self) -> Result<(BoxStoreLease, Option<StoredSession>), TokenError> {
        let (lease, stored) = self.0.lease_and_load().await?;
        Ok((BoxStoreLease(lease), stored))
    }

    fn is_durable(&self) -> bool {
        self.0.is_durable()
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        self.0.changes()
    }

    fn boxed(self) -> BoxTokenStore {
        self
    }
}

/// The lease of a [`BoxTokenStore`].
pub struct BoxStoreLease(Box<dyn ErasedLease>);

impl StoreLease for BoxStoreLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        self.0.save(replaces, session).await
    }

    async fn save_and_release(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> Result<(), TokenError> {
        self.0.save_and_release(replaces, session).await
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.0.is_held().await
    }

    async fn release(self) {
        self.0.release().await;
    }
}

impl fmt::Debug for BoxTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxTokenStore").finish_non_exhaustive()
    }
}

impl fmt::Debug for BoxStoreLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxStoreLease").finish_non_exhaustive()
    }
}

/// [`TokenStore`] with boxed futures, so that it can be a trait object.
trait ErasedStore: Send + Sync {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredSession>, TokenError>>;
    fn lease(&self) -> BoxFuture<'_, Result<Box<dyn ErasedLease>, TokenError>>;
    fn lease_and_load(&self) -> BoxFuture<'_, Result<Leased, TokenError>>;
    fn is_durable(&self) -> bool;
    fn changes(&self) -> Option<watch::Receiver<()>>;
}

/// A lease, and what is stored under it.
type Leased = (Box<dyn ErasedLease>, Option<StoredSession>);

/// [`StoreLease`] with boxed futures.
trait ErasedLease: Send + Sync {
    fn save<'a>(
        &'a mut self,
        replaces: u64,
        session: &'a StoredSession,
    ) -> BoxFuture<'a, Result<(), TokenError>>;
    fn save_and_release<'a>(
        &'a mut self,
        replaces: u64,
        session: &'a StoredSession,
    ) -> BoxFuture<'a, Result<(), TokenError>>;
    fn is_held(&self) -> BoxFuture<'_, Result<bool, TokenError>>;
    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}

impl<T: TokenStore> ErasedStore for T {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredSession>, TokenError>> {
        Box::pin(TokenStore::load(self))
    }

    fn lease(&self) -> BoxFuture<'_, Result<Box<dyn ErasedLease>, TokenError>> {
        Box::pin(async {
            let lease: Box<dyn ErasedLease> = Box::new(TokenStore::lease(self).await?);
            Ok(lease)
        })
    }

    fn lease_and_load(&self) -> BoxFuture<'_, Result<Leased, TokenError>> {
        Box::pin(async {
            let (lease, stored) = TokenStore::lease_and_load(self).await?;
            let lease: Box<dyn ErasedLease> = Box::new(lease);
            Ok((lease, stored))
        })
    }

    fn is_durable(&self) -> bool {
        TokenStore::is_durable(self)
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        TokenStore::changes(self)
    }
}

impl<T: StoreLease> ErasedLease for T {
    fn save<'a>(
        &'a mut self,
        replaces: u64,
        session: &'a StoredSession,
    ) -> BoxFuture<'a, Result<(), TokenError>> {
        Box::pin(StoreLease::save(self, replaces, session))
    }

    fn save_and_release<'a>(
        &'a mut self,
        replaces: u64,
        session: &'a StoredSession,
    ) -> BoxFuture<'a, Result<(), TokenError>> {
        Box::pin(StoreLease::save_and_release(self, replaces, session))
    }

    fn is_held(&self) -> BoxFuture<'_, Result<bool, TokenError>> {
        Box::pin(StoreLease::is_held(self))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(StoreLease::release(*self))
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use crate::{MemoryStore, TokenStore, testing::store_conformance};

    #[tokio::test(start_paused = true)]
    async fn a_boxed_store_conforms() {
        let store = MemoryStore::new().boxed();
        store_conformance(|| store.clone()).await;
    }
}
