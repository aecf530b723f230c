//! The invariants of a cache: one refresh, cancellation, generations, fail-soft, throttling and both clocks.

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, advance, sleep},
};
use tower_bearer::{
    Schedule, Token, TokenCache, TokenCacheBuilder, TokenContext, TokenError, TokenErrorKind,
    TokenSource, TokenState, source_fn, testing::SimulatedClock,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: i64 = 86_400;

/// A source that numbers its tokens, with settings for lifetime, duration and failures.
#[derive(Clone, Default)]
struct Numbered(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: AtomicUsize,
    started: Mutex<Vec<Instant>>,
    lifetime: Mutex<Option<Duration>>,
    takes: Mutex<Duration>,
    fails: Mutex<Option<TokenError>>,
    same: AtomicBool,
    panics: AtomicBool,
    has_changed: AtomicBool,
    probes: AtomicUsize,
    background_refresh: AtomicBool,
}

impl Numbered {
    fn living(seconds: u64) -> Self {
        let source = Self::default();
        source.live(Some(Duration::from_secs(seconds)));
        source
    }

    fn live(&self, lifetime: Option<Duration>) {
        *self.0.lifetime.lock().unwrap() = lifetime;
    }

    fn takes(self, time: Duration) -> Self {
        *self.0.takes.lock().unwrap() = time;
        self
    }

    fn fail(&self, error: impl Into<Option<TokenError>>) {
        *self.0.fails.lock().unwrap() = error.into();
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    fn started(&self) -> Vec<Instant> {
        self.0.started.lock().unwrap().clone()
    }

    fn cache(&self) -> TokenCacheBuilder {
        self.cache_on_system_time().clock(clock())
    }

    fn cache_on_system_time(&self) -> TokenCacheBuilder {
        TokenCache::builder(self.clone()).seed(7)
    }
}

impl TokenSource for Numbered {
    async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
        let number = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.started.lock().unwrap().push(Instant::now());
        let takes = *self.0.takes.lock().unwrap();
        if takes.is_zero() {
            yield_now().await;
        } else {
            sleep(takes).await;
        }
        assert!(
            !self.0.panics.load(Ordering::SeqCst),
            "the source was set to panic"
        );
        if let Some(error) = self.0.fails.lock().unwrap().clone() {
            return Err(error);
        }
        let number = if self.0.same.load(Ordering::SeqCst) {
            1
        } else {
            number
        };
        let token = Token::new(format!("token-{number}"))?;
        Ok(match *self.0.lifetime.lock().unwrap() {
            Some(lifetime) => token.expires_in(lifetime),
            None => token,
        })
    }

    async fn has_changed(&self) -> bool {
        self.0.probes.fetch_add(1, Ordering::SeqCst);
        self.0.has_changed.load(Ordering::SeqCst)
    }

    fn schedule(&self) -> Schedule {
        Schedule::default().background_refresh(self.0.background_refresh.load(Ordering::SeqCst))
    }
}

fn clock() -> SimulatedClock {
    SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

fn server_error() -> TokenError {
    TokenError::new(TokenErrorKind::Server, "down")
}

fn final_error() -> TokenError {
    TokenError::new(TokenErrorKind::ReauthRequired, "log in again")
}

fn secret(token: &Token) -> &str {
    token.expose_secret()
}

/// Lets all tasks run that are ready, without advancing the time.
async fn run_ready_tasks() {
    for _ in 0..20 {
        yield_now().await;
    }
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

mod one_refresh {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_callers_on_an_empty_cache_cost_one_call() {
        let source = Numbered::living(900).takes(SECOND);
        let cache = source.cache().build();
        let mut callers = JoinSet::new();
        for _ in 0..10_000 {
            let cache = cache.clone();
            callers.spawn(async move { cache.token().await });
        }
        let tokens = callers.join_all().await;
        assert_eq!(tokens.len(), 10_000);
        assert!(
            tokens
                .iter()
                .all(|token| secret(token.as_ref().unwrap()) == "token-1")
        );
        assert_eq!(source.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_callers_share_one_failure() {
        let source = Numbered::living(900).takes(SECOND);
        source.fail(server_error().with_source(std::io::Error::other("the cause")));
        let cache = source.cache().build();
        let mut callers = JoinSet::new();
        for _ in 0..10_000 {
            let cache = cache.clone();
            callers.spawn(async move { cache.token().await.unwrap_err() });
        }
        let errors = callers.join_all().await;
        let cause = |error: &TokenError| {
            let source = std::error::Error::source(error).unwrap();
            std::ptr::from_ref(source).cast::<()>().addr()
        };
        let first = cause(&errors[0]);
        assert!(
            errors.iter().all(|error| cause(error) == first),
            "all errors are clones of one"
        );
        assert_eq!((errors.len(), source.calls()), (10_000, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_every_caller_does_not_cancel_the_refresh() {
        let source = Numbered::living(900).takes(SECOND);
        let cache = source.cache().build();
        {
            let mut caller = pin!(cache.token());
            assert!(poll_once(caller.as_mut()).is_pending());
        }
        sleep(2 * SECOND).await;
        assert_eq!(secret(&cache.peek().unwrap()), "token-1");
        assert_eq!(source.calls(), 1);
    }

    /// Creates, polls and drops callers at random while a refresh is running.
    async fn drop_callers_at_random(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let source = Numbered::living(900).takes(Duration::from_millis(rng.u64(1..50)));
        let fails = rng.bool();
        if fails {
            source.fail(final_error());
        }
        let cache = source.cache().build();
        let mut callers: VecDeque<_> = (0..rng.usize(1..12))
            .map(|_| {
                let cache = cache.clone();
                Box::pin(async move { cache.token().await })
            })
            .collect();
        let mut answers = 0;
        while let Some(mut caller) = callers.pop_front() {
            match rng.u8(0..4) {
                0 => drop(caller),
                1 => {
                    run_ready_tasks().await;
                    callers.push_back(caller);
                }
                2 => {
                    advance(Duration::from_millis(rng.u64(0..10))).await;
                    callers.push_back(caller);
                }
                _ => match poll_once(caller.as_mut()) {
                    Poll::Ready(result) => {
                        assert_eq!(result.is_err(), fails, "seed {seed}");
                        answers += 1;
                    }
                    Poll::Pending => callers.push_back(caller),
                },
            }
        }
        sleep(SECOND).await;
        let status = cache.status();
        // If no caller was polled far enough to start a refresh, no caller got a result.
        assert!(source.calls() <= 1, "seed {seed}: two calls");
        assert_eq!(
            source.calls() as u64,
            status.issued + status.failed,
            "seed {seed}: a result was lost"
        );
        assert!(answers == 0 || source.calls() == 1, "seed {seed}");
        assert_eq!(cache.token().await.is_err(), fails, "seed {seed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_be_dropped_at_any_await() {
        for seed in 0..1_000 {
            drop_callers_at_random(seed).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_no_longer_than_max_wait_and_the_refresh_goes_on() {
        let source = Numbered::living(900).takes(60 * SECOND);
        let cache = source.cache().max_wait(5 * SECOND).build();
        let start = Instant::now();
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
        assert_eq!(start.elapsed(), 5 * SECOND);
        sleep(60 * SECOND).await;
        assert_eq!(secret(&cache.peek().unwrap()), "token-1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_hangs_times_out() {
        let source = Numbered::living(900).takes(Duration::from_secs(1 << 30));
        let cache = source.cache().refresh_timeout(10 * SECOND).build();
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
        assert!(error.to_string().contains("10s"), "{error}");
    }
}

mod runtimes {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// A cache for tests in real time: without any wait between refreshes.
    fn real_time(source: &Numbered) -> TokenCache {
        let schedule = Schedule::default().min_interval(Duration::ZERO);
        source.cache_on_system_time().schedule(schedule).build()
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn without_a_runtime_the_error_says_so() {
        let cache = Numbered::living(900).cache_on_system_time().build();
        let mut caller = pin!(cache.token());
        let Poll::Ready(Err(error)) = poll_once(caller.as_mut()) else {
            panic!("neither a token nor an error")
        };
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(error.to_string().contains("Tokio runtime"), "{error}");
    }

    #[test]
    fn a_waiter_restarts_a_refresh_whose_runtime_was_shut_down() {
        let source = Numbered::living(900).takes(Duration::from_secs(3_600));
        let cache = real_time(&source);
        let dying = runtime();
        dying.block_on(async {
            let mut caller = pin!(cache.token());
            assert!(poll_once(caller.as_mut()).is_pending());
            yield_now().await;
        });
        assert_eq!(source.calls(), 1);
        let living = runtime();
        living.block_on(async {
            let mut waiter = pin!(cache.token());
            assert!(poll_once(waiter.as_mut()).is_pending());
            *source.0.takes.lock().unwrap() = Duration::ZERO;
            dying.shutdown_background();
            assert_eq!(secret(&waiter.await.unwrap()), "token-2");
        });
    }

    #[test]
    fn the_next_caller_restarts_a_refresh_whose_runtime_was_dropped() {
        let source = Numbered::living(900).takes(Duration::from_secs(3_600));
        let cache = real_time(&source);
        runtime().block_on(async {
            let mut caller = pin!(cache.token());
            assert!(poll_once(caller.as_mut()).is_pending());
            yield_now().await;
        });
        *source.0.takes.lock().unwrap() = Duration::ZERO;
        let token = runtime().block_on(cache.token()).unwrap();
        assert_eq!(secret(&token), "token-2");
    }

    #[test]
    fn a_refresh_whose_runtime_and_handles_are_dropped_frees_everything() {
        for handle_goes_first in [true, false] {
            let source = Numbered::living(900).takes(Duration::from_secs(3_600));
            let cache = real_time(&source);
            let dying = runtime();
            dying.block_on(async {
                let mut caller = pin!(cache.token());
                assert!(poll_once(caller.as_mut()).is_pending());
                yield_now().await;
            });
            assert_eq!(source.calls(), 1);
            if handle_goes_first {
                drop(cache);
                drop(dying);
            } else {
                drop(dying);
                drop(cache);
            }
            assert_eq!(Arc::strong_count(&source.0), 1);
        }
    }

    #[test]
    fn a_runtime_that_has_shut_down_is_an_error_not_a_deadlock() {
        let cache = real_time(&Numbered::living(900));
        let gone = runtime();
        let handle = gone.handle().clone();
        drop(gone);
        let waiter = {
            let _entered = handle.enter();
            let mut caller = Box::pin(async { cache.token().await });
            // Spawning drops the task at once, on this thread.
            let _ = poll_once(caller.as_mut());
            drop(caller);
            cache.clone()
        };
        assert!(runtime().block_on(waiter.token()).is_ok());
    }

    #[test]
    fn handles_in_several_runtimes_share_one_refresh() {
        for _ in 0..100 {
            let cache = real_time(&Numbered::living(900));
            let barrier = Arc::new(std::sync::Barrier::new(8));
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
                    std::thread::spawn(move || {
                        barrier.wait();
                        runtime().block_on(cache.token()).unwrap()
                    })
                })
                .collect();
            for thread in threads {
                assert_eq!(secret(&thread.join().unwrap()), "token-1");
            }
            assert_eq!(cache.status().issued, 1);
        }
    }

    #[test]
    fn on_many_threads_refreshes_never_overlap_and_none_is_lost() {
        for seed in 0..200 {
            let source = OverlapDetector::default();
            let schedule = Schedule::default().min_interval(Duration::ZERO);
            let cache = TokenCache::builder(source.clone())
                .schedule(schedule)
                .seed(seed)
                .build();
            let runtime = Builder::new_multi_thread()
                .worker_threads(4)
                .enable_all()
                .build()
                .unwrap();
            let mut callers = JoinSet::new();
            for caller in 0..16 {
                let (cache, mut rng) =
                    (cache.clone(), fastrand::Rng::with_seed(seed << 8 | caller));
                let caller = async move {
                    for _ in 0..50 {
                        match rng.u8(0..5) {
                            0 => drop(cache.refresh().await.unwrap()),
                            1 => cache.reject(&cache.token().await.unwrap()),
                            2 => drop(poll_once(pin!(cache.token()))),
                            _ => drop(cache.token().await.unwrap()),
                        }
                    }
                };
                callers.spawn_on(caller, runtime.handle());
            }
            runtime.block_on(callers.join_all());
            // A last refresh may still be running.
            runtime.block_on(cache.refresh()).unwrap();
            let calls = source.calls.load(Ordering::SeqCst);
            assert_eq!(cache.status().issued, calls as u64, "seed {seed}");
            assert_eq!(source.overlaps.load(Ordering::SeqCst), 0, "seed {seed}");
        }
    }

    /// A source that counts calls during another call.
    #[derive(Clone, Default)]
    struct OverlapDetector {
        busy: Arc<AtomicBool>,
        calls: Arc<AtomicUsize>,
        overlaps: Arc<AtomicUsize>,
    }

    impl TokenSource for OverlapDetector {
        async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
            let number = self.calls.fetch_add(1, Ordering::SeqCst);
            if self.busy.swap(true, Ordering::SeqCst) {
                self.overlaps.fetch_add(1, Ordering::SeqCst);
            }
            yield_now().await;
            self.busy.store(false, Ordering::SeqCst);
            Token::new(format!("token-{number}"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_source_is_an_error_for_all_and_the_next_attempt_may_succeed() {
        let source = Numbered::living(900).takes(SECOND);
        source.0.panics.store(true, Ordering::SeqCst);
        let cache = source.cache().build();
        let (a, b) = tokio::join!(cache.token(), cache.token());
        for error in [a.unwrap_err(), b.unwrap_err()] {
            assert_eq!(error.kind(), TokenErrorKind::Interrupted);
            assert!(error.to_string().contains("panicked"), "{error}");
        }
        source.0.panics.store(false, Ordering::SeqCst);
        sleep(2 * SECOND).await;
        assert_eq!(secret(&cache.token().await.unwrap()), "token-2");
    }
}

mod without_waiting {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_token_the_call_fails_at_once_and_a_refresh_starts() {
        let source = Numbered::living(900).takes(SECOND);
        let cache = source.cache().build();
        for _ in 0..3 {
            let error = cache.try_token().unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Timeout);
            assert!(error.is_transient());
        }
        sleep(2 * SECOND).await;
        assert_eq!(secret(&cache.try_token().unwrap()), "token-1");
        assert_eq!(source.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_due_token_is_returned_and_a_refresh_starts() {
        let source = Numbered::living(900).takes(SECOND);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        advance(Duration::from_secs(870)).await;
        assert_eq!(secret(&cache.try_token().unwrap()), "token-1");
        sleep(2 * SECOND).await;
        assert_eq!(secret(&cache.try_token().unwrap()), "token-2");
        assert_eq!(source.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_is_not_returned_and_a_refresh_starts() {
        let source = Numbered::living(900).takes(SECOND);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        advance(Duration::from_secs(901)).await;
        assert_eq!(
            cache.try_token().unwrap_err().kind(),
            TokenErrorKind::Timeout
        );
        sleep(2 * SECOND).await;
        assert_eq!(secret(&cache.try_token().unwrap()), "token-2");
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_of_the_last_refresh_is_returned() {
        let source = Numbered::living(900);
        source.fail(final_error());
        let cache = source.cache().build();
        cache.token().await.unwrap_err();
        let error = cache.try_token().unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        assert_eq!(source.calls(), 1);
    }

    /// Calls `try_token` in a thread that has no runtime.
    fn in_another_thread(cache: &TokenCache) -> Result<Token, TokenError> {
        let cache = cache.clone();
        std::thread::spawn(move || cache.try_token())
            .join()
            .unwrap()
    }

    // The clock of Tokio is paused in the runtime only, so these tests step the wall clock.

    #[tokio::test(start_paused = true)]
    async fn a_thread_without_a_runtime_gets_the_token_but_starts_no_refresh() {
        let (source, clock) = (Numbered::living(900), clock());
        let cache = source.cache_on_system_time().clock(clock.clone()).build();
        let error = in_another_thread(&cache).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);

        cache.token().await.unwrap();
        clock.step(870);
        assert_eq!(secret(&in_another_thread(&cache).unwrap()), "token-1");
        run_ready_tasks().await;
        assert_eq!(source.calls(), 1, "due, but there is no runtime");

        clock.step(31);
        let error = in_another_thread(&cache).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert_eq!(source.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn with_background_refresh_a_thread_without_a_runtime_always_has_a_token() {
        let (source, clock) = (Numbered::living(900), clock());
        source.0.background_refresh.store(true, Ordering::SeqCst);
        let cache = source.cache_on_system_time().clock(clock.clone()).build();
        cache.token().await.unwrap();
        for _ in 0..10 {
            clock.step(600);
            // The task looks at the wall clock every minute.
            sleep(61 * SECOND).await;
            in_another_thread(&cache).unwrap();
        }
        assert!((5..=10).contains(&source.calls()), "{}", source.calls());
    }
}

mod generations {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_rejections_of_one_token_cost_one_refresh() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let source = Numbered::default().takes(Duration::from_millis(30));
            let cache = source.cache().build();
            let a = cache.token().await.unwrap();
            sleep(5 * SECOND).await;
            let mut rejections = JoinSet::new();
            for _ in 0..10_000 {
                // Before, during and after the refresh, which starts with the first rejection and takes 30 ms.
                let (cache, a, when) = (cache.clone(), a.clone(), rng.u64(0..60));
                rejections.spawn(async move {
                    sleep(Duration::from_millis(when)).await;
                    cache.reject(&a);
                    cache.token().await.unwrap()
                });
            }
            for token in rejections.join_all().await {
                assert_eq!(secret(&token), "token-2", "seed {seed}");
            }
            assert_eq!(source.calls(), 2, "seed {seed}");
            assert_eq!(
                secret(&cache.peek().unwrap()),
                "token-2",
                "the new token is kept, seed {seed}"
            );
            assert_eq!(cache.status().rejected, 1, "seed {seed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_does_not_wait_for_a_min_interval_beyond_max_wait() {
        let source = Numbered::default();
        let schedule = Schedule::default().min_interval(60 * SECOND);
        let cache = source
            .cache()
            .schedule(schedule)
            .max_wait(30 * SECOND)
            .build();
        let token = cache.token().await.unwrap();
        advance(SECOND).await;
        cache.reject(&token);
        {
            let mut caller = pin!(cache.token());
            let Poll::Ready(Ok(same)) = poll_once(caller.as_mut()) else {
                panic!("a caller had to wait, or failed")
            };
            assert_eq!(secret(&same), "token-1");
        }
        // It has looked for a token of another process, and that was no attempt.
        run_ready_tasks().await;
        advance(SECOND).await;
        cache.reject(&token);
        run_ready_tasks().await;
        assert_eq!(source.calls(), 1);
        advance(60 * SECOND).await;
        cache.token().await.unwrap();
        run_ready_tasks().await;
        assert_eq!(
            secret(&cache.token().await.unwrap()),
            "token-2",
            "refreshed in the background"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_of_an_unknown_token_is_ignored() {
        let cache = Numbered::default().cache().build();
        let token = cache.token().await.unwrap();
        cache.reject(&Token::new("from-another-cache").unwrap());
        assert_eq!(secret(&cache.peek().unwrap()), secret(&token));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_token_that_is_issued_again_stays_rejected() {
        let source = Numbered::default();
        source.0.same.store(true, Ordering::SeqCst);
        let cache = source.cache().build();
        let token = cache.token().await.unwrap();
        sleep(5 * SECOND).await;
        cache.reject(&token);
        assert_eq!(secret(&cache.token().await.unwrap()), "token-1");
        assert_eq!(source.calls(), 2);
        assert_eq!(cache.status().state, TokenState::Rejected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_is_told_which_token_it_replaces_and_whether_that_was_rejected() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let source = source_fn({
            let told = Arc::clone(&told);
            move |cx: TokenContext| {
                let mut told = told.lock().unwrap();
                let secret = |token: Option<&Token>| token.map(|token| secret(token).to_owned());
                told.push((secret(cx.previous_token()), secret(cx.rejected_token())));
                let number = told.len().to_string();
                async move { Token::new(number) }
            }
        });
        let cache = TokenCache::new(source);
        cache.token().await.unwrap();
        sleep(5 * SECOND).await;
        let token = cache.refresh().await.unwrap();
        sleep(5 * SECOND).await;
        cache.reject(&token);
        cache.token().await.unwrap();
        let some = |text: &str| Some(text.to_owned());
        let expected = [(None, None), (some("1"), None), (some("2"), some("2"))];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_token_is_still_returned_if_the_refresh_fails() {
        let source = Numbered::default();
        let cache = source.cache().build();
        let a = cache.token().await.unwrap();
        sleep(5 * SECOND).await;
        source.fail(server_error());
        cache.reject(&a);
        assert_eq!(
            cache.token().await.unwrap_err().kind(),
            TokenErrorKind::Server
        );
        assert_eq!(cache.status().state, TokenState::Rejected);
        // The server's own response is more useful to the caller than our error.
        assert_eq!(secret(&cache.token().await.unwrap()), "token-1");
        source.fail(None);
        sleep(61 * SECOND).await;
        assert_eq!(secret(&cache.token().await.unwrap()), "token-1");
        run_ready_tasks().await;
        assert_eq!(
            secret(&cache.token().await.unwrap()),
            "token-3",
            "refreshed in the background"
        );
    }
}

mod fail_soft {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn in_the_due_window_callers_do_not_wait_and_one_refresh_runs() {
        let source = Numbered::living(900).takes(10 * SECOND);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        advance(Duration::from_secs(870)).await;
        for _ in 0..100 {
            let mut caller = pin!(cache.token());
            let Poll::Ready(Ok(token)) = poll_once(caller.as_mut()) else {
                panic!("a caller had to wait")
            };
            assert_eq!(secret(&token), "token-1");
            // In all for longer than `min_interval`.
            sleep(SECOND / 20).await;
        }
        sleep(6 * SECOND).await;
        assert_eq!(secret(&cache.token().await.unwrap()), "token-2");
        assert_eq!(source.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_ten_minutes_causes_no_error_while_the_token_is_usable() {
        let source = Numbered::living(3_600);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        // The window opens between 5 minutes and 1 minute before the end.
        advance(Duration::from_secs(3_600 - 310)).await;
        source.fail(server_error());
        let (mut failed, mut first_failure) = (0, None);
        for second in 0..600 {
            if cache.token().await.is_err() {
                failed += 1;
                first_failure.get_or_insert(second);
            }
            run_ready_tasks().await;
            advance(SECOND).await;
        }
        let usable = 310 - 5;
        assert!(first_failure >= Some(usable), "failed at {first_failure:?}");
        assert_eq!(failed, 600 - first_failure.unwrap());
        // Full jitter with caps of 1, 2, 4 … 60 s means one attempt in 30 s on average.
        assert!(
            (5..45).contains(&source.calls()),
            "{} attempts in ten minutes",
            source.calls()
        );
        source.fail(None);
        let back = Instant::now();
        while cache.token().await.is_err() {
            advance(SECOND).await;
        }
        assert!(
            back.elapsed() <= 61 * SECOND,
            "recovered after {:?}",
            back.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_error_while_the_token_is_usable_is_tried_again() {
        let source = Numbered::living(900);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        source.fail(final_error());
        advance(Duration::from_secs(880)).await;
        cache.token().await.unwrap();
        run_ready_tasks().await;
        assert_eq!(
            cache.status().last_error.unwrap().kind(),
            TokenErrorKind::ReauthRequired
        );
        cache.token().await.unwrap();
        source.fail(None);
        advance(Duration::from_secs(30)).await;
        assert_eq!(
            secret(&cache.token().await.unwrap()),
            "token-3",
            "tried again when the token is unusable"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_forced_refresh_keeps_the_token() {
        let source = Numbered::living(900);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        sleep(2 * SECOND).await;
        source.fail(server_error());
        cache.refresh().await.unwrap_err();
        assert_eq!(secret(&cache.token().await.unwrap()), "token-1");
        source.fail(None);
        sleep(2 * SECOND).await;
        assert_eq!(secret(&cache.refresh().await.unwrap()), "token-3");
    }
}

mod throttling {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_final_failure_is_returned_at_once_without_a_call() {
        let source = Numbered::default();
        source.fail(final_error());
        let cache = source.cache().build();
        for _ in 0..1_000 {
            let error = cache.token().await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
            advance(SECOND).await;
        }
        assert_eq!(source.calls(), 1);
        let probes = source.0.probes.load(Ordering::SeqCst);
        assert!((90..=100).contains(&probes), "{probes} probes in 1,000 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_or_a_changed_source_ends_a_final_failure() {
        let source = Numbered::default();
        source.fail(final_error());
        let cache = source.cache().build();
        cache.token().await.unwrap_err();
        source.fail(None);
        advance(2 * SECOND).await;
        cache.token().await.unwrap_err();
        cache.reset();
        assert_eq!(secret(&cache.token().await.unwrap()), "token-2");

        let source = Numbered::default();
        source.fail(final_error());
        let cache = source.cache().build();
        cache.token().await.unwrap_err();
        source.fail(None);
        source.0.has_changed.store(true, Ordering::SeqCst);
        advance(11 * SECOND).await;
        cache.token().await.unwrap_err();
        run_ready_tasks().await;
        assert_eq!(
            secret(&cache.token().await.unwrap()),
            "token-2",
            "found in the background"
        );
    }

    /// A session that is dead until a reset, in a store that takes its time to say whether it has changed.
    struct DeadUntilReset {
        has_changed: bool,
    }

    impl TokenSource for DeadUntilReset {
        async fn token(&self, cx: TokenContext) -> Result<Token, TokenError> {
            if cx.is_after_reset() {
                Token::new("token")
            } else {
                Err(final_error())
            }
        }

        async fn has_changed(&self) -> bool {
            sleep(5 * SECOND).await;
            self.has_changed
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_reset_nobody_gets_the_error_before_it_although_the_source_is_being_asked() {
        for has_changed in [false, true] {
            let cache = TokenCache::new(DeadUntilReset { has_changed });
            cache.token().await.unwrap_err();
            advance(11 * SECOND).await;
            // From here on the source is asked whether something has changed.
            cache.token().await.unwrap_err();
            cache.reset();
            assert_eq!(secret(&cache.token().await.unwrap()), "token");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_respected() {
        let source = Numbered::default();
        source.fail(
            TokenError::new(TokenErrorKind::RateLimited, "slow down")
                .with_retry_after(Duration::from_secs(600)),
        );
        let cache = source.cache().build();
        for _ in 0..599 {
            cache.token().await.unwrap_err();
            advance(SECOND).await;
        }
        assert_eq!(source.calls(), 1);
        source.fail(None);
        advance(2 * SECOND).await;
        cache.token().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_are_issued_expired_are_refreshed_at_min_interval() {
        let source = Numbered::living(0);
        let cache = source.cache().build();
        let start = Instant::now();
        while start.elapsed() < 60 * SECOND {
            cache.token().await.unwrap();
        }
        assert!(
            (59..=62).contains(&source.calls()),
            "{} calls in a minute",
            source.calls()
        );
        assert!(
            source
                .started()
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= SECOND)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_are_due_sooner_are_refreshed_at_min_interval() {
        let source = Numbered::living(900);
        let schedule = Schedule::default()
            .max_age(SECOND)
            .min_interval(10 * SECOND);
        let cache = source.cache().schedule(schedule).build();
        for _ in 0..60 {
            cache.token().await.unwrap();
            sleep(SECOND).await;
        }
        assert_eq!(source.calls(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn issuing_the_same_token_again_slows_down_refreshes() {
        let source = Numbered::living(900);
        source.0.same.store(true, Ordering::SeqCst);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        source.live(Some(Duration::from_secs(100)));
        advance(Duration::from_secs(880)).await;
        for _ in 0..600 {
            assert_eq!(secret(&cache.token().await.unwrap()), "token-1");
            run_ready_tasks().await;
            advance(SECOND).await;
        }
        assert!(
            source.calls() < 40,
            "{} calls in ten minutes",
            source.calls()
        );
    }

    /// A source whose grant is dead, and whose store never responds.
    #[derive(Clone, Default)]
    struct HangingStore(Arc<AtomicUsize>);

    impl TokenSource for HangingStore {
        async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let message = "log in again";
            Err(TokenError::new(TokenErrorKind::ReauthRequired, message))
        }

        async fn has_changed(&self) -> bool {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_responds_does_not_end_the_pause_of_a_dead_grant() {
        let source = HangingStore::default();
        let cache = TokenCache::new(source.clone());
        for _ in 0..3_600 {
            cache.token().await.unwrap_err();
            sleep(SECOND).await;
        }
        assert_eq!(source.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_are_always_rejected_slow_down_refreshes() {
        always_rejected(Numbered::default()).await;
        // A source that says it has changed is called no more often.
        let source = Numbered::default();
        source.0.has_changed.store(true, Ordering::SeqCst);
        always_rejected(source).await;
    }

    async fn always_rejected(source: Numbered) {
        let cache = source.cache().build();
        let start = Instant::now();
        for _ in 0..1_000 {
            let token = cache.token().await.unwrap();
            cache.reject(&token);
            sleep(Duration::from_millis(100)).await;
        }
        // The interval doubles up to a minute: 1, 1, 2, 4, 8, 16, 32, 60 …
        let seconds = start.elapsed().as_secs();
        assert!(
            source.calls() <= 10,
            "{} calls in {seconds} s",
            source.calls()
        );
        assert_eq!(source.calls() as u64, cache.status().issued);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_of_fifteen_minutes_cost_about_100_refreshes_a_day_and_no_wait() {
        let source = Numbered::living(900);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        for second in 0..DAY {
            {
                let mut caller = pin!(cache.token());
                assert!(
                    poll_once(caller.as_mut()).is_ready(),
                    "waited at {second} s"
                );
            }
            yield_now().await;
            yield_now().await;
            advance(SECOND).await;
        }
        assert!(
            (96..=120).contains(&source.calls()),
            "{} refreshes in a day",
            source.calls()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_replicas_do_not_refresh_in_the_same_second() {
        let mut fresh = Vec::new();
        for seed in 0..1_000 {
            let cache = Numbered::living(3_600).cache().seed(seed).build();
            cache.token().await.unwrap();
            fresh.push(cache);
        }
        // The window opens between 5 minutes and 1 minute before the token is unusable.
        advance(Duration::from_secs(3_600 - 305)).await;
        let mut due = Vec::new();
        while !fresh.is_empty() {
            advance(SECOND).await;
            let before = fresh.len();
            fresh.retain(|cache| cache.status().state == TokenState::Fresh);
            due.push(before - fresh.len());
        }
        let busiest = due.iter().max().copied().unwrap_or_default();
        assert!(
            (235..=241).contains(&due.len()),
            "distributed over {} s",
            due.len()
        );
        assert!(busiest < 20, "{busiest} in one second");
    }
}

mod clocks {
    use super::*;

    async fn with_clock(lifetime: u64) -> (Numbered, TokenCache, SimulatedClock) {
        let (source, clock) = (Numbered::living(lifetime), clock());
        let cache = source.cache().clock(clock.clone()).build();
        cache.token().await.unwrap();
        advance(2 * SECOND).await;
        (source, cache, clock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_expired_during_suspend_is_not_used() {
        let (_, cache, clock) = with_clock(900).await;
        clock.step(8 * 3_600);
        assert!(cache.peek().is_none());
        assert_eq!(secret(&cache.token().await.unwrap()), "token-2");
    }

    #[tokio::test(start_paused = true)]
    async fn setting_the_wall_clock_back_does_not_extend_a_lifetime() {
        let (_, cache, clock) = with_clock(900).await;
        clock.step(-DAY);
        assert_eq!(secret(&cache.token().await.unwrap()), "token-1");
        advance(Duration::from_secs(900)).await;
        assert_eq!(secret(&cache.token().await.unwrap()), "token-2");
    }

    #[tokio::test(start_paused = true)]
    async fn setting_the_wall_clock_forward_costs_one_refresh() {
        let (source, cache, clock) = with_clock(900).await;
        clock.step(DAY);
        for _ in 0..600 {
            cache.token().await.unwrap();
            advance(SECOND).await;
        }
        assert_eq!(source.calls(), 2);
        clock.step(-DAY);
        cache.token().await.unwrap();
        assert_eq!(source.calls(), 2, "setting it back costs none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_unknown_lifetime_is_used_until_it_is_rejected() {
        let source = Numbered::default();
        let cache = source.cache().build();
        let token = cache.token().await.unwrap();
        advance(Duration::from_secs(1 << 30)).await;
        assert_eq!(secret(&cache.token().await.unwrap()), "token-1");
        cache.reject(&token);
        assert_eq!(secret(&cache.token().await.unwrap()), "token-2");
    }
}

mod background_refresh_task {
    use super::*;

    fn background_source(lifetime: u64) -> Numbered {
        let source = Numbered::living(lifetime);
        source.0.background_refresh.store(true, Ordering::SeqCst);
        source
    }

    fn tasks() -> usize {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_refreshed_without_traffic() {
        let source = background_source(900);
        let cache = source.cache().build();
        sleep(Duration::from_secs(DAY as u64)).await;
        assert!(
            (96..=125).contains(&source.calls()),
            "{} refreshes in a day",
            source.calls()
        );
        assert!(cache.peek().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn refreshes_resume_after_an_outage_without_traffic() {
        let source = background_source(900);
        let cache = source.cache().build();
        sleep(SECOND).await;
        source.fail(server_error());
        sleep(Duration::from_secs(7_200)).await;
        assert!(cache.peek().is_none());
        assert!(
            source.calls() < 400,
            "{} attempts in two hours",
            source.calls()
        );
        source.fail(None);
        sleep(Duration::from_secs(61)).await;
        assert!(cache.peek().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_task_ends_with_the_last_handle() {
        let before = tasks();
        let source = background_source(900);
        let cache = source.cache().build();
        sleep(10 * SECOND).await;
        let clone = cache.clone();
        drop(cache);
        run_ready_tasks().await;
        assert_eq!(tasks(), before + 1);
        drop(clone);
        run_ready_tasks().await;
        assert_eq!(tasks(), before);
        assert_eq!(Arc::strong_count(&source.0), 1, "the source is freed, too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_completes_after_all_handles_are_dropped_and_frees_everything() {
        let source = Numbered::living(900).takes(SECOND);
        let cache = source.cache().build();
        {
            let mut caller = pin!(cache.token());
            assert!(poll_once(caller.as_mut()).is_pending());
        }
        drop(cache);
        run_ready_tasks().await;
        assert_eq!(source.calls(), 1);
        sleep(2 * SECOND).await;
        assert_eq!(Arc::strong_count(&source.0), 1);
    }

    #[test]
    fn background_refresh_of_a_cache_built_without_a_runtime_starts_with_its_first_use() {
        let source = background_source(1);
        let cache = source.cache_on_system_time().build();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            cache.token().await.unwrap();
            sleep(60 * SECOND).await;
        });
        assert!(source.calls() > 30, "{} calls", source.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_refresh_pauses_whatever_the_schedule_says() {
        let source = Numbered::living(900);
        let schedule = Schedule::default()
            .max_age(Duration::ZERO)
            .min_interval(Duration::ZERO)
            .background_refresh(true);
        let _cache = source.cache().schedule(schedule).build();
        sleep(10 * SECOND).await;
        assert!((2..=101).contains(&source.calls()), "{}", source.calls());
    }
}

mod status {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_subscription_reports_tokens_and_failures_and_ends_with_the_cache() {
        let source = Numbered::living(900);
        let cache = source.cache().build();
        let mut changes = cache.subscribe();
        cache.token().await.unwrap();
        changes.changed().await.unwrap();
        let status = changes.borrow_and_update().clone();
        assert_eq!(
            (status.state, status.issued, status.failed),
            (TokenState::Fresh, 1, 0)
        );
        assert!(status.expires_at.is_some());

        source.fail(server_error());
        advance(Duration::from_secs(2)).await;
        cache.refresh().await.unwrap_err();
        changes.changed().await.unwrap();
        let status = changes.borrow_and_update().clone();
        assert_eq!((status.issued, status.failed), (1, 1));
        assert_eq!(status.last_error.unwrap().kind(), TokenErrorKind::Server);

        drop(cache);
        run_ready_tasks().await;
        assert!(changes.changed().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_state_follows_the_lifetime_of_the_token() {
        let source = Numbered::living(900);
        let cache = source.cache().build();
        assert_eq!(cache.status().state, TokenState::Empty);
        cache.token().await.unwrap();
        assert_eq!(cache.status().state, TokenState::Fresh);
        advance(Duration::from_secs(880)).await;
        assert_eq!(cache.status().state, TokenState::Due);
        assert!(cache.peek().is_some());
        advance(Duration::from_secs(16)).await;
        assert_eq!(cache.status().state, TokenState::Expired);
        assert!(cache.peek().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn debug_shows_no_token() {
        let source = Numbered::living(900);
        let cache = source.cache().build();
        cache.token().await.unwrap();
        let shown = format!("{cache:?} {:#?} {:?}", cache.status(), source.cache());
        assert!(!shown.contains("token-1"), "{shown}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_says_when_the_token_came_and_when_a_refresh_is_due() {
        let source = Numbered::living(900).takes(2 * SECOND);
        let clock = clock();
        let cache = source.cache_on_system_time().clock(clock.clone()).build();
        let begin = clock.now();
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move { cache.token().await }
        });
        sleep(SECOND).await;
        let status = cache.status();
        assert!(status.refreshing);
        assert_eq!((status.refreshed_at, status.due_at), (None, None));

        waiting.await.unwrap().unwrap();
        let status = cache.status();
        assert!(!status.refreshing);
        assert_eq!(status.refreshed_at, Some(begin + 2 * SECOND));
        let due = status.due_at.unwrap().duration_since(begin).unwrap();
        assert!((715..860).contains(&due.as_secs()), "{due:?}");
        assert_eq!(
            status.held_until, None,
            "the refresh took longer than `min_interval`"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_says_until_when_refreshes_are_held_back_and_why() {
        let source = Numbered::living(900);
        let clock = clock();
        let cache = source.cache_on_system_time().clock(clock.clone()).build();
        source.fail(server_error().with_retry_after(90 * SECOND));
        let begin = clock.now();
        cache.token().await.unwrap_err();
        let status = cache.status();
        assert_eq!(status.held_until, Some(begin + 90 * SECOND));
        assert_eq!(status.last_error.unwrap().kind(), TokenErrorKind::Server);

        source.fail(TokenError::new(TokenErrorKind::ReauthRequired, "log in"));
        sleep(90 * SECOND).await;
        cache.token().await.unwrap_err();
        let status = cache.status();
        assert_eq!(status.held_until, None, "only a new login ends it");
        assert!(status.last_error.unwrap().is_final());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_could_not_be_replaced_is_due_when_the_next_refresh_may_start() {
        let source = Numbered::living(900);
        let clock = clock();
        let cache = source.cache_on_system_time().clock(clock.clone()).build();
        let token = cache.token().await.unwrap();
        sleep(5 * SECOND).await;
        source.fail(server_error().with_retry_after(90 * SECOND));
        let begin = clock.now();
        cache.reject(&token);
        cache.token().await.unwrap_err();
        let status = cache.status();
        assert_eq!(status.due_at, Some(begin + 90 * SECOND));
        assert_eq!(status.held_until, status.due_at);
    }

    #[test]
    fn the_state_has_a_name() {
        let state = TokenState::default();
        assert_eq!(state.to_string(), "empty");
        assert_eq!(state.to_string(), state.as_str());
    }

    #[tokio::test(start_paused = true)]
    async fn close_waits_for_the_refresh_that_runs() {
        let source = Numbered::living(900).takes(5 * SECOND);
        let cache = source.cache().build();
        cache.close().await.unwrap();
        assert_eq!(source.calls(), 0, "no refresh starts for it");

        let begin = Instant::now();
        let caller = tokio::spawn({
            let cache = cache.clone();
            async move { cache.token().await }
        });
        sleep(SECOND).await;
        caller.abort();
        cache.close().await.unwrap();
        assert_eq!(begin.elapsed(), 5 * SECOND);
        assert!(cache.peek().is_some());
        assert!(!cache.status().refreshing);
    }
}

mod model {
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Ask,
        Reject { newest: bool },
        Break(bool),
        Live(u64),
        SetWall(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u64..400).prop_map(Step::Pass),
            6 => Just(Step::Ask),
            2 => any::<bool>().prop_map(|newest| Step::Reject { newest }),
            1 => any::<bool>().prop_map(Step::Break),
            1 => (0u64..1_000).prop_map(Step::Live),
            1 => (-2 * DAY..2 * DAY).prop_map(Step::SetWall),
        ];
        proptest::collection::vec(step, 1..60)
    }

    async fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
        let (source, clock) = (Numbered::living(300), clock());
        let cache = source.cache().clock(clock.clone()).build();
        let mut issued: Vec<Token> = Vec::new();
        let (mut working, mut broke_at) = (true, None::<Instant>);
        for step in steps {
            match step {
                Step::Pass(seconds) => sleep(Duration::from_secs(seconds)).await,
                Step::Break(breaks) => {
                    source.fail(breaks.then(server_error));
                    if breaks || !working {
                        broke_at = Some(Instant::now());
                    }
                    working = !breaks;
                }
                Step::Live(seconds) => source.live(Some(Duration::from_secs(seconds))),
                Step::SetWall(seconds) => clock.step(seconds),
                Step::Reject { newest } => {
                    let token = if newest {
                        issued.last()
                    } else {
                        issued.first()
                    };
                    if let Some(token) = token {
                        cache.reject(token);
                    }
                }
                Step::Ask => {
                    let usable = cache.peek();
                    match cache.token().await {
                        // The token is never older than one that was returned before.
                        Ok(token) => {
                            let number =
                                |token: &Token| -> u64 { secret(token)[6..].parse().unwrap() };
                            if let Some(last) = issued.last() {
                                prop_assert!(
                                    number(&token) >= number(last),
                                    "returned an older token"
                                );
                            }
                            issued.push(token);
                        }
                        // Errors occur only without a usable token, and only if the source has failed recently.
                        Err(error) => {
                            prop_assert!(usable.is_none(), "failed with a usable token");
                            prop_assert_eq!(error.kind(), TokenErrorKind::Server);
                            let late = broke_at.is_some_and(|at| at.elapsed() < 62 * SECOND);
                            prop_assert!(!working || late, "failed long after it worked again");
                        }
                    }
                }
            }
        }
        let started = source.started();
        for pair in started.windows(2) {
            prop_assert!(pair[1] - pair[0] >= SECOND, "below the minimum interval");
        }
        let status = cache.status();
        run_ready_tasks().await;
        prop_assert!(source.calls() as u64 - (status.issued + status.failed) <= 1);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn the_cache_behaves_as_specified(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(check(steps))?;
        }
    }
}
