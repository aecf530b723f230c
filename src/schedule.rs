//! [`Schedule`]: when a token is refreshed.

use std::time::Duration;

use crate::clock::MAX_DURATION;

/// The floor of [`Schedule::min_interval`]. A refresh takes about as long at a fast server, so less limits nothing.
const MIN_INTERVAL_FLOOR: Duration = Duration::from_millis(100);

/// The expiry margin is never more than this part of the lifetime, or a short-lived token would never be usable.
const MAX_MARGIN_DIVISOR: u32 = 10;

/// The jitter of [`Schedule::max_age`] is this part of the jitter of [`Schedule::refresh_ahead`].
const MAX_AGE_JITTER_DIVISOR: f64 = 10.0;

/// When a token is refreshed, and how long to wait between attempts.
///
/// It sets three separate thresholds:
///
/// | Threshold | From then on | Set by | Default |
/// |---|---|---|---|
/// | *due* | the token is refreshed in the background, and requests still use it | [`refresh_ahead`](Schedule::refresh_ahead), [`max_age`](Schedule::max_age) | the last fifth of its lifetime, at most 5 minutes |
/// | *unusable* | callers wait for a new token | [`expiry_margin`](Schedule::expiry_margin) | 5 seconds before its end |
/// | *attempt interval* | another attempt may start | [`min_interval`](Schedule::min_interval) | 1 second after the last one started |
///
/// A token of unknown lifetime is used until it is rejected, or until it is as old as `max_age`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::Schedule;
///
/// // The refresh token expires after 30 days without use, and access tokens live for 15 days.
/// let schedule = Schedule::default()
///     .max_age(Duration::from_secs(7 * 86_400))
///     .background_refresh(true);
/// # let _ = schedule;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Schedule {
    refresh_ahead_fraction: f64,
    refresh_ahead_max: Duration,
    max_age: Option<Duration>,
    expiry_margin: Duration,
    jitter: f64,
    pub(crate) min_interval: Duration,
    pub(crate) background_refresh: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            refresh_ahead_fraction: 0.2,
            refresh_ahead_max: Duration::from_secs(300),
            max_age: None,
            expiry_margin: Duration::from_secs(5),
            jitter: 0.8,
            min_interval: Duration::from_secs(1),
            background_refresh: false,
        }
    }
}

impl Schedule {
    /// How long before it becomes unusable a token is due: `fraction` of its lifetime (from 0 to 1), at most `max`.
    ///
    /// Default: a fraction of 0.2, at most 5 minutes. With a fraction of 0, no token is refreshed before it is unusable.
    pub fn refresh_ahead(mut self, fraction: f64, max: Duration) -> Self {
        self.refresh_ahead_fraction = clamp_fraction(fraction);
        self.refresh_ahead_max = max;
        self
    }

    /// The age at which a token is due, even if it lives longer.
    ///
    /// Default: none.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age.min(MAX_DURATION));
        self
    }

    /// How long before its end a token is no longer sent.
    ///
    /// The margin allows for the time that a request travels, and for clocks that differ. It is never more than a tenth of
    /// the token's lifetime. Default: 5 seconds.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.expiry_margin = margin;
        self
    }

    /// The random part (from 0 to 1) of the time that [`refresh_ahead`](Schedule::refresh_ahead) sets.
    ///
    /// It keeps many processes from refreshing in the same second. [`max_age`](Schedule::max_age) is shortened by up to a
    /// tenth of this part.
    ///
    /// Default: 0.8. So a token that is refreshed 5 minutes ahead is due at a random time between 5 minutes and 1 minute
    /// before it becomes unusable.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = clamp_fraction(fraction);
        self
    }

    /// How long after the start of one attempt the next one may start.
    ///
    /// It also limits the attempts when the server rejects the tokens that it has just issued, or issues tokens that have
    /// already expired. Callers that need a token sooner wait. If a rejection comes so early that the wait would exceed
    /// [`max_wait`](crate::TokenCacheBuilder::max_wait), the caller gets the server's own response at once.
    ///
    /// Default: 1 second. At least 100 milliseconds: a shorter interval is raised to that, so that no setting makes the
    /// background refresh send requests without a pause.
    pub fn min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval.clamp(MIN_INTERVAL_FLOOR, MAX_DURATION);
        self
    }

    /// Whether due tokens are refreshed when there are no requests, until the last handle of the cache is dropped.
    ///
    /// It starts when the cache is built inside a Tokio runtime, otherwise with the first request. Default: no. The
    /// presets of vendors whose refresh tokens expire without use turn it on.
    pub fn background_refresh(mut self, on: bool) -> Self {
        self.background_refresh = on;
        self
    }

    /// How long before its end a token of `lifetime` is no longer sent.
    pub(crate) fn expiry_margin_of(&self, lifetime: Duration) -> Duration {
        self.expiry_margin.min(lifetime / MAX_MARGIN_DIVISOR)
    }

    /// How long before it is unusable a token of `lifetime` is due. `random` is from 0 to 1.
    pub(crate) fn refresh_ahead_of(&self, lifetime: Duration, random: f64) -> Duration {
        let ahead = lifetime.mul_f64(self.refresh_ahead_fraction);
        ahead
            .min(self.refresh_ahead_max)
            .mul_f64(1.0 - self.jitter * random)
    }

    /// The age at which a token is due. `random` is from 0 to 1.
    pub(crate) fn jittered_max_age(&self, random: f64) -> Option<Duration> {
        let age = self.max_age?;
        Some(age.mul_f64(1.0 - self.jitter * random / MAX_AGE_JITTER_DIVISOR))
    }
}

fn clamp_fraction(fraction: f64) -> f64 {
    if fraction.is_nan() {
        0.0
    } else {
        fraction.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attempt_interval_has_a_floor() {
        let interval = |set| Schedule::default().min_interval(set).min_interval;
        assert_eq!(interval(Duration::ZERO), MIN_INTERVAL_FLOOR);
        assert_eq!(interval(Duration::from_secs(2)), Duration::from_secs(2));
    }
}
