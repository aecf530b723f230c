//! The state of a session in this process, and every change of it.
//!
//! It has three parts: the current token (`current_token.rs`), the refresh that may run (`running_refresh.rs`), and the
//! throttle (`throttle.rs`). That the API has accepted a token is not among them: it is a flag of the token, set without the
//! mutex. The transitions of step-ups are in `state/step_up.rs`, and all others here. The events that they leave are made in
//! `events.rs`.
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
//! | `reset` | forget failures | forget failures; this refresh no longer counts if it fails |
//!
//! A refresh that is needed does not wait for a look for a token of another process. If that look finds one meanwhile, it
//! replaces the rejected token until the refresh ends.
//!
//! A refresh that takes too long is given up: the state forgets it, and the next one may start. If it ends after all, only
//! its own waiters get the result.

mod step_up;

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    current_token::CurrentToken,
    effects::{Effects, Input},
    issued::{Generation, Issued},
    lookup::{Lookup, interrupted, runtime},
    refresh_task::{RefreshKind, RefreshOutcome, RefreshRun, RefreshTask},
    rejection::{RejectedBy, Rejection, SentToken},
    running_refresh::{Meanwhile, RefreshState, RunningRefresh},
    step_ups::StepUps,
    throttle::{Permission, RefreshThrottle},
    waiter::{Completed, SharedResult},
};
use crate::{
    challenge::Challenge,
    clock::{self, Now},
    error::{TokenError, TokenErrorKind},
    events::{EventKind, Record, ReplayOutcome},
    freshness::{Deadline, Deadlines, Freshness},
    token::{Token, Warning},
    token_source::TokenContext,
};

