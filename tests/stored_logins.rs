//! A source without a credential of its own, whose sessions come from its store.

#![cfg(feature = "testing")]

use std::time::Duration;

use tokio::time::sleep;
use tower_bearer::{
    ClientAuth, Identity, MemoryStore, OAuthClient, RefreshTokenSource, StoreLease, StoredSession,
    Token, TokenCache, TokenErrorKind, TokenStore,
    testing::{AuthorizationServer, Dialect},
};

fn client(server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::with_transport("https://login.example.com/token", server.clone())
        .unwrap()
        .client_auth(ClientAuth::none("app"))
        .revocation_url("https://login.example.com/revoke")
        .unwrap()
}

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .public_client("app")
        .detect_reuse(true)
}

fn cache(server: &AuthorizationServer, store: &MemoryStore) -> TokenCache {
    TokenCache::new(RefreshTokenSource::stored(client(server)).store(store.clone()))
}

/// The session of a login, with an identity that no source knows.
fn login(server: &AuthorizationServer) -> StoredSession {
    let refresh_token = server.issue_refresh_token();
    StoredSession::new(Identity::new("refresh", &refresh_token)).with_refresh_token(refresh_token)
}

async fn import(store: &MemoryStore, session: StoredSession) {
    let mut lease = store.lease().await.unwrap();
    let (replaces, session) = match store.load().await.unwrap() {
        Some(stored) => (stored.version(), session.replacing(&stored)),
        None => (0, session),
    };
    lease.save(replaces, &session).await.unwrap();
    lease.release().await;
}

/// The cache looks into the store every ten seconds while callers want a token.
async fn token_after_the_next_look(cache: &TokenCache) -> Token {
    for _ in 0..11 {
        if let Ok(token) = cache.token().await {
            return token;
        }
        sleep(Duration::from_secs(1)).await;
    }
    cache.token().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn before_a_login_nothing_is_sent_or_stored() {
    let server = server();
    let store = MemoryStore::new();
    let source = RefreshTokenSource::stored(client(&server)).store(store.clone());
    let cache = TokenCache::new(source.reauth_hint("run `app login`"));
    for _ in 0..100 {
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        assert!(error.is_final());
        assert!(error.to_string().contains("run `app login`"), "{error}");
        sleep(Duration::from_secs(20)).await;
    }
    assert!(store.load().await.unwrap().is_none());
    assert_eq!(server.token_requests(), 0);
    // A reset does not help either: there is still nothing to send.
    cache.reset();
    assert_eq!(
        cache.token().await.unwrap_err().kind(),
        TokenErrorKind::ReauthRequired
    );
    assert!(store.load().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_imported_session_is_used_whatever_its_identity_is() {
    let server = server();
    let store = MemoryStore::new();
    let running = cache(&server, &store);
    running.token().await.unwrap_err();
    import(&store, login(&server)).await;
    token_after_the_next_look(&running).await;

    // A process that starts later goes on with it, and with the session of the next login.
    let later = cache(&server, &store);
    let token = later.token().await.unwrap();
    assert_eq!(server.refreshes(), 1);
    import(&store, login(&server)).await;
    later.reject(&token);
    later.token().await.unwrap();
    running.reject(&running.peek().unwrap());
    running.token().await.unwrap();
    assert_eq!((server.refreshes(), server.reuse_detected()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_goes_on_after_the_next_login() {
    let server = server();
    let store = MemoryStore::new();
    let cache = cache(&server, &store);
    import(&store, login(&server)).await;
    let token = cache.token().await.unwrap();
    server.revoke_sessions();
    cache.reject(&token);
    sleep(Duration::from_secs(60)).await;
    // The rejected token stays in use until there is another.
    cache.refresh().await.unwrap_err();
    let requests = server.token_requests();
    for _ in 0..20 {
        sleep(Duration::from_secs(60)).await;
        drop(cache.refresh().await);
    }
    assert_eq!(
        server.token_requests(),
        requests,
        "a dead session was sent again"
    );

    import(&store, login(&server)).await;
    let next = token_after_the_next_look(&cache).await;
    assert_ne!(next.expose_secret(), token.expose_secret());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_is_not_begun_again_without_a_login() {
    let server = server();
    let store = MemoryStore::new();
    let cache = cache(&server, &store);
    import(&store, login(&server)).await;
    cache.token().await.unwrap();
    cache.revoke().await.unwrap();
    for _ in 0..5 {
        assert_eq!(
            cache.token().await.unwrap_err().kind(),
            TokenErrorKind::ReauthRequired
        );
        sleep(Duration::from_secs(60)).await;
    }
    import(&store, login(&server)).await;
    token_after_the_next_look(&cache).await;
}
