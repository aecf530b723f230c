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
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use endpoint::{DEAD, DOWN, TokenEndpoint, first, json, next};
use http::{Request, Response};
use http_body_util::Full;
use support::TOKEN_URL;
use tokio::time::sleep;
use tower::service_fn;
use tower_bearer::{
    BoxTokenSource, ClientCredentialsSource, ExchangeTokenGrant, ExchangeTokenSource, Grant,
    GrantContext, GrantSource, JwtBearer, JwtBearerSource, LegacyPassword, LegacyPasswordSource,
    MemoryStore, OAuthClient, Origins, RefreshTokenSource, SecurityToken, Token, TokenCache,
    TokenContext, TokenError, TokenErrorKind, TokenExchange, TokenExchangeSource, TokenSource,
    TokenStore, source_fn, testing::SimulatedClock,
};

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

fn field(sent: &str, name: &str) -> Option<String> {
    let body = sent.split_once(' ').unwrap().1;
    form_urlencoded::parse(body.as_bytes())
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}

// ---------------------------------------------------------------------------------------------------------------------
// JWT bearer.

fn jwt_bearer(endpoint: &TokenEndpoint) -> JwtBearerSource {
    JwtBearerSource::new(endpoint.client(TOKEN_URL), counted())
}

#[tokio::test(start_paused = true)]
async fn an_assertion_is_made_anew_for_each_request_and_each_further_attempt() {
    let endpoint = TokenEndpoint::default();
    let cache = TokenCache::new(jwt_bearer(&endpoint).scope("read"));
    endpoint.respond_next([DOWN, DOWN]);
    while cache.token().await.is_err() {
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(900)).await;
    cache.token().await.unwrap();
    let sent = endpoint.sent();
    let assertions: Vec<_> = sent.iter().map(|it| field(it, "assertion")).collect();
    let expected = ["a-1", "a-2", "a-3", "a-4"].map(|text| Some(text.to_owned()));
    assert_eq!(assertions, expected);
    assert_eq!(
        sent[0],
        "/token grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a-1&scope=read"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rejected_assertion_is_not_final_and_tried_again_slowly_with_no_other_grant() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    let cache = TokenCache::new(jwt_bearer(&endpoint).store(store.clone()));
    // A refresh token comes with it. It is no way out when the next assertion is rejected.
    cache.token().await.unwrap();
    endpoint.sent();
    endpoint.respond_next([DEAD; 100]);
    sleep(Duration::from_secs(901)).await;
    for _ in 0..3600 {
        let error = cache.token().await.unwrap_err();
        assert!(!error.is_final(), "{error}");
        sleep(Duration::from_secs(1)).await;
    }
    let sent = endpoint.sent();
    assert!((4..12).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|it| it.contains("jwt-bearer")), "{sent:?}");
    assert!(json(&store.load().await.unwrap().unwrap())["ended"].is_null());
}

#[tokio::test]
async fn an_assertion_that_cannot_be_made_sends_nothing() {
    let endpoint = TokenEndpoint::default();
    let failing = SecurityToken::from_fn(|_| async {
        let error = std::io::Error::other("the key is locked");
        Err::<String, _>(TokenError::other(error))
    });
    for assertion in [
        failing,
        fixed(""),
        SecurityToken::from_file("/nowhere/assertion"),
    ] {
        let source = JwtBearerSource::new(endpoint.client(TOKEN_URL), assertion);
        let error = first(&source).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Source);
        assert!(error.is_transient());
    }
    assert!(endpoint.sent().is_empty());
}

#[tokio::test]
async fn assertions_in_different_files_are_different_sessions() {
    let endpoint = TokenEndpoint::default();
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let of_file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, name).unwrap();
        let assertion = SecurityToken::from_file(path);
        JwtBearerSource::new(endpoint.client(TOKEN_URL), assertion).store(store.clone())
    };
    first(&of_file("alice")).await.unwrap();
    assert_eq!(
        first(&of_file("alice")).await.unwrap().expose_secret(),
        "at-1"
    );
    let error = first(&of_file("bob")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
}

