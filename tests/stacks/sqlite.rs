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
    a_missing_table_is_named_and_made_by_many_at_once
    what_is_not_a_session_is_an_error_and_never_overwritten
    a_table_of_another_kind_is_an_error
    a_deleted_row_rejects_saves_and_accepts_a_new_session
    a_holder_whose_lease_ended_does_not_overwrite_a_newer_session
    a_holder_whose_lease_ended_can_save_if_no_other_has_saved
    of_two_saves_over_the_same_version_at_once_one_fails
    a_lease_is_extended_while_it_is_held_and_its_loss_is_noticed
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
