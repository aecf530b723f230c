//! When the next refresh may start, and which error callers get until then.
//!
//! ```text
//!          failed, transient                     failed otherwise
//!   ┌────────────┐ ◄────────────── ┌──────┐ ──────────────────► ┌────────┐
//!   │ BackingOff │                 │ Open │                     │ Paused │
//!   └────────────┘ ──────────────► └──────┘ ◄────────────────── └────────┘
//!                  time has passed,         its long time has passed,
//!                  success or reset         the source has changed,
//!                                           success or reset
//! ```
//!
//! In every state, `min_interval` holds between the starts of two refreshes: a caller that needs a token waits for it.
//!
//! `Paused` lasts 30 seconds at first and doubles up to 15 minutes, because somebody may correct the cause. If the server
//! has declared the grant dead, it has no end of its own.

mod rejections;

use std::time::Duration;

use tokio::time::Instant;

use self::rejections::Rejections;
use crate::{
    clock::later,
    error::{Recovery, TokenError},
    schedule::Schedule,
};

/// The upper limit of the first backoff.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The upper limit of every backoff. A server's `Retry-After` may be longer.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The upper limit of the first pause.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// The upper limit of every pause. A server's `Retry-After` may be longer.
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How often a source is asked during a pause whether something has changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How often a source is asked after rejections for a token of another process.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// May a refresh start?
#[derive(Debug)]
pub(super) enum Permission {
    /// Yes, after this delay, which is mostly zero.
    After(Duration),
    /// Only if the source says that something has changed. Until then, callers get this error.
    IfChanged(TokenError),
    /// No. Callers that need a token get this error.
    No(TokenError),
}

/// What the last refreshes say about the next.
#[derive(Debug, Default)]
pub(super) struct RefreshThrottle {
    /// Counts the resets. A refresh that started before a reset does not count after it.
    epoch: u32,
    last_start: Option<Instant>,
    last_look: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    after_failure: AfterFailure,
    /// What rejections say about the next refresh.
    pub(super) rejections: Rejections,
}

#[derive(Debug, Default)]
enum AfterFailure {
    #[default]
    Open,
    BackingOff {
        until: Instant,
        error: TokenError,
    },
    Paused {
        /// `None` if the grant is dead.
        until: Option<Instant>,
        check_at: Instant,
        error: TokenError,
        /// The current token was still usable when the refresh failed. So it is tried again as soon as a token is needed.
        while_usable: bool,
        /// It is tried again only when a token is needed.
        when_needed: bool,
    },
}

impl RefreshThrottle {
    /// Whether a refresh may start at `now`. `needed` says that there is no usable token.
    pub(super) fn permits(&self, now: Instant, min_interval: Duration, needed: bool) -> Permission {
        match &self.after_failure {
            AfterFailure::BackingOff { until, error } if *until > now => {
                Permission::No(with_time_left(error, *until, now))
            }
            AfterFailure::Paused {
                until,
                check_at,
                error,
                while_usable,
                when_needed,
            } => {
                let has_ended = until.is_some_and(|until| until <= now);
                if (needed && *while_usable) || (has_ended && (needed || !when_needed)) {
                    return Permission::After(left_of(min_interval, self.last_start, now));
                }
                let error = with_time_left(error, until.unwrap_or(*check_at), now);
                if *check_at <= now {
                    Permission::IfChanged(error)
                } else {
                    Permission::No(error)
                }
            }
            AfterFailure::Open | AfterFailure::BackingOff { .. } => {
                Permission::After(left_of(min_interval, self.last_start, now))
            }
        }
    }

    /// How long until a refresh may replace a rejected token: `min_interval` as long as new tokens help, and longer if not.
    pub(super) fn delay_after_rejection(&self, now: Instant, min_interval: Duration) -> Duration {
        let Some(pause) = self.rejections.pause(min_interval) else {
            return left_of(min_interval, self.last_start, now);
        };
        // Tokens of other processes count as well, or a fleet would hold back less than one process does.
        let since = self.last_start.max(self.rejections.last_token());
        left_of(pause, since, now)
    }

