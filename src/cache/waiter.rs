//! How the result of a refresh reaches the callers that wait for it.
//!
//! Ten thousand callers may wait for one token, so a waiter is small: one box with a place in Tokio's list of waiters and a
//! timer, written as a struct instead of nested futures.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::{self, Sleep},
};

use super::{
    issued::{Generation, Issued},
    lookup::{Lookup, interrupted},
    shared::Shared,
};
use crate::error::{TokenError, TokenErrorKind};

pub(super) type Completed = Result<Arc<Issued>, TokenError>;

/// How many refreshes a waiter joins, if one after the other is lost with its runtime.
const MAX_LOST: u32 = 3;

/// The result of one refresh. Set once.
pub(super) struct SharedResult {
    /// The refresh keeps the cache alive until it ends.
    pub(super) shared: Arc<Shared>,
    /// `None` inside: the task was lost with its runtime.
    result: OnceLock<Option<Completed>>,
    is_set: Arc<Notify>,
}

impl SharedResult {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            result: OnceLock::new(),
            is_set: Arc::default(),
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.result.get().is_some()
    }

    /// Waits until the refresh has ended.
    pub(super) async fn ended(&self) {
        let is_set = Arc::clone(&self.is_set).notified_owned();
        if !self.is_set() {
            is_set.await;
        }
    }

    /// Wakes all waiters. Only the first call counts.
    pub(super) fn set(&self, result: Option<Completed>) {
        if self.result.set(result).is_ok() {
            self.is_set.notify_waiters();
        }
    }
}

/// Waits for the running refresh. All waiters of a refresh get the same result.
pub(crate) struct Waiter {
    inner: Pin<Box<Inner>>,
}

pin_project! {
    struct Inner {
        result: Arc<SharedResult>,
        // Created before the first look at the result, so that no wake-up is missed between the two.
        #[pin]
        is_set: OwnedNotified,
        // A timer of the caller's runtime: the refresh's own may stand still. Created by the first poll.
        #[pin]
        timeout: Option<Sleep>,
        other_than: Option<Generation>,
        lost: u32,
    }
}

impl Waiter {
    pub(super) fn new(result: Arc<SharedResult>, other_than: Option<Generation>) -> Self {
        let inner = Inner {
            is_set: Arc::clone(&result.is_set).notified_owned(),
            result,
            timeout: None,
            other_than,
            lost: 0,
        };
        Self {
            inner: Box::pin(inner),
        }
    }
}

impl Future for Waiter {
    type Output = Completed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completed> {
        let polled = self.inner.as_mut().poll_result(cx);
        if let Poll::Ready(completed) = &polled
            && self.inner.result.shared.events.wants_requests()
            && let Some(waited) = self.inner.waited()
        {
            self.inner.result.shared.waited(waited, completed);
        }
        polled
    }
}

