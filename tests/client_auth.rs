//! How a client proves who it is: each method, secrets that rotate, and servers whose clock is wrong.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::service_fn;
use tower_bearer::{
    AuthParts, ClientAuth, ClientSecret, ExchangeTokenSource, JwtAlgorithm, MemoryStore,
    OAuthClient, RefreshTokenSource, SigningKey, TokenCache, TokenContext, TokenError,
    TokenErrorKind, TokenSource, TokenStore, testing::SimulatedClock,
};

const TOKEN_URL: &str = "https://login.example.com/token";
const TOKEN: &str = r#"{"access_token":"at","expires_in":900}"#;
const INVALID_CLIENT: &str = r#"{"error":"invalid_client"}"#;
/// The key of RFC 8410 §10.3.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----";

/// A request that the server has received: its headers, and its parameters.
type Received = (HeaderMap, Vec<(String, String)>);

/// A token endpoint that keeps what it receives, and responds as `respond` says.
fn server(
    respond: impl Fn(&Received) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> (OAuthClient, Arc<Mutex<Vec<Received>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let (respond, received) = (Arc::new(respond), Arc::clone(&all));
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let (respond, received) = (Arc::clone(&respond), Arc::clone(&received));
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let parameters = form_urlencoded::parse(&body.to_bytes())
                .into_owned()
                .collect();
            let request = (head.headers, parameters);
            let response = respond(&request);
            received.lock().unwrap().push(request);
            Ok::<_, Infallible>(response)
        }
    });
    let client = OAuthClient::with_transport(TOKEN_URL, service).unwrap();
    (client, all)
}

fn response(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

fn parameter<'a>(received: &'a Received, name: &str) -> Option<&'a str> {
    let found = received.1.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// The header and the claims of a signed token.
fn decoded(token: &str) -> [Value; 2] {
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let mut parts = token.split('.');
    [part(parts.next().unwrap()), part(parts.next().unwrap())]
}

fn key() -> SigningKey {
    SigningKey::from_pem(JwtAlgorithm::EdDsa, KEY).unwrap()
}

async fn request(client: OAuthClient) -> Result<(), TokenError> {
    client.grant("client_credentials", &[]).await.map(drop)
}

