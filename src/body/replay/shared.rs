//! [`Shared`]: the state that the handles of one body share, and every change of it.
//!
//! [The module above](super) describes how it works.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use http_body::{Body, SizeHint};
use tower::BoxError;

use super::{
    Polled, ReplayError,
    body::poll_bytes,
    deferred::Deferred,
    frames::Frames,
    reader::{Progress, Reader},
};

pub(crate) struct Shared<B> {
    /// The size hint of the whole body.
    hint: SizeHint,
    limit: usize,
    state: Mutex<State<B>>,
}

struct State<B> {
    source: Source<B>,
    /// Everything that was read, as long as a handle may still need it.
    frames: Frames,
    replayable: bool,
    /// How many handles have started; the last of them sends.
    generation: u32,
    /// The waker of the handle that sends, if that is pending.
    waker: Option<Waker>,
}

pub(super) enum Source<B> {
    Available(B),
    /// A handle is polling the body and holds it.
    Polling,
    Ended,
    /// The error of the body, kept for the handle that took over during the poll.
    Failed(BoxError),
}

/// What a poll of a handle does next.
enum Next<B> {
    Return(Polled),
    Poll(B),
}

impl<B> Shared<B> {
    pub(super) fn new(body: B, hint: SizeHint, limit: usize) -> Self {
        let state = State {
            source: Source::Available(body),
            frames: Frames::default(),
            replayable: true,
            generation: 0,
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

    /// Makes a new handle the one that sends. Returns false if it can't send the body from its start.
    pub(super) fn start(&self, reader: &mut Reader) -> bool {
        let mut deferred = Deferred::default();
        let started = self.lock().start(reader, &mut deferred);
        deferred.run();
        started
    }

    /// Called when a handle is dropped. Frees the body if no other handle can send the rest.
    pub(super) fn release(&self, reader: &Reader) {
        // A handle that has finished or failed has nothing left to free, and must not cost a lock.
        if reader.generation != 0 && reader.progress == Progress::Sending {
            let mut deferred = Deferred::default();
            self.lock().release(reader, &mut deferred);
            deferred.run();
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
        if reader.progress != Progress::Sending {
            return Poll::Ready(None);
        }
        let mut deferred = Deferred::default();
        let next = self.lock().advance(reader, cx.waker(), &mut deferred);
        deferred.run();
        match next {
            Next::Return(polled) => {
                reader.count(&polled);
                polled
            }
            Next::Poll(body) => self.read(body, reader, cx),
        }
    }

    fn read(&self, mut body: B, reader: &mut Reader, cx: &mut Context<'_>) -> Polled {
        let fail_on_panic = FailOnPanic(self);
        let mut polled = poll_bytes(&mut body, cx);
        let ended = match &polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
            Poll::Ready(_) => true,
        };
        let waker = polled.is_pending().then(|| cx.waker().clone());
        // A body that has ended is dropped here, not under the lock.
        let rest = (!ended).then_some(body);
        mem::forget(fail_on_panic);

        let mut deferred = Deferred::default();
        let mut state = self.lock();
        state.put_back(rest, &mut polled, waker, reader, self.limit, &mut deferred);
        drop(state);
        deferred.run();
        reader.count(&polled);
        polled
    }
}

/// Marks the body as failed if it panics while it is polled or dropped, so that no handle waits for it.
struct FailOnPanic<'a, B>(&'a Shared<B>);

impl<B> Drop for FailOnPanic<'_, B> {
    fn drop(&mut self) {
        let mut deferred = Deferred::<B>::default();
        let mut state = self.0.lock();
        state.source = Source::Failed(ReplayError::NotReplayable.into());
        state.replayable = false;
        deferred.wake(state.waker.take());
        drop(state);
        deferred.run();
    }
}

impl<B> State<B> {
    fn start(&mut self, reader: &mut Reader, deferred: &mut Deferred<B>) -> bool {
        if reader.generation == 0 {
            // Checked before it takes over: a handle that can't replay must not stop the one that sends.
            if !self.replayable {
                return false;
            }
            self.generation += 1;
            reader.generation = self.generation;
            deferred.wake(self.waker.take());
        }
        reader.generation == self.generation
    }

    /// Returns what the handle yields now, or the body to poll.
    #[inline]
    fn advance(
        &mut self,
        reader: &mut Reader,
        waker: &Waker,
        deferred: &mut Deferred<B>,
    ) -> Next<B> {
        if reader.generation == 0 {
            if !self.start(reader, deferred) {
                return Next::Return(ReplayError::NotReplayable.into_poll());
            }
        } else if reader.generation == self.generation {
            deferred.drop_waker(self.waker.take());
        } else {
            return Next::Return(ReplayError::Superseded.into_poll());
        }

        if reader.position < self.frames.len()
            && let Some(frame) = self.frames.get(reader.position)
        {
            reader.position += 1;
            if reader.position == self.frames.len() {
                reader.finish_if(matches!(self.source, Source::Ended));
                self.free_unless_replayable(reader, deferred);
            }
            return Next::Return(Poll::Ready(Some(Ok(frame))));
        }

        let polled = match mem::replace(&mut self.source, Source::Polling) {
            Source::Available(body) => return Next::Poll(body),
            Source::Polling => {
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
                self.free_unless_replayable(reader, deferred);
                Poll::Ready(Some(Err(error)))
            }
        };
        Next::Return(polled)
    }

    /// Takes back the body, if it has not ended, and keeps the frame that it yielded. Changes `polled` to what the handle
    /// yields. In place, because a frame is large and each move copies it.
    #[inline]
    fn put_back(
        &mut self,
        body: Option<B>,
        polled: &mut Polled,
        waker: Option<Waker>,
        reader: &mut Reader,
        limit: usize,
        deferred: &mut Deferred<B>,
    ) {
        self.source = body.map_or(Source::Ended, Source::Available);
        match &*polled {
            // The frame that exceeds the limit is kept too: if this reader has been superseded meanwhile, the handle
            // that sends has not seen it.
            Poll::Ready(Some(Ok(frame))) if self.replayable => {
                self.replayable = self.frames.keep(frame, limit);
            }
            Poll::Ready(Some(Err(_))) => self.replayable = false,
            _ => {}
        }

        if reader.generation != self.generation {
            deferred.wake(self.waker.take());
            match mem::replace(polled, ReplayError::Superseded.into_poll()) {
                Poll::Ready(Some(Err(error))) => self.source = Source::Failed(error),
                Poll::Ready(Some(Ok(frame))) if !Frames::can_keep(&frame) => {
                    self.source = Source::Failed(ReplayError::NotReplayable.into());
                }
                _ => {}
            }
            return;
        }
        match &*polled {
            Poll::Pending => self.waker = waker,
            Poll::Ready(Some(Err(_))) => {}
            Poll::Ready(_) => reader.finish_if(matches!(self.source, Source::Ended)),
        }
        reader.position = self.frames.len();
        self.free_unless_replayable(reader, deferred);
    }

    fn release(&mut self, reader: &Reader, deferred: &mut Deferred<B>) {
        if reader.generation == self.generation {
            deferred.drop_waker(self.waker.take());
            if !self.replayable {
                deferred.drop_frames(mem::take(&mut self.frames));
                deferred.drop_source(mem::replace(&mut self.source, Source::Ended));
            }
        }
    }

    /// Frees the kept frames if no new handle can replay them. This reader has yielded them all.
    fn free_unless_replayable(&mut self, reader: &mut Reader, deferred: &mut Deferred<B>) {
        if !self.replayable {
            reader.position = 0;
            deferred.drop_frames(mem::take(&mut self.frames));
        }
    }
}
