//! A session survives odd responses of its token endpoint: a day with one request a second, for each kind of response.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;
use tower::service_fn;
use tower_bearer::{
    ClientCredentialsSource, OAuthClient, RefreshTokenSource, Schedule, TokenCache, TokenErrorKind,
    TokenSource, testing::SimulatedClock,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: u64 = 3_600;
const LIFETIME: u64 = 900;

/// A response of the token endpoint that is not the authorization server's usual one.
#[derive(Clone)]
struct Odd {
    status: u16,
    body: &'static str,
    retry_after: Option<&'static str>,
}

fn odd(status: u16, body: &'static str) -> Odd {
    Odd {
        status,
        body,
        retry_after: None,
    }
}

/// A token endpoint that accepts each refresh token once, and client credentials.
#[derive(Clone, Default)]
struct Endpoint {
    odd: Arc<Mutex<Option<Odd>>>,
    /// The server gets the request, although the client gets the odd response.
    passes_on: Arc<Mutex<bool>>,
    issued: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

impl Endpoint {
    fn client(&self) -> OAuthClient {
        let endpoint = self.clone();
        let transport = service_fn(move |request: Request<Full<Bytes>>| {
            let endpoint = endpoint.clone();
            async move {
                let Ok(body) = request.into_body().collect().await;
                let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
                Ok::<_, Infallible>(endpoint.respond(&body))
            }
        });
        OAuthClient::with_transport("https://login.example.com/token", transport).unwrap()
    }

    fn respond(&self, body: &str) -> Response<Full<Bytes>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let odd = self.odd.lock().unwrap().clone();
        let usual = (odd.is_none() || *self.passes_on.lock().unwrap()).then(|| self.rotate(body));
        let Some(Odd {
            status,
            body,
            retry_after,
        }) = odd
        else {
            return usual.unwrap();
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(value) = retry_after {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }

    fn rotate(&self, body: &str) -> Response<Full<Bytes>> {
        let issued = self.issued.load(Ordering::SeqCst);
        let is_refresh = body.ends_with(&format!("refresh_token=rt-{issued}"));
        if !is_refresh && body != "grant_type=client_credentials" {
            let mut response = Response::new(Full::from(r#"{"error":"invalid_grant"}"#));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
        let next = issued + 1;
        self.issued.store(next, Ordering::SeqCst);
        Response::new(Full::from(format!(
            r#"{{"access_token":"at-{next}","refresh_token":"rt-{next}","expires_in":{LIFETIME}}}"#
        )))
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    fn set(&self, odd: Option<Odd>) {
        *self.odd.lock().unwrap() = odd;
    }
}

fn cache(endpoint: &Endpoint, schedule: Schedule) -> TokenCache {
    cache_of(RefreshTokenSource::new(endpoint.client(), "rt-0").schedule(schedule))
}

fn cache_of(source: impl TokenSource) -> TokenCache {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    TokenCache::builder(source)
        .clock(SimulatedClock::new(start))
        .seed(7)
        .build()
}

/// What a day with odd responses from the first hour to the thirteenth has cost.
struct Day {
    /// The token requests while the responses were odd.
    requests: u64,
    /// The seconds from the end of the odd responses to the next usable token.
    recovery: Option<u64>,
}

async fn day(response: Odd) -> Day {
    let endpoint = Endpoint::default();
    let cache = cache(&endpoint, Schedule::default());
    day_of(&endpoint, &cache, response).await
}

async fn day_of(endpoint: &Endpoint, cache: &TokenCache, response: Odd) -> Day {
    let mut at_begin = 0;
    let mut at_end = 0;
    let mut recovery = None;
    for second in 0..24 * HOUR {
        if second == HOUR {
            endpoint.set(Some(response.clone()));
            at_begin = endpoint.requests();
        }
        if second == 13 * HOUR {
            endpoint.set(None);
            at_end = endpoint.requests();
        }
        // A caller would wait; here, nothing but time may pass.
        let has_token = tokio::select! {
            biased;
            token = cache.token() => token.is_ok(),
            () = tokio::task::yield_now() => cache.peek().is_some(),
        };
        if has_token && second >= 13 * HOUR && recovery.is_none() {
            recovery = Some(second - 13 * HOUR);
        }
        sleep(SECOND).await;
    }
    assert!(cache.token().await.is_ok() == recovery.is_some());
    Day {
        requests: at_end - at_begin,
        recovery,
    }
}

/// Of a refresh that is tried slowly: at most 200 requests a day, and 16 minutes until recovery.
async fn recovers_slowly(name: &str, response: Odd) {
    let Day { requests, recovery } = day(response).await;
    println!("{name:40} {requests:5} requests in 12 hours, recovered after {recovery:?} s");
    assert!(requests >= 1, "{name}: never tried again");
    assert!(requests <= 100, "{name}: {requests} requests");
    assert!(
        recovery.is_some_and(|seconds| seconds <= 16 * 60),
        "{name}: {recovery:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_gateway_do_not_end_the_session() {
    for status in [400, 401, 404, 405, 413, 421] {
        let name = format!("{status}, a page");
        recovers_slowly(&name, odd(status, "<html>default backend</html>")).await;
    }
    recovers_slowly("404, empty", odd(404, "")).await;
    recovers_slowly("200, a page", odd(200, "<html>welcome</html>")).await;
}

#[tokio::test(start_paused = true)]
async fn unexplained_responses_do_not_end_the_session() {
    recovers_slowly("403, JSON without a code", odd(403, r#"{"detail":"no"}"#)).await;
    recovers_slowly("400, JSON without a code", odd(400, r#"{"detail":"no"}"#)).await;
    recovers_slowly(
        "400, an unknown code",
        odd(400, r#"{"error":"of_our_own"}"#),
    )
    .await;
    let unusable = "{\"access_token\":\"a\\u0007\",\"expires_in\":900}";
    recovers_slowly("200, an unusable token", odd(200, unusable)).await;
}

#[tokio::test(start_paused = true)]
async fn errors_that_somebody_corrects_do_not_end_the_session() {
    for code in [
        "invalid_client",
        "unauthorized_client",
        "invalid_scope",
        "invalid_request",
    ] {
        let body = format!(r#"{{"error":"{code}"}}"#);
        recovers_slowly(code, odd(401, body.leak())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn server_errors_are_retried_within_minutes() {
    for (status, body) in [
        (503, "<html>"),
        (500, r#"{"error":"invalid_grant"}"#),
        (429, ""),
    ] {
        let Day { requests, recovery } = day(odd(status, body)).await;
        println!("{status:40} {requests:5} requests in 12 hours, recovered after {recovery:?} s");
        // With full jitter up to a minute, half a minute apart.
        assert!(requests <= 2_000, "{status}: {requests}");
        assert!(
            recovery.is_some_and(|seconds| seconds <= 61),
            "{status}: {recovery:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_for_an_hour_at_most() {
    for status in [403, 503] {
        let mut response = odd(status, "");
        response.retry_after = Some("1000000000000");
        let Day { requests, recovery } = day(response).await;
        println!(
            "{status}, Retry-After of ages {requests:5} requests, recovered after {recovery:?} s"
        );
        assert!(requests <= 14, "{status}: {requests}");
        assert!(
            recovery.is_some_and(|seconds| seconds <= HOUR),
            "{status}: {recovery:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_grant_is_not_sent_again() {
    let Day { requests, recovery } = day(odd(400, r#"{"error":"invalid_grant"}"#)).await;
    // While the token was usable. When it is needed, the store says that the grant is dead.
    assert_eq!(requests, 1);
    assert_eq!(recovery, None, "only a new login ends this");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_hides_a_rotation_costs_no_second_request_while_the_token_is_usable() {
    for (resends, expected) in [(false, 1), (true, 2)] {
        let endpoint = Endpoint::default();
        let schedule = Schedule::default()
            .refresh_ahead(0.5, Duration::from_secs(450))
            .jitter(0.0)
            .resend_while_usable(resends);
        let cache = cache(&endpoint, schedule);
        cache.token().await.unwrap();
        *endpoint.passes_on.lock().unwrap() = true;
        endpoint.set(Some(odd(404, "<html>default backend</html>")));
        let before = endpoint.requests();
        // It is due after 445 seconds. Then the page comes, and the rotated token is lost.
        for second in 0..500 {
            assert!(cache.token().await.is_ok(), "{second}");
            sleep(SECOND).await;
        }
        let requests = endpoint.requests() - before;
        assert_eq!(requests, expected, "resends: {resends}");
        assert_eq!(endpoint.issued.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_page_says_what_came_and_is_not_final() {
    let endpoint = Endpoint::default();
    endpoint.set(Some(odd(404, "<html>hunter2</html>")));
    let error = cache(&endpoint, Schedule::default())
        .token()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert!(!error.is_final());
    let text = error.to_string();
    assert!(
        text.contains("HTTP 404") && text.contains("check the token endpoint's URL"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn background_refresh_goes_on_after_an_odd_response_although_nobody_asks() {
    for response in [
        odd(404, "<html>no backend</html>"),
        odd(401, r#"{"error":"invalid_client"}"#),
    ] {
        let endpoint = Endpoint::default();
        let cache = cache(&endpoint, Schedule::default().background_refresh(true));
        while endpoint.requests() == 0 {
            sleep(SECOND).await;
        }
        endpoint.set(Some(response));
        while endpoint.requests() == 1 {
            sleep(SECOND).await;
        }
        endpoint.set(None);
        let requests = endpoint.requests();
        sleep(Duration::from_secs(24 * HOUR)).await;
        // About one request for each lifetime of a token.
        let requests = endpoint.requests() - requests;
        assert!((80..140).contains(&requests), "{requests}");
        drop(cache);
    }
}

#[tokio::test(start_paused = true)]
async fn client_credentials_recover_from_every_response() {
    // The largest number of requests in 12 hours, and of seconds until recovery.
    let slowly = (100, 16 * 60);
    let soon = (2_000, 61);
    let mut limited = odd(403, "");
    limited.retry_after = Some("1000000000000");
    let faults = [
        (
            "404, a page",
            odd(404, "<html>default backend</html>"),
            slowly,
        ),
        ("200, a page", odd(200, "<html>welcome</html>"), slowly),
        (
            "400, JSON without a code",
            odd(400, r#"{"detail":"no"}"#),
            slowly,
        ),
        (
            "invalid_client",
            odd(401, r#"{"error":"invalid_client"}"#),
            slowly,
        ),
        (
            "invalid_scope",
            odd(400, r#"{"error":"invalid_scope"}"#),
            slowly,
        ),
        (
            "invalid_target",
            odd(400, r#"{"error":"invalid_target"}"#),
            slowly,
        ),
        (
            "invalid_grant",
            odd(400, r#"{"error":"invalid_grant"}"#),
            slowly,
        ),
        ("503", odd(503, "<html>"), soon),
        ("429", odd(429, ""), soon),
        ("403, a long Retry-After", limited, (14, HOUR)),
    ];
    for (name, response, (most, latest)) in faults {
        let endpoint = Endpoint::default();
        let cache = cache_of(ClientCredentialsSource::new(endpoint.client()));
        let Day { requests, recovery } = day_of(&endpoint, &cache, response).await;
        println!("{name:40} {requests:5} requests in 12 hours, recovered after {recovery:?} s");
        assert!(
            (1..=most).contains(&requests),
            "{name}: {requests} requests"
        );
        let is_in_time = recovery.is_some_and(|seconds| seconds <= latest);
        assert!(is_in_time, "{name}: {recovery:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_credentials_cost_one_request_a_lifetime() {
    let endpoint = Endpoint::default();
    let cache = cache_of(ClientCredentialsSource::new(endpoint.client()));
    for _ in 0..24 * HOUR {
        cache.token().await.unwrap();
        sleep(SECOND).await;
    }
    // 96 lifetimes a day, each a little shortened by the refresh ahead.
    let requests = endpoint.requests();
    assert!((96..140).contains(&requests), "{requests}");
}
