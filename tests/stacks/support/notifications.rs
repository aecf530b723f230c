//! What the stores that notify have in common: each test here runs with each of them.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_bearer::{
    ClientAuth, Identity, OAuthClient, RefreshTokenSource, StoreLease, StoredSession, TokenCache,
    TokenErrorKind, TokenStore,
    testing::{AuthorizationServer, Dialect},
};

/// Longer than everything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(60);

/// Waits until this is the case. No caller asks for a token meanwhile.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, wait).await.expect("nothing was noticed");
}

pub fn auth_server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}

/// A process with a connection of its own.
pub fn process(
    server: &AuthorizationServer,
    configured: &str,
    store: impl TokenStore,
) -> TokenCache {
    let client = OAuthClient::with_transport("https://login.example.com/token", server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ))
        .revocation_url("https://login.example.com/revoke")
        .unwrap();
    TokenCache::new(RefreshTokenSource::new(client, configured).store(store))
}

/// A process whose session is dead.
pub async fn dead_process(server: &AuthorizationServer, store: impl TokenStore) -> TokenCache {
    let cache = process(server, "of-long-ago", store);
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    cache
}

pub fn login(server: &AuthorizationServer) -> StoredSession {
    let token = server.issue_refresh_token();
    StoredSession::new(Identity::new("refresh", &token)).with_refresh_token(token)
}

/// `new_store` makes stores with separate connections. `is_listening` tells whether all of them listen.
pub async fn logins_imports_and_revocations_reach_other_processes<S: TokenStore>(
    new_store: impl Fn() -> S,
    is_listening: impl AsyncFn() -> bool,
) {
    let server = auth_server();
    let dead = dead_process(&server, new_store()).await;
    let other = dead_process(&server, new_store()).await;
    while !is_listening().await {
        sleep(Duration::from_millis(20)).await;
    }
    other.login(login(&server)).await.unwrap();
    until(|| dead.peek().is_some()).await;

    // Both live.
    let first = other.token().await.unwrap();
    until(|| {
        dead.peek()
            .is_some_and(|token| token.header() == first.header())
    })
    .await;
    dead.login(login(&server)).await.unwrap();
    until(|| {
        other
            .peek()
            .is_some_and(|token| token.header() != first.header())
    })
    .await;

    other.revoke().await.unwrap();
    until(|| dead.peek().is_none()).await;

    // By hand, into a store that does not listen itself.
    let store = new_store();
    let stored = store.load().await.unwrap().unwrap();
    let mut lease = store.lease().await.unwrap();
    let import = login(&server).replacing(&stored);
    lease.save(stored.version(), &import).await.unwrap();
    lease.release().await;
    until(|| dead.peek().is_some() && other.peek().is_some()).await;
    assert_eq!(server.reuse_detected(), 0);
}

/// `kill` breaks the connections that listen, and returns how many there were.
pub async fn a_login_while_the_connection_is_lost_is_noticed_later<S: TokenStore>(
    new_store: impl Fn() -> S,
    kill: impl AsyncFn() -> usize,
) {
    let server = auth_server();
    let dead = dead_process(&server, new_store()).await;
    let other = process(&server, "another", new_store());
    let mut last = None;
    for _ in 0..3 {
        let killed = async { while kill().await == 0 {} };
        timeout(LONG, killed).await.expect("nothing listens");
        other.login(login(&server)).await.unwrap();
        let header = || dead.peek().map(|token| token.header().clone());
        until(|| header().is_some() && header() != last).await;
        last = header();
    }
    assert_eq!(server.reuse_detected(), 0);
}

/// `store` makes stores of a session that share connections; `other` has others. Returns when the notification of one login
/// has reached one session.
pub async fn one_of_many_sessions_is_told<S: TokenStore>(
    store: impl Fn(usize) -> S,
    other: impl Fn(usize) -> S,
    is_listening: impl AsyncFn() -> bool,
) {
    const SESSIONS: usize = 1_000;
    let changes: Vec<_> = (0..SESSIONS)
        .map(|n| store(n).changes().expect("it notifies"))
        .collect();
    while !is_listening().await {
        sleep(Duration::from_millis(20)).await;
    }
    let server = auth_server();
    let store = other(777);
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &login(&server)).await.unwrap();
    lease.release().await;
    let told = || {
        let has_changed = |n: &usize| changes[*n].has_changed().unwrap();
        (0..SESSIONS).filter(has_changed).collect::<Vec<_>>()
    };
    until(|| !told().is_empty()).await;
    assert_eq!(told(), [777]);
}
