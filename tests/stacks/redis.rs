//! The Redis store with a real server, which each test starts and ends.

#[path = "support/notifications.rs"]
mod notifications;
#[path = "support/redis.rs"]
mod server;

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use server::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};
use tower_bearer::{
    EncryptedStore, EncryptionKey, RedisStore, StoreLease, TokenError, TokenErrorKind, TokenStore,
    testing::{sample_session, store_conformance},
};

/// Longer than everything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(60);

impl Server {
    /// A store with a connection of its own.
    fn store(&self) -> RedisStore {
        let url = format!("redis://127.0.0.1:{}", self.port);
        // The lease lasts longer than the wait, so that a lease that is left behind fails the test.
        RedisStore::new(&url, "test")
            .unwrap()
            .lease_timeout(Duration::from_secs(20))
            .lease_duration(LONG)
    }
}

const SESSION: &str = "tower-bearer:{test}:session";
const LEASE: &str = "tower-bearer:{test}:lease";

/// Everything that an error shows.
fn shown(error: &TokenError) -> String {
    let source = error.source().map(ToString::to_string);
    format!("{error} {error:?} {source:?}")
}

async fn save_first(store: &RedisStore) {
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &sample_session(1, "first")).await.unwrap();
    lease.release().await;
}

async fn version(store: &RedisStore) -> u64 {
    store
        .load()
        .await
        .unwrap()
        .map_or(0, |session| session.version())
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn stores_with_separate_connections_conform() {
    let server = Server::start(&[]).await;
    store_conformance(|| server.store()).await;
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn envelopes_conform_and_redis_has_no_token() {
    let server = Server::start(&[]).await;
    let key = EncryptionKey::from_bytes(&[1; 32]).unwrap();
    store_conformance(|| EncryptedStore::new(server.store(), "test", key.clone())).await;
    let stored: String = server.raw(&["GET", SESSION]).await;
    assert!(stored.starts_with("{\"format\":4,\"version\":"), "{stored}");
    assert!(!stored.contains("token"), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn clones_on_several_threads_conform() {
    let server = Server::start(&[]).await;
    let store = server.store();
    store_conformance(|| store.clone()).await;
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn the_keys_are_as_documented_and_depend_on_name_and_prefix() {
    let server = Server::start(&[]).await;
    let store = server.store();
    save_first(&store).await;
    let lease = store.lease().await.unwrap();
    let keys: Vec<String> = server.raw(&["KEYS", "*"]).await;
    assert!(
        keys.contains(&SESSION.into()) && keys.contains(&LEASE.into()),
        "{keys:?}"
    );
    let stored: String = server.raw(&["GET", SESSION]).await;
    assert!(stored.starts_with("{\"format\":3,\"version\":1,"));
    let ttl: i64 = server.raw(&["PTTL", SESSION]).await;
    assert_eq!(ttl, -1);
    let ttl: i64 = server.raw(&["PTTL", LEASE]).await;
    assert!((30_000..=60_000).contains(&ttl), "{ttl}");
    assert!(format!("{lease:?}").contains(LEASE), "{lease:?}");

    for other in [
        store.clone().key_prefix("other").unwrap(),
        store.session("other").unwrap(),
    ] {
        assert_eq!(version(&other).await, 0);
        other.lease().await.unwrap().release().await;
    }
    lease.release().await;
    let left: bool = server.raw(&["EXISTS", LEASE]).await;
    assert!(!left);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_session_is_deleted_after_its_time_to_live() {
    let server = Server::start(&[]).await;
    save_first(&server.store().session_ttl(Duration::from_secs(500))).await;
    let ttl: i64 = server.raw(&["PTTL", SESSION]).await;
    assert!((1..=500_000).contains(&ttl), "{ttl}");
    // A store without this setting saves without a time to live.
    let store = server.store();
    let mut lease = store.lease().await.unwrap();
    lease.save(1, &sample_session(2, "kept")).await.unwrap();
    let ttl: i64 = server.raw(&["PTTL", SESSION]).await;
    assert_eq!(ttl, -1);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn an_outage_is_an_error_of_each_call_until_the_server_is_back() {
    let mut server = Server::start(&[]).await;
    let store = server.store();
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    server.stop();
    let outcomes = [
        store.load().await.map(drop),
        server.store().lease().await.map(drop),
        lease.save(1, &sample_session(2, "second")).await,
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
        assert!(error.is_transient());
        assert!(
            error.to_string().contains(&server.port.to_string()),
            "{error}"
        );
    }
    server.restart().await;
    assert_eq!(version(&store).await, 1);
    lease.save(1, &sample_session(2, "second")).await.unwrap();
    assert_eq!(version(&server.store()).await, 2);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_restart_between_two_calls_fails_neither() {
    let mut server = Server::start(&[]).await;
    let store = server.store();
    save_first(&store).await;
    server.restart().await;
    assert_eq!(version(&store).await, 1);
    server.restart().await;
    let mut lease = store.lease().await.unwrap();
    server.restart().await;
    lease.save(1, &sample_session(2, "second")).await.unwrap();
    server.restart().await;
    lease.release().await;
    let left: bool = server.raw(&["EXISTS", LEASE]).await;
    assert!(!left);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_command_ends_after_its_time_limit_and_a_later_one_succeeds() {
    let server = Server::start(&[]).await;
    let store = server.store().command_timeout(Duration::from_millis(200));
    save_first(&store).await;
    let _: () = server.raw(&["CLIENT", "PAUSE", "1000", "ALL"]).await;
    let error = store.load().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(
        error.to_string().contains("did not answer within 200ms"),
        "{error}"
    );
    let back = async { while store.load().await.is_err() {} };
    timeout(LONG, back).await.unwrap();
}

/// Forwards connections to the port `server`. When `hang` is notified, the existing ones hang: neither answered nor closed.
async fn proxy(server: Arc<AtomicU16>, hang: Arc<Notify>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let (server, hang) = (server.load(Ordering::SeqCst), Arc::clone(&hang));
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = hang.notified() => std::future::pending().await,
                }
            });
        }
    });
    port
}

/// Forwards connections to `server`. When `lose` is set, it closes the next one that runs a script, before it is answered.
async fn proxy_that_loses(server: u16, lose: Arc<AtomicBool>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let lose = Arc::clone(&lose);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (mut command, mut answer) = ([0; 16_384], [0; 16_384]);
                loop {
                    tokio::select! {
                        Ok(n @ 1..) = near.read(&mut command) => {
                            far.write_all(&command[..n]).await.unwrap();
                            let is_script = command[..n].windows(4).any(|word| word == b"EVAL");
                            if is_script && lose.swap(false, Ordering::SeqCst) {
                                far.read_exact(&mut answer[..1]).await.unwrap();
                                return;
                            }
                        }
                        Ok(n @ 1..) = far.read(&mut answer) => near.write_all(&answer[..n]).await.unwrap(),
                        else => return,
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_command_whose_answer_was_lost_succeeds_when_it_is_sent_again() {
    let server = Server::start(&[]).await;
    let lose = Arc::new(AtomicBool::new(true));
    let port = proxy_that_loses(server.port, Arc::clone(&lose)).await;
    let store = RedisStore::new(&format!("redis://127.0.0.1:{port}"), "test")
        .unwrap()
        .lease_timeout(Duration::from_secs(5));
    let mut lease = store.lease().await.unwrap();
    assert!(!lose.swap(true, Ordering::SeqCst), "nothing was lost");
    lease.save(0, &sample_session(1, "first")).await.unwrap();
    assert!(!lose.swap(true, Ordering::SeqCst), "nothing was lost");
    lease.release().await;
    assert!(!lose.load(Ordering::SeqCst), "nothing was lost");
    let left: bool = server.raw(&["EXISTS", LEASE]).await;
    assert!(!left);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_connection_that_hangs_is_not_used_again() {
    let server = Server::start(&[]).await;
    let hang = Arc::new(Notify::new());
    let port = proxy(Arc::new(server.port.into()), Arc::clone(&hang)).await;
    let store = RedisStore::new(&format!("redis://127.0.0.1:{port}"), "test")
        .unwrap()
        .command_timeout(Duration::from_secs(1));
    save_first(&store).await;
    hang.notify_waiters();
    assert!(store.load().await.is_err());
    assert_eq!(version(&store).await, 1);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_server_that_lost_its_data_rejects_saves_and_accepts_a_new_session() {
    let server = Server::start(&[]).await;
    let store = server.store();
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    let _: () = server.raw(&["FLUSHALL"]).await;
    let saved = lease.save(1, &sample_session(2, "second")).await;
    assert_eq!(saved.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    assert_eq!(version(&store).await, 0);

    // The session that a process has in memory is saved again under the next lease.
    let mut next = server.store().lease().await.unwrap();
    next.save(0, &sample_session(3, "from memory"))
        .await
        .unwrap();
    assert_eq!(version(&store).await, 3);
}

/// Deletes the lease, which is what its expiry does while its holder is suspended.
async fn expire(server: &Server) {
    let expired: bool = server.raw(&["DEL", LEASE]).await;
    assert!(expired);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_holder_whose_lease_expired_does_not_overwrite_a_newer_session() {
    let server = Server::start(&[]).await;
    let (first, other) = (server.store(), server.store());
    save_first(&first).await;
    let mut expired = first.lease().await.unwrap();
    expire(&server).await;
    let mut lease = other.lease().await.unwrap();
    lease.save(1, &sample_session(2, "other")).await.unwrap();
    let before: String = server.raw(&["GET", SESSION]).await;

    let saved = expired.save(1, &sample_session(2, "first")).await;
    assert_eq!(saved.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    let after: String = server.raw(&["GET", SESSION]).await;
    assert_eq!(after, before);
    // And it does not release the lease of the other.
    expired.release().await;
    let held: bool = server.raw(&["EXISTS", LEASE]).await;
    assert!(held);
    lease.save(2, &sample_session(3, "other")).await.unwrap();
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_holder_whose_lease_expired_can_save_if_no_other_has_saved() {
    let server = Server::start(&[]).await;
    let (first, other) = (server.store(), server.store());
    save_first(&first).await;
    let mut expired = first.lease().await.unwrap();
    expire(&server).await;
    let mut lease = other.lease().await.unwrap();

    expired.save(1, &sample_session(2, "first")).await.unwrap();
    // The next holder gets the error before it has sent a refresh token.
    let marked = lease.save(1, &sample_session(2, "other")).await;
    assert_eq!(marked.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    assert_eq!(version(&other).await, 2);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn of_two_saves_over_the_same_version_at_once_one_fails() {
    let server = Server::start(&[]).await;
    let (first, other) = (server.store(), server.store());
    save_first(&first).await;
    let mut expired = first.lease().await.unwrap();
    expire(&server).await;
    let mut lease = other.lease().await.unwrap();
    for version in 1..50 {
        let ours = sample_session(version + 1, "first");
        let theirs = sample_session(version + 1, "other");
        let (a, b) = tokio::join!(expired.save(version, &ours), lease.save(version, &theirs));
        let stored: String = server.raw(&["GET", SESSION]).await;
        let (winner, late) = if a.is_ok() {
            ("first", b)
        } else {
            ("other", a)
        };
        assert_eq!(late.unwrap_err().kind(), TokenErrorKind::LeaseLost);
        assert!(stored.contains(winner), "{winner}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_lease_is_extended_while_it_is_held() {
    let server = Server::start(&[]).await;
    let holder = server.store().lease_duration(Duration::from_millis(1500));
    let lease = holder.lease().await.unwrap();
    // Only an extension makes its time to live grow.
    let grows = async {
        let mut before = i64::MAX;
        loop {
            let left: i64 = server.raw(&["PTTL", LEASE]).await;
            assert!(left > 0, "the lease has ended");
            if left > before {
                return;
            }
            before = left;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, grows).await.unwrap();
    // The lease of another owner is neither extended nor released.
    let _: () = server.raw(&["SET", LEASE, "another", "PX", "60000"]).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    lease.release().await;
    let left: i64 = server.raw(&["PTTL", LEASE]).await;
    assert!(left > 30_000, "{left}");
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_lease_that_had_ended_and_was_taken_again_is_not_taken_for_one_that_was_held_all_the_time()
 {
    let server = Server::start(&[]).await;
    let holder = server.store().lease_duration(Duration::from_millis(600));
    let lease = holder.lease().await.unwrap();
    assert!(lease.is_held().await.unwrap());
    // Another process may have had it before it is taken again.
    let _: i64 = server.raw(&["DEL", LEASE]).await;
    let taken_again = async {
        while server
            .raw::<Option<String>>(&["GET", LEASE])
            .await
            .is_none()
        {
            assert!(!lease.is_held().await.unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, taken_again).await.unwrap();
    assert!(!lease.is_held().await.unwrap());
    // It keeps others out, and is extended and released as before.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let other = server.store().lease_timeout(Duration::from_millis(50));
    other.lease().await.unwrap_err();
    lease.release().await;
    other.lease().await.unwrap().release().await;
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_last_save_releases_its_own_lease_only() {
    let server = Server::start(&[]).await;
    let store = server.store();
    for version in 0..3 {
        let (mut lapsed, _) = store.lease_and_load().await.unwrap();
        expire(&server).await;
        let lease = server.store().lease().await.unwrap();
        let session = sample_session(version + 1, "late");
        lapsed.save_and_release(version, &session).await.unwrap();
        assert!(lease.is_held().await.unwrap());
        lapsed.release().await;
        assert!(lease.is_held().await.unwrap());
        lease.release().await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_lease_that_a_save_has_released_is_neither_extended_nor_released_again() {
    let server = Server::start(&[]).await;
    let store = server.store().lease_duration(Duration::from_millis(300));
    for version in 0..2 {
        let (mut lease, _) = store.lease_and_load().await.unwrap();
        let owner: String = server.raw(&["GET", LEASE]).await;
        let session = sample_session(version + 1, "last");
        lease.save_and_release(version, &session).await.unwrap();
        assert!(!lease.is_held().await.unwrap());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let is_taken_again: bool = server.raw(&["EXISTS", LEASE]).await;
        assert!(!is_taken_again);
        // As if it were still there.
        let _: () = server.raw(&["SET", LEASE, &owner]).await;
        if version == 0 {
            lease.release().await;
        } else {
            drop(lease);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let left: Option<String> = server.raw(&["GET", LEASE]).await;
        assert_eq!(left, Some(owner));
        let _: bool = server.raw(&["DEL", LEASE]).await;
    }
}

/// Forwards connections to `server`. Answers come after `delay`.
async fn slow_proxy(server: u16, delay: Duration) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_near, &mut to_far).await });
            let (put, mut take) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
            tokio::spawn(async move {
                let mut answer = [0; 16_384];
                while let Ok(n @ 1..) = from_far.read(&mut answer).await {
                    let due = Instant::now() + delay;
                    put.send((due, answer[..n].to_vec())).unwrap();
                }
            });
            tokio::spawn(async move {
                while let Some((due, answer)) = take.recv().await {
                    tokio::time::sleep_until(due.into()).await;
                    to_near.write_all(&answer).await.unwrap();
                }
            });
        }
    });
    port
}

/// An extension takes a lease again that has ended. One that is sent after the save, and before its answer, would take the
/// lease that the save has just released.
#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_lease_is_not_extended_while_a_save_releases_it() {
    let server = Server::start(&[]).await;
    let port = slow_proxy(server.port, Duration::from_millis(300)).await;
    let store = RedisStore::new(&format!("redis://127.0.0.1:{port}"), "test")
        .unwrap()
        .lease_duration(Duration::from_secs(2));
    for version in 0..5 {
        let (mut lease, _) = store.lease_and_load().await.unwrap();
        // The extension comes two thirds of a second after the lease.
        tokio::time::sleep(Duration::from_millis(500 + version * 40)).await;
        let session = sample_session(version + 1, "last");
        lease.save_and_release(version, &session).await.unwrap();
        lease.release().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let left: Option<String> = server.raw(&["GET", LEASE]).await;
        assert_eq!(left, None);
    }
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_last_save_that_is_repeated_leaves_no_lease() {
    let server = Server::start(&[]).await;
    let store = server.store();
    let is_leased = async || server.raw::<bool>(&["EXISTS", LEASE]).await;
    let (mut lease, _) = store.lease_and_load().await.unwrap();
    let session = sample_session(1, "last");
    lease.save(0, &session).await.unwrap();
    lease.save_and_release(0, &session).await.unwrap();
    lease.release().await;
    assert!(!is_leased().await);
    let mut lease = store.lease().await.unwrap();
    let stale = lease.save_and_release(0, &sample_session(1, "stale")).await;
    assert_eq!(stale.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    assert!(is_leased().await);
}

/// A lease knows what is stored. Something else of the same version may be there, put by hand, or nothing any more.
#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_save_compares_what_is_stored_and_not_what_its_lease_has_loaded() {
    let server = Server::start(&[]).await;
    let store = server.store();
    save_first(&store).await;
    let (mut lease, _) = store.lease_and_load().await.unwrap();
    let other = serde_json::to_string(&sample_session(1, "by hand")).unwrap();
    let _: () = server.raw(&["SET", SESSION, &other]).await;
    lease.save(1, &sample_session(2, "next")).await.unwrap();
    let other = serde_json::to_string(&sample_session(3, "by hand")).unwrap();
    let _: () = server.raw(&["SET", SESSION, &other]).await;
    let saved = lease.save_and_release(2, &sample_session(3, "last")).await;
    assert_eq!(saved.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    assert_eq!(version(&store).await, 3);
    let _: () = server.raw(&["DEL", SESSION]).await;
    let saved = lease.save_and_release(3, &sample_session(4, "last")).await;
    assert_eq!(saved.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    assert!(lease.is_held().await.unwrap());
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn the_lease_of_a_dead_process_ends_by_itself() {
    let server = Server::start(&[]).await;
    let store = server.store();
    let (died, alive) = std::sync::mpsc::channel();
    // Without its runtime, the lease is neither extended nor released, as after a killed process.
    let dying = store.clone().lease_duration(Duration::from_millis(300));
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let lease = runtime.unwrap().block_on(dying.lease()).unwrap();
        died.send(()).unwrap();
        std::mem::forget(lease);
    });
    alive.recv().unwrap();
    thread.join().unwrap();
    server.store().lease().await.unwrap().release().await;
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_lease_that_could_not_be_released_ends_by_itself() {
    let mut server = Server::start(&[]).await;
    let holder = server.store().lease_duration(Duration::from_secs(2));
    let lease = holder.lease().await.unwrap();
    server.stop();
    lease.release().await;
    server.restart().await;
    server.store().lease().await.unwrap().release().await;
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_store_works_after_the_runtime_that_it_connected_in_has_ended() {
    let server = Server::start(&[]).await;
    let store = server.store();
    let first = store.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(save_first(&first));
    })
    .join()
    .unwrap();
    assert_eq!(version(&store).await, 1);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_value_that_is_not_a_session_is_an_error_and_never_overwritten() {
    let server = Server::start(&[]).await;
    let store = server.store();
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
        let _: () = server.raw(&["SET", SESSION, content]).await;
        let error = store.load().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains(SESSION), "{error}");
        assert!(!shown(&error).contains("s3cret"), "{error:?}");
        let leased = store.lease_and_load().await.err().unwrap();
        assert_eq!(leased.to_string(), error.to_string());
        let is_left: bool = server.raw(&["EXISTS", LEASE]).await;
        assert!(!is_left);
        let mut lease = store.lease().await.unwrap();
        let saved = lease.save(0, &sample_session(1, "over")).await;
        assert_eq!(saved.unwrap_err().to_string(), error.to_string());
        let left: String = server.raw(&["GET", SESSION]).await;
        assert_eq!(left, content);
        lease.release().await;
    }
    let _: () = server.raw(&["DEL", SESSION]).await;
    let _: () = server.raw(&["SADD", SESSION, "s3cret"]).await;
    let _: () = server.raw(&["CONFIG", "RESETSTAT"]).await;
    let error = store.load().await.unwrap_err();
    assert!(
        error.to_string().contains("a value that is not a string"),
        "{error}"
    );
    // It was not sent again, which would not help.
    let statistics: String = server.raw(&["INFO", "commandstats"]).await;
    assert!(statistics.contains("cmdstat_get:calls=1,"), "{statistics}");
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn the_longest_durations_are_accepted() {
    let server = Server::start(&[]).await;
    for duration in [Duration::MAX, Duration::from_millis(u64::MAX)] {
        let store = server
            .store()
            .lease_duration(duration)
            .session_ttl(duration);
        let mut lease = store.lease().await.unwrap();
        let stored = version(&store).await;
        let next = sample_session(stored + 1, "next");
        lease.save(stored, &next).await.unwrap();
        let year = 365 * 86_400_000;
        for key in [SESSION, LEASE] {
            let ttl: i64 = server.raw(&["PTTL", key]).await;
            assert!(ttl > 1_000 * year, "{ttl}");
        }
        lease.release().await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn the_error_of_a_wrong_password_shows_no_password() {
    let server = Server::start(&["--requirepass", "right-pa55"]).await;
    let store = |password: &str| {
        let url = format!("redis://{password}127.0.0.1:{}", server.port);
        RedisStore::new(&url, "test").unwrap()
    };
    for password in ["", ":wrong-pa55@", "nobody:wrong-pa55@"] {
        let error = store(password).load().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(
            error
                .to_string()
                .contains("rejected the user or the password"),
            "{error}"
        );
        assert!(!shown(&error).contains("pa55"), "{error:?}");
    }
    assert_eq!(version(&store(":right-pa55@")).await, 0);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn an_error_of_the_server_that_quotes_the_command_is_not_shown() {
    // Without EVAL, the error of Redis quotes the first arguments.
    let server = Server::start(&["--rename-command", "EVAL", ""]).await;
    let store = server.store();
    let error = store.lease().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(!shown(&error).contains("redis.call"), "{error:?}");
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_user_with_the_documented_permissions_is_enough() {
    let user = "user app on >pa55 ~tower-bearer:* +get +set +del +pexpire +eval";
    let server = Server::start(&[]).await;
    let mut command = vec!["ACL", "SETUSER"];
    command.extend(user.split(' ').skip(1));
    let _: () = server.raw(&command).await;
    let url = format!("redis://app:pa55@127.0.0.1:{}", server.port);
    let store = RedisStore::new(&url, "test").unwrap();
    save_first(&store).await;
    let holder = store.clone().lease_duration(Duration::from_millis(30));
    let mut lease = holder.lease().await.unwrap();
    lease.save(1, &sample_session(2, "second")).await.unwrap();
    lease.release().await;

    let error = store
        .key_prefix("elsewhere")
        .unwrap()
        .load()
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not permit GET: its user needs"),
        "{error}"
    );

    // A command that only the script may not use.
    let _: () = server.raw(&["ACL", "SETUSER", "app", "-set"]).await;
    let error = RedisStore::new(&url, "other").unwrap().lease().await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("EVAL") && error.contains("SET"), "{error}");
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_save_without_memory_is_an_error_and_keeps_the_old_session() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]).await;
    let store = server.store();
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    let _: () = server.raw(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = lease
        .save(1, &sample_session(2, "second"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(error.to_string().contains("no memory left"), "{error}");
    assert_eq!(version(&store).await, 1);
    let _: () = server.raw(&["CONFIG", "SET", "maxmemory", "0"]).await;
    lease.save(1, &sample_session(2, "second")).await.unwrap();
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn stores_of_several_sessions_share_one_connection() {
    let server = Server::start(&[]).await;
    let store = server.store();
    let other = store.session("other").unwrap();
    save_first(&store).await;
    save_first(&other).await;
    let clients: String = server.raw(&["CLIENT", "LIST"]).await;
    // One is that of the question.
    assert_eq!(clients.lines().count(), 2, "{clients}");
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_login_that_was_rejected_is_tried_again_at_the_next_call() {
    let server = Server::start(&["--requirepass", "old-pa55"]).await;
    let url = format!("redis://:new-pa55@127.0.0.1:{}", server.port);
    let store = RedisStore::new(&url, "test").unwrap();
    store.load().await.unwrap_err();
    let admin =
        redis::Client::open(format!("redis://:old-pa55@127.0.0.1:{}", server.port)).unwrap();
    let mut admin = admin.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "new-pa55"])
        .exec_async(&mut admin)
        .await
        .unwrap();
    assert_eq!(version(&store).await, 0);
}

#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn the_error_of_a_replica_asks_for_the_primary_until_it_is_promoted() {
    let server = Server::start(&[]).await;
    let store = server.store();
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    let _: () = server.raw(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let saved = lease.save(1, &sample_session(2, "second")).await;
    let error = saved.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(error.to_string().contains("is a replica"), "{error}");
    let _: () = server.raw(&["REPLICAOF", "NO", "ONE"]).await;
    lease.save(1, &sample_session(2, "second")).await.unwrap();
}

/// A proxy whose existing connections stay with the old primary, as those through a name do.
#[tokio::test]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_save_at_a_former_primary_is_sent_again_to_the_new_one() {
    let (former, new) = (Server::start(&[]).await, Server::start(&[]).await);
    let primary = Arc::new(AtomicU16::new(former.port));
    let port = proxy(Arc::clone(&primary), Arc::default()).await;
    let store = RedisStore::new(&format!("redis://127.0.0.1:{port}"), "test").unwrap();
    save_first(&store).await;
    let mut lease = store.lease().await.unwrap();
    save_first(&new.store()).await;
    let _: () = former.raw(&["REPLICAOF", "127.0.0.1", "1"]).await;
    primary.store(new.port, Ordering::SeqCst);
    lease.save(1, &sample_session(2, "second")).await.unwrap();
    assert_eq!(version(&new.store()).await, 2);
}

// ---------------------------------------------------------------------------------------------------------------------
// Notifications.

/// How many connections listen.
async fn listening(server: &Server) -> usize {
    let clients: String = server.raw(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    clients.lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn logins_imports_and_revocations_reach_other_processes() {
    let server = Server::start(&[]).await;
    notifications::logins_imports_and_revocations_reach_other_processes(
        || server.store(),
        async || listening(&server).await == 2,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_login_while_the_listening_connection_is_lost_is_noticed_later() {
    let server = Server::start(&[]).await;
    notifications::a_login_while_the_connection_is_lost_is_noticed_later(
        || server.store(),
        async || server.raw(&["CLIENT", "KILL", "TYPE", "pubsub"]).await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_thousand_sessions_of_a_client_share_one_listening_connection() {
    let server = Server::start(&[]).await;
    let (store, other) = (server.store(), server.store());
    let name = |n: usize| format!("session-{n}");
    // Of two applications, which have channels of their own.
    let of = |store: &RedisStore, n: usize| {
        let store = store.session(name(n)).unwrap();
        match n % 2 {
            0 => store.key_prefix("even").unwrap(),
            _ => store,
        }
    };
    notifications::one_of_many_sessions_is_told(
        |n| of(&store, n),
        |n| of(&other, n),
        async || {
            let channels: Vec<String> = server.raw(&["PUBSUB", "CHANNELS"]).await;
            channels.len() == 2
        },
    )
    .await;
    assert_eq!(listening(&server).await, 1);
    assert!(store.notifications(false).changes().is_none());
}

/// A user who may neither publish nor subscribe. The login is saved, and noticed by the next read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test redis -- --ignored"]
async fn a_server_that_forbids_notifications_saves_logins_all_the_same() {
    let server = Server::start(&[]).await;
    let user = "app on >pa55 ~tower-bearer:* +get +set +del +pexpire +eval";
    let mut command = vec!["ACL", "SETUSER"];
    command.extend(user.split(' '));
    let _: () = server.raw(&command).await;
    let url = format!("redis://app:pa55@127.0.0.1:{}", server.port);
    let store = || RedisStore::new(&url, "test").unwrap();
    let auth = notifications::auth_server();
    let direct = store().session("direct").unwrap();
    let mut lease = direct.lease().await.unwrap();
    lease.save(0, &notifications::login(&auth)).await.unwrap();
    lease.release().await;
    let dead = notifications::dead_process(&auth, store()).await;
    let other = notifications::dead_process(&auth, store()).await;
    other.login(notifications::login(&auth)).await.unwrap();
    let token = other.token().await.unwrap();
    assert!(other.status().last_error.is_none(), "it was saved");
    assert_eq!(listening(&server).await, 0);
    // Another process adopts it: the save is whole.
    let third = notifications::process(&auth, "of-long-ago", store());
    assert_eq!(third.token().await.unwrap().header(), token.header());
    dead.reset();
    assert_eq!(dead.token().await.unwrap().header(), token.header());

    // With the documented permissions, it is told.
    let more = ["+publish", "+subscribe", "&tower-bearer:*"];
    let _: () = server
        .raw(&[&["ACL", "SETUSER", "app"], &more[..]].concat())
        .await;
    notifications::logins_imports_and_revocations_reach_other_processes(
        || store().session("permitted").unwrap(),
        async || listening(&server).await == 2,
    )
    .await;
}
