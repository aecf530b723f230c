//! Rejections that a new token does not prevent cost a bounded number of refreshes.

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use support::get;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, Origins, ReplayBody, Schedule, Token, TokenCache, TokenContext, TokenError,
    TokenErrorKind, TokenSource, TokenState, source_fn, testing::SimulatedClock,
};

const SECOND: Duration = Duration::from_secs(1);
const LIFETIME: Duration = Duration::from_secs(900);
const API: &str = "https://api.example.com/";
const OTHER_API: &str = "https://other.example.com/";

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, tower::BoxError>;

/// A source that numbers its tokens from 1, and how many it has issued.
fn numbered() -> (Arc<AtomicU64>, TokenCache) {
    let issued = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&issued);
    let source = source_fn(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Ok::<_, TokenError>(Token::new(number.to_string())?.expires_in(LIFETIME)) }
    });
    let start = SystemTime::UNIX_EPOCH + 1_700_000_000 * SECOND;
    let cache = TokenCache::builder(source)
        .clock(SimulatedClock::new(start))
        .build();
    (issued, cache)
}

fn number(headers: &HeaderMap) -> u64 {
    let value = headers[AUTHORIZATION].to_str().unwrap();
    value.strip_prefix("Bearer ").unwrap().parse().unwrap()
}

/// A client of an API that answers 401 where `rejects` says so, given the URL, the number of the token and its age.
fn client(
    cache: &TokenCache,
    rejects: impl Fn(&str, u64, Duration) -> bool + Send + Sync + 'static,
) -> Client {
    let rejects = Arc::new(rejects);
    let seen = Arc::new(std::sync::Mutex::new((0, Instant::now())));
    let api = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let token = number(request.headers());
        let mut seen = seen.lock().unwrap();
        if seen.0 != token {
            *seen = (token, Instant::now());
        }
        let is_rejected = rejects(&request.uri().to_string(), token, seen.1.elapsed());
        let mut response = Response::new(Full::default());
        if is_rejected {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        async move { Ok::<_, Infallible>(response) }
    });
    BoxCloneSyncService::new(BearerAuthLayer::from(cache.clone()).layer(api))
}

async fn status(client: &Client, url: &str) -> StatusCode {
    client.clone().oneshot(get(url)).await.unwrap().status()
}

