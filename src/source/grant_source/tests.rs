use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use tower::service_fn;

use super::*;
use crate::{
    clock::Clock,
    error::TokenErrorKind,
    grant::{ExchangeTokenGrant, GrantContext, RefreshTokenGrant},
    oauth::Parameters,
    source::{ExchangeTokenSource, RefreshTokenSource},
    testing::SimulatedClock,
};

const TOKEN_URL: &str = "https://login.example/token?tenant=7";
const REFRESH_URL: &str = "https://login.example/refresh";

type Sent = Arc<Mutex<Vec<(Uri, String)>>>;

/// A server that records requests, and gives the responses in order. The last one repeats.
fn server(responses: &[(u16, &'static str)]) -> (OAuthClient, Sent) {
    let sent = Sent::default();
    let (recorded, responses) = (Arc::clone(&sent), responses.to_vec());
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let (recorded, responses) = (Arc::clone(&recorded), responses.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            let mut recorded = recorded.lock().unwrap();
            let (status, response) = responses[recorded.len().min(responses.len() - 1)];
            recorded.push((head.uri, body));
            let response = Response::builder().status(status).body(response.to_owned());
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    let client = OAuthClient::with_transport(TOKEN_URL, service).unwrap();
    (client, sent)
}

fn bodies(sent: &Sent) -> Vec<String> {
    let sent = sent.lock().unwrap();
    sent.iter().map(|(_, body)| body.clone()).collect()
}

async fn next(source: &impl TokenSource, token: &Token) -> Result<Token, TokenError> {
    source
        .token(TokenContext::new().replacing(token.clone()))
        .await
}

/// A grant of a third party: it makes another assertion for each request.
#[derive(Default)]
struct Assertions {
    made: AtomicUsize,
    fails: bool,
    /// Its first parameters are never made.
    hangs: bool,
}

impl Grant for Assertions {
    async fn parameters(&self, cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
        tokio::task::yield_now().await;
        if self.fails {
            let message = "the file with the key cannot be read";
            return Err(TokenError::new(TokenErrorKind::Source, message));
        }
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        if self.hangs && number == 0 {
            std::future::pending::<()>().await;
        }
        let since = cx.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(cx.audience(), TOKEN_URL);
        let assertion = format!("{number}-{}", since.as_secs());
        Ok(Parameters::new("assertion").with("assertion", assertion))
    }

    fn identity(&self) -> Identity {
        Identity::new("assertions", "of the tests")
    }

    fn can_repeat(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_of_a_third_party_begins_a_session_that_is_refreshed() {
    let (client, sent) = server(&[
        (200, r#"{"access_token":"a","refresh_token":"r"}"#),
        (200, r#"{"access_token":"b"}"#),
        (400, r#"{"error":"invalid_grant"}"#),
        (200, r#"{"access_token":"c"}"#),
    ]);
    let source = GrantSource::with_grant(client, Assertions::default());
    let clock = Clock::from(SimulatedClock::new(
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    ));
    let cx = TokenContext::with_clock(clock);
    let mut token = source.token(cx.clone()).await.unwrap();
    for _ in 0..2 {
        token = source.token(cx.clone().replacing(token)).await.unwrap();
    }
    assert_eq!(token.header(), "Bearer c");
    assert_eq!(
        bodies(&sent),
        [
            "grant_type=assertion&assertion=0-1700000000",
            "grant_type=refresh_token&refresh_token=r",
            // The refresh token is invalid: the grant begins the session anew.
            "grant_type=refresh_token&refresh_token=r",
            "grant_type=assertion&assertion=1-1700000000",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_makes_no_parameters_for_ever_blocks_no_later_refresh() {
    let (client, sent) = server(&[(200, r#"{"access_token":"a","refresh_token":"r"}"#)]);
    let grant = Assertions {
        hangs: true,
        ..Assertions::default()
    };
    let source = GrantSource::with_grant(client, grant);
    let error = source.token(TokenContext::new()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert!(sent.lock().unwrap().is_empty());
    source.token(TokenContext::new()).await.unwrap();
    assert_eq!(sent.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_makes_no_parameters_sends_nothing_and_leaves_no_mark() {
    let (client, sent) = server(&[(200, "{}")]);
    let store = MemoryStore::new();
    let grant = Assertions {
        fails: true,
        ..Assertions::default()
    };
    let source = GrantSource::with_grant(client, grant).store(store.clone());
    let error = source.token(TokenContext::new()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Source);
    assert!(sent.lock().unwrap().is_empty());
    let stored = TokenStore::load(&store).await.unwrap().unwrap();
    assert_eq!(stored.refreshing_since(), None);
}

#[tokio::test(start_paused = true)]
async fn a_grant_in_an_arc_is_a_grant() {
    let (client, sent) = server(&[(200, r#"{"access_token":"a"}"#)]);
    let grant = Arc::new(Assertions::default());
    let source = GrantSource::with_grant(client, Arc::clone(&grant));
    let token = source.token(TokenContext::new()).await.unwrap();
    // No refresh token was issued, so the grant is used again.
    next(&source, &token).await.unwrap();
    assert_eq!(grant.made.load(Ordering::SeqCst), 2);
    assert_eq!(sent.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_refresh_tokens_go_to_the_refresh_url() {
    let rotated = (200, r#"{"access_token":"a","refresh_token":"r"}"#);
    let uris = |sent: &Sent| -> Vec<String> {
        let sent = sent.lock().unwrap();
        sent.iter().map(|(uri, _)| uri.to_string()).collect()
    };

    let (client, sent) = server(&[rotated, (200, r#"{"access_token":"b"}"#)]);
    let client = client.refresh_url(REFRESH_URL).unwrap();
    let source = ExchangeTokenSource::new(client, "x");
    let token = source.token(TokenContext::new()).await.unwrap();
    next(&source, &token).await.unwrap();
    assert_eq!(uris(&sent), [TOKEN_URL, REFRESH_URL]);

    // A configured refresh token is like an issued one.
    let (client, sent) = server(&[rotated]);
    let client = client.refresh_url(REFRESH_URL).unwrap();
    let source = RefreshTokenSource::new(client, "x");
    source.token(TokenContext::new()).await.unwrap();
    assert_eq!(uris(&sent), [REFRESH_URL]);
}

#[tokio::test(start_paused = true)]
async fn a_configured_refresh_token_is_kept_if_no_other_is_issued() {
    let (client, sent) = server(&[
        (200, r#"{"access_token":"a"}"#),
        (200, r#"{"access_token":"b"}"#),
    ]);
    let source = RefreshTokenSource::new(client, "first");
    let token = source.token(TokenContext::new()).await.unwrap();
    next(&source, &token).await.unwrap();
    let expected = "grant_type=refresh_token&refresh_token=first";
    assert_eq!(bodies(&sent), [expected, expected]);
}

#[test]
fn the_identity_tells_grants_apart_and_does_not_depend_on_the_client() {
    let refresh = |token: &str| {
        let (client, _) = server(&[(200, "{}")]);
        RefreshTokenSource::new(client, token).identity().clone()
    };
    assert_eq!(refresh("a"), refresh("a"));
    assert_ne!(refresh("a"), refresh("b"));
    assert_eq!(refresh("a"), RefreshTokenGrant::new("a").identity());
    assert_ne!(refresh("a"), ExchangeTokenGrant::new("a").identity());
}

#[test]
fn debug_shows_no_secret() {
    let (client, _) = server(&[(200, "{}")]);
    let refresh = RefreshTokenSource::new(client.clone(), "hunter2");
    let exchange = ExchangeTokenSource::new(client, "hunter2").grant_type("x", "y");
    let grants = (
        RefreshTokenGrant::new("hunter2"),
        ExchangeTokenGrant::new("hunter2"),
        GrantContext::new(SystemTime::UNIX_EPOCH, "https://a.example/?key=hunter2"),
    );
    let shown = format!("{refresh:?}{exchange:?}{grants:?}{grants:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_session_of_the_highest_version_is_an_error_and_sends_nothing() {
    use crate::store::{StoreLease, sample};

    let (client, sent) = server(&[(200, r#"{"access_token":"a"}"#)]);
    let store = MemoryStore::new();
    let mut lease = TokenStore::lease(&store).await.unwrap();
    let highest = sample(u64::MAX, "x").of_client(client.identity(&[]));
    lease.save(0, &highest).await.unwrap();
    lease.release().await;
    let source = RefreshTokenSource::new(client, "first").store(store);
    let error = source.token(TokenContext::new()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert!(error.to_string().contains("highest"), "{error}");
    assert!(sent.lock().unwrap().is_empty());
}

#[test]
fn the_tokens_of_another_client_are_neither_adopted_nor_sent_wherever_they_come_from() {
    use crate::store::sample;

    let (client, _) = server(&[(200, "{}")]);
    let source = RefreshTokenSource::new(client, "first");
    let cx = TokenContext::new();
    let ours = sample(1, "x").of_client(source.client_identity.clone());
    let of_another = sample(1, "x");
    // Not a new login: this source has used its credential.
    source.with_state(|state| state.newest = Some(ours.clone()));
    assert!(source.adopt(Some(&ours), &cx).is_some());
    assert!(source.credential(&ours).is_some());
    assert!(source.adopt(Some(&of_another), &cx).is_none());
    assert!(source.credential(&of_another).is_none());
}
