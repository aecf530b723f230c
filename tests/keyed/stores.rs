//! Sessions with refresh tokens that rotate: what is saved when a session is dropped, and how the next one goes on.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower::{ServiceExt, service_fn};
use tower_bearer::{
    ClientAuth, FileStore, MemoryLease, MemoryStore, OAuthClient, RefreshTokenSource, Sessions,
    SessionsBuilder, StoreLease, StoredSession, TokenCache, TokenError, TokenErrorKind, TokenStore,
    testing::{AuthorizationServer, Dialect},
};

use super::cache_of;

const ENDPOINT: Duration = Duration::from_secs(10);

/// A server that ends a session whose refresh token is sent twice.
fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}

/// The source of key 0. The server takes its time.
fn source(server: &AuthorizationServer, refresh_token: &str) -> RefreshTokenSource {
    let server = server.clone();
    let slow = service_fn(move |request| {
        let server = server.clone();
        async move {
            sleep(ENDPOINT).await;
            server.oneshot(request).await
        }
    });
    let client = OAuthClient::with_transport("https://login.example.com/token", slow)
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    RefreshTokenSource::new(client, refresh_token)
}

/// Key 0 has a store. The others need none.
fn sessions(
    server: &AuthorizationServer,
    store: impl Fn() -> tower_bearer::BoxTokenStore + Send + Sync + 'static,
) -> SessionsBuilder<u64> {
    let refresh_token = server.issue_refresh_token();
    let server = server.clone();
    Sessions::builder(move |key| {
        let source = source(&server, &refresh_token).store(store());
        async move {
            Ok(if key == 0 {
                TokenCache::new(source)
            } else {
                cache_of(key)
            })
        }
    })
}

fn in_file(folder: &Path) -> impl Fn() -> tower_bearer::BoxTokenStore + Send + Sync + 'static {
    let path = folder.join("session.json");
    move || FileStore::new(&path).unwrap().boxed()
}

async fn make_others(sessions: &Sessions<u64>) {
    for key in 1..10 {
        sessions.get(&key).await.unwrap();
    }
}

/// Begins a refresh of key 0, and keeps no handle.
async fn begin_refresh(sessions: &Sessions<u64>) {
    let cache = sessions.get(&0).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(1), cache.token()).await;
    assert!(first.is_err(), "the server takes its time");
}

#[tokio::test(start_paused = true)]
async fn a_running_refresh_ends_and_is_saved_before_its_session_is_evicted() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server());
    let sessions = sessions(&server, in_file(folder.path()))
        .capacity(1)
        .idle_timeout(Duration::from_secs(1))
        .build();
    begin_refresh(&sessions).await;
    make_others(&sessions).await;
    sleep(ENDPOINT / 2).await;
    assert!(sessions.peek(&0).unwrap().status().refreshing);
    sleep(ENDPOINT).await;
    make_others(&sessions).await;
    assert!(sessions.peek(&0).is_none());
    assert_eq!(server.refreshes(), 1);

    // The next one has the token from the file, and its next refresh sends the rotated refresh token.
    let next = sessions.get(&0).await.unwrap();
    next.token().await.unwrap();
    assert_eq!(server.refreshes(), 1);
    next.refresh().await.unwrap();
    assert_eq!((server.refreshes(), server.reuse_detected()), (2, 0));
    assert_eq!(server.live_sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_running_refresh_ends_and_is_saved_before_its_session_is_removed() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server());
    let sessions = sessions(&server, in_file(folder.path())).build();
    begin_refresh(&sessions).await;
    let begun = Instant::now();
    sessions.remove(&0).await.unwrap();
    assert!(begun.elapsed() + Duration::from_secs(1) >= ENDPOINT);
    assert!(sessions.is_empty());
    assert_eq!(server.refreshes(), 1);

    let next = sessions.get(&0).await.unwrap();
    next.token().await.unwrap();
    assert_eq!(server.refreshes(), 1);
    next.refresh().await.unwrap();
    assert_eq!((server.refreshes(), server.reuse_detected()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_dropped_removes_nothing() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server());
    let sessions = sessions(&server, in_file(folder.path())).build();
    begin_refresh(&sessions).await;
    let removal = tokio::time::timeout(Duration::from_secs(1), sessions.remove(&0)).await;
    assert!(removal.is_err());
    assert!(sessions.peek(&0).unwrap().status().refreshing);
    sleep(ENDPOINT).await;
    sessions.get(&0).await.unwrap().refresh().await.unwrap();
    assert_eq!((server.refreshes(), server.reuse_detected()), (2, 0));
}

/// A durable store that can fail.
#[derive(Clone, Default)]
struct Store {
    kept: MemoryStore,
    fails: Arc<AtomicBool>,
}

struct Lease(MemoryLease, Arc<AtomicBool>);

impl TokenStore for Store {
    type Lease = Lease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.kept.load().await
    }

    async fn lease(&self) -> Result<Lease, TokenError> {
        Ok(Lease(self.kept.lease().await?, Arc::clone(&self.fails)))
    }
}

impl StoreLease for Lease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(TokenError::new(TokenErrorKind::Store, "the disk is full"));
        }
        self.0.save(replaces, session).await
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.0.is_held().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_saved_stays_in_memory_until_it_is_saved() {
    let (store, server) = (Store::default(), server());
    let boxed = store.clone();
    let sessions = sessions(&server, move || boxed.clone().boxed())
        .capacity(1)
        .idle_timeout(Duration::from_secs(4))
        .build();
    begin_refresh(&sessions).await;
    // After the mark that a refresh begins. Without it, nothing is sent.
    store.fails.store(true, Ordering::Relaxed);
    let token = sessions.get(&0).await.unwrap().token().await.unwrap();
    let header = token.header().clone();
    drop(token);
    for _ in 0..10 {
        make_others(&sessions).await;
        let error = sessions.remove(&0).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store);
        sleep(Duration::from_secs(10)).await;
        let kept = sessions.peek(&0).expect("it is kept");
        assert_eq!(*kept.peek().unwrap().header(), header);
    }

    store.fails.store(false, Ordering::Relaxed);
    // It is saved in the background within 5 seconds, and then it is idle.
    sleep(Duration::from_secs(11)).await;
    assert!(sessions.peek(&0).is_none());
    let next = sessions.get(&0).await.unwrap();
    assert_eq!(*next.token().await.unwrap().header(), header);
    next.refresh().await.unwrap();
    assert_eq!((server.refreshes(), server.reuse_detected()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn two_keys_with_the_same_store_are_an_error_if_their_sessions_have_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.json");
    let server = server();
    let logins = [server.issue_refresh_token(), server.issue_refresh_token()];
    let sessions = Sessions::new(move |key: usize| {
        let source = source(&server, &logins[key]).session_name(format!("user-{key}"));
        let store = FileStore::new(&path);
        async move { Ok(TokenCache::new(source.store(store?))) }
    });
    let first = sessions.get(&0).await.unwrap();
    let token = first.token().await.unwrap();
    let second = sessions.get(&1).await.unwrap();
    let error = second.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config, "{error}");
    assert_eq!(first.token().await.unwrap().header(), token.header());
}
