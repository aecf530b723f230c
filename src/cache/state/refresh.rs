//! How a refresh starts and ends.

use std::{sync::Arc, time::Duration};

use super::{State, session::session_revoked};
use crate::{
    cache::{
        current_token::CurrentToken,
        effects::Input,
        issued::Issued,
        lookup::{Lookup, interrupted, runtime},
        refresh_task::{RefreshKind, RefreshOutcome, RefreshRun, RefreshTask},
        running_refresh::{RefreshState, RunningRefresh},
        waiter::{Completed, SharedResult},
    },
    clock::{self, Now},
    events::EventKind,
    token::Token,
    token_source::TokenContext,
};

/// A refresh that has not ended this long after `refresh_timeout` is given up: no thread polls its runtime.
const LOST_AFTER: Duration = Duration::from_secs(10);

impl State {
    /// The refresh `id` ended. Returns what its waiters get; `None` lets them start over.
    pub(in crate::cache) fn refresh_completed(
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
            _ => self.running_completed(input, run, &refresh, outcome, is_revoked),
        };
        self.next_step_up(input);
        completed
    }

    /// The running refresh ended, which is no step-up. If it has only looked for a change since a failure, and a reset came
    /// meanwhile, those that wait for it start over.
    fn running_completed(
        &mut self,
        input: Input<'_>,
        run: &RefreshRun,
        refresh: &RunningRefresh,
        outcome: RefreshOutcome,
        is_revoked: bool,
    ) -> Option<Completed> {
        let is_of_this_epoch = refresh.epoch == self.throttle.epoch();
        let completed = match outcome {
            RefreshOutcome::Token { token, asked } => {
                Ok(self.token_came(input, run, refresh, token, asked))
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
        };
        let is_answer = is_of_this_epoch || !matches!(refresh.kind, RefreshKind::IfChanged(_));
        (is_answer || completed.is_ok()).then_some(completed)
    }

    /// The running refresh has brought a token, which is used from now on.
    pub(super) fn token_came(
        &mut self,
        input: Input<'_>,
        run: &RefreshRun,
        refresh: &RunningRefresh,
        token: Token,
        asked: Now,
    ) -> Arc<Issued> {
        let kind = if token.is_adopted() {
            self.throttle.not_started(refresh.started_before);
            EventKind::Adopted
        } else {
            self.is_after_reset &= refresh.epoch != self.throttle.epoch();
            EventKind::Refreshed
        };
        let wanted = match &refresh.kind {
            RefreshKind::StepUp(step_up) => Some(&*step_up.wanted),
            _ => None,
        };
        let token = self.with_added_scope(input, token, wanted);
        let issued = self.issue(input, token, asked);
        self.refresh_ended(input, run, kind, Ok(&issued));
        self.put_in_use(input, &issued);
        issued
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
                let kind = if self.is_found_beside(run.id, &issued) {
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
    pub(in crate::cache) fn refresh_lost(&mut self, input: Input<'_>, run: &RefreshRun) {
        if let Some(lost) = self.take_running(run.id) {
            self.publish_again();
            if run.found_nothing {
                self.next_step_up(input);
                return;
            }
            self.end_step_ups(Some(&lost.kind), None);
            let error = interrupted("the runtime that ran the refresh shut down");
            self.refresh_ended(input, run, EventKind::Failed, Err(&error));
        }
    }

    pub(in crate::cache) fn is_refreshing(&self) -> bool {
        matches!(self.refresh, RefreshState::Running(_))
    }

    /// Whether a refresh runs that obtains a token in any case.
    pub(super) fn is_replacing(&self) -> bool {
        matches!(
            &self.refresh,
            RefreshState::Running(running) if matches!(running.kind, RefreshKind::Full)
        )
    }

    /// The result of the running refresh, to wait for its end.
    pub(in crate::cache) fn running_result(&mut self, now: Now) -> Option<Arc<SharedResult>> {
        self.running(now).map(|running| Arc::clone(&running.result))
    }

    /// The running refresh. Gives it up if it takes too long.
    pub(super) fn running(&mut self, now: Now) -> Option<&RunningRefresh> {
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
    pub(super) fn joinable(&mut self, now: Now) -> Option<&RunningRefresh> {
        self.running(now)
            .filter(|running| !matches!(running.kind, RefreshKind::AdoptOnly(_)))
    }

    /// Whether a token that the refresh `id` has brought, which no longer runs, takes the place of a rejected one: it does if that
    /// was the look that a refresh has superseded.
    fn is_found_beside(&mut self, id: u64, issued: &Issued) -> bool {
        let before = self.token.issued();
        let is_better = before
            .is_some_and(|before| before.is_rejected() && before.generation != issued.generation);
        if self.look_beside != Some(id) || !is_better {
            return false;
        }
        if let RefreshState::Running(running) = &mut self.refresh {
            running.found = Some(issued.generation);
        }
        true
    }

    /// The token that was found while `refresh` ran, if it can still be used.
    fn found_during(&self, refresh: &RunningRefresh, now: Now) -> Option<Arc<Issued>> {
        let issued = self.token.usable(now)?;
        let is_found = refresh.found == Some(issued.generation);
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

    pub(super) fn start(
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
            found: None,
        };
        if let RefreshState::Running(look) = &self.refresh {
            self.look_beside = Some(look.id);
        }
        let run = RefreshRun {
            id: running.id,
            reason: self.reason(input.now, &kind, &cx),
            asked: None,
            found_nothing: false,
        };
        let result = Arc::clone(&running.result);
        self.effects.spawn = Some(RefreshTask::new(runtime, result, run, delay, cx, kind));
        let lookup = running.lookup(running.epoch);
        self.refresh = RefreshState::Running(running);
        lookup
    }
}
