//! A gate that requests wait at, so that a test decides what happens meanwhile.

use tokio::sync::watch;

/// Open, unless closed.
#[derive(Default)]
pub(super) struct Gate {
    closed: watch::Sender<bool>,
    parked: watch::Sender<usize>,
}

impl Gate {
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(super) fn open(&self) {
        self.closed.send_replace(false);
    }

    /// Waits until the gate is open.
    pub(super) async fn pass(&self) {
        let mut closed = self.closed.subscribe();
        if *closed.borrow_and_update() {
            let _parked = Parked::new(&self.parked);
            // The sender lives as long as `self`, so waiting cannot fail.
            closed.wait_for(|closed| !closed).await.ok();
        }
    }

    /// Waits until at least `n` wait.
    pub(super) async fn parked(&self, n: usize) {
        let mut parked = self.parked.subscribe();
        parked.wait_for(|parked| *parked >= n).await.ok();
    }
}

/// Counts a request as parked for as long as it waits; one whose client left doesn't wait any more.
struct Parked<'a>(&'a watch::Sender<usize>);

impl<'a> Parked<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