/// Sends a request every `interval` for `time`. Returns how many failed.
async fn send_for(client: &Client, url: &str, interval: Duration, time: Duration) -> u32 {
    let end = Instant::now() + time;
    let mut failed = 0;
    while Instant::now() < end {
        failed += u32::from(status(client, url).await != StatusCode::OK);
        sleep(interval).await;
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_api_knows_only_some_seconds_after_its_issue_is_kept() {
    let (issued, cache) = numbered();
    let client = client(&cache, |_, _, age| age < 5 * SECOND);
    let failed = send_for(&client, API, SECOND / 2, 3_600 * SECOND).await;
    // In each of the five lifetimes, refreshes wait 1, 2, 4 and 8 seconds. Then the API knows the token.
    let issued = issued.load(Ordering::SeqCst);
    assert!(issued <= 5 * 4, "{issued} refreshes in an hour");
    assert!(failed <= 5 * 25, "{failed} requests failed");
    assert_eq!(cache.status().state, TokenState::Fresh);
}

#[tokio::test(start_paused = true)]
async fn one_bad_server_of_three_costs_few_refreshes() {
    for interval in [SECOND, SECOND / 10, SECOND / 100] {
        let requests = AtomicU64::new(0);
        let (issued, cache) = numbered();
        let client = client(&cache, move |_, _, _| {
            requests.fetch_add(1, Ordering::SeqCst) % 3 == 2
        });
        send_for(&client, API, interval, 600 * SECOND).await;
        let in_ten_minutes = issued.load(Ordering::SeqCst);
        assert!(
            in_ten_minutes <= 10 + 10,
            "{in_ten_minutes} at {interval:?}"
        );
        if interval == SECOND {
            send_for(&client, API, interval, 85_800 * SECOND).await;
            let in_a_day = issued.load(Ordering::SeqCst);
            // 96 quarters of an hour, and as many lifetimes.
            assert!(in_a_day <= 20 + 2 * 96, "{in_a_day} in a day");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_always_rejects_costs_few_refreshes_and_others_go_on() {
    let (issued, cache) = numbered();
    let client = client(&cache, |url, _, _| url == OTHER_API);
    let rejected = {
        let client = client.clone();
        tokio::spawn(async move { send_for(&client, OTHER_API, SECOND / 3, 3_600 * SECOND).await })
    };
    let failed = send_for(&client, API, SECOND / 5, 3_600 * SECOND).await;
    assert_eq!(failed, 0);
    assert!(rejected.await.unwrap() > 3_000);
    let issued = issued.load(Ordering::SeqCst);
    assert!(issued <= 60 + 10, "{issued} refreshes in an hour");
}

/// A source whose grant died after its first token, and that goes on with the session of another process.
#[derive(Clone, Default)]
struct Resumed(Arc<AtomicU64>);

impl TokenSource for Resumed {
    async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
        let call = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        if call == 2 {
            return Err(TokenError::new(
                TokenErrorKind::ReauthRequired,
                "log in again",
            ));
        }
        Ok(Token::new(call.to_string())?.expires_in(LIFETIME))
    }

    async fn has_changed(&self) -> bool {
        sleep(SECOND).await;
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_rejected_while_the_source_is_asked_for_a_change_waits_for_the_answer() {
    let source = Resumed::default();
    let cache = TokenCache::new(source.clone());
    let client = client(&cache, |_, token, _| token == 1);
    cache.token().await.unwrap();
    sleep(SECOND).await;
    cache.refresh().await.unwrap_err();
    sleep(10 * SECOND).await;
    // This asks the source whether something has changed.
    cache.refresh().await.unwrap_err();
    assert_eq!(source.0.load(Ordering::SeqCst), 2);
    assert_eq!(status(&client, API).await, StatusCode::OK);
    assert_eq!(source.0.load(Ordering::SeqCst), 3);
}

/// A source whose first refresh brings token 1, and the next ones fail. Token 2 is in its store. What takes long waits for a
/// permit.
#[derive(Clone, Default)]
struct Failing {
    refreshes: Arc<AtomicU64>,
    /// For each refresh but the first two.
    may_fail: Arc<Notify>,
    /// For each look into the store.
    may_look: Arc<Notify>,
}

impl TokenSource for Failing {
    async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
        match self.refreshes.fetch_add(1, Ordering::SeqCst) {
            0 => return Token::new("1"),
            1 => {}
            _ => self.may_fail.notified().await,
        }
        Err(TokenError::new(TokenErrorKind::Server, "down"))
    }

    async fn stored_token(&self, _: TokenContext) -> Option<Token> {
        self.may_look.notified().await;
        Token::new("2").ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_process_that_is_found_during_a_refresh_is_used() {
    let source = Failing::default();
    let cache = TokenCache::new(source.clone());
    let client = client(&cache, |_, token, _| token == 1);
    // After this, refreshes are held back.
    assert_eq!(status(&client, API).await, StatusCode::UNAUTHORIZED);
    let send = || {
        let client = client.clone();
        tokio::spawn(async move { status(&client, API).await })
    };
    let looking = send();
    sleep(2 * SECOND).await;
    // They are not any more, so this request does not wait for the look.
    let refreshing = send();
    sleep(2 * SECOND).await;
    assert_eq!(source.refreshes.load(Ordering::SeqCst), 3);

    source.may_look.notify_one();
    assert_eq!(looking.await.unwrap(), StatusCode::OK);
    assert_eq!(status(&client, API).await, StatusCode::OK);
    assert_eq!(cache.peek().unwrap().expose_secret(), "2");
    source.may_fail.notify_one();
    assert_eq!(refreshing.await.unwrap(), StatusCode::OK);
    assert_eq!(cache.status().state, TokenState::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_process_that_is_found_after_a_refresh_has_failed_is_used() {
    let source = Failing::default();
    let cache = TokenCache::new(source.clone());
    let client = client(&cache, |_, token, _| token == 1);
    assert_eq!(status(&client, API).await, StatusCode::UNAUTHORIZED);
    let send = || {
        let client = client.clone();
        tokio::spawn(async move { status(&client, API).await })
    };
    let looking = send();
    sleep(2 * SECOND).await;
    let refreshing = send();
    sleep(2 * SECOND).await;
    source.may_fail.notify_one();
    assert_eq!(refreshing.await.unwrap(), StatusCode::UNAUTHORIZED);

    source.may_look.notify_one();
    assert_eq!(looking.await.unwrap(), StatusCode::OK);
    assert_eq!(cache.peek().unwrap().expose_secret(), "2");
    assert_eq!(status(&client, API).await, StatusCode::OK);
    assert_eq!(cache.status().state, TokenState::Fresh);
}

/// A cache whose token 2 has been rejected twice in a row, so that its refresh is held back.
async fn held() -> (Arc<AtomicU64>, TokenCache, Client) {
    let (issued, cache) = numbered();
    let rejecting = client(&cache, |_, _, _| true);
    for _ in 0..2 {
        assert_eq!(status(&rejecting, API).await, StatusCode::UNAUTHORIZED);
    }
    let state = cache.status();
    assert_eq!((state.state, state.issued), (TokenState::Rejected, 2));
    assert!(state.held_until.is_some());
    (issued, cache, rejecting)
}

#[tokio::test(start_paused = true)]
async fn a_success_after_the_rejection_cancels_the_refresh_that_is_held_back() {
    let (issued, cache, _) = held().await;
    // `min_interval` has passed, and the refresh is still held back.
    sleep(SECOND).await;
    assert!(cache.status().held_until.is_some());
    let accepting = client(&cache, |_, _, _| false);
    assert_eq!(status(&accepting, API).await, StatusCode::OK);
    let state = cache.status();
    assert_eq!((state.state, state.held_until), (TokenState::Fresh, None));
    send_for(&accepting, API, SECOND, 600 * SECOND).await;
    assert_eq!(issued.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_success_at_another_origin_cancels_no_refresh() {
    let (issued, cache, _) = held().await;
    let accepting = client(&cache, |_, _, _| false);
    for url in [
        OTHER_API,
        "https://api.example.com:8443/",
        "https://api.example.com./",
    ] {
        assert_eq!(status(&accepting, url).await, StatusCode::OK);
        assert_eq!(cache.status().state, TokenState::Rejected, "{url}");
    }
    send_for(&accepting, OTHER_API, SECOND, 60 * SECOND).await;
    assert_eq!(issued.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn the_refresh_of_a_token_that_is_not_rejected_is_not_held_back() {
    let (_, cache, _) = held().await;
    sleep(2 * SECOND).await;
    cache.refresh().await.unwrap();
    // Only `min_interval` holds it back.
    assert!(cache.status().held_until.is_some());
    sleep(SECOND + SECOND / 2).await;
    let state = cache.status();
    assert_eq!((state.state, state.held_until), (TokenState::Fresh, None));
}

/// A source whose store has another token whenever it is asked.
struct Shared(AtomicU64);

impl Shared {
    fn next(&self) -> Result<Token, TokenError> {
        Token::new((self.0.fetch_add(1, Ordering::SeqCst) + 1).to_string())
    }
}

impl TokenSource for Shared {
    async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
        self.next()
    }

    async fn stored_token(&self, _: TokenContext) -> Option<Token> {
        self.next().ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_counts_from_the_last_token_even_if_another_process_has_requested_it() {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH + 1_700_000_000 * SECOND);
    let cache = TokenCache::builder(Shared(AtomicU64::new(0)));
    let cache = cache.clock(clock.clone()).build();
    let rejecting = client(&cache, |_, _, _| true);
    status(&rejecting, API).await;
    sleep(SECOND).await;
    status(&rejecting, API).await;
    assert_eq!(cache.peek().unwrap().expose_secret(), "3");
    // It is the third that did not help.
    let held_until = cache.status().held_until;
    assert_eq!(held_until, Some(clock.now() + 4 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn after_a_reset_only_min_interval_holds_a_refresh_back() {
    let (issued, cache, rejecting) = held().await;
    cache.reset();
    sleep(SECOND).await;
    assert_eq!(cache.status().held_until, None);
    status(&rejecting, API).await;
    assert_eq!(issued.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn another_spelling_of_the_same_origin_is_the_same_origin() {
    let (_, cache, _) = held().await;
    let accepting = client(&cache, |_, _, _| false);
    let same = "https://API.example.com:443/another?path";
    assert_eq!(status(&accepting, same).await, StatusCode::OK);
    assert_eq!(cache.status().state, TokenState::Fresh);
}

#[tokio::test(start_paused = true)]
async fn after_rejections_by_two_origins_a_success_at_one_cancels_no_refresh() {
    let (_, cache, rejecting) = held().await;
    assert_eq!(
        status(&rejecting, OTHER_API).await,
        StatusCode::UNAUTHORIZED
    );
    let accepting = client(&cache, |_, _, _| false);
    for url in [API, OTHER_API] {
        assert_eq!(status(&accepting, url).await, StatusCode::OK);
        assert_eq!(cache.status().state, TokenState::Rejected, "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_of_a_request_that_was_sent_before_the_rejection_cancels_no_refresh() {
    let (_, cache, rejecting) = held().await;
    // Sent now, and answered after the next rejection.
    let (answer, answered) = oneshot::channel::<()>();
    let answered = Arc::new(std::sync::Mutex::new(Some(answered)));
    let slow = service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
        let answered = answered.lock().unwrap().take().unwrap();
        async move {
            answered.await.unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let slow = BearerAuthLayer::from(cache.clone()).layer(slow);
    let slow = tokio::spawn(slow.oneshot(get(API)));
    tokio::task::yield_now().await;
    assert_eq!(status(&rejecting, API).await, StatusCode::UNAUTHORIZED);
    answer.send(()).unwrap();
    assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(cache.status().state, TokenState::Rejected);
}

#[tokio::test(start_paused = true)]
async fn a_success_does_not_cancel_a_refresh_that_runs() {
    let (answer, answered) = oneshot::channel::<()>();
    let answered = Arc::new(std::sync::Mutex::new(Some(answered)));
    let issued = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&issued);
    let source = source_fn(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let answered = (number == 3).then(|| answered.lock().unwrap().take().unwrap());
        async move {
            if let Some(answered) = answered {
                answered.await.unwrap();
            }
            Ok::<_, TokenError>(Token::new(number.to_string())?.expires_in(LIFETIME))
        }
    });
    let cache = TokenCache::new(source);
    let rejecting = client(&cache, |_, _, _| true);
    for _ in 0..2 {
        status(&rejecting, API).await;
    }
    sleep(2 * SECOND).await;
    // The held refresh is due now. This request starts it, with the old token.
    let accepting = client(&cache, |_, _, _| false);
    for _ in 0..2 {
        assert_eq!(status(&accepting, API).await, StatusCode::OK);
        tokio::task::yield_now().await;
        let state = cache.status();
        assert!(state.refreshing);
        assert_eq!(state.state, TokenState::Rejected);
    }
    answer.send(()).unwrap();
    assert_eq!(cache.refresh().await.unwrap().expose_secret(), "3");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_an_accepted_token_can_be_disproved_if_only_one_origin_is_allowed() {
    let is_down = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let source = source_fn(move |_| {
        let is_down = down.load(Ordering::SeqCst);
        async move {
            if is_down {
                return Err(TokenError::new(TokenErrorKind::Server, "down"));
            }
            Ok(Token::new("1")?.expires_in(LIFETIME))
        }
    });
    let cache = TokenCache::builder(source)
        .origins(Origins::only(["https://api.example.com"]).unwrap())
        .schedule(Schedule::default().min_interval(Duration::ZERO))
        .build();
    let accepting = client(&cache, |_, _, _| false);
    let rejecting = client(&cache, |_, _, _| true);
    status(&accepting, API).await;
    is_down.store(true, Ordering::SeqCst);
    status(&rejecting, API).await;
    assert_eq!(cache.status().state, TokenState::Rejected);
    status(&accepting, API).await;
    assert_eq!(cache.status().state, TokenState::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_does_not_put_off_the_refresh_that_is_held_back() {
    let (issued, cache, rejecting) = held().await;
    // The pause is 2 seconds long.
    let due = cache.status().due_at;
    sleep(SECOND + SECOND / 2).await;
    status(&rejecting, API).await;
    tokio::task::yield_now().await;
    assert_eq!(cache.status().due_at, due);
    sleep(SECOND).await;
    let accepting = client(&cache, |_, _, _| false);
    status(&accepting, OTHER_API).await;
    sleep(SECOND / 10).await;
    assert_eq!(issued.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_success_does_not_disprove_a_rejection_that_the_user_reports() {
    let (_, cache, rejecting) = held().await;
    cache.reject(&cache.peek().unwrap());
    status(&rejecting, API).await;
    let accepting = client(&cache, |_, _, _| false);
    assert_eq!(status(&accepting, API).await, StatusCode::OK);
    assert_eq!(cache.status().state, TokenState::Rejected);
}
