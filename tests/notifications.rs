//! Stores that tell other processes of a login, an import or a revocation: running processes notice it within seconds.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::Instant, time::sleep};
use tower_bearer::{
    ClientAuth, ClientCredentialsSource, ExchangeTokenSource, Identity, MemoryLease, MemoryStore,
    OAuthClient, RefreshTokenSource, StoreLease, StoredSession, Token, TokenCache, TokenContext,
    TokenError, TokenErrorKind, TokenSource, TokenStore, source_fn,
    testing::{AuthorizationServer, Dialect, Fault},
};

use support::TOKEN_URL;

const SECOND: Duration = Duration::from_secs(1);

/// Longer than a notification takes to have an effect.
const SOON: Duration = Duration::from_secs(3);

/// A memory store that notifies, and counts what is asked of it.
#[derive(Clone)]
struct Notifying {
    inner: MemoryStore,
    changes: Arc<Mutex<Option<watch::Sender<()>>>>,
    asked: Arc<AtomicUsize>,
    loads: Arc<Mutex<Vec<Instant>>>,
}

impl Notifying {
    fn new() -> Self {
        Self {
            inner: MemoryStore::new(),
            changes: Arc::new(Mutex::new(Some(watch::Sender::new(())))),
            asked: Arc::default(),
            loads: Arc::default(),
        }
    }

    fn notify(&self) {
        if let Some(changes) = &*self.changes.lock().unwrap() {
            changes.send_replace(());
        }
    }

    fn loads(&self) -> usize {
        self.loads.lock().unwrap().len()
    }

    async fn session(&self) -> StoredSession {
        self.inner.load().await.unwrap().unwrap()
    }
}

impl TokenStore for Notifying {
    type Lease = NotifyingLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.loads.lock().unwrap().push(Instant::now());
        self.inner.load().await
    }

    async fn lease(&self) -> Result<NotifyingLease, TokenError> {
        Ok(NotifyingLease(self.inner.lease().await?, self.clone()))
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let changes = self.changes.lock().unwrap();
        changes.as_ref().map(watch::Sender::subscribe)
    }
}

struct NotifyingLease(MemoryLease, Notifying);

impl StoreLease for NotifyingLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        self.0.save(replaces, session).await?;
        if session.should_notify() {
            self.1.notify();
        }
        Ok(())
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.0.is_held().await
    }
}

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}

fn client(server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::with_transport(TOKEN_URL, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ))
        .revocation_url("https://login.example.com/revoke")
        .unwrap()
}

fn process(server: &AuthorizationServer, configured: &str, store: &Notifying) -> TokenCache {
    let source = RefreshTokenSource::new(client(server), configured);
    TokenCache::new(source.store(store.clone()))
}

async fn dead_process(server: &AuthorizationServer, store: &Notifying) -> TokenCache {
    let cache = process(server, "a-refresh-token-of-long-ago", store);
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    cache
}

fn login(server: &AuthorizationServer) -> StoredSession {
    let token = server.issue_refresh_token();
    StoredSession::new(Identity::new("refresh", &token)).with_refresh_token(token)
}

