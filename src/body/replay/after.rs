//! What is done once the lock is released: such code is foreign, and may come back to that very lock.

use std::task::Waker;

use super::{frames::Frames, shared::Source};

/// What is to be dropped and woken once the lock is released. Mostly there is nothing.
pub(super) struct After<B>(Option<Left<B>>);

struct Left<B> {
    wake: Option<Waker>,
    waker: Option<Waker>,
    source: Option<Source<B>>,
    frames: Frames,
}

impl<B> Default for After<B> {
    fn default() -> Self {
        Self(None)
    }
}

impl<B> After<B> {
    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        if waker.is_some() {
            self.left().wake = waker;
        }
    }

    pub(super) fn drop_waker(&mut self, waker: Option<Waker>) {
        if waker.is_some() {
            self.left().waker = waker;
        }
    }

    pub(super) fn drop_source(&mut self, source: Source<B>) {
        self.left().source = Some(source);
    }

    pub(super) fn drop_frames(&mut self, frames: Frames) {
        self.left().frames = frames;
    }

    fn left(&mut self) -> &mut Left<B> {
        self.0.get_or_insert_with(|| Left {
            wake: None,
            waker: None,
            source: None,
            frames: Frames::default(),
        })
    }

    #[inline]
    pub(super) fn run(self) {
        if let Some(left) = self.0 {
            left.run();
        }
    }
}

impl<B> Left<B> {
    #[cold]
    fn run(self) {
        drop((self.waker, self.source, self.frames));
        if let Some(waker) = self.wake {
            waker.wake();
        }
    }
}
