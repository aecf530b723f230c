//! What the SQL stores have in common: each test here runs with each database.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::{error::Error, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tower_bearer::{
    EncryptedStore, EncryptionKey, SqlStore, StoreLease, TokenError, TokenErrorKind, TokenStore,
    testing::{sample_session, store_conformance},
};

/// Longer than everything here takes, unless it hangs.
pub const LONG: Duration = Duration::from_secs(60);

/// A database for one test.
pub trait TestDatabase {
    type Database: 'static;

    /// A store of the session `test`, with a pool of its own. The lease lasts longer than the wait, so that a lease
    /// that is left behind fails the test.
    fn store(&self) -> SqlStore<Self::Database>;

    /// Sends a statement over another connection. Returns the first column of the first row, a text.
    async fn raw(&self, sql: &str) -> Option<String>;
}

/// Settings that all stores here have.
pub fn patient<DB>(store: SqlStore<DB>) -> SqlStore<DB> {
    store
        .lease_timeout(Duration::from_secs(20))
        .lease_duration(LONG)
}

/// Everything that an error shows.
pub fn shown(error: &TokenError) -> String {
    let source = error.source().map(ToString::to_string);
    format!("{error} {error:?} {source:?}")
}

pub async fn save_first<DB: 'static>(store: &SqlStore<DB>) {
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &sample_session(1, "first")).await.unwrap();
    lease.release().await;
}

pub async fn version<DB: 'static>(store: &SqlStore<DB>) -> u64 {
    let session = store.load().await.unwrap();
    session.map_or(0, |session| session.version())
}

/// What is stored of the session, and not of its lease.
async fn stored(db: &impl TestDatabase) -> Option<String> {
    db.raw("SELECT session FROM tower_bearer_sessions WHERE name = 'test'")
        .await
}

async fn owner(db: &impl TestDatabase) -> Option<String> {
    db.raw("SELECT lease_owner FROM tower_bearer_sessions WHERE name = 'test'")
        .await
}

/// Frees the lease, as if it had ended, and another process had taken and released it.
async fn end_lease(db: &impl TestDatabase) {
    db.raw("UPDATE tower_bearer_sessions SET lease_owner = NULL, lease_until = NULL")
        .await;
}

pub async fn the_row_is_as_documented(db: &impl TestDatabase) {
    let store = db.store();
    let updated = async || {
        db.raw("SELECT CAST(updated_at AS text) FROM tower_bearer_sessions")
            .await
    };
    store.lease().await.unwrap().release().await;
    let before = updated().await.expect("the row of the lease");
    tokio::time::sleep(Duration::from_millis(20)).await;
    save_first(&store).await;
    assert_ne!(updated().await.unwrap(), before);
    let lease = store.lease().await.unwrap();
    assert!(
        stored(db)
            .await
            .unwrap()
            .starts_with("{\"format\":3,\"version\":1,")
    );
    let column = async |column: &str| {
        let sql =
            format!("SELECT CAST({column} AS text) FROM tower_bearer_sessions WHERE name = 'test'");
        db.raw(&sql).await
    };
    assert_eq!(column("version").await.as_deref(), Some("1"));
    assert!(
        column("lease_owner")
            .await
            .unwrap()
            .starts_with(&std::process::id().to_string())
    );
    for name in ["lease_until", "updated_at"] {
        assert!(column(name).await.is_some(), "{name}");
    }
    let shown = format!("{lease:?}");
    assert!(
        shown.contains("test") && shown.contains("tower_bearer_sessions"),
        "{shown}"
    );
    // The time of the last save, which a lease does not change.
    let mut lease = lease;
    for version in 1..3 {
        let before = column("updated_at").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(lease.is_held().await.unwrap());
        assert_eq!(column("updated_at").await, before);
        let next = sample_session(version + 1, "next");
        lease.save(version, &next).await.unwrap();
        assert_ne!(column("updated_at").await, before);
    }
    // Another session, and another table.
    let other = store.session("other").unwrap();
    assert_eq!(version(&other).await, 0);
    other.lease().await.unwrap().release().await;
    let elsewhere = store.clone().table("elsewhere").unwrap();
    elsewhere.create_table().await.unwrap();
    assert_eq!(version(&elsewhere).await, 0);
    elsewhere.lease().await.unwrap().release().await;
    assert_eq!(version(&store).await, 3);

    lease.release().await;
    for name in ["lease_owner", "lease_until"] {
        assert_eq!(column(name).await, None, "{name}");
    }
}

