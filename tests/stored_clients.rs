//! A stored session is used by the client that it belongs to, and by no other.

#[path = "support/endpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
mod endpoint;

use std::time::Duration;

use endpoint::{DEAD, TokenEndpoint, first, json, next};
use serde_json::Value;
use tokio::time::sleep;
use tower_bearer::{
    ClientAuth, ExchangeTokenSource, MemoryStore, OAuthClient, RefreshTokenSource, StoreLease,
    StoredSession, Token, TokenCache, TokenContext, TokenError, TokenErrorKind, TokenSource,
    TokenStore,
};

const URL: &str = "https://login.example/token";
const SECOND: Duration = Duration::from_secs(1);

fn usual(endpoint: &TokenEndpoint) -> OAuthClient {
    endpoint
        .client(URL)
        .client_auth(ClientAuth::client_secret_basic("app", "s3cret"))
        .parameter("scope", "read")
}

/// Clients that must not get the tokens of the usual one.
fn others(endpoint: &TokenEndpoint) -> Vec<OAuthClient> {
    let usual = || usual(endpoint);
    vec![
        endpoint
            .client("https://staging.login.example/token")
            .client_auth(ClientAuth::client_secret_basic("app", "s3cret"))
            .parameter("scope", "read"),
        usual()
            .refresh_url("https://login.example/refresh")
            .unwrap(),
        usual().client_auth(ClientAuth::client_secret_basic("another", "s3cret")),
        usual().client_auth(ClientAuth::anonymous()),
        usual().parameter("scope", "write"),
        usual().parameter("resource", "https://api.example"),
        usual().parameter("audience", "api"),
    ]
}

async fn stored(store: &MemoryStore) -> Value {
    json(&store.load().await.unwrap().unwrap())
}

/// Saves what somebody has written by hand, whatever is stored.
async fn overwrite(store: &MemoryStore, change: impl FnOnce(&mut Value)) {
    let mut lease = store.lease().await.unwrap();
    let before = store.load().await.unwrap().unwrap();
    let mut value = json(&before);
    value["version"] = (before.version() + 1).into();
    change(&mut value);
    let session: StoredSession = serde_json::from_value(value).unwrap();
    lease.save(before.version(), &session).await.unwrap();
    lease.release().await;
}