#[tokio::test]
async fn a_signed_assertion_is_made_anew_for_each_request() {
    let (client, all) = server(|_| response(StatusCode::OK, TOKEN));
    let client = client.client_auth(ClientAuth::private_key_jwt("app", key()));
    for _ in 0..2 {
        request(client.clone()).await.unwrap();
    }
    let all = all.lock().unwrap();
    let ids = all.iter().map(|received| {
        assert_eq!(parameter(received, "client_id"), Some("app"));
        assert_eq!(
            parameter(received, "client_assertion_type"),
            Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        );
        assert_eq!(parameter(received, "client_secret"), None);
        let [header, claims] = decoded(parameter(received, "client_assertion").unwrap());
        assert_eq!(
            (&header["typ"], &header["alg"]),
            (&"JWT".into(), &"EdDSA".into())
        );
        assert_eq!(
            (&claims["iss"], &claims["sub"]),
            (&"app".into(), &"app".into())
        );
        assert_eq!(claims["aud"], TOKEN_URL, "one string");
        claims["jti"].clone()
    });
    let ids: Vec<_> = ids.collect();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn the_audience_can_be_set() {
    let (client, all) = server(|_| response(StatusCode::OK, TOKEN));
    let secret = "a-made-up-secret-of-at-least-32-bytes";
    let auth = ClientAuth::client_secret_jwt("app", secret).assertion_audience("tenant-1");
    request(client.client_auth(auth)).await.unwrap();
    let [header, claims] = decoded(parameter(&all.lock().unwrap()[0], "client_assertion").unwrap());
    assert_eq!(
        (&header["alg"], &claims["aud"]),
        (&"HS256".into(), &"tenant-1".into())
    );
}

#[tokio::test]
async fn a_secret_too_short_to_sign_is_a_configuration_error() {
    let (client, all) = server(|_| response(StatusCode::OK, TOKEN));
    let auth = ClientAuth::client_secret_jwt("app", "hunter2");
    let error = request(client.client_auth(auth)).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(all.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_with_a_certificate_sends_only_its_id() {
    let (client, all) = server(|_| response(StatusCode::OK, TOKEN));
    let auth = ClientAuth::tls_client_auth("app");
    request(client.client_auth(auth)).await.unwrap();
    let received = &all.lock().unwrap()[0];
    assert_eq!(received.1.len(), 2);
    assert_eq!(parameter(received, "client_id"), Some("app"));
    assert!(!received.0.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn an_assertion_file_is_read_for_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let (client, all) = server(|_| response(StatusCode::OK, TOKEN));
    let client = client.client_auth(ClientAuth::assertion_file(None, &path));
    let error = request(client.clone()).await.unwrap_err();
    assert!(error.to_string().contains("client assertion"), "{error}");
    assert!(!error.is_final());
    for content in ["first\n", "second"] {
        std::fs::write(&path, content).unwrap();
        request(client.clone()).await.unwrap();
    }
    let all = all.lock().unwrap();
    let sent: Vec<_> = all
        .iter()
        .map(|it| parameter(it, "client_assertion"))
        .collect();
    assert_eq!(sent, [Some("first"), Some("second")]);
    assert_eq!(parameter(&all[0], "client_id"), None);
}

#[tokio::test]
async fn a_closure_adds_parameters_and_headers() {
    let (client, all) = server(|_| response(StatusCode::OK, TOKEN));
    let auth = ClientAuth::custom(|cx| async move {
        assert!(cx.now() > SystemTime::UNIX_EPOCH);
        let parts = AuthParts::new().parameter("client_id", "app");
        parts
            .parameter("url", cx.token_url())
            .header("x-api-key", "hunter2")
    });
    request(client.client_auth(auth)).await.unwrap();
    let received = &all.lock().unwrap()[0];
    assert_eq!(parameter(received, "url"), Some(TOKEN_URL));
    assert_eq!(received.0["x-api-key"], "hunter2");
    assert!(received.0["x-api-key"].is_sensitive());
    AuthParts::new().header("x", "a\nb").unwrap_err();
    // It would contradict the body.
    for name in ["content-length", "Transfer-Encoding", "content-type"] {
        AuthParts::new().header(name, "5").unwrap_err();
    }
}

/// A server that accepts one secret only.
fn accepting(secret: &'static str) -> (OAuthClient, Arc<Mutex<Vec<Received>>>) {
    server(move |received| {
        if parameter(received, "client_secret") == Some(secret) {
            response(StatusCode::OK, TOKEN)
        } else {
            response(StatusCode::UNAUTHORIZED, INVALID_CLIENT)
        }
    })
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
    let (client, all) = accepting("new");
    let auth = ClientAuth::client_secret_post("app", rotating(["old", "new"]));
    request(client.client_auth(auth)).await.unwrap();
    assert_eq!(all.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_secret_that_has_not_changed_is_not_sent_again() {
    for secret in [ClientSecret::from("old"), rotating(["old", "old"])] {
        let (client, all) = accepting("new");
        let auth = ClientAuth::client_secret_post("app", secret);
        let error = request(client.client_auth(auth)).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
        assert_eq!(all.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn after_a_401_without_a_code_no_request_is_sent_again() {
    let (client, all) = server(|_| {
        response(
            StatusCode::UNAUTHORIZED,
            r#"{"message":"client authentication failed"}"#,
        )
    });
    let auth = ClientAuth::client_secret_post("app", rotating(["old", "new"]));
    request(client.client_auth(auth)).await.unwrap_err();
    assert_eq!(all.lock().unwrap().len(), 1, "it may be that of a gateway");
}

#[tokio::test]
async fn a_request_is_sent_again_only_once() {
    let (client, all) = accepting("newest");
    let reads = AtomicUsize::new(0);
    let secret = ClientSecret::from_fn(move || {
        let read = reads.fetch_add(1, Ordering::SeqCst);
        async move { Ok(format!("secret-{read}")) }
    });
    let auth = ClientAuth::client_secret_post("app", secret);
    request(client.client_auth(auth)).await.unwrap_err();
    assert_eq!(all.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_secret_rotated_at_the_server_fails_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "first").unwrap();
    let accepted = Arc::new(Mutex::new("first"));
    let failed = Arc::new(AtomicUsize::new(0));
    let (now_accepted, count) = (Arc::clone(&accepted), Arc::clone(&failed));
    let (client, _) = server(move |received| {
        if parameter(received, "client_secret") == Some(*now_accepted.lock().unwrap()) {
            response(StatusCode::OK, TOKEN)
        } else {
            count.fetch_add(1, Ordering::SeqCst);
            response(StatusCode::UNAUTHORIZED, INVALID_CLIENT)
        }
    });
    let secret = ClientSecret::file(&path);
    let client = client.client_auth(ClientAuth::client_secret_post("app", secret));
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let cache = TokenCache::builder(RefreshTokenSource::new(client, "rt"))
        .clock(SimulatedClock::new(start))
        .build();
    for second in 0..3_600 {
        if second == 1_000 {
            // The server is first, and the file follows while the token is still usable.
            *accepted.lock().unwrap() = "second";
        }
        if second == 1_010 {
            std::fs::write(&path, "second").unwrap();
        }
        cache.token().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(failed.load(Ordering::SeqCst) <= 1);
}

#[tokio::test]
async fn assertions_are_valid_by_the_clock_of_the_server() {
    for hours in [-1_i64, 1] {
        let now = move || {
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap();
            i64::try_from(now.as_secs()).unwrap() + hours * 3_600
        };
        let (client, all) = server(move |received| {
            let [_, claims] = decoded(parameter(received, "client_assertion").unwrap());
            let claim = |name: &str| claims[name].as_i64().unwrap();
            let is_valid = (claim("iat")..=claim("exp")).contains(&now());
            let mut response = if is_valid {
                response(StatusCode::OK, TOKEN)
            } else {
                response(StatusCode::UNAUTHORIZED, INVALID_CLIENT)
            };
            let date = Duration::from_secs(now().unsigned_abs());
            let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + date);
            response
                .headers_mut()
                .insert(header::DATE, date.parse().unwrap());
            response
        });
        let client = client.client_auth(ClientAuth::private_key_jwt("app", key()));
        for _ in 0..3 {
            request(client.clone()).await.unwrap();
        }
        assert_eq!(all.lock().unwrap().len(), 4, "only the first one failed");
    }
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
        let (client, all) = server(|_| response(StatusCode::OK, TOKEN));
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        let secret = ClientSecret::from_fn(move || {
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                let down = TokenError::new(kind, "the vault does not respond");
                is_first.then(|| "s3cr3t".to_owned()).ok_or(down)
            }
        });
        let client = client.client_auth(ClientAuth::client_secret_post("app", secret));
        let store = MemoryStore::new();
        let source = RefreshTokenSource::new(client, "rt").store(store.clone());
        let token = source.token(TokenContext::new()).await.unwrap();
        let next = TokenContext::new().rejected(token);
        let error = source.token(next).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(all.lock().unwrap().len(), 1);
        assert_eq!(
            reads.load(Ordering::SeqCst),
            2,
            "read once for each refresh"
        );
        let stored = serde_json::to_value(store.load().await.unwrap()).unwrap();
        assert!(stored["refreshing_since"].is_null(), "{kind:?}: {stored}");
    }
}

#[tokio::test]
async fn a_code_that_repeats_what_a_closure_has_added_is_left_out() {
    for (name, echo) in [
        ("parameter", r#"{"error":"hunter2-hunter2"}"#),
        ("header", r#"{"error":"x-hunter3-hunter3"}"#),
    ] {
        let (client, _) = server(move |_| response(StatusCode::BAD_REQUEST, echo));
        let auth = ClientAuth::custom(|_| async {
            AuthParts::new()
                .parameter("otp", "hunter2-hunter2")
                .header("x-api-key", "hunter3-hunter3")
        });
        let error = request(client.client_auth(auth)).await.unwrap_err();
        assert!(
            !format!("{error}{error:?}").contains("hunter"),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn a_secret_that_is_not_read_again_in_time_delays_no_error() {
    tokio::time::pause();
    let (client, all) = accepting("new");
    let reads = AtomicUsize::new(0);
    let secret = ClientSecret::from_fn(move || {
        let is_first = reads.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !is_first {
                std::future::pending::<()>().await;
            }
            Ok("old".to_owned())
        }
    });
    let auth = ClientAuth::client_secret_post("app", secret);
    let begin = tokio::time::Instant::now();
    let asked = request(client.client_auth(auth));
    let asked = tokio::time::timeout(Duration::from_secs(3_600), asked).await;
    let error = asked.expect("it ends").unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert!(begin.elapsed() <= Duration::from_secs(60));
    assert_eq!(all.lock().unwrap().len(), 1);
}

/// A session whose next refresh fails with what `fail` makes of its client. Returns the error, the number of requests, and
/// the stored session.
async fn after_failure_of(
    client: OAuthClient,
    all: &Mutex<Vec<Received>>,
    fails: &AtomicUsize,
) -> (TokenError, usize, Value) {
    let store = MemoryStore::new();
    let source = ExchangeTokenSource::new(client, "exchange").store(store.clone());
    let token = source.token(TokenContext::new()).await.unwrap();
    fails.store(1, Ordering::SeqCst);
    let next = TokenContext::new().rejected(token);
    let error = source.token(next).await.unwrap_err();
    let stored = serde_json::to_value(store.load().await.unwrap()).unwrap();
    (error, all.lock().unwrap().len(), stored)
}

fn log_in_elsewhere() -> TokenError {
    TokenError::new(TokenErrorKind::ReauthRequired, "log in to the vault")
        .with_status(StatusCode::BAD_REQUEST)
        .with_oauth_code("invalid_grant")
}

const SESSION: &str = r#"{"access_token":"at","refresh_token":"rt","expires_in":900}"#;

#[tokio::test]
async fn a_secret_of_a_dead_session_elsewhere_does_not_end_this_one() {
    let fails = Arc::new(AtomicUsize::new(0));
    let (client, all) = server(|_| response(StatusCode::OK, SESSION));
    let now_fails = Arc::clone(&fails);
    let secret = ClientSecret::from_fn(move || {
        let fails = now_fails.load(Ordering::SeqCst) > 0;
        async move {
            if fails {
                Err(log_in_elsewhere())
            } else {
                Ok("s".to_owned())
            }
        }
    });
    let client = client.client_auth(ClientAuth::client_secret_post("app", secret));
    let (error, requests, stored) = after_failure_of(client, &all, &fails).await;
    assert_eq!(requests, 1);
    assert!(!error.is_final(), "{error}");
    assert!(stored["ended"].is_null(), "{stored}");
    assert_eq!(stored["refresh_token"], "rt");
}

#[tokio::test]
async fn a_transport_with_a_dead_session_of_its_own_does_not_end_this_one() {
    let fails = Arc::new(AtomicUsize::new(0));
    let all = Arc::new(Mutex::new(Vec::new()));
    let (now_fails, received) = (Arc::clone(&fails), Arc::clone(&all));
    let transport = service_fn(move |request: Request<Full<Bytes>>| {
        received
            .lock()
            .unwrap()
            .push((request.into_parts().0.headers, vec![]));
        let fails = now_fails.load(Ordering::SeqCst) > 0;
        async move {
            if fails {
                Err(tower::BoxError::from(log_in_elsewhere()))
            } else {
                Ok(response(StatusCode::OK, SESSION))
            }
        }
    });
    let client = OAuthClient::with_transport(TOKEN_URL, transport).unwrap();
    let (error, requests, stored) = after_failure_of(client, &all, &fails).await;
    // The exchange token was not sent in the place of the refresh token.
    assert_eq!(requests, 2, "{error}");
    assert!(!error.is_final(), "{error}");
    assert!(stored["ended"].is_null(), "{stored}");
    assert_eq!(stored["refresh_token"], "rt");
}

#[tokio::test]
async fn a_revocation_names_the_token_endpoint_as_its_audience() {
    let (client, all) = server(|_| response(StatusCode::OK, TOKEN));
    let client = client
        .client_auth(ClientAuth::private_key_jwt("app", key()))
        .revocation_url("https://login.example.com/revoke")
        .unwrap();
    let cache = TokenCache::new(RefreshTokenSource::new(client, "rt"));
    cache.token().await.unwrap();
    cache.revoke().await.unwrap();
    for received in &*all.lock().unwrap() {
        let [_, claims] = decoded(parameter(received, "client_assertion").unwrap());
        assert_eq!(claims["aud"], TOKEN_URL);
    }
}

/// A server that accepts assertions which are valid by its own clock, an hour ahead. Its response to the first request waits
/// for `first`.
#[tokio::test]
async fn each_assertion_that_was_made_by_a_wrong_clock_is_made_anew() {
    let hour = Duration::from_secs(3_600);
    let first = Arc::new(tokio::sync::Notify::new());
    let requests = Arc::new(AtomicUsize::new(0));
    let (waits, count) = (Arc::clone(&first), Arc::clone(&requests));
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        let waits = Arc::clone(&waits);
        async move {
            if is_first {
                waits.notified().await;
            }
            let Ok(body) = request.into_body().collect().await;
            let parameters: Vec<_> = form_urlencoded::parse(&body.to_bytes())
                .into_owned()
                .collect();
            let received = (HeaderMap::new(), parameters);
            let [_, claims] = decoded(parameter(&received, "client_assertion").unwrap());
            let now = SystemTime::now() + hour;
            let secs = now
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs();
            let is_valid =
                claims["iat"].as_u64().unwrap() <= secs && secs <= claims["exp"].as_u64().unwrap();
            let mut response = if is_valid {
                response(StatusCode::OK, TOKEN)
            } else {
                response(StatusCode::UNAUTHORIZED, INVALID_CLIENT)
            };
            let date = httpdate::fmt_http_date(now).parse().unwrap();
            response.headers_mut().insert(header::DATE, date);
            Ok::<_, Infallible>(response)
        }
    });
    let client = OAuthClient::with_transport(TOKEN_URL, service)
        .unwrap()
        .client_auth(ClientAuth::private_key_jwt("app", key()));
    let early = tokio::spawn(request(client.clone()));
    tokio::task::yield_now().await;
    request(client).await.unwrap();
    first.notify_one();
    early.await.unwrap().unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_or_hangs_costs_one_refresh() {
    for panics in [true, false] {
        let (client, all) = server(|_| response(StatusCode::OK, SESSION));
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let auth = ClientAuth::custom(move |_| {
            let is_second = count.fetch_add(1, Ordering::SeqCst) == 1;
            async move {
                if is_second {
                    assert!(!panics, "as a bug does");
                    std::future::pending::<()>().await;
                }
                Ok(AuthParts::new())
            }
        });
        let source = RefreshTokenSource::new(client.client_auth(auth), "rt");
        let cache = TokenCache::new(source);
        cache.token().await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let error = cache.refresh().await.unwrap_err();
        assert!(error.is_transient() && !error.is_final(), "{error}");
        tokio::time::sleep(Duration::from_secs(120)).await;
        cache.refresh().await.unwrap();
        assert_eq!(all.lock().unwrap().len(), 2);
    }
}
