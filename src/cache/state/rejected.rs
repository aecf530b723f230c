//! What happens after a rejection of a token, and after a request was sent again.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::State;
use crate::{
    cache::{
        current_token::CurrentToken,
        effects::Input,
        issued::{Generation, Issued},
        lookup::Lookup,
        refresh_task::RefreshKind,
        rejection::{RejectedBy, Rejection, SentToken},
        throttle::Permission,
        waiter::SharedResult,
    },
    challenge::Challenge,
    error::{TokenError, TokenErrorKind},
    events::ReplayOutcome,
    freshness::Deadline,
};

impl State {
    /// The API rejected the token of this generation, in a request to the origin that `by` tells. `was_accepted` says that it
    /// accepted the same token before.
    pub(in crate::cache) fn token_rejected(
        &mut self,
        input: Input<'_>,
        rejected: Generation,
        by: RejectedBy,
        was_accepted: bool,
        challenge: Option<Arc<Challenge>>,
    ) -> Lookup<Arc<SharedResult>> {
        // Checked first: a lost refresh gives the token back that it was to replace.
        let epoch = self.throttle.epoch();
        let running = self.joinable(input.now);
        let (running, waiting) = running
            .map(|running| (running.lookup(epoch), running.wait()))
            .unzip();
        let CurrentToken::InUse(issued) = &self.token else {
            // After a login there may be no token yet.
            if self.counts.issued > 0 && running.is_none() {
                return self.token_wanted(input, Some(rejected));
            }
            // After a revocation there is no token any more.
            let error = self.throttle.error().filter(|it| it.is_final()).cloned();
            let error = || error.unwrap_or_else(not_of_this_cache);
            return running.unwrap_or_else(|| Lookup::Failed(error()));
        };
        if issued.generation != rejected {
            return self.token_wanted(input, Some(rejected));
        }
        let issued = Arc::clone(issued);
        let issued = self.count_rejection(input, &issued, by, was_accepted);
        self.challenge = challenge.or(self.challenge.take());
        // Also for one that only looks for a change: another process may have a good token.
        let lookup = waiting.unwrap_or_else(|| self.start_replacement(input, &issued));
        if self.is_replacing() {
            self.set_token(CurrentToken::BeingReplaced(issued));
        } else {
            self.keep_sending(input, &issued);
        }
        lookup
    }

    /// The API rejected the token that a request was sent again with.
    pub(in crate::cache) fn replay_rejected(&mut self, input: Input<'_>, sent: SentToken) {
        self.replay_ended(input, Some(sent), ReplayOutcome::Rejected, None);
        if let CurrentToken::InUse(issued) = &self.token
            && issued.generation == sent.generation
        {
            let issued = Arc::clone(issued);
            let issued = self.count_rejection(input, &issued, sent.rejected_by(), false);
            self.keep_sending(input, &issued);
        }
    }

    /// The API did not reject the token that a request was sent again with.
    pub(in crate::cache) fn replay_accepted(&mut self, input: Input<'_>, sent: Option<SentToken>) {
        self.throttle.rejections.token_helped();
        self.replay_ended(input, sent, ReplayOutcome::Accepted, None);
    }

    /// No response came to a request that was sent again.
    pub(in crate::cache) fn replay_failed(&mut self, input: Input<'_>, sent: Option<SentToken>) {
        self.replay_ended(input, sent, ReplayOutcome::Failed, None);
    }

    /// A rejected request is not sent again.
    pub(in crate::cache) fn not_replayed(
        &mut self,
        input: Input<'_>,
        sent: SentToken,
        reason: &TokenError,
    ) {
        self.replay_ended(input, Some(sent), ReplayOutcome::NotSent, Some(reason));
    }