pub async fn envelopes_conform_and_the_database_has_no_token(db: &impl TestDatabase) {
    let key = EncryptionKey::from_bytes(&[1; 32]).unwrap();
    store_conformance(|| EncryptedStore::new(db.store(), "test", key.clone())).await;
    let written = stored(db).await.unwrap();
    assert!(
        written.starts_with("{\"format\":4,\"version\":"),
        "{written}"
    );
    assert!(!written.contains("token"), "{written}");
    // The statement of a save compares the version alone. Nothing is saved all the same, because nothing is loaded.
    let wrong = EncryptionKey::from_bytes(&[2; 32]).unwrap();
    let error = EncryptedStore::new(db.store(), "test", wrong).load().await;
    assert_eq!(error.unwrap_err().kind(), TokenErrorKind::Config);
}

pub async fn a_missing_table_is_named_and_made_by_many_at_once(db: &impl TestDatabase) {
    db.raw("DROP TABLE tower_bearer_sessions").await;
    for error in [
        db.store().load().await.unwrap_err(),
        db.store().lease().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(error.to_string().contains("call `create_table`"), "{error}");
    }
    let stores: Vec<_> = (0..8).map(|_| db.store()).collect();
    for _ in 0..25 {
        let mut made = JoinSet::new();
        for store in stores.clone() {
            made.spawn(async move { store.create_table().await });
        }
        while let Some(made) = made.join_next().await {
            made.unwrap().unwrap();
        }
        db.raw("DROP TABLE tower_bearer_sessions").await;
    }
    stores[0].create_table().await.unwrap();
    save_first(&db.store()).await;
    db.store().create_table().await.unwrap();
    assert_eq!(version(&db.store()).await, 1);
}

pub async fn what_is_not_a_session_is_an_error_and_never_overwritten(db: &impl TestDatabase) {
    let store = db.store();
    let cases = [
        ("", "is empty"),
        (
            "{\"refresh_token\":\"s3cret\"}",
            "not a session of this crate",
        ),
        ("{\"format\":5,\"version\":1}", "format 5"),
        ("{\"format\":1,\"version\":1,", "ends in the middle"),
    ];
    for (content, expected) in cases {
        db.raw("DELETE FROM tower_bearer_sessions").await;
        save_first(&store).await;
        db.raw(&format!(
            "UPDATE tower_bearer_sessions SET session = '{content}'"
        ))
        .await;
        let error = store.load().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!shown(&error).contains("s3cret"), "{error:?}");
        let mut lease = store.lease().await.unwrap();
        let saved = lease.save(0, &sample_session(1, "over")).await;
        assert_eq!(saved.unwrap_err().to_string(), error.to_string());
        assert_eq!(stored(db).await.as_deref(), Some(content));
        lease.release().await;
    }
    // The fence is the column, so it must say what the session says.
    db.raw("DELETE FROM tower_bearer_sessions").await;
    save_first(&store).await;
    db.raw("UPDATE tower_bearer_sessions SET version = 7").await;
    let error = store.load().await.unwrap_err();
    assert!(
        error.to_string().contains("column `version` says 7"),
        "{error}"
    );
}

pub async fn a_lease_whose_session_cannot_be_read_is_released(db: &impl TestDatabase) {
    let store = db.store();
    save_first(&store).await;
    db.raw("UPDATE tower_bearer_sessions SET session = '{\"format\":5,\"version\":1}'")
        .await;
    let error = store.lease_and_load().await.err().unwrap();
    assert!(error.to_string().contains("format 5"), "{error}");
    assert_eq!(owner(db).await, None);
    let wrong = EncryptionKey::from_bytes(&[2; 32]).unwrap();
    db.raw("UPDATE tower_bearer_sessions SET session = NULL, version = 0")
        .await;
    save_first(&store).await;
    let encrypted = EncryptedStore::new(db.store(), "test", wrong);
    let error = encrypted.lease_and_load().await.err().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert_eq!(owner(db).await, None);
}

pub async fn a_last_save_releases_its_own_lease_only(db: &impl TestDatabase) {
    let (store, other) = (db.store(), db.store());
    for version in 0..3 {
        let (mut lapsed, _) = store.lease_and_load().await.unwrap();
        end_lease(db).await;
        let lease = other.lease().await.unwrap();
        let others = owner(db).await;
        let session = sample_session(version + 1, "late");
        lapsed.save_and_release(version, &session).await.unwrap();
        assert_eq!(owner(db).await, others);
        lapsed.release().await;
        assert_eq!(owner(db).await, others);
        assert!(lease.is_held().await.unwrap());
        lease.release().await;
    }
}

