//! Stores whose type is erased, so that sources can be named without it.

use std::{future::Future, pin::Pin};

use super::{StoreLease, StoredSession, TokenStore};
use crate::error::TokenError;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub(crate) trait DynStore: Send + Sync {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredSession>, TokenError>>;
    fn lease(&self) -> BoxFuture<'_, Result<Box<dyn DynLease>, TokenError>>;
}

pub(crate) trait DynLease: Send + Sync {
    fn save<'a>(
        &'a mut self,
        replaces: u64,
        session: &'a StoredSession,
    ) -> BoxFuture<'a, Result<(), TokenError>>;
    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}

impl<T: TokenStore> DynStore for T {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredSession>, TokenError>> {
        Box::pin(TokenStore::load(self))
    }

    fn lease(&self) -> BoxFuture<'_, Result<Box<dyn DynLease>, TokenError>> {
        Box::pin(async {
            let lease: Box<dyn DynLease> = Box::new(TokenStore::lease(self).await?);
            Ok(lease)
        })
    }
}

impl<T: StoreLease> DynLease for T {
    fn save<'a>(
        &'a mut self,
        replaces: u64,
        session: &'a StoredSession,
    ) -> BoxFuture<'a, Result<(), TokenError>> {
        Box::pin(StoreLease::save(self, replaces, session))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(StoreLease::release(*self))
    }
}
