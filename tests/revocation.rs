//! Revocation: a session ends at the server and in the store, for all processes that share it.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::yield_now, time::sleep};
use tower::{ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, ClientCredentialsSource, ExchangeTokenSource, FileStore,
    GrantSource, MemoryStore, OAuthClient, RefreshTokenSource, StoreLease, StoredSession, Token,
    TokenCache, TokenContext, TokenError, TokenErrorKind, TokenSource, TokenStore, source_fn,
    testing::{AuthorizationServer, Dialect, Fault},
};

use support::{
    API, TOKEN_URL, assert_hides, failing_store::FailingStore, failure, get, reason, send,
};

const REVOCATION_URL: &str = "https://login.example.com/revoke";
const SECOND: Duration = Duration::from_secs(1);

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}

fn without_endpoint(server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::with_transport(TOKEN_URL, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ))
}

fn client(server: &AuthorizationServer) -> OAuthClient {
    without_endpoint(server)
        .revocation_url(REVOCATION_URL)
        .unwrap()
}

/// A process that is configured with this refresh token.
fn process(server: &AuthorizationServer, login: &str, store: &impl CloneStore) -> TokenCache {
    let source = RefreshTokenSource::new(client(server), login);
    TokenCache::new(source.store(store.clone()))
}

/// A process that is configured with this exchange token, which can begin a session again and again.
fn repeatable(server: &AuthorizationServer, token: &str, store: &impl CloneStore) -> TokenCache {
    let source = ExchangeTokenSource::new(client(server), token);
    TokenCache::new(source.store(store.clone()))
}

trait CloneStore: TokenStore + Clone {}
impl<T: TokenStore + Clone> CloneStore for T {}

async fn stored(store: &impl TokenStore) -> Value {
    serde_json::to_value(store.load().await.unwrap().unwrap()).unwrap()
}

#[track_caller]
fn assert_is_revoked(error: &TokenError) {
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    assert!(error.is_final(), "{error}");
    assert!(
        error.to_string().contains("the session was revoked"),
        "{error}"
    );
}

async fn assert_has_no_token(cache: &TokenCache) {
    assert_is_revoked(&cache.token().await.unwrap_err());
    assert!(cache.peek().is_none());
}

