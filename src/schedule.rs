//! [`Schedule`]: when a token is renewed.

use std::time::Duration;

use crate::clock::AGES;

/// Tokens of short life would never be usable under a fixed margin: it is never more than this part of the lifetime.
const MARGIN_PART: u32 = 10;

/// When a token is renewed, and how soon again.
///
/// Three thresholds that are easily mixed up stay apart:
///
/// - *due*: from here on it is renewed behind the callers' backs, who go on with the current one
///   ([`refresh_ahead`](Schedule::refresh_ahead), [`max_age`](Schedule::max_age));
/// - *unusable*: from here on callers wait for a new one ([`expiry_margin`](Schedule::expiry_margin));
/// - *attempt floor*: how soon after one attempt the next may start, whatever the reason
///   ([`min_interval`](Schedule::min_interval)).
///
/// A token of unknown lifetime is used until it is rejected, or for as long as `max_age` says.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::Schedule;
///
/// // A refresh token that dies of idleness after 30 days, access tokens of 15 days:
/// let schedule = Schedule::default()
///     .max_age(Duration::from_secs(7 * 86_400))
///     .background_refresh(true);
/// # let _ = schedule;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Schedule {
    pub(crate) ahead_part: f64,
    pub(crate) ahead_at_most: Duration,
    pub(crate) after: Option<Duration>,
    pub(crate) margin: Duration,
    pub(crate) jitter: f64,
    pub(crate) min_interval: Duration,
    pub(crate) background_refresh: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            ahead_part: 0.2,
            ahead_at_most: Duration::from_secs(300),
            after: None,
            margin: Duration::from_secs(5),
            jitter: 0.8,
            min_interval: Duration::from_secs(1),
            background_refresh: false,
        }
    }
}

impl Schedule {
    /// How long before it becomes unusable a token is due: `part` of its lifetime (from 0 to 1), but `at_most` so long.
    ///
    /// Default: the last fifth, at most 5 minutes. A `part` of 0 renews nothing ahead of need.
    pub fn refresh_ahead(mut self, part: f64, at_most: Duration) -> Self {
        self.ahead_part = unit(part);
        self.ahead_at_most = at_most;
        self
    }

    /// A token is also due when it is this old, however long it would live.
    ///
    /// Default: no such limit.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.after = Some(age.min(AGES));
        self
    }

    /// How long before its end a token is no longer sent, for the sake of requests on their way and clocks that differ.
    ///
    /// Default: 5 seconds. It is never more than a tenth of the token's lifetime.
    pub fn expiry_margin(mut self, before_end: Duration) -> Self {
        self.margin = before_end;
        self
    }

    /// The random part (from 0 to 1) of the window of [`refresh_ahead`](Schedule::refresh_ahead), so that a thousand
    /// replicas do not refresh in the same second; ages of [`max_age`](Schedule::max_age) are shortened by
    /// up to a tenth of it.
    ///
    /// Default: 0.8, so a window of 5 minutes opens anywhere from 5 minutes to 1 minute before the token is unusable.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = unit(part);
        self
    }

    /// How soon after the start of one attempt the next may start, also if the server rejects what it has just issued,
    /// or issues tokens that are already expired. Who needs a token sooner waits; but whose token is rejected so early that
    /// the wait would exceed [`max_wait`](crate::TokenCacheBuilder::max_wait) gets the server's own answer at once.
    ///
    /// Default: 1 second.
    pub fn min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval.min(AGES);
        self
    }

    /// Whether tokens are renewed without any traffic, until the last handle of the cache is dropped.
    ///
    /// It begins when the cache is built inside a Tokio runtime, else with the first request. Default: off, but on in
    /// the presets of vendors whose refresh tokens die of idleness.
    pub fn background_refresh(mut self, on: bool) -> Self {
        self.background_refresh = on;
        self
    }

    /// How long before its end a token of `lifetime` is no longer sent.
    pub(crate) fn margin_of(&self, lifetime: Duration) -> Duration {
        self.margin.min(lifetime / MARGIN_PART)
    }

    /// How long before it is unusable a token of `lifetime` is due; `random` is from 0 to 1.
    pub(crate) fn ahead_of(&self, lifetime: Duration, random: f64) -> Duration {
        let window = lifetime.mul_f64(self.ahead_part).min(self.ahead_at_most);
        window.mul_f64(1.0 - self.jitter * random)
    }

    /// The age at which a token is due; `random` is from 0 to 1.
    pub(crate) fn age_due(&self, random: f64) -> Option<Duration> {
        self.after
            .map(|age| age.mul_f64(1.0 - self.jitter * random / 10.0))
    }
}

/// What is no number counts as nothing.
fn unit(part: f64) -> f64 {
    if part.is_nan() {
        0.0
    } else {
        part.clamp(0.0, 1.0)
    }
}
