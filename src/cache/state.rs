//! The state of a session in this process, and every change of it.
//!
//! It has three parts: the current token (`current_token.rs`), the refresh that may run (`running_refresh.rs`), and the
//! throttle (`throttle.rs`). That the API has accepted a token is not among them: it is a flag of the token, set without the
//! mutex. The events that transitions leave are made in `events.rs`.
//!
//! The transitions are here and in the files of `state/`, by what they are about: a refresh, a rejection, a step-up, or the
//! end and the beginning of a session.
//!
//! All of it sits behind one mutex, which is never held while anything waits, is polled or is woken. The token that requests
//! use is also in an `ArcSwap`. It is written under the mutex and read without it.
//!
//! ```text
//!                         refresh succeeded
//!                          ┌───────────┐
//!  ┌──────┐ a token came   │           ▼
//!  │ None │ ─────────────► ┌───────────┐ rejected; a refresh ┌───────────────┐
//!  └──────┘                │   InUse   │ starts or runs      │ BeingReplaced │
//!                          │           │ ──────────────────► │               │
//!                          └───────────┘ ◄────────────────── └───────────────┘
//!                          │           ▲   refresh succeeded (new token),
//!                          └───────────┘   failed or lost (old token again)
//!               rejected, but no refresh
//!               may start: still sent
//! ```
//!
//! "A refresh runs" below means one of kind `Full`. If the source is only asked whether something has changed since a
//! failure, callers get the error of that failure at once. After a rejection the source may only look for a token of
//! another process: then the rejected request waits for that, and the token stays in use. A look for another session is waited
//! for, too, but if there is none, those that wait start over. So do those that wait for any token while a step-up fails: its
//! error is for the requests that need more. Until it succeeds, the token before it stays in use.
//!
//! | Method | no refresh runs | a refresh runs |
//! |---|---|---|
//! | `token_due` (a request uses a due token) | start a refresh, if the throttle allows | nothing |
//! | `token_wanted`, and a usable one is there | return it | return it |
//! | `token_wanted`, and none is usable | start a refresh and wait; or fail, if the throttle does not allow it | wait |
//! | `token_rejected`, the current one | start a refresh and wait; if the throttle does not allow it, look for a token of another process, and keep sending this one | wait |
//! | `token_rejected`, an older one | as `token_wanted` | as `token_wanted` |
//! | `more_wanted` (the API asks for more than the token has), and the current one has it | return it | return it |
//! | `more_wanted`, and it does not | start a step-up and wait; or fail, if that cannot be had or was tried lately | wait for it, and then start the step-up |
//! | `replay_rejected` | keep sending the token, and refresh it later | nothing |
//! | `replay_accepted` | new tokens help: the pauses after rejections end | the same |
//! | `replay_failed`, `not_replayed` | only tell observers | the same |
//! | `saved_late` | only tell observers | the same |
//! | `accepted_after_rejection` | the token is good after all: refresh it when it is due | nothing |
//! | `refresh_completed`, a token came | | use it |
//! | `refresh_completed`, it failed | | tell the throttle, keep sending the old token |
//! | `refresh_lost` (its task disappeared) | | keep sending the old token; waiters start the next refresh |
//! | `session_may_have_changed` | ask the source for another session; callers without a token wait for that | nothing: it is called again after this refresh |
//! | `revoked` | drop the token; refreshes wait for a change | the same, and the token of this refresh is not used |
//! | `logged_in` | use its token, or none until the next refresh; forget failures | the same, and this refresh no longer counts |
//! | `reset` | forget failures | forget failures; this refresh no longer counts if it fails; callers wait for it |
//!
//! A refresh that is needed does not wait for a look for a token of another process. If that look finds one, it replaces the
//! rejected token: until the refresh ends, or at once if it has failed.
//!
//! A refresh that takes too long is given up: the state forgets it, and the next one may start. If it ends after all, only
//! its own waiters get the result.

mod refresh;
mod rejected;
mod session;
mod step_up;

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(super) use self::session::session_revoked;
use super::{
    current_token::CurrentToken,
    effects::{Effects, Input},
    issued::{Generation, Issued},
    lookup::Lookup,
    refresh_task::RefreshKind,
    running_refresh::RefreshState,
    step_ups::StepUps,
    throttle::{Permission, RefreshThrottle},
    waiter::SharedResult,
};
use crate::{
    challenge::Challenge,
    clock::Now,
    freshness::{Deadlines, Freshness},
    token::{Token, Warning},
    token_source::TokenContext,
};

/// Everything behind the lock.
pub(super) struct State {
    pub(super) token: CurrentToken,
    refresh: RefreshState,
    /// The look for a token of another process that goes on beside a refresh, or after one that has failed. A token that it
    /// finds takes the place of a rejected one.
    look_beside: Option<u64>,
    pub(super) throttle: RefreshThrottle,
    pub(super) counts: Counts,
    /// What the last token came with, such as a session that could not be saved.
    pub(super) warning: Option<Warning>,
    /// When the current token came.
    pub(super) refreshed_at: Option<SystemTime>,
    /// The number of the last rejection.
    last_rejection: NonZeroU32,
    /// What the API said when it rejected the current token.
    challenge: Option<Arc<Challenge>>,
    /// Boxed, because most sessions have none.
    step_ups: Option<Box<StepUps>>,
    /// The last refresh that had started when the session was revoked.
    revoked_up_to: u64,
    /// No refresh since the last reset has ended with a new token or a dead grant.
    is_after_reset: bool,
    rng: fastrand::Rng,
    pub(super) effects: Effects,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    refreshes: u64,
    pub(super) issued: u64,
    pub(super) failed: u64,
    pub(super) rejected: u64,
    /// Numbers the statuses that subscribers get.
    pub(super) notified: u64,
}

