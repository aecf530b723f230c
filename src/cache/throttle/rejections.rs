//! [`Rejections`]: whether new tokens help, as far as rejections tell.

use std::time::Duration;

use tokio::time::Instant;

use super::{FIRST_BACKOFF, MAX_BACKOFF, MAX_PAUSE, doubled};

/// A token that was never accepted, and is rejected within this time, did not help.
const REJECTED_AT_ONCE: Duration = Duration::from_secs(10);
/// A token that is rejected within so many times `min_interval` is rejected early, whether or not the API had accepted it.
/// For tokens of short life it is a fortieth of their lifetime.
const EARLY_INTERVALS: u32 = 5;
/// What `min_interval` counts as in these rules if it is shorter.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);
/// How many tokens in a row may be rejected early before refreshes start further and further apart.
const EARLY_BUDGET: u32 = 10;

/// Counts the tokens in a row that did not help, or not for long.
#[derive(Debug, Default)]
pub(in crate::cache) struct Rejections {
    /// When the current token came, from a token request or from a store.
    last_token: Option<Instant>,
    /// Up to which age a rejection of it is early.
    early_age: Duration,
    last_rejection: Option<Instant>,
    /// Tokens in a row that did not help.
    without_help: u32,
    /// Tokens in a row that were rejected early. Most of them were accepted as well, as by an API of several servers of which
    /// one is not well.
    early: u32,
    /// The current token is one of them.
    is_counted_as_early: bool,
}

impl Rejections {
    /// How long the next refresh that replaces a rejected token starts after the one before. `None` if new tokens help.
    ///
    /// With each token that does not help it doubles, up to [`MAX_BACKOFF`]. Tokens that are rejected early have a budget.
    /// When that is used up, it doubles with each of them, up to [`MAX_PAUSE`].
    pub(super) fn pause(&self, min_interval: Duration) -> Option<Duration> {
        let without_help =
            (self.without_help > 1).then(|| doubled(FIRST_BACKOFF, self.without_help, MAX_BACKOFF));
        let over = self.early.saturating_sub(EARLY_BUDGET);
        let early = (over > 0).then(|| {
            let first = min_interval.max(LEAST_INTERVAL).saturating_mul(2);
            doubled(first, over, MAX_PAUSE)
        });
        Some(without_help.max(early)?.max(min_interval))
    }

    /// Whether refreshes are held back, because new tokens do not help.
    pub(in crate::cache) fn hold_back(&self) -> bool {
        self.pause(Duration::ZERO).is_some()
    }

    pub(super) fn last_token(&self) -> Option<Instant> {
        self.last_token
    }

    /// A new token is in use, from a token request or from a store.
    pub(in crate::cache) fn token_came(
        &mut self,
        now: Instant,
        min_interval: Duration,
        lifetime: Option<Duration>,
    ) {
        self.last_token = Some(now);
        let early = min_interval
            .max(LEAST_INTERVAL)
            .saturating_mul(EARLY_INTERVALS);
        self.early_age = lifetime.map_or(early, |all| early.min(all / 40));
        self.is_counted_as_early = false;
    }

    /// The API rejected the current token, for the first time since it came or was accepted again.
    pub(in crate::cache) fn rejected(&mut self, now: Instant, was_accepted: bool) {
        if !was_accepted {
            self.without_help = if self.has_lasted(now, REJECTED_AT_ONCE) {
                0
            } else {
                self.without_help.saturating_add(1)
            };
        }
        if self.has_lasted(now, self.early_age) {
            self.early = 0;
        } else if !self.is_counted_as_early {
            self.early = self.early.saturating_add(1);
            self.is_counted_as_early = true;
        }
        self.last_rejection = Some(now);
    }

    /// The API rejected the current token once more.
    pub(in crate::cache) fn rejected_again(&mut self, now: Instant) {
        self.last_rejection = Some(now);
    }

    /// A request that was sent again with the new token was not rejected, or the API accepted the token after all.
    pub(in crate::cache) fn token_helped(&mut self) {
        self.without_help = 0;
    }

    /// A refresh returned the token that it was to replace.
    pub(in crate::cache) fn same_token_came(&mut self) {
        self.without_help = self.without_help.saturating_add(1);
    }

    /// A token that is not rejected was replaced when it was due.
    pub(in crate::cache) fn replaced_when_due(&mut self, now: Instant) {
        self.without_help = 0;
        if self.has_lasted(now, self.early_age) {
            self.early = 0;
        }
    }

    pub(super) fn forget(&mut self) {
        self.without_help = 0;
        self.early = 0;
    }

