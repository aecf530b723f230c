//! The store in a database of SQLite, which each test makes in a folder of its own.

#[path = "support/sql.rs"]
mod sql;

use std::{path::PathBuf, time::Duration};

use sql::{LONG, TestDatabase, patient, save_first, version};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Row, Sqlite,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::timeout};
use tower_bearer::{
    SqlStore, SqliteStore, StoreLease, TokenErrorKind, TokenStore,
    testing::{sample_session, store_conformance},
};

struct Database(TempDir);

impl Database {
    async fn new() -> Self {
        let database = Self(tempfile::tempdir().unwrap());
        database.store().create_table().await.unwrap();
        database
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("sessions.db")
    }

    async fn connection(&self) -> sqlx::SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path());
        options.connect().await.unwrap()
    }
}

impl TestDatabase for Database {
    type Database = Sqlite;

    fn store(&self) -> SqlStore<Sqlite> {
        patient(SqliteStore::new(self.path(), "test").unwrap())
    }

    async fn raw(&self, sql: &str) -> Option<String> {
        let mut connection = self.connection().await;
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await;
        let value = rows.unwrap().first().and_then(|row| row.get(0));
        connection.close().await.unwrap();
        value
    }
}

macro_rules! shared_tests {
    ($($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            sql::$name(&Database::new().await).await;
        }
    )*};
}

shared_tests! {
    the_row_is_as_documented
    envelopes_conform_and_the_database_has_no_token
    a_missing_table_is_named_and_made_by_many_at_once
    what_is_not_a_session_is_an_error_and_never_overwritten
    a_lease_whose_session_cannot_be_read_is_released
    a_last_save_releases_its_own_lease_only
    a_lease_that_a_save_has_released_is_neither_extended_nor_released_again
    a_last_save_that_is_repeated_leaves_no_lease
    a_table_of_another_kind_is_an_error
    a_deleted_row_rejects_saves_and_accepts_a_new_session
    a_holder_whose_lease_ended_does_not_overwrite_a_newer_session
    a_holder_whose_lease_ended_can_save_if_no_other_has_saved
    of_two_saves_over_the_same_version_at_once_one_fails
    a_lease_is_extended_while_it_is_held_and_its_loss_is_noticed
    a_lease_whose_time_has_ended_is_not_held_until_it_is_extended
    the_lease_of_a_dead_process_ends_by_itself
    a_store_works_after_the_runtime_that_it_connected_in_has_ended
    tasks_that_contend_for_a_lease_get_it_one_after_the_other
    a_wait_that_is_dropped_leaves_no_lease
}

#[tokio::test]
async fn stores_with_separate_pools_conform() {
    let database = Database::new().await;
    store_conformance(|| database.store()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_on_several_threads_conform() {
    let store = Database::new().await;
    let store = store.store();
    store_conformance(|| store.clone()).await;
}

/// What `PRAGMA` says over another connection.
async fn pragma(database: &Database, name: &str) -> String {
    database.raw(&format!("PRAGMA {name}")).await.unwrap()
}

#[tokio::test]
async fn the_file_is_made_for_its_owner_only_and_logs_ahead() {
    let database = Database::new().await;
    save_first(&database.store()).await;
    assert_eq!(pragma(&database, "journal_mode").await, "wal");
    #[cfg(unix)]
    for entry in std::fs::read_dir(database.0.path()).unwrap() {
        let entry = entry.unwrap();
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&entry.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_open_a_new_file_at_once_all_succeed() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        for n in 0..8 {
            let path = folder.path().join("sessions.db");
            tasks.spawn(async move {
                let store = SqliteStore::new(path, format!("session-{n}")).unwrap();
                store.create_table().await.unwrap();
                save_first(&store).await;
                assert_eq!(version(&store).await, 1);
            });
        }
        tasks.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_another_connection_has_locked_is_an_error_until_it_is_free() {
    let database = Database::new().await;
    let store = database.store().command_timeout(Duration::from_secs(2));
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    let mut writer = database.connection().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut writer)
        .await
        .unwrap();

    let error = lease
        .save(1, &sample_session(2, "second"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(error.is_transient());
    assert!(
        error
            .to_string()
            .contains("was locked by another connection"),
        "{error}"
    );
    // Reading waits for no writer.
    assert_eq!(version(&store).await, 1);
    assert!(lease.is_held().await.unwrap());

    // A save that waits is done as soon as the other transaction ends.
    let second = sample_session(2, "second");
    let (saved, ()) = tokio::join!(lease.save(1, &second), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        writer.close().await.unwrap();
    });
    saved.unwrap();
    assert_eq!(version(&database.store()).await, 2);
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = SqliteStore::new(folder.path().join("missing/sessions.db"), "test").unwrap();
    let other = folder.path().join("other");
    std::fs::write(&other, "s3cret, and not a database ".repeat(100)).unwrap();
    let other = SqliteStore::new(&other, "test").unwrap();
    for (store, expected) in [
        (missing, "does its folder exist"),
        (other, "is not a database"),
    ] {
        let error = store.create_table().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("SQLite in "), "{error}");
        assert!(!sql::shown(&error).contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_pool_of_the_application_serves_several_sessions() {
    let database = Database::new().await;
    let options = SqliteConnectOptions::new().filename(database.path());
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(options);
    let store = SqliteStore::with_pool(pool.clone(), "test").unwrap();
    let other = store.session("other").unwrap();
    let (lease, other_lease) = (store.lease().await.unwrap(), other.lease().await.unwrap());
    assert!(lease.is_held().await.unwrap() && other_lease.is_held().await.unwrap());
    assert_eq!(pool.size(), 1);
    drop((lease, other_lease));
    save_first(&store).await;
    save_first(&other).await;
    pool.close().await;
    let error = store.load().await.unwrap_err();
    assert!(error.to_string().contains("the pool was closed"), "{error}");
}

/// A database in memory belongs to one connection, which no error of a statement may close.
#[tokio::test]
async fn a_database_in_memory_works_in_a_pool_of_one() {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy("sqlite::memory:")
        .unwrap();
    let store = patient(SqliteStore::with_pool(pool, "test").unwrap());
    assert!(store.load().await.is_err());
    store.create_table().await.unwrap();
    store_conformance(|| store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_whose_caller_has_gone_is_done_before_the_lease_is_released() {
    let database = Database::new().await;
    let store = database.store();
    save_first(&store).await;
    let mut writer = database.connection().await;
    let mut lease = store.lease().await.unwrap();
    // Keeps the save waiting.
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut writer)
        .await
        .unwrap();
    let second = sample_session(2, "second");
    let dropped = timeout(Duration::from_millis(100), lease.save(1, &second)).await;
    assert!(dropped.is_err(), "the save did not wait");
    drop(lease);
    sqlx::raw_sql("COMMIT").execute(&mut writer).await.unwrap();
    let _next = timeout(LONG, database.store().lease())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(version(&store).await, 2);
}