pub async fn a_lease_that_a_save_has_released_is_neither_extended_nor_released_again(
    db: &impl TestDatabase,
) {
    let store = db.store().lease_duration(Duration::from_millis(300));
    for version in 0..2 {
        let (mut lease, _) = store.lease_and_load().await.unwrap();
        let id = owner(db).await.unwrap();
        let session = sample_session(version + 1, "last");
        lease.save_and_release(version, &session).await.unwrap();
        assert_eq!(owner(db).await, None);
        assert!(!lease.is_held().await.unwrap());
        // As if it were still there.
        let sql = format!("UPDATE tower_bearer_sessions SET lease_owner = '{id}'");
        db.raw(&format!("{sql}, lease_until = updated_at")).await;
        let until = "SELECT CAST(lease_until AS text) FROM tower_bearer_sessions";
        let before = db.raw(until).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(db.raw(until).await, before);
        if version == 0 {
            lease.release().await;
        } else {
            drop(lease);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(owner(db).await, Some(id));
        end_lease(db).await;
    }
}

/// The save is done, but its caller does not know it, and saves again.
pub async fn a_last_save_that_is_repeated_leaves_no_lease(db: &impl TestDatabase) {
    let store = db.store();
    let (mut lease, _) = store.lease_and_load().await.unwrap();
    let session = sample_session(1, "last");
    lease.save(0, &session).await.unwrap();
    lease.save_and_release(0, &session).await.unwrap();
    lease.release().await;
    assert_eq!(owner(db).await, None);
    let mut lease = store.lease().await.unwrap();
    let stale = lease.save_and_release(0, &sample_session(1, "stale")).await;
    assert_eq!(stale.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    assert!(lease.is_held().await.unwrap());
}

pub async fn a_table_of_another_kind_is_an_error(db: &impl TestDatabase) {
    db.raw("CREATE TABLE others (name text, version text, session integer)")
        .await;
    db.raw("INSERT INTO others VALUES ('test', 's3cret', 5)")
        .await;
    let store = db.store().table("others").unwrap();
    for error in [
        store.load().await.unwrap_err(),
        store.lease().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(error.to_string().contains("has a table"), "{error}");
        assert!(!shown(&error).contains("s3cret"), "{error:?}");
    }
}

pub async fn a_deleted_row_rejects_saves_and_accepts_a_new_session(db: &impl TestDatabase) {
    let store = db.store();
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    db.raw("DELETE FROM tower_bearer_sessions").await;
    assert!(!lease.is_held().await.unwrap());
    let saved = lease.save(1, &sample_session(2, "second")).await;
    assert_eq!(saved.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    assert_eq!(version(&store).await, 0);

    // The session that a process has in memory is saved again under the next lease.
    let mut next = db.store().lease().await.unwrap();
    next.save(0, &sample_session(3, "from memory"))
        .await
        .unwrap();
    assert_eq!(version(&store).await, 3);
}

pub async fn a_holder_whose_lease_ended_does_not_overwrite_a_newer_session(db: &impl TestDatabase) {
    let (first, other) = (db.store(), db.store());
    save_first(&first).await;
    let mut ended = first.lease().await.unwrap();
    end_lease(db).await;
    assert!(!ended.is_held().await.unwrap());
    let mut lease = other.lease().await.unwrap();
    lease.save(1, &sample_session(2, "other")).await.unwrap();
    let before = stored(db).await;

    let saved = ended.save(1, &sample_session(2, "first")).await;
    let error = saved.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LeaseLost);
    assert!(error.to_string().contains("version 2 is stored"), "{error}");
    assert_eq!(stored(db).await, before);
    // And it does not release the lease of the other.
    let held = owner(db).await;
    ended.release().await;
    assert_eq!(owner(db).await, held);
    assert!(lease.is_held().await.unwrap());
    lease.save(2, &sample_session(3, "other")).await.unwrap();
}

pub async fn a_holder_whose_lease_ended_can_save_if_no_other_has_saved(db: &impl TestDatabase) {
    let (first, other) = (db.store(), db.store());
    save_first(&first).await;
    let mut ended = first.lease().await.unwrap();
    end_lease(db).await;
    let mut lease = other.lease().await.unwrap();

    ended.save(1, &sample_session(2, "first")).await.unwrap();
    // The next holder gets the error before it has sent a refresh token.
    let marked = lease.save(1, &sample_session(2, "other")).await;
    assert_eq!(marked.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    assert_eq!(version(&other).await, 2);
}

pub async fn of_two_saves_over_the_same_version_at_once_one_fails(db: &impl TestDatabase) {
    let (first, other) = (db.store(), db.store());
    let mut ended = first.lease().await.unwrap();
    end_lease(db).await;
    let mut lease = other.lease().await.unwrap();
    for version in 0..50 {
        let ours = sample_session(version + 1, "first");
        let theirs = sample_session(version + 1, "other");
        let (a, b) = tokio::join!(ended.save(version, &ours), lease.save(version, &theirs));
        let (winner, late) = if a.is_ok() {
            ("first", b)
        } else {
            ("other", a)
        };
        assert_eq!(late.unwrap_err().kind(), TokenErrorKind::LeaseLost);
        let stored = stored(db).await.unwrap();
        assert!(stored.contains(winner), "{winner}");
    }
}

pub async fn a_lease_is_extended_while_it_is_held_and_its_loss_is_noticed(db: &impl TestDatabase) {
    let holder = db.store().lease_duration(Duration::from_secs(3));
    let lease = holder.lease().await.unwrap();
    let until = async || {
        db.raw("SELECT CAST(lease_until AS text) FROM tower_bearer_sessions")
            .await
            .expect("the lease has ended")
    };
    for _ in 0..2 {
        let extended = async {
            let before = until().await;
            while until().await == before {
                assert!(lease.is_held().await.unwrap(), "its time has ended");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, extended).await.expect("an extension");
    }
    assert!(lease.is_held().await.unwrap());
    db.raw("UPDATE tower_bearer_sessions SET lease_owner = 'another'")
        .await;
    assert!(!lease.is_held().await.unwrap());
    // The lease of another owner is neither extended nor released.
    let before = until().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    lease.release().await;
    assert_eq!(until().await, before);
    assert_eq!(owner(db).await.as_deref(), Some("another"));
}

pub async fn a_lease_whose_time_has_ended_is_not_held_until_it_is_extended(db: &impl TestDatabase) {
    let end = async || {
        db.raw("UPDATE tower_bearer_sessions SET lease_until = updated_at")
            .await
    };
    let first = db.store().lease().await.unwrap();
    end().await;
    assert!(!first.is_held().await.unwrap());
    let second = db
        .store()
        .lease_duration(Duration::from_millis(900))
        .lease()
        .await
        .unwrap();
    assert!(!first.is_held().await.unwrap());
    end().await;
    let extended = async { while !second.is_held().await.unwrap() {} };
    timeout(LONG, extended).await.expect("an extension");
    first.release().await;
    assert!(owner(db).await.is_some());
}

pub async fn the_lease_of_a_dead_process_ends_by_itself(db: &impl TestDatabase) {
    // Without its runtime, the lease is neither extended nor released, as after a killed process.
    let dying = db.store().lease_duration(Duration::from_millis(300));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let lease = runtime.unwrap().block_on(dying.lease()).unwrap();
            std::mem::forget(lease);
        });
    });
    assert!(owner(db).await.is_some());
    db.store().lease().await.unwrap().release().await;
}

