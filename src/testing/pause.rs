//! [`Pause`]: holds requests back, so that a test decides what happens in the meantime.

use tokio::sync::watch;

/// Lets requests pass, unless it was started.
#[derive(Default)]
pub(super) struct Pause {
    on: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

impl Pause {
    pub(super) fn start(&self) {
        self.on.send_replace(true);
    }

    pub(super) fn end(&self) {
        self.on.send_replace(false);
    }

    /// Waits until there is no pause.
    pub(super) async fn pass(&self) {
        let mut on = self.on.subscribe();
        if *on.borrow_and_update() {
            let _held = Held::new(&self.held);
            // The sender lives as long as `self`, so waiting cannot fail.
            on.wait_for(|on| !on).await.ok();
        }
    }

    /// Waits until at least `n` requests are held.
    pub(super) async fn wait_for_held(&self, n: usize) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| *held >= n).await.ok();
    }
}

/// Counts a request as held while it waits. A request that its client drops is no longer counted.
struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
