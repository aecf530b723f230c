//! [`TokenStore`] and [`StoreLease`]: the contract of a store.

use std::future::Future;

use tokio::sync::watch;

use super::{BoxTokenStore, StoredSession};
use crate::error::{TokenError, TokenErrorKind};

/// Keeps one [`StoredSession`] for one process or for several.
///
/// A server that rotates refresh tokens accepts each of them once, and some servers end the session when an old one comes
/// back. So only one process at a time may refresh, it must start from the newest session, and it must save the result
/// before the new token is used. A source does this with a store:
///
/// ```text
///   load ──► newer than the known session? use it
///   lease and load again ──► newer now? use it, release
///        │
///        └─► save "refreshing" ──► POST ──► save and release
///                                            └─ fails if another
///                                               process has saved
/// ```
///
/// These are four operations: [`load`](TokenStore::load), [`lease_and_load`](TokenStore::lease_and_load),
/// [`save`](StoreLease::save) and [`save_and_release`](StoreLease::save_and_release). A process that uses the session of
/// another one takes the first only.
///
/// | Store | Shared by | Survives | Feature |
/// |---|---|---|---|
/// | [`MemoryStore`](crate::MemoryStore) | its clones | nothing | |
#[cfg_attr(
    feature = "file-store",
    doc = "| [`FileStore`](crate::FileStore) | processes of one machine | a crash, a power cut | `file-store` |"
)]
#[cfg_attr(
    not(feature = "file-store"),
    doc = "| `FileStore` | processes of one machine | a crash, a power cut | `file-store` |"
)]
#[cfg_attr(
    feature = "redis-store",
    doc = "| [`RedisStore`](crate::RedisStore) | processes on several hosts | what its Redis survives | `redis-store` |"
)]
#[cfg_attr(
    not(feature = "redis-store"),
    doc = "| `RedisStore` | processes on several hosts | what its Redis survives | `redis-store` |"
)]
#[cfg_attr(
    feature = "postgres-store",
    doc = "| [`PostgresStore`](crate::PostgresStore) | processes on several hosts | what its Postgres survives | `postgres-store` |"
)]
#[cfg_attr(
    not(feature = "postgres-store"),
    doc = "| `PostgresStore` | processes on several hosts | what its Postgres survives | `postgres-store` |"
)]
#[cfg_attr(
    feature = "sqlite-store",
    doc = "| [`SqliteStore`](crate::SqliteStore) | processes of one machine | a crash, a power cut | `sqlite-store` |"
)]
#[cfg_attr(
    not(feature = "sqlite-store"),
    doc = "| `SqliteStore` | processes of one machine | a crash, a power cut | `sqlite-store` |"
)]
/// | your own implementation | depends on what it uses: another database, a secrets manager | | |
///
/// [`boxed`](TokenStore::boxed) hides the type of a store, so that it can be chosen by configuration.
#[cfg_attr(
    feature = "encrypted-store",
    doc = "An [`EncryptedStore`](crate::EncryptedStore) around any of them encrypts the session."
)]
#[cfg_attr(
    not(feature = "encrypted-store"),
    doc = "An `EncryptedStore` (feature `encrypted-store`) around any of them encrypts the session."
)]
///
/// # Examples
///
/// Importing a session that another program has begun. The [`Identity`](crate::Identity) is the one of the source that will
/// use it.
///
/// ```
/// use tower_bearer::{Identity, MemoryStore, StoredSession, StoreLease, TokenError, TokenStore};
///
/// /// Saves `session`, unless the store has one already.
/// async fn import(store: &impl TokenStore, session: &StoredSession) -> Result<bool, TokenError> {
///     let mut lease = store.lease().await?;
///     let is_empty = store.load().await?.is_none();
///     if is_empty {
///         lease.save(0, session).await?;
///     }
///     lease.release().await;
///     Ok(is_empty)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), TokenError> {
/// let identity = Identity::new("refresh", "the-configured-refresh-token");
/// let session = StoredSession::new(identity).with_refresh_token("the-refresh-token-of-today");
///
/// let store = MemoryStore::new();
/// assert!(import(&store, &session).await?);
/// assert!(!import(&store, &session).await?);
/// # Ok(()) }
/// ```
///
/// # What an implementation must do
///
/// Serialize the [`StoredSession`] with serde, compare [`version`](StoredSession::version)s in a transaction of your
/// database, and run `testing::store_conformance` in your tests.
///
/// - [`load`](TokenStore::load) returns what was saved last, whole, or `None` if nothing was saved. It does not wait for a
///   lease. Something that cannot be read is an error and never `None`, or the next save would overwrite the session.
/// - [`lease`](TokenStore::lease) waits until no other lease on the same session is held, up to a time limit of the store.
///   A lease ends when it is released or dropped, and some time after its process has died. Dropping the future at any point
///   leaves no lease behind.
/// - [`StoreLease::save`] is durable when it returns. It is atomic: a crash at any time leaves the old session or the new
///   one, and so does dropping its future.
/// - A save is fenced. If the stored version is not the one that is to be replaced, it changes nothing and fails with
///   [`LeaseLost`](TokenErrorKind::LeaseLost). The lease makes others wait, but the version decides: a process that was
///   suspended for longer than its lease lasts does no harm.
/// - A save can be repeated. If the stored session is serialized to the same text as the new one, the save succeeds. A
///   caller that did not learn the result of a save, because the connection broke, tries again.
/// - [`lease_and_load`](TokenStore::lease_and_load) and [`save_and_release`](StoreLease::save_and_release) do two things in
///   one operation, which is for stores behind a network. Their defaults do one after the other. What is loaded with a
///   lease was stored when the lease was taken, or later. A lease is released only if the session is saved, and only if it
///   is still the same lease.
/// - A store that wraps another one passes all methods on. One that can notify other processes does so with each save of a
///   session that [says so](StoredSession::should_notify), once it is durable, and implements [`changes`](TokenStore::changes).
///
/// | Call | [`Timeout`](TokenErrorKind::Timeout) | [`LeaseLost`](TokenErrorKind::LeaseLost) | [`Store`](TokenErrorKind::Store) |
/// |---|---|---|---|
/// | `load` | | | the store was not reached, or what it has is not a session |
/// | `lease` | other processes held the lease until the time limit | | the store was not reached |
/// | `lease_and_load` | as `lease` | | as `lease` and `load`; no lease is left behind |
/// | `save` | | another version is stored | the session was not saved, or it is unknown whether it was: try again |
/// | `save_and_release` | | as `save`; the lease is kept | as `save`; the lease is kept, unless the session was saved |
/// | `is_held` | | | the store was not reached |
///
/// All of these errors are transient and none of them ends a session: the cache tries again later, with backoff. Sessions
/// are secrets, so no part of them may be in errors or logs.
///
/// # What a crash leaves in the store
///
/// | The process dies | Stored is | The next process with the lease |
/// |---|---|---|
/// | while it waits for the lease | the old session | does not wait for the dead process, which had no lease |
/// | with the lease, before the first save | the old session | refreshes it |
/// | during a save | the old session or the new one, whole | continues with what it loads |
/// | between the two saves, around the POST | the old session, marked as being refreshed | sends its refresh token once more. If that is rejected, the error says when the interrupted refresh began |
/// | after the second save | the new session | adopts it |
/// | before it has saved that the grant is dead | the old session, marked as being refreshed | sends its credential once more, and saves it |
/// | after a revocation, before it has saved that | the old session | sends its credential, which the server rejects. A grant that can be repeated begins the session anew: revoke it again |
///
/// The lease of a dead process ends at once in a file, because the kernel releases the lock, and after its duration in
/// Redis or a database.
///
#[doc = include_str!("guarantees.md")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a token store",
    label = "this does not implement `TokenStore`",
    note = "`MemoryStore`, `FileStore`, `RedisStore`, `PostgresStore` and `SqliteStore` do; the documentation of `TokenStore` says what your own must do"
)]
pub trait TokenStore: Send + Sync + 'static {
    /// The right to save.
    type Lease: StoreLease;

    /// Returns the session that was saved last. It does not wait for a lease.
    ///
    /// # Errors
    ///
    /// [`Store`](TokenErrorKind::Store) if the store cannot be reached, or if what it has is not a session.
    fn load(&self) -> impl Future<Output = Result<Option<StoredSession>, TokenError>> + Send;

    /// Waits for the right to save, which is held only once at a time.
    ///
    /// # Errors
    ///
    /// - [`Store`](TokenErrorKind::Store) if the store cannot be reached.
    /// - [`Timeout`](TokenErrorKind::Timeout) if others held the lease until the time limit.
    fn lease(&self) -> impl Future<Output = Result<Self::Lease, TokenError>> + Send;

    /// Takes the lease as [`lease`](TokenStore::lease) does, and returns what is stored under it.
    ///
    /// Default: one after the other. Override it if the store can do both in one statement. What it returns was stored when
    /// the lease was taken, or later.
    ///
    /// # Errors
    ///
    /// Those of [`lease`](TokenStore::lease) and [`load`](TokenStore::load). No lease is left behind.
    fn lease_and_load(
        &self,
    ) -> impl Future<Output = Result<(Self::Lease, Option<StoredSession>), TokenError>> + Send {
        async move {
            let lease = self.lease().await?;
            match self.load().await {
                Ok(stored) => Ok((lease, stored)),
                Err(error) => {
                    lease.release().await;
                    Err(error)
                }
            }
        }
    }

    /// Whether what was saved is still there after the last handle of the store is gone. Default: `true`.
    fn is_durable(&self) -> bool {
        true
    }

    /// Tells when another process has saved a session that running processes should look at: a new login, an import or a
    /// revocation ([`StoredSession::should_notify`]). `None`: the store cannot tell.
    ///
    /// The cache calls it once, in a Tokio runtime, and then reads the store each time that the receiver has
    /// [changed](watch::Receiver::changed). That is sooner than it would otherwise look, and nothing else: that
    /// notifications get lost, come late, come twice or come for the process's own saves does no harm. If notifications may
    /// have been lost, as after a broken connection, the store sends one. If it drops the sender, the cache calls this again
    /// after a while.
    ///
    /// Default: `None`. Postgres and Redis notify; files and SQLite do not.
    fn changes(&self) -> Option<watch::Receiver<()>> {
        None
    }

    /// Hides the type of the store.
    fn boxed(self) -> BoxTokenStore
    where
        Self: Sized,
    {
        BoxTokenStore::new(self)
    }
}