fn assert_is_of_another_client(error: &TokenError) {
    assert_eq!(error.kind(), TokenErrorKind::Config, "{error}");
    let text = error.to_string();
    for part in [
        "another token endpoint, client id, scope, resource or audience",
        "a store of its own",
        "remove",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// The source gets nothing from the store, sends nothing, and leaves the store as it is.
async fn assert_is_kept_out(
    source: impl TokenSource,
    store: &MemoryStore,
    endpoint: &TokenEndpoint,
) {
    let before = stored(store).await;
    endpoint.sent();
    let held = Token::new("held").unwrap();
    for cx in [
        TokenContext::new(),
        TokenContext::new().replacing(held.clone()),
        TokenContext::new().rejected(held.clone()),
        TokenContext::new().after_reset(),
    ] {
        assert_is_of_another_client(&source.token(cx.clone()).await.unwrap_err());
        assert!(source.stored_token(cx).await.is_none());
        assert!(!source.has_changed().await);
    }
    assert_eq!(endpoint.sent(), [""; 0]);
    assert_eq!(stored(store).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_source_of_another_client_neither_uses_nor_overwrites_the_session() {
    let endpoint = TokenEndpoint::default();
    let number = others(&endpoint).len();
    for at in 0..number {
        let store = MemoryStore::new();
        let other = || others(&endpoint).swap_remove(at);
        let ours = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
        let token = first(&ours).await.unwrap();
        // The same credential, and a grant that could begin anew.
        let source = RefreshTokenSource::new(other(), "rt").store(store.clone());
        assert_is_kept_out(source, &store, &endpoint).await;
        // The session goes on.
        next(&ours, &token).await.unwrap();

        let store = MemoryStore::new();
        let ours = ExchangeTokenSource::new(usual(&endpoint), "x").store(store.clone());
        first(&ours).await.unwrap();
        let source = ExchangeTokenSource::new(other(), "x").store(store.clone());
        assert_is_kept_out(source, &store, &endpoint).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_with_a_rotated_secret_uses_the_session() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let ours = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    let token = first(&ours).await.unwrap();
    let client = usual(&endpoint).client_auth(ClientAuth::client_secret_post("app", "rotated"));
    let source = RefreshTokenSource::new(client, "rt").store(store);
    assert_eq!(first(&source).await.unwrap().header(), token.header());
    assert_eq!(endpoint.sent().len(), 1);
    next(&source, &token).await.unwrap();
    assert!(endpoint.sent()[0].contains("refresh_token=rt-1"));
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_client_is_accepted_and_its_client_recorded_with_the_next_save() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let ours = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    first(&ours).await.unwrap();
    let client = stored(&store).await["client"].clone();
    assert!(client.is_string());
    overwrite(&store, |session| {
        session["format"] = 2.into();
        session.as_object_mut().unwrap().remove("client");
        session.as_object_mut().unwrap().remove("ended");
    })
    .await;

    let source = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    let token = first(&source).await.unwrap();
    assert_eq!(token.header(), "Bearer at-1");
    assert!(
        stored(&store).await["client"].is_null(),
        "nothing to save yet"
    );
    next(&source, &token).await.unwrap();
    assert_eq!(stored(&store).await["client"], client);
    for other in others(&endpoint) {
        let source = RefreshTokenSource::new(other, "rt").store(store.clone());
        assert_is_kept_out(source, &store, &endpoint).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_login_that_fails_does_not_record_its_client() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let ours = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    let token = first(&ours).await.unwrap();
    overwrite(&store, |session| session["client"] = Value::Null).await;
    endpoint.respond_next([DEAD]);
    let client = others(&endpoint).swap_remove(0);
    let login = RefreshTokenSource::new(client, "login").store(store.clone());
    first(&login).await.unwrap_err();
    let session = stored(&store).await;
    assert!(
        session["client"].is_null() && session["ended"].is_null(),
        "{session}"
    );
    next(&ours, &token).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_login_of_another_client_does_not_replace_a_session_that_lives() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let ours = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    let token = first(&ours).await.unwrap();
    for other in others(&endpoint) {
        let login = RefreshTokenSource::new(other, "login").store(store.clone());
        assert_is_kept_out(login, &store, &endpoint).await;
    }
    // A new login of the same client does, as before.
    let login = RefreshTokenSource::new(usual(&endpoint), "login").store(store);
    let newer = first(&login).await.unwrap();
    assert_eq!(next(&ours, &token).await.unwrap().header(), newer.header());
}

#[tokio::test(start_paused = true)]
async fn a_new_login_of_another_client_begins_in_the_place_of_a_session_that_has_ended() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let ours = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    let token = first(&ours).await.unwrap();
    endpoint.respond_next([DEAD]);
    next(&ours, &token).await.unwrap_err();
    let ended = stored(&store).await;

    let other = || others(&endpoint).swap_remove(0);
    // The credential of the session itself is no new login.
    let same = RefreshTokenSource::new(other(), "rt").store(store.clone());
    assert_is_kept_out(same, &store, &endpoint).await;

    // As long as the login has not succeeded, the session stays as it is.
    let login = || RefreshTokenSource::new(other(), "login").store(store.clone());
    endpoint.respond_next([DEAD]);
    first(&login()).await.unwrap_err();
    let after = stored(&store).await;
    for member in [
        "identity",
        "client",
        "refresh_token",
        "access",
        "ended",
        "generation",
    ] {
        assert_eq!(after[member], ended[member], "{member}");
    }

    let newer = first(&login()).await.unwrap();
    assert_eq!(
        endpoint.sent().last().unwrap(),
        "/token grant_type=refresh_token&refresh_token=login&scope=read"
    );
    let begun = stored(&store).await;
    assert_ne!(begun["client"], ended["client"]);
    assert_eq!(begun["former_identities"][0], ended["identity"]);
    assert!(begun["generation"].as_u64() > ended["generation"].as_u64());
    // The old client does not touch it.
    let old = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    assert_is_kept_out(old, &store, &endpoint).await;
    assert_is_kept_out(ours, &store, &endpoint).await;
    next(&login(), &newer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_refresh_token_has_ended_with_its_grant() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let ours = ExchangeTokenSource::new(usual(&endpoint), "x").store(store.clone());
    endpoint.respond_next([(200, r#"{"access_token":"at","expires_in":900}"#), DEAD]);
    let token = first(&ours).await.unwrap();
    let login = || {
        let client = others(&endpoint).swap_remove(0);
        RefreshTokenSource::new(client, "login").store(store.clone())
    };
    assert_is_kept_out(login(), &store, &endpoint).await;
    next(&ours, &token).await.unwrap_err();
    first(&login()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_never_had_a_token_does_not_keep_its_client() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    // A mistake in the URL, which the server of that URL does not recognize as such.
    let client = others(&endpoint).swap_remove(0);
    endpoint.respond_next([DEAD]);
    let wrong = RefreshTokenSource::new(client, "rt").store(store.clone());
    first(&wrong).await.unwrap_err();
    let before = stored(&store).await;
    assert!(before["client"].is_string() && before["ended"].is_object());

    let source = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    endpoint.respond_next([(503, "")]);
    first(&source).await.unwrap_err();
    let marked = stored(&store).await;
    assert_ne!(marked["client"], before["client"]);
    assert!(
        marked["ended"].is_null(),
        "it was another server that said so"
    );
    first(&source).await.unwrap();
    assert!(stored(&store).await["version"].as_u64() > before["version"].as_u64());
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_first_refresh_of_another_client_is_not_ours() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    endpoint.respond_next([(503, ""), DEAD]);
    let client = others(&endpoint).swap_remove(0);
    let wrong = RefreshTokenSource::new(client, "rt").store(store.clone());
    first(&wrong).await.unwrap_err();
    assert!(stored(&store).await["refreshing_since"].is_number());
    let source = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    let error = first(&source).await.unwrap_err();
    assert!(!error.to_string().contains("interrupted"), "{error}");
    assert!(stored(&store).await["refreshing_since"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_token_is_not_begun_anew_by_a_former_credential() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    endpoint.respond_next([DEAD]);
    let wrong =
        RefreshTokenSource::new(others(&endpoint).swap_remove(0), "new").store(store.clone());
    first(&wrong).await.unwrap_err();
    let former = RefreshTokenSource::new(usual(&endpoint), "former").store(store.clone());
    let former_identity = serde_json::to_value(former.identity()).unwrap();
    overwrite(&store, |session| {
        session["former_identities"] = vec![former_identity].into();
    })
    .await;
    assert_is_kept_out(former, &store, &endpoint).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_name_replaces_what_tells_clients_apart() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let named = |client, name: &str| {
        RefreshTokenSource::new(client, "rt")
            .store(store.clone())
            .session_name(name)
    };
    let token = first(&named(usual(&endpoint), "invoices")).await.unwrap();
    for client in others(&endpoint) {
        let same = first(&named(client, "invoices")).await.unwrap();
        assert_eq!(same.header(), token.header());
    }
    assert_eq!(endpoint.sent().len(), 1);
    assert_is_kept_out(named(usual(&endpoint), "orders"), &store, &endpoint).await;
    let unnamed = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    assert_is_kept_out(unnamed, &store, &endpoint).await;
}

#[tokio::test(start_paused = true)]
async fn a_cache_goes_on_within_seconds_after_the_session_of_another_client_was_removed() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let ours = RefreshTokenSource::new(usual(&endpoint), "rt").store(store.clone());
    first(&ours).await.unwrap();
    let client = others(&endpoint).swap_remove(0);
    let source = RefreshTokenSource::new(client, "rt").store(store.clone());
    let cache = TokenCache::builder(source).seed(7).build();
    for _ in 0..3_600 {
        assert_is_of_another_client(&cache.token().await.unwrap_err());
        sleep(SECOND).await;
    }
    assert_eq!(endpoint.sent().len(), 1);
    let failed = cache.status().failed;
    assert!((5..=12).contains(&failed), "looked at slowly: {failed}");
    // Right after an attempt, so that the next one is minutes away.
    while cache.status().failed == failed {
        cache.token().await.unwrap_err();
        sleep(SECOND).await;
    }

    overwrite(&store, |session| session["client"] = Value::Null).await;
    let mut seconds = 0;
    while cache.token().await.is_err() {
        sleep(SECOND).await;
        seconds += 1;
    }
    assert!(seconds <= 11, "{seconds}");
    assert_eq!(cache.peek().unwrap().header(), "Bearer at-1");
}
