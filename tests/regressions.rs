//! Regression tests: unusual sequences of events that once broke a cache or a session.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};
use tokio::{
    task::yield_now,
    time::{advance, sleep},
};
use tower::ServiceExt;
use tower_bearer::{
    ClientAuth, ExchangeTokenSource, MemoryLease, MemoryStore, OAuthClient, RefreshTokenSource,
    Schedule, StoreLease, StoredSession, Token, TokenCache, TokenContext, TokenError,
    TokenErrorKind, TokenSource, TokenStore, source_fn,
    testing::{AuthorizationServer, Dialect, Fault, SimulatedClock},
};
const SECOND: Duration = Duration::from_secs(1);
fn clock() -> SimulatedClock {
    SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}
fn server_error() -> TokenError {
    TokenError::new(TokenErrorKind::Server, "down")
}
fn final_error() -> TokenError {
    TokenError::new(TokenErrorKind::ReauthRequired, "log in again")
}
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}
fn endpoint(server: &AuthorizationServer) -> OAuthClient {
    let url = format!("https://login.example{}", server.token_path());
    OAuthClient::with_transport(url, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ))
}
async fn first(source: &impl TokenSource) -> Result<Token, TokenError> {
    source.token(TokenContext::new()).await
}
async fn next(source: &impl TokenSource, token: &Token) -> Result<Token, TokenError> {
    source
        .token(TokenContext::new().replacing(token.clone()))
        .await
}

/// A shared `MemoryStore` with faults for each process.
#[derive(Clone, Default)]
struct FaultyStore {
    store: MemoryStore,
    fail_saves: Arc<AtomicUsize>,
    commit_then_fail: Arc<AtomicBool>,
    lease_takes: Arc<Mutex<Duration>>,
}
struct FaultyLease {
    lease: MemoryLease,
    faulty: FaultyStore,
    saves: usize,
}
impl TokenStore for FaultyStore {
    type Lease = FaultyLease;
    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.store.load().await
    }
    async fn lease(&self) -> Result<FaultyLease, TokenError> {
        let takes = *self.lease_takes.lock().unwrap();
        sleep(takes).await;
        Ok(FaultyLease {
            lease: self.store.lease().await?,
            faulty: self.clone(),
            saves: 0,
        })
    }
}
impl StoreLease for FaultyLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        self.saves += 1;
        if self.saves > 1 {
            if self.faulty.fail_saves.load(Ordering::SeqCst) > 0 {
                self.faulty.fail_saves.fetch_sub(1, Ordering::SeqCst);
                return Err(TokenError::new(TokenErrorKind::Store, "set to fail"));
            }
            if self.faulty.commit_then_fail.swap(false, Ordering::SeqCst) {
                self.lease.save(replaces, session).await?;
                return Err(TokenError::new(TokenErrorKind::Store, "reply lost"));
            }
        }
        self.lease.save(replaces, session).await
    }
    async fn is_held(&self) -> Result<bool, TokenError> {
        Ok(true)
    }
}

