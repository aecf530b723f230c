//! The one place that reads time.
//!
//! Everything else is a function of a `Now` handed to it. Monotonic time is Tokio's, so tests that pause Tokio's time
//! pause ours; wall-clock time is the system's, or in tests one that follows Tokio's and can be stepped.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// Where a cache takes its time from: the system, or for tests a [simulated](Clock::simulated) wall clock.
///
/// Monotonic time is always Tokio's, which tests can pause and advance.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_bearer::Clock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let clock = Clock::simulated(SystemTime::UNIX_EPOCH);
/// tokio::time::advance(Duration::from_secs(60)).await;
/// clock.step(86_400); // somebody sets the wall clock forward by a day
/// assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(86_460));
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Clock {
    simulated: Option<Arc<Simulated>>,
}

struct Simulated {
    start: (Instant, SystemTime),
    stepped_secs: AtomicI64,
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) mono: Instant,
    pub(crate) wall: SystemTime,
}

/// Longer than any token lives or any server may be waited for, and shorter than what clocks can add up.
pub(crate) const AGES: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `by` after `at`; "never" is in a hundred years.
pub(crate) fn later(at: Instant, by: Duration) -> Instant {
    at + by.min(AGES)
}

impl Now {
    /// This much later, on both clocks.
    pub(crate) fn later(self, by: Duration) -> Self {
        Self {
            mono: later(self.mono, by),
            wall: self.wall + by.min(AGES),
        }
    }
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self::default()
    }

    /// A wall clock that begins at `start`, moves with Tokio's time, and can be [stepped](Clock::step).
    ///
    /// For tests: a step with Tokio's time standing still is what a suspended laptop sees when it wakes.
    pub fn simulated(start: SystemTime) -> Self {
        Self {
            simulated: Some(Arc::new(Simulated {
                start: (Instant::now(), start),
                stepped_secs: AtomicI64::new(0),
            })),
        }
    }

    /// Steps a simulated wall clock by `seconds`, backward if negative; does nothing to the system's.
    pub fn step(&self, seconds: i64) {
        if let Some(simulated) = &self.simulated {
            simulated.stepped_secs.fetch_add(seconds, Ordering::SeqCst);
        }
    }

    /// What the wall clock says.
    pub fn wall(&self) -> SystemTime {
        self.now().wall
    }

    #[inline]
    pub(crate) fn now(&self) -> Now {
        let mono = Instant::now();
        let wall = match &self.simulated {
            None => SystemTime::now(),
            Some(simulated) => simulated.wall(mono),
        };
        Now { mono, wall }
    }
}

impl Simulated {
    fn wall(&self, mono: Instant) -> SystemTime {
        let moved = self.start.1 + mono.saturating_duration_since(self.start.0);
        let stepped = self.stepped_secs.load(Ordering::SeqCst);
        let by = Duration::from_secs(stepped.unsigned_abs());
        if stepped < 0 { moved - by } else { moved + by }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.simulated {
            None => "Clock::System",
            Some(_) => "Clock::Simulated",
        })
    }
}