    /// Whether the current token came more than `age` ago, and was not rejected since then. One that is rejected and accepted
    /// by turns does not last.
    fn has_lasted(&self, now: Instant, age: Duration) -> bool {
        let since = self.last_token.max(self.last_rejection);
        since.is_none_or(|since| since + age < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_INTERVAL: Duration = Duration::from_secs(1);
    const EARLY: Duration = Duration::from_secs(5);

    /// How long each of some refreshes waits if the token before it is rejected as soon as it came.
    fn holds(rejections: &mut Rejections, now: Instant, was_accepted: bool) -> Vec<u64> {
        let next = |_| {
            rejections.token_came(now, MIN_INTERVAL, None);
            rejections.rejected(now, was_accepted);
            rejections
                .pause(MIN_INTERVAL)
                .unwrap_or(MIN_INTERVAL)
                .as_secs()
        };
        (0..22).map(next).collect()
    }

    #[test]
    fn refreshes_that_do_not_help_start_further_and_further_apart() {
        let now = Instant::now();
        let mut rejections = Rejections::default();
        let holds = holds(&mut rejections, now, false);
        assert_eq!(holds[..10], [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn tokens_that_are_accepted_and_rejected_early_have_a_budget() {
        let now = Instant::now();
        let mut rejections = Rejections::default();
        let holds = holds(&mut rejections, now, true);
        assert_eq!(holds[..10], [1; 10]);
        let at_most_a_quarter_of_an_hour = [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900];
        assert_eq!(holds[10..], at_most_a_quarter_of_an_hour);
    }

    #[test]
    fn a_token_counts_once_however_often_it_is_rejected_and_accepted() {
        let now = Instant::now();
        let mut rejections = Rejections::default();
        rejections.token_came(now, MIN_INTERVAL, None);
        for _ in 0..100 {
            rejections.rejected(now, true);
            rejections.token_helped();
        }
        assert!(!rejections.hold_back());
    }

    #[test]
    fn a_token_that_lasted_is_replaced_at_once() {
        let now = Instant::now();
        let later = now + EARLY + Duration::from_secs(1);
        let waits = |last: fn(&mut Rejections, Instant)| {
            let mut rejections = Rejections::default();
            holds(&mut rejections, now, true);
            rejections.token_came(now, MIN_INTERVAL, None);
            last(&mut rejections, later);
            rejections.hold_back()
        };
        assert!(!waits(|rejections, later| rejections.rejected(later, true)));
        assert!(!waits(|rejections, later| rejections.rejected(later, false)));
        assert!(!waits(Rejections::replaced_when_due));
        assert!(waits(|rejections, later| {
            rejections.replaced_when_due(later - EARLY);
        }));
    }

    #[test]
    fn early_is_a_multiple_of_the_minimum_interval() {
        let now = Instant::now();
        let is_ineffective_after = |age: u64| {
            let mut rejections = Rejections::default();
            for _ in 0..=EARLY_BUDGET {
                rejections.token_came(now, Duration::from_millis(2), None);
                rejections.rejected(now + Duration::from_millis(age), true);
            }
            rejections.hold_back()
        };
        assert!(is_ineffective_after(10));
        assert!(!is_ineffective_after(11));
    }

    #[test]
    fn tokens_of_short_life_are_rejected_early_within_a_fortieth_of_it() {
        let now = Instant::now();
        let is_ineffective_after = |age: u64| {
            let mut rejections = Rejections::default();
            for _ in 0..=EARLY_BUDGET {
                rejections.token_came(now, MIN_INTERVAL, Some(Duration::from_secs(2)));
                rejections.rejected(now + Duration::from_millis(age), true);
            }
            rejections.hold_back()
        };
        assert!(is_ineffective_after(50));
        assert!(!is_ineffective_after(51));
    }

    #[test]
    fn a_token_that_was_just_rejected_once_more_has_not_lasted_either() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut rejections = Rejections::default();
        holds(&mut rejections, now, true);
        rejections.token_came(now, MIN_INTERVAL, None);
        rejections.rejected(at(1), true);
        rejections.rejected_again(at(100));
        rejections.token_helped();
        rejections.rejected(at(101), true);
        assert!(rejections.hold_back());
    }

    #[test]
    fn a_token_that_is_rejected_again_and_again_has_not_lasted() {
        let now = Instant::now();
        let mut rejections = Rejections::default();
        holds(&mut rejections, now, true);
        rejections.token_came(now, MIN_INTERVAL, None);
        for second in 1..600 {
            rejections.rejected(now + Duration::from_secs(second), true);
            rejections.token_helped();
        }
        rejections.replaced_when_due(now + Duration::from_secs(600));
        assert!(rejections.hold_back());
    }
}