mod session {
    use super::*;
    #[tokio::test(start_paused = true)]
    async fn a_wrong_new_credential_does_not_delete_the_stored_session() {
        let server = server().detect_reuse(true);
        let store = MemoryStore::new();
        let refresh_token = server.issue_refresh_token();
        let correct = || {
            RefreshTokenSource::new(endpoint(&server), refresh_token.clone()).store(store.clone())
        };
        let token = first(&correct()).await.unwrap();
        let typo = RefreshTokenSource::new(endpoint(&server), "typo").store(store.clone());
        first(&typo).await.unwrap_err();
        // The configuration is corrected, and the process is restarted.
        let r = next(&correct(), &token).await;
        assert_eq!(server.reuse_detected(), 0);
        assert!(r.is_ok());
    }
    #[tokio::test(start_paused = true)]
    async fn a_failed_login_of_another_process_does_not_end_the_session() {
        let server = server().detect_reuse(true);
        let store = MemoryStore::new();
        let running = RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token())
            .store(store.clone());
        let token = first(&running).await.unwrap();
        let new = RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token())
            .store(store.clone());
        server.fault(Fault::Status(http::StatusCode::SERVICE_UNAVAILABLE));
        first(&new).await.unwrap_err();
        next(&running, &token).await.unwrap();
        assert_eq!(
            server.reuse_detected(),
            0,
            "the rotated refresh token was sent again"
        );
    }
    #[tokio::test(start_paused = true)]
    async fn a_new_login_whose_first_request_failed_is_still_used() {
        // Without rotation and reuse detection the old login still works, and must not hide the new one.
        let server = server().rotate(false);
        let store = MemoryStore::new();
        let old = RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token())
            .store(store.clone());
        let token = first(&old).await.unwrap();
        let new_login = server.issue_refresh_token();
        let new =
            RefreshTokenSource::new(endpoint(&server), new_login.clone()).store(store.clone());
        server.fault(Fault::Status(http::StatusCode::SERVICE_UNAVAILABLE));
        first(&new).await.unwrap_err();
        let token = next(&old, &token).await.unwrap();
        next(&new, &token).await.unwrap();
        let used: Vec<_> = server
            .requests()
            .iter()
            .map(|r| r.param("refresh_token").unwrap() == new_login)
            .collect();
        assert!(*used.last().unwrap(), "the new login was never tried again");
    }
    #[tokio::test(start_paused = true)]
    async fn an_unsaved_rotation_reaches_another_process_before_it_sends_anything() {
        let server = server().detect_reuse(true);
        let shared = MemoryStore::new();
        let refresh_token = server.issue_refresh_token();
        let faulty = FaultyStore {
            store: shared.clone(),
            ..FaultyStore::default()
        };
        let a =
            RefreshTokenSource::new(endpoint(&server), refresh_token.clone()).store(faulty.clone());
        let b =
            RefreshTokenSource::new(endpoint(&server), refresh_token.clone()).store(shared.clone());
        let t1 = first(&a).await.unwrap();
        first(&b).await.unwrap();
        faulty.fail_saves.store(3, Ordering::SeqCst);
        let t2 = next(&a, &t1).await.unwrap(); // The new refresh token is in A's memory only.
        // B waits until A has saved in the background, and sends nothing.
        let adopted = next(&b, &t1).await.unwrap();
        assert_eq!(adopted.expose_secret(), t2.expose_secret());
        assert_eq!(server.token_requests(), 2);
        let t3 = next(&a, &t2).await;
        let t3 = t3.unwrap();
        assert_ne!(
            t3.expose_secret(),
            t1.expose_secret(),
            "the older token was returned again"
        );
        next(&a, &t3).await.unwrap();
        assert_eq!(server.reuse_detected(), 0);
    }
    #[tokio::test(start_paused = true)]
    async fn a_save_whose_confirmation_was_lost_is_not_a_lost_lease() {
        let server = server();
        let faulty = FaultyStore::default();
        let cache = TokenCache::new(
            RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token())
                .store(faulty.clone()),
        );
        faulty.commit_then_fail.store(true, Ordering::SeqCst);
        cache.token().await.unwrap();
        assert!(cache.status().last_error.is_none());
    }
    #[tokio::test(start_paused = true)]
    async fn after_invalid_client_the_session_of_another_process_is_adopted() {
        let server = server();
        let store = MemoryStore::new();
        let refresh_token = server.issue_refresh_token();
        let mk = || {
            RefreshTokenSource::new(endpoint(&server), refresh_token.clone()).store(store.clone())
        };
        let cache = TokenCache::new(mk());
        server.fault(Fault::error("invalid_client"));
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
        let token = first(&mk()).await.unwrap(); // Another process gets a token and saves it.
        for _ in 0..300 {
            let _ = cache.token().await;
            sleep(SECOND).await;
        }
        assert_eq!(
            cache.token().await.unwrap().expose_secret(),
            token.expose_secret()
        );
    }
    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_lease_does_not_shorten_the_request_timeout() {
        let server = server().detect_reuse(true);
        let faulty = FaultyStore::default();
        let cache = TokenCache::builder(
            RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token())
                .store(faulty.clone()),
        )
        .max_wait(1000 * SECOND)
        .build();
        *faulty.lease_takes.lock().unwrap() = 110 * SECOND;
        server.fault(Fault::Delay(15 * SECOND));
        cache.token().await.unwrap_err();
        *faulty.lease_takes.lock().unwrap() = Duration::ZERO;
        sleep(120 * SECOND).await;
        cache.token().await.unwrap();
        assert_eq!(server.reuse_detected(), 0);
    }
    #[tokio::test(start_paused = true)]
    async fn clones_over_different_stores_do_not_share_a_session() {
        let server = server();
        let base = RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token());
        let (s1, s2) = (MemoryStore::new(), MemoryStore::new());
        let a = base.clone().store(s1.clone());
        let b = base.clone().store(s2.clone());
        first(&a).await.unwrap();
        let _ = first(&b).await;
        let used: Vec<_> = server
            .requests()
            .iter()
            .map(|r| r.param("refresh_token").unwrap().to_owned())
            .collect();
        assert_eq!(
            used[0], used[1],
            "b used a's rotated token, which its own store never held"
        );
    }
    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_about_to_expire_is_not_adopted() {
        let server = server().access_lifetime(Duration::from_secs(900));
        let store = MemoryStore::new();
        let refresh_token = server.issue_refresh_token();
        let clk = clock();
        let mk = || {
            TokenCache::builder(
                RefreshTokenSource::new(endpoint(&server), refresh_token.clone())
                    .store(store.clone()),
            )
            .clock(clk.clone())
            .build()
        };
        mk().token().await.unwrap();
        advance(Duration::from_millis(899_500)).await;
        let restarted = mk();
        let t = restarted.token().await.unwrap();
        advance(SECOND).await;
        assert!(
            server.is_live(t.expose_secret()),
            "returned half a second before its expiry"
        );
    }
    #[tokio::test(start_paused = true)]
    async fn a_clock_before_1970_causes_no_panic() {
        let server = server().detect_reuse(true);
        let clk = SimulatedClock::new(SystemTime::UNIX_EPOCH - Duration::from_secs(10_000));
        let cache = TokenCache::builder(RefreshTokenSource::new(
            endpoint(&server),
            server.issue_refresh_token(),
        ))
        .clock(clk)
        .build();
        server.fault(Fault::DropReplyAfterCommit);
        cache.token().await.unwrap_err();
        sleep(2 * SECOND).await;
        let e = cache.token().await.unwrap_err();
        assert_eq!(e.kind(), TokenErrorKind::ReauthRequired);
    }
}

