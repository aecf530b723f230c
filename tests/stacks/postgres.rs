//! The store in Postgres with a real server, which each test starts and ends.

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/notifications.rs"]
mod notifications;
#[path = "support/postgres.rs"]
mod server;
#[path = "support/sql.rs"]
mod sql;

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use certificates::certificates;
use server::{Server, as_account};
use sql::{LONG, TestDatabase, patient, save_first, shown, version};
use sqlx::{AssertSqlSafe, Connection, PgPool, Postgres, Row, postgres::PgPoolOptions};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_bearer::{
    ClientAuth, OAuthClient, PostgresStore, RefreshTokenSource, Schedule, SqlStore, StoreLease,
    TokenCache, TokenErrorKind, TokenStore,
    testing::{AuthorizationServer, Dialect, sample_session, store_conformance},
};

async fn server() -> Server {
    server_with(&[]).await
}

async fn server_with(settings: &[&str]) -> Server {
    let server = Server::start(settings).await;
    server.store().create_table().await.unwrap();
    server
}

impl TestDatabase for Server {
    type Database = Postgres;

    fn store(&self) -> SqlStore<Postgres> {
        patient(PostgresStore::new(&self.url(), "test").unwrap())
    }

    async fn raw(&self, sql: &str) -> Option<String> {
        Server::raw(self, sql).await
    }
}

