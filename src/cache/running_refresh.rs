//! [`RefreshState`]: the refresh of the session, as the state has it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{issued::Generation, lookup::Lookup, refresh_task::RefreshKind, waiter::SharedResult};

/// The refresh of the session.
#[derive(Default)]
pub(super) enum RefreshState {
    #[default]
    Idle,
    Running(RunningRefresh),
}

/// A refresh that runs, as the state knows it.
pub(super) struct RunningRefresh {
    pub(super) id: u64,
    pub(super) result: Arc<SharedResult>,
    pub(super) kind: RefreshKind,
    /// How many resets came before it.
    pub(super) epoch: u32,
    /// When the refresh before it started.
    pub(super) started_before: Option<Instant>,
    pub(super) lost_at: Instant,
    /// A look for a token of another process has found this one meanwhile, which is in use. If the refresh fails, its callers get
    /// it, too.
    pub(super) found: Option<Generation>,
}

impl RunningRefresh {
    /// What a caller that needs a token gets. `epoch` is the number of resets so far: after a reset, no caller gets the error of a
    /// failure before it.
    pub(super) fn lookup(&self, epoch: u32) -> Lookup<Arc<SharedResult>> {
        match &self.kind {
            RefreshKind::IfChanged(error) if self.epoch == epoch => Lookup::Failed(error.clone()),
            RefreshKind::Full
            | RefreshKind::IfChanged(_)
            | RefreshKind::AdoptOnly(_)
            | RefreshKind::Look
            | RefreshKind::StepUp(_) => self.wait(),
        }
    }

    pub(super) fn wait(&self) -> Lookup<Arc<SharedResult>> {
        Lookup::Wait(Arc::clone(&self.result))
    }
}
