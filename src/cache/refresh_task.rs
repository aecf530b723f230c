//! One call of the source, in a task of its own.
//!
//! A refresh must not end with the caller that happened to need it first: the aborted request may have rotated the refresh
//! token, and the new one would be lost. So callers only wait for a [`SharedResult`]. A [`CompletionGuard`] sets that
//! result also when the task panics or disappears with its runtime.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{self, Instant},
};

use tracing::Instrument;

use super::{lookup::interrupted, step_ups::StepUpRun, waiter::SharedResult};
use crate::{
    clock::{Now, later},
    error::{TokenError, TokenErrorKind},
    events::RefreshReason,
    token::Token,
    token_source::{TokenContext, TokenSource},
};

/// What a refresh may do.
#[derive(Clone)]
pub(super) enum RefreshKind {
    /// Call the source.
    Full,
    /// Call the source if something has changed since it failed with this error.
    IfChanged(TokenError),
    /// Take a token that another process has stored. The source sends no token request. If there is none, callers get this
    /// error.
    AdoptOnly(TokenError),
    /// Call the source for a token that has more. Those that wait for any token start over if there is none.
    StepUp(StepUpRun),
    /// Call the source if another process has begun another session. If it has not, or has ended this one, no token comes.
    Look,
}

/// How a refresh ended.
pub(super) enum RefreshOutcome {
    Token {
        token: Token,
        /// Both clocks, read before the source was asked.
        asked: Now,
    },
    Failed(TokenError),
    /// The source was only asked whether something has changed, and nothing has. Callers get this error.
    Unchanged(TokenError),
    /// Another process has revoked the session.
    Revoked(TokenError),
}

/// A refresh, as its task knows it.
pub(super) struct RefreshRun {
    pub(super) id: u64,
    pub(super) reason: RefreshReason,
    /// When the source was asked. `None` before that.
    pub(super) asked: Option<Instant>,
    /// A look for another session has ended, and there is none.
    pub(super) found_nothing: bool,
}

/// A refresh that is ready to be spawned.
pub(super) struct RefreshTask {
    runtime: Handle,
    guard: CompletionGuard,
    delay: Duration,
    cx: TokenContext,
    kind: RefreshKind,
}

impl RefreshTask {
    pub(super) fn new(
        runtime: Handle,
        result: Arc<SharedResult>,
        run: RefreshRun,
        delay: Duration,
        cx: TokenContext,
        kind: RefreshKind,
    ) -> Self {
        Self {
            runtime,
            guard: CompletionGuard {
                result,
                run,
                is_completing: false,
            },
            delay,
            cx,
            kind,
        }
    }

    pub(super) fn spawn(self) {
        let runtime = self.runtime.clone();
        let events = &self.guard.result.shared.events;
        let span = events.refresh_span(self.guard.run.reason);
        runtime.spawn(self.run().instrument(span));
    }

    async fn run(mut self) {
        if !self.delay.is_zero() {
            time::sleep(self.delay).await;
        }
        let shared = Arc::clone(&self.guard.result.shared);
        let limit = shared.settings.refresh_timeout;
        let asked = shared.now();
        self.guard.run.asked = Some(asked.mono);
        let deadline = later(Instant::now(), limit);
        // A look into the store that takes too long has found nothing. It must not end a pause.
        let found_nothing = match &self.kind {
            RefreshKind::IfChanged(error) => {
                let changed = time::timeout_at(deadline, shared.source.has_changed()).await;
                (!changed.unwrap_or(false)).then(|| RefreshOutcome::Unchanged(error.clone()))
            }
            RefreshKind::Look => {
                let changed = shared.source.session_changed(self.cx.clone());
                match time::timeout_at(deadline, changed).await {
                    Ok(Ok(true)) => None,
                    Ok(Err(error)) => Some(RefreshOutcome::Revoked(error)),
                    // Dropping `self.guard` lets those that wait start over.
                    Ok(Ok(false)) | Err(_) => {
                        self.guard.run.found_nothing = true;
                        return;
                    }
                }
            }
            RefreshKind::Full | RefreshKind::AdoptOnly(_) | RefreshKind::StepUp(_) => None,
        };
        let outcome = match (found_nothing, self.kind) {
            (Some(outcome), _) => outcome,
            (None, RefreshKind::AdoptOnly(error)) => {
                let stored = time::timeout_at(deadline, shared.source.stored_token(self.cx)).await;
                match stored {
                    Ok(Some(token)) => RefreshOutcome::Token {
                        token: token.into_adopted(),
                        asked,
                    },
                    Ok(None) | Err(_) => RefreshOutcome::Unchanged(error),
                }
            }
            (
                None,
                RefreshKind::Full
                | RefreshKind::IfChanged(_)
                | RefreshKind::Look
                | RefreshKind::StepUp(_),
            ) => match time::timeout_at(deadline, shared.source.token(self.cx)).await {
                Ok(Ok(token)) => RefreshOutcome::Token { token, asked },
                Ok(Err(error)) => RefreshOutcome::Failed(error),
                Err(_) => {
                    let message = format!(
                        "the token source did not finish within {limit:?} (`refresh_timeout`)"
                    );
                    let error = TokenError::new(TokenErrorKind::Timeout, message);
                    RefreshOutcome::Failed(error)
                }
            },
        };
        self.guard.complete(outcome);
    }
}

/// Completes a refresh for everyone, however its task ends.
struct CompletionGuard {
    result: Arc<SharedResult>,
    run: RefreshRun,
    is_completing: bool,
}

impl CompletionGuard {
    fn complete(mut self, outcome: RefreshOutcome) {
        self.complete_now(outcome);
    }

    fn complete_now(&mut self, outcome: RefreshOutcome) {
        self.is_completing = true;
        if let RefreshOutcome::Unchanged(error) = &outcome {
            tracing::debug!(%error, "refresh not tried again: nothing has changed");
        }
        let completed = self.result.shared.complete_refresh(&self.run, outcome);
        // The state has changed by now, so that no waiter wakes up to the old one.
        self.result.set(completed);
    }
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        if self.result.is_set() {
            return;
        }
        // If completing itself panicked, as a waker can, it is not tried again.
        if std::thread::panicking() && !self.is_completing {
            self.complete_now(RefreshOutcome::Failed(interrupted(
                "the token source panicked",
            )));
        } else {
            self.result.shared.lose_refresh(&self.run);
            self.result.set(None);
        }
    }
}
