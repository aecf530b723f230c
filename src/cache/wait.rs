//! How a flight's end reaches those who wait for it.
//!
//! Ten thousand may wait for one token, so each is kept small, and is a struct rather than futures around futures: what
//! he holds is one box with a place in a list and a timer.

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
    refresh_task::Boarding,
    state::{Shared, interrupted},
};
use crate::error::{TokenError, TokenErrorKind};

pub(super) type Landed = Result<Arc<Issued>, TokenError>;

/// How often a caller boards again whose flight was lost with its runtime.
const BOARDINGS: u32 = 3;

/// Where the end of one flight is told, once.
pub(super) struct Arrival {
    /// The cache knows the flight, and the flight the cache, until the flight ends, which it does in any case.
    pub(super) shared: Arc<Shared>,
    /// Nothing in it: the flight was lost with its runtime.
    end: OnceLock<Option<Landed>>,
    news: Arc<Notify>,
}

impl Arrival {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            end: OnceLock::new(),
            news: Arc::default(),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }

    /// Tells all who wait, and all who come to wait later. Only the first time counts.
    pub(super) fn tell(&self, end: Option<Landed>) {
        if self.end.set(end).is_ok() {
            self.news.notify_waiters();
        }
    }
}

/// Waits for the flight that is under way; resolves for everybody with the same result.
pub(crate) struct Wait {
    waiting: Pin<Box<Waiting>>,
}

pin_project! {
    struct Waiting {
        arrival: Arc<Arrival>,
        // Made before the first look at the arrival, so that nothing is told between the two.
        #[pin]
        news: OwnedNotified,
        // Of the runtime that this caller runs in, not of the flight's: that may stand still. Begun with the first poll.
        #[pin]
        limit: Option<Sleep>,
        unlike: Option<Generation>,
        lost: u32,
    }
}

impl Wait {
    pub(super) fn new(arrival: Arc<Arrival>, unlike: Option<Generation>) -> Self {
        let waiting = Waiting {
            news: Arc::clone(&arrival.news).notified_owned(),
            arrival,
            limit: None,
            unlike,
            lost: 0,
        };
        Self {
            waiting: Box::pin(waiting),
        }
    }
}

impl Future for Wait {
    type Output = Landed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed> {
        let mut this = self.waiting.as_mut().project();
        loop {
            // First of all, so that it gives up its place in the list: to be dropped there would take the list's lock.
            let heard = this.news.as_mut().poll(cx).is_ready();
            match this.arrival.end.get() {
                Some(Some(landed)) => return Poll::Ready(landed.clone()),
                // The flight was lost with its runtime. This caller's still runs, so the next can start here.
                Some(None) => match this.arrival.shared.board(*this.unlike) {
                    Boarding::Here(issued) => return Poll::Ready(Ok(issued)),
                    Boarding::Failed(error) => return Poll::Ready(Err(error)),
                    Boarding::Flight(next) => {
                        *this.lost += 1;
                        if *this.lost == BOARDINGS {
                            let message = "the runtime that was to fetch the token shut down";
                            return Poll::Ready(Err(interrupted(message)));
                        }
                        this.news.set(Arc::clone(&next.news).notified_owned());
                        *this.arrival = next;
                    }
                },
                // What is told is there before anybody hears of it.
                None if heard => {}
                None => break,
            }
        }
        let limit = this.arrival.shared.settings.max_wait;
        if this.limit.is_none() {
            this.limit.set(Some(time::sleep(limit)));
        }
        match this.limit.as_pin_mut() {
            Some(sleep) => sleep.poll(cx).map(|()| Err(too_long(limit))),
            None => Poll::Pending,
        }
    }
}

#[cold]
fn too_long(limit: Duration) -> TokenError {
    let message = format!("waited {limit:?} for a token, and it is not here yet");
    TokenError::new(TokenErrorKind::Timeout, message)
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
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
    };

    /// A cache whose source answers when the gate lets it.
    fn gated() -> (TokenCache, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let keeper = Arc::clone(&gate);
        let calls = AtomicUsize::new(0);
        let source = source_fn(move |_: TokenContext| {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            let keeper = Arc::clone(&keeper);
            async move {
                keeper.acquire().await.unwrap().forget();
                Token::new(format!("token-{call}"))
            }
        });
        let clock = crate::testing::SimulatedClock::new(std::time::UNIX_EPOCH);
        (TokenCache::builder(source).clock(clock).build(), gate)
    }

    fn wait(cache: &TokenCache) -> Wait {
        match cache.lookup() {
            Lookup::Wait(wait) => wait,
            Lookup::Ready(_) | Lookup::Failed(_) => panic!("there was something already"),
        }
    }

    fn poll(wait: &mut Wait, waker: &Waker) -> Poll<Landed> {
        Pin::new(wait).poll(&mut Context::from_waker(waker))
    }

    fn is_token(polled: Poll<Landed>, secret: &str) -> bool {
        matches!(polled, Poll::Ready(Ok(issued)) if issued.token().expose_secret() == secret)
    }

    async fn land(gate: &Semaphore) {
        gate.add_permits(1);
        for _ in 0..5 {
            yield_now().await;
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_waiter_is_small() {
        assert!(size_of::<Waiting>() <= 256, "{}", size_of::<Waiting>());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_before_the_first_poll_is_not_missed() {
        let (cache, gate) = gated();
        let mut early = wait(&cache);
        land(&gate).await;
        assert!(is_token(poll(&mut early, Waker::noop()), "token-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_waker_is_the_one_that_is_woken() {
        let (cache, gate) = gated();
        let mut moved = wait(&cache);
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        assert!(poll(&mut moved, &Arc::clone(&first).into()).is_pending());
        assert!(poll(&mut moved, &Arc::clone(&last).into()).is_pending());
        land(&gate).await;
        let woken = |count: &Count| count.0.load(Ordering::SeqCst);
        assert_eq!((woken(&first), woken(&last)), (0, 1));
        assert!(is_token(poll(&mut moved, Waker::noop()), "token-1"));
    }

    /// Does in its wake what a task that is dropped or run right there would do.
    struct Meddler {
        cache: TokenCache,
        others: Mutex<Vec<Wait>>,
        found: Mutex<Option<CacheStatus>>,
    }

    impl Wake for Meddler {
        fn wake(self: Arc<Self>) {
            assert!(matches!(self.cache.lookup(), Lookup::Ready(_)));
            self.others.lock().unwrap().clear();
            *self.found.lock().unwrap() = Some(self.cache.status());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_woken_finds_the_new_token_and_no_lock_held() {
        let (cache, gate) = gated();
        let mut others: Vec<_> = std::iter::repeat_with(|| wait(&cache)).take(100).collect();
        let mut woken = others.pop().unwrap();
        let later = others.split_off(50);
        for other in &mut others {
            assert!(poll(other, Waker::noop()).is_pending());
        }
        let meddler = Arc::new(Meddler {
            cache: cache.clone(),
            others: Mutex::default(),
            found: Mutex::default(),
        });
        assert!(poll(&mut woken, &Arc::clone(&meddler).into()).is_pending());
        others.extend(later);
        for other in &mut others {
            assert!(poll(other, Waker::noop()).is_pending());
        }
        *meddler.others.lock().unwrap() = others;
        land(&gate).await;
        assert_eq!(meddler.found.lock().unwrap().as_ref().unwrap().issued, 1);
        assert!(meddler.others.lock().unwrap().is_empty());
        assert!(is_token(poll(&mut woken, Waker::noop()), "token-1"));
    }
}