mod cache {
    use super::*;
    #[tokio::test(start_paused = true)]
    async fn status_has_the_real_expiry_of_the_token() {
        let clk = clock();
        let cache = TokenCache::builder(source_fn(|_| async {
            Ok(Token::new("a")?.expires_in(Duration::from_secs(900)))
        }))
        .clock(clk.clone())
        .build();
        cache.token().await.unwrap();
        let end = clk.now() + Duration::from_secs(900);
        advance(Duration::from_secs(600)).await;
        assert_eq!(cache.status().expires_at, Some(end));
    }
    #[tokio::test(start_paused = true)]
    async fn a_source_gets_the_rejected_token_until_a_new_one_works() {
        let n = Arc::new(AtomicUsize::new(0));
        let rejected = Arc::new(Mutex::new(vec![]));
        let (n2, r2) = (n.clone(), rejected.clone());
        // A source that keeps its tokens, and asks the server only if one was rejected.
        let cache = TokenCache::builder(source_fn(move |request: TokenContext| {
            let call = n2.fetch_add(1, Ordering::SeqCst);
            let was_rejected = request.rejected_token().is_some();
            r2.lock().unwrap().push(was_rejected);
            async move {
                match call {
                    1 => Err(server_error()),
                    _ if was_rejected => Token::new("new"),
                    _ => Token::new("old"),
                }
            }
        }))
        .clock(clock())
        .seed(7)
        .build();
        let old = cache.token().await.unwrap();
        sleep(5 * SECOND).await;
        cache.reject(&old); // The refresh for it fails once.
        sleep(5 * SECOND).await;
        let mut new_after = None;
        for second in 0..3600 {
            let Ok(token) = cache.token().await else {
                continue;
            };
            // The API answers 401 after 100 ms.
            sleep(Duration::from_millis(100)).await;
            if token.expose_secret() == "new" {
                new_after = Some(second);
                break;
            }
            cache.reject(&token);
            sleep(SECOND).await;
        }
        assert!(new_after.is_some_and(|s| s < 10));
    }
    #[tokio::test(start_paused = true)]
    async fn a_huge_retry_after_causes_no_panic() {
        let n = Arc::new(AtomicUsize::new(0));
        let n2 = n.clone();
        let cache = TokenCache::builder(source_fn(move |_| {
            n2.fetch_add(1, Ordering::SeqCst);
            async { Err(server_error().with_retry_after(Duration::MAX)) }
        }))
        .clock(clock())
        .build();
        for _ in 0..3 {
            assert_eq!(
                cache.token().await.unwrap_err().kind(),
                TokenErrorKind::Server
            );
        }
        assert_eq!(n.load(Ordering::SeqCst), 1);
    }
    #[tokio::test(start_paused = true)]
    async fn a_huge_max_age_causes_no_panic() {
        let cache = TokenCache::builder(source_fn(|_| async { Token::new("a") }))
            .schedule(Schedule::default().max_age(Duration::MAX))
            .clock(clock())
            .build();
        assert!(cache.token().await.is_ok());
    }
    #[tokio::test(start_paused = true)]
    async fn a_huge_min_interval_causes_no_panic() {
        let cache = TokenCache::builder(source_fn(|_| async { Token::new("a") }))
            .schedule(Schedule::default().min_interval(Duration::MAX))
            .clock(clock())
            .max_wait(SECOND)
            .build();
        let t = cache.token().await.unwrap();
        cache.reject(&t);
    }
    struct ProbedSource {
        probe_takes: Duration,
        calls: Arc<AtomicUsize>,
        probes: Arc<AtomicUsize>,
        fail: Arc<AtomicBool>,
        background: bool,
    }
    impl TokenSource for ProbedSource {
        async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
            let n = self.calls.fetch_add(1, Ordering::SeqCst);
            if self.fail.load(Ordering::SeqCst) {
                return Err(final_error());
            }
            Ok(Token::new(format!("t{n}"))?.expires_in(Duration::from_secs(900)))
        }
        async fn has_changed(&self) -> bool {
            self.probes.fetch_add(1, Ordering::SeqCst);
            sleep(self.probe_takes).await;
            false
        }
        fn schedule(&self) -> Schedule {
            Schedule::default().background_refresh(self.background)
        }
    }
    fn probed(
        takes: Duration,
        fail: bool,
        background: bool,
    ) -> (
        TokenCache,
        Arc<AtomicUsize>,
        Arc<AtomicUsize>,
        Arc<AtomicBool>,
    ) {
        let (c, p, f) = (
            Arc::<AtomicUsize>::default(),
            Arc::<AtomicUsize>::default(),
            Arc::new(AtomicBool::new(fail)),
        );
        let cache = TokenCache::builder(ProbedSource {
            probe_takes: takes,
            calls: c.clone(),
            probes: p.clone(),
            fail: f.clone(),
            background,
        })
        .clock(clock())
        .seed(7)
        .build();
        (cache, c, p, f)
    }
    #[tokio::test(start_paused = true)]
    async fn a_reset_during_a_probe_is_not_lost() {
        let (cache, _, _, fail) = probed(2 * SECOND, true, false);
        cache.token().await.unwrap_err();
        sleep(11 * SECOND).await;
        cache.token().await.unwrap_err(); // This starts a probe.
        sleep(SECOND).await;
        fail.store(false, Ordering::SeqCst); // A user has logged in.
        cache.reset();
        sleep(2 * SECOND).await;
        let r = cache.token().await;
        assert!(r.is_ok());
    }
    #[tokio::test(start_paused = true)]
    async fn a_probe_during_the_expiry_does_not_replace_the_next_attempt() {
        let (cache, _, _, fail) = probed(8 * SECOND, false, false);
        cache.token().await.unwrap();
        fail.store(true, Ordering::SeqCst);
        advance(Duration::from_secs(880)).await;
        cache.token().await.unwrap(); // Due: the refresh has a final error, but the token is still usable.
        sleep(11 * SECOND).await; // 891
        cache.token().await.unwrap(); // The probe runs until 899. The token is unusable from 895.
        fail.store(false, Ordering::SeqCst); // A refresh would succeed from now on.
        sleep(9 * SECOND).await;
        let r = cache.token().await;
        assert!(
            r.is_ok(),
            "the refresh must be tried again when the token is unusable"
        );
    }
    #[tokio::test(start_paused = true)]
    async fn a_probe_does_not_count_as_a_failed_attempt() {
        let (cache, calls, probes, _) = probed(Duration::ZERO, true, true);
        let mut changes = cache.subscribe();
        let mut n = 0;
        let _ = tokio::time::timeout(Duration::from_secs(3600), async {
            loop {
                changes.changed().await.unwrap();
                n += 1;
            }
        })
        .await;
        assert_eq!(cache.status().failed, calls.load(Ordering::SeqCst) as u64);
        assert!(
            probes.load(Ordering::SeqCst) > 300 && n <= 2,
            "{n} changes reported"
        );
    }
    #[test]
    fn a_waiter_without_a_runtime_does_not_panic() {
        let cache = TokenCache::new(source_fn(|_| async {
            sleep(Duration::from_secs(3600)).await;
            Token::new("a")
        }));
        let rt = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        rt.block_on(async {
            let mut c = pin!(cache.token());
            assert!(poll_once(c.as_mut()).is_pending());
        });
        let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut c = pin!(cache.token());
            let _ = poll_once(c.as_mut());
        }));
        rt.shutdown_background();
        assert!(r.is_ok());
    }
    #[test]
    fn a_refresh_on_a_stopped_runtime_is_not_awaited_for_ever() {
        let calls = Arc::new(AtomicUsize::new(0));
        let c2 = calls.clone();
        let cache = TokenCache::builder(source_fn(move |_| {
            c2.fetch_add(1, Ordering::SeqCst);
            async {
                sleep(SECOND).await;
                Token::new("a")
            }
        }))
        .build();
        let idle = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        idle.block_on(async {
            let mut c = pin!(cache.token());
            assert!(poll_once(c.as_mut()).is_pending());
            yield_now().await;
        });
        // `idle` is not dropped, but it does not run any more.
        let rt = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let ok = rt.block_on(async {
            for _ in 0..100 {
                if cache.token().await.is_ok() {
                    return true;
                }
            }
            false
        });
        assert!(ok, "50 minutes of timeouts");
        drop(idle);
    }

    #[test]
    fn a_refresh_that_was_given_up_and_ends_after_all_does_not_end_the_next_one() {
        let (first, first_answer) = tokio::sync::oneshot::channel();
        let (second, second_answer) = tokio::sync::oneshot::channel();
        let answers = Mutex::new(vec![second_answer, first_answer]);
        let cache = TokenCache::new(source_fn(move |_| {
            let answer = answers.lock().unwrap().pop().unwrap();
            async move { Token::new(answer.await.unwrap_or("none")) }
        }));
        let runtime = |is_paused| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(is_paused)
                .build()
                .unwrap()
        };
        let (stopped, running) = (runtime(false), runtime(true));
        let start_refresh = async || {
            assert!(poll_once(pin!(cache.token())).is_pending());
            yield_now().await;
        };
        stopped.block_on(start_refresh());
        running.block_on(async {
            sleep(200 * SECOND).await;
            start_refresh().await;
        });
        first.send("first").unwrap();
        stopped.block_on(async {
            for _ in 0..5 {
                yield_now().await;
            }
        });
        assert!(cache.status().refreshing);
        assert!(cache.peek().is_none());
        second.send("second").unwrap();
        let token = running.block_on(cache.token()).unwrap();
        assert_eq!(token.expose_secret(), "second");
    }

    #[test]
    fn refresh_never_returns_the_old_token() {
        let calls = Arc::new(AtomicUsize::new(0));
        let c2 = calls.clone();
        let cache = TokenCache::builder(source_fn(move |_| {
            let n = c2.fetch_add(1, Ordering::SeqCst);
            async move {
                if n == 1 {
                    sleep(Duration::from_secs(3600)).await;
                }
                Token::new(format!("t{n}"))
            }
        }))
        .schedule(Schedule::default().min_interval(Duration::ZERO))
        .build();
        let rt = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let (dying, living) = (rt(), rt());
        dying.block_on(async {
            cache.token().await.unwrap();
            let mut c = pin!(cache.refresh());
            assert!(poll_once(c.as_mut()).is_pending());
            yield_now().await;
        });
        living.block_on(async {
            let mut c = pin!(cache.refresh());
            assert!(poll_once(c.as_mut()).is_pending());
            dying.shutdown_background();
            let t = c.await;
            assert!(t.is_err() || t.unwrap().expose_secret() != "t0");
        });
    }
    #[tokio::test(start_paused = true)]
    async fn issuing_the_same_token_again_does_not_delay_the_next_rejection() {
        let n = Arc::new(AtomicUsize::new(0));
        let name = Arc::new(Mutex::new("same".to_owned()));
        let (n2, name2) = (n.clone(), name.clone());
        let cache = TokenCache::builder(source_fn(move |_| {
            n2.fetch_add(1, Ordering::SeqCst);
            let s = name2.lock().unwrap().clone();
            async move { Ok(Token::new(s)?.expires_in(Duration::from_secs(900))) }
        }))
        .schedule(
            Schedule::default()
                .max_age(Duration::from_secs(60))
                .jitter(0.0),
        )
        .clock(clock())
        .seed(7)
        .build();
        for _ in 0..400 {
            cache.token().await.unwrap();
            sleep(SECOND).await;
        }
        *name.lock().unwrap() = "b".into();
        let mut t = cache.token().await.unwrap();
        while t.expose_secret() != "b" {
            sleep(SECOND).await;
            t = cache.token().await.unwrap();
        }
        sleep(2 * SECOND).await;
        *name.lock().unwrap() = "c".into();
        cache.reject(&t); // It was revoked.
        sleep(5 * SECOND).await;
        assert_eq!(cache.token().await.unwrap().expose_secret(), "c");
    }
    #[tokio::test(start_paused = true)]
    async fn tokens_that_work_for_fifty_seconds_are_replaced_when_rejected() {
        let n = Arc::new(AtomicUsize::new(0));
        let n2 = n.clone();
        let cache = TokenCache::builder(source_fn(move |_| {
            let n = n2.fetch_add(1, Ordering::SeqCst);
            async move { Token::new(format!("t{n}")) }
        }))
        .clock(clock())
        .seed(7)
        .build();
        let mut stuck = 0;
        for _ in 0..20 {
            let t = cache.token().await.unwrap();
            for _ in 0..50 {
                sleep(SECOND).await;
                cache.token().await.unwrap();
            } // It works for 50 s.
            cache.reject(&t);
            sleep(Duration::from_millis(10)).await;
            if cache.token().await.unwrap().expose_secret() == t.expose_secret() {
                stuck += 1;
            }
        }
        assert_eq!(stuck, 0);
    }
    #[tokio::test(start_paused = true)]
    async fn a_rejection_on_an_empty_cache_fetches_nothing() {
        let n = Arc::new(AtomicUsize::new(0));
        let n2 = n.clone();
        let cache = TokenCache::builder(source_fn(move |_| {
            n2.fetch_add(1, Ordering::SeqCst);
            async { Token::new("a") }
        }))
        .clock(clock())
        .build();
        cache.reject(&Token::new("x").unwrap());
        sleep(SECOND).await;
        assert_eq!(n.load(Ordering::SeqCst), 0);
    }
}
mod requests {
    use http::{Request, Response, StatusCode, header::AUTHORIZATION};
    use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
    use tower_bearer::{AddTokenLayer, BearerAuthLayer, Origins, RefreshOnReject, ReplayBody};

