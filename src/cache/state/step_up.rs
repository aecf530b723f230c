//! The transitions of step-ups. What waits, what was refused, and the budget are in `step_ups.rs`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::State;
use crate::{
    cache::{
        effects::Input,
        issued::Generation,
        lookup::Lookup,
        refresh_task::{RefreshKind, RefreshOutcome, RefreshRun},
        running_refresh::RunningRefresh,
        step_ups::{StepUpRun, StepUps},
        throttle::Permission,
        waiter::{Completed, SharedResult},
    },
    challenge::{Challenge, Wanted},
    error::TokenError,
    events::EventKind,
    token::Token,
};

impl State {
    /// The API asks for more than the token of this generation has. That is no rejection: other requests go on with it.
    pub(in crate::cache) fn more_wanted(
        &mut self,
        input: Input<'_>,
        sent: Generation,
        challenge: &Arc<Challenge>,
    ) -> Lookup<Arc<SharedResult>> {
        let wanted = match self.lacking(input, sent, challenge) {
            Ok(Some(wanted)) => Arc::new(wanted),
            Ok(None) => return self.token_wanted(input, Some(sent)),
            Err(reason) => return Lookup::Failed(reason),
        };
        let running = self.running(input.now).map(|running| running.kind.clone());
        let same = match &running {
            Some(RefreshKind::StepUp(run)) if run.wanted == wanted => Some(run),
            _ => self.step_ups().find(&wanted),
        };
        if let Some(run) = same {
            return Lookup::Wait(Arc::clone(&run.result));
        }
        let run = StepUpRun {
            sent,
            challenge: Arc::clone(challenge),
            wanted,
            result: Arc::new(SharedResult::new(Arc::clone(input.shared))),
        };
        let waiting = Lookup::Wait(Arc::clone(&run.result));
        let begun = match running {
            Some(_) => self.step_ups().push(run),
            None => self.start_step_up(input, run),
        };
        begun.map_or_else(Lookup::Failed, |()| waiting)
    }

    /// A step-up ended. If it failed, the token before it stays in use, and only the requests that need more get the error.
    pub(super) fn step_up_completed(
        &mut self,
        input: Input<'_>,
        run: &RefreshRun,
        refresh: &RunningRefresh,
        step_up: &StepUpRun,
        outcome: RefreshOutcome,
    ) -> Option<Completed> {
        let before = self.token.issued().map(|before| before.token.clone());
        let granted = match outcome {
            RefreshOutcome::Token { token, asked } => {
                // What another process has stored is the session, whatever was granted before.
                let checked = if token.is_adopted() {
                    Ok(())
                } else {
                    step_up.wanted.check_granted(before.as_ref(), &token)
                };
                checked.map(|()| (token, asked))
            }
            RefreshOutcome::Failed(error)
            | RefreshOutcome::Unchanged(error)
            | RefreshOutcome::Revoked(error) => Err(error),
        };
        let completed = match granted {
            Ok((token, asked)) => {
                let issued = self.token_came(input, run, refresh, token, asked);
                self.step_ups()
                    .set_claims(issued.generation, &step_up.wanted);
                Ok(issued)
            }
            Err(error) => {
                let is_of_this_epoch = refresh.epoch == self.throttle.epoch();
                let held = is_of_this_epoch.then(|| {
                    let wanted = Arc::clone(&step_up.wanted);
                    let now = input.now.mono;
                    self.step_ups().refused(wanted, error.clone(), now)
                });
                if run.id <= self.revoked_up_to {
                    self.refresh_ended(input, run, EventKind::Superseded, Err(&error));
                } else {
                    self.step_up_failed(input, run, &error, held);
                }
                Err(error)
            }
        };
        let for_others = completed.clone().ok().map(Ok);
        let woken = (Arc::clone(&step_up.result), Some(completed));
        self.effects.wake.push(woken);
        for_others
    }