impl Inner {
    fn poll_result(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completed> {
        let mut this = self.project();
        loop {
            // Polled before the look, so that a result that comes after the look wakes this task. And so that it leaves
            // Tokio's list: dropping it there would take the list's lock.
            let _ = this.is_set.as_mut().poll(cx);
            match this.result.result.get() {
                Some(Some(completed)) => return Poll::Ready(completed.clone()),
                // The refresh was lost with its runtime. This caller's runtime works, so the next can start here.
                Some(None) => match this.result.shared.want(*this.other_than) {
                    Lookup::Ready(issued) => return Poll::Ready(Ok(issued)),
                    Lookup::Failed(error) => return Poll::Ready(Err(error)),
                    Lookup::Wait(next) => {
                        *this.lost += 1;
                        if *this.lost == MAX_LOST {
                            let message = "the runtime that ran the refresh shut down";
                            return Poll::Ready(Err(interrupted(message)));
                        }
                        this.is_set.set(Arc::clone(&next.is_set).notified_owned());
                        *this.result = next;
                    }
                },
                None => break,
            }
        }
        let limit = this.result.shared.settings.max_wait;
        if this.timeout.is_none() {
            this.timeout.set(Some(time::sleep(limit)));
        }
        match this.timeout.as_pin_mut() {
            Some(sleep) => sleep.poll(cx).map(|()| Err(timed_out(limit))),
            None => Poll::Pending,
        }
    }

    /// How long it has waited, if it had to. The timer knows when it began.
    fn waited(&self) -> Option<Duration> {
        let deadline = self.timeout.as_ref()?.deadline();
        let since = deadline.checked_sub(self.result.shared.settings.max_wait)?;
        Some(since.elapsed())
    }
}

#[cold]
fn timed_out(limit: Duration) -> TokenError {
    let message = format!("no token came within {limit:?} (`max_wait`); the refresh goes on");
    TokenError::new(TokenErrorKind::Timeout, message)
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use tokio::{sync::Semaphore, task::yield_now};

    use super::*;
    use crate::{
        Token, TokenCache, TokenContext,
        cache::{CacheStatus, Lookup},
        source_fn,
        testing::SimulatedClock,
    };

    /// A cache whose source answers once for each permit of the semaphore.
    fn paused_cache() -> (TokenCache, Arc<Semaphore>) {
        let permits = Arc::new(Semaphore::new(0));
        let source_permits = Arc::clone(&permits);
        let calls = AtomicUsize::new(0);
        let source = source_fn(move |_: TokenContext| {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            let permits = Arc::clone(&source_permits);
            async move {
                permits.acquire().await.unwrap().forget();
                Token::new(format!("token-{call}"))
            }
        });
        let clock = SimulatedClock::new(std::time::UNIX_EPOCH);
        (TokenCache::builder(source).clock(clock).build(), permits)
    }

    fn waiter(cache: &TokenCache) -> Waiter {
        match cache.lookup() {
            Lookup::Wait(waiter) => waiter,
            Lookup::Ready(_) | Lookup::Failed(_) => panic!("there is a token already"),
        }
    }

    fn poll(wait: &mut Waiter, waker: &Waker) -> Poll<Completed> {
        Pin::new(wait).poll(&mut Context::from_waker(waker))
    }

    fn is_token(polled: Poll<Completed>, secret: &str) -> bool {
        matches!(polled, Poll::Ready(Ok(issued)) if issued.token().expose_secret() == secret)
    }

    async fn complete_refresh(permits: &Semaphore) {
        permits.add_permits(1);
        for _ in 0..5 {
            yield_now().await;
        }
    }

    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_waiter_is_small() {
        assert!(size_of::<Inner>() <= 256, "{}", size_of::<Inner>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_comes_before_the_first_poll_is_not_missed() {
        let (cache, permits) = paused_cache();
        let mut early = waiter(&cache);
        complete_refresh(&permits).await;
        assert!(is_token(poll(&mut early, Waker::noop()), "token-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_waker_is_the_one_that_is_woken() {
        let (cache, permits) = paused_cache();
        let mut moved = waiter(&cache);
        let (first, last) = (
            Arc::new(CountingWaker::default()),
            Arc::new(CountingWaker::default()),
        );
        assert!(poll(&mut moved, &Arc::clone(&first).into()).is_pending());
        assert!(poll(&mut moved, &Arc::clone(&last).into()).is_pending());
        complete_refresh(&permits).await;
        let woken = |waker: &CountingWaker| waker.0.load(Ordering::SeqCst);
        assert_eq!((woken(&first), woken(&last)), (0, 1));
        assert!(is_token(poll(&mut moved, Waker::noop()), "token-1"));
    }

    /// Does in `wake` what a task that is dropped or polled right there could do.
    struct ReentrantWaker {
        cache: TokenCache,
        others: Mutex<Vec<Waiter>>,
        found: Mutex<Option<CacheStatus>>,
    }

    impl Wake for ReentrantWaker {
        fn wake(self: Arc<Self>) {
            assert!(matches!(self.cache.lookup(), Lookup::Ready(_)));
            self.others.lock().unwrap().clear();
            *self.found.lock().unwrap() = Some(self.cache.status());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_woken_waiter_finds_the_new_token_and_no_lock_held() {
        let (cache, permits) = paused_cache();
        let mut others: Vec<_> = std::iter::repeat_with(|| waiter(&cache))
            .take(100)
            .collect();
        let mut woken = others.pop().unwrap();
        let later = others.split_off(50);
        for other in &mut others {
            assert!(poll(other, Waker::noop()).is_pending());
        }
        let reentrant = Arc::new(ReentrantWaker {
            cache: cache.clone(),
            others: Mutex::default(),
            found: Mutex::default(),
        });
        assert!(poll(&mut woken, &Arc::clone(&reentrant).into()).is_pending());
        others.extend(later);
        for other in &mut others {
            assert!(poll(other, Waker::noop()).is_pending());
        }
        *reentrant.others.lock().unwrap() = others;
        complete_refresh(&permits).await;
        assert_eq!(reentrant.found.lock().unwrap().as_ref().unwrap().issued, 1);
        assert!(reentrant.others.lock().unwrap().is_empty());
        assert!(is_token(poll(&mut woken, Waker::noop()), "token-1"));
    }
}
