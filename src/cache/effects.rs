//! What a change of the state gets as input, and what it leaves to be done after it.

use std::{sync::Arc, time::Duration};

use super::{
    refresh_task::RefreshTask,
    shared::{Settings, Shared},
    waiter::{Completed, SharedResult},
};
use crate::{clock::Now, events::Record, token::Warning};

/// What `Shared::change` does after a transition.
#[derive(Default)]
pub(super) struct Effects {
    /// Publish the token again, still under the lock.
    pub(super) publish: bool,
    /// Tell subscribers, after the lock is released.
    pub(super) notify: bool,
    /// Spawn this task, after the lock is released: a runtime that shuts down drops it right there, and that takes the lock.
    pub(super) spawn: Option<RefreshTask>,
    /// Give these to those that wait for a step-up, or for a refresh that no longer counts, after the lock is released.
    pub(super) wake: Vec<(Arc<SharedResult>, Option<Completed>)>,
    /// Log these events and tell the observers, after the lock is released.
    pub(super) events: Vec<Record>,
    /// The session could not be saved. Tell when it is, after the lock is released.
    pub(super) unsaved: Option<Warning>,
}

/// What a transition needs to know.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) now: Now,
}

impl Input<'_> {
    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn min_interval(&self) -> Duration {
        self.settings().schedule.min_interval
    }
}
