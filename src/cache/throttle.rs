//! When the next refresh may start, and which error callers get until then.
//!
//! ```text
//!            failed, transient                        failed, permanent
//!   ┌────────────┐ ◄───────────────  ┌──────┐  ───────────────► ┌───────────┐
//!   │ BackingOff │                   │ Open │                   │ Permanent │
//!   └────────────┘  ───────────────► └──────┘  ◄─────────────── └───────────┘
//!                    time has passed,           something has changed,
//!                    success or reset           success or reset
//! ```
//!
//! In every state, `min_interval` holds between the starts of two refreshes: a caller that needs a token waits for it.

use std::time::Duration;

use tokio::time::Instant;

use crate::{clock::later, error::TokenError};

/// The upper limit of the first backoff.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The upper limit of every backoff. A server's `Retry-After` may be longer.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A token that is rejected within this time was rejected as soon as it was issued.
const REJECTED_AT_ONCE: Duration = Duration::from_secs(10);
/// How often a source is asked whether something has changed since a permanent failure.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

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
    /// Failures in a row.
    failures: u32,
    after_failure: AfterFailure,
    /// Refreshes in a row whose token did not help.
    ineffective: u32,
}

#[derive(Debug, Default)]
enum AfterFailure {
    #[default]
    Open,
    BackingOff {
        until: Instant,
        error: TokenError,
    },
    /// Time alone does not help.
    Permanent {
        check_at: Instant,
        error: TokenError,
        /// The current token was still usable when the refresh failed.
        while_usable: bool,
    },
}

impl RefreshThrottle {
    /// Whether a refresh may start at `now`. `needed` says that there is no usable token.
    pub(super) fn permits(&self, now: Instant, min_interval: Duration, needed: bool) -> Permission {
        match &self.after_failure {
            AfterFailure::BackingOff { until, error } if *until > now => {
                return Permission::No(with_time_left(error, *until, now));
            }
            // A server may reject a refresh because the token is still fresh. It is tried again once the token is needed.
            AfterFailure::Permanent {
                while_usable: true, ..
            } if needed => {}
            AfterFailure::Permanent {
                check_at, error, ..
            } => {
                let error = with_time_left(error, *check_at, now);
                return if *check_at <= now {
                    Permission::IfChanged(error)
                } else {
                    Permission::No(error)
                };
            }
            AfterFailure::Open | AfterFailure::BackingOff { .. } => {}
        }
        Permission::After(self.left_of(min_interval, now))
    }

    /// How long until a refresh may replace a rejected token: `min_interval` as long as new tokens help, and twice as long
    /// with each one that does not.
    pub(super) fn delay_after_rejection(&self, now: Instant, min_interval: Duration) -> Duration {
        let interval = match self.ineffective {
            0 | 1 => min_interval,
            n => FIRST_BACKOFF
                .saturating_mul(1 << (n - 1).min(16))
                .min(MAX_BACKOFF)
                .max(min_interval),
        };
        self.left_of(interval, now)
    }

    /// Whether several refreshes in a row did not help.
    pub(super) fn is_ineffective(&self) -> bool {
        self.ineffective > 1
    }

    fn left_of(&self, interval: Duration, now: Instant) -> Duration {
        match self.last_start {
            Some(start) => interval.saturating_sub(now.saturating_duration_since(start)),
            None => Duration::ZERO,
        }
    }

    /// How long until a refresh may start that no caller waits for.
    pub(super) fn opens_in(&self, now: Instant, min_interval: Duration) -> Duration {
        let closed = match &self.after_failure {
            AfterFailure::Open => Duration::ZERO,
            AfterFailure::BackingOff { until: at, .. }
            | AfterFailure::Permanent { check_at: at, .. } => at.saturating_duration_since(now),
        };
        closed.max(self.left_of(min_interval, now))
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.last_start = Some(now);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.after_failure = AfterFailure::Open;
    }

    /// A refresh failed with `error`. `random` is from 0 to 1.
    pub(super) fn failed(&mut self, error: &TokenError, now: Instant, needed: bool, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let retry_after = error.retry_after().unwrap_or_default();
        let error = error.clone();
        self.after_failure = if error.is_transient() {
            let wait = backoff(self.failures, random).max(retry_after);
            let until = later(now, wait);
            AfterFailure::BackingOff { until, error }
        } else {
            AfterFailure::Permanent {
                check_at: later(now, CHECK_INTERVAL.max(retry_after)),
                error,
                while_usable: !needed,
            }
        };
    }