    /// How long until a refresh, or a check for changes, may start that no caller waits for.
    pub(super) fn opens_in(&self, now: Instant, min_interval: Duration) -> Duration {
        let at = match &self.after_failure {
            AfterFailure::Open => None,
            AfterFailure::BackingOff { until, .. } => Some(*until),
            AfterFailure::Paused {
                until: Some(until),
                check_at,
                when_needed: false,
                ..
            } => Some(*until.min(check_at)),
            AfterFailure::Paused { check_at, .. } => Some(*check_at),
        };
        let closed = at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        closed.max(left_of(min_interval, self.last_start, now))
    }

    /// How long refreshes are held back that callers need. `None` if they are not, or if time does not end it.
    pub(super) fn held_for(
        &self,
        now: Instant,
        min_interval: Duration,
        is_rejected: bool,
    ) -> Option<Duration> {
        let until = match &self.after_failure {
            AfterFailure::BackingOff { until, .. } => Some(*until),
            AfterFailure::Paused {
                while_usable: false,
                until,
                ..
            } => Some((*until)?),
            AfterFailure::Open | AfterFailure::Paused { .. } => None,
        };
        let held = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let held = held.max(if is_rejected {
            self.delay_after_rejection(now, min_interval)
        } else {
            left_of(min_interval, self.last_start, now)
        });
        (!held.is_zero()).then_some(held)
    }

    /// A refresh starts. Returns when the one before it started.
    pub(super) fn started(&mut self, now: Instant) -> Option<Instant> {
        self.last_start.replace(now)
    }

    pub(super) fn last_start(&self) -> Option<Instant> {
        self.last_start
    }

    /// A refresh has sent no token request, so it does not count.
    pub(super) fn not_started(&mut self, started_before: Option<Instant>) {
        self.last_start = started_before;
    }

    /// Whether the source may be asked for a token of another process after a rejection.
    pub(super) fn may_look(&mut self, now: Instant) -> bool {
        let may = self
            .last_look
            .is_none_or(|last| last + LOOK_INTERVAL <= now);
        if may {
            self.last_look = Some(now);
        }
        may
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.after_failure = AfterFailure::Open;
    }

    /// A refresh failed with `error`. `random` is from 0 to 1.
    pub(super) fn failed(
        &mut self,
        error: &TokenError,
        now: Instant,
        needed: bool,
        random: f64,
        schedule: &Schedule,
    ) {
        self.failures = match &self.after_failure {
            // A failure while no caller needed a token does not lengthen the first pause of callers that do.
            AfterFailure::Paused {
                while_usable: true, ..
            } if needed => 1,
            _ => self.failures.saturating_add(1),
        };
        let retry_after = error.retry_after().unwrap_or_default();
        let retry_after = retry_after.min(schedule.max_retry_after);
        let paused = |until: Option<Duration>, when_needed: bool| AfterFailure::Paused {
            until: until.map(|wait| later(now, wait.max(retry_after))),
            check_at: later(now, CHECK_INTERVAL),
            error: error.clone(),
            while_usable: !needed && retry_after.is_zero(),
            when_needed,
        };
        let pause = pause(self.failures, random);
        self.after_failure = match error.recovery() {
            Recovery::Soon => AfterFailure::BackingOff {
                until: later(now, backoff(self.failures, random).max(retry_after)),
                error: error.clone(),
            },
            Recovery::Slowly => paused(Some(pause), false),
            Recovery::SlowlyWhenNeeded => paused(Some(pause), !schedule.resend_while_usable),
            Recovery::Never => paused(None, false),
        };
    }

    /// The source was asked whether something has changed since the failure. Nothing has.
    pub(super) fn unchanged(&mut self, now: Instant) {
        if let AfterFailure::Paused { check_at, .. } = &mut self.after_failure {
            *check_at = later(now, CHECK_INTERVAL);
        }
    }

    /// Forgets failures. `min_interval` still holds.
    pub(super) fn reset(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.succeeded();
        self.rejections.forget();
    }

    /// Another session has begun, so that what is known of the one before it does not count.
    pub(super) fn began_anew(&mut self) {
        self.reset();
        self.last_start = None;
        self.last_look = None;
    }

