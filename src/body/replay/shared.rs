//! What the handles of one body share, and which of them may do what next.
//!
//! The lock is held for bookkeeping only. While the user's body is polled it is out of its place, and everything whose
//! `Drop` or `wake` is foreign code leaves in [`After`]: such code may come back to this very lock.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use http_body::{Body, SizeHint};
use tower::BoxError;

use super::{
    Polled, ReplayError,
    after::After,
    frames::Frames,
    poll_bytes,
    reader::{Progress, Reader},
};

pub(crate) struct Shared<B> {
    /// The size of the whole body.
    hint: SizeHint,
    limit: usize,
    state: Mutex<State<B>>,
}

struct State<B> {
    source: Source<B>,
    /// Everything that was read, as long as a handle may still want it.
    frames: Frames,
    replayable: bool,
    /// How many handles have started; the last of them sends.
    turn: u32,
    /// The task of the handle that sends, if that is pending.
    waker: Option<Waker>,
}

pub(super) enum Source<B> {
    Here(B),
    /// Somebody polls it.
    Away,
    Ended,
    /// Its error, for the handle that took over while it happened.
    Failed(BoxError),
}

enum Next<B> {
    Answer(Polled),
    Read(B),
}

impl<B> Shared<B> {
    pub(super) fn new(body: B, hint: SizeHint, limit: usize) -> Self {
        let state = State {
            source: Source::Here(body),
            frames: Frames::default(),
            replayable: true,
            turn: 0,
            waker: None,
        };
        Self {
            hint,
            limit,
            state: Mutex::new(state),
        }
    }

    pub(super) fn hint(&self) -> &SizeHint {
        &self.hint
    }

    pub(super) fn can_replay(&self) -> bool {
        self.lock().replayable
    }

    /// Makes an unstarted handle the one that sends; false if it can't be.
    pub(super) fn start(&self, reader: &mut Reader) -> bool {
        let mut after = After::default();
        let started = self.lock().start(reader, &mut after);
        after.run();
        started
    }

    /// The handle is dropped; if nobody can go on with the rest, that goes too.
    pub(super) fn leave(&self, reader: &Reader) {
        // Who has come to the end has left nothing behind.
        if reader.turn != 0 && reader.progress == Progress::Going {
            let mut after = After::default();
            self.lock().leave(reader, &mut after);
            after.run();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Shared<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll_frame(&self, reader: &mut Reader, cx: &mut Context<'_>) -> Polled {
        if reader.progress != Progress::Going {
            return Poll::Ready(None);
        }
        let mut after = After::default();
        let next = self.lock().advance(reader, cx.waker(), &mut after);
        after.run();
        let polled = match next {
            Next::Answer(polled) => polled,
            Next::Read(body) => self.read(body, reader, cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => reader.count(frame),
            Poll::Ready(Some(Err(_))) => reader.progress = Progress::Failed,
            _ => {}
        }
        polled
    }

    fn read(&self, mut body: B, reader: &mut Reader, cx: &mut Context<'_>) -> Polled {
        let guard = Panicked(self);
        let polled = poll_bytes(&mut body, cx);
        let ended = match &polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
            Poll::Ready(_) => true,
        };
        let waker = polled.is_pending().then(|| cx.waker().clone());
        // What has ended is dropped here, and not under the lock.
        let rest = (!ended).then_some(body);
        mem::forget(guard);

        let mut after = After::default();
        let mut state = self.lock();
        let polled = state.put_back(rest, polled, waker, reader, self.limit, &mut after);
        drop(state);
        after.run();
        polled
    }
}

/// Lets nobody wait for a body that panicked while it was polled, or dropped at its end.
struct Panicked<'a, B>(&'a Shared<B>);

impl<B> Drop for Panicked<'_, B> {
    fn drop(&mut self) {
        let mut after = After::<B>::default();
        let mut state = self.0.lock();
        state.source = Source::Failed(ReplayError::NotReplayable.into());
        state.replayable = false;
        after.wake(state.waker.take());
        drop(state);
        after.run();
    }
}

