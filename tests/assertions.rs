//! Grants that send a token or an assertion: JWT bearer, token exchange, and the legacy password grant.

#[path = "support/endpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
mod endpoint;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use endpoint::{first, json, next};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use support::TOKEN_URL;
use tokio::time::sleep;
use tower::{ServiceExt, service_fn};
use tower_bearer::{
    ClientAuth, Grant, GrantContext, GrantSource, Identity, JwtAlgorithm, JwtAssertion, JwtBearer,
    JwtBearerSource, LegacyPassword, LegacyPasswordSource, MemoryStore, OAuthClient, Origins,
    Parameters, RefreshTokenSource, SecurityToken, SigningKey, Token, TokenCache, TokenError,
    TokenErrorKind, TokenExchange, TokenExchangeSource, TokenStore, source_fn,
    testing::{AuthorizationServer, Dialect, Fault, SimulatedClock},
};

/// The key of RFC 8410 §10.3.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----";

/// Makes `a-1`, `a-2` and so on.
fn counted() -> SecurityToken {
    let made = Arc::new(AtomicUsize::new(0));
    SecurityToken::from_fn(move |cx| {
        let made = made.fetch_add(1, Ordering::SeqCst) + 1;
        assert_eq!(cx.audience(), TOKEN_URL);
        async move { Ok(format!("a-{made}")) }
    })
}

fn fixed(text: &'static str) -> SecurityToken {
    SecurityToken::from_fn(move |_| async move { Ok(text.to_owned()) })
}

fn key() -> SigningKey {
    SigningKey::from_pem(JwtAlgorithm::EdDsa, KEY).unwrap()
}

/// A server that accepts assertions of the issuer `idp` and of the client `app`.
fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .assertion_issuer("idp", &key())
        .client_key("app", &key())
}

fn client_of(server: &AuthorizationServer) -> OAuthClient {
    let client = OAuthClient::with_transport(TOKEN_URL, server.clone()).unwrap();
    client.client_auth(ClientAuth::private_key_jwt("app", key()))
}

/// A server that knows the client `app` by its secret.
fn server_with_secret() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749).client("app", "s3cr3t")
}

fn client_with_secret(server: &AuthorizationServer) -> OAuthClient {
    client_of(server).client_auth(ClientAuth::client_secret_basic("app", "s3cr3t"))
}

// ---------------------------------------------------------------------------------------------------------------------
// JWT bearer.

/// A source whose assertions are `a-1`, `a-2` and so on. The server accepts a hundred of them.
fn jwt_bearer(server: &AuthorizationServer) -> JwtBearerSource {
    for n in 1..=100 {
        server.accept_assertion(format!("a-{n}"));
    }
    JwtBearerSource::new(client_with_secret(server), counted())
}

