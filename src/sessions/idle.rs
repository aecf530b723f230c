//! Dropping sessions that were not used for a while.
//!
//! A request must not read a clock for this. So a task counts rounds, each a quarter of the idle timeout, and a session
//! remembers the round in which it was used last.

use std::{
    hash::Hash,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::timeout};

use super::{session::Session, shared::Shared};

const ROUNDS: u32 = 4;

/// Each round looks at every session.
const MIN_ROUND: Duration = Duration::from_millis(250);

/// Starts the task, unless it runs.
pub(super) fn start<K>(shared: &Arc<Shared<K>>, runtime: &Handle)
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    if !shared.drops_idle_sessions.swap(true, Ordering::Relaxed) {
        let task = IdleTask(Arc::downgrade(shared));
        let round = (shared.settings.idle_timeout / ROUNDS).max(MIN_ROUND);
        runtime.spawn(task.run(round, shared.alive.subscribe()));
    }
}

/// When dropped, for example with its runtime, another one may start.
struct IdleTask<K>(Weak<Shared<K>>);

impl<K> IdleTask<K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    async fn run(self, round: Duration, mut alive: watch::Receiver<()>) {
        while timeout(round, alive.changed()).await.is_err() {
            let Some(shared) = self.0.upgrade() else {
                return;
            };
            let round = shared.round.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            shared.drop_idle(round);
        }
    }
}

impl<K> Drop for IdleTask<K> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.drops_idle_sessions.store(false, Ordering::Relaxed);
        }
    }
}

impl<K: Clone + Eq + Hash> Shared<K> {
    /// Drops what was last used more than [`ROUNDS`] before this round.
    fn drop_idle(&self, round: u32) {
        for (key, session) in self.map.iter() {
            if session.idle_rounds(round) > ROUNDS {
                drop(session);
                // Under the lock of the map it is looked at again: it may be in use by now.
                let is_idle = |session: &Arc<Session>| {
                    session.idle_rounds(round) > ROUNDS && !session.is_pinned()
                };
                drop(self.map.remove_if(&key, is_idle));
            }
        }
    }
}