    use super::*;

    /// A cache whose tokens are `name-1`, `name-2` and so on, and live for fifteen minutes.
    fn numbered(name: &'static str) -> TokenCache {
        let calls = AtomicUsize::new(0);
        let source = source_fn(move |_| {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(Token::new(format!("{name}-{call}"))?.expires_in(900 * SECOND)) }
        });
        TokenCache::builder(source).clock(clock()).build()
    }

    #[test]
    fn a_late_rejection_starts_another_refresh_if_the_first_one_was_lost() {
        let calls = Arc::new(AtomicUsize::new(0));
        let cache = TokenCache::new(source_fn(move |_| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            async move { Token::new(["a", "b"][call]) }
        }));
        let idle = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let client = BearerAuthLayer::from(cache.clone()).layer(service_fn(
            |request: Request<ReplayBody<Full<Bytes>>>| async move {
                let good = request.headers()[AUTHORIZATION] == "Bearer b";
                // Longer than a refresh is trusted to be running.
                sleep(200 * SECOND).await;
                let status = if good { 200 } else { 401 };
                Response::builder()
                    .status(status)
                    .body(Full::<Bytes>::default())
            },
        ));
        let response = runtime.block_on(async {
            let first = cache.token().await.unwrap();
            let request = Request::get("https://api.example/").body(Full::<Bytes>::default());
            let late = tokio::spawn(client.oneshot(request.unwrap()));
            yield_now().await;
            let entered = idle.enter();
            cache.reject(&first);
            drop(entered);
            late.await.unwrap().unwrap()
        });
        assert_eq!(response.status(), 200, "{:?}", response.extensions());
        drop(idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_of_another_caches_token_does_not_affect_this_cache() {
        let (ours, theirs) = (numbered("ours"), numbered("theirs"));
        let only = |origin| Origins::only([origin]).unwrap();
        let client = ServiceBuilder::new()
            .retry(RefreshOnReject::new(ours.clone()))
            .layer(AddTokenLayer::from(ours.clone()).origins(only("https://ours.example")))
            .layer(AddTokenLayer::from(theirs.clone()).origins(only("https://theirs.example")))
            .service_fn(|request: Request<ReplayBody<String>>| async move {
                let rejected = request.headers()[AUTHORIZATION] == "Bearer theirs-1";
                let status = if rejected { 401 } else { 200 };
                Response::builder().status(status).body(String::new())
            });
        let token = ours.token().await.unwrap();
        let request = Request::get("https://theirs.example/");
        let request = request.body(ReplayBody::new(String::new(), 0)).unwrap();
        let response = client.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!((ours.status().rejected, theirs.status().rejected), (0, 1));
        let current = ours.token().await.unwrap();
        assert_eq!(current.expose_secret(), token.expose_secret());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_polled_late_has_the_current_token() {
        let cache = numbered("token");
        let mut client = AddTokenLayer::from(cache.clone()).layer(service_fn(
            |request: Request<()>| async move {
                let sent = request.headers()[AUTHORIZATION].clone();
                Ok::<_, std::convert::Infallible>(Response::new(sent))
            },
        ));
        let request = Request::get("https://api.example/").body(()).unwrap();
        let mut sending = pin!(client.call(request));
        assert!(poll_once(sending.as_mut()).is_pending());
        sleep(1_000 * SECOND).await;
        cache.token().await.unwrap();
        assert_eq!(sending.await.unwrap().body(), "Bearer token-2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_with_its_own_authorization_starts_no_refresh() {
        let cache = numbered("token");
        let client = AddTokenLayer::from(cache.clone()).layer(service_fn(
            |request: Request<()>| async move {
                assert_eq!(request.headers()[AUTHORIZATION], "Basic bWU6bWU=");
                Ok::<_, std::convert::Infallible>(Response::new(()))
            },
        ));
        cache.token().await.unwrap();
        sleep(880 * SECOND).await;
        let request = Request::get("https://api.example/").header(AUTHORIZATION, "Basic bWU6bWU=");
        client.oneshot(request.body(()).unwrap()).await.unwrap();
        sleep(SECOND).await;
        assert_eq!(cache.status().issued, 1);
        // It was due.
        cache.token().await.unwrap();
        sleep(SECOND).await;
        assert_eq!(cache.status().issued, 2);
    }
}
#[tokio::test(start_paused = true)]
async fn a_source_with_its_own_cache_gets_the_rejected_token_even_if_called_rarely() {
    let n = Arc::new(AtomicUsize::new(0));
    let rejected = Arc::new(Mutex::new(vec![]));
    let (n2, r2) = (n.clone(), rejected.clone());
    let cache = TokenCache::builder(source_fn(move |request: TokenContext| {
        let call = n2.fetch_add(1, Ordering::SeqCst);
        let was_rejected = request.rejected_token().is_some();
        r2.lock().unwrap().push(was_rejected);
        async move {
            sleep(Duration::from_millis(200)).await;
            match call {
                1 => Err(server_error()),
                _ if was_rejected => Token::new("new"),
                _ => Token::new("old"),
            }
        }
    }))
    .clock(clock())
    .seed(7)
    .build();
    let old = cache.token().await.unwrap();
    sleep(5 * SECOND).await;
    cache.reject(&old);
    let mut new_after = None;
    for minute in 0..24 * 12 {
        sleep(300 * SECOND).await; // One request every five minutes.
        let token = cache.token().await.unwrap();
        if token.expose_secret() == "new" {
            new_after = Some(minute);
            break;
        }
        sleep(Duration::from_millis(100)).await; // The API answers 401.
        cache.reject(&token);
    }
    assert!(new_after.is_some());
}
#[derive(Clone, Default)]
struct ReplaceableStore {
    store: MemoryStore,
    replaced: Arc<Mutex<Option<StoredSession>>>,
}
impl TokenStore for ReplaceableStore {
    type Lease = MemoryLease;
    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        if let Some(s) = self.replaced.lock().unwrap().clone() {
            return Ok(Some(s));
        }
        self.store.load().await
    }
    async fn lease(&self) -> Result<MemoryLease, TokenError> {
        self.store.lease().await
    }
}
#[tokio::test(start_paused = true)]
async fn the_store_is_read_before_the_exchange_token_is_used_again() {
    let server = server().exchange_once(false);
    let store = ReplaceableStore::default();
    let exchange_token = server.issue_exchange_token();
    let a =
        ExchangeTokenSource::new(endpoint(&server), exchange_token.clone()).store(store.clone());
    let token = first(&a).await.unwrap();
    server.revoke_sessions();
    server.fault(Fault::Delay(10 * SECOND));
    let login = async {
        sleep(5 * SECOND).await;
        let other = MemoryStore::new();
        let n = ExchangeTokenSource::new(endpoint(&server), exchange_token.clone())
            .store(other.clone());
        first(&n).await.unwrap();
        *store.replaced.lock().unwrap() = other.load().await.unwrap();
    };
    let (refreshed, ()) = tokio::join!(next(&a, &token), login);
    assert!(server.is_live(refreshed.unwrap().expose_secret()));
    assert_eq!(
        server.exchanges(),
        2,
        "one by each process; after that A only reads the store"
    );
}
#[test]
fn background_refresh_lost_with_its_runtime_restarts_with_traffic() {
    let n = Arc::new(AtomicUsize::new(0));
    let n2 = n.clone();
    let clk_rt = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (dying, living) = (clk_rt(), clk_rt());
    let cache = dying.block_on(async {
        let cache = TokenCache::builder(source_fn(move |_| {
            let number = n2.fetch_add(1, Ordering::SeqCst);
            let lifetime = Duration::from_secs(900);
            async move { Ok(Token::new(format!("token-{number}"))?.expires_in(lifetime)) }
        }))
        .schedule(Schedule::default().background_refresh(true))
        .clock(clock())
        .build();
        cache.token().await.unwrap();
        cache
    });
    drop(dying);
    living.block_on(async {
        // A fresh token is read without any other check. In the due window the background task is restarted.
        advance(Duration::from_secs(870)).await;
        cache.token().await.unwrap();
        sleep(Duration::from_secs(86_400)).await;
    });
    let calls = n.load(Ordering::SeqCst);
    assert!(
        (96..=125).contains(&calls),
        "{calls} refreshes in a day without traffic"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_new_login_the_old_final_error_is_forgotten() {
    let server = server();
    let store = MemoryStore::new();
    let cache = TokenCache::builder(
        RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token())
            .store(store.clone()),
    )
    .clock(SimulatedClock::new(SystemTime::now()))
    .build();
    server.revoke_sessions();
    cache.token().await.unwrap_err();
    first(
        &RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token())
            .store(store.clone()),
    )
    .await
    .unwrap();
    sleep(11 * SECOND).await;
    let _ = cache.token().await;
    sleep(SECOND).await;
    cache.token().await.unwrap(); // It was adopted.
    server.fault_always(Fault::error("invalid_client"));
    sleep(Duration::from_secs(4000)).await; // It has expired.
    let before = server.token_requests();
    for _ in 0..3600 {
        let _ = cache.token().await;
        sleep(SECOND).await;
    }
    // Tried again slowly, and not with each check of the store.
    assert!(server.token_requests() - before <= 12);
}
#[tokio::test(start_paused = true)]
async fn a_newer_session_that_its_holder_refreshes_is_not_refreshed_twice() {
    // B has a new refresh token and is using it: its mark is saved. A has lost its lease, gets `invalid_grant`, and
    // loads the session that B has marked.
    let server = server().detect_reuse(true);
    let store = ReplaceableStore::default();
    let refresh_token = server.issue_refresh_token();
    let a = RefreshTokenSource::new(endpoint(&server), refresh_token.clone()).store(store.clone());
    let ta = first(&a).await.unwrap();
    server.revoke_sessions();
    let shared_b = MemoryStore::new();
    let b = RefreshTokenSource::new(endpoint(&server), server.issue_refresh_token())
        .store(shared_b.clone());
    let tb = first(&b).await.unwrap();
    server.fault(Fault::Delay(10 * SECOND));
    let other = async {
        sleep(5 * SECOND).await;
        server.fault(Fault::Delay(30 * SECOND));
        let refreshing = next(&b, &tb);
        let look = async {
            sleep(SECOND).await;
            *store.replaced.lock().unwrap() = shared_b.load().await.unwrap();
        };
        tokio::join!(refreshing, look).0
    };
    // The access token that A wants to replace is the one in B's store, as if both had it.
    let req = TokenContext::new().replacing(ta.clone());
    let (ra, rb) = tokio::join!(a.token(req), other);
    ra.unwrap();
    rb.unwrap();
    assert_eq!(server.reuse_detected(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_refresh_token_of_a_response_with_an_unusable_access_token_is_kept() {
    let server = server().rotate(true).detect_reuse(true);
    let corrupt = Arc::new(AtomicBool::new(true));
    let (server2, corrupt2) = (server.clone(), corrupt.clone());
    // A proxy that breaks long lines: the access token gets a space, the refresh token stays whole.
    let transport = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let (server, corrupt) = (server2.clone(), corrupt2.clone());
        async move {
            let answer = server.oneshot(request).await?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            let mut text = String::from_utf8(body.to_vec())?;
            if corrupt.swap(false, Ordering::SeqCst) {
                text = text.replace(r#""access_token":""#, r#""access_token":"cut here "#);
            }
            Ok::<_, tower::BoxError>(Response::from_parts(head, Full::<Bytes>::from(text)))
        }
    });
    let url = format!("https://login.example{}", server.token_path());
    let endpoint = OAuthClient::with_transport(url, transport)
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    let store = MemoryStore::new();
    let source =
        RefreshTokenSource::new(endpoint, server.issue_refresh_token()).store(store.clone());
    let error = first(&source).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidToken, "{error}");
    assert!(store.load().await.unwrap().is_some());

    let token = first(&source).await.unwrap();
    assert!(server.is_live(token.expose_secret()));
    assert_eq!(server.reuse_detected(), 0);
}