#[tokio::test(start_paused = true)]
async fn an_assertion_is_made_anew_for_each_request_and_each_further_attempt() {
    let server = server_with_secret();
    let cache = TokenCache::new(jwt_bearer(&server).scope("read"));
    server.fault_next(2, &Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    while cache.token().await.is_err() {
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(900)).await;
    cache.token().await.unwrap();
    assert_eq!(sent(&server, "assertion"), ["a-1", "a-2", "a-3", "a-4"]);
    let names = server.requests()[0].params.clone();
    let names: Vec<_> = names.iter().take(3).map(|(name, _)| &**name).collect();
    assert_eq!(names, ["grant_type", "assertion", "scope"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_assertion_is_not_final_and_tried_again_slowly_with_no_other_grant() {
    let (server, store) = (server_with_secret(), MemoryStore::new());
    let cache = TokenCache::new(jwt_bearer(&server).store(store.clone()));
    // A refresh token comes with it. It is no way out when the next assertion is rejected.
    let refresh_token = server.issue_refresh_token();
    server.fault(Fault::member("refresh_token", refresh_token));
    cache.token().await.unwrap();
    server.fault_always(Fault::error("invalid_grant"));
    sleep(Duration::from_secs(901)).await;
    for _ in 0..3600 {
        let error = cache.token().await.unwrap_err();
        assert!(!error.is_final(), "{error}");
        sleep(Duration::from_secs(1)).await;
    }
    let sent = sent(&server, "grant_type");
    assert!((5..13).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|it| it.contains("jwt-bearer")), "{sent:?}");
    assert!(json(&store.load().await.unwrap().unwrap())["ended"].is_null());
}

#[tokio::test]
async fn an_assertion_that_cannot_be_made_sends_nothing() {
    let server = server();
    let failing = SecurityToken::from_fn(|_| async {
        let error = std::io::Error::other("the key is locked");
        Err::<String, _>(TokenError::other(error))
    });
    for assertion in [
        failing,
        fixed(""),
        SecurityToken::from_file("/nowhere/assertion"),
    ] {
        let source = JwtBearerSource::new(client_of(&server), assertion);
        let error = first(&source).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Source);
        assert!(error.is_transient());
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn assertions_in_different_files_are_different_sessions() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let of_file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, name).unwrap();
        server.accept_assertion(name);
        let assertion = SecurityToken::from_file(path);
        JwtBearerSource::new(client_of(&server), assertion).store(store.clone())
    };
    first(&of_file("alice")).await.unwrap();
    first(&of_file("alice")).await.unwrap();
    assert_eq!(server.jwt_bearers(), 1);
    let error = first(&of_file("bob")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
}

// ---------------------------------------------------------------------------------------------------------------------
// JWT bearer, at a server whose clock is wrong.

const SKEWS: [i64; 2] = [-3_600, 3_600];

/// An assertion that is valid for a minute. Each has a `jti` of its own, and the server accepts it once.
fn minute() -> SecurityToken {
    let assertion = JwtAssertion::new("idp", key());
    SecurityToken::from_fn(move |cx| {
        let assertion = assertion.clone();
        async move { assertion.make(cx.now(), cx.audience()).await }
    })
}

#[tokio::test]
async fn an_assertion_that_was_made_for_a_wrong_time_is_made_and_sent_again_at_once() {
    for skew in SKEWS {
        // The server knows the client by its secret, so only the time of the grant is wrong.
        let server = server().client("app", "s3cr3t").skew(skew);
        let source = JwtBearerSource::new(client_with_secret(&server), minute());
        let token = first(&source).await.unwrap();
        assert_eq!((server.token_requests(), server.rejected()), (2, 1));
        next(&source, &token).await.unwrap();
        assert_eq!((server.token_requests(), server.jwt_bearers()), (3, 2));
    }
}

#[tokio::test]
async fn the_assertions_of_the_client_and_of_the_grant_are_made_again_together() {
    for skew in SKEWS {
        let server = server().skew(skew);
        let source = JwtBearerSource::new(client_of(&server), minute());
        first(&source).await.unwrap();
        assert_eq!((server.token_requests(), server.rejected()), (2, 1));
    }
}

#[tokio::test]
async fn a_grant_whose_tokens_are_refreshed_is_made_again_as_well() {
    struct Signed(SecurityToken);

    impl Grant for Signed {
        async fn parameters(&self, cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
            JwtBearer::new(self.0.clone()).parameters(cx).await
        }

        fn identity(&self) -> Identity {
            Identity::new("signed", "")
        }

        fn can_repeat(&self) -> bool {
            true
        }
    }

    let server = server().skew(3_600);
    let source = GrantSource::with_grant(client_of(&server), Signed(minute()));
    first(&source).await.unwrap();
    assert_eq!((server.token_requests(), server.rejected()), (2, 1));
}

#[tokio::test]
async fn a_request_is_sent_again_only_once() {
    // Each node shows another time than the one before.
    let server = server();
    let (nodes, skew) = (server.clone(), Arc::new(AtomicI64::new(3_600)));
    let transport = service_fn(move |request: Request<Full<Bytes>>| {
        let node = nodes.clone().skew(skew.fetch_sub(7_200, Ordering::SeqCst));
        node.oneshot(request)
    });
    let client = OAuthClient::with_transport(TOKEN_URL, transport).unwrap();
    for (auth, code) in [
        (ClientAuth::private_key_jwt("app", key()), "invalid_client"),
        (
            ClientAuth::client_secret_post("app", "s3cr3t"),
            "invalid_grant",
        ),
    ] {
        let before = server.token_requests();
        let source = JwtBearerSource::new(client.clone().client_auth(auth), minute());
        let error = first(&source).await.unwrap_err();
        assert_eq!(error.oauth_code(), Some(code));
        assert_eq!(server.token_requests() - before, 2);
        let _ = server.clone().client("app", "s3cr3t");
    }
}

#[tokio::test]
async fn what_does_not_depend_on_the_time_is_not_sent_again() {
    let server = server().client("app", "s3cr3t").skew(3_600);
    let client = || client_with_secret(&server);
    // A new one each time, whatever the time is.
    let source = JwtBearerSource::new(client(), counted());
    first(&source).await.unwrap_err();
    assert_eq!(server.token_requests(), 1);
    let source = RefreshTokenSource::new(client(), "unknown");
    first(&source).await.unwrap_err();
    assert_eq!(server.token_requests(), 2);
    // The client's assertion depends on the time, and is not what the server has rejected.
    server.fault(Fault::error("invalid_grant"));
    let source = RefreshTokenSource::new(client_of(&server), "unknown");
    first(&source).await.unwrap_err();
    assert_eq!(server.token_requests(), 3);
}

#[tokio::test]
async fn after_another_error_than_a_rejection_nothing_is_sent_again() {
    for fault in [
        Fault::Status(StatusCode::BAD_REQUEST),
        Fault::Status(StatusCode::UNAUTHORIZED),
        Fault::Unavailable {
            retry_after: Duration::from_secs(9),
        },
        Fault::error("temporarily_unavailable"),
        Fault::error("invalid_scope"),
    ] {
        let server = server().skew(3_600);
        server.fault(fault);
        let source = JwtBearerSource::new(client_of(&server), minute());
        first(&source).await.unwrap_err();
        assert_eq!(server.token_requests(), 1);
    }
}

#[tokio::test]
async fn if_the_assertion_cannot_be_made_again_the_error_is_that_of_the_server() {
    let server = server().client("app", "s3cr3t").skew(3_600);
    let made = AtomicUsize::new(0);
    let assertion = JwtAssertion::new("idp", key());
    let assertion = SecurityToken::from_fn(move |cx| {
        let is_first = made.fetch_add(1, Ordering::SeqCst) == 0;
        let assertion = assertion.clone();
        async move {
            if is_first {
                return assertion.make(cx.now(), cx.audience()).await;
            }
            Err(TokenError::other(std::io::Error::other(
                "the key is locked",
            )))
        }
    });
    let client = client_with_secret(&server);
    let error = first(&JwtBearerSource::new(client, assertion))
        .await
        .unwrap_err();
    assert_eq!(error.oauth_code(), Some("invalid_grant"));
    assert_eq!(server.token_requests(), 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Token exchange.

/// A server that knows these subjects.
fn exchange_server(subjects: &[&str]) -> AuthorizationServer {
    let server = server_with_secret();
    for subject in subjects {
        server.accept_security_token(*subject, TokenExchange::JWT);
    }
    server
}

fn exchange(server: &AuthorizationServer, subject: SecurityToken) -> TokenExchangeSource {
    let client = client_with_secret(server);
    TokenExchangeSource::new(client, "user-42", subject, TokenExchange::JWT).unwrap()
}

/// The values of this parameter in all requests.
fn sent(server: &AuthorizationServer, name: &str) -> Vec<String> {
    let requests = server.requests();
    let values = requests.iter().filter_map(|request| request.param(name));
    values.map(str::to_owned).collect()
}

#[tokio::test]
async fn an_exchange_sends_subject_and_actor_with_their_types() {
    let server = exchange_server(&["the-subject"]);
    server.accept_security_token("the-actor", TokenExchange::ACCESS_TOKEN);
    let actor = source_fn(|_| async { Token::new("the-actor") });
    let source = exchange(&server, fixed("the-subject"))
        .actor(
            SecurityToken::from_source(actor),
            TokenExchange::ACCESS_TOKEN,
        )
        .requested_token_type(TokenExchange::ACCESS_TOKEN)
        .resource("https://a.example")
        .resource("https://b.example")
        .audience("api")
        .scope("read");
    let token = first(&source).await.unwrap();
    assert!(server.is_live(token.expose_secret()));
    let expected = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", "the-subject"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("actor_token", "the-actor"),
        (
            "actor_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("scope", "read"),
        ("resource", "https://a.example"),
        ("resource", "https://b.example"),
        ("audience", "api"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(server.requests()[0].params, expected);
}

#[tokio::test]
async fn an_exchange_sends_the_current_subject_token_each_time_and_no_refresh_token() {
    let server = exchange_server(&["a-1", "a-2"]);
    server.fault_always(Fault::member("refresh_token", "rt"));
    let store = MemoryStore::new();
    let source = exchange(&server, counted()).store(store.clone());
    let token = first(&source).await.unwrap();
    next(&source, &token).await.unwrap();
    assert_eq!(sent(&server, "subject_token"), ["a-1", "a-2"]);
    let stored = json(&store.load().await.unwrap().unwrap());
    assert!(stored["refresh_token"].is_null(), "{stored}");
}

#[tokio::test]
async fn a_response_without_issued_token_type_is_an_error_that_is_not_final() {
    let server = exchange_server(&["s"]);
    let source = exchange(&server, fixed("s"));
    for value in [Value::Null, " ".into(), 1.into()] {
        server.fault(Fault::member("issued_token_type", value));
        let error = first(&source).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(!error.is_final());
        assert!(error.to_string().contains("issued_token_type"), "{error}");
    }
    first(&source).await.unwrap();
}

#[tokio::test]
async fn a_token_of_type_n_a_is_an_error_unless_another_type_was_requested() {
    let server = exchange_server(&["s"]);
    for requested in [None, Some(TokenExchange::ACCESS_TOKEN)] {
        server.fault(Fault::member("token_type", "N_A"));
        let mut source = exchange(&server, fixed("s"));
        if let Some(requested) = requested {
            source = source.requested_token_type(requested);
        }
        let error = first(&source).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(error.to_string().contains("N_A"), "{error}");
    }

    // As the assertion of another grant.
    let id_jag = "urn:ietf:params:oauth:token-type:id-jag";
    let assertion = exchange(&server, fixed("s")).requested_token_type(id_jag);
    server.fault(Fault::member("access_token", "id.j.ag"));
    server.accept_assertion("id.j.ag");
    let source = JwtBearerSource::new(
        client_with_secret(&server),
        SecurityToken::from_source(assertion),
    );
    first(&source).await.unwrap();
    assert_eq!(sent(&server, "assertion"), ["id.j.ag"]);
}

/// The clock of client and server.
fn clock() -> SimulatedClock {
    SimulatedClock::new(start())
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// The lifetime of the issued token in seconds.
async fn lifetime(server: &AuthorizationServer, subject: SecurityToken) -> Option<u64> {
    let source = exchange(server, subject);
    let cache = TokenCache::builder(source).clock(clock()).build();
    cache.token().await.unwrap();
    let expires_at = cache.status().expires_at?;
    Some(expires_at.duration_since(start()).unwrap().as_secs())
}

/// The token `s`, which lives so long.
fn lasting(seconds: u64) -> SecurityToken {
    let lifetime = Duration::from_secs(seconds);
    let subject = source_fn(move |_| async move { Ok(Token::new("s")?.expires_in(lifetime)) });
    SecurityToken::from_source(subject)
}

#[tokio::test(start_paused = true)]
async fn without_expires_in_the_token_lives_no_longer_than_the_subject_token() {
    let server = exchange_server(&["s"]).clock(clock());
    // What the server says counts.
    assert_eq!(lifetime(&server, lasting(500)).await, Some(900));
    server.fault_always(Fault::member("expires_in", Value::Null));
    assert_eq!(lifetime(&server, lasting(500)).await, Some(500));
    // Nothing is known.
    assert_eq!(lifetime(&server, fixed("s")).await, None);
    // A JWT says when it expires.
    let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"42","exp":1700000600}"#);
    let jwt = &*format!("h.{claims}.s").leak();
    server.accept_security_token(jwt, TokenExchange::JWT);
    assert_eq!(lifetime(&server, fixed(jwt)).await, Some(600));
}

#[tokio::test]
async fn a_stored_token_without_expires_in_lives_no_longer_than_its_subject_either() {
    let server = exchange_server(&["s"]);
    server.fault(Fault::member("expires_in", Value::Null));
    let store = MemoryStore::new();
    let source = exchange(&server, lasting(500)).store(store.clone());
    first(&source).await.unwrap();
    let stored = json(&store.load().await.unwrap().unwrap());
    assert_eq!(stored["access"]["lifetime_secs"], 500);
}

#[test]
fn an_empty_key_or_type_is_a_configuration_error() {
    for (key, token_type) in [
        ("", TokenExchange::JWT),
        (" ", TokenExchange::JWT),
        ("k", ""),
    ] {
        let error = TokenExchange::new(key, fixed("s"), token_type).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        let client = client_of(&server());
        assert!(TokenExchangeSource::new(client, key, fixed("s"), token_type).is_err());
    }
}

#[tokio::test]
async fn the_session_of_another_subject_is_neither_used_nor_overwritten() {
    let server = exchange_server(&["a-1"]);
    let store = MemoryStore::new();
    let of = |key: &str| {
        let client = client_with_secret(&server);
        TokenExchangeSource::new(client, key, counted(), TokenExchange::JWT)
            .unwrap()
            .store(store.clone())
    };
    let token = first(&of("alice")).await.unwrap();
    let error = first(&of("bob")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    // The subject's token has changed, and the subject has not.
    assert!(first(&of("alice")).await.unwrap().expose_secret() == token.expose_secret());
    assert_eq!(server.token_requests(), 1);
    let stored = json(&store.load().await.unwrap().unwrap()).to_string();
    assert!(!stored.contains("alice"), "{stored}");
}

/// The session of a user, and exchanges of its tokens for another API.
fn exchange_of_session(server: &AuthorizationServer) -> TokenExchangeSource {
    let user = RefreshTokenSource::new(client_with_secret(server), server.issue_refresh_token());
    TokenExchangeSource::new(
        client_with_secret(server),
        "user-42",
        SecurityToken::from_source(user),
        TokenExchange::ACCESS_TOKEN,
    )
    .unwrap()
}

#[tokio::test]
async fn the_subject_can_be_a_session_of_its_own() {
    let server = server_with_secret();
    let source = exchange_of_session(&server);
    let token = first(&source).await.unwrap();
    next(&source, &token).await.unwrap();
    // The user's token is still good for the second exchange.
    assert_eq!((server.refreshes(), server.token_exchanges()), (1, 2));
    assert_eq!(server.rejected(), 0);
}

#[tokio::test]
async fn a_rejected_subject_token_is_replaced_once() {
    for code in ["invalid_request", "invalid_grant", "invalid_token"] {
        let server = server_with_secret();
        let source = exchange_of_session(&server);
        // Each of the user's refreshes is a request without a fault.
        for is_after_refresh in [true, true, false] {
            if is_after_refresh {
                server.fault(Fault::Delay(Duration::ZERO));
            }
            server.fault(Fault::error(code));
            let error = first(&source).await.unwrap_err();
            assert!(!error.is_final(), "{error}");
        }
        first(&source).await.unwrap();
        // After the second rejection the token is not to blame.
        let [one, two, three, four] = &sent(&server, "subject_token")[..] else {
            panic!("four exchanges")
        };
        assert!(one != two && two == three && three == four, "{code}");
        assert_eq!(server.refreshes(), 2);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The legacy password grant.

/// A server that knows a user, and gives refresh tokens only to those who ask for them.
fn password_server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::TwoBa)
        .public_client("app")
        .user("jo", "hunter2")
}

fn password(server: &AuthorizationServer, password: &str) -> LegacyPasswordSource {
    let url = "https://login.example.com/OAuth/Token";
    let client = OAuthClient::with_transport(url, server.clone()).unwrap();
    let client = client.client_auth(ClientAuth::none("app"));
    LegacyPasswordSource::new(client, "jo", password).scope("offline_access")
}

#[tokio::test]
async fn a_password_is_sent_once_and_then_the_refresh_tokens() {
    let (server, store) = (password_server(), MemoryStore::new());
    let source = password(&server, "hunter2").store(store.clone());
    let token = first(&source).await.unwrap();
    next(&source, &token).await.unwrap();
    // Another process, or the same after a restart.
    first(&password(&server, "hunter2").store(store.clone()))
        .await
        .unwrap();
    assert_eq!(sent(&server, "grant_type"), ["password", "refresh_token"]);
    assert_eq!((server.password_logins(), server.refreshes()), (1, 1));
    let stored = json(&store.load().await.unwrap().unwrap()).to_string();
    assert!(
        !stored.contains("hunter2") && !stored.contains("jo\""),
        "{stored}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_sent_once_and_a_corrected_one_is_a_new_login() {
    let (server, store) = (password_server(), MemoryStore::new());
    let wrong = || password(&server, "hunter1").store(store.clone());
    assert!(first(&wrong()).await.unwrap_err().is_final());
    assert!(first(&wrong()).await.unwrap_err().is_final());
    assert_eq!((server.token_requests(), server.rejected()), (1, 1));
    first(&password(&server, "hunter2").store(store.clone()))
        .await
        .unwrap();
    assert_eq!((server.token_requests(), server.password_logins()), (2, 1));
}

#[tokio::test]
async fn a_dead_session_does_not_send_the_password_again() {
    let server = password_server();
    let source = password(&server, "hunter2");
    let token = first(&source).await.unwrap();
    server.revoke_sessions();
    assert!(next(&source, &token).await.unwrap_err().is_final());
    assert_eq!((server.token_requests(), server.rejected()), (2, 1));
}

#[test]
fn debug_shows_no_secret() {
    let client = client_of(&server());
    let secret = || fixed("hunter2");
    let exchange = TokenExchange::new("hunter2-key", secret(), TokenExchange::JWT).unwrap();
    let password = LegacyPassword::new("jo", "hunter2").parameter("pin", "hunter2");
    let bearer = JwtBearer::new(secret()).parameter("pin", "hunter2");
    let source = JwtBearerSource::with_grant(client, bearer.clone());
    let source = source.origins(Origins::any_https());
    let shown = format!("{password:?}{bearer:?}{source:?}{:?}", secret());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("pin"), "{shown}");
    assert!(!exchange.uses_refresh_tokens() && !exchange.is_fixed() && exchange.can_repeat());
}

/// Responses that are set one by one.
mod responses {
    use std::convert::Infallible;

    use http::Response;
    use tower_bearer::{
        BoxTokenSource, ClientCredentialsSource, ExchangeTokenGrant, ExchangeTokenSource,
        TokenContext, TokenSource,
    };

    use super::*;
    use crate::endpoint::{DEAD, TokenEndpoint};

    const ISSUED: (u16, &str) = (
        200,
        r#"{"access_token":"issued","token_type":"Bearer","expires_in":900,
        "issued_token_type":"urn:ietf:params:oauth:token-type:access_token","refresh_token":"rt"}"#,
    );
    const ISSUED_WITHOUT_LIFETIME: (u16, &str) = (
        200,
        r#"{"access_token":"issued","token_type":"Bearer",
        "issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#,
    );

    fn field(sent: &str, name: &str) -> Option<String> {
        let body = sent.split_once(' ').unwrap().1;
        form_urlencoded::parse(body.as_bytes())
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    }

    fn exchange(endpoint: &TokenEndpoint, subject: SecurityToken) -> TokenExchangeSource {
        let client = endpoint.client(TOKEN_URL);
        TokenExchangeSource::new(client, "user-42", subject, TokenExchange::JWT).unwrap()
    }

    fn jwt_bearer(endpoint: &TokenEndpoint) -> JwtBearerSource {
        JwtBearerSource::new(endpoint.client(TOKEN_URL), counted())
    }

    fn password(endpoint: &TokenEndpoint, password: &str) -> LegacyPasswordSource {
        LegacyPasswordSource::new(endpoint.client(TOKEN_URL), "jo", password)
            .scope("offline_access")
    }

    #[tokio::test(start_paused = true)]
    async fn a_jwt_expires_by_the_clock_of_the_server() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for hours in [-1_i32, 1] {
            let hour = Duration::from_secs(3_600);
            let of_server = if hours < 0 {
                start - hour
            } else {
                start + hour
            };
            let expires = of_server + Duration::from_secs(600);
            let subject = SecurityToken::from_fn(move |_| async move {
                let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                let claims = format!(r#"{{"exp":{}}}"#, expires.as_secs());
                Ok(format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims)))
            });
            let transport = service_fn(move |_: Request<Full<Bytes>>| async move {
                let response = Response::builder()
                    .header("date", httpdate::fmt_http_date(of_server))
                    .body(Full::<Bytes>::from(ISSUED_WITHOUT_LIFETIME.1));
                Ok::<_, Infallible>(response.unwrap())
            });
            let client = OAuthClient::with_transport(TOKEN_URL, transport).unwrap();
            let source =
                TokenExchangeSource::new(client, "user-42", subject, TokenExchange::JWT).unwrap();
            let cache = TokenCache::builder(source)
                .clock(SimulatedClock::new(start))
                .build();
            cache.token().await.unwrap();
            let lives = cache.status().expires_at.unwrap().duration_since(start);
            assert_eq!(lives.unwrap().as_secs(), 600, "{hours}");
        }
    }

    #[tokio::test]
    async fn a_subject_token_that_replaced_a_rejected_one_is_replaced_as_well_after_it_was_accepted()
     {
        let endpoint = TokenEndpoint::default();
        let subjects = Arc::new(AtomicUsize::new(0));
        // It has a token until that is rejected.
        let subject = source_fn(move |cx: TokenContext| {
            if cx.rejected_token().is_some() || subjects.load(Ordering::SeqCst) == 0 {
                subjects.fetch_add(1, Ordering::SeqCst);
            }
            let number = subjects.load(Ordering::SeqCst);
            async move { Token::new(format!("s-{number}")) }
        });
        let source = exchange(&endpoint, SecurityToken::from_source(subject));
        endpoint.respond_next([DEAD, ISSUED, ISSUED, DEAD, ISSUED]);
        first(&source).await.unwrap_err();
        let token = first(&source).await.unwrap();
        next(&source, &token).await.unwrap();
        next(&source, &token).await.unwrap_err();
        next(&source, &token).await.unwrap();
        let sent = endpoint.sent();
        let subjects: Vec<_> = sent
            .iter()
            .filter_map(|it| field(it, "subject_token"))
            .collect();
        assert_eq!(subjects, ["s-1", "s-2", "s-2", "s-2", "s-3"]);
    }

    #[tokio::test]
    async fn a_name_of_the_session_does_not_mix_up_subjects() {
        let endpoint = TokenEndpoint::default();
        let store = MemoryStore::new();
        let of = |key: &'static str| {
            let client = endpoint.client(TOKEN_URL);
            TokenExchangeSource::new(client, key, fixed(key), TokenExchange::JWT)
                .unwrap()
                .session_name("exchange")
                .store(store.clone())
        };
        for key in ["alice", "bob", "alice"] {
            endpoint.respond_next([ISSUED]);
            first(&of(key)).await.unwrap();
            let sent = endpoint.sent();
            assert_eq!(field(&sent[0], "subject_token").as_deref(), Some(key));
        }
    }

    #[tokio::test]
    async fn a_token_of_the_subject_alone_is_not_used_on_behalf_of_it() {
        let endpoint = TokenEndpoint::default();
        let store = MemoryStore::new();
        let alone = || exchange(&endpoint, fixed("s")).store(store.clone());
        endpoint.respond_next([ISSUED]);
        first(&alone()).await.unwrap();
        let delegated = alone().actor(fixed("actor"), TokenExchange::JWT);
        let error = first(&delegated).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert_eq!(endpoint.sent().len(), 1);
    }

    #[tokio::test]
    async fn an_error_names_what_the_server_does_not_accept() {
        let endpoint = TokenEndpoint::default();
        let client = || endpoint.client(TOKEN_URL);
        let named = async |source: &dyn Fn() -> BoxTokenSource, name: &str| {
            for (status, body) in [DEAD, (400, r#"{"message":"bad refresh token"}"#)] {
                endpoint.respond_next([(status, body)]);
                let error = first(&source()).await.unwrap_err().to_string();
                assert!(
                    error.contains(&format!("does not accept the {name}: ")),
                    "{error}"
                );
            }
        };
        named(
            &|| RefreshTokenSource::new(client(), "r").boxed(),
            "refresh token",
        )
        .await;
        named(
            &|| ExchangeTokenSource::new(client(), "e").boxed(),
            "exchange token",
        )
        .await;
        named(&|| jwt_bearer(&endpoint).boxed(), "assertion").await;
        named(
            &|| exchange(&endpoint, fixed("s")).boxed(),
            "subject token or the actor token",
        )
        .await;
        named(
            &|| password(&endpoint, "p").boxed(),
            "user name or the password",
        )
        .await;
        named(&|| ClientCredentialsSource::new(client()).boxed(), "client").await;
        let other = || {
            let grant = ExchangeTokenGrant::new("e").grant_type("of_ones_own", "key");
            GrantSource::with_grant(client(), grant).boxed()
        };
        named(&other, "credential").await;
    }
}
