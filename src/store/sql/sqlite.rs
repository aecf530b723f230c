//! What is particular to SQLite.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use sqlx::{
    Error, Sqlite, SqliteConnection, SqlitePool,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    SqlStore,
    database::{BoxFuture, Fault, Remedy, Statement, Stored},
    pool::{Driver, LazyPool, fetch},
    statements::Dialect,
};
use crate::error::{TokenError, TokenErrorKind};

/// How long a statement waits inside SQLite for another connection, before it is sent again.
///
/// Shorter than the time limit of a statement, so that a statement has ended when the limit is over.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

impl SqlStore<Sqlite> {
    /// Makes a store for the session `name`, in the file `path`. It is opened when the store is first used.
    ///
    /// `path` is a path, or a URL as `sqlx` reads it: `sqlite:sessions.db`. If the file does not exist, it is made,
    /// readable by its owner only. Its folder must exist. A relative path starts at the current folder of this call.
    /// The store has a pool of at most 4 connections, with the settings that
    /// [`with_pool`](SqlStore::<Sqlite>::with_pool) asks for.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `path` is empty, not UTF-8, a malformed URL or a database in memory, or if
    /// `name` is empty, has more than 255 bytes or control characters.
    pub fn new(path: impl AsRef<Path>, name: impl Into<String>) -> Result<Self, TokenError> {
        let options = options(path.as_ref()).ok_or_else(|| {
            let message = "the path of the database cannot be used: write it as sessions.db or sqlite:sessions.db, \
                           and for a database in memory use `with_pool`";
            TokenError::new(TokenErrorKind::Config, message)
        })?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = LazyPool::<Sqlite>::new(SqlitePoolOptions::new().max_connections(4), options);
        Self::on(Arc::new(pool), name.into())
    }

    /// Makes a store for the session `name`, in the database of `pool`.
    ///
    /// `SqlitePool` is from version 0.9 of the crate `sqlx`. The store takes a connection for each statement, and holds
    /// none in between. The connections need these settings:
    ///
    /// - `synchronous(Full)`, which is the default, or `Extra`. With `Normal`, a power cut can lose the last saves.
    /// - `journal_mode(Wal)`, so that a save does not wait for those who read.
    /// - `busy_timeout` of a second or two: shorter than [`command_timeout`](SqlStore::command_timeout), which is the
    ///   limit for all attempts together.
    ///
    /// A database in memory belongs to one connection, so it is of use only in a pool of one.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `name` is empty, has more than 255 bytes or control characters.
    pub fn with_pool(pool: SqlitePool, name: impl Into<String>) -> Result<Self, TokenError> {
        let pool = LazyPool::<Sqlite>::of_application(pool);
        Self::on(Arc::new(pool), name.into())
    }
}

/// The options for a path or a URL, with an absolute path.
fn options(path: &Path) -> Option<SqliteConnectOptions> {
    let text = path.to_str()?;
    // Each connection would have a database of its own, or lose it when the last one is closed.
    if text.contains(":memory:") || text.contains("mode=memory") {
        return None;
    }
    let options = if text.starts_with("sqlite:") {
        text.parse().ok()?
    } else {
        SqliteConnectOptions::new().filename(path)
    };
    let file = std::path::absolute(options.get_filename()).ok()?;
    Some(options.filename(file))
}

impl Driver for Sqlite {
    const DIALECT: Dialect = Dialect {
        create: include_str!("sqlite_table.sql"),
        // Milliseconds since 1970. SQLite before 3.42 has no `unixepoch('subsec')`.
        now: "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        until: "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + $3",
        // The connection decides. `PRAGMA synchronous` is not possible within a statement.
        durable: "1 = 1",
        // SQLite cannot tell other processes.
        notify: "version",
    };

    const POLL_INTERVALS: (Duration, Duration) =
        (Duration::from_millis(5), Duration::from_millis(100));

    fn fmt_address(options: &SqliteConnectOptions, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLite in {}", options.get_filename().display())
    }

    /// Makes the file with permissions for its owner only. SQLite gives them to the files that it puts next to it.
    fn prepare(options: &SqliteConnectOptions) {
        let mut file = std::fs::OpenOptions::new();
        file.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
        // If it cannot be made, the first connection says why.
        file.open(options.get_filename()).ok();
    }

