//! The state of a token cache, and every change of it.
//!
//! All of it sits behind one mutex, which is never held while anything waits, polls, wakes or drops foreign code. The
//! token that requests use is also published outside of the mutex, where it is read without a lock (`shared.rs`).
//!
//! ```text
//!               refresh succeeded               rejected, and a refresh
//!      ┌──────┐ ────────────────► ┌─────────┐ ─────────────────────────► ┌──────────┐
//!      │ None │                   │  InUse  │  may start or is running   │ Replaced │
//!      └──────┘                   └─────────┘ ◄───────────────────────── └──────────┘
//!                   rejected, and   ▲     │     refresh succeeded (new token)
//!                   no refresh may  └─────┘     or failed (old token, still sent)
//!                   start: still sent
//! ```
//!
//! | Event | no refresh runs | a refresh runs |
//! |---|---|---|
//! | token wanted, the current one is usable | return it | return it |
//! | token wanted, it is due | also start a refresh, if the throttle allows | |
//! | token wanted, none or expired | start a refresh and wait, or fail with the error the throttle holds | wait |
//! | current token rejected | start a refresh and wait, if the throttle allows; else keep sending the token | wait |
//! | older token rejected | return the current one | return the current one |
//! | refresh succeeded | (given up before: only its waiters get the token) | publish, wake everyone |
//! | refresh failed | (given up before: only its waiters get the error) | tell the throttle, keep the token, wake everyone with the error |
//! | refresh task disappeared | | keep the token; waiters start another |
//! | reset | forget failures | the same; a failure of this refresh is not counted |

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    issued::{Generation, Issued},
    lookup::{Lookup, interrupted, runtime},
    refresh_task::{Outcome, RefreshTask},
    throttle::{Permission, RefreshThrottle},
    transition::{Effects, Event},
    waiter::SharedResult,
};
use crate::{
    clock::{self, Now},
    error::{TokenError, TokenErrorKind},
    freshness::{Deadline, Deadlines, Freshness},
    token::Token,
    token_source::TokenContext,
};

/// How much longer than `refresh_timeout` a refresh is believed to run, before it counts as lost with its runtime.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// The token of the session.
#[derive(Default)]
pub(super) enum CurrentToken {
    #[default]
    None,
    /// Published: requests use it until it expires.
    InUse(Arc<Issued>),
    /// The API rejected it, and the running refresh replaces it. Callers wait for that.
    Replaced(Arc<Issued>),
}

/// The refresh of the session.
#[derive(Default)]
pub(super) enum RefreshState {
    #[default]
    Idle,
    Running(RunningRefresh),
}

/// A refresh that runs, as the state knows it.
pub(super) struct RunningRefresh {
    id: u64,
    result: Arc<SharedResult>,
    /// Set if the source is first asked whether something has changed since this error. Callers get the error at once.
    checks_after: Option<TokenError>,
    /// How many resets came before it.
    epoch: u32,
    lost_at: Instant,
}

