//! Renewal without traffic: a task that ends with the last handle.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time};

use super::{state::Shared, status::CacheStatus};

/// A suspended machine's timers stand still, so the wall clock is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Shared {
    /// Starts the task that renews without traffic, if the schedule asks for it, a runtime is there, and none runs yet.
    pub(super) fn background_refresh(shared: &Arc<Self>) {
        if !shared.settings.schedule.background_refresh || shared.kept_warm.load(Ordering::Relaxed)
        {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if !shared.kept_warm.swap(true, Ordering::Relaxed) {
            let keeper = Keeper(Arc::downgrade(shared));
            runtime.spawn(background_refresh(keeper, shared.subscribe()));
        }
    }
}

/// What could not be begun is tried again this soon.
const SOON: Duration = Duration::from_secs(1);

/// Lets another keeper begin if this one ends with its runtime.
struct Keeper(Weak<Shared>);

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.kept_warm.store(false, Ordering::Relaxed);
        }
    }
}

async fn background_refresh(keeper: Keeper, mut status: watch::Receiver<CacheStatus>) {
    loop {
        // Held for a moment only: between the looks the cache may be dropped.
        let Some(shared) = keeper.0.upgrade() else {
            return;
        };
        let due = shared.due_in(shared.now());
        if due == Some(Duration::ZERO) {
            shared.renew_behind();
        }
        drop(shared);
        let pause = match due {
            // A flight is under way, or somebody had the lock.
            Some(Duration::ZERO) => SOON,
            None => LOOK_EVERY,
            Some(due) => due.min(LOOK_EVERY),
        };
        if let Ok(Err(_last_handle_dropped)) = time::timeout(pause, status.changed()).await {
            return;
        }
    }
}