    fn execute<'a>(
        connection: &'a mut SqliteConnection,
        statement: &'a Statement,
    ) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(fetch::<Self>(connection, statement, true))
    }

    fn describe(error: &dyn DatabaseError) -> Fault {
        /// The codes of <https://sqlite.org/rescode.html>, without their extensions.
        const PRIMARY: u32 = 0xff;
        let code: u32 = error
            .code()
            .and_then(|code| code.parse().ok())
            .unwrap_or_default();
        let (problem, remedy) = match code & PRIMARY {
            // The code of any error in a statement. The message has a name of ours, and nothing else.
            1 if error.message().starts_with("no such table") => (
                "does not have the table: call `create_table`, or make it with the documented SQL",
                Remedy::None,
            ),
            1 | 19 | 20 => (
                "has a table that does not match the documented one",
                Remedy::None,
            ),
            3 | 23 => ("does not permit access to the file", Remedy::None),
            5 | 6 => (
                "was locked by another connection for too long: does a transaction stay open?",
                Remedy::Wait,
            ),
            7 => ("has no memory left", Remedy::None),
            8 => (
                "cannot be written: the file or its folder is read-only",
                Remedy::None,
            ),
            10 => ("had an error of the disk", Remedy::Reconnect),
            11 => (
                "is damaged: restore it, or remove it to begin new sessions",
                Remedy::None,
            ),
            13 => ("has no disk space left", Remedy::None),
            14 => (
                "cannot be opened: does its folder exist, and may it be written?",
                Remedy::None,
            ),
            15 => (
                "does not lock on this file system: use one of this machine",
                Remedy::None,
            ),
            26 => ("is not a database: choose another path", Remedy::None),
            _ => {
                return Fault::new(format!("answered with the error {code}"), Remedy::None);
            }
        };
        Fault::new(problem, remedy)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use sqlx::SqlSafeStr;

    use super::*;
    use crate::{
        SqliteStore,
        store::sql::{database::Parameter, pool::tests::assert_described, row::SessionRow},
    };

    /// A number that SQLite answers with, over a connection of the store.
    async fn ask(row: &SessionRow, sql: &'static str) -> i64 {
        let answer = row.query(&sql.into_sql_str(), Vec::new(), ()).await;
        answer.unwrap().unwrap().version
    }

    #[test]
    fn each_error_of_the_database_is_explained() {
        for (code, expected, remedy) in [
            ("1", "does not match the documented one", Remedy::None),
            ("1299", "does not match the documented one", Remedy::None),
            ("20", "does not match the documented one", Remedy::None),
            ("3", "does not permit access", Remedy::None),
            ("23", "does not permit access", Remedy::None),
            ("5", "was locked", Remedy::Wait),
            ("517", "was locked", Remedy::Wait),
            ("6", "was locked", Remedy::Wait),
            ("7", "has no memory left", Remedy::None),
            ("8", "is read-only", Remedy::None),
            ("1032", "is read-only", Remedy::None),
            ("10", "an error of the disk", Remedy::Reconnect),
            ("11", "is damaged", Remedy::None),
            ("13", "has no disk space left", Remedy::None),
            ("14", "cannot be opened", Remedy::None),
            ("15", "does not lock on this file system", Remedy::None),
            ("26", "is not a database", Remedy::None),
            ("21", "answered with the error 21", Remedy::None),
            ("s3cret", "answered with the error 0", Remedy::None),
        ] {
            assert_described::<Sqlite>(code, expected, remedy);
        }
    }

    #[test]
    fn a_lease_lasts_at_most_a_hundred_years() {
        let store = SqliteStore::new("made-up.db", "vendor").unwrap();
        let millis = |duration| store.clone().lease_duration(duration).row.lease_millis();
        assert_eq!(millis(Duration::from_secs(15)), 15_000);
        let years = 100 * 365 * 86_400_000;
        assert_eq!(millis(Duration::MAX), years);
        assert_eq!(millis(Duration::from_secs(1 << 40)), years);
    }

    /// As it is after a connection that broke before the answer came.
    #[tokio::test]
    async fn an_owner_that_takes_its_lease_again_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::new(folder.path().join("sessions.db"), "vendor").unwrap();
        store.create_table().await.unwrap();
        for (owner, expected) in [("a", true), ("a", true), ("b", false), ("a", true)] {
            let owner = Parameter::Text(owner.into());
            let parameters = vec![store.row.key(), owner, Parameter::Number(60_000)];
            let sql = &store.row.statements.take_lease;
            let taken = store.row.query(sql, parameters, ()).await.unwrap();
            assert_eq!(taken.is_some(), expected);
        }
    }

    #[tokio::test]
    async fn the_connections_of_a_store_sync_each_save() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::new(folder.path().join("sessions.db"), "vendor").unwrap();
        // 2 is `FULL`.
        assert_eq!(
            ask(&store.row, "SELECT synchronous FROM pragma_synchronous").await,
            2
        );
        let wal = "SELECT journal_mode = 'wal' FROM pragma_journal_mode";
        assert_eq!(ask(&store.row, wal).await, 1);
    }

    #[tokio::test]
    async fn the_clock_of_the_database_counts_milliseconds_since_1970() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::new(folder.path().join("sessions.db"), "vendor").unwrap();
        let ours = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            i64::try_from(since.unwrap().as_millis()).unwrap()
        };
        let before = ours();
        let now = sqlx::AssertSqlSafe(format!("SELECT {}", Sqlite::DIALECT.now)).into_sql_str();
        let now = store.row.query(&now, Vec::new(), ()).await;
        let now = now.unwrap().unwrap().version;
        // The fraction of a day is rounded to a part of a millisecond.
        assert!((before - 1..=ours() + 1).contains(&now), "{before} {now}");
    }

    #[test]
    fn a_store_is_built_from_a_path_or_a_url_without_a_file_or_a_runtime() {
        let folder = std::env::current_dir().unwrap();
        let absolute = folder.join("made-up.db");
        for path in [
            "made-up.db",
            "sqlite:made-up.db",
            "sqlite://made%2Dup.db?mode=rwc",
        ] {
            let store = SqliteStore::new(path, "vendor").unwrap();
            let shown = format!("{store:?}");
            assert!(shown.contains(&*absolute.to_string_lossy()), "{shown}");
            assert!(shown.contains("vendor"), "{shown}");
        }
        assert!(!absolute.exists());
    }

    #[test]
    fn a_path_that_is_no_file_is_rejected() {
        for path in [
            "",
            "sqlite:",
            ":memory:",
            "sqlite::memory:",
            "sqlite:a?mode=memory",
            "sqlite:a?mode=x",
        ] {
            let error = SqliteStore::new(path, "vendor").unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{path}");
        }
    }
}