/// The tokens that were sent to the revocation endpoint, with their hints.
fn revoked(server: &AuthorizationServer) -> Vec<(String, String)> {
    let is_revocation = |path: &str| path == "/revoke";
    server
        .requests()
        .iter()
        .filter(|request| is_revocation(request.uri.path()))
        .map(|request| {
            let param = |name| request.param(name).unwrap().to_owned();
            (param("token"), param("token_type_hint"))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_grant_without_refresh_tokens_requests_none_after_a_revocation_until_a_reset() {
    let (server, store) = (server(), MemoryStore::new());
    let process = || {
        let source = ClientCredentialsSource::new(client(&server)).store(store.clone());
        TokenCache::new(source)
    };
    let (cache, other) = (process(), process());
    cache.token().await.unwrap();
    other.token().await.unwrap();
    let requests = server.token_requests();
    cache.revoke().await.unwrap();
    assert_eq!(revoked(&server).len(), 1);
    assert_has_no_token(&cache).await;
    sleep(SECOND).await;
    assert_is_revoked(&other.refresh().await.unwrap_err());
    assert_is_revoked(&process().token().await.unwrap_err());
    assert_eq!(server.token_requests(), requests);
    sleep(SECOND).await;
    cache.reset();
    cache.token().await.unwrap();
    assert_eq!(server.token_requests(), requests + 1);
    process().token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_process_that_has_revoked_a_session_finds_the_one_that_another_begins_after_a_reset() {
    let (server, store) = (server(), MemoryStore::new());
    let process = || {
        let source = ClientCredentialsSource::new(client(&server)).store(store.clone());
        TokenCache::new(source)
    };
    let (cache, other) = (process(), process());
    cache.token().await.unwrap();
    cache.revoke().await.unwrap();
    other.reset();
    let token = other.token().await.unwrap();
    sleep(11 * SECOND).await;
    // This call looks for changes, and the next one finds the token.
    assert_is_revoked(&cache.token().await.unwrap_err());
    sleep(SECOND).await;
    let found = cache.token().await.unwrap();
    assert_eq!(found.expose_secret(), token.expose_secret());
    assert_eq!(server.token_requests(), 2);
}

mod at_the_server {
    use super::*;

    #[tokio::test]
    async fn the_newest_refresh_token_is_sent_first_and_then_the_access_token() {
        let server = server();
        let store = MemoryStore::new();
        let cache = process(&server, &server.issue_refresh_token(), &store);
        cache.token().await.unwrap();
        let access = cache.refresh().await.unwrap();
        let refresh = stored(&store).await["refresh_token"].clone();
        cache.revoke().await.unwrap();
        let pair = |token: &str, hint: &str| (token.to_owned(), hint.to_owned());
        assert_eq!(
            revoked(&server),
            [
                pair(refresh.as_str().unwrap(), "refresh_token"),
                pair(access.expose_secret(), "access_token"),
            ]
        );
        assert_eq!((server.live_sessions(), server.revocations()), (0, 2));
        assert_has_no_token(&cache).await;
        assert_eq!(server.token_requests(), 2);
    }

    #[tokio::test]
    async fn a_revocation_authenticates_the_client_and_describes_no_token_to_be_issued() {
        let server = server();
        let client = client(&server)
            .parameter("scope", "read")
            .parameter("resource", "https://a.example")
            .parameter("tenant", "7")
            .header("x-api-key", "k")
            .unwrap();
        let cache = TokenCache::new(RefreshTokenSource::new(
            client,
            server.issue_refresh_token(),
        ));
        cache.revoke().await.unwrap();
        let request = &server.requests()[0];
        assert_eq!(
            (request.method.as_str(), request.uri.path()),
            ("POST", "/revoke")
        );
        assert!(request.headers.contains_key("authorization"));
        assert_eq!(request.headers["x-api-key"], "k");
        let names: Vec<&str> = request.params.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["token", "token_type_hint", "tenant"]);
    }

    #[tokio::test]
    async fn a_login_that_was_never_used_is_revoked_too() {
        let server = server();
        let store = MemoryStore::new();
        let login = server.issue_refresh_token();
        process(&server, &login, &store).revoke().await.unwrap();
        assert_eq!(server.live_sessions(), 0);
        assert_has_no_token(&process(&server, &login, &store)).await;
        assert_eq!(server.token_requests(), 0);
    }

    #[tokio::test]
    async fn the_endpoint_is_discovered() {
        let issuer = "https://login.example.com";
        let server = server().issuer(issuer);
        let client = OAuthClient::discover_with_transport(issuer, server.clone())
            .unwrap()
            .client_auth(ClientAuth::client_secret_basic(
                AuthorizationServer::CLIENT_ID,
                AuthorizationServer::CLIENT_SECRET,
            ));
        let source = |client| RefreshTokenSource::new(client, server.issue_refresh_token());
        let cache = TokenCache::new(source(client.clone()));
        cache.token().await.unwrap();
        cache.revoke().await.unwrap();
        assert_has_no_token(&cache).await;
        assert_eq!((server.revocations(), server.metadata_requests()), (2, 1));
    }

    #[tokio::test]
    async fn an_unknown_token_is_revoked_already() {
        let server = server();
        let cache = process(&server, "rt-unknown", &MemoryStore::new());
        cache.revoke().await.unwrap();
        assert_has_no_token(&cache).await;
        let cache = process(&server, "rt-unknown", &MemoryStore::new());
        let google = r#"{"error":"invalid_token","error_description":"Token expired or revoked"}"#;
        server.revocation_fault(Fault::raw(
            StatusCode::BAD_REQUEST,
            "application/json",
            google,
        ));
        cache.revoke().await.unwrap();
        assert_has_no_token(&cache).await;
    }

    #[tokio::test]
    async fn an_access_token_that_cannot_be_revoked_ends_with_its_session() {
        let server = server();
        let cache = process(&server, &server.issue_refresh_token(), &MemoryStore::new());
        cache.token().await.unwrap();
        server.revocation_fault(Fault::raw(StatusCode::OK, "text/plain", ""));
        server.revocation_fault(Fault::error("unsupported_token_type"));
        cache.revoke().await.unwrap();
        assert_has_no_token(&cache).await;
    }
}

#[tokio::test]
async fn an_access_token_without_a_refresh_token_that_cannot_be_revoked_is_an_error() {
    let server = server();
    let cache = TokenCache::new(ClientCredentialsSource::new(client(&server)));
    cache.token().await.unwrap();
    server.revocation_fault(Fault::error("unsupported_token_type"));
    let error = cache.revoke().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidRequest, "{error}");
    assert!(cache.peek().is_some());
}

#[tokio::test]
async fn a_grant_without_refresh_tokens_does_not_revoke_the_session_of_a_later_login() {
    let (server, store) = (server(), MemoryStore::new());
    let machine = || {
        let source = ClientCredentialsSource::new(client(&server));
        TokenCache::new(source.store(store.clone()))
    };
    machine().token().await.unwrap();
    let user = process(&server, &server.issue_refresh_token(), &store);
    user.token().await.unwrap();
    let of_user = stored(&store).await;
    let cache = machine();
    cache.token().await.unwrap();
    let error = cache.revoke().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config, "{error}");
    assert_eq!(stored(&store).await, of_user);
    assert_eq!(server.revocations(), 0);
    user.token().await.unwrap();
}

#[tokio::test]
async fn a_web_page_is_no_revocation() {
    let server = server();
    let cache = process(&server, &server.issue_refresh_token(), &MemoryStore::new());
    cache.token().await.unwrap();
    server.revocation_fault(Fault::Html(StatusCode::OK));
    let error = cache.revoke().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{error}");
    assert!(cache.peek().is_some());
    // Its type says nothing of a response that is empty.
    for _ in 0..2 {
        server.revocation_fault(Fault::raw(StatusCode::OK, "text/html", ""));
    }
    cache.revoke().await.unwrap();
}

mod in_the_store {
    use super::*;

    async fn tombstone(store: &impl CloneStore) {
        let server = server();
        let login = server.issue_refresh_token();
        process(&server, &server.issue_refresh_token(), store)
            .token()
            .await
            .unwrap();
        let cache = process(&server, &login, store);
        cache.token().await.unwrap();
        let before = stored(store).await;
        cache.revoke().await.unwrap();
        let after = stored(store).await;
        assert_eq!(after["version"], before["version"].as_u64().unwrap() + 1);
        assert!(after["generation"].as_u64() >= before["generation"].as_u64());
        for kept in ["identity", "former_identities", "client"] {
            assert_eq!(after[kept], before[kept]);
        }
        assert_eq!(after["former_identities"].as_array().unwrap().len(), 1);
        for dropped in [
            "access",
            "refresh_token",
            "refresh_expires_at",
            "refreshing_since",
        ] {
            assert!(after[dropped].is_null(), "{after}");
        }
        assert_eq!(after["ended"]["reason"], "revoked");
        assert!(after["ended"]["since"].is_u64());
        assert!(after["ended"]["credentials"].as_array().unwrap().len() >= 2);

        // In another process, too.
        let before = server.requests().len();
        assert_has_no_token(&process(&server, &login, store)).await;
        assert_eq!(server.requests().len(), before);
    }

    #[tokio::test]
    async fn a_revoked_session_keeps_its_identities_and_no_token() {
        tombstone(&MemoryStore::new()).await;
        let folder = tempfile::tempdir().unwrap();
        tombstone(&FileStore::new(folder.path().join("session.json")).unwrap()).await;
    }

    #[tokio::test]
    async fn no_process_with_an_old_configuration_begins_it_anew() {
        let server = server();
        let store = MemoryStore::new();
        let (first, second) = (server.issue_refresh_token(), server.issue_refresh_token());
        process(&server, &first, &store).token().await.unwrap();
        let cache = process(&server, &second, &store);
        cache.token().await.unwrap();
        let rotated = stored(&store).await["refresh_token"].clone();
        cache.revoke().await.unwrap();
        let before = (server.requests().len(), stored(&store).await);
        for old in [&*first, &*second, rotated.as_str().unwrap()] {
            assert_has_no_token(&process(&server, old, &store)).await;
        }
        assert_eq!((server.requests().len(), stored(&store).await), before);
    }

    #[tokio::test]
    async fn a_grant_that_can_repeat_does_not_begin_it_anew() {
        let server = server();
        let store = MemoryStore::new();
        let token = server.issue_exchange_token();
        let cache = repeatable(&server, &token, &store);
        cache.token().await.unwrap();
        cache.revoke().await.unwrap();
        assert_has_no_token(&cache).await;
        assert_has_no_token(&repeatable(&server, &token, &store)).await;
        assert_eq!((server.exchanges(), server.live_sessions()), (1, 0));
        // Nor one that has not been used.
        let (store, token) = (MemoryStore::new(), server.issue_exchange_token());
        repeatable(&server, &token, &store).revoke().await.unwrap();
        assert_has_no_token(&repeatable(&server, &token, &store)).await;
        assert_eq!(server.exchanges(), 1);
    }

    #[tokio::test]
    async fn a_new_login_begins_another_session() {
        let server = server();
        let store = MemoryStore::new();
        let old = server.issue_refresh_token();
        let cache = process(&server, &old, &store);
        cache.token().await.unwrap();
        cache.revoke().await.unwrap();
        let login = process(&server, &server.issue_refresh_token(), &store);
        login.token().await.unwrap();
        assert!(stored(&store).await["ended"].is_null());
        // The old login is known as such.
        process(&server, &old, &store).token().await.unwrap();
        assert_eq!(server.live_sessions(), 1);
    }

    #[tokio::test]
    async fn a_revoked_session_is_no_change_for_a_process_with_an_earlier_login() {
        let (server, store) = (server(), MemoryStore::new());
        let source = |login: &str| {
            let source = RefreshTokenSource::new(client(&server), login);
            source.store(store.clone())
        };
        let (old, new) = (server.issue_refresh_token(), server.issue_refresh_token());
        source(&old).token(TokenContext::new()).await.unwrap();
        let later = source(&new);
        later.token(TokenContext::new()).await.unwrap();
        later.revoke(TokenContext::new()).await.unwrap();
        let earlier = source(&old);
        assert_is_revoked(&earlier.token(TokenContext::new()).await.unwrap_err());
        assert!(!earlier.has_changed().await);
    }

    #[tokio::test]
    async fn a_login_that_was_revoked_before_its_first_use_begins_no_session() {
        let server = server();
        let store = MemoryStore::new();
        let old = repeatable(&server, &server.issue_exchange_token(), &store);
        old.token().await.unwrap();
        let login = server.issue_exchange_token();
        repeatable(&server, &login, &store).revoke().await.unwrap();
        assert_has_no_token(&repeatable(&server, &login, &store)).await;
        assert_eq!((server.exchanges(), server.live_sessions()), (1, 0));
    }

    /// The store loses what was saved after `kept`.
    async fn fail_over(store: &MemoryStore, kept: &StoredSession) {
        let last_write = stored(store).await["version"].as_u64().unwrap();
        let mut lease = store.lease().await.unwrap();
        lease.save(last_write, kept).await.unwrap();
    }

    #[tokio::test]
    async fn a_revocation_that_a_failover_has_lost_is_saved_by_the_next_call() {
        for another_revokes in [false, true] {
            let (server, store) = (server(), MemoryStore::new());
            let old = repeatable(&server, &server.issue_exchange_token(), &store);
            old.token().await.unwrap();
            old.revoke().await.unwrap();
            let kept = store.load().await.unwrap().unwrap();
            let login = server.issue_exchange_token();
            let cache = repeatable(&server, &login, &store);
            cache.revoke().await.unwrap();

            fail_over(&store, &kept).await;
            if another_revokes {
                let another = server.issue_exchange_token();
                repeatable(&server, &another, &store)
                    .revoke()
                    .await
                    .unwrap();
            }
            cache.revoke().await.unwrap();
            assert_has_no_token(&repeatable(&server, &login, &store)).await;
            assert_eq!((server.exchanges(), server.live_sessions()), (1, 0));
            // It is saved once.
            let after = stored(&store).await;
            cache.revoke().await.unwrap();
            assert_eq!(stored(&store).await, after);
        }
    }

    #[tokio::test]
    async fn another_client_begins_a_session_only_with_a_new_login() {
        let server = server();
        let store = MemoryStore::new();
        let token = server.issue_exchange_token();
        let cache = repeatable(&server, &token, &store);
        cache.token().await.unwrap();
        cache.revoke().await.unwrap();
        let other = |token: String| {
            let source = ExchangeTokenSource::new(client(&server).parameter("scope", "x"), token);
            TokenCache::new(source.store(store.clone()))
        };
        let error = other(token).token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{error}");
        other(server.issue_exchange_token()).token().await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_begins_it_anew() {
        let server = server();
        let store = MemoryStore::new();
        let token = server.issue_exchange_token();
        let cache = repeatable(&server, &token, &store);
        cache.token().await.unwrap();
        cache.revoke().await.unwrap();
        cache.reset();
        cache.token().await.unwrap();
        assert_eq!((server.exchanges(), server.live_sessions()), (2, 1));
        assert!(stored(&store).await["ended"].is_null());
        // In a process that finds the revoked session, too.
        cache.revoke().await.unwrap();
        let cache = repeatable(&server, &token, &store);
        assert_has_no_token(&cache).await;
        cache.reset();
        cache.token().await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_before_the_revocation_does_not_pass_it() {
        let server = server();
        let store = MemoryStore::new();
        let cache = repeatable(&server, &server.issue_exchange_token(), &store);
        cache.token().await.unwrap();
        cache.reset();
        cache.revoke().await.unwrap();
        assert_has_no_token(&cache).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_finds_the_session_revoked_goes_on_after_a_new_login() {
        let (server, store) = (server(), MemoryStore::new());
        let login = server.issue_refresh_token();
        let first = process(&server, &login, &store);
        first.token().await.unwrap();
        first.revoke().await.unwrap();
        // It has never had a token.
        let second = process(&server, &login, &store);
        second.revoke().await.unwrap();
        assert_has_no_token(&second).await;
        let new = process(&server, &server.issue_refresh_token(), &store);
        let token = new.token().await.unwrap();
        sleep(11 * SECOND).await;
        // This call still fails, and the new session is found in the background.
        second.token().await.unwrap_err();
        sleep(SECOND).await;
        assert_eq!(second.token().await.unwrap().header(), token.header());
    }

    #[tokio::test]
    async fn a_session_is_revoked_once() {
        let server = server();
        let store = MemoryStore::new();
        let login = server.issue_refresh_token();
        let cache = process(&server, &login, &store);
        cache.token().await.unwrap();
        cache.revoke().await.unwrap();
        let after = stored(&store).await;
        cache.revoke().await.unwrap();
        process(&server, &login, &store).revoke().await.unwrap();
        assert_eq!(stored(&store).await, after);
        assert_eq!(server.revocations(), 2);
    }
}

mod failures {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_call_keeps_the_session() {
        let raw = |status: u16, body: &'static str| {
            Fault::raw(status.try_into().unwrap(), "application/json", body)
        };
        let redirect = Fault::Redirect {
            status: StatusCode::FOUND,
            location: http::Uri::from_static("https://elsewhere.example/revoke"),
        };
        for (fault, kind, text) in [
            (
                Fault::error("unsupported_token_type"),
                TokenErrorKind::InvalidRequest,
                "does not revoke",
            ),
            (
                Fault::error("invalid_client"),
                TokenErrorKind::InvalidClient,
                "client secret",
            ),
            (
                Fault::error("invalid_grant"),
                TokenErrorKind::InvalidRequest,
                "to this client",
            ),
            (
                raw(200, r#"{"error":"invalid_request"}"#),
                TokenErrorKind::InvalidRequest,
                "not revoked",
            ),
            (
                raw(404, ""),
                TokenErrorKind::InvalidResponse,
                "URL of the revocation endpoint",
            ),
            (
                Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
                TokenErrorKind::Server,
                "still valid",
            ),
            (redirect, TokenErrorKind::InvalidResponse, "not followed"),
            (
                Fault::DropBeforeCommit,
                TokenErrorKind::Transport,
                "POST https://login.example.com/revoke",
            ),
            (
                Fault::NeverAnswers,
                TokenErrorKind::Timeout,
                "POST https://login.example.com/revoke",
            ),
        ] {
            let server = server();
            let store = MemoryStore::new();
            let cache = process(&server, &server.issue_refresh_token(), &store);
            let token = cache.token().await.unwrap();
            let before = stored(&store).await;
            server.revocation_fault(fault);
            let error = cache.revoke().await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
            assert_hides(&error, &[before["refresh_token"].as_str().unwrap()]);
            assert_eq!(stored(&store).await, before);
            assert_eq!(cache.peek().unwrap().header(), token.header());
            sleep(SECOND).await;
            cache.refresh().await.unwrap();
            cache.revoke().await.unwrap();
            assert_has_no_token(&cache).await;
            assert_eq!(server.live_sessions(), 0);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_busy_says_when_to_try_again() {
        let server = server();
        let cache = process(&server, &server.issue_refresh_token(), &MemoryStore::new());
        cache.token().await.unwrap();
        server.revocation_fault(Fault::Unavailable {
            retry_after: 7 * SECOND,
        });
        let error = cache.revoke().await.unwrap_err();
        assert!(error.is_transient());
        assert_eq!(error.retry_after(), Some(7 * SECOND));
        assert!(
            error
                .to_string()
                .starts_with("the revocation endpoint failed"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn without_an_endpoint_nothing_changes() {
        let server = server();
        let store = MemoryStore::new();
        let source =
            RefreshTokenSource::new(without_endpoint(&server), server.issue_refresh_token());
        let cache = TokenCache::new(source.store(store.clone()));
        cache.token().await.unwrap();
        let before = (server.requests().len(), stored(&store).await);
        let error = cache.revoke().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(error.to_string().contains("revocation_url"), "{error}");
        assert_eq!((server.requests().len(), stored(&store).await), before);
        cache.refresh().await.unwrap();
    }

    #[tokio::test]
    async fn metadata_without_an_endpoint_are_an_error_that_says_so() {
        let issuer = "https://login.example.com";
        let server = server()
            .issuer(issuer)
            .metadata_member("revocation_endpoint", Value::Null);
        let client = OAuthClient::discover_with_transport(issuer, server.clone()).unwrap();
        let cache = TokenCache::new(RefreshTokenSource::new(client, "rt"));
        let error = cache.revoke().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(
            error
                .to_string()
                .contains("metadata name no revocation endpoint"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_source_of_ones_own_cannot_revoke_unless_it_says_how() {
        let cache = TokenCache::new(source_fn(|_| async { Token::new("abc") }).boxed());
        cache.token().await.unwrap();
        let error = cache.revoke().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(error.to_string().contains("cannot revoke"), "{error}");
        assert!(cache.peek().is_some());
    }

    #[test]
    fn a_revocation_url_is_as_secure_as_the_token_endpoint() {
        for (url, kind) in [
            (
                "http://login.example.com/revoke",
                TokenErrorKind::InsecureOrigin,
            ),
            ("http://localhost/revoke", TokenErrorKind::Config),
            ("/revoke", TokenErrorKind::Config),
        ] {
            let error = without_endpoint(&server()).revocation_url(url).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains("revocation"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_that_cannot_be_saved_holds_and_is_saved_later() {
        let server = server();
        let store = FailingStore::default();
        let token = server.issue_exchange_token();
        let cache = repeatable(&server, &token, &store);
        cache.token().await.unwrap();
        store.fails.store(true, Ordering::SeqCst);
        let error = cache.revoke().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(
            error.to_string().contains("revoked at the server"),
            "{error}"
        );
        assert!(error.is_final());
        assert!(cache.peek().is_none(), "the server may not reject it");
        assert_eq!(server.live_sessions(), 0);
        // This process knows, although the store has the old session.
        for _ in 0..3 {
            assert_is_revoked(&cache.refresh().await.unwrap_err());
            cache.revoke().await.unwrap_err();
            sleep(15 * SECOND).await;
        }
        assert_eq!((server.exchanges(), server.token_requests()), (1, 1));
        store.fails.store(false, Ordering::SeqCst);
        sleep(10 * SECOND).await;
        assert_eq!(stored(&store).await["ended"]["reason"], "revoked");
        assert_has_no_token(&repeatable(&server, &token, &store)).await;
        cache.revoke().await.unwrap();
        assert_has_no_token(&cache).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_unsaved_revocation_of_an_unsaved_session_does_not_go_on_with_the_stored_one() {
        let server = server().detect_reuse(false);
        let store = FailingStore::default();
        let cache = process(&server, &server.issue_refresh_token(), &store);
        cache.token().await.unwrap();
        store.fails.store(true, Ordering::SeqCst);
        sleep(2 * SECOND).await;
        // The store keeps the refresh token before the current one.
        cache.refresh().await.unwrap();
        cache.revoke().await.unwrap_err();
        let requests = server.token_requests();
        for _ in 0..3 {
            sleep(15 * SECOND).await;
            assert_is_revoked(&cache.refresh().await.unwrap_err());
        }
        assert_eq!(server.token_requests(), requests);
        store.fails.store(false, Ordering::SeqCst);
        sleep(10 * SECOND).await;
        assert_eq!(stored(&store).await["ended"]["reason"], "revoked");
    }
}

mod at_the_same_time {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_runs_is_waited_for_and_its_tokens_are_revoked() {
        let server = server();
        let store = MemoryStore::new();
        let cache = process(&server, &server.issue_refresh_token(), &store);
        cache.token().await.unwrap();
        sleep(SECOND).await;
        server.fault(Fault::Delay(5 * SECOND));
        let refresh = tokio::spawn({
            let cache = cache.clone();
            async move { cache.refresh().await }
        });
        sleep(SECOND).await;
        cache.revoke().await.unwrap();
        let rotated = refresh.await.unwrap().unwrap();
        assert_eq!(server.refreshes(), 2);
        assert_eq!(revoked(&server).last().unwrap().0, rotated.expose_secret());
        assert_eq!(server.live_sessions(), 0);
        assert_has_no_token(&cache).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_of_another_process_is_waited_for() {
        let server = server();
        let store = MemoryStore::new();
        let login = server.issue_refresh_token();
        let (here, there) = (
            process(&server, &login, &store),
            process(&server, &login, &store),
        );
        here.token().await.unwrap();
        there.token().await.unwrap();
        sleep(SECOND).await;
        server.fault(Fault::Delay(5 * SECOND));
        let refresh = tokio::spawn({
            let there = there.clone();
            async move { there.refresh().await }
        });
        sleep(SECOND).await;
        here.revoke().await.unwrap();
        refresh.await.unwrap().unwrap();
        // The rotated token was sent, so the server knew it.
        assert_eq!((server.refreshes(), server.live_sessions()), (2, 0));
        assert_is_revoked(&there.refresh().await.unwrap_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_without_the_lease() {
        let server = server();
        let store = MemoryStore::new();
        let cache = process(&server, &server.issue_refresh_token(), &store);
        cache.token().await.unwrap();
        let lease = store.lease().await.unwrap();
        let revocation = tokio::spawn({
            let cache = cache.clone();
            async move { cache.revoke().await }
        });
        sleep(SECOND).await;
        assert_eq!(server.revocation_requests(), 0);
        lease.release().await;
        revocation.await.unwrap().unwrap();
        assert_eq!(server.revocation_requests(), 2);
    }

    /// A store whose leases keep no one waiting, as after a lease has ended although its process still runs.
    #[derive(Clone, Default)]
    struct WithoutWaiting(Arc<Mutex<Option<StoredSession>>>);

    impl TokenStore for WithoutWaiting {
        type Lease = Self;

        async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
            Ok(self.0.lock().unwrap().clone())
        }

        async fn lease(&self) -> Result<Self, TokenError> {
            Ok(self.clone())
        }
    }

    impl StoreLease for WithoutWaiting {
        async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
            let mut stored = self.0.lock().unwrap();
            if stored.as_ref().map_or(0, StoredSession::version) != replaces {
                return Err(TokenError::new(
                    TokenErrorKind::LeaseLost,
                    "another version",
                ));
            }
            *stored = Some(session.clone());
            Ok(())
        }

        async fn is_held(&self) -> Result<bool, TokenError> {
            Ok(false)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_is_rejected_because_of_the_revocation_begins_nothing() {
        let server = server();
        let store = WithoutWaiting::default();
        let token = server.issue_exchange_token();
        let here = repeatable(&server, &token, &store);
        here.token().await.unwrap();
        // Token requests of the other process arrive after the revocation.
        let slow = {
            let server = server.clone();
            tower::service_fn(move |request: http::Request<Full<Bytes>>| {
                let server = server.clone();
                async move {
                    sleep(5 * SECOND).await;
                    server.oneshot(request).await
                }
            })
        };
        let client = OAuthClient::with_transport(TOKEN_URL, slow)
            .unwrap()
            .client_auth(ClientAuth::client_secret_basic(
                AuthorizationServer::CLIENT_ID,
                AuthorizationServer::CLIENT_SECRET,
            ));
        let there = TokenCache::new(ExchangeTokenSource::new(client, token).store(store.clone()));
        there.token().await.unwrap();
        sleep(SECOND).await;
        let refresh = tokio::spawn(async move { there.refresh().await });
        sleep(SECOND).await;
        here.revoke().await.unwrap();
        assert_is_revoked(&refresh.await.unwrap().unwrap_err());
        assert_eq!((server.exchanges(), server.live_sessions()), (1, 0));
        assert_eq!(stored(&store).await["ended"]["reason"], "revoked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_begins_meanwhile_brings_no_token() {
        let server = server();
        let cache = repeatable(&server, &server.issue_exchange_token(), &MemoryStore::new());
        cache.token().await.unwrap();
        sleep(SECOND).await;
        server.revocation_fault(Fault::Delay(5 * SECOND));
        let revocation = tokio::spawn({
            let cache = cache.clone();
            async move { cache.revoke().await }
        });
        sleep(SECOND).await;
        assert_is_revoked(&cache.refresh().await.unwrap_err());
        revocation.await.unwrap().unwrap();
        assert_has_no_token(&cache).await;
        assert_eq!((server.token_requests(), server.live_sessions()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_after_a_reset_does_not_pass_the_revocation_that_it_waits_for() {
        let server = server();
        let store = MemoryStore::new();
        let cache = repeatable(&server, &server.issue_exchange_token(), &store);
        cache.token().await.unwrap();
        sleep(SECOND).await;
        cache.reset();
        server.revocation_fault(Fault::Delay(5 * SECOND));
        let revocation = tokio::spawn({
            let cache = cache.clone();
            async move { cache.revoke().await }
        });
        sleep(SECOND).await;
        assert_is_revoked(&cache.refresh().await.unwrap_err());
        revocation.await.unwrap().unwrap();
        assert_eq!((server.exchanges(), server.live_sessions()), (1, 0));
        assert_eq!(stored(&store).await["ended"]["reason"], "revoked");
    }

    /// A store whose saves take five seconds while `is_slow` is set.
    #[derive(Clone, Default)]
    struct SlowStore {
        inner: MemoryStore,
        is_slow: Arc<AtomicBool>,
    }

    struct SlowLease(<MemoryStore as TokenStore>::Lease, Arc<AtomicBool>);

    impl TokenStore for SlowStore {
        type Lease = SlowLease;

        async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
            self.inner.load().await
        }

        async fn lease(&self) -> Result<SlowLease, TokenError> {
            Ok(SlowLease(self.inner.lease().await?, self.is_slow.clone()))
        }
    }

    impl StoreLease for SlowLease {
        async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
            if self.1.load(Ordering::SeqCst) {
                sleep(5 * SECOND).await;
            }
            self.0.save(replaces, session).await
        }

        async fn is_held(&self) -> Result<bool, TokenError> {
            self.0.is_held().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nor_does_a_refresh_that_begins_while_the_revocation_is_saved() {
        let (server, store) = (server(), SlowStore::default());
        let cache = repeatable(&server, &server.issue_exchange_token(), &store);
        cache.token().await.unwrap();
        sleep(SECOND).await;
        cache.reset();
        store.is_slow.store(true, Ordering::SeqCst);
        let revocation = tokio::spawn({
            let cache = cache.clone();
            async move { cache.revoke().await }
        });
        sleep(SECOND).await;
        assert_eq!(server.live_sessions(), 0, "revoked, and not saved yet");
        assert_is_revoked(&cache.refresh().await.unwrap_err());
        revocation.await.unwrap().unwrap();
        assert_eq!((server.exchanges(), server.live_sessions()), (1, 0));
        assert_eq!(stored(&store).await["ended"]["reason"], "revoked");
    }

    #[tokio::test(start_paused = true)]
    async fn nor_does_a_request_without_refresh_tokens() {
        let server = server();
        let store = MemoryStore::new();
        let cache =
            TokenCache::new(ClientCredentialsSource::new(client(&server)).store(store.clone()));
        cache.token().await.unwrap();
        sleep(SECOND).await;
        cache.reset();
        server.revocation_fault(Fault::Delay(3 * SECOND));
        let revocation = tokio::spawn({
            let cache = cache.clone();
            async move { cache.revoke().await }
        });
        sleep(SECOND).await;
        assert_is_revoked(&cache.refresh().await.unwrap_err());
        revocation.await.unwrap().unwrap();
        assert_eq!(server.token_requests(), 1);
        assert_eq!(stored(&store).await["ended"]["reason"], "revoked");
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_caller_does_not_stop_it() {
        let server = server();
        let store = MemoryStore::new();
        let cache = process(&server, &server.issue_refresh_token(), &store);
        cache.token().await.unwrap();
        server.revocation_fault(Fault::Delay(5 * SECOND));
        let caller = tokio::time::timeout(SECOND, cache.revoke()).await;
        assert!(caller.is_err());
        sleep(10 * SECOND).await;
        assert_has_no_token(&cache).await;
        assert_eq!(stored(&store).await["ended"]["reason"], "revoked");
    }

    /// A source whose refreshes end when the test says so, and whose revocation waits for none of them.
    #[derive(Clone, Default)]
    struct ByHand {
        calls: Arc<AtomicUsize>,
        permit: Arc<Notify>,
    }

    impl TokenSource for ByHand {
        async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
            let n = self.calls.fetch_add(1, Ordering::SeqCst);
            if n > 0 {
                self.permit.notified().await;
            }
            Token::new(format!("token-{n}"))
        }

        async fn revoke(&self, cx: TokenContext) -> Result<(), TokenError> {
            assert_eq!(cx.previous_token().unwrap().expose_secret(), "token-0");
            // A refresh begins after the cache has looked whether one runs.
            sleep(SECOND).await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_ends_after_the_revocation_brings_no_token() {
        let source = ByHand::default();
        let cache = TokenCache::new(source.clone());
        cache.token().await.unwrap();
        let revocation = tokio::spawn({
            let cache = cache.clone();
            async move { cache.revoke().await }
        });
        yield_now().await;
        yield_now().await;
        let refresh = tokio::spawn({
            let cache = cache.clone();
            async move { cache.refresh().await }
        });
        revocation.await.unwrap().unwrap();
        source.permit.notify_one();
        assert_is_revoked(&refresh.await.unwrap().unwrap_err());
        assert_has_no_token(&cache).await;
        // After a reset, a refresh counts again.
        cache.reset();
        source.permit.notify_one();
        cache.token().await.unwrap();
    }
}

mod for_callers {
    use super::*;

    #[tokio::test]
    async fn requests_fail_with_the_reason() {
        let server = server();
        let api = server.api();
        let cache = process(&server, &server.issue_refresh_token(), &MemoryStore::new());
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(api.clone());
        send(&client, get(API)).await.unwrap();
        // A request that is under way gets the server's own response, with the reason.
        api.hold();
        let held = tokio::spawn({
            let client = client.clone();
            async move { send(&client, get(API)).await }
        });
        api.wait_for_held(1).await;
        cache.revoke().await.unwrap();
        api.release();
        let response = held.await.unwrap().unwrap();
        assert_eq!(response.status(), 401);
        assert_is_revoked(&reason(&response));

        let received = api.received();
        assert_is_revoked(&failure(send(&client, get(API)).await));
        assert_eq!(api.received(), received);
        assert_is_revoked(cache.status().last_error.as_ref().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn other_processes_stop_refreshing_and_go_on_after_a_new_login() {
        let server = server();
        let store = MemoryStore::new();
        let token = server.issue_exchange_token();
        let (here, there) = (
            repeatable(&server, &token, &store),
            repeatable(&server, &token, &store),
        );
        here.token().await.unwrap();
        there.token().await.unwrap();
        here.revoke().await.unwrap();
        // It has a token of its own, until that expires or is rejected.
        there.token().await.unwrap();
        sleep(Duration::from_secs(900)).await;
        let requests = server.requests().len();
        for _ in 0..10 {
            assert_has_no_token(&there).await;
            assert_has_no_token(&here).await;
            sleep(60 * SECOND).await;
        }
        assert_is_revoked(there.status().last_error.as_ref().unwrap());
        assert_eq!(server.requests().len(), requests);

        let login = repeatable(&server, &server.issue_exchange_token(), &store);
        let token = login.token().await.unwrap();
        for cache in [&there, &here] {
            // The first call after a while looks into the store.
            drop(cache.token().await);
            sleep(SECOND).await;
            assert_eq!(cache.token().await.unwrap().header(), token.header());
        }
        assert_eq!((server.exchanges(), server.refreshes()), (2, 0));
    }

    #[tokio::test]
    async fn a_person_is_told_what_to_do() {
        let server = server();
        let store = MemoryStore::new();
        let login = server.issue_refresh_token();
        process(&server, &login, &store).revoke().await.unwrap();
        let source = RefreshTokenSource::new(client(&server), login)
            .store(store)
            .reauth_hint("log in at the portal");
        let error = TokenCache::new(source).token().await.unwrap_err();
        assert_is_revoked(&error);
        assert!(
            error.to_string().contains("log in at the portal"),
            "{error}"
        );
        assert!(error.to_string().contains("GMT"), "{error}");
    }

    #[tokio::test]
    async fn a_session_name_does_not_change_what_is_revoked() {
        let server = server();
        let store = MemoryStore::new();
        let login = server.issue_refresh_token();
        let named = |name: &str| {
            let source: GrantSource<_> = RefreshTokenSource::new(client(&server), login.clone());
            TokenCache::new(source.store(store.clone()).session_name(name))
        };
        named("a").token().await.unwrap();
        // Of another session, so nothing is sent.
        let error = named("b").revoke().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert_eq!(server.revocation_requests(), 0);
        named("a").revoke().await.unwrap();
        assert_has_no_token(&named("a")).await;
    }
}

#[tokio::test]
async fn a_wrapped_source_gets_the_call() {
    #[derive(Default)]
    struct Recording(Mutex<Vec<Value>>);

    impl TokenSource for Recording {
        async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
            Token::new("abc")
        }

        async fn revoke(&self, cx: TokenContext) -> Result<(), TokenError> {
            let token = cx
                .previous_token()
                .map(|token| token.expose_secret().to_owned());
            self.0.lock().unwrap().push(json!(token));
            Ok(())
        }
    }

    let recording = Arc::new(Recording::default());
    let cache = TokenCache::new(Box::new(Arc::clone(&recording)).boxed());
    cache.revoke().await.unwrap();
    assert_has_no_token(&cache).await;
    cache.reset();
    cache.token().await.unwrap();
    cache.revoke().await.unwrap();
    assert_eq!(*recording.0.lock().unwrap(), [Value::Null, json!("abc")]);
}

mod simulation {
    use super::*;

    /// A store whose loads and saves fail at random. Some saves that seem to fail have succeeded.
    #[derive(Clone)]
    struct Shaky {
        session: Arc<Mutex<Option<StoredSession>>>,
        lease: Arc<tokio::sync::Semaphore>,
        random: Arc<Mutex<fastrand::Rng>>,
        is_calm: Arc<AtomicBool>,
    }

    struct ShakyLease {
        store: Shaky,
        _held: tokio::sync::OwnedSemaphorePermit,
    }

    impl Shaky {
        fn fails(&self) -> bool {
            !self.is_calm.load(Ordering::SeqCst) && self.random.lock().unwrap().u8(..20) == 0
        }

        fn broken<T>() -> Result<T, TokenError> {
            Err(TokenError::new(TokenErrorKind::Store, "out of order"))
        }
    }

    impl TokenStore for Shaky {
        type Lease = ShakyLease;

        async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
            if self.fails() {
                return Self::broken();
            }
            Ok(self.session.lock().unwrap().clone())
        }

        async fn lease(&self) -> Result<ShakyLease, TokenError> {
            let held = Arc::clone(&self.lease).acquire_owned().await.unwrap();
            Ok(ShakyLease {
                store: self.clone(),
                _held: held,
            })
        }
    }

    impl StoreLease for ShakyLease {
        async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
            if self.store.fails() {
                return Shaky::broken();
            }
            let mut stored = self.store.session.lock().unwrap();
            let json = |session: &StoredSession| serde_json::to_value(session).unwrap();
            if stored.as_ref().is_some_and(|it| json(it) == json(session)) {
                return Ok(());
            }
            if stored.as_ref().map_or(0, StoredSession::version) != replaces {
                return Err(TokenError::new(TokenErrorKind::LeaseLost, "lost"));
            }
            *stored = Some(session.clone());
            if self.store.fails() {
                return Shaky::broken();
            }
            Ok(())
        }

        async fn is_held(&self) -> Result<bool, TokenError> {
            Ok(!self.store.fails())
        }
    }

    async fn random_use(cache: TokenCache, mut random: fastrand::Rng) {
        for _ in 0..40 {
            sleep(Duration::from_millis(random.u64(0..3_000))).await;
            match random.u8(..4) {
                0 => drop(cache.refresh().await),
                1 => {
                    if let Some(token) = cache.peek() {
                        cache.reject(&token);
                    }
                }
                _ => drop(cache.token().await),
            }
        }
    }

    fn random_fault(random: &mut fastrand::Rng) -> Option<Fault> {
        Some(match random.u8(..8) {
            0 => Fault::Delay(Duration::from_millis(random.u64(0..8_000))),
            1 => Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
            2 => Fault::DropBeforeCommit,
            _ => return None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_revocation_no_process_has_a_session_whatever_happens_at_the_same_time() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let server = server();
            let store = Shaky {
                session: Arc::default(),
                lease: Arc::new(tokio::sync::Semaphore::new(1)),
                random: Arc::new(Mutex::new(random.fork())),
                is_calm: Arc::default(),
            };
            let token = server.issue_exchange_token();
            let caches: Vec<_> = (0..3)
                .map(|_| repeatable(&server, &token, &store))
                .collect();
            let users: Vec<_> = caches
                .iter()
                .map(|cache| tokio::spawn(random_use(cache.clone(), random.fork())))
                .collect();
            sleep(Duration::from_millis(random.u64(0..20_000))).await;
            let mut is_revoked = false;
            for _ in 0..50 {
                for fault in (0..4).filter_map(|_| random_fault(&mut random)) {
                    server.revocation_fault(fault);
                }
                for fault in (0..4).filter_map(|_| random_fault(&mut random)) {
                    server.fault(fault);
                }
                if let Err(error) = caches[0].revoke().await {
                    assert!(error.is_transient() || error.is_final(), "{seed}: {error}");
                    sleep(SECOND).await;
                } else {
                    is_revoked = true;
                    break;
                }
            }
            assert!(is_revoked, "{seed}");
            for user in users {
                user.await.unwrap();
            }
            store.is_calm.store(true, Ordering::SeqCst);
            sleep(120 * SECOND).await;
            for cache in &caches {
                assert_is_revoked(&cache.refresh().await.unwrap_err());
            }
            assert_eq!(stored(&store).await["ended"]["reason"], "revoked", "{seed}");
            assert_eq!(server.live_sessions(), 0, "{seed}");
        }
    }
}