// ---------------------------------------------------------------------------------------------------------------------
// Token exchange.

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
const NOT_A_BEARER_TOKEN: (u16, &str) = (
    200,
    r#"{"access_token":"id.j.ag","token_type":"N_A","expires_in":300,
        "issued_token_type":"urn:ietf:params:oauth:token-type:id-jag"}"#,
);

fn exchange(endpoint: &TokenEndpoint, subject: SecurityToken) -> TokenExchangeSource {
    let client = endpoint.client(TOKEN_URL);
    TokenExchangeSource::new(client, "user-42", subject, TokenExchange::JWT).unwrap()
}

#[tokio::test]
async fn an_exchange_sends_subject_and_actor_with_their_types() {
    let endpoint = TokenEndpoint::default();
    endpoint.respond_next([ISSUED]);
    let actor = source_fn(|_| async { Token::new("the-actor") });
    let source = exchange(&endpoint, fixed("the-subject"))
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
    assert_eq!(token.expose_secret(), "issued");
    let sent = &endpoint.sent()[0];
    let body = sent.split_once(' ').unwrap().1;
    let fields: Vec<_> = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
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
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn an_exchange_sends_the_current_subject_token_each_time_and_no_refresh_token() {
    let endpoint = TokenEndpoint::default();
    endpoint.respond_next([ISSUED, ISSUED]);
    let store = MemoryStore::new();
    let source = exchange(&endpoint, counted()).store(store.clone());
    let token = first(&source).await.unwrap();
    next(&source, &token).await.unwrap();
    let sent = endpoint.sent();
    let subjects: Vec<_> = sent
        .iter()
        .map(|it| field(it, "subject_token").unwrap())
        .collect();
    assert_eq!(subjects, ["a-1", "a-2"]);
    let stored = json(&store.load().await.unwrap().unwrap());
    assert!(stored["refresh_token"].is_null(), "{stored}");
}

#[tokio::test]
async fn a_response_without_issued_token_type_is_an_error_that_is_not_final() {
    let endpoint = TokenEndpoint::default();
    endpoint.respond_next([
        (200, r#"{"access_token":"a","token_type":"Bearer"}"#),
        (200, r#"{"access_token":"a","issued_token_type":" "}"#),
        (
            200,
            r#"{"access_token":"a","issued_token_type":null,"refresh_token":"r"}"#,
        ),
    ]);
    let source = exchange(&endpoint, fixed("s"));
    for _ in 0..3 {
        let error = first(&source).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(!error.is_final());
        assert!(error.to_string().contains("issued_token_type"), "{error}");
    }
}

#[tokio::test]
async fn a_token_of_type_n_a_is_an_error_unless_another_type_was_requested() {
    let endpoint = TokenEndpoint::default();
    for requested in [None, Some(TokenExchange::ACCESS_TOKEN)] {
        endpoint.respond_next([NOT_A_BEARER_TOKEN]);
        let mut source = exchange(&endpoint, fixed("s"));
        if let Some(requested) = requested {
            source = source.requested_token_type(requested);
        }
        let error = first(&source).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(error.to_string().contains("N_A"), "{error}");
    }
    endpoint.sent();

    // As the assertion of another grant.
    endpoint.respond_next([NOT_A_BEARER_TOKEN]);
    let id_jag = "urn:ietf:params:oauth:token-type:id-jag";
    let assertion = exchange(&endpoint, fixed("s")).requested_token_type(id_jag);
    let client = endpoint.client(TOKEN_URL);
    let source = JwtBearerSource::new(client, SecurityToken::from_source(assertion));
    assert_eq!(first(&source).await.unwrap().expose_secret(), "at-1");
    let sent = endpoint.sent();
    assert_eq!(field(&sent[1], "assertion").as_deref(), Some("id.j.ag"));
}

/// The lifetime of the issued token in seconds.
async fn lifetime(endpoint: &TokenEndpoint, subject: SecurityToken) -> Option<u64> {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let cache = TokenCache::builder(exchange(endpoint, subject))
        .clock(SimulatedClock::new(start))
        .build();
    cache.token().await.unwrap();
    let expires_at = cache.status().expires_at?;
    Some(expires_at.duration_since(start).unwrap().as_secs())
}

#[tokio::test(start_paused = true)]
async fn without_expires_in_the_token_lives_no_longer_than_the_subject_token() {
    let endpoint = TokenEndpoint::default();
    let lasting = |seconds| {
        let lifetime = Duration::from_secs(seconds);
        let subject = source_fn(move |_| async move { Ok(Token::new("s")?.expires_in(lifetime)) });
        SecurityToken::from_source(subject)
    };
    endpoint.respond_next([ISSUED_WITHOUT_LIFETIME]);
    assert_eq!(lifetime(&endpoint, lasting(500)).await, Some(500));
    // What the server says counts.
    endpoint.respond_next([ISSUED]);
    assert_eq!(lifetime(&endpoint, lasting(500)).await, Some(900));
    // Nothing is known.
    endpoint.respond_next([ISSUED_WITHOUT_LIFETIME]);
    assert_eq!(lifetime(&endpoint, fixed("opaque")).await, None);
    // A JWT says when it expires.
    endpoint.respond_next([ISSUED_WITHOUT_LIFETIME]);
    let jwt = SecurityToken::from_fn(|cx: GrantContext<'_>| async move {
        let now = cx.now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let claims = format!(r#"{{"sub":"42","exp":{}}}"#, now.as_secs() + 600);
        Ok(format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims)))
    });
    assert_eq!(lifetime(&endpoint, jwt).await, Some(600));
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
async fn a_stored_token_without_expires_in_lives_no_longer_than_its_subject_either() {
    let endpoint = TokenEndpoint::default();
    endpoint.respond_next([ISSUED_WITHOUT_LIFETIME]);
    let lifetime = Duration::from_secs(500);
    let subject = source_fn(move |_| async move { Ok(Token::new("s")?.expires_in(lifetime)) });
    let store = MemoryStore::new();
    let source = exchange(&endpoint, SecurityToken::from_source(subject)).store(store.clone());
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
        let client = TokenEndpoint::default().client(TOKEN_URL);
        assert!(TokenExchangeSource::new(client, key, fixed("s"), token_type).is_err());
    }
}

#[tokio::test]
async fn the_session_of_another_subject_is_neither_used_nor_overwritten() {
    let endpoint = TokenEndpoint::default();
    endpoint.respond_next([ISSUED]);
    let store = MemoryStore::new();
    let of = |key: &str| {
        let client = endpoint.client(TOKEN_URL);
        TokenExchangeSource::new(client, key, counted(), TokenExchange::JWT)
            .unwrap()
            .store(store.clone())
    };
    first(&of("alice")).await.unwrap();
    let error = first(&of("bob")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    // The subject's token has changed, and the subject has not.
    assert_eq!(first(&of("alice")).await.unwrap().expose_secret(), "issued");
    assert_eq!(endpoint.sent().len(), 1);
    let stored = json(&store.load().await.unwrap().unwrap()).to_string();
    assert!(!stored.contains("alice"), "{stored}");
}

#[tokio::test]
async fn the_subject_can_be_a_session_of_its_own() {
    let endpoint = TokenEndpoint::default();
    let user = RefreshTokenSource::new(endpoint.client(TOKEN_URL), "rt-0");
    let source = exchange(&endpoint, SecurityToken::from_source(user));
    endpoint.respond_next([
        (200, r#"{"access_token":"of-user","expires_in":900}"#),
        ISSUED,
        ISSUED,
    ]);
    let token = first(&source).await.unwrap();
    next(&source, &token).await.unwrap();
    // The user's token is still good for the second exchange.
    let sent = endpoint.sent();
    assert_eq!(sent.len(), 3);
    assert_eq!(field(&sent[0], "refresh_token").as_deref(), Some("rt-0"));
    for exchange in &sent[1..] {
        assert_eq!(field(exchange, "subject_token").as_deref(), Some("of-user"));
    }
}

#[tokio::test]
async fn a_rejected_subject_token_is_replaced_once() {
    for code in ["invalid_request", "invalid_grant", "invalid_token"] {
        let endpoint = TokenEndpoint::default();
        let user = RefreshTokenSource::new(endpoint.client(TOKEN_URL), "rt-0");
        let source = exchange(&endpoint, SecurityToken::from_source(user));
        let rejected = || (400, &*format!(r#"{{"error":"{code}"}}"#).leak());
        let of_user = |name: &str| {
            let body = format!(r#"{{"access_token":"{name}","expires_in":900}}"#);
            (200, &*body.leak())
        };
        endpoint.respond_next([of_user("one"), rejected(), of_user("two"), rejected()]);
        endpoint.respond_next([rejected(), ISSUED]);
        for _ in 0..3 {
            let error = first(&source).await.unwrap_err();
            assert!(!error.is_final(), "{error}");
        }
        first(&source).await.unwrap();
        let sent = endpoint.sent();
        let subjects: Vec<_> = sent
            .iter()
            .filter_map(|it| field(it, "subject_token"))
            .collect();
        // After the second rejection the token is not to blame.
        assert_eq!(subjects, ["one", "two", "two", "two"], "{code}");
        assert_eq!(sent.len(), 6);
    }
}

#[tokio::test]
async fn a_subject_token_that_replaced_a_rejected_one_is_replaced_as_well_after_it_was_accepted() {
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

// ---------------------------------------------------------------------------------------------------------------------
// The legacy password grant.

fn password(endpoint: &TokenEndpoint, password: &str) -> LegacyPasswordSource {
    LegacyPasswordSource::new(endpoint.client(TOKEN_URL), "jo", password).scope("offline_access")
}

#[tokio::test]
async fn a_password_is_sent_once_and_then_the_refresh_tokens() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    let source = password(&endpoint, "hunter2").store(store.clone());
    let token = first(&source).await.unwrap();
    next(&source, &token).await.unwrap();
    // Another process, or the same after a restart.
    first(&password(&endpoint, "hunter2").store(store.clone()))
        .await
        .unwrap();
    assert_eq!(
        endpoint.sent(),
        [
            "/token grant_type=password&username=jo&password=hunter2&scope=offline_access",
            "/token grant_type=refresh_token&refresh_token=rt-1",
        ]
    );
    let stored = json(&store.load().await.unwrap().unwrap()).to_string();
    assert!(
        !stored.contains("hunter2") && !stored.contains("jo\""),
        "{stored}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_sent_once_and_a_corrected_one_is_a_new_login() {
    let endpoint = TokenEndpoint::default();
    let store = MemoryStore::new();
    endpoint.respond_next([DEAD]);
    let wrong = || password(&endpoint, "hunter1").store(store.clone());
    assert!(first(&wrong()).await.unwrap_err().is_final());
    assert!(first(&wrong()).await.unwrap_err().is_final());
    assert_eq!(endpoint.sent().len(), 1);
    first(&password(&endpoint, "hunter2").store(store.clone()))
        .await
        .unwrap();
    assert_eq!(endpoint.sent().len(), 1);
}

#[tokio::test]
async fn a_dead_session_does_not_send_the_password_again() {
    let endpoint = TokenEndpoint::default();
    let source = password(&endpoint, "hunter2");
    let token = first(&source).await.unwrap();
    endpoint.respond_next([DEAD]);
    assert!(next(&source, &token).await.unwrap_err().is_final());
    assert_eq!(endpoint.sent().len(), 2);
}

#[test]
fn debug_shows_no_secret() {
    let client = TokenEndpoint::default().client(TOKEN_URL);
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
