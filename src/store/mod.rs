//! [`TokenStore`]: where a session survives, and how those who share it take turns.
//!
//! A server that rotates refresh tokens accepts each once; some revoke the whole session when an old one comes back. So
//! whoever refreshes must be alone, must begin from the newest session, and must have saved what he got before anybody
//! uses it. The contract of a store gives exactly that:
//!
//! ```text
//!   load ──► newer than what I have? use it
//!   lease ──► load again ──► newer by now? use it, release
//!                │
//!                └─► save "refreshing" ──► POST ──► save, if nobody else has saved since ──► release
//! ```
//!
//! | Store | Shared by | Survives | Feature |
//! |---|---|---|---|
//! | [`MemoryStore`] | its clones | nothing | |
#![cfg_attr(
    feature = "file-store",
    doc = "| [`FileStore`] | processes of one machine | a crash, a power cut | `file-store` |"
)]
#![cfg_attr(
    not(feature = "file-store"),
    doc = "| `FileStore` | processes of one machine | a crash, a power cut | `file-store` |"
)]
#![cfg_attr(
    feature = "redis-store",
    doc = "| [`RedisStore`] | processes on many hosts | what its Redis survives | `redis-store` |"
)]
#![cfg_attr(
    not(feature = "redis-store"),
    doc = "| `RedisStore` | processes on many hosts | what its Redis survives | `redis-store` |"
)]
//! | your own [`TokenStore`] | as you like: a database, a secrets manager | | |
//!
//! # What a crash leaves
//!
//! | The process dies | Stored is | The next holder of the lease |
//! |---|---|---|
//! | waiting for the lease | the old session | is not held up: who waits has nothing |
//! | with the lease, before the first save | the old session | renews it |
//! | while a save runs | the old session or the new one, whole | goes by what it loads |
//! | between the saves, around the POST | the old session, marked as being refreshed | tries its refresh token once more, and if that is dead, says since when a rotation may have been lost |
//! | after the second save | the new session | adopts it |
//!
//! A lease whose holder died ends at once in a file (the kernel lets go of the lock), and after
//! its duration in Redis.
//!
#![doc = include_str!("guarantees.md")]

mod boxed;
#[cfg(feature = "file-store")]
mod file;
#[cfg(any(feature = "file-store", feature = "redis-store"))]
mod format;
mod identity;
#[cfg(any(feature = "file-store", feature = "redis-store"))]
mod lease_wait;
mod memory;
#[cfg(feature = "redis-store")]
mod redis;
mod stored_session;

use std::future::Future;

pub(crate) use self::boxed::{DynLease, DynStore};
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use self::file::{FileLease, FileStore};
#[cfg(feature = "redis-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-store")))]
pub use self::redis::{RedisLease, RedisStore};
pub(crate) use self::stored_session::NewTokens;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::stored_session::sample;
pub use self::{
    identity::Identity,
    memory::{MemoryLease, MemoryStore},
    stored_session::StoredSession,
};
use crate::error::TokenError;

/// Keeps one [`StoredSession`], for one process or for many.
///
/// # What an implementation must do
///
/// - [`load`](TokenStore::load) gives what was saved last, whole, or nothing if nothing was saved. It waits for no lease.
///   What can't be read is an error, never "nothing": a session taken for missing would be overwritten.
/// - [`lease`](TokenStore::lease) waits until nobody else holds a lease on the same session, and no longer than the store
///   has set itself as a limit. A lease ends when its holder releases or drops it, and a while after its holder has died.
///   Who stops waiting, by dropping the future at any point, holds nothing.
/// - [`StoreLease::save`] is durable when it returns, and atomic: a crash at any instant leaves the old session or the new
///   one, and so does dropping its future.
/// - It is also fenced: it must fail with [`LeaseLost`](crate::TokenErrorKind::LeaseLost), and change nothing, if what is
///   stored is no longer the version that the new one replaces. The lease makes others wait; the version decides. So a
///   lease may be lost (its holder slept for longer than it lasts) and no refresh token is spent twice.
/// - A save can be repeated: if what is stored is already this very session, in all that is written of it, the save has
///   succeeded. Whoever could not learn how a save ended (the connection broke) tries again, and must not be told that he
///   lost to himself.
///
/// # What each call may fail with
///
/// | Call | [`Timeout`](crate::TokenErrorKind::Timeout) | [`LeaseLost`](crate::TokenErrorKind::LeaseLost) | [`Store`](crate::TokenErrorKind::Store) |
/// |---|---|---|---|
/// | `load` | | | not reached, or holds what is no session |
/// | `lease` | others held it for as long as the store waits | | not reached |
/// | `save` | | another version is stored | not saved, or nobody knows whether: try again |
///
/// None of these ends a session: all are transient, and refreshes are tried again later, with backoff. All sessions are
/// secrets: neither they nor parts of them may be in errors or logs.
///
/// # Examples
///
/// A store of your own serialises the [`StoredSession`] with serde, compares
/// [`version`](StoredSession::version)s in a transaction of its database, and runs `testing::store_conformance` in its tests.
/// Who takes a turn by hand, to import a session for example, does it like this:
///
/// ```
/// use tower_bearer::{MemoryStore, StoredSession, StoreLease, TokenError, TokenStore};
///
/// async fn import(store: &impl TokenStore, session: &StoredSession) -> Result<bool, TokenError> {
///     let mut lease = store.lease().await?;
///     let stored = store.load().await?;
///     let fresh = stored.is_none();
///     if fresh {
///         lease.save(0, session).await?;
///     }
///     lease.release().await;
///     Ok(fresh)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), TokenError> {
/// # let session = tower_bearer::testing::sample_session(1, "imported");
/// let store = MemoryStore::new();
/// assert!(import(&store, &session).await?);
/// assert!(!import(&store, &session).await?);
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no store of sessions",
    label = "this keeps no sessions",
    note = "the module `store` has some, and says what one of your own must do"
)]
pub trait TokenStore: Send + Sync + 'static {
    /// The right to save, for as long as it lasts.
    type Lease: StoreLease;

    /// What was saved last. Waits for nobody's lease.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::TokenErrorKind::Store): the store can't be reached, or holds what is no session.
    fn load(&self) -> impl Future<Output = Result<Option<StoredSession>, TokenError>> + Send;

    /// Waits for the right to save, which only one holder has at a time.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::TokenErrorKind::Store): the store can't be reached.
    /// [`Timeout`](crate::TokenErrorKind::Timeout): others held the lease for too long.
    fn lease(&self) -> impl Future<Output = Result<Self::Lease, TokenError>> + Send;
}

/// The right to save a session; ends when dropped.
pub trait StoreLease: Send + Sync + 'static {
    /// Saves `session`, if version `replaces` is still the one that is stored; 0 stands for "nothing is stored".
    ///
    /// The version of `session` becomes the stored one, whatever it is; versions grow, but not always by one.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::TokenErrorKind::LeaseLost) if another version is stored by now;
    /// [`Store`](crate::TokenErrorKind::Store) if the session could not be saved, or nobody can tell whether it was: then
    /// the same save can be tried again.
    fn save(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> impl Future<Output = Result<(), TokenError>> + Send;

    /// Gives the lease back, so that others need not wait for its end.
    ///
    /// Dropping does the same for all stores of this crate; this one returns when it is done.
    fn release(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        drop(self);
        std::future::ready(())
    }
}
