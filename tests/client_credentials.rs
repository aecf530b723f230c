//! Client credentials: what is sent, what is ignored, and what a store changes.

#[path = "support/endpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
mod endpoint;
mod support;

use std::{
    future::{Future, pending, ready},
    time::Duration,
};

use endpoint::{DEAD, DOWN, TokenEndpoint, first, json, next};
use http::StatusCode;
use support::TOKEN_URL;
use tokio::task::JoinSet;
use tower_bearer::{
    ClientAuth, ClientCredentials, ClientCredentialsSource, Grant, MemoryLease, MemoryStore,
    OAuthClient, RefreshTokenSource, StoreLease, StoredSession, TokenCache, TokenError,
    TokenErrorKind, TokenSource, TokenStore,
    testing::{AuthorizationServer, Dialect, Fault},
};

fn source(endpoint: &TokenEndpoint) -> ClientCredentialsSource {
    ClientCredentialsSource::new(endpoint.client(TOKEN_URL))
}

#[tokio::test]
async fn nothing_is_sent_unasked() {
    let endpoint = TokenEndpoint::default();
    first(&source(&endpoint)).await.unwrap();
    assert_eq!(endpoint.sent(), ["/token grant_type=client_credentials"]);
}

#[tokio::test]
async fn resources_and_other_parameters_are_sent_as_often_as_they_were_set() {
    let endpoint = TokenEndpoint::default();
    let source = source(&endpoint)
        .resource("https://a.example")
        .scope("read")
        .audience("api")
        .resource("https://b.example")
        .scope("write")
        .parameter("tenant", "7");
    first(&source).await.unwrap();
    assert_eq!(
        endpoint.sent(),
        [
            "/token grant_type=client_credentials&scope=read+write&resource=https%3A%2F%2Fa.example&audience=api\
             &resource=https%3A%2F%2Fb.example&tenant=7"
        ]
    );
}

#[tokio::test]
async fn a_refresh_token_in_the_response_is_neither_kept_nor_sent() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    let source = source(&endpoint).store(store.clone());
    let token = first(&source).await.unwrap();
    let other = next(&source, &token).await.unwrap();
    assert_ne!(token.expose_secret(), other.expose_secret());
    assert_eq!(endpoint.sent(), ["/token grant_type=client_credentials"; 2]);
    let stored = json(&store.load().await.unwrap().unwrap());
    assert!(stored["refresh_token"].is_null(), "{stored}");
    assert!(stored["refreshing_since"].is_null(), "{stored}");
    assert_eq!(stored["access"]["token"], "at-2");
}

#[tokio::test]
async fn processes_with_one_store_share_a_token() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    let scoped = || source(&endpoint).scope("read").store(store.clone());
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let source = scoped();
        tasks.spawn(async move { first(&source).await.unwrap() });
    }
    while let Some(token) = tasks.join_next().await {
        assert_eq!(token.unwrap().expose_secret(), "at-1");
    }
    assert_eq!(endpoint.sent().len(), 1);
}

#[tokio::test]
async fn a_session_of_another_scope_resource_audience_or_parameter_is_an_error() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    let in_store = |grant| {
        let client = endpoint.client(TOKEN_URL);
        ClientCredentialsSource::with_grant(client, grant).store(store.clone())
    };
    first(&in_store(ClientCredentials::new().scope("read")))
        .await
        .unwrap();
    for other in [
        ClientCredentials::new(),
        ClientCredentials::new().scope("write"),
        ClientCredentials::new()
            .scope("read")
            .resource("https://a.example"),
        ClientCredentials::new().scope("read").audience("api"),
        ClientCredentials::new()
            .scope("read")
            .parameter("tenant", "7"),
    ] {
        let error = first(&in_store(other)).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
    }
    assert_eq!(endpoint.sent().len(), 1);

    // A name stands for all of it.
    let named = |scope: &str| source(&endpoint).scope(scope).session_name("mine");
    let store = MemoryStore::new();
    let token = first(&named("read").store(store.clone())).await.unwrap();
    let same = source(&endpoint)
        .session_name("mine")
        .scope("write")
        .store(store);
    let adopted = first(&same).await.unwrap();
    assert_eq!(adopted.expose_secret(), token.expose_secret());
}

