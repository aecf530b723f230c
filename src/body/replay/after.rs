//! What is done once the lock is released: such code is foreign, and may come back to that very lock.

use std::task::Waker;

use super::frames::Frames;

/// What is to be woken and dropped once the lock is released.
pub(super) struct After<B> {
    pub(super) wake: Option<Waker>,
    pub(super) waker: Option<Waker>,
    pub(super) body: Option<B>,
    pub(super) frames: Frames,
}

impl<B> Default for After<B> {
    fn default() -> Self {
        Self {
            wake: None,
            waker: None,
            body: None,
            frames: Frames::default(),
        }
    }
}

impl<B> After<B> {
    pub(super) fn run(self) {
        drop((self.waker, self.body, self.frames));
        if let Some(waker) = self.wake {
            waker.wake();
        }
    }
}
