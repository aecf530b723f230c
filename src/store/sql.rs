//! [`SqlStore`]: sessions in a table of a SQL database, for processes that share it.
//!
//! | File | What |
//! |---|---|
//! | `row.rs` | the row of a session: load and save |
//! | `lease.rs` | the lease in that row |
//! | `statements.rs` | the SQL, and the name of the table |
//! | `database.rs` | what a store needs of a database; when a statement is sent again |
//! | `pool.rs` | the pool of connections, and the errors that all databases have |
//! | `postgres_listener.rs` | listening for what other processes save |
//! | `postgres.rs`, `sqlite.rs` | what differs between the databases |

mod database;
mod lease;
mod pool;
#[cfg(feature = "postgres-store")]
mod postgres;
#[cfg(feature = "postgres-store")]
mod postgres_listener;
mod row;
#[cfg(feature = "sqlite-store")]
mod sqlite;
mod statements;

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use self::lease::SqlLease;
use self::{
    database::{Database, Stored},
    row::SessionRow,
    statements::Table,
};
use super::{
    StoreLease, StoredSession, TokenStore,
    lease_wait::{self, LEASE_TIMEOUT, LeaseQueue},
};
use crate::error::TokenError;

#[cfg(feature = "postgres-store")]
#[doc = include_str!("sql/postgres.md")]
#[doc = include_str!("sql/postgres_table.sql")]
#[doc = include_str!("sql/postgres_example.md")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres-store")))]
pub type PostgresStore = SqlStore<sqlx::Postgres>;

#[cfg(feature = "sqlite-store")]
#[doc = include_str!("sql/sqlite.md")]
#[doc = include_str!("sql/sqlite_table.sql")]
#[doc = include_str!("sql/sqlite_example.md")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite-store")))]
pub type SqliteStore = SqlStore<sqlx::Sqlite>;

/// Keeps sessions in a table of a SQL database: see `PostgresStore` and `SqliteStore`.
///
/// One store is for one session, and [`session`](SqlStore::session) makes stores for others, with the same pool of
/// connections. No connection is held between two statements: not while a process waits for a lease, and not while it
/// waits for the token endpoint. So a pool of a few connections serves thousands of sessions.
///
/// # The table
///
/// One row is one session with its lease. [`create_table`](SqlStore::create_table) makes the table, or you make it with
/// the SQL that the documentation of the store of your database shows.
///
/// | Column | What |
/// |---|---|
/// | `name` | the name of the session |
/// | `version` | the version of the session, by which saves are fenced. 0: no session is stored yet |
/// | `session` | JSON as [`StoredSession`] describes it |
/// | `lease_owner`, `lease_until` | who has the lease, and until when by the clock of the database; null if no process has it |
/// | `updated_at` | when the session was saved last |
///
/// To remove a session, delete its row. To move it to a client with other settings, set `client` in its JSON to `null`,
/// and leave `version` as it is. A row whose session is of a newer format, or not a session at all, is an error that
/// says so, and is never overwritten.
///
/// # Statements
///
/// A refresh takes four statements of one round trip each, and every statement is a transaction of its own:
///
/// | Call | Statement | Writes |
/// |---|---|---|
/// | [`load`](TokenStore::load) | `SELECT version, session` | |
/// | [`lease_and_load`](TokenStore::lease_and_load) | `INSERT … ON CONFLICT (name) DO UPDATE … RETURNING version, session` | yes |
/// | [`save`](StoreLease::save), before the token request | `UPDATE … WHERE version = … RETURNING` | yes |
/// | [`save_and_release`](StoreLease::save_and_release), after it | `UPDATE … WHERE version = … RETURNING` | yes |
///
/// A process that uses the token of another one takes the first statement only. If it has waited for the lease, it takes
/// two more: it [releases](StoreLease::release) the lease with `UPDATE … WHERE lease_owner = … RETURNING`.
///
/// A save of a login, an import or a revocation notifies other processes in the same statement, if the database can.
/// More statements come only if a token request takes longer than a third of the
/// [`lease_duration`](SqlStore::lease_duration), if a process waits for a lease (the second statement, which then writes
/// nothing, again and again at growing intervals), and if a save finds another version (one, which says why). The pool of
/// `sqlx` asks each connection whether it is alive before it gives it away and after it gets it back; that takes two
/// round trips more, but no statements.
///
/// # Lease and saves
///
/// - **Lease.** A random owner, with a time that the clock of the database decides. A task extends it while it is held.
///   Dropping the lease releases it, and it ends by itself [some time](SqlStore::lease_duration) after its process has
///   died. There are no locks of the database between two statements.
/// - **Save.** The statement replaces a session only if its version is the one that is to be replaced, whether or not
///   the lease is still held. So a process that was suspended for longer than its lease gets an error if another one
///   has saved. If no other one has, its tokens are not lost.
/// - **Outage.** A call fails with an error of kind [`Store`](crate::TokenErrorKind::Store), at the latest after the
///   [time limit](SqlStore::command_timeout). Within that time, a statement is sent again if the connection broke, or
///   if other transactions stood in its way (a serialization failure, a locked database).
/// - **Access.** Everyone who can read the table, its backups or its replicas has the sessions. Errors contain neither
///   passwords nor what is stored. Sessions are parameters of statements, so they are in the log of a database that
///   logs parameters.
/// - **Memory.** What is read and written is zeroized when dropped. The crate `sqlx` keeps copies of it in buffers that
///   are not.
pub struct SqlStore<DB> {
    row: Arc<SessionRow>,
    queue: LeaseQueue,
    lease_timeout: Duration,
    database: PhantomData<fn() -> DB>,
}

