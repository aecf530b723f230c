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

/// A smaller difference is that of a slow response, or of the whole seconds of `Date`.
const TOLERANCE: Duration = Duration::from_secs(5);

impl ServerClock {
    /// The server's time.
    pub(super) fn time(&self, now: SystemTime) -> SystemTime {
        let ahead = self.ahead_secs.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        let time = if ahead < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        };
        time.unwrap_or(now)
    }

    /// A response of the server had this `Date`. Returns whether the difference has changed.
    pub(super) fn learn(&self, date: SystemTime, now: SystemTime) -> bool {
        let (ahead, sign) = match date.duration_since(now) {
            Ok(ahead) => (ahead, 1),
            Err(behind) => (behind.duration(), -1),
        };
        let ahead_secs = if ahead <= TOLERANCE {
            0
        } else {
            sign * i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX)
        };
        let before = self.ahead_secs.swap(ahead_secs, Ordering::Relaxed);
        before.abs_diff(ahead_secs) > TOLERANCE.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_follows_its_dates() {
        let clock = ServerClock::default();
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        assert!(!clock.learn(at(1_003), at(1_000)));
        assert_eq!(clock.time(at(2_000)), at(2_000));
        assert!(clock.learn(at(4_600), at(1_000)));
        assert_eq!(clock.time(at(2_000)), at(5_600));
        assert!(!clock.learn(at(4_702), at(1_101)));
        assert!(clock.learn(at(400), at(1_000)));
        assert_eq!(clock.time(at(2_000)), at(1_400));
        assert!(clock.learn(at(1_000), at(1_000)));
        assert_eq!(clock.time(at(2_000)), at(2_000));
    }

    #[test]
    fn no_date_makes_a_time_impossible() {
        let clock = ServerClock::default();
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX as u64 / 2);
        clock.learn(far, SystemTime::UNIX_EPOCH);
        clock.time(far);
        clock.learn(SystemTime::UNIX_EPOCH, far);
        clock.time(SystemTime::UNIX_EPOCH);
    }
}
