//! [`Deferred`]: what must wait until the lock is released, because its code is foreign and may take the same lock.

use std::task::Waker;

use super::{frames::Frames, shared::Source};

/// What is to be dropped and woken once the lock is released. Usually nothing.
pub(super) struct Deferred<B>(Option<Work<B>>);

struct Work<B> {
    to_wake: Option<Waker>,
    /// The rest is dropped only.
    waker: Option<Waker>,
    source: Option<Source<B>>,
    frames: Frames,
}

impl<B> Default for Deferred<B> {
    fn default() -> Self {
        Self(None)
    }
}

impl<B> Deferred<B> {
    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        if waker.is_some() {
            self.work().to_wake = waker;
        }
    }

    pub(super) fn drop_waker(&mut self, waker: Option<Waker>) {
        if waker.is_some() {
            self.work().waker = waker;
        }
    }

    pub(super) fn drop_source(&mut self, source: Source<B>) {
        self.work().source = Some(source);
    }

    pub(super) fn drop_frames(&mut self, frames: Frames) {
        self.work().frames = frames;
    }

    fn work(&mut self) -> &mut Work<B> {
        self.0.get_or_insert_with(|| Work {
            to_wake: None,
            waker: None,
            source: None,
            frames: Frames::default(),
        })
    }

    #[inline]
    pub(super) fn run(self) {
        if let Some(work) = self.0 {
            work.run();
        }
    }
}

impl<B> Work<B> {
    #[cold]
    fn run(self) {
        drop((self.waker, self.source, self.frames));
        if let Some(waker) = self.to_wake {
            waker.wake();
        }
    }
}