/// Everything behind the lock.
pub(super) struct State {
    pub(super) token: CurrentToken,
    refresh: RefreshState,
    pub(super) throttle: RefreshThrottle,
    pub(super) counts: Counts,
    /// What the last token came with, such as a session that could not be saved.
    pub(super) warning: Option<TokenError>,
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
            rng,
            effects: Effects::default(),
        }
    }

    /// A request was sent with a due token: a refresh may start, and no caller waits for it.
    pub(super) fn token_due(&mut self, event: Event<'_>) {
        // Between the caller's look and the lock, a new token may have come.
        let is_fresh = self
            .token
            .in_use()
            .is_some_and(|issued| issued.deadlines.freshness(event.now) == Freshness::Fresh);
        if self.running(event.now).is_some() || is_fresh {
            return;
        }
        let permission = self
            .throttle
            .permits(event.now.mono, event.min_interval(), false);
        let checks_after = match permission {
            Permission::After(wait) if wait.is_zero() => None,
            Permission::IfChanged(error) => Some(error),
            Permission::After(_) | Permission::No(_) => return,
        };
        let cx = self.context(event);
        self.start(event, Duration::ZERO, cx, checks_after);
    }

    /// A caller wants a token, and one other than `unlike` if that is given.
    pub(super) fn token_wanted(
        &mut self,
        event: Event<'_>,
        unlike: Option<Generation>,
    ) -> Lookup<Arc<SharedResult>> {
        let usable = self.token.usable(event.now);
        if let Some(issued) = usable
            && unlike != Some(issued.generation)
        {
            return Lookup::Ready(Arc::clone(issued));
        }
        let needed = usable.is_none();
        if let Some(running) = self.running(event.now) {
            return running.lookup();
        }
        let cx = self.context(event);
        match self
            .throttle
            .permits(event.now.mono, event.min_interval(), needed)
        {
            Permission::After(delay) => self.start(event, delay, cx, None),
            Permission::IfChanged(error) => self.start(event, Duration::ZERO, cx, Some(error)),
            Permission::No(error) => Lookup::Failed(error),
        }
    }

    /// The API rejected the token of this generation. `was_accepted` says that it accepted the same token before.
    pub(super) fn token_rejected(
        &mut self,
        event: Event<'_>,
        rejected: Generation,
        was_accepted: bool,
    ) -> Lookup<Arc<SharedResult>> {
        // Checked first: a lost refresh gives the token back that it was to replace.
        let running = self.running(event.now).map(RunningRefresh::lookup);
        let CurrentToken::InUse(issued) = &self.token else {
            return running.unwrap_or_else(|| {
                Lookup::Failed(interrupted("the rejected token is not of this session"))
            });
        };
        if issued.generation != rejected {
            return Lookup::Ready(Arc::clone(issued));
        }
        let issued = Arc::clone(issued);
        if !issued.rejected {
            self.counts.rejected += 1;
            self.effects.notify = true;
            if !was_accepted && !issued.is_accepted() {
                self.throttle.ineffective(event.now.mono);
            }
        }
        let lookup = running.unwrap_or_else(|| self.start_replacement(event, &issued));
        if let Lookup::Wait(_) = lookup {
            self.set_token(CurrentToken::Replaced(issued));
        } else {
            self.keep_sending(event, &issued, true);
        }
        lookup
    }

    /// The API rejected the token that a request was sent again with.
    pub(super) fn replay_rejected(&mut self, event: Event<'_>, rejected: Generation) {
        let CurrentToken::InUse(issued) = &self.token else {
            return;
        };
        if issued.generation == rejected && !issued.rejected {
            let issued = Arc::clone(issued);
            self.counts.rejected += 1;
            self.effects.notify = true;
            self.throttle.ineffective(event.now.mono);
            self.keep_sending(event, &issued, true);
        }
    }

    /// The API accepted the token that a request was sent again with.
    pub(super) fn replay_accepted(&mut self) {
        self.throttle.effective();
    }

    /// The refresh `id` ended. Returns what its waiters get.
    pub(super) fn refresh_completed(
        &mut self,
        event: Event<'_>,
        id: u64,
        outcome: Outcome,
    ) -> Result<Arc<Issued>, TokenError> {
        let Some(refresh) = self.take_running(id) else {
            return match outcome {
                Outcome::Token { token, asked } => Ok(self.issue(event, token, asked)),
                Outcome::Failed(error) | Outcome::Unchanged(error) => Err(error),
            };
        };
        match outcome {
            Outcome::Token { token, asked } => {
                let issued = self.issue(event, token, asked);
                self.put_in_use(event, &issued);
                Ok(issued)
            }
            Outcome::Failed(error) => {
                self.counts.failed += 1;
                self.effects.notify = true;
                // After a reset the next attempt starts without regard to how this one ended.
                if refresh.epoch == self.throttle.epoch() {
                    let needed = self.token.usable(event.now).is_none();
                    let random = self.rng.f64();
                    self.throttle.failed(&error, event.now.mono, needed, random);
                }
                if let CurrentToken::Replaced(old) = &self.token {
                    let old = Arc::clone(old);
                    self.keep_sending(event, &old, true);
                }
                Err(error)
            }
            Outcome::Unchanged(error) => {
                self.throttle.unchanged(event.now.mono);
                Err(error)
            }
        }
    }

    /// The task of the refresh `id` disappeared with its runtime.
    pub(super) fn refresh_lost(&mut self, id: u64) {
        if self.take_running(id).is_some() {
            self.give_back_replaced();
        }
    }

    /// The user wants remembered failures to be forgotten.
    pub(super) fn reset(&mut self) {
        self.throttle.reset();
        self.effects.notify = true;
    }

    /// How long until a refresh without traffic is due; `None` if no clock can tell.
    pub(super) fn due_in(&self, event: Event<'_>) -> Option<Duration> {
        let opens_in = self.throttle.opens_in(event.now.mono, event.min_interval());
        match self.token.in_use() {
            None => Some(opens_in),
            Some(issued) => {
                let due = issued.deadlines.due.or(issued.deadlines.unusable)?;
                Some(due.left(event.now).max(opens_in))
            }
        }
    }

    /// The running refresh. One that should have ended long ago is given up: its runtime stands still.
    fn running(&mut self, now: Now) -> Option<&RunningRefresh> {
        if let RefreshState::Running(running) = &self.refresh
            && running.lost_at <= now.mono
        {
            self.refresh = RefreshState::Idle;
            self.give_back_replaced();
        }
        match &self.refresh {
            RefreshState::Running(running) => Some(running),
            RefreshState::Idle => None,
        }
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

    /// Starts the refresh that replaces a rejected token, unless the throttle would delay it for longer than callers wait.
    fn start_replacement(
        &mut self,
        event: Event<'_>,
        rejected: &Issued,
    ) -> Lookup<Arc<SharedResult>> {
        let (now, min_interval) = (event.now.mono, event.min_interval());
        if let Permission::No(error) | Permission::IfChanged(error) =
            self.throttle.permits(now, min_interval, true)
        {
            return Lookup::Failed(error);
        }
        let delay = self.throttle.delay_after_rejection(now, min_interval);
        let message = if !delay.is_zero() && self.throttle.is_ineffective() {
            "recent refreshes did not help, so the next one starts later"
        } else if delay > event.settings().max_wait {
            "the last refresh started too short a time ago for the next"
        } else {
            let cx = self.context(event).rejected(rejected.token.clone());
            return self.start(event, delay, cx, None);
        };
        let error = TokenError::new(TokenErrorKind::Rejected, message);
        Lookup::Failed(error.with_retry_after(delay))
    }

    fn start(
        &mut self,
        event: Event<'_>,
        delay: Duration,
        cx: TokenContext,
        checks_after: Option<TokenError>,
    ) -> Lookup<Arc<SharedResult>> {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Lookup::Failed(error),
        };
        let start = clock::later(event.now.mono, delay);
        self.counts.refreshes += 1;
        let running = RunningRefresh {
            id: self.counts.refreshes,
            result: Arc::new(SharedResult::new(Arc::clone(event.shared))),
            checks_after: checks_after.clone(),
            epoch: self.throttle.epoch(),
            lost_at: clock::later(
                start,
                event.settings().refresh_timeout.saturating_add(LOST_AFTER),
            ),
        };
        let result = Arc::clone(&running.result);
        self.effects.spawn = Some(RefreshTask::new(
            runtime,
            result,
            running.id,
            delay,
            cx,
            checks_after,
        ));
        self.throttle.started(start);
        let lookup = running.lookup();
        self.refresh = RefreshState::Running(running);
        lookup
    }

    /// What the source is told of the current token.
    fn context(&self, event: Event<'_>) -> TokenContext {
        let cx = TokenContext::with_clock(event.settings().clock.clone());
        match self.token.in_use() {
            // A source with a cache of its own must look past a rejected token until another one comes.
            Some(issued) if issued.rejected => cx.rejected(issued.token.clone()),
            Some(issued) => cx.replacing(issued.token.clone()),
            None => cx,
        }
    }

    fn issue(&mut self, event: Event<'_>, token: Token, asked: Now) -> Arc<Issued> {
        let expires = token.expires(asked, event.now);
        let random = self.rng.f64();
        let deadlines = Deadlines::new(expires, &event.settings().schedule, random, event.now);
        let generation = match self.token.issued() {
            Some(before) if before.token.same_secret(&token) => before.generation,
            _ => Generation::next(),
        };
        let expires_at = expires.map(|expires| expires.wall);
        Arc::new(Issued::new(token, generation, deadlines, expires_at))
    }

    fn put_in_use(&mut self, event: Event<'_>, issued: &Arc<Issued>) {
        self.counts.issued += 1;
        self.effects.notify = true;
        self.warning = issued.token.warning().cloned();
        self.throttle.succeeded();
        let rejected = self.token.is_rejected();
        let before = self.token.issued().map(|before| before.generation);
        self.set_token(CurrentToken::InUse(Arc::clone(issued)));
        if before == Some(issued.generation) {
            self.throttle.ineffective(event.now.mono);
            self.keep_sending(event, issued, rejected);
        } else if before.is_some() && !rejected {
            self.throttle.effective();
        }
    }

    /// Keeps sending a token that should be replaced, until the next refresh may start: the server's own response tells the
    /// caller more than an error of ours, and the token may not be the reason for the rejection.
    fn keep_sending(&mut self, event: Event<'_>, issued: &Issued, rejected: bool) {
        let (now, min_interval) = (event.now.mono, event.min_interval());
        let wait = self
            .throttle
            .delay_after_rejection(now, min_interval)
            .max(self.throttle.opens_in(now, min_interval));
        let due = Deadline::after(wait, event.now);
        self.set_token(CurrentToken::InUse(Arc::new(issued.due_at(due, rejected))));
    }

    fn give_back_replaced(&mut self) {
        if let CurrentToken::Replaced(issued) = &self.token {
            let issued = Arc::new(issued.as_rejected());
            self.set_token(CurrentToken::InUse(issued));
        }
    }

    fn set_token(&mut self, token: CurrentToken) {
        self.token = token;
        self.effects.publish = true;
    }
}

impl CurrentToken {
    /// The token that is published.
    pub(super) fn in_use(&self) -> Option<&Arc<Issued>> {
        match self {
            Self::InUse(issued) => Some(issued),
            Self::None | Self::Replaced(_) => None,
        }
    }

    /// The token, whether or not it is published.
    pub(super) fn issued(&self) -> Option<&Arc<Issued>> {
        match self {
            Self::InUse(issued) | Self::Replaced(issued) => Some(issued),
            Self::None => None,
        }
    }

    pub(super) fn is_rejected(&self) -> bool {
        match self {
            Self::None => false,
            Self::InUse(issued) => issued.rejected,
            Self::Replaced(_) => true,
        }
    }

    fn usable(&self, now: Now) -> Option<&Arc<Issued>> {
        self.in_use()
            .filter(|issued| issued.deadlines.freshness(now) != Freshness::Expired)
    }
}

impl RunningRefresh {
    fn lookup(&self) -> Lookup<Arc<SharedResult>> {
        match &self.checks_after {
            Some(error) => Lookup::Failed(error.clone()),
            None => Lookup::Wait(Arc::clone(&self.result)),
        }
    }
}
