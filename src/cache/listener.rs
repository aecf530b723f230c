//! Looking at the store when it says that another process has changed the session: a task that ends with the last handle of
//! the cache.
//!
//! Correctness does not depend on it: what it finds would be found later. So it spares the store: many processes are told
//! at the same moment, and look at random times after it, and a flood of notifications costs one look a second.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};

use super::{shared::Shared, status::CacheStatus};
use crate::{
    race::{First, race},
    token_source::TokenSource,
};

/// The longest time between a notification and the look.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// The shortest time between two looks.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time until the source is asked again for notifications that have ended.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Starts the task if the source can tell of changes, a runtime is there, and none runs yet.
pub(super) fn start(shared: &Arc<Shared>) {
    let listens = &shared.listens;
    if listens.load(Ordering::Relaxed) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    // A source that cannot tell is asked once.
    if !listens.swap(true, Ordering::Relaxed)
        && let Some(changes) = shared.source.changes()
    {
        let task = Listener(Arc::downgrade(shared));
        runtime.spawn(task.run(changes, shared.subscribe()));
    }
}

/// When dropped, for example with its runtime, another one may start.
struct Listener(Weak<Shared>);

impl Listener {
    async fn run(self, mut changes: watch::Receiver<()>, mut status: watch::Receiver<CacheStatus>) {
        let mut pause = MIN_INTERVAL;
        loop {
            let last_handle_dropped = status.wait_for(|_| false);
            let has_ended = match race(changes.changed(), last_handle_dropped).await {
                First::Left(result) => result.is_err(),
                First::Right(_) => return,
            };
            sleep(MAX_DELAY.mul_f64(fastrand::f64())).await;
            if has_ended {
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
                let Some(again) = self.0.upgrade().and_then(|it| it.source.changes()) else {
                    return;
                };
                changes = again;
            } else {
                pause = MIN_INTERVAL;
                // What comes from now on needs another look.
                changes.mark_unchanged();
            }
            self.look().await;
            sleep(MIN_INTERVAL).await;
        }
    }

    async fn look(&self) {
        while let Some(shared) = self.0.upgrade() {
            let Some(running) = shared.look() else {
                return;
            };
            let limit = shared.settings.refresh_timeout;
            drop(shared);
            drop(timeout(limit, running.ended()).await);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.listens.store(false, Ordering::Relaxed);
        }
    }
}
