//! The one place that reads time.
//!
//! Everything else is a function of a [`Now`] that is passed in. Monotonic time is Tokio's, so tests that pause Tokio's
//! time pause this crate's as well. Wall-clock time is the system's, or in tests that of a [`SimulatedWallClock`].

#[cfg(any(test, feature = "testing"))]
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::{
    fmt,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// Longer than any token lives, and short enough to be added to any time without overflow.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Where a cache reads the time.
#[derive(Clone, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(any(test, feature = "testing"))]
    Simulated(Arc<SimulatedWallClock>),
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) mono: Instant,
    pub(crate) wall: SystemTime,
}

impl Now {
    /// The time `by` later on both clocks, at most [`MAX_DURATION`] away.
    pub(crate) fn later(self, by: Duration) -> Self {
        Self {
            mono: later(self.mono, by),
            wall: self.wall + by.min(MAX_DURATION),
        }
    }
}

/// The instant `by` after `at`, at most [`MAX_DURATION`] away.
pub(crate) fn later(at: Instant, by: Duration) -> Instant {
    at + by.min(MAX_DURATION)
}

impl Clock {
    #[inline]
    pub(crate) fn now(&self) -> Now {
        let mono = Instant::now();
        let wall = match self {
            Self::System => SystemTime::now(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(clock) => clock.wall_at(mono),
        };
        Now { mono, wall }
    }

    /// Reads the wall clock alone.
    pub(crate) fn wall(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(clock) => clock.wall_at(Instant::now()),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(_) => "Simulated",
        })
    }
}

/// A wall clock that moves with Tokio's time and can be stepped.
#[cfg(any(test, feature = "testing"))]
pub(crate) struct SimulatedWallClock {
    start: Now,
    stepped_secs: AtomicI64,
}

#[cfg(any(test, feature = "testing"))]
impl SimulatedWallClock {
    pub(crate) fn new(start: SystemTime) -> Self {
        Self {
            start: Now {
                mono: Instant::now(),
                wall: start,
            },
            stepped_secs: AtomicI64::new(0),
        }
    }

    pub(crate) fn step(&self, seconds: i64) {
        let add = |stepped: i64| Some(stepped.saturating_add(seconds));
        let _ = self
            .stepped_secs
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
    }

    pub(crate) fn wall_at(&self, mono: Instant) -> SystemTime {
        let unstepped = self.start.wall + mono.saturating_duration_since(self.start.mono);
        let stepped = self.stepped_secs.load(Ordering::SeqCst);
        let by = Duration::from_secs(stepped.unsigned_abs()).min(MAX_DURATION);
        if stepped < 0 {
            unstepped.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
        } else {
            unstepped.checked_add(by).unwrap_or(unstepped)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_step_makes_the_simulated_clock_panic() {
        for steps in [
            [i64::MAX, i64::MAX],
            [i64::MIN, i64::MIN],
            [i64::MAX, i64::MIN],
        ] {
            let clock = SimulatedWallClock::new(SystemTime::UNIX_EPOCH);
            for step in steps {
                clock.step(step);
                clock.wall_at(Instant::now());
            }
        }
        let clock = SimulatedWallClock::new(SystemTime::UNIX_EPOCH);
        clock.step(i64::MAX);
        let furthest = SystemTime::UNIX_EPOCH + MAX_DURATION;
        assert_eq!(clock.wall_at(Instant::now()), furthest);
    }
}