    /// Starts the next step-up that waits, unless the token that has come meanwhile has what it wants.
    pub(super) fn next_step_up(&mut self, input: Input<'_>) {
        while !self.is_refreshing()
            && let Some(run) = self.step_ups.as_mut().and_then(|it| it.pop())
        {
            let woken = match self.lacking(input, run.sent, &run.challenge) {
                Ok(Some(wanted)) => {
                    let wanted = Arc::new(wanted);
                    let result = Arc::clone(&run.result);
                    let begun = self.start_step_up(input, StepUpRun { wanted, ..run });
                    begun.err().map(|reason| (result, Some(Err(reason))))
                }
                Ok(None) => Some((run.result, self.token.in_use().cloned().map(Ok))),
                Err(reason) => Some((run.result, Some(Err(reason)))),
            };
            self.effects.wake.extend(woken);
        }
    }

    /// Gives this to the requests that wait for a step-up. `None` lets them start over.
    pub(super) fn end_step_ups(
        &mut self,
        running: Option<&RefreshKind>,
        completed: Option<&Completed>,
    ) {
        let running = running.and_then(|kind| match kind {
            RefreshKind::StepUp(run) => Some(run.clone()),
            _ => None,
        });
        let mut waiting = self.step_ups.as_mut();
        let waiting = std::iter::from_fn(|| waiting.as_mut()?.pop());
        let woken = running.into_iter().chain(waiting);
        let woken = woken.map(|run| (run.result, completed.cloned()));
        self.effects.wake.extend(woken);
    }

    /// What `challenge` asks for that the current token lacks. `None` if that has come since the token of `sent`.
    fn lacking(
        &mut self,
        input: Input<'_>,
        sent: Generation,
        challenge: &Challenge,
    ) -> Result<Option<Wanted>, TokenError> {
        let settings = input.settings();
        let (Some(issued), Some(allowed)) = (self.token.issued().cloned(), &settings.step_up)
        else {
            return Ok(None);
        };
        let wanted = Wanted::by(challenge, allowed, &settings.own_scopes, &issued.token)?;
        let is_newer = issued.generation != sent;
        let step_ups = self.step_ups();
        if !step_ups.has(&wanted, &issued, is_newer) {
            return match step_ups.refusal(&wanted, input.now.mono) {
                Some(reason) => Err(reason),
                None => Ok(Some(wanted)),
            };
        }
        if is_newer {
            return Ok(None);
        }
        Err(wanted.not_had("the token was requested with it already"))
    }

    /// Starts a step-up, if nothing holds it back. `min_interval` does not: what an API asks for is bounded by itself.
    fn start_step_up(&mut self, input: Input<'_>, run: StepUpRun) -> Result<(), TokenError> {
        let now = input.now.mono;
        match self.throttle.permits(now, input.min_interval(), true) {
            Permission::No(error) | Permission::IfChanged(error) => return Err(error),
            Permission::After(_) => self.step_ups().withdraw(&run.wanted, now)?,
        }
        let cx = self.context(input);
        let cx = cx.wanting(Arc::clone(&run.challenge), Arc::clone(&run.wanted));
        match self.start(input, Duration::ZERO, cx, RefreshKind::StepUp(run)) {
            Lookup::Failed(error) => Err(error),
            Lookup::Ready(_) | Lookup::Wait(_) => Ok(()),
        }
    }

    /// The token with the scope that it was requested with beyond that of its source. A source that does not say so has
    /// followed its context.
    pub(super) fn with_added_scope(
        &self,
        input: Input<'_>,
        token: Token,
        wanted: Option<&Wanted>,
    ) -> Token {
        if input.settings().step_up.is_none() || token.added_scope().is_some() {
            return token;
        }
        let before = self.token.issued();
        let kept = before.and_then(|before| before.token.added_scope());
        let kept = kept.iter().flat_map(|scope| scope.split(' '));
        let wanted = wanted.into_iter().flat_map(Wanted::scopes);
        let all: BTreeSet<_> = kept.chain(wanted).filter(|name| !name.is_empty()).collect();
        if all.is_empty() {
            return token;
        }
        token.with_added_scope(all.into_iter().collect::<Vec<_>>().join(" "))
    }

    fn step_ups(&mut self) -> &mut StepUps {
        self.step_ups.get_or_insert_default()
    }

    pub(super) fn forget_refusals(&mut self) {
        if let Some(step_ups) = &mut self.step_ups {
            step_ups.forget();
        }
    }
}
