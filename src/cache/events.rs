//! The events that transitions of the state leave. They change nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    effects::Input,
    issued::Issued,
    refresh_task::{RefreshKind, RefreshRun},
    rejection::SentToken,
    state::State,
};
use crate::{
    clock::Now,
    error::TokenError,
    events::{EventKind, Record, RefreshReason, ReplayOutcome},
    freshness::Freshness,
    token::Warning,
    token_source::TokenContext,
};

impl State {
    pub(super) fn record(&mut self, record: Record) {
        self.effects.events.push(record);
    }

    /// Why a refresh starts.
    pub(super) fn reason(&self, now: Now, kind: &RefreshKind, cx: &TokenContext) -> RefreshReason {
        match kind {
            RefreshKind::Look => return RefreshReason::Notified,
            RefreshKind::StepUp(_) => return RefreshReason::MoreScope,
            RefreshKind::Full | RefreshKind::IfChanged(_) | RefreshKind::AdoptOnly(_) => {}
        }
        if cx.rejected_token().is_some() {
            return RefreshReason::Rejected;
        }
        match self.token.issued().map(|it| it.deadlines.freshness(now)) {
            None => RefreshReason::NoToken,
            Some(Freshness::Expired) => RefreshReason::Expired,
            Some(Freshness::Due) => RefreshReason::Due,
            Some(Freshness::Fresh) => RefreshReason::Requested,
        }
    }

    /// A refresh has ended, in the way that `kind` says.
    pub(super) fn refresh_ended(
        &mut self,
        input: Input<'_>,
        run: &RefreshRun,
        kind: EventKind,
        result: Result<&Issued, &TokenError>,
    ) {
        let record = match result {
            Ok(issued) => of_token(kind, input.now, issued),
            Err(error) => {
                let is_rejected = self.token.is_rejected();
                let min_interval = input.min_interval();
                let held = self
                    .throttle
                    .held_for(input.now.mono, min_interval, is_rejected);
                of_failure(kind, input.now, error, held)
            }
        };
        self.record_end(input, run, record);
    }

    /// A step-up has failed. `held` is for how long the same is not tried again. The session goes on, whatever the error says.
    pub(super) fn step_up_failed(
        &mut self,
        input: Input<'_>,
        run: &RefreshRun,
        error: &TokenError,
        held: Option<Duration>,
    ) {
        let record = of_failure(EventKind::Failed, input.now, error, held);
        self.record_end(input, run, record);
    }

    fn record_end(&mut self, input: Input<'_>, run: &RefreshRun, mut record: Record) {
        record.reason = Some(run.reason);
        record.duration = run
            .asked
            .map(|asked| input.now.mono.saturating_duration_since(asked));
        self.record(record);
    }

    /// A login has taken the place of the session. `issued` is its token.
    pub(super) fn login_taken(&mut self, input: Input<'_>, issued: Option<&Issued>) {
        let kind = EventKind::LoggedIn;
        self.record(match issued {
            Some(issued) => of_token(kind, input.now, issued),
            None => Record::new(kind, input.now.wall),
        });
    }

    /// The current token was rejected for the first time.
    pub(super) fn token_was_rejected(&mut self, input: Input<'_>, issued: &Issued) {
        self.record(Record {
            generation: Some(issued.generation.number()),
            ..Record::new(EventKind::Rejected, input.now.wall)
        });
    }

    pub(super) fn replay_ended(
        &mut self,
        input: Input<'_>,
        sent: Option<SentToken>,
        outcome: ReplayOutcome,
        error: Option<&TokenError>,
    ) {
        self.record(Record {
            generation: sent.map(|sent| sent.generation.number()),
            outcome: Some(outcome),
            error: error.cloned(),
            ..Record::new(EventKind::Replayed, input.now.wall)
        });
    }

    /// The token in use came with this warning, or with none.
    pub(super) fn set_warning(&mut self, input: Input<'_>, warning: Option<Warning>) {
        let is_same = |new: &Warning| self.warning.as_ref().is_some_and(|old| old.is_same(new));
        if let Some(warning) = warning.as_ref().filter(|it| !is_same(it)) {
            self.record(Record {
                error: Some(warning.cause().clone()),
                ..Record::new(EventKind::NotSaved, input.now.wall)
            });
            self.effects.unsaved = Some(warning.clone());
        }
        self.warning = warning;
    }

    /// The session of a token that came `since` then is saved, after that had failed.
    pub(super) fn saved_late(&mut self, input: Input<'_>, since: Instant) {
        self.record(Record {
            duration: Some(input.now.mono.saturating_duration_since(since)),
            ..Record::new(EventKind::SavedLate, input.now.wall)
        });
    }
}

fn of_failure(kind: EventKind, now: Now, error: &TokenError, held: Option<Duration>) -> Record {
    Record {
        error: Some(error.clone()),
        next_due: held.map(|held| now.later(held).wall),
        ..Record::new(kind, now.wall)
    }
}

fn of_token(kind: EventKind, now: Now, issued: &Issued) -> Record {
    let due = issued.deadlines.due.or(issued.deadlines.unusable);
    Record {
        generation: Some(issued.generation.number()),
        expires_at: issued.expires_at,
        next_due: due.map(|due| due.wall),
        ..Record::new(kind, now.wall)
    }
}