impl<B> State<B> {
    fn start(&mut self, reader: &mut Reader, after: &mut After<B>) -> bool {
        if reader.turn == 0 {
            // Before it takes over: a handle that can't replay must not stop the one that sends.
            if !self.replayable {
                return false;
            }
            self.turn += 1;
            reader.turn = self.turn;
            after.wake(self.waker.take());
        }
        reader.turn == self.turn
    }

    /// What the handle gets now: a kept frame, an end, or the body to read on from.
    #[inline]
    fn advance(&mut self, reader: &mut Reader, waker: &Waker, after: &mut After<B>) -> Next<B> {
        if reader.turn == 0 {
            if !self.start(reader, after) {
                return Next::Answer(ReplayError::NotReplayable.polled());
            }
        } else if reader.turn == self.turn {
            after.drop_waker(self.waker.take());
        } else {
            return Next::Answer(ReplayError::Superseded.polled());
        }

        if let Some(frame) = self.frames.get(reader.position) {
            reader.position += 1;
            if reader.position == self.frames.len() {
                reader.finish_if(matches!(self.source, Source::Ended));
                self.forget_if_useless(reader, after);
            }
            return Next::Answer(Poll::Ready(Some(Ok(frame))));
        }

        let answer = match mem::replace(&mut self.source, Source::Away) {
            Source::Here(body) => return Next::Read(body),
            Source::Away => {
                self.waker = Some(waker.clone());
                Poll::Pending
            }
            Source::Ended => {
                self.source = Source::Ended;
                reader.finish_if(true);
                Poll::Ready(None)
            }
            Source::Failed(error) => {
                self.source = Source::Ended;
                self.forget_if_useless(reader, after);
                Poll::Ready(Some(Err(error)))
            }
        };
        Next::Answer(answer)
    }

    /// Takes the body back, unless it has ended, with what it yielded, and says what its reader gets of that.
    #[inline]
    fn put_back(
        &mut self,
        body: Option<B>,
        polled: Polled,
        waker: Option<Waker>,
        reader: &mut Reader,
        limit: usize,
        after: &mut After<B>,
    ) -> Polled {
        self.source = body.map_or(Source::Ended, Source::Here);
        match &polled {
            // Also the one that exceeds the limit: if this reader has been superseded meanwhile, the handle that sends
            // has not seen it.
            Poll::Ready(Some(Ok(frame))) if self.replayable => {
                self.replayable = self.frames.keep(frame, limit);
            }
            Poll::Ready(Some(Err(_))) => self.replayable = false,
            _ => {}
        }

        if reader.turn != self.turn {
            after.wake(self.waker.take());
            match polled {
                Poll::Ready(Some(Err(error))) => self.source = Source::Failed(error),
                Poll::Ready(Some(Ok(frame))) if !Frames::can_keep(&frame) => {
                    self.source = Source::Failed(ReplayError::NotReplayable.into());
                }
                _ => {}
            }
            return ReplayError::Superseded.polled();
        }
        match &polled {
            Poll::Pending => self.waker = waker,
            Poll::Ready(Some(Err(_))) => {}
            Poll::Ready(_) => reader.finish_if(matches!(self.source, Source::Ended)),
        }
        reader.position = self.frames.len();
        self.forget_if_useless(reader, after);
        polled
    }

    fn leave(&mut self, reader: &Reader, after: &mut After<B>) {
        if reader.turn == self.turn {
            after.drop_waker(self.waker.take());
            if !self.replayable {
                after.drop_frames(mem::take(&mut self.frames));
                after.drop_source(mem::replace(&mut self.source, Source::Ended));
            }
        }
    }

    /// Lets go of what was kept if nobody but this reader can go on, who has passed it all on.
    fn forget_if_useless(&mut self, reader: &mut Reader, after: &mut After<B>) {
        if !self.replayable {
            reader.position = 0;
            after.drop_frames(mem::take(&mut self.frames));
        }
    }
}
