//! When the next attempt may start, and what callers are told until then.
//!
//! ```text
//!                         a failure that time may mend
//!           ┌──── open ◄──────────────── backing off: until then, its error
//!  started  │      ▲  ──────────────────►
//!           ▼      │
//!      floor: who needs a token waits    a failure that time won't mend
//!                  │  ──────────────────► shut: its error, until a probe of the source,
//!                  └───────────────────── a reset, or a token says otherwise
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::{clock::later, error::TokenError};

/// The first backoff is random in up to this.
const FIRST: Duration = Duration::from_secs(1);
/// No backoff of our own is longer than this. What a server asks for may be.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// A token that is rejected within this time was rejected as soon as it was issued.
const SOON: Duration = Duration::from_secs(10);
/// How often a source is asked whether a lasting failure has been has_changed.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// May an attempt start?
#[derive(Debug)]
pub(crate) enum Admission {
    /// Yes, after this long; mostly zero.
    After(Duration),
    /// No; this is the answer to whoever cannot go on without.
    Rejected(TokenError),
    /// As `Rejected`, but the source may be asked whether something has changed.
    Probe(TokenError),
}

/// What the past attempts say about the next.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Counts the resets. What began before one says nothing about what comes after it.
    epoch: u32,
    last_start: Option<Instant>,
    failures: u32,
    closed: Option<Closed>,
    fruitless: u32,
}

#[derive(Debug)]
struct Closed {
    until: Instant,
    error: TokenError,
    /// Time alone won't mend it.
    lasting: bool,
    /// It failed while the current token was still good, so nobody has needed it yet.
    unneeded: bool,
}

impl Gate {
    /// Whether an attempt may start at `now`. `needed` says that there is no usable token.
    pub(crate) fn admit(&self, now: Instant, floor: Duration, needed: bool) -> Admission {
        match &self.closed {
            // A server may reject to renew what is still fresh. That is no reason not to try when it matters.
            Some(closed) if closed.lasting && closed.unneeded && needed => {}
            Some(closed) if closed.lasting && closed.until <= now => {
                return Admission::Probe(closed.told(now));
            }
            Some(closed) if closed.lasting || closed.until > now => {
                return Admission::Rejected(closed.told(now));
            }
            _ => {}
        }
        Admission::After(self.floor_left(now, floor))
    }

    /// Whether a rejection of the current token may cause an attempt at `now`; otherwise, when.
    ///
    /// As long as new tokens help, only the floor stands between attempts. Tokens that turn out not to help double the
    /// distance each.
    pub(crate) fn admit_rejection(
        &self,
        now: Instant,
        floor: Duration,
    ) -> Result<Duration, Duration> {
        let left = self.hold_left(now, floor);
        if self.fruitless <= 1 || left.is_zero() {
            Ok(left)
        } else {
            Err(left)
        }
    }

    /// How long until fruitless refreshes are repeated, whatever the floor.
    pub(crate) fn hold_left(&self, now: Instant, floor: Duration) -> Duration {
        let hold = match self.fruitless {
            0 | 1 => floor,
            n => FIRST
                .saturating_mul(1 << (n - 1).min(16))
                .min(LONGEST)
                .max(floor),
        };
        self.floor_left(now, hold)
    }

    fn floor_left(&self, now: Instant, floor: Duration) -> Duration {
        match self.last_start {
            Some(start) => floor.saturating_sub(now.saturating_duration_since(start)),
            None => Duration::ZERO,
        }
    }

    /// When the gate opens again for an attempt that nobody waits for.
    pub(crate) fn opens_in(&self, now: Instant, floor: Duration) -> Duration {
        let closed = self.closed.as_ref().map_or(Duration::ZERO, |closed| {
            closed.until.saturating_duration_since(now)
        });
        closed.max(self.floor_left(now, floor))
    }

    pub(crate) fn started(&mut self, now: Instant) {
        self.last_start = Some(now);
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.closed = None;
    }

    /// An attempt failed with `error`; `random` is from 0 to 1.
    pub(crate) fn failed(&mut self, error: &TokenError, now: Instant, needed: bool, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let lasting = !error.is_transient();
        let own = if lasting {
            PROBE_EVERY
        } else {
            backoff(self.failures, random)
        };
        let wait = error.retry_after().unwrap_or_default().max(own);
        self.closed = Some(Closed {
            until: later(now, wait),
            error: error.clone(),
            lasting,
            unneeded: !needed,
        });
    }

    /// The source was asked whether the lasting failure has been has_changed, and it has not.
    pub(crate) fn not_mended(&mut self, now: Instant) {
        if let Some(closed) = &mut self.closed {
            closed.until = later(now, PROBE_EVERY);
        }
    }

    /// A token did not help: it was rejected before it was ever accepted, or is the one that was to be replaced.
    pub(crate) fn fruitless(&mut self, now: Instant) {
        let lasted = self.last_start.is_none_or(|start| start + SOON < now);
        self.fruitless = if lasted {
            0
        } else {
            self.fruitless.saturating_add(1)
        };
    }