impl State {
    pub(super) fn new(rng: fastrand::Rng) -> Self {
        Self {
            token: CurrentToken::None,
            refresh: RefreshState::Idle,
            look_beside: None,
            throttle: RefreshThrottle::default(),
            counts: Counts::default(),
            warning: None,
            refreshed_at: None,
            last_rejection: NonZeroU32::MIN,
            challenge: None,
            step_ups: None,
            revoked_up_to: 0,
            is_after_reset: false,
            rng,
            effects: Effects::default(),
        }
    }

    /// A request uses a due token, or the background task finds that a refresh is due. A refresh may start; no caller waits
    /// for it.
    pub(super) fn token_due(&mut self, input: Input<'_>) {
        // Between the caller's look and the lock, a new token may have come.
        let is_fresh = self
            .token
            .in_use()
            .is_some_and(|issued| issued.deadlines.freshness(input.now) == Freshness::Fresh);
        if self.joinable(input.now).is_some() || is_fresh {
            return;
        }
        let permission = self.throttle.permits(
            input.now.mono,
            input.min_interval(),
            self.token.usable(input.now).is_none(),
        );
        let kind = match permission {
            Permission::After(wait) if wait.is_zero() => RefreshKind::Full,
            Permission::IfChanged(error) => RefreshKind::IfChanged(error),
            Permission::After(_) | Permission::No(_) => return,
        };
        let cx = self.context(input);
        self.start(input, Duration::ZERO, cx, kind);
    }

    /// A caller wants a usable token, and one other than `other_than` if that is given.
    pub(super) fn token_wanted(
        &mut self,
        input: Input<'_>,
        other_than: Option<Generation>,
    ) -> Lookup<Arc<SharedResult>> {
        let usable = self.token.usable(input.now);
        if let Some(issued) = usable
            && other_than != Some(issued.generation)
        {
            return Lookup::Ready(Arc::clone(issued));
        }
        let needed = usable.is_none();
        let epoch = self.throttle.epoch();
        if let Some(running) = self.joinable(input.now) {
            return running.lookup(epoch);
        }
        let cx = self.context(input);
        match self
            .throttle
            .permits(input.now.mono, input.min_interval(), needed)
        {
            Permission::After(delay) => self.start(input, delay, cx, RefreshKind::Full),
            Permission::IfChanged(error) => {
                self.start(input, Duration::ZERO, cx, RefreshKind::IfChanged(error))
            }
            Permission::No(error) => Lookup::Failed(error),
        }
    }

    /// How long until a refresh without traffic is due. `None` if the token has neither a due time nor an end.
    pub(super) fn due_in(&self, input: Input<'_>) -> Option<Duration> {
        let opens_in = self.throttle.opens_in(input.now.mono, input.min_interval());
        match self.token.in_use() {
            None => Some(opens_in),
            Some(issued) => {
                let due = issued.deadlines.due.or(issued.deadlines.unusable)?;
                Some(due.left(input.now).max(opens_in))
            }
        }
    }

    /// What the source is told of the current token.
    fn context(&self, input: Input<'_>) -> TokenContext {
        let mut cx = TokenContext::with_clock(input.settings().clock.clone())
            .with_shared_challenge(self.challenge.clone())
            .allowing(input.settings().step_up.clone());
        if self.is_after_reset {
            cx = cx.after_reset();
        }
        match self.token.in_use() {
            // Until another token comes, so that a source with a cache of its own does not return the rejected one again.
            Some(issued) if issued.is_rejected() => cx.rejected(issued.token.clone()),
            Some(issued) => cx.replacing(issued.token.clone()),
            None => cx,
        }
    }

    fn issue(&mut self, input: Input<'_>, token: Token, asked: Now) -> Arc<Issued> {
        let expires = token.expires(asked, input.now);
        let random = self.rng.f64();
        let deadlines = Deadlines::new(expires, &input.settings().schedule, random, input.now);
        let generation = match self.token.issued() {
            Some(before) if before.token.same_secret(&token) => before.generation,
            _ => Generation::next(),
        };
        Arc::new(Issued::new(token, generation, deadlines, expires))
    }

    fn put_in_use(&mut self, input: Input<'_>, issued: &Arc<Issued>) {
        self.counts.issued += 1;
        self.effects.notify = true;
        self.set_warning(input, issued.token.warning().cloned());
        self.refreshed_at = Some(input.now.wall);
        self.throttle.succeeded();
        self.challenge = None;
        self.look_beside = None;
        let before = self.token.issued().cloned();
        self.set_token(CurrentToken::InUse(Arc::clone(issued)));
        let (same, other) = match &before {
            Some(before) if before.generation == issued.generation => (Some(before), None),
            before => (None, before.as_ref()),
        };
        if other.is_some_and(|before| !before.is_rejected()) {
            self.throttle.rejections.replaced_when_due(input.now.mono);
        }
        self.throttle
            .rejections
            .token_came(input.now.mono, input.min_interval(), issued.lifetime);
        if let Some(before) = same {
            self.throttle.rejections.same_token_came();
            match before.rejection {
                Some(rejection) => self.keep_sending(input, &issued.rejected(rejection)),
                None => self.keep_sending(input, issued),
            }
        }
    }

    fn publish_again(&mut self) {
        if let CurrentToken::BeingReplaced(issued) = &self.token {
            let issued = Arc::clone(issued);
            self.set_token(CurrentToken::InUse(issued));
        }
    }

    fn set_token(&mut self, token: CurrentToken) {
        self.token = token;
        self.effects.publish = true;
    }
}