    /// The last failure, if no token came since.
    pub(super) fn error(&self) -> Option<&TokenError> {
        match &self.after_failure {
            AfterFailure::Open => None,
            AfterFailure::BackingOff { error, .. } | AfterFailure::Paused { error, .. } => {
                Some(error)
            }
        }
    }
}

/// What is left of `interval`, which began at `since`.
fn left_of(interval: Duration, since: Option<Instant>, now: Instant) -> Duration {
    since.map_or(Duration::ZERO, |since| {
        interval.saturating_sub(now.saturating_duration_since(since))
    })
}

/// The error with what is left of the time that the server asked for.
fn with_time_left(error: &TokenError, until: Instant, now: Instant) -> TokenError {
    let error = error.clone();
    match error.retry_after() {
        Some(_) => error.with_retry_after(until.saturating_duration_since(now)),
        None => error,
    }
}

/// Backoff with full jitter: random from zero to a limit that doubles with each failure.
fn backoff(failures: u32, random: f64) -> Duration {
    doubled(FIRST_BACKOFF, failures, MAX_BACKOFF).mul_f64(random.clamp(0.0, 1.0))
}

/// A pause with some jitter: from half of a limit to all of it. The limit doubles with each failure.
fn pause(failures: u32, random: f64) -> Duration {
    doubled(FIRST_PAUSE, failures, MAX_PAUSE).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// `first`, doubled with each of `times` but the first, up to `max`.
fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first
        .saturating_mul(1 << times.saturating_sub(1).min(16))
        .min(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TokenErrorKind;

    const MIN_INTERVAL: Duration = Duration::from_secs(1);

    fn down() -> TokenError {
        TokenError::new(TokenErrorKind::Server, "down")
    }

    fn dead() -> TokenError {
        TokenError::new(TokenErrorKind::ReauthRequired, "log in again")
    }

    fn waits(throttle: &RefreshThrottle, now: Instant) -> Option<Duration> {
        match throttle.permits(now, MIN_INTERVAL, true) {
            Permission::After(wait) => Some(wait),
            Permission::No(_) | Permission::IfChanged(_) => None,
        }
    }

    #[test]
    fn backoffs_double_up_to_the_cap() {
        let caps: Vec<u64> = (1..=9).map(|n| backoff(n, 1.0).as_secs()).collect();
        assert_eq!(caps, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff(u32::MAX, 1.0), MAX_BACKOFF);
        assert_eq!(backoff(5, 0.0), Duration::ZERO);
    }

    #[test]
    fn the_minimum_interval_holds_between_any_two_attempts() {
        let now = Instant::now();
        let mut throttle = RefreshThrottle::default();
        assert_eq!(waits(&throttle, now), Some(Duration::ZERO));
        throttle.started(now);
        throttle.succeeded();
        let later = now + Duration::from_millis(400);
        assert_eq!(waits(&throttle, later), Some(Duration::from_millis(600)));
        assert_eq!(waits(&throttle, now + MIN_INTERVAL), Some(Duration::ZERO));
    }

    #[test]
    fn retry_after_wins_over_a_shorter_backoff() {
        let now = Instant::now();
        let mut throttle = RefreshThrottle::default();
        throttle.started(now);
        throttle.failed(
            &down().with_retry_after(Duration::from_secs(600)),
            now,
            true,
            1.0,
            &Schedule::default(),
        );
        assert_eq!(waits(&throttle, now + Duration::from_secs(599)), None);
        assert_eq!(
            waits(&throttle, now + Duration::from_secs(600)),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_dead_grant_is_reported_until_something_changes() {
        let now = Instant::now();
        let mut throttle = RefreshThrottle::default();
        throttle.started(now);
        throttle.failed(&dead(), now, true, 1.0, &Schedule::default());
        assert!(matches!(
            throttle.permits(now, MIN_INTERVAL, true),
            Permission::No(_)
        ));
        let years = now + Duration::from_secs(1 << 28);
        assert!(matches!(
            throttle.permits(years, MIN_INTERVAL, true),
            Permission::IfChanged(_)
        ));
        throttle.reset();
        assert_eq!(waits(&throttle, years), Some(Duration::ZERO));
    }

    #[test]
    fn a_dead_grant_is_sent_once_more_when_a_token_is_needed() {
        let now = Instant::now();
        let mut throttle = RefreshThrottle::default();
        throttle.started(now);
        throttle.failed(&dead(), now, false, 1.0, &Schedule::default());
        let later = now + Duration::from_secs(5);
        assert!(matches!(
            throttle.permits(later, MIN_INTERVAL, false),
            Permission::No(_)
        ));
        assert_eq!(waits(&throttle, later), Some(Duration::ZERO));
        throttle.failed(&dead(), later, true, 1.0, &Schedule::default());
        assert!(matches!(
            throttle.permits(later, MIN_INTERVAL, true),
            Permission::No(_)
        ));
    }

    fn with_recovery(recovery: Recovery) -> TokenError {
        TokenError::new(TokenErrorKind::InvalidResponse, "a page").with_recovery(recovery)
    }

    /// The seconds after which each of `count` failures in a row lets the next refresh start.
    fn pauses(error: &TokenError, random: f64, count: usize) -> Vec<u64> {
        let mut now = Instant::now();
        let mut throttle = RefreshThrottle::default();
        let mut pauses = Vec::new();
        for _ in 0..count {
            throttle.failed(error, now, true, random, &Schedule::default());
            let begin = now;
            while waits(&throttle, now).is_none() {
                now += Duration::from_secs(1);
            }
            pauses.push(now.duration_since(begin).as_secs());
        }
        pauses
    }

    #[test]
    fn pauses_double_from_thirty_seconds_to_fifteen_minutes() {
        let error = with_recovery(Recovery::Slowly);
        let longest = [30, 60, 120, 240, 480, 900, 900];
        assert_eq!(pauses(&error, 1.0, 7), longest);
        let shortest = [15, 30, 60, 120, 240, 450, 450];
        assert_eq!(pauses(&error, 0.0, 7), shortest);
    }

    #[test]
    fn retry_after_is_obeyed_up_to_its_limit() {
        for recovery in [Recovery::Soon, Recovery::Slowly, Recovery::SlowlyWhenNeeded] {
            let asked = |secs| with_recovery(recovery).with_retry_after(Duration::from_secs(secs));
            assert_eq!(pauses(&asked(2_000), 1.0, 1), [2_000], "{recovery:?}");
            assert_eq!(pauses(&asked(1_000_000), 1.0, 1), [3_600], "{recovery:?}");
        }
    }

    #[test]
    fn a_failure_while_the_token_was_usable_does_not_delay_the_first_needed_refresh() {
        for recovery in [
            Recovery::Slowly,
            Recovery::SlowlyWhenNeeded,
            Recovery::Never,
        ] {
            let now = Instant::now();
            let mut throttle = RefreshThrottle::default();
            for _ in 0..5 {
                throttle.failed(
                    &with_recovery(recovery),
                    now,
                    false,
                    1.0,
                    &Schedule::default(),
                );
            }
            assert_eq!(waits(&throttle, now), Some(Duration::ZERO), "{recovery:?}");
            throttle.failed(
                &with_recovery(recovery),
                now,
                true,
                1.0,
                &Schedule::default(),
            );
            assert_eq!(waits(&throttle, now), None, "{recovery:?}");
            if recovery != Recovery::Never {
                // The pause is that of a first failure again.
                let then = now + Duration::from_secs(30);
                assert_eq!(waits(&throttle, then), Some(Duration::ZERO), "{recovery:?}");
            }
        }
    }

    #[test]
    fn after_a_response_that_may_hide_a_rotation_nothing_is_sent_while_the_token_is_usable() {
        let now = Instant::now();
        let day = now + Duration::from_secs(86_400);
        let unneeded = |schedule: &Schedule| {
            let mut throttle = RefreshThrottle::default();
            let error = with_recovery(Recovery::SlowlyWhenNeeded);
            throttle.failed(&error, now, false, 1.0, schedule);
            throttle.permits(day, MIN_INTERVAL, false)
        };
        // The store may still be looked at.
        assert!(matches!(
            unneeded(&Schedule::default()),
            Permission::IfChanged(_)
        ));
        let resending = Schedule::default().resend_while_usable(true);
        assert!(matches!(unneeded(&resending), Permission::After(_)));
    }
}
