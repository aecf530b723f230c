//! Whether a token is fresh, due or expired: a pure function of the time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{clock::Now, schedule::Schedule, token::Expires};

/// What a cache does with a token at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The token is sent.
    Fresh,
    /// The token is sent, and a refresh starts in the background.
    Due,
    /// The token is not sent. Callers wait for the next one.
    Expired,
}

/// A time on both clocks. It has passed as soon as one of them says so: the monotonic clock stops while a machine is
/// suspended, and the wall clock can be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) mono: Instant,
    pub(crate) wall: SystemTime,
}

impl Deadline {
    #[inline]
    pub(crate) fn has_passed(self, now: Now) -> bool {
        self.mono <= now.mono || self.wall <= now.wall
    }

    /// The deadline `wait` after `now`.
    pub(crate) fn after(wait: Duration, now: Now) -> Self {
        let Now { mono, wall } = now.later(wait);
        Self { mono, wall }
    }

    /// The deadline earlier by `by`; `floor` where a clock cannot represent that time.
    fn earlier(self, by: Duration, floor: Now) -> Self {
        Self {
            mono: self.mono.checked_sub(by).unwrap_or(floor.mono),
            wall: self.wall.checked_sub(by).unwrap_or(floor.wall),
        }
    }

    /// The deadline that passes when the first of both has passed.
    fn min(self, other: Self) -> Self {
        Self {
            mono: self.mono.min(other.mono),
            wall: self.wall.min(other.wall),
        }
    }

    /// The time left until the first clock says that the deadline has passed.
    pub(crate) fn left(self, now: Now) -> Duration {
        let mono = self.mono.saturating_duration_since(now.mono);
        mono.min(self.wall.duration_since(now.wall).unwrap_or_default())
    }
}

/// When a token is due, and when it is unusable; `None` is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadlines {
    pub(crate) due: Option<Deadline>,
    pub(crate) unusable: Option<Deadline>,
    /// The earlier of both, which is all that a request with a fresh token compares.
    first: Option<Deadline>,
}

impl Deadlines {
    /// The deadlines of a token that was received at `now`. `random` is from 0 to 1.
    pub(crate) fn new(
        expires: Option<Expires>,
        schedule: &Schedule,
        random: f64,
        now: Now,
    ) -> Self {
        let Some(Expires {
            mono,
            wall,
            lifetime,
        }) = expires
        else {
            let due = schedule
                .jittered_max_age(random)
                .map(|age| Deadline::after(age, now));
            return Self::of(due, None);
        };
        let end = Deadline { mono, wall };
        let unusable = end.earlier(schedule.expiry_margin_of(lifetime), now);
        let mut ahead = schedule.refresh_ahead_of(lifetime, random);
        if let Some(age) = schedule.jittered_max_age(random) {
            ahead = ahead.max(lifetime.saturating_sub(age));
        }
        let due = (!ahead.is_zero()).then(|| unusable.earlier(ahead, now));
        Self::of(due, Some(unusable))
    }

    fn of(due: Option<Deadline>, unusable: Option<Deadline>) -> Self {
        let first = match (due, unusable) {
            (Some(due), Some(unusable)) => Some(due.min(unusable)),
            (due, unusable) => due.or(unusable),
        };
        Self {
            due,
            unusable,
            first,
        }
    }

    /// The same deadlines, but due at `due`.
    pub(crate) fn due_at(self, due: Deadline) -> Self {
        Self::of(Some(due), self.unusable)
    }

    #[inline]
    pub(crate) fn freshness(&self, now: Now) -> Freshness {
        match self.first {
            Some(first) if first.has_passed(now) => self.staleness(now),
            _ => Freshness::Fresh,
        }
    }

    #[cold]
    fn staleness(&self, now: Now) -> Freshness {
        if self.unusable.is_some_and(|at| at.has_passed(now)) {
            Freshness::Expired
        } else if self.due.is_some_and(|at| at.has_passed(now)) {
            Freshness::Due
        } else {
            Freshness::Fresh
        }
    }