    /// The source was asked whether something has changed since a permanent failure. Nothing has.
    pub(super) fn unchanged(&mut self, now: Instant) {
        match &mut self.after_failure {
            AfterFailure::Open => {}
            AfterFailure::BackingOff { until: at, .. }
            | AfterFailure::Permanent { check_at: at, .. } => *at = later(now, CHECK_INTERVAL),
        }
    }

    /// A new token did not help: it was rejected before it was ever accepted, or is the one that it was to replace.
    pub(super) fn ineffective(&mut self, now: Instant) {
        let has_lasted = self
            .last_start
            .is_none_or(|start| start + REJECTED_AT_ONCE < now);
        self.ineffective = if has_lasted {
            0
        } else {
            self.ineffective.saturating_add(1)
        };
    }

    /// A new token helped after a rejection, or replaced one that was due.
    pub(super) fn effective(&mut self) {
        self.ineffective = 0;
    }

    /// Forgets failures. `min_interval` still holds.
    pub(super) fn reset(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.succeeded();
        self.effective();
    }

    /// The last failure, if no token came since.
    pub(super) fn error(&self) -> Option<&TokenError> {
        match &self.after_failure {
            AfterFailure::Open => None,
            AfterFailure::BackingOff { error, .. } | AfterFailure::Permanent { error, .. } => {
                Some(error)
            }
        }
    }
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
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_BACKOFF
        .saturating_mul(1 << doublings)
        .min(MAX_BACKOFF)
        .mul_f64(random.clamp(0.0, 1.0))
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
        );
        assert_eq!(waits(&throttle, now + Duration::from_secs(599)), None);
        assert_eq!(
            waits(&throttle, now + Duration::from_secs(600)),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_permanent_failure_is_answered_until_something_changes() {
        let now = Instant::now();
        let mut throttle = RefreshThrottle::default();
        throttle.started(now);
        throttle.failed(&dead(), now, true, 1.0);
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
    fn a_permanent_failure_while_the_token_was_usable_is_tried_once_more_when_a_token_is_needed() {
        let now = Instant::now();
        let mut throttle = RefreshThrottle::default();
        throttle.started(now);
        throttle.failed(&dead(), now, false, 1.0);
        let later = now + Duration::from_secs(5);
        assert!(matches!(
            throttle.permits(later, MIN_INTERVAL, false),
            Permission::No(_)
        ));
        assert_eq!(waits(&throttle, later), Some(Duration::ZERO));
        throttle.failed(&dead(), later, true, 1.0);
        assert!(matches!(
            throttle.permits(later, MIN_INTERVAL, true),
            Permission::No(_)
        ));
    }

    #[test]
    fn refreshes_that_do_not_help_start_further_and_further_apart() {
        let now = Instant::now();
        let mut throttle = RefreshThrottle::default();
        throttle.started(now);
        assert_eq!(
            throttle.delay_after_rejection(now, MIN_INTERVAL),
            MIN_INTERVAL
        );
        throttle.ineffective(now);
        assert_eq!(
            throttle.delay_after_rejection(now, MIN_INTERVAL),
            MIN_INTERVAL
        );
        let holds: Vec<u64> = (0..8)
            .map(|_| {
                throttle.ineffective(now);
                assert!(throttle.is_ineffective());
                throttle.delay_after_rejection(now, MIN_INTERVAL).as_secs()
            })
            .collect();
        assert_eq!(holds, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(
            throttle.delay_after_rejection(now + MAX_BACKOFF, MIN_INTERVAL),
            Duration::ZERO
        );
        throttle.effective();
        assert_eq!(
            throttle.delay_after_rejection(now, MIN_INTERVAL),
            MIN_INTERVAL
        );
        throttle.ineffective(now);
        throttle.ineffective(now);
        throttle.ineffective(now + 2 * MAX_BACKOFF);
        assert_eq!(
            throttle.delay_after_rejection(now, MIN_INTERVAL),
            MIN_INTERVAL,
            "a token that lasted starts the count again"
        );
    }
}