/// Without a request, which would make the cache look.
#[track_caller]
fn assert_same_token(caches: &[TokenCache]) {
    let tokens: Vec<Token> = caches
        .iter()
        .map(|it| it.peek().expect("no token"))
        .collect();
    for token in &tokens {
        assert_eq!(token.header(), tokens[0].header());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_goes_on_without_a_request_when_another_one_logs_in() {
    let (server, store) = (server(), Notifying::new());
    let dead = dead_process(&server, &store).await;
    let other = dead_process(&server, &store).await;
    let requests = server.token_requests();
    other.login(login(&server)).await.unwrap();
    sleep(SOON).await;
    assert!(dead.peek().is_some());
    other.token().await.unwrap();
    assert_same_token(&[dead, other]);
    assert_eq!(server.token_requests(), requests + 1);
}

#[tokio::test(start_paused = true)]
async fn a_living_process_goes_on_with_the_session_of_the_login() {
    let (server, store) = (server(), Notifying::new());
    let configured = server.issue_refresh_token();
    let caches: Vec<_> = (0..5)
        .map(|_| process(&server, &configured, &store))
        .collect();
    for cache in &caches {
        cache.token().await.unwrap();
    }
    let before = caches[0].peek().unwrap();
    caches[4].login(login(&server)).await.unwrap();
    sleep(SOON).await;
    caches[4].token().await.unwrap();
    assert_same_token(&caches);
    assert_ne!(caches[0].peek().unwrap().header(), before.header());
    assert_eq!(server.token_requests(), 2);
    // They have adopted it, and so did not count it as an attempt.
    assert!(
        caches
            .iter()
            .all(|it| it.status().held_until.is_none() || it.status().failed == 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_revocation_reaches_the_other_processes() {
    let (server, store) = (server(), Notifying::new());
    let configured = server.issue_refresh_token();
    let [cache, other] = [(); 2].map(|()| process(&server, &configured, &store));
    cache.token().await.unwrap();
    other.token().await.unwrap();
    let mut status = other.subscribe();
    cache.revoke().await.unwrap();
    sleep(SOON).await;
    assert!(other.peek().is_none());
    assert!(status.has_changed().unwrap());
    let seen = status.borrow_and_update().last_error.clone().unwrap();
    assert!(
        seen.to_string().contains("the session was revoked on"),
        "{seen}"
    );
    assert!(other.token().await.unwrap_err().is_final());
    // And the login after it.
    cache.login(login(&server)).await.unwrap();
    sleep(SOON).await;
    assert!(other.peek().is_some());
    cache.token().await.unwrap();
    assert_same_token(&[cache, other]);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_reaches_processes_whose_grant_uses_no_refresh_tokens() {
    let (server, store) = (server(), Notifying::new());
    let [cache, other] = [(); 2].map(|()| {
        let source = ClientCredentialsSource::new(client(&server)).store(store.clone());
        TokenCache::new(source)
    });
    cache.token().await.unwrap();
    other.token().await.unwrap();
    cache.revoke().await.unwrap();
    sleep(SOON).await;
    assert!(other.peek().is_none());
    // What a reset begins is no revocation any more.
    cache.reset();
    cache.token().await.unwrap();
    sleep(SOON).await;
    assert_same_token(&[cache, other]);
}

#[tokio::test(start_paused = true)]
async fn imports_and_deployed_logins_reach_dead_processes() {
    let (server, store) = (server(), Notifying::new());
    let dead = dead_process(&server, &store).await;
    let import = login(&server).replacing(&store.session().await);
    let mut lease = store.lease().await.unwrap();
    let version = store.session().await.version();
    lease.save(version, &import).await.unwrap();
    lease.release().await;
    sleep(SOON).await;
    assert!(dead.peek().is_some());

    server.revoke_sessions();
    dead.refresh().await.unwrap_err();
    let deployed = process(&server, &server.issue_refresh_token(), &store);
    deployed.token().await.unwrap();
    sleep(SOON).await;
    assert_same_token(&[dead, deployed]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_a_reset_has_brought_back_to_life_reaches_dead_processes() {
    let (server, store) = (server(), Notifying::new());
    let configured = server.issue_refresh_token();
    let [cache, other] = [(); 2].map(|()| process(&server, &configured, &store));
    server.fault(Fault::error("invalid_grant"));
    cache.token().await.unwrap_err();
    other.token().await.unwrap_err();
    // The server was wrong.
    cache.reset();
    cache.token().await.unwrap();
    sleep(SOON).await;
    assert_same_token(&[cache, other]);
}

#[tokio::test(start_paused = true)]
async fn refreshes_notify_nobody() {
    let (server, store) = (server(), Notifying::new());
    let refreshing = process(&server, &server.issue_refresh_token(), &store);
    refreshing.token().await.unwrap();
    let exchange = ExchangeTokenSource::new(client(&server), server.issue_exchange_token());
    let begun_anew = TokenCache::new(exchange.store(Notifying {
        inner: MemoryStore::new(),
        ..store.clone()
    }));
    begun_anew.token().await.unwrap();
    let credentials = ClientCredentialsSource::new(client(&server)).store(Notifying {
        inner: MemoryStore::new(),
        ..store.clone()
    });
    let credentials = TokenCache::new(credentials);
    credentials.token().await.unwrap();
    let mut changes = store.changes().unwrap();
    for _ in 0..5 {
        sleep(2 * SECOND).await;
        refreshing.refresh().await.unwrap();
        credentials.refresh().await.unwrap();
        server.revoke_sessions();
        sleep(2 * SECOND).await;
        begun_anew.refresh().await.unwrap();
        refreshing.refresh().await.unwrap_err();
        assert!(!changes.has_changed().unwrap());
        refreshing.login(login(&server)).await.unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        refreshing.token().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_notifications_costs_one_read_a_second() {
    let (server, store) = (server(), Notifying::new());
    let cache = process(&server, &server.issue_refresh_token(), &store);
    cache.token().await.unwrap();
    let before = store.loads();
    for _ in 0..60_000 {
        store.notify();
        sleep(Duration::from_millis(1)).await;
    }
    let reads = store.loads() - before;
    assert!((20..=60).contains(&reads), "{reads}");
    assert_eq!(server.token_requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_processes_read_one_after_the_other() {
    let (server, store) = (server(), Notifying::new());
    let configured = server.issue_refresh_token();
    let caches: Vec<_> = (0..1_000)
        .map(|_| process(&server, &configured, &store))
        .collect();
    for cache in &caches {
        cache.token().await.unwrap();
    }
    store.loads.lock().unwrap().clear();
    caches[0].login(login(&server)).await.unwrap();
    sleep(SOON).await;
    caches[0].token().await.unwrap();
    assert_same_token(&caches);
    assert_eq!(server.token_requests(), 2);
    let mut at_once = std::collections::HashMap::<_, usize>::new();
    for at in store.loads.lock().unwrap().iter() {
        *at_once.entry(*at).or_default() += 1;
    }
    // Some wait for the one that refreshes, and load again when it is done.
    let most = at_once.values().max().unwrap();
    assert!(*most < 100, "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_cache_whose_source_cannot_tell_has_no_task_and_asks_once() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let (server, store) = (server(), Notifying::new());
    *store.changes.lock().unwrap() = None;
    let cache = process(&server, &server.issue_refresh_token(), &store);
    cache.token().await.unwrap();
    sleep(2 * SECOND).await;
    cache.refresh().await.unwrap();
    assert_eq!((tasks(), store.asked.load(Ordering::SeqCst)), (0, 1));
    let closure = TokenCache::new(source_fn(|_| async { Token::new("abc") }));
    closure.token().await.unwrap();
    sleep(SECOND).await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_of_the_cache() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let (server, store) = (server(), Notifying::new());
    let cache = process(&server, &server.issue_refresh_token(), &store);
    assert_eq!(store.asked.load(Ordering::SeqCst), 0, "it was not used yet");
    cache.token().await.unwrap();
    sleep(SECOND).await;
    assert_eq!((tasks(), store.asked.load(Ordering::SeqCst)), (1, 1));
    let clone = cache.clone();
    drop(cache);
    sleep(SECOND).await;
    assert_eq!(tasks(), 1);
    store.notify();
    drop(clone);
    sleep(SOON).await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn notifications_that_end_are_asked_for_again_and_the_store_is_read() {
    let (server, store) = (server(), Notifying::new());
    let dead = dead_process(&server, &store).await;
    // Nothing tells of this login.
    *store.changes.lock().unwrap() = None;
    let other = process(&server, "another-of-long-ago", &store);
    other.login(login(&server)).await.unwrap();
    *store.changes.lock().unwrap() = Some(watch::Sender::new(()));
    sleep(SOON).await;
    let first = dead.peek().unwrap();
    other.login(login(&server)).await.unwrap();
    sleep(SOON).await;
    assert_ne!(dead.peek().unwrap().header(), first.header());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_runs_is_waited_for_before_the_store_is_read() {
    let (server, store) = (server(), Notifying::new());
    let configured = server.issue_refresh_token();
    let [cache, other] = [(); 2].map(|()| process(&server, &configured, &store));
    cache.token().await.unwrap();
    other.token().await.unwrap();
    sleep(2 * SECOND).await;
    server.fault(Fault::Delay(20 * SECOND));
    let refresh = tokio::spawn({
        let cache = cache.clone();
        async move { cache.refresh().await }
    });
    sleep(SECOND).await;
    // The login waits for the lease of the refresh.
    other.login(login(&server)).await.unwrap();
    refresh.await.unwrap().unwrap();
    sleep(SOON).await;
    other.token().await.unwrap();
    assert_same_token(&[cache, other]);
    assert_eq!(server.reuse_detected(), 0);
}

/// A source whose answers come when the test says so.
#[derive(Clone, Default)]
struct Slow {
    changes: watch::Sender<()>,
    looks: Arc<AtomicUsize>,
    tokens: Arc<AtomicUsize>,
    finds_a_revocation: bool,
    takes_long: bool,
}

impl TokenSource for Slow {
    async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
        let n = self.tokens.fetch_add(1, Ordering::SeqCst);
        if self.takes_long {
            sleep(10 * SECOND).await;
        }
        Ok(Token::new(format!("token-{n}"))?.expires_in(60 * SECOND))
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.changes.subscribe())
    }

    async fn session_changed(&self, _: TokenContext) -> Result<bool, TokenError> {
        let n = self.looks.fetch_add(1, Ordering::SeqCst);
        sleep(30 * SECOND).await;
        if self.finds_a_revocation {
            return Err(TokenError::new(TokenErrorKind::ReauthRequired, "revoked"));
        }
        Ok(n > 0)
    }

    async fn login(&self, _: StoredSession, _: TokenContext) -> Result<Option<Token>, TokenError> {
        Token::new("the-login").map(Some)
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_is_read_after_a_refresh_that_may_have_read_it_before() {
    let source = Slow {
        takes_long: true,
        ..Slow::default()
    };
    let cache = TokenCache::new(source.clone());
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token().await }
    });
    sleep(SECOND).await;
    source.changes.send_replace(());
    sleep(5 * SECOND).await;
    assert_eq!(source.looks.load(Ordering::SeqCst), 0);
    waiting.await.unwrap().unwrap();
    sleep(SECOND).await;
    assert_eq!(source.looks.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_during_a_look_use_the_token_and_later_wait_for_the_look() {
    let source = Slow::default();
    let cache = TokenCache::new(source.clone());
    cache.token().await.unwrap();
    sleep(35 * SECOND).await;
    source.changes.send_replace(());
    sleep(2 * SECOND).await;
    assert_eq!(source.looks.load(Ordering::SeqCst), 1);
    assert_eq!(cache.token().await.unwrap().header(), "Bearer token-0");
    // The token expires during the look, which finds nothing.
    sleep(25 * SECOND).await;
    assert_eq!(cache.token().await.unwrap().header(), "Bearer token-1");
    assert_eq!(source.tokens.load(Ordering::SeqCst), 2);
    // The next look finds something.
    source.changes.send_replace(());
    sleep(35 * SECOND).await;
    assert_eq!(cache.peek().unwrap().header(), "Bearer token-2");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_a_look_finds_does_not_end_what_began_during_the_look() {
    let process = || async {
        let source = Slow {
            finds_a_revocation: true,
            ..Slow::default()
        };
        let cache = TokenCache::new(source.clone());
        cache.token().await.unwrap();
        source.changes.send_replace(());
        sleep(2 * SECOND).await;
        assert!(cache.status().refreshing, "it looks");
        cache
    };
    let [undisturbed, reset, logged_in] = [process().await, process().await, process().await];
    reset.reset();
    logged_in
        .login(StoredSession::new(Identity::new("a", "b")).with_refresh_token("c"))
        .await
        .unwrap();
    sleep(35 * SECOND).await;
    assert!(undisturbed.peek().is_none());
    assert!(reset.peek().is_some());
    assert_eq!(logged_in.peek().unwrap().header(), "Bearer the-login");
}

/// The envelope hides what the store looks at to know that a save concerns others.
#[cfg(feature = "encrypted-store")]
#[tokio::test(start_paused = true)]
async fn a_login_that_is_stored_encrypted_reaches_other_processes_too() {
    use tower_bearer::{EncryptedStore, EncryptionKey};

    let (server, store) = (server(), Notifying::new());
    let process = || {
        let key = EncryptionKey::from_bytes(&[7; 32]).unwrap();
        let encrypted = EncryptedStore::new(store.clone(), "test", key);
        TokenCache::new(RefreshTokenSource::stored(client(&server)).store(encrypted))
    };
    let (waiting, logs_in) = (process(), process());
    waiting.token().await.unwrap_err();
    logs_in.login(login(&server)).await.unwrap();
    sleep(SOON).await;
    assert!(waiting.peek().is_some());
    logs_in.token().await.unwrap();
    assert_same_token(&[waiting, logs_in]);
}