/// The right to save a session. It ends when it is dropped.
pub trait StoreLease: Send + Sync + 'static {
    /// Saves `session` if `replaces` is the stored version. 0 means that nothing is stored.
    ///
    /// The version of `session` becomes the stored one. Versions grow, but not always by one.
    ///
    /// # Errors
    ///
    /// - [`LeaseLost`](TokenErrorKind::LeaseLost) if another version is stored.
    /// - [`Store`](TokenErrorKind::Store) if the session could not be saved, or if it is unknown whether it was saved. The
    ///   same save can be repeated.
    fn save(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> impl Future<Output = Result<(), TokenError>> + Send;

    /// Saves `session` as [`save`](StoreLease::save) does, for the last time under this lease. If it is saved, the store may
    /// release the lease in the same statement.
    ///
    /// After a success, the caller [releases](StoreLease::release) or drops the lease, and does nothing else with it. If it
    /// was released already, nothing more is sent. After an error the lease is as before, and a save can be repeated.
    ///
    /// Default: saves, and leaves the lease to the caller. An override releases the lease only if the session is stored, and
    /// only if no other lease has taken its place.
    ///
    /// # Errors
    ///
    /// Those of [`save`](StoreLease::save).
    fn save_and_release(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> impl Future<Output = Result<(), TokenError>> + Send {
        self.save(replaces, session)
    }

    /// Whether the lease is still held: as far as the store can tell now, no other process has had it since. `false` if the
    /// lease has ended, also if it was taken again.
    ///
    /// A source that cannot save, because the disk is full, goes on from memory only while this is `true`. It does not give
    /// up the lease of an unsaved session before this is `false`.
    ///
    /// # Errors
    ///
    /// [`Store`](TokenErrorKind::Store) if the store cannot be reached, so that the lease may be held or not.
    fn is_held(&self) -> impl Future<Output = Result<bool, TokenError>> + Send;

    /// Releases the lease, so that others need not wait until it ends.
    ///
    /// Dropping the lease of a store of this crate releases it as well. This method returns when that is done.
    fn release(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        drop(self);
        std::future::ready(())
    }
}

/// The error of a save that found another version than the one that it replaces.
pub(super) fn version_mismatch(replaces: u64, stored: u64) -> TokenError {
    let message = format!("version {replaces} was to be replaced, and version {stored} is stored");
    TokenError::new(TokenErrorKind::LeaseLost, message)
}