/// A refresh that has not ended this long after `refresh_timeout` is given up: no thread polls its runtime.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Everything behind the lock.
pub(super) struct State {
    pub(super) token: CurrentToken,
    refresh: RefreshState,
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
        if let Some(running) = self.joinable(input.now) {
            return running.lookup();
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

    /// The API rejected the token of this generation, in a request to the origin that `by` tells. `was_accepted` says that it
    /// accepted the same token before.
    pub(super) fn token_rejected(
        &mut self,
        input: Input<'_>,
        rejected: Generation,
        by: RejectedBy,
        was_accepted: bool,
        challenge: Option<Arc<Challenge>>,
    ) -> Lookup<Arc<SharedResult>> {
        // Checked first: a lost refresh gives the token back that it was to replace.
        let running = self.joinable(input.now);
        let (running, waiting) = running
            .map(|running| (running.lookup(), running.wait()))
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
    pub(super) fn replay_rejected(&mut self, input: Input<'_>, sent: SentToken) {
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
    pub(super) fn replay_accepted(&mut self, input: Input<'_>, sent: Option<SentToken>) {
        self.throttle.rejections.token_helped();
        self.replay_ended(input, sent, ReplayOutcome::Accepted, None);
    }

    /// No response came to a request that was sent again.
    pub(super) fn replay_failed(&mut self, input: Input<'_>, sent: Option<SentToken>) {
        self.replay_ended(input, sent, ReplayOutcome::Failed, None);
    }

    /// A rejected request is not sent again.
    pub(super) fn not_replayed(&mut self, input: Input<'_>, sent: SentToken, reason: &TokenError) {
        self.replay_ended(input, Some(sent), ReplayOutcome::NotSent, Some(reason));
    }

    /// The API accepted the token in a request that was sent after a rejection. So the rejection came too early, as from a
    /// server that did not know the token yet, or from a server that is not well. A refresh that runs is not stopped.
    pub(super) fn accepted_after_rejection(&mut self, sent: SentToken) {
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

    /// The refresh `id` ended. Returns what its waiters get; `None` lets them start over.
    pub(super) fn refresh_completed(
        &mut self,
        input: Input<'_>,
        run: &RefreshRun,
        outcome: RefreshOutcome,
    ) -> Option<Completed> {
        let (outcome, is_revoked) = match outcome {
            // Its token was revoked as well.
            RefreshOutcome::Token { .. } if run.id <= self.revoked_up_to => {
                (RefreshOutcome::Failed(session_revoked()), true)
            }
            outcome => (outcome, false),
        };
        let Some(refresh) = self.take_running(run.id) else {
            return Some(self.superseded(input, run, outcome));
        };
        let completed = match &refresh.kind {
            RefreshKind::StepUp(step_up) => {
                self.step_up_completed(input, run, &refresh, step_up, outcome)
            }
            _ => Some(self.running_completed(input, run, &refresh, outcome, is_revoked)),
        };
        self.next_step_up(input);
        completed
    }

    /// The running refresh ended, which is no step-up.
    fn running_completed(
        &mut self,
        input: Input<'_>,
        run: &RefreshRun,
        refresh: &RunningRefresh,
        outcome: RefreshOutcome,
        is_revoked: bool,
    ) -> Completed {
        let is_of_this_epoch = refresh.epoch == self.throttle.epoch();
        match outcome {
            RefreshOutcome::Token { token, asked } => {
                if token.is_adopted() {
                    self.throttle.not_started(refresh.started_before);
                } else if is_of_this_epoch {
                    self.is_after_reset = false;
                }
                let token = self.with_added_scope(input, token, None);
                let kind = token_came(&token);
                let issued = self.issue(input, token, asked);
                self.refresh_ended(input, run, kind, Ok(&issued));
                self.put_in_use(input, &issued);
                Ok(issued)
            }
            RefreshOutcome::Failed(error) => {
                self.counts.failed += 1;
                self.effects.notify = true;
                // After a reset the next attempt starts without regard to how this one ended.
                if is_of_this_epoch {
                    self.is_after_reset &= !error.is_final();
                    let needed = self.token.usable(input.now).is_none();
                    let random = self.rng.f64();
                    let schedule = &input.settings().schedule;
                    self.throttle
                        .failed(&error, input.now.mono, needed, random, schedule);
                }
                if let CurrentToken::BeingReplaced(old) = &self.token {
                    let old = Arc::clone(old);
                    self.keep_sending(input, &old);
                }
                let kind = match error.is_final() {
                    _ if is_revoked => EventKind::Superseded,
                    true => EventKind::ReauthRequired,
                    false => EventKind::Failed,
                };
                self.refresh_ended(input, run, kind, Err(&error));
                self.found_during(refresh, input.now).ok_or(error)
            }
            RefreshOutcome::Unchanged(error) => {
                self.throttle.not_started(refresh.started_before);
                self.throttle.unchanged(input.now.mono);
                self.found_during(refresh, input.now).ok_or(error)
            }
            RefreshOutcome::Revoked(error) => {
                // After a reset the session may be begun anew.
                if is_of_this_epoch && !self.is_after_reset {
                    self.revoked(input, &error);
                }
                Err(error)
            }
        }
    }

    /// A refresh ended that the state no longer waits for. Its own waiters get its result.
    fn superseded(
        &mut self,
        input: Input<'_>,
        run: &RefreshRun,
        outcome: RefreshOutcome,
    ) -> Completed {
        match outcome {
            RefreshOutcome::Token { token, asked } => {
                let issued = self.issue(input, token, asked);
                let kind = if self.is_found_meanwhile(run.id, &issued) {
                    EventKind::Adopted
                } else {
                    EventKind::Superseded
                };
                self.refresh_ended(input, run, kind, Ok(&issued));
                if kind == EventKind::Adopted {
                    self.put_in_use(input, &issued);
                }
                Ok(issued)
            }
            RefreshOutcome::Failed(error) => {
                self.refresh_ended(input, run, EventKind::Superseded, Err(&error));
                Err(error)
            }
            RefreshOutcome::Unchanged(error) | RefreshOutcome::Revoked(error) => Err(error),
        }
    }

    /// The task of a refresh disappeared: its runtime shut down, completing it panicked, or it has found nothing.
    pub(super) fn refresh_lost(&mut self, input: Input<'_>, run: &RefreshRun) {
        if let Some(lost) = self.take_running(run.id) {
            self.publish_again();
            self.end_step_ups(Some(&lost.kind), None);
            if !run.found_nothing {
                let error = interrupted("the runtime that ran the refresh shut down");
                self.refresh_ended(input, run, EventKind::Failed, Err(&error));
            }
        }
    }

    /// The user wants remembered failures to be forgotten.
    pub(super) fn reset(&mut self) {
        self.throttle.reset();
        self.forget_refusals();
        self.is_after_reset = true;
        self.effects.notify = true;
    }

    /// The session was revoked. Its token is no longer used, and a refresh that runs brings no other.
    pub(super) fn revoked(&mut self, input: Input<'_>, error: &TokenError) {
        let schedule = &input.settings().schedule;
        let random = self.rng.f64();
        self.throttle
            .failed(error, input.now.mono, true, random, schedule);
        self.revoked_up_to = self.counts.refreshes;
        self.is_after_reset = false;
        self.effects.notify = true;
        self.challenge = None;
        self.set_token(CurrentToken::None);
        self.end_step_ups(None, Some(&Err(error.clone())));
        self.record(Record::new(EventKind::Revoked, input.now.wall));
    }

    /// Another process may have begun or ended a session. Asks the source, or returns the refresh that runs: it may have read
    /// the store before.
    pub(super) fn session_may_have_changed(
        &mut self,
        input: Input<'_>,
    ) -> Option<Arc<SharedResult>> {
        if let Some(running) = self.running_result(input.now) {
            return Some(running);
        }
        let cx = self.context(input);
        self.start(input, Duration::ZERO, cx, RefreshKind::Look);
        None
    }

    /// A new login has begun another session. Its token is used at once. Without one, nothing is used until the next
    /// refresh, which starts when a caller wants a token: the token before belongs to another login.
    ///
    /// A refresh that runs may have read the session before it, so it no longer counts.
    pub(super) fn logged_in(&mut self, input: Input<'_>, token: Option<Token>, asked: Now) {
        self.throttle.began_anew();
        self.forget_refusals();
        self.is_after_reset = false;
        self.effects.notify = true;
        let completed = token.map(|token| {
            let issued = self.issue(input, token, asked);
            self.login_taken(input, Some(&issued));
            self.put_in_use(input, &issued);
            Ok(issued)
        });
        if completed.is_none() {
            self.login_taken(input, None);
            self.warning = None;
            self.challenge = None;
            self.set_token(CurrentToken::None);
        }
        match std::mem::take(&mut self.refresh) {
            RefreshState::Running(running) => {
                self.end_step_ups(Some(&running.kind), completed.as_ref());
                self.effects.wake.push((running.result, completed));
            }
            RefreshState::Idle => {}
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

    pub(super) fn is_refreshing(&self) -> bool {
        matches!(self.refresh, RefreshState::Running(_))
    }

    /// Whether a refresh runs that obtains a token in any case.
    fn is_replacing(&self) -> bool {
        matches!(
            &self.refresh,
            RefreshState::Running(running) if matches!(running.kind, RefreshKind::Full)
        )
    }

    /// The result of the running refresh, to wait for its end.
    pub(super) fn running_result(&mut self, now: Now) -> Option<Arc<SharedResult>> {
        self.running(now).map(|running| Arc::clone(&running.result))
    }

    /// The running refresh. Gives it up if it takes too long.
    fn running(&mut self, now: Now) -> Option<&RunningRefresh> {
        if let RefreshState::Running(running) = &self.refresh
            && running.lost_at <= now.mono
        {
            let lost = running.kind.clone();
            self.refresh = RefreshState::Idle;
            self.publish_again();
            self.end_step_ups(Some(&lost), None);
        }
        match &self.refresh {
            RefreshState::Running(running) => Some(running),
            RefreshState::Idle => None,
        }
    }

    /// The running refresh, unless it only looks for a token of another process. Such a one is superseded: its waiters still
    /// get its result.
    fn joinable(&mut self, now: Now) -> Option<&RunningRefresh> {
        self.running(now)
            .filter(|running| !matches!(running.kind, RefreshKind::AdoptOnly(_)))
    }

    /// Whether a token that the refresh `id` has brought, which no longer runs, takes the place of a rejected one: it does if that
    /// was the look that the running refresh has superseded.
    fn is_found_meanwhile(&mut self, id: u64, issued: &Issued) -> bool {
        let before = self.token.issued();
        let is_better = before
            .is_some_and(|before| before.is_rejected() && before.generation != issued.generation);
        if let RefreshState::Running(running) = &mut self.refresh
            && let Meanwhile::Looking(looking) = running.meanwhile
            && looking == id
            && is_better
        {
            running.meanwhile = Meanwhile::Found(issued.generation);
            return true;
        }
        false
    }

    /// The token that was found while `refresh` ran, if it can still be used.
    fn found_during(&self, refresh: &RunningRefresh, now: Now) -> Option<Arc<Issued>> {
        let issued = self.token.usable(now)?;
        let is_found =
            matches!(refresh.meanwhile, Meanwhile::Found(found) if found == issued.generation);
        (is_found && !issued.is_rejected()).then(|| Arc::clone(issued))
    }

    fn take_running(&mut self, id: u64) -> Option<RunningRefresh> {
        match std::mem::take(&mut self.refresh) {
            RefreshState::Running(running) if running.id == id => Some(running),
            other => {
                self.refresh = other;
                None
            }
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
        if let Some(running) = self.running(input.now) {
            running.lookup()
        } else if self.throttle.may_look(now) {
            self.start(input, Duration::ZERO, cx, RefreshKind::AdoptOnly(error))
        } else {
            Lookup::Failed(error)
        }
    }

    fn start(
        &mut self,
        input: Input<'_>,
        delay: Duration,
        cx: TokenContext,
        kind: RefreshKind,
    ) -> Lookup<Arc<SharedResult>> {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Lookup::Failed(error),
        };
        let start = clock::later(input.now.mono, delay);
        let timeout = input.settings().refresh_timeout.saturating_add(LOST_AFTER);
        self.counts.refreshes += 1;
        let running = RunningRefresh {
            id: self.counts.refreshes,
            result: Arc::new(SharedResult::new(Arc::clone(input.shared))),
            kind: kind.clone(),
            epoch: self.throttle.epoch(),
            started_before: match &kind {
                // It sends no token request, or only one for another session.
                RefreshKind::AdoptOnly(_) | RefreshKind::Look => self.throttle.last_start(),
                RefreshKind::Full | RefreshKind::IfChanged(_) | RefreshKind::StepUp(_) => {
                    self.throttle.started(start)
                }
            },
            lost_at: clock::later(start, timeout),
            meanwhile: match &self.refresh {
                RefreshState::Running(look) => Meanwhile::Looking(look.id),
                RefreshState::Idle => Meanwhile::Nothing,
            },
        };
        let run = RefreshRun {
            id: running.id,
            reason: self.reason(input.now, &kind, &cx),
            asked: None,
            found_nothing: false,
        };
        let result = Arc::clone(&running.result);
        self.effects.spawn = Some(RefreshTask::new(runtime, result, run, delay, cx, kind));
        let lookup = running.lookup();
        self.refresh = RefreshState::Running(running);
        lookup
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
    fn keep_sending(&mut self, input: Input<'_>, issued: &Issued) {
        let (now, min_interval) = (input.now.mono, input.min_interval());
        let wait = self
            .throttle
            .delay_after_rejection(now, min_interval)
            .max(self.throttle.opens_in(now, min_interval));
        let due = Deadline::after(wait, input.now);
        self.set_token(CurrentToken::InUse(Arc::new(issued.due_at(due))));
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

/// The event of a refresh that ended with this token.
fn token_came(token: &Token) -> EventKind {
    if token.is_adopted() {
        EventKind::Adopted
    } else {
        EventKind::Refreshed
    }
}

#[cold]
pub(super) fn session_revoked() -> TokenError {
    let message = "the session was revoked; log in again, or reset the cache to begin it anew";
    TokenError::new(TokenErrorKind::ReauthRequired, message)
}

#[cold]
fn not_of_this_cache() -> TokenError {
    let message = "the rejected token is not of this cache; do `RefreshOnReject` and `AddTokenLayer` have the same one?";
    TokenError::new(TokenErrorKind::NotReplayed, message)
}