pub async fn a_store_works_after_the_runtime_that_it_connected_in_has_ended(
    db: &impl TestDatabase,
) {
    let store = db.store();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(save_first(&store));
        });
    });
    assert_eq!(version(&store).await, 1);
}

/// All tasks hold the lease in turn, and no save is lost.
pub async fn tasks_that_contend_for_a_lease_get_it_one_after_the_other(db: &impl TestDatabase) {
    const TASKS: u64 = 8;
    const SAVES: u64 = 10;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = db.store();
            tokio::spawn(async move {
                for _ in 0..SAVES {
                    let mut lease = store.lease().await.unwrap();
                    let before = version(&store).await;
                    lease
                        .save(before, &sample_session(before + 1, "contended"))
                        .await
                        .unwrap();
                    assert!(lease.is_held().await.unwrap());
                    lease.release().await;
                }
            })
        })
        .collect();
    for task in tasks {
        timeout(LONG, task).await.unwrap().unwrap();
    }
    assert_eq!(version(&db.store()).await, TASKS * SAVES);
}

pub async fn a_wait_that_is_dropped_leaves_no_lease(db: &impl TestDatabase) {
    let store = db.store();
    for micros in (0..3000).step_by(60) {
        let limit = Duration::from_micros(micros);
        drop(timeout(limit, store.lease()).await);
        store.lease().await.unwrap().release().await;
    }
}