impl<DB> SqlStore<DB> {
    fn on(database: Arc<dyn Database>, name: String) -> Result<Self, TokenError> {
        Ok(Self {
            row: Arc::new(SessionRow::new(database, name)?),
            queue: LeaseQueue::default(),
            lease_timeout: LEASE_TIMEOUT,
            database: PhantomData,
        })
    }

    /// The same store with another row, which has another lease.
    fn at(self, row: SessionRow) -> Self {
        Self {
            row: Arc::new(row),
            queue: LeaseQueue::default(),
            ..self
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut SessionRow)) -> Self {
        change(Arc::make_mut(&mut self.row));
        self
    }

    /// Makes a store for another session, with the pool, the table and the settings of this one.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::TokenErrorKind::Config) if `name` is empty, has more than 255 bytes or control characters.
    pub fn session(&self, name: impl Into<String>) -> Result<Self, TokenError> {
        let row = SessionRow::clone(&self.row).with_name(name.into())?;
        Ok(self.clone().at(row))
    }

    /// Sets the table: `table` or `schema.table`, of lower-case letters, digits and `_`. Default:
    /// `tower_bearer_sessions`.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::TokenErrorKind::Config) if `table` has other characters, or more than 63 in one part.
    pub fn table(self, table: &str) -> Result<Self, TokenError> {
        let row = SessionRow::clone(&self.row).with_table(Table::new(table)?);
        Ok(self.at(row))
    }

    /// Makes the table if it does not exist.
    ///
    /// It can be called in many processes at once, and each time a program starts. If the table exists, the database
    /// user needs no right to make one.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::TokenErrorKind::Store) if the database was not reached, or does not permit it.
    pub async fn create_table(&self) -> Result<(), TokenError> {
        self.row.create_table().await
    }

    /// Sets how long to wait for a lease that others hold. Default: 65 seconds.
    ///
    /// Set it longer than the slowest refresh, which takes twice the time limit of the token endpoint, and longer than
    /// [`lease_duration`](SqlStore::lease_duration), so that it outlasts the lease of a process that died.
    #[must_use]
    pub fn lease_timeout(self, lease_timeout: Duration) -> Self {
        Self {
            lease_timeout,
            ..self
        }
    }

    /// Sets how long the lease of a process that died lasts. Default: 15 seconds; at least 10 ms, at most 100 years.
    ///
    /// A running process extends its lease three times in this time.
    #[must_use]
    pub fn lease_duration(self, lease_duration: Duration) -> Self {
        let lease_duration = lease_duration.max(Duration::from_millis(10));
        self.edit(|row| row.lease_duration = lease_duration)
    }

    /// Sets the time limit of one statement, including waiting for a connection of the pool, connecting, and sending
    /// the statement again. Default: 5 seconds.
    #[must_use]
    pub fn command_timeout(self, command_timeout: Duration) -> Self {
        self.edit(|row| row.command_timeout = command_timeout)
    }

    async fn wait_for_lease(&self) -> Result<(SqlLease, Stored), TokenError> {
        let permit = self.queue.acquire().await;
        let mut interval = self.row.database.poll_interval();
        loop {
            if let Some((lease, stored)) = SqlLease::try_acquire(Arc::clone(&self.row)).await? {
                return Ok((lease.with_permit(permit), stored));
            }
            interval.wait().await;
        }
    }

    /// Takes the lease, and returns it with its row.
    async fn lease_row(&self) -> Result<(SqlLease, Stored), TokenError> {
        let location = format!("of {}", self.row.location());
        lease_wait::with_timeout(self.lease_timeout, &location, self.wait_for_lease()).await
    }
}

impl<DB: 'static> TokenStore for SqlStore<DB> {
    type Lease = SqlLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.row.load().await
    }

    async fn lease(&self) -> Result<SqlLease, TokenError> {
        let (lease, _) = self.lease_row().await?;
        Ok(lease)
    }

    async fn lease_and_load(&self) -> Result<(SqlLease, Option<StoredSession>), TokenError> {
        let (lease, row) = self.lease_row().await?;
        match self.row.session_in(row) {
            Ok(stored) => Ok((lease, stored)),
            Err(error) => {
                lease.release().await;
                Err(error)
            }
        }
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        self.row.changes()
    }
}

impl<DB> Clone for SqlStore<DB> {
    fn clone(&self) -> Self {
        Self {
            row: Arc::clone(&self.row),
            queue: self.queue.clone(),
            lease_timeout: self.lease_timeout,
            database: PhantomData,
        }
    }
}

impl<DB> fmt::Debug for SqlStore<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pool is left out, because its settings have the password.
        f.debug_struct("SqlStore")
            .field("session", &self.row.location())
            .field("command_timeout", &self.row.command_timeout)
            .field("lease_timeout", &self.lease_timeout)
            .field("lease_duration", &self.row.lease_duration)
            .finish_non_exhaustive()
    }
}
