//! [`ServerClock`]: how far the server's clock is from ours. [`RequestTime`]: what it showed when a request was made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// The difference between the server's clock and ours, learned from the `Date` of its responses.
///
/// Assertions are valid for a minute by the server's clock.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    ahead_secs: AtomicI64,
}

/// A smaller difference is that of the whole seconds of `Date`.
const TOLERANCE: Duration = Duration::from_secs(5);

impl ServerClock {
    /// The server's time, for a request that is made `now` by our clock.
    pub(super) fn time(&self, now: SystemTime) -> RequestTime {
        let ahead_secs = self.ahead_secs.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead_secs.unsigned_abs());
        let time = if ahead_secs < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        };
        RequestTime {
            time: time.unwrap_or(now),
            ahead_secs,
            was_read: Arc::default(),
        }
    }

    /// Whether what was made at `made` depends on the time, and would be made for another time now.
    pub(super) fn outdates(&self, made: &RequestTime) -> bool {
        let ahead_secs = self.ahead_secs.load(Ordering::Relaxed);
        made.was_read.load(Ordering::Relaxed)
            && made.ahead_secs.abs_diff(ahead_secs) > TOLERANCE.as_secs()
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

/// The server's time, for what is made for one request. It remembers whether it was read: what was made without it does
/// not depend on it. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct RequestTime {
    time: SystemTime,
    /// By how much the server's clock was thought to be ahead.
    ahead_secs: i64,
    was_read: Arc<AtomicBool>,
}

impl RequestTime {
    /// A time of no server.
    pub(crate) fn new(time: SystemTime) -> Self {
        Self {
            time,
            ahead_secs: 0,
            was_read: Arc::default(),
        }
    }

    pub(crate) fn read(&self) -> SystemTime {
        self.was_read.store(true, Ordering::Relaxed);
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    /// What the clock says at 2,000 s of ours.
    fn time(clock: &ServerClock) -> SystemTime {
        clock.time(at(2_000)).read()
    }

    #[test]
    fn the_servers_time_follows_its_dates() {
        let clock = ServerClock::default();
        for (date, now, expected, is_outdated) in [
            (1_003, 1_000, 2_000, false),
            (4_600, 1_000, 5_600, true),
            (4_702, 1_101, 5_601, false),
            (400, 1_000, 1_400, true),
            (1_000, 1_000, 2_000, true),
        ] {
            let made = clock.time(at(2_000));
            made.read();
            clock.learn(at(date), at(now), at(now));
            assert_eq!(time(&clock), at(expected));
            assert_eq!(clock.outdates(&made), is_outdated, "{date}");
        }
    }

    #[test]
    fn what_did_not_read_the_time_is_not_outdated() {
        let clock = ServerClock::default();
        let made = clock.time(at(0));
        clock.learn(at(3_600), at(0), at(0));
        assert!(!clock.outdates(&made));
        made.clone().read();
        assert!(clock.outdates(&made));
    }

    #[test]
    fn another_response_may_have_taught_the_time() {
        let clock = ServerClock::default();
        let both = [clock.time(at(0)), clock.time(at(0))];
        for made in both {
            made.read();
            clock.learn(at(3_600), at(0), at(0));
            assert!(clock.outdates(&made));
        }
    }

    #[test]
    fn a_slow_response_says_nothing_about_the_clock() {
        let clock = ServerClock::default();
        for date in [1_000, 1_150, 1_300] {
            clock.learn(at(date), at(1_000), at(1_300));
            assert_eq!(time(&clock), at(2_000), "{date}");
        }
        clock.learn(at(1_400), at(1_000), at(1_300));
        assert_eq!(time(&clock), at(2_100));
        clock.learn(at(900), at(1_000), at(1_300));
        assert_eq!(time(&clock), at(1_900));
    }

    #[test]
    fn no_date_makes_a_time_impossible() {
        let clock = ServerClock::default();
        let far = at(i64::MAX as u64 / 2);
        for (date, now) in [(far, at(0)), (at(0), far)] {
            clock.learn(date, now, now);
            clock.time(far).read();
            clock.time(at(0)).read();
        }
    }
}
