//! [`Shared`]: what the handles of one body share, and every change of it.
//!
//! [The module above](super) describes how it works.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::{
    Polled, ReplayError,
    frames::Frames,
    reader::{Progress, Reader},
    sender::Sender,
    state::{Source, State},
};

pub(crate) struct Shared<B> {
    /// The size hint of the whole body.
    hint: SizeHint,
    limit: usize,
    sender: Sender,
    /// Never waited for: it is held while the body is polled.
    state: Mutex<State<B>>,
}

impl<B> Shared<B> {
    #[inline]
    pub(super) fn new(body: B, hint: SizeHint, limit: usize) -> Self {
        Self {
            hint,
            limit,
            sender: Sender::default(),
            state: Mutex::new(State::new(body)),
        }
    }

    pub(super) fn hint(&self) -> &SizeHint {
        &self.hint
    }

    pub(super) fn can_replay(&self) -> bool {
        // A lock is poisoned if the body panicked.
        self.sender.can_start() && !self.state.is_poisoned()
    }

    /// Makes a new handle the one that sends. Returns false if it can't send the body from its start.
    #[inline]
    fn start(&self, reader: &mut Reader) -> bool {
        if self.state.is_poisoned() {
            return false;
        }
        let generation = self.sender.start();
        reader.generation = generation.unwrap_or_default();
        generation.is_some()
    }

    /// As [`start`](Self::start), before the handle is polled. Wakes the handle that was sending, so that it fails.
    pub(super) fn take_over(&self, reader: &mut Reader) -> bool {
        let has_started = self.start(reader);
        // If the lock is taken, that handle is being polled, and notices it by itself.
        if has_started && let Ok(mut state) = self.state.try_lock() {
            state.take_waker(reader);
        }
        has_started
    }

    /// The body, for a handle that goes on [alone](Progress::Alone).
    #[cold]
    pub(super) fn take_body(&self) -> Option<B> {
        // No other handle gets further than the lock, so this does not wait for a poll.
        let state = self.state.lock();
        state.unwrap_or_else(PoisonError::into_inner).give_up()
    }

    /// Called when a handle is dropped.
    #[inline]
    pub(super) fn release(&self, reader: &Reader) {
        if reader.is_waiting || reader.progress == Progress::Alone {
            self.clear(reader);
        }
    }

    #[cold]
    fn clear(&self, reader: &Reader) {
        if reader.progress == Progress::Alone {
            drop(self.take_body());
        } else if self.sender.is(reader.generation)
            && let Ok(mut state) = self.state.try_lock()
        {
            // A newer handle takes out the waker by itself.
            state.waker = None;
        }
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
        if reader.generation == 0 && !self.start(reader) {
            return reader.fail(ReplayError::NotReplayable);
        }
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(error) => return self.without_lock(error, reader, cx),
        };
        if !self.sender.is(reader.generation) {
            return superseded(state, reader);
        }
        if state.waker.is_some() {
            state.take_waker(reader);
        }
        if reader.position < state.frames.len() {
            return state.yield_kept(reader);
        }
        match state.read(cx) {
            // Taken out of its frame, which would cost three times as much to move.
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.yield_data(&mut state, data, reader, cx),
                Err(frame) => self.yield_trailers(&mut state, frame, reader),
            },
            Poll::Ready(Some(Err(error))) => self.yield_error(&mut state, error, reader),
            _ if !self.sender.is(reader.generation) => reader.fail(ReplayError::Superseded),
            Poll::Ready(None) => {
                state.finish(reader);
                Poll::Ready(None)
            }
            Poll::Pending => {
                state.waker = Some(cx.waker().clone());
                reader.is_waiting = true;
                drop(state);
                // If a newer handle has found the lock taken, it does not wake this one.
                if !self.sender.is_still(reader.generation) {
                    return reader.fail(ReplayError::Superseded);
                }
                Poll::Pending
            }
        }
    }

    /// Another handle is being polled at the moment, on another thread or further up the stack; or a poll has panicked.
    #[cold]
    fn without_lock(
        &self,
        error: TryLockError<MutexGuard<'_, State<B>>>,
        reader: &mut Reader,
        cx: &mut Context<'_>,
    ) -> Polled {
        match error {
            TryLockError::Poisoned(error) => {
                error.into_inner().give_up();
                reader.fail(ReplayError::NotReplayable)
            }
            TryLockError::WouldBlock if !self.sender.is(reader.generation) => {
                reader.fail(ReplayError::Superseded)
            }
            TryLockError::WouldBlock => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    #[inline]
    fn yield_data(
        &self,
        state: &mut State<B>,
        data: Bytes,
        reader: &mut Reader,
        cx: &mut Context<'_>,
    ) -> Polled {
        let is_first = reader.position == 0;
        let is_kept = self.sender.is(reader.generation) && state.frames.keep(&data, self.limit);
        if !is_kept && !self.go_on_alone(state, reader) {
            return state.put_back(Frame::data(data), reader);
        }
        reader.position = state.frames.len();
        reader.sent += data.len() as u64;
        if is_first && reader.may_end(&self.hint) {
            self.read_ahead(state, reader, cx);
        }
        state.finish(reader);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    #[cold]
    fn yield_trailers(
        &self,
        state: &mut State<B>,
        frame: Frame<Bytes>,
        reader: &mut Reader,
    ) -> Polled {
        let is_kept =
            self.sender.is(reader.generation) && state.frames.keep_trailers(&frame, self.limit);
        if !is_kept && !self.go_on_alone(state, reader) {
            return state.put_back(frame, reader);
        }
        reader.position = state.frames.len();
        state.finish(reader);
        Poll::Ready(Some(Ok(frame)))
    }

    #[cold]
    fn yield_error(&self, state: &mut State<B>, error: BoxError, reader: &mut Reader) -> Polled {
        if !self.sender.close(reader.generation) {
            self.fail(state, error);
            return reader.fail(ReplayError::Superseded);
        }
        reader.progress = Progress::Failed;
        state.frames = Frames::default();
        Poll::Ready(Some(Err(error)))
    }

    /// Frees the kept frames, because no other handle is to send the body any more. Returns false if one has started.
    #[cold]
    fn go_on_alone(&self, state: &mut State<B>, reader: &mut Reader) -> bool {
        let is_alone = self.sender.close(reader.generation);
        if is_alone {
            state.frames = Frames::default();
            reader.position = 0;
            if matches!(state.source, Source::Available(_)) {
                reader.progress = Progress::Alone;
            }
        }
        is_alone
    }

    /// Polls for the second frame, so that a body of one frame ends with it: a transport need not write its end by itself.
    fn read_ahead(&self, state: &mut State<B>, reader: &mut Reader, cx: &mut Context<'_>) {
        let can_read = matches!(state.source, Source::Available(_)) && state.ahead.is_none();
        if can_read && reader.progress == Progress::Sending {
            match state.read(cx) {
                Poll::Ready(Some(Ok(frame))) => state.set_ahead(frame),
                Poll::Ready(Some(Err(error))) => {
                    self.fail(state, error);
                    self.go_on_alone(state, reader);
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
    }

    /// Leaves an error to the handle that sends.
    #[cold]
    fn fail(&self, state: &mut State<B>, error: BoxError) {
        state.source = Source::Failed(error);
        self.sender.close_anyway();
    }
}

/// Fails a handle that has locked after a newer one has started. Another newer handle may have found the lock taken. Then it
/// did not wake the waiting handle, so this one does.
#[cold]
fn superseded<B>(mut state: MutexGuard<'_, State<B>>, reader: &mut Reader) -> Polled {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
    reader.fail(ReplayError::Superseded)
}
