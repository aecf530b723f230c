//! [`Sender`]: which handle sends, and whether another one still can.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// A bit of the word: no further handle can start, because the body can no longer be sent from its start.
const CLOSED: u32 = 1 << 31;

/// The generation of the handle that sends, in one word with whether the body can be sent from its start. So no handle takes
/// over at the moment when the frames that it needs are given up.
///
/// Relaxed, because everything else that handles share is behind the lock. The fences are for the moment when one handle
/// starts and finds the lock taken, and another one begins to wait and releases it: at least one notices the other.
#[derive(Default)]
pub(super) struct Sender(AtomicU32);

impl Sender {
    /// Returns the generation of a handle that starts now, and so sends instead of all others. `None` if the body can't be
    /// sent from its start: such a handle must not stop the one that sends.
    #[inline]
    pub(super) fn start(&self) -> Option<u32> {
        let next = |word: u32| (word & CLOSED == 0).then(|| word + 1);
        let before = self.0.fetch_update(Relaxed, Relaxed, next).ok()?;
        if before != 0 {
            // Before it tries to lock.
            fence(SeqCst);
        }
        next(before)
    }

    /// As [`is`](Self::is), after the lock was released.
    pub(super) fn is_still(&self, generation: u32) -> bool {
        fence(SeqCst);
        self.is(generation)
    }

    #[inline]
    pub(super) fn is(&self, generation: u32) -> bool {
        self.0.load(Relaxed) & !CLOSED == generation
    }

    pub(super) fn can_start(&self) -> bool {
        self.0.load(Relaxed) & CLOSED == 0
    }

    /// Keeps further handles from starting, unless one has started after `generation`. Then it returns false.
    pub(super) fn close(&self, generation: u32) -> bool {
        self.0
            .compare_exchange(generation, generation | CLOSED, Relaxed, Relaxed)
            .map_or_else(|word| word == generation | CLOSED, |_| true)
    }

    /// Keeps further handles from starting.
    pub(super) fn close_anyway(&self) {
        self.0.fetch_or(CLOSED, Relaxed);
    }
}