    /// Whether the token can become due or unusable with time.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.first.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Now {
        Now {
            mono: Instant::now() + Duration::from_secs(1 << 31),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }
    }

    fn later(now: Now, secs: f64) -> Now {
        let by = Duration::from_secs_f64(secs);
        Now {
            mono: now.mono + by,
            wall: now.wall + by,
        }
    }

    fn expires_after(now: Now, secs: u32) -> Expires {
        let lifetime = Duration::from_secs(secs.into());
        Expires {
            mono: now.mono + lifetime,
            wall: now.wall + lifetime,
            lifetime,
        }
    }

    #[test]
    fn common_lifetimes_on_the_default_schedule() {
        let now = start();
        let schedule = Schedule::default();
        // lifetime, random, still fresh at, due at, still due at, expired at (all in seconds)
        for (lifetime, random, fresh, due, late, expired) in [
            (900, 0.0, 714.9, 715.0, 894.9, 895.0),
            (900, 1.0, 858.9, 859.0, 894.9, 895.0),
            (86_400, 0.0, 86_094.9, 86_095.0, 86_394.9, 86_395.0),
            (1, 0.0, 0.69, 0.7, 0.89, 0.9),
            (2, 1.0, 1.71, 1.72, 1.79, 1.8),
        ] {
            let deadlines =
                Deadlines::new(Some(expires_after(now, lifetime)), &schedule, random, now);
            for (at, expected) in [
                (fresh, Freshness::Fresh),
                (due, Freshness::Due),
                (late, Freshness::Due),
                (expired, Freshness::Expired),
            ] {
                let got = deadlines.freshness(later(now, at));
                assert_eq!(got, expected, "a token of {lifetime} s at {at} s, {random}");
            }
        }
    }

    #[test]
    fn a_token_is_due_at_half_its_lifetime_or_after_seven_days() {
        let now = start();
        let day = 86_400.0;
        let schedule = Schedule::default()
            .refresh_ahead(0.5, Duration::MAX)
            .max_age(Duration::from_secs(7 * 86_400))
            .jitter(0.0);
        for (days, due) in [(15, 7.0), (30, 7.0), (10, 5.0), (2, 1.0)] {
            let deadlines =
                Deadlines::new(Some(expires_after(now, days * 86_400)), &schedule, 0.0, now);
            let before = deadlines.freshness(later(now, due * day - 10.0));
            let then = deadlines.freshness(later(now, due * day));
            assert_eq!(
                (before, then),
                (Freshness::Fresh, Freshness::Due),
                "{days} days"
            );
        }
    }

    #[test]
    fn a_token_of_unknown_lifetime_stays_fresh_until_its_maximum_age() {
        let now = start();
        let never = Deadlines::new(None, &Schedule::default(), 0.5, now);
        assert!(!never.any());
        assert_eq!(never.freshness(later(now, 1e9)), Freshness::Fresh);
        let schedule = Schedule::default()
            .max_age(Duration::from_secs(60))
            .jitter(0.0);
        let aged = Deadlines::new(None, &schedule, 0.5, now);
        assert_eq!(aged.freshness(later(now, 59.0)), Freshness::Fresh);
        assert_eq!(aged.freshness(later(now, 60.0)), Freshness::Due);
    }

    #[test]
    fn a_token_expires_when_either_clock_says_so() {
        let now = start();
        let deadlines = Deadlines::new(
            Some(expires_after(now, 900)),
            &Schedule::default(),
            0.5,
            now,
        );
        let suspended = Now {
            wall: later(now, 3_600.0).wall,
            ..now
        };
        let set_back = Now {
            mono: later(now, 3_600.0).mono,
            wall: now.wall - Duration::from_secs(86_400),
        };
        assert_eq!(deadlines.freshness(suspended), Freshness::Expired);
        assert_eq!(deadlines.freshness(set_back), Freshness::Expired);
    }

    #[test]
    fn a_token_with_a_lifetime_of_zero_is_expired_at_once() {
        let now = start();
        let deadlines = Deadlines::new(Some(expires_after(now, 0)), &Schedule::default(), 0.5, now);
        assert_eq!(deadlines.freshness(now), Freshness::Expired);
    }

    proptest! {
        #[test]
        fn freshness_never_improves_with_time(
            lifetime in 0u32..10_000_000, random in 0.0f64..=1.0, part in 0.0f64..=1.0,
            a in 0.0f64..2e7, b in 0.0f64..2e7,
        ) {
            let now = start();
            let schedule = Schedule::default().refresh_ahead(part, Duration::MAX);
            let deadlines = Deadlines::new(Some(expires_after(now, lifetime)), &schedule, random, now);
            let rank = |at| match deadlines.freshness(later(now, at)) {
                Freshness::Fresh => 0,
                Freshness::Due => 1,
                Freshness::Expired => 2,
            };
            prop_assert!(rank(a.min(b)) <= rank(a.max(b)));
            prop_assert_eq!(rank(f64::from(lifetime) + 1.0), 2);
        }
    }
}