#[tokio::test]
async fn the_identity_is_stable_and_has_no_secret() {
    let endpoint = TokenEndpoint::default();
    let authenticated = |secret| {
        let auth = ClientAuth::client_secret_basic("my-service", secret);
        ClientCredentialsSource::new(endpoint.client(TOKEN_URL).client_auth(auth))
    };
    let store = MemoryStore::new();
    let token = first(&authenticated("old").store(store.clone()))
        .await
        .unwrap();
    let stored = json(&store.load().await.unwrap().unwrap());
    assert!(!stored.to_string().contains("old"));
    // The secret was rotated.
    let adopted = first(&authenticated("new").store(store)).await.unwrap();
    assert_eq!(adopted.expose_secret(), token.expose_secret());
}

#[tokio::test]
async fn the_session_of_a_later_login_is_neither_used_nor_overwritten() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    let machine = || source(&endpoint).store(store.clone());
    first(&machine()).await.unwrap();
    let client = endpoint.client(TOKEN_URL);
    let user = RefreshTokenSource::new(client, "rt-of-a-user").store(store.clone());
    first(&user).await.unwrap();
    let of_user = json(&store.load().await.unwrap().unwrap());
    endpoint.sent();

    let token = first(&machine()).await.unwrap();
    assert_ne!(token.expose_secret(), of_user["access"]["token"]);
    assert_eq!(endpoint.sent(), ["/token grant_type=client_credentials"]);
    assert_eq!(json(&store.load().await.unwrap().unwrap()), of_user);
}

#[tokio::test(start_paused = true)]
async fn beside_the_session_of_a_later_login_a_failing_request_is_tried_again_slowly() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    let machine = || source(&endpoint).store(store.clone());
    first(&machine()).await.unwrap();
    let user = RefreshTokenSource::new(endpoint.client(TOKEN_URL), "rt-of-a-user");
    first(&user.store(store.clone())).await.unwrap();
    endpoint.sent();

    endpoint.respond_next([(401, r#"{"error":"invalid_client"}"#); 100]);
    let cache = TokenCache::new(machine());
    for _ in 0..600 {
        cache.token().await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let sent = endpoint.sent().len();
    assert!(sent <= 6, "{sent} requests in ten minutes");
}

#[tokio::test]
async fn invalid_grant_is_not_final_and_not_marked_in_the_store() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    endpoint.respond_next([DEAD]);
    let source = source(&endpoint)
        .store(store.clone())
        .reauth_hint("ask the operator");
    let error = first(&source).await.unwrap_err();
    assert!(!error.is_final());
    assert!(error.to_string().contains("ask the operator"), "{error}");
    assert!(store.load().await.unwrap().is_none());
    first(&source).await.unwrap();
}

/// What fails of a store.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Load,
    LoadHangs,
    Lease,
    LeaseHangs,
    Save,
    SaveHangs,
}

struct BrokenStore(MemoryStore, Broken);

struct BrokenLease(MemoryLease, Broken);

fn broken() -> TokenError {
    TokenError::new(TokenErrorKind::Store, "out of order")
}

impl TokenStore for BrokenStore {
    type Lease = BrokenLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        match self.1 {
            Broken::Load => Err(broken()),
            Broken::LoadHangs => pending().await,
            _ => self.0.load().await,
        }
    }

    async fn lease(&self) -> Result<BrokenLease, TokenError> {
        match self.1 {
            Broken::Lease => Err(broken()),
            Broken::LeaseHangs => pending().await,
            _ => Ok(BrokenLease(self.0.lease().await?, self.1)),
        }
    }
}

