//! Where sessions are stored: the contract [`TokenStore`], stores in memory, in a file, in Redis and in SQL
//! databases, and an envelope that encrypts.

mod boxed;
#[cfg(feature = "encrypted-store")]
mod encrypted;
#[cfg(feature = "file-store")]
mod file;
#[cfg(any(
    feature = "encrypted-store",
    feature = "file-store",
    feature = "postgres-store",
    feature = "redis-store",
    feature = "sqlite-store"
))]
mod format;
mod identity;
#[cfg(any(
    feature = "file-store",
    feature = "postgres-store",
    feature = "redis-store",
    feature = "sqlite-store"
))]
mod lease_wait;
#[cfg(any(feature = "postgres-store", feature = "redis-store"))]
mod listeners;
mod memory;
#[cfg(feature = "redis-store")]
mod redis;
#[cfg(any(feature = "postgres-store", feature = "sqlite-store"))]
mod sql;
mod stored_session;
mod token_store;
mod unencrypted;

#[cfg(feature = "encrypted-store")]
pub use self::encrypted::{EncryptedLease, EncryptedStore, EncryptionKey};
#[cfg(feature = "file-store")]
pub use self::file::{FileLease, FileStore};
#[cfg(feature = "redis-store")]
pub use self::redis::{RedisLease, RedisStore};
#[cfg(feature = "postgres-store")]
pub use self::sql::PostgresStore;
#[cfg(feature = "sqlite-store")]
pub use self::sql::SqliteStore;
#[cfg(any(feature = "postgres-store", feature = "sqlite-store"))]
pub use self::sql::{SqlLease, SqlStore};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::stored_session::sample;
pub(crate) use self::stored_session::{Ended, NewTokens};
use self::token_store::version_mismatch;
pub(crate) use self::unencrypted::Unencrypted;
pub use self::{
    boxed::{BoxStoreLease, BoxTokenStore},
    identity::Identity,
    memory::{MemoryLease, MemoryStore},
    stored_session::StoredSession,
    token_store::{StoreLease, TokenStore},
};
