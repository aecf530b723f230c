//! How a client proves who it is: each method, secrets that rotate, and servers whose clock is wrong.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, header};
use serde_json::Value;
use tower_bearer::{
    AuthParts, ClientAuth, ClientSecret, JwtAlgorithm, JwtAssertion, MemoryStore, OAuthClient,
    RefreshTokenSource, SigningKey, TokenCache, TokenContext, TokenError, TokenErrorKind,
    TokenSource, TokenStore,
    testing::{AuthorizationServer, Dialect, Fault, SimulatedClock},
};

const TOKEN_URL: &str = "https://login.example.com/token";
const LONG_SECRET: &str = "a-made-up-secret-of-at-least-32-bytes";
/// The key of RFC 8410 §10.3.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----";

fn key() -> SigningKey {
    SigningKey::from_pem(JwtAlgorithm::EdDsa, KEY).unwrap()
}

/// A server that knows the client `app` by its secret.
fn server(secret: &str) -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749).client("app", secret)
}

/// A server that knows the client `app` by its key, and checks each signed assertion.
fn server_with_key() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749).client_key("app", &key())
}

fn client(server: &AuthorizationServer, auth: ClientAuth) -> OAuthClient {
    let client = OAuthClient::with_transport(TOKEN_URL, server.clone()).unwrap();
    client.client_auth(auth)
}

async fn request(server: &AuthorizationServer, auth: ClientAuth) -> Result<(), TokenError> {
    let client = client(server, auth);
    client.grant("client_credentials", &[]).await.map(drop)
}

