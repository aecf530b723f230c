//! [`StepUps`]: the step-ups that wait, and when the next one may start. A step-up obtains a token that has more than the
//! current one, because an API asks for it.
//!
//! An API may ask again and again. What could not be had is remembered, and a budget bounds the rest.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    issued::{Generation, Issued},
    waiter::SharedResult,
};
use crate::{
    challenge::{Challenge, Wanted},
    clock::later,
    error::{TokenError, TokenErrorKind},
};

/// For how long it is remembered that something could not be had.
const REFUSED_FOR: Duration = Duration::from_secs(15 * 60);
/// The same after a failure that may pass.
const FAILED_FOR: Duration = Duration::from_secs(30);
/// How much of it is remembered.
const MAX_REFUSALS: usize = 16;
/// How many step-ups may wait for the one that runs.
const MAX_WAITING: usize = 8;
/// How many step-ups may start at once.
const BUDGET: u32 = 10;
/// How long until the budget allows one more.
const REFILL: Duration = Duration::from_secs(60);

/// One step-up, which many requests may wait for.
#[derive(Clone)]
pub(super) struct StepUpRun {
    /// The token that the first of them was sent with.
    pub(super) sent: Generation,
    pub(super) challenge: Arc<Challenge>,
    pub(super) wanted: Arc<Wanted>,
    /// What they get.
    pub(super) result: Arc<SharedResult>,
}

#[derive(Default)]
pub(super) struct StepUps {
    waiting: VecDeque<StepUpRun>,
    refusals: Vec<Refusal>,
    /// The claims that the token of this generation was requested with.
    claims: Option<(Generation, Box<str>)>,
    /// When the budget is full again.
    full_at: Option<Instant>,
}

struct Refusal {
    wanted: Arc<Wanted>,
    until: Instant,
    error: TokenError,
}

impl StepUps {
    /// Whether the current token `issued` has what is wanted. `is_newer` says that it has come since the API asked.
    pub(super) fn has(&self, wanted: &Wanted, issued: &Issued, is_newer: bool) -> bool {
        let claims = self.claims.as_ref();
        let claims = claims.filter(|(generation, _)| *generation == issued.generation);
        wanted.scopes().next().is_none()
            && wanted.claims().is_none_or(|wanted| claims.is_some_and(|(_, it)| **it == *wanted))
            // Only the API knows whether the login behind a newer token is good enough.
            && (is_newer || !wanted.needs_user())
    }

    /// The claims that the token of this generation was requested with.
    pub(super) fn set_claims(&mut self, generation: Generation, wanted: &Wanted) {
        self.claims = wanted.claims().map(|claims| (generation, claims.into()));
    }

    /// Why this could not be had lately.
    pub(super) fn refusal(&self, wanted: &Wanted, now: Instant) -> Option<TokenError> {
        let known = self.refusals.iter().find(|it| *it.wanted == *wanted)?;
        (known.until > now).then(|| known.error.clone())
    }

    /// Remembers that this could not be had. Returns for how long.
    pub(super) fn refused(
        &mut self,
        wanted: Arc<Wanted>,
        error: TokenError,
        now: Instant,
    ) -> Duration {
        let time = if error.is_transient() {
            error.retry_after().unwrap_or_default().max(FAILED_FOR)
        } else {
            REFUSED_FOR
        };
        let time = time.min(REFUSED_FOR);
        let until = later(now, time);
        self.refusals
            .retain(|it| it.until > now && *it.wanted != *wanted);
        if self.refusals.len() == MAX_REFUSALS {
            self.refusals.remove(0);
        }
        self.refusals.push(Refusal {
            wanted,
            until,
            error,
        });
        time
    }

    /// The step-up that waits and wants the same.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<&StepUpRun> {
        self.waiting.iter().find(|run| *run.wanted == *wanted)
    }

    pub(super) fn push(&mut self, run: StepUpRun) -> Result<(), TokenError> {
        if self.waiting.len() == MAX_WAITING {
            return Err(run
                .wanted
                .not_had("too many others wait for more permission"));
        }
        self.waiting.push_back(run);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<StepUpRun> {
        self.waiting.pop_front()
    }

    /// Takes one step-up out of the budget.
    pub(super) fn withdraw(&mut self, wanted: &Wanted, now: Instant) -> Result<(), TokenError> {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        let is_left = full_at.saturating_duration_since(now);
        if let Some(wait) = is_left.checked_sub(REFILL * (BUDGET - 1))
            && !wait.is_zero()
        {
            let message = format!(
                "the API asks for {}, and too often for more",
                wanted.describe()
            );
            return Err(
                TokenError::new(TokenErrorKind::InsufficientScope, message).with_retry_after(wait)
            );
        }
        self.full_at = Some(later(full_at, REFILL));
        Ok(())
    }

    /// Forgets what could not be had, because it may be had now. The budget stays.
    pub(super) fn forget(&mut self) {
        self.refusals.clear();
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};

    use super::*;
    use crate::{challenge::StepUp, token::Token};

    fn wanted(scope: &str) -> Arc<Wanted> {
        let text = format!("Bearer error=insufficient_scope, scope={scope}");
        let value = HeaderValue::try_from(text).unwrap();
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]);
        let challenge = Challenge::from_headers(&headers).unwrap();
        let step_up = StepUp::new().scopes([scope]);
        let token = Token::new("at").unwrap();
        Arc::new(Wanted::by(&challenge, &step_up, &[], &token).unwrap())
    }

    fn not_granted() -> TokenError {
        TokenError::new(TokenErrorKind::InsufficientScope, "not granted")
    }

    #[test]
    fn the_last_refusals_are_remembered_each_for_a_quarter_of_an_hour() {
        let (now, mut step_ups) = (Instant::now(), StepUps::default());
        let names: Vec<String> = (0..=MAX_REFUSALS).map(|n| format!("s{n}")).collect();
        for name in &names {
            step_ups.refused(wanted(name), not_granted(), now);
        }
        let is_refused =
            |step_ups: &StepUps, name: &str, now| step_ups.refusal(&wanted(name), now).is_some();
        assert!(!is_refused(&step_ups, "s0", now));
        assert!(names[1..].iter().all(|it| is_refused(&step_ups, it, now)));
        let later = now + REFUSED_FOR;
        assert!(!names.iter().any(|it| is_refused(&step_ups, it, later)));
        // What is over takes no place.
        step_ups.refused(wanted("s1"), not_granted(), later);
        assert_eq!(step_ups.refusals.len(), 1);
    }

    #[test]
    fn the_budget_is_spent_at_once_and_comes_back_by_the_minute() {
        let (now, mut step_ups) = (Instant::now(), StepUps::default());
        let wanted = wanted("s");
        let mut take = |now| step_ups.withdraw(&wanted, now);
        for _ in 0..BUDGET {
            take(now).unwrap();
        }
        let error = take(now).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InsufficientScope);
        assert_eq!(error.retry_after(), Some(REFILL));
        take(now + REFILL - Duration::from_millis(1)).unwrap_err();
        take(now + REFILL).unwrap();
        take(now + REFILL).unwrap_err();
        let later = now + 100 * REFILL;
        for _ in 0..BUDGET {
            take(later).unwrap();
        }
        take(later).unwrap_err();
    }
}
