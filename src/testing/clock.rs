//! [`SimulatedClock`], and the settings of a cache that make it deterministic.

use std::{fmt, sync::Arc, time::SystemTime};

use tokio::time::Instant;

#[cfg(feature = "login")]
use crate::login::DeviceCode;
use crate::{
    cache::TokenCacheBuilder,
    clock::{Clock, SimulatedWallClock},
};

/// A wall clock for tests. It moves with Tokio's time, and can be set forward or back.
///
/// Clones are the same clock. Pass one to a cache with [`TokenCacheBuilder::clock`], and to an
/// [`AuthorizationServer`](super::AuthorizationServer) with its method of the same name.
///
/// Monotonic time is always Tokio's, which a test can pause and advance. A step while Tokio's time is paused is what a
/// laptop sees when it wakes from suspend.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_bearer::testing::SimulatedClock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
/// tokio::time::advance(Duration::from_secs(60)).await;
/// clock.step(86_400); // the wall clock is set forward by a day
/// assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(86_460));
/// # }
/// ```
#[derive(Clone)]
pub struct SimulatedClock(Arc<SimulatedWallClock>);

impl SimulatedClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn new(start: SystemTime) -> Self {
        Self(Arc::new(SimulatedWallClock::new(start)))
    }

    /// Steps the clock by `seconds`, backward if negative. All steps together move it by at most 100 years.
    pub fn step(&self, seconds: i64) {
        self.0.step(seconds);
    }

    /// The time that the clock shows.
    pub fn now(&self) -> SystemTime {
        self.0.wall_at(Instant::now())
    }
}

impl From<SimulatedClock> for Clock {
    fn from(clock: SimulatedClock) -> Self {
        Self::Simulated(clock.0)
    }
}

impl fmt::Debug for SimulatedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimulatedClock").field(&self.now()).finish()
    }
}

#[cfg(feature = "login")]
impl DeviceCode {
    /// Reads the wall clock from `clock`, with the feature `testing`. Default: the system's.
    #[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
    pub fn clock(mut self, clock: SimulatedClock) -> Self {
        self.clock = clock.into();
        self
    }
}

/// Settings for deterministic tests, with the feature `testing`.
impl TokenCacheBuilder {
    /// Reads the wall clock from `clock`. Default: the system's.
    pub fn clock(mut self, clock: SimulatedClock) -> Self {
        self.settings.clock = clock.into();
        self
    }

    /// Makes jitter and backoff a function of `seed`. Default: random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }
}