/// The header of the last assertion that was sent.
fn assertion_header(server: &AuthorizationServer) -> Value {
    let requests = server.requests();
    let assertion = requests.last().unwrap().param("client_assertion").unwrap();
    let header = assertion.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

#[tokio::test]
async fn a_signed_assertion_is_made_anew_for_each_request() {
    let server = server_with_key();
    let auth = ClientAuth::private_key_jwt("app", key());
    for _ in 0..2 {
        // The server accepts each `jti` once.
        request(&server, auth.clone()).await.unwrap();
    }
    let sent = &server.requests()[0];
    assert_eq!(sent.param("client_id"), Some("app"));
    assert_eq!(sent.param("client_secret"), None);
    assert_eq!(sent.params.len(), 4);
}

#[tokio::test]
async fn the_audience_of_an_assertion_can_be_set() {
    let server = server(LONG_SECRET).issuer("tenant-1");
    let auth = ClientAuth::client_secret_jwt("app", LONG_SECRET);
    let auth = |audience| auth.clone().assertion_audience(audience);
    request(&server, auth("tenant-1")).await.unwrap();
    request(&server, auth("tenant-2")).await.unwrap_err();
}

#[tokio::test]
async fn the_type_of_an_assertion_can_be_set() {
    let server = server_with_key();
    let auth = ClientAuth::private_key_jwt("app", key());
    request(&server, auth.clone()).await.unwrap();
    assert_eq!(assertion_header(&server)["typ"], "JWT");
    let typ = "client-authentication+jwt";
    request(&server, auth.assertion_typ(typ)).await.unwrap();
    assert_eq!(assertion_header(&server)["typ"], typ);
}

#[tokio::test]
async fn a_secret_too_short_to_sign_is_a_configuration_error() {
    let server = server("hunter2");
    let auth = ClientAuth::client_secret_jwt("app", "hunter2");
    let error = request(&server, auth).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_client_with_a_certificate_sends_only_its_id() {
    let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
    let auth = ClientAuth::tls_client_auth("app");
    request(&server, auth).await.unwrap();
    let sent = &server.requests()[0];
    assert_eq!(sent.params.len(), 2);
    assert_eq!(sent.param("client_id"), Some("app"));
    assert!(!sent.headers.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn an_assertion_file_is_read_for_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let server = server_with_key();
    server.accept_client_assertion("second");
    let auth = ClientAuth::assertion_file(None, &path);
    let error = request(&server, auth.clone()).await.unwrap_err();
    assert!(error.to_string().contains("client assertion"), "{error}");
    assert!(!error.is_final());
    assert!(server.requests().is_empty());
    std::fs::write(&path, "first\n").unwrap();
    request(&server, auth.clone()).await.unwrap_err();
    std::fs::write(&path, "second\n").unwrap();
    request(&server, auth).await.unwrap();
    let requests = server.requests();
    let sent = requests.iter().map(|it| it.param("client_assertion"));
    assert_eq!(sent.collect::<Vec<_>>(), [Some("first"), Some("second")]);
    assert_eq!(requests[0].param("client_id"), None);
}

#[tokio::test]
async fn a_closure_adds_parameters_and_headers() {
    let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
    let auth = ClientAuth::custom(|cx| async move {
        assert!(cx.now() > SystemTime::UNIX_EPOCH);
        let parts = AuthParts::new().parameter("client_id", "app");
        parts
            .parameter("url", cx.token_url())
            .header("x-api-key", "hunter2")
    });
    request(&server, auth).await.unwrap();
    let sent = &server.requests()[0];
    assert_eq!(sent.param("url"), Some(TOKEN_URL));
    assert_eq!(sent.headers["x-api-key"], "hunter2");
    assert!(sent.headers["x-api-key"].is_sensitive());
    AuthParts::new().header("x", "a\nb").unwrap_err();
    // It would contradict the body.
    for name in ["content-length", "Transfer-Encoding", "content-type"] {
        AuthParts::new().header(name, "5").unwrap_err();
    }
}

fn rotating(secrets: [&'static str; 2]) -> ClientSecret {
    let reads = AtomicUsize::new(0);
    ClientSecret::from_fn(move || {
        let read = reads.fetch_add(1, Ordering::SeqCst).min(1);
        async move { Ok(secrets[read].to_owned()) }
    })
}

#[tokio::test]
async fn after_invalid_client_a_secret_that_has_changed_is_sent_at_once() {
    let server = server("new");
    let auth = ClientAuth::client_secret_post("app", rotating(["old", "new"]));
    request(&server, auth).await.unwrap();
    assert_eq!(server.token_requests(), 2);
}

#[tokio::test]
async fn a_secret_that_has_not_changed_is_not_sent_again() {
    for secret in [ClientSecret::from("old"), rotating(["old", "old"])] {
        let server = server("new");
        let auth = ClientAuth::client_secret_post("app", secret);
        let error = request(&server, auth).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
        assert_eq!(server.token_requests(), 1);
    }
}

#[tokio::test]
async fn a_client_that_was_rejected_by_mistake_is_not_sent_again() {
    let server = server_with_key();
    server.fault(Fault::error("invalid_client"));
    let auth = ClientAuth::private_key_jwt("app", key());
    let error = request(&server, auth.clone()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert_eq!(server.token_requests(), 1, "nothing has changed");
    assert!(!error.is_final());
    request(&server, auth).await.unwrap();
}

#[tokio::test]
async fn after_a_401_without_a_code_no_request_is_sent_again() {
    let server = server("new");
    let message = r#"{"message":"client authentication failed"}"#;
    server.fault(Fault::raw(
        StatusCode::UNAUTHORIZED,
        "application/json",
        message,
    ));
    let auth = ClientAuth::client_secret_post("app", rotating(["old", "new"]));
    request(&server, auth).await.unwrap_err();
    assert_eq!(server.token_requests(), 1, "it may be that of a gateway");
}

#[tokio::test]
async fn a_request_is_sent_again_only_once() {
    let server = server("newest");
    let reads = AtomicUsize::new(0);
    let secret = ClientSecret::from_fn(move || {
        let read = reads.fetch_add(1, Ordering::SeqCst);
        async move { Ok(format!("secret-{read}")) }
    });
    let auth = ClientAuth::client_secret_post("app", secret);
    request(&server, auth).await.unwrap_err();
    assert_eq!(server.token_requests(), 2);
}

/// Rotates the secret at the server at `moment`, in seconds, and in the file 10 seconds later. Returns how many
/// attempts failed.
async fn rotate(moment: u64, path: &Path, auth: ClientAuth) -> usize {
    const NEW: &str = "another-made-up-secret-of-32-bytes-or-more";

    std::fs::write(path, LONG_SECRET).unwrap();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let clock = SimulatedClock::new(start);
    let server = server(LONG_SECRET).clock(clock.clone());
    let source = RefreshTokenSource::new(client(&server, auth), server.issue_refresh_token());
    let cache = TokenCache::builder(source).clock(clock).seed(1).build();
    for second in 0..1_200 {
        if second == moment {
            let _ = server.clone().client("app", NEW);
        }
        if second == moment + 10 {
            std::fs::write(path, NEW).unwrap();
        }
        cache.token().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(server.refreshes(), 2);
    server.rejected()
}

#[tokio::test(start_paused = true)]
async fn a_secret_rotated_at_the_server_fails_no_request_and_at_most_one_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for auth in [
        ClientAuth::client_secret_post("app", ClientSecret::file(&path)),
        ClientAuth::client_secret_jwt("app", ClientSecret::file(&path)),
    ] {
        let mut failed = Vec::new();
        // The token is refreshed within these five minutes.
        for moment in (600..890).step_by(5) {
            failed.push(rotate(moment, &path, auth.clone()).await);
        }
        assert!(failed.iter().all(|failed| *failed <= 1), "{failed:?}");
        assert!(failed.contains(&0) && failed.contains(&1), "{failed:?}");
    }
}

#[tokio::test]
async fn assertions_are_valid_by_the_clock_of_the_server() {
    for skew in [-3_600, 3_600] {
        for (server, auth) in [
            (server_with_key(), ClientAuth::private_key_jwt("app", key())),
            (
                server(LONG_SECRET),
                ClientAuth::client_secret_jwt("app", LONG_SECRET),
            ),
        ] {
            let server = server.skew(skew);
            let client = client(&server, auth);
            for _ in 0..3 {
                client.grant("client_credentials", &[]).await.unwrap();
            }
            assert_eq!(server.token_requests(), 4, "only the first one failed");
        }
    }
}

#[tokio::test]
async fn a_closure_is_called_again_only_if_it_has_read_the_wrong_time() {
    let server = server_with_key().skew(3_600);
    let assertion = JwtAssertion::new("app", key());
    let signed = move |now: SystemTime, url: String| {
        let assertion = assertion.clone();
        async move {
            let text = assertion.make(now, &url).await?;
            let type_ = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            let parts = AuthParts::new().parameter("client_assertion_type", type_);
            Ok(parts.parameter("client_assertion", text))
        }
    };
    let by_system = signed.clone();
    let auth = ClientAuth::custom(move |cx| by_system(SystemTime::now(), cx.token_url().into()));
    request(&server, auth).await.unwrap_err();
    assert_eq!(server.token_requests(), 1);
    let auth = ClientAuth::custom(move |cx| signed(cx.now(), cx.token_url().into()));
    request(&server, auth).await.unwrap();
    assert_eq!(server.token_requests(), 3);
}

#[tokio::test]
async fn without_a_date_no_clock_is_learned() {
    let server = server_with_key().skew(3_600).date(false);
    let auth = ClientAuth::private_key_jwt("app", key());
    request(&server, auth).await.unwrap_err();
    assert_eq!(server.token_requests(), 1);
}

#[test]
fn debug_shows_no_secret() {
    let secret = "a-made-up-secret-of-at-least-32-bytes";
    for auth in [
        ClientAuth::client_secret_jwt("app", secret).assertion_audience(secret),
        ClientAuth::client_secret_basic(secret, ClientSecret::from(secret)),
        ClientAuth::assertion_file(Some(secret), secret),
    ] {
        assert!(!format!("{auth:?}{auth:#?}").contains("made-up"));
    }
    let shown = format!("{:?}", AuthParts::new().parameter("id", secret));
    assert!(
        shown.contains("id") && !shown.contains("made-up"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_sends_nothing_and_interrupts_no_session() {
    for kind in [TokenErrorKind::Transport, TokenErrorKind::Source] {
        let server = server("s3cr3t");
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        let secret = ClientSecret::from_fn(move || {
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                let down = TokenError::new(kind, "the vault does not respond");
                is_first.then(|| "s3cr3t".to_owned()).ok_or(down)
            }
        });
        let client = client(&server, ClientAuth::client_secret_post("app", secret));
        let store = MemoryStore::new();
        let source = RefreshTokenSource::new(client, server.issue_refresh_token());
        let source = source.store(store.clone());
        let token = source.token(TokenContext::new()).await.unwrap();
        let next = TokenContext::new().rejected(token);
        let error = source.token(next).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(server.token_requests(), 1);
        assert_eq!(
            reads.load(Ordering::SeqCst),
            2,
            "read once for each refresh"
        );
        let stored = serde_json::to_value(store.load().await.unwrap()).unwrap();
        assert!(stored["refreshing_since"].is_null(), "{kind:?}: {stored}");
    }
}