    /// A token helped after a rejection, or another came when its time had come.
    pub(crate) fn fruitful(&mut self) {
        self.fruitless = 0;
    }

    /// Forgets what has failed. The floor stays.
    pub(crate) fn reset(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.succeeded();
        self.fruitful();
    }

    /// The failure that is remembered, if any.
    pub(crate) fn error(&self) -> Option<&TokenError> {
        self.closed.as_ref().map(|closed| &closed.error)
    }
}

impl Closed {
    /// The error as it is told by now: what is left of the pause that the server asked for.
    fn told(&self, now: Instant) -> TokenError {
        match self.error.retry_after() {
            Some(_) => {
                let left = self.until.saturating_duration_since(now);
                self.error.clone().with_retry_after(left)
            }
            None => self.error.clone(),
        }
    }
}

/// Full jitter: anywhere from nothing to the cap, which doubles with each failure.
fn backoff(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST
        .saturating_mul(1 << doublings)
        .min(LONGEST)
        .mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TokenErrorKind;

    const FLOOR: Duration = Duration::from_secs(1);

    fn down() -> TokenError {
        TokenError::new(TokenErrorKind::Server, "down")
    }

    fn dead() -> TokenError {
        TokenError::new(TokenErrorKind::ReauthRequired, "log in again")
    }

    fn waits(gate: &Gate, now: Instant) -> Option<Duration> {
        match gate.admit(now, FLOOR, true) {
            Admission::After(wait) => Some(wait),
            Admission::Rejected(_) | Admission::Probe(_) => None,
        }
    }

    #[test]
    fn backoffs_double_up_to_the_cap() {
        let caps: Vec<u64> = (1..=9).map(|n| backoff(n, 1.0).as_secs()).collect();
        assert_eq!(caps, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff(u32::MAX, 1.0), LONGEST);
        assert_eq!(backoff(5, 0.0), Duration::ZERO);
    }

    #[test]
    fn the_floor_stands_between_any_two_attempts() {
        let now = Instant::now();
        let mut gate = Gate::default();
        assert_eq!(waits(&gate, now), Some(Duration::ZERO));
        gate.started(now);
        gate.succeeded();
        let later = now + Duration::from_millis(400);
        assert_eq!(waits(&gate, later), Some(Duration::from_millis(600)));
        assert_eq!(waits(&gate, now + FLOOR), Some(Duration::ZERO));
    }

    #[test]
    fn what_the_server_asks_for_wins_over_a_shorter_backoff() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.started(now);
        gate.failed(
            &down().with_retry_after(Duration::from_secs(600)),
            now,
            true,
            1.0,
        );
        assert_eq!(waits(&gate, now + Duration::from_secs(599)), None);
        assert_eq!(
            waits(&gate, now + Duration::from_secs(600)),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_lasting_failure_is_answered_until_something_changes() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.started(now);
        gate.failed(&dead(), now, true, 1.0);
        assert!(matches!(
            gate.admit(now, FLOOR, true),
            Admission::Rejected(_)
        ));
        let years = now + Duration::from_secs(1 << 28);
        assert!(matches!(
            gate.admit(years, FLOOR, true),
            Admission::Probe(_)
        ));
        gate.reset();
        assert_eq!(waits(&gate, years), Some(Duration::ZERO));
    }

    #[test]
    fn a_lasting_failure_that_nobody_needed_is_tried_once_more_when_it_matters() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.started(now);
        gate.failed(&dead(), now, false, 1.0);
        let later = now + Duration::from_secs(5);
        assert!(matches!(
            gate.admit(later, FLOOR, false),
            Admission::Rejected(_)
        ));
        assert_eq!(waits(&gate, later), Some(Duration::ZERO));
        gate.failed(&dead(), later, true, 1.0);
        assert!(matches!(
            gate.admit(later, FLOOR, true),
            Admission::Rejected(_)
        ));
    }

    #[test]
    fn tokens_that_do_not_help_are_fetched_ever_more_rarely() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.started(now);
        assert_eq!(gate.admit_rejection(now, FLOOR), Ok(FLOOR));
        gate.fruitless(now);
        assert_eq!(gate.admit_rejection(now, FLOOR), Ok(FLOOR));
        let holds: Vec<u64> = (0..8)
            .map(|_| {
                gate.fruitless(now);
                gate.admit_rejection(now, FLOOR).unwrap_err().as_secs()
            })
            .collect();
        assert_eq!(holds, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(
            gate.admit_rejection(now + LONGEST, FLOOR),
            Ok(Duration::ZERO)
        );
        gate.fruitful();
        assert_eq!(gate.admit_rejection(now, FLOOR), Ok(FLOOR));
        gate.fruitless(now);
        gate.fruitless(now);
        gate.fruitless(now + 2 * LONGEST);
        assert_eq!(
            gate.hold_left(now, FLOOR),
            FLOOR,
            "a token that lasted begins the count anew"
        );
    }
}