impl StoreLease for BrokenLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        match self.1 {
            Broken::Save => Err(broken()),
            Broken::SaveHangs => pending().await,
            _ => self.0.save(replaces, session).await,
        }
    }

    fn is_held(&self) -> impl Future<Output = Result<bool, TokenError>> + Send {
        ready(Ok(true))
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_store_or_lease_costs_no_token() {
    for what in [
        Broken::Load,
        Broken::LoadHangs,
        Broken::Lease,
        Broken::LeaseHangs,
        Broken::Save,
        Broken::SaveHangs,
    ] {
        let endpoint = TokenEndpoint::default();
        let source = source(&endpoint).store(BrokenStore(MemoryStore::new(), what));
        let cache = TokenCache::new(source.clone());
        let token = cache.token().await.unwrap();
        assert_eq!(token.expose_secret(), "at-1");
        assert!(next(&source, &token).await.is_ok());
        source.flush().await.unwrap();
        assert_eq!(endpoint.sent().len(), 2);
    }
}

#[tokio::test]
async fn ten_thousand_waiters_cost_one_request() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let client = OAuthClient::with_transport(TOKEN_URL, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    let cache = TokenCache::new(ClientCredentialsSource::new(client).scope("read"));
    server.fault(Fault::Delay(Duration::from_millis(20)));
    let mut waiters = JoinSet::new();
    for _ in 0..10_000 {
        let cache = cache.clone();
        waiters.spawn(async move { cache.token().await.unwrap().header().clone() });
    }
    let headers = waiters.join_all().await;
    assert!(headers.iter().all(|header| *header == headers[0]));
    assert_eq!(
        (server.token_requests(), server.client_credentials()),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_day_of_requests_costs_about_100_token_requests_and_no_wait() {
    let endpoint = TokenEndpoint::default(); // its tokens live for 15 minutes
    let cache = TokenCache::new(source(&endpoint));
    cache.token().await.unwrap();
    for second in 0..86_400 {
        let token = tokio::time::timeout(Duration::ZERO, cache.token()).await;
        assert!(
            token.is_ok_and(|it| it.is_ok()),
            "no token at once after {second} s"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let sent = endpoint.sent();
    assert!((96..=120).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|it| it == &sent[0]));
}

#[tokio::test(start_paused = true)]
async fn a_failing_request_is_tried_again_by_the_cache() {
    let endpoint = TokenEndpoint::default();
    endpoint.respond_next([DOWN]);
    let cache = TokenCache::new(source(&endpoint));
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    tokio::time::sleep(Duration::from_secs(61)).await;
    cache.token().await.unwrap();
    assert_eq!(endpoint.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_request_was_rejected_takes_the_token_of_another_one() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let (source, other) = (source(&endpoint), source(&endpoint));
    let source = source.store(store.clone());
    endpoint.respond_next([(401, r#"{"error":"invalid_client"}"#)]);
    let cache = TokenCache::new(source.clone());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert!(!source.has_changed().await);
    let token = first(&other.store(store)).await.unwrap();
    assert!(source.has_changed().await);
    tokio::time::sleep(Duration::from_secs(11)).await;
    // This one asks for changes, and the next one has the token.
    drop(cache.token().await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let adopted = cache.token().await.unwrap();
    assert_eq!(adopted.expose_secret(), token.expose_secret());
    assert_eq!(endpoint.sent().len(), 2);
}

#[tokio::test]
async fn the_error_says_what_to_do_only_if_a_login_is_needed() {
    let endpoint = TokenEndpoint::default();
    for (response, is_said) in [(DEAD, true), (DOWN, false)] {
        endpoint.respond_next([response]);
        let source = source(&endpoint).reauth_hint("call the vendor");
        let error = first(&source).await.unwrap_err().to_string();
        assert_eq!(error.contains("call the vendor"), is_said, "{error}");
    }
}

#[test]
fn debug_names_parameters_and_shows_no_values() {
    let grant = ClientCredentials::new()
        .scope("read")
        .parameter("key", "hunter2");
    let shown = format!("{grant:?}");
    assert!(
        shown.contains("key") && !shown.contains("hunter2"),
        "{shown}"
    );
    assert!(grant.can_repeat() && !grant.is_fixed());
}