macro_rules! shared_tests {
    ($($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
        async fn $name() {
            sql::$name(&server().await).await;
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
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn stores_with_separate_pools_conform() {
    let server = server().await;
    store_conformance(|| server.store()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn clones_on_several_threads_conform() {
    let server = server().await;
    let store = server.store();
    store_conformance(|| store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn stores_conform_in_serializable_transactions() {
    let server = server_with(&["default_transaction_isolation=serializable"]).await;
    store_conformance(|| server.store()).await;
    server.raw("DELETE FROM tower_bearer_sessions").await;
    sql::tasks_that_contend_for_a_lease_get_it_one_after_the_other(&server).await;
}

// ---------------------------------------------------------------------------------------------------------------------
// Outages.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn an_outage_is_an_error_of_each_call_until_the_server_is_back() {
    let mut server = server().await;
    let store = server.store().command_timeout(Duration::from_millis(500));
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    server.kill();
    let other = server.store().command_timeout(Duration::from_millis(500));
    let outcomes = [
        store.load().await.map(drop),
        other.lease().await.map(drop),
        lease.save(1, &sample_session(2, "second")).await,
    ];
    let error = lease.is_held().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
        assert!(error.is_transient());
        let folder = server.folder().display().to_string();
        assert!(error.to_string().contains(&folder), "{error}");
        assert!(error.to_string().contains("was not reached"), "{error}");
    }
    server.restart().await;
    assert_eq!(version(&store).await, 1);
    assert!(lease.is_held().await.unwrap());
    lease.save(1, &sample_session(2, "second")).await.unwrap();
    // Also with a store that was made while the server was down.
    assert_eq!(version(&other).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_restart_between_two_calls_fails_neither() {
    let mut server = server().await;
    let store = server.store();
    save_first(&store).await;
    // Several connections of the pool are broken after each restart.
    let loads = tokio::join!(store.load(), store.load(), store.load());
    assert!(loads.0.is_ok() && loads.1.is_ok() && loads.2.is_ok());
    server.restart().await;
    assert_eq!(version(&store).await, 1);
    // A pool that gives broken connections away.
    let options = PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let unchecked = options.connect_lazy_with(server.url().parse().unwrap());
    let unchecked = PostgresStore::with_pool(unchecked, "test").unwrap();
    assert_eq!(version(&unchecked).await, 1);
    server.restart().await;
    assert_eq!(version(&unchecked).await, 1);
    server.restart().await;
    let mut lease = store.lease().await.unwrap();
    server.restart().await;
    lease.save(1, &sample_session(2, "second")).await.unwrap();
    server.restart().await;
    lease.release().await;
    assert_eq!(
        server
            .raw("SELECT lease_owner FROM tower_bearer_sessions")
            .await,
        None
    );
}

/// Without the setting of the save, a server with `synchronous_commit = off` loses what it has committed last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_save_that_has_returned_survives_a_killed_server() {
    let mut server = server_with(&["synchronous_commit=off", "wal_writer_delay=10s"]).await;
    server.raw("CREATE TABLE others (n text)").await;
    let store = server.store();
    let mut lost = 0;
    for round in 0..5 {
        let mut lease = store.lease().await.unwrap();
        let before = version(&store).await;
        assert_eq!(before, round);
        lease
            .save(before, &sample_session(before + 1, "kept"))
            .await
            .unwrap();
        server.raw("INSERT INTO others VALUES ('lost')").await;
        server.restart().await;
        assert_eq!(version(&store).await, before + 1);
        lease.release().await;
        let others = server
            .raw("SELECT CAST(count(*) AS text) FROM others")
            .await
            .unwrap();
        lost += u32::from(others == "0");
        server.raw("DELETE FROM others").await;
    }
    assert!(
        lost > 0,
        "the server loses nothing, so this test shows nothing"
    );
}

/// What was saved is never less than what a save has confirmed, nor more than what was to be saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_server_that_is_killed_during_saves_has_the_old_session_or_the_new_one() {
    let mut server = server_with(&["synchronous_commit=off", "wal_writer_delay=10s"]).await;
    let store = server.store();
    let stop = Arc::new(AtomicBool::new(false));
    let saving = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut lease = store.lease().await.unwrap();
            let mut confirmed = 0;
            while !stop.load(Ordering::SeqCst) {
                match lease
                    .save(confirmed, &sample_session(confirmed + 1, "next"))
                    .await
                {
                    Ok(()) => confirmed += 1,
                    // Whether it was saved is not known. The same save can be repeated.
                    Err(error) if error.kind() == TokenErrorKind::Store => {}
                    Err(error) => panic!("version {confirmed}: {error}"),
                }
            }
            lease.release().await;
            confirmed
        }
    });
    let mut before = 0;
    for _ in 0..8 {
        sleep(Duration::from_millis(fastrand::u64(20..300))).await;
        server.restart().await;
        let after = version(&server.store()).await;
        assert!(after >= before, "{after} after {before}");
        before = after;
    }
    stop.store(true, Ordering::SeqCst);
    let confirmed = saving.await.unwrap();
    // If the last save has failed, it may have been done.
    let stored = version(&server.store()).await;
    assert!(
        (confirmed..=confirmed + 1).contains(&stored),
        "{stored} after {confirmed}"
    );
    assert!(confirmed > 8, "{confirmed} saves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_statement_ends_after_its_time_limit_and_gives_its_place_in_the_pool_back() {
    let server = server().await;
    save_first(&server.store()).await;
    let url = server.url().parse().unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(url);
    let store = PostgresStore::with_pool(pool, "test")
        .unwrap()
        .command_timeout(Duration::from_millis(200));
    let mut locking = server.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE tower_bearer_sessions")
        .execute(&mut locking)
        .await
        .unwrap();
    for _ in 0..3 {
        let error = store.load().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(
            error.to_string().contains("did not answer in time"),
            "{error}"
        );
    }
    locking.close().await.unwrap();
    let back = async { while store.load().await.is_err() {} };
    timeout(LONG, back).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_pool_without_a_free_connection_and_a_closed_one_are_named() {
    let server = server().await;
    let url = server.url().parse().unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(url);
    let store = PostgresStore::with_pool(pool.clone(), "test")
        .unwrap()
        .command_timeout(Duration::from_millis(300));
    let taken = pool.acquire().await.unwrap();
    let error = store.load().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(
        error
            .to_string()
            .contains("all 1 connections of the pool are in use"),
        "{error}"
    );
    drop(taken);
    assert_eq!(version(&store).await, 0);
    pool.close().await;
    let error = store.load().await.unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().contains("the pool was closed"), "{error}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Users and errors.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn the_error_of_a_wrong_password_shows_no_password() {
    let server = server().await;
    server.raw("ALTER USER app PASSWORD 'right-pa55'").await;
    let rules = server.folder().join("data/pg_hba.conf");
    std::fs::write(rules, "local all all scram-sha-256\n").unwrap();
    let mut admin = server.connection().await;
    sqlx::raw_sql("SELECT pg_reload_conf()")
        .execute(&mut admin)
        .await
        .unwrap();
    let (host, port) = (server.folder().display(), server.port);
    let store = |password: &str| {
        let url = format!("postgres://app:{password}@localhost:{port}/postgres?host={host}");
        PostgresStore::new(&url, "test").unwrap()
    };
    let rejected = async {
        loop {
            if let Err(error) = store("wrong-pa55").load().await {
                return error;
            }
        }
    };
    let error = timeout(LONG, rejected).await.unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(
        error
            .to_string()
            .contains("rejected the user or the password"),
        "{error}"
    );
    assert!(!shown(&error).contains("pa55"), "{error:?}");
    assert_eq!(version(&store("right-pa55")).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_server_with_a_certificate_is_reached_over_tls_and_one_with_another_is_not() {
    let mut server = server().await;
    let [authority, certificate, key] = certificates();
    server.write("authority.pem", &authority);
    server.write("certificate.pem", &certificate);
    server.write("key.pem", &key);
    let [other, ..] = certificates();
    server.write("other.pem", &other);
    let folder = server.folder().display().to_string();
    server.set(&[
        "listen_addresses=127.0.0.1",
        "ssl=on",
        &format!("ssl_cert_file={folder}/certificate.pem"),
        &format!("ssl_key_file={folder}/key.pem"),
    ]);
    server.write(
        "data/pg_hba.conf",
        "local all all trust\nhostssl all all 127.0.0.1/32 trust\n",
    );
    server.restart().await;
    let store = |parameters: &str| {
        let url = format!(
            "postgres://app@127.0.0.1:{}/postgres?{parameters}",
            server.port
        );
        PostgresStore::new(&url, "test").unwrap()
    };
    save_first(&store(&format!(
        "sslmode=verify-full&sslrootcert={folder}/authority.pem"
    )))
    .await;
    for parameters in [
        format!("sslmode=verify-full&sslrootcert={folder}/other.pem"),
        "sslmode=verify-ca".into(),
    ] {
        let error = store(&parameters).load().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(
            error.to_string().contains("did not agree on TLS"),
            "{error}"
        );
    }
    let error = store("sslmode=verify-full&sslrootcert=/nothing.pem")
        .load()
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a certificate or key of the URL, is not there"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_user_with_the_documented_permissions_is_enough() {
    let server = server().await;
    let mut admin = server.connection().await;
    let sql = "CREATE USER other; REVOKE CREATE ON SCHEMA public FROM public; \
               GRANT SELECT ON tower_bearer_sessions TO other";
    sqlx::raw_sql(sql).execute(&mut admin).await.unwrap();
    let url = server.url().replace("user=app", "user=other");
    let store = PostgresStore::new(&url, "test").unwrap();
    let error = store.lease().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("its user needs SELECT, INSERT and UPDATE"),
        "{error}"
    );

    let sql = "GRANT INSERT, UPDATE ON tower_bearer_sessions TO other";
    sqlx::raw_sql(sql).execute(&mut admin).await.unwrap();
    // The table is there, so it needs no right to make it.
    store.create_table().await.unwrap();
    save_first(&store).await;
    let mut lease = store
        .clone()
        .lease_duration(Duration::from_millis(30))
        .lease()
        .await
        .unwrap();
    lease.save(1, &sample_session(2, "second")).await.unwrap();
    lease.release().await;
    let error = store
        .table("elsewhere")
        .unwrap()
        .create_table()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("does not permit"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn an_error_of_the_server_that_quotes_the_session_is_not_shown() {
    let server = server().await;
    let store = server.store();
    let mut lease = store.lease().await.unwrap();
    server
        .raw("ALTER TABLE tower_bearer_sessions ADD CHECK (session NOT LIKE '%s3cret%')")
        .await;
    let error = lease
        .save(0, &sample_session(1, "s3cret"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    // The server quotes the beginning of what was to be stored.
    assert!(server.log().contains("{\"format\":3,\"version\":1,"));
    assert!(!shown(&error).contains("format\\\":3") && !shown(&error).contains("format\":3"));
    let error = PostgresStore::new(&server.url().replace("/postgres?", "/nothing?"), "test");
    let error = error.unwrap().load().await.unwrap_err();
    assert!(
        error.to_string().contains("has no database of this name"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_server_that_accepts_no_writes_is_named_until_it_does() {
    let server = server().await;
    let store = server.store();
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    let read_only = async |value: &str| {
        let mut admin = server.connection().await;
        let allow = "SET default_transaction_read_only = off";
        let set = "ALTER DATABASE postgres SET default_transaction_read_only = ";
        for sql in [allow.to_owned(), format!("{set}{value}")] {
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut admin)
                .await
                .unwrap();
        }
    };
    read_only("on").await;
    // The pool has connections from before, which may write.
    let pid = "SELECT CAST(count(pg_terminate_backend(pid)) AS text) FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND datname = 'postgres'";
    server.raw(pid).await;
    let error = lease
        .save(1, &sample_session(2, "second"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(error.to_string().contains("accepts no writes"), "{error}");
    // A source goes on from memory as long as no other process can take the lease.
    assert!(lease.is_held().await.unwrap());
    read_only("off").await;
    // The connection that could not write is not used again.
    lease.save(1, &sample_session(2, "second")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_wait_for_a_lease_writes_nothing_and_has_a_time_limit() {
    let server = server_with(&["autovacuum=off"]).await;
    let held = server.store().lease().await.unwrap();
    // The number of the next transaction that writes.
    let next = async || {
        server
            .raw("SELECT CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text)")
            .await
    };
    let before = next().await;
    let waiting = server.store().lease_timeout(Duration::from_millis(500));
    let error = waiting.lease().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert!(
        error
            .to_string()
            .contains("\"test\" in table tower_bearer_sessions"),
        "{error}"
    );
    assert_eq!(next().await, before);
    held.release().await;
    assert_ne!(next().await, before);
}

// ---------------------------------------------------------------------------------------------------------------------
// Poolers, and many sessions.

/// The statements in the log that read or write sessions, as `<name of the prepared statement>: <SQL>`.
fn executed(server: &Server) -> Vec<String> {
    let log = server.log();
    let executed = log
        .lines()
        .filter_map(|line| line.split_once("execute ").map(|(_, rest)| rest.to_owned()));
    executed
        .filter(|statement| statement.contains("tower_bearer_sessions"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn with_transaction_pooling_each_statement_is_unnamed_and_in_a_transaction() {
    let server = server_with(&["log_statement=all", "log_line_prefix=[%p] "]).await;
    let store = server.store();
    save_first(&store).await;
    assert!(
        executed(&server)
            .iter()
            .any(|statement| statement.starts_with("sqlx_s_"))
    );

    let before = server.log().len();
    let store = server.store().transaction_pooling(true);
    store_conformance(|| store.session("unnamed").unwrap()).await;
    let log = server.log().split_off(before);
    let mut last = BTreeMap::new();
    let mut count = 0;
    for line in log.lines().filter(|line| line.contains("LOG:")) {
        let (process, statement) = line.split_once("] LOG:").unwrap();
        if statement.contains("tower_bearer_sessions") {
            assert!(statement.contains("execute <unnamed>: "), "{statement}");
            let before: &String = &last[process];
            assert!(before.contains("statement: BEGIN"), "{before}");
            count += 1;
        }
        last.insert(process.to_owned(), statement.to_owned());
    }
    assert!(count > 100, "{count} statements");
}

/// PgBouncer in transaction mode, with fewer connections to the server than it has clients.
struct PgBouncer(Child);

impl PgBouncer {
    async fn start(server: &Server) -> (Self, String) {
        let (folder, port) = (server.folder(), 6432);
        let settings = format!(
            "[databases]\npostgres = host={0} port={1} user=app\n[pgbouncer]\nlisten_addr =\nlisten_port = {port}\n\
             unix_socket_dir = {0}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n",
            folder.display(),
            server.port
        );
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new("pgbouncer");
        command
            .arg("-q")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It does not run as root.
        as_account(&mut command);
        let process = Self(command.spawn().expect("PgBouncer is installed"));
        let url = format!(
            "postgres:///postgres?host={}&port={port}&user=app",
            folder.display()
        );
        let up = async {
            while PostgresStore::new(&url, "test")
                .unwrap()
                .transaction_pooling(true)
                .load()
                .await
                .is_err()
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, up)
            .await
            .expect("PgBouncer did not start in time");
        (process, url)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql and pgbouncer: cargo test -p stack-tests --test postgres -- --ignored"]
async fn stores_conform_through_pgbouncer_in_transaction_mode() {
    let server = server().await;
    let (_pgbouncer, url) = PgBouncer::start(&server).await;
    let store = || patient(PostgresStore::new(&url, "test").unwrap()).transaction_pooling(true);
    store_conformance(store).await;
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let store = store().session(format!("session-{}", n % 2)).unwrap();
        tasks.spawn(async move {
            for _ in 0..20 {
                let mut lease = store.lease().await.unwrap();
                let before = version(&store).await;
                lease
                    .save(before, &sample_session(before + 1, "pooled"))
                    .await
                    .unwrap();
                assert!(lease.is_held().await.unwrap());
                lease.release().await;
            }
        });
    }
    tasks.join_all().await;
    for n in 0..2 {
        let store = store().session(format!("session-{n}")).unwrap();
        assert_eq!(version(&store).await, 80);
    }
}

/// Many sessions over few connections, and the statements that each refresh takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_thousand_sessions_share_five_connections_and_refresh_with_four_statements_each() {
    const SESSIONS: usize = 1000;
    let server = server_with(&["shared_preload_libraries=pg_stat_statements"]).await;
    server.raw("CREATE EXTENSION pg_stat_statements").await;
    let options = server.url().parse().unwrap();
    let pool: PgPool = PgPoolOptions::new()
        .max_connections(5)
        .connect_lazy_with(options);
    let store = PostgresStore::with_pool(pool.clone(), "all")
        .unwrap()
        // No lease is extended, however slow this machine is.
        .lease_duration(10 * LONG)
        .command_timeout(LONG);
    let tokens = AuthorizationServer::new(Dialect::Rfc6749).detect_reuse(true);
    let sessions: Vec<TokenCache> = (0..SESSIONS)
        .map(|n| {
            let (id, secret) = (
                AuthorizationServer::CLIENT_ID,
                AuthorizationServer::CLIENT_SECRET,
            );
            let client =
                OAuthClient::with_transport("https://login.example.com/token", tokens.clone())
                    .unwrap()
                    .client_auth(ClientAuth::client_secret_basic(id, secret));
            let source = RefreshTokenSource::new(client, tokens.issue_refresh_token());
            TokenCache::builder(source.store(store.session(format!("session-{n}")).unwrap()))
                .max_wait(LONG)
                .schedule(Schedule::default().min_interval(Duration::from_millis(1)))
                .build()
        })
        .collect();
    // Without the one `LISTEN` of the process, and without the questions whether a lease is still held, which only a slow
    // machine asks.
    let counts = async || {
        let mut connection = server.connection().await;
        let sql = "SELECT CASE WHEN query LIKE 'SELECT%' THEN 'SELECT' WHEN query LIKE 'INSERT%' THEN 'INSERT' \
                   ELSE 'UPDATE' END, CAST(sum(calls) AS bigint) FROM pg_stat_statements \
                   WHERE query LIKE '%\"tower_bearer_sessions\"%' AND query NOT LIKE 'CREATE%' \
                   AND query NOT LIKE 'LISTEN%' AND query NOT LIKE 'SELECT version FROM%' GROUP BY 1";
        let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
        sqlx::raw_sql("SELECT pg_stat_statements_reset()")
            .execute(&mut connection)
            .await
            .unwrap();
        let counts = rows.iter().map(|row| (row.get(0), row.get(1)));
        counts.collect::<BTreeMap<String, i64>>()
    };
    counts().await;
    let sessions_count = i64::try_from(SESSIONS).unwrap();
    // Of four statements, one is the lease, and a first save of each session is an INSERT as well.
    for (round, expected) in [(1, [1, 2, 1]), (2, [1, 1, 2])] {
        let began = Instant::now();
        let mut refreshes = JoinSet::new();
        for session in sessions.clone() {
            refreshes.spawn(async move {
                if round == 2 {
                    session.reject(&session.token().await.unwrap());
                }
                session.token().await.unwrap()
            });
        }
        let mut most = 0;
        while let Some(token) = refreshes.join_next().await {
            token.unwrap();
            most = most.max(pool.size());
        }
        let counts = counts().await;
        println!(
            "round {round}: {counts:?} in {:?}, at most {most} connections",
            began.elapsed()
        );
        let expected = ["SELECT", "INSERT", "UPDATE"]
            .map(str::to_owned)
            .into_iter()
            .zip(expected);
        let expected: BTreeMap<String, i64> = expected
            .map(|(name, n)| (name, n * sessions_count))
            .collect();
        assert_eq!(counts, expected);
        assert!(most <= 5);
    }
    assert_eq!(tokens.reuse_detected(), 0);
    assert_eq!(tokens.refreshes(), 2 * SESSIONS);
}

// ---------------------------------------------------------------------------------------------------------------------
// Notifications.

/// How many connections listen.
async fn listening(server: &Server) -> usize {
    let sql = "SELECT CAST(count(*) AS text) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    server.raw(sql).await.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn logins_imports_and_revocations_reach_other_processes() {
    let server = server().await;
    notifications::logins_imports_and_revocations_reach_other_processes(
        || server.store(),
        async || listening(&server).await == 2,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_login_while_the_listening_connection_is_lost_is_noticed_later() {
    let server = server().await;
    let kill = "SELECT CAST(count(pg_terminate_backend(pid)) AS text) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    notifications::a_login_while_the_connection_is_lost_is_noticed_later(
        || server.store(),
        async || server.raw(kill).await.unwrap().parse().unwrap(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_thousand_sessions_of_a_pool_share_one_listening_connection() {
    let server = server().await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(server.url().parse().unwrap());
    let first = PostgresStore::with_pool(pool.clone(), "first").unwrap();
    let name = |n: usize| format!("session-{n}");
    notifications::one_of_many_sessions_is_told(
        // Made from a store, and from a clone of the pool.
        |n| match n % 2 {
            0 => first.session(name(n)).unwrap(),
            _ => PostgresStore::with_pool(pool.clone(), name(n)).unwrap(),
        },
        |n| server.store().session(name(n)).unwrap(),
        async || listening(&server).await > 0,
    )
    .await;
    assert_eq!(listening(&server).await, 1);
    // It is none of the pool's, which has one.
    assert_eq!(version(&first).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn a_store_that_cannot_or_shall_not_listen_does_not() {
    let server = server().await;
    assert!(server.store().notifications(false).changes().is_none());
    assert!(server.store().transaction_pooling(true).changes().is_none());
    let pool = PgPoolOptions::new().connect_lazy_with(server.url().parse().unwrap());
    let store = PostgresStore::with_pool(pool.clone(), "test").unwrap();
    let mut changes = store.changes().unwrap();
    timeout(LONG, async { while listening(&server).await == 0 {} })
        .await
        .unwrap();
    // Saves through a pooler notify all the same.
    let pooled = server.store().transaction_pooling(true);
    let mut lease = pooled.lease().await.unwrap();
    let login = notifications::login(&notifications::auth_server());
    lease.save(0, &login).await.unwrap();
    timeout(LONG, changes.changed()).await.unwrap().unwrap();
    pool.close().await;
    assert!(store.changes().is_none());
}

/// A table with a name that is too long for a channel, in a schema.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test postgres -- --ignored"]
async fn sessions_of_another_table_with_a_long_name_are_listened_for() {
    let server = server().await;
    server.raw("CREATE SCHEMA auth").await;
    let table = format!("auth.{}", "t".repeat(63));
    let store = || server.store().table(&table).unwrap();
    store().create_table().await.unwrap();
    let mut changes = store().changes().unwrap();
    timeout(LONG, async { while listening(&server).await == 0 {} })
        .await
        .unwrap();
    let store = store();
    let mut lease = store.lease().await.unwrap();
    let login = notifications::login(&notifications::auth_server());
    lease.save(0, &login).await.unwrap();
    timeout(LONG, changes.changed()).await.unwrap().unwrap();
}