    /// The API accepted the token in a request that was sent after a rejection. So the rejection came too early, as from a
    /// server that did not know the token yet, or from a server that is not well. A refresh that runs is not stopped.
    pub(in crate::cache) fn accepted_after_rejection(&mut self, sent: SentToken) {
        let CurrentToken::InUse(issued) = &self.token else {
            return;
        };
        let is_disproved = issued.generation == sent.generation
            && issued
                .rejection
                .is_some_and(|rejection| rejection.is_disproved_by(sent));
        if is_disproved && !self.is_replacing() {
            let issued = Arc::new(issued.accepted_after_all());
            self.throttle.rejections.token_helped();
            self.effects.notify = true;
            self.set_token(CurrentToken::InUse(issued));
        }
    }

    /// Starts the refresh that replaces a rejected token. During backoff and pauses, if recent tokens were rejected too, and if
    /// `min_interval` would delay it for longer than callers wait, the source may only adopt a token of another process.
    fn start_replacement(
        &mut self,
        input: Input<'_>,
        rejected: &Issued,
    ) -> Lookup<Arc<SharedResult>> {
        let (now, min_interval) = (input.now.mono, input.min_interval());
        let cx = self.context(input).rejected(rejected.token.clone());
        let delay = self.throttle.delay_after_rejection(now, min_interval);
        let error = match self.throttle.permits(now, min_interval, true) {
            Permission::No(error) | Permission::IfChanged(error) => error,
            Permission::After(_) if !delay.is_zero() && self.throttle.rejections.hold_back() => {
                let message = "recent refreshes did not help, so the next one starts later";
                TokenError::new(TokenErrorKind::Rejected, message).with_retry_after(delay)
            }
            Permission::After(_) if delay > input.settings().max_wait => {
                let message = "the next refresh may not start yet (`min_interval`)";
                TokenError::new(TokenErrorKind::Rejected, message).with_retry_after(delay)
            }
            Permission::After(_) => return self.start(input, delay, cx, RefreshKind::Full),
        };
        // Another process may have a good token. Looking for it sends no token request, so it need not wait.
        let epoch = self.throttle.epoch();
        if let Some(running) = self.running(input.now) {
            running.lookup(epoch)
        } else if self.throttle.may_look(now) {
            self.start(input, Duration::ZERO, cx, RefreshKind::AdoptOnly(error))
        } else {
            Lookup::Failed(error)
        }
    }

    /// Counts a rejection of the current token, and returns the token with it.
    fn count_rejection(
        &mut self,
        input: Input<'_>,
        issued: &Issued,
        by: RejectedBy,
        was_accepted: bool,
    ) -> Arc<Issued> {
        if issued.is_rejected() {
            self.throttle.rejections.rejected_again(input.now.mono);
        } else {
            self.counts.rejected += 1;
            self.effects.notify = true;
            self.throttle
                .rejections
                .rejected(input.now.mono, was_accepted || issued.is_accepted());
            self.token_was_rejected(input, issued);
        }
        let number = self.last_rejection.checked_add(1);
        self.last_rejection = number.unwrap_or(NonZeroU32::MIN);
        let by = issued
            .rejection
            .map_or(RejectedBy::Unknown, |before| before.by)
            .and(by);
        Arc::new(issued.rejected(Rejection {
            number: self.last_rejection,
            by,
        }))
    }

    /// Keeps the token published although it should be replaced, and makes it due when the next refresh may start. The
    /// server's own response tells the caller more than an error of ours, and the token may not be the reason for the
    /// rejection.
    pub(super) fn keep_sending(&mut self, input: Input<'_>, issued: &Issued) {
        let (now, min_interval) = (input.now.mono, input.min_interval());
        let wait = self
            .throttle
            .delay_after_rejection(now, min_interval)
            .max(self.throttle.opens_in(now, min_interval));
        let due = Deadline::after(wait, input.now);
        self.set_token(CurrentToken::InUse(Arc::new(issued.due_at(due))));
    }
}

#[cold]
fn not_of_this_cache() -> TokenError {
    let message = "the rejected token is not of this cache; do `RefreshOnReject` and `AddTokenLayer` have the same one?";
    TokenError::new(TokenErrorKind::NotReplayed, message)
}
