//! Refreshing without traffic: a task that ends with the last handle of the cache.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time};

use super::{shared::Shared, status::CacheStatus};

/// The wall clock is looked at this often: timers stand still while the machine is suspended.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The pause if a due refresh could not start: one is running, or another thread holds the lock.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The pause after each refresh that was started, whatever the schedule says: its `min_interval` may be zero.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Starts the task if the schedule asks for it, a runtime is there, and none runs yet.
pub(super) fn start(shared: &Arc<Shared>) {
    let runs = &shared.refreshes_in_background;
    if !shared.settings.schedule.background_refresh || runs.load(Ordering::Relaxed) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    if !runs.swap(true, Ordering::Relaxed) {
        let task = BackgroundTask(Arc::downgrade(shared));
        runtime.spawn(task.run(shared.subscribe()));
    }
}

/// When dropped, for example with its runtime, another one may start.
struct BackgroundTask(Weak<Shared>);

impl BackgroundTask {
    async fn run(self, mut status: watch::Receiver<CacheStatus>) {
        // The cache is held for a moment only: it may be dropped during a pause.
        while let Some(shared) = self.0.upgrade() {
            let due = shared.due_in();
            if due == Some(Duration::ZERO) {
                shared.refresh_due();
            }
            drop(shared);
            if due == Some(Duration::ZERO) {
                time::sleep(MIN_PAUSE).await;
            }
            let pause = match due {
                Some(Duration::ZERO) => RETRY_PAUSE,
                None => MAX_PAUSE,
                Some(due) => due.min(MAX_PAUSE),
            };
            if let Ok(Err(_last_handle_dropped)) = time::timeout(pause, status.changed()).await {
                return;
            }
        }
    }
}

impl Drop for BackgroundTask {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared
                .refreshes_in_background
                .store(false, Ordering::Relaxed);
        }
    }
}
