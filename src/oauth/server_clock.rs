//! [`ServerClock`]: how far the server's clock is from ours.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

/// The difference between the server's clock and ours, learned from the `Date` of its responses.
///
/// Assertions are valid for a minute by the server's clock.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    ahead_secs: AtomicI64,
}

/// How many seconds the server's clock is ahead of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead(i64);

/// A smaller difference is that of the whole seconds of `Date`.
const TOLERANCE: Duration = Duration::from_secs(5);

impl ServerClock {
    pub(super) fn ahead(&self) -> Ahead {
        Ahead(self.ahead_secs.load(Ordering::Relaxed))
    }

    /// The server's time.
    pub(super) fn time(&self, now: SystemTime) -> SystemTime {
        self.ahead().add_to(now)
    }

    /// A response of the server had this `Date`. It was written at some time between these two readings of our clock.
    pub(super) fn learn(&self, date: SystemTime, sent: SystemTime, received: SystemTime) {
        let beyond = |later: SystemTime, earlier: SystemTime| {
            let by = later.duration_since(earlier).unwrap_or_default();
            let by = if by <= TOLERANCE { 0 } else { by.as_secs() };
            i64::try_from(by).unwrap_or(i64::MAX)
        };
        let ahead = match beyond(date, received) {
            0 => -beyond(sent, date),
            ahead => ahead,
        };
        self.ahead_secs.store(ahead, Ordering::Relaxed);
    }
}

impl Ahead {
    /// The server's time when ours is `now`.
    pub(super) fn add_to(self, now: SystemTime) -> SystemTime {
        let by = Duration::from_secs(self.0.unsigned_abs());
        let time = if self.0 < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        };
        time.unwrap_or(now)
    }

    pub(super) fn differs_from(self, other: Self) -> bool {
        self.0.abs_diff(other.0) > TOLERANCE.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn the_servers_time_follows_its_dates() {
        let clock = ServerClock::default();
        // Returns whether the difference has changed.
        let learn = |date, now| {
            let before = clock.ahead();
            clock.learn(at(date), at(now), at(now));
            clock.ahead().differs_from(before)
        };
        assert!(!learn(1_003, 1_000));
        assert_eq!(clock.time(at(2_000)), at(2_000));
        assert!(learn(4_600, 1_000));
        assert_eq!(clock.time(at(2_000)), at(5_600));
        assert!(!learn(4_702, 1_101));
        assert!(learn(400, 1_000));
        assert_eq!(clock.time(at(2_000)), at(1_400));
        assert!(learn(1_000, 1_000));
        assert_eq!(clock.time(at(2_000)), at(2_000));
    }

    #[test]
    fn a_slow_response_says_nothing_about_the_clock() {
        let clock = ServerClock::default();
        for date in [1_000, 1_150, 1_300] {
            clock.learn(at(date), at(1_000), at(1_300));
            assert_eq!(clock.time(at(2_000)), at(2_000), "{date}");
        }
        clock.learn(at(1_400), at(1_000), at(1_300));
        assert_eq!(clock.time(at(2_000)), at(2_100));
        clock.learn(at(900), at(1_000), at(1_300));
        assert_eq!(clock.time(at(2_000)), at(1_900));
    }

    #[test]
    fn no_date_makes_a_time_impossible() {
        let clock = ServerClock::default();
        let far = at(i64::MAX as u64 / 2);
        for (date, now) in [(far, at(0)), (at(0), far)] {
            clock.learn(date, now, now);
            clock.time(far);
            clock.time(at(0));
        }
    }
}
