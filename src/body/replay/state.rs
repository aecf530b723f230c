//! [`State`]: the kept frames of a body, and where the next ones come from.

use std::{
    mem,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tower::BoxError;

use super::{
    Polled, ReplayError,
    body::poll_bytes,
    frames::{Frames, KeptFrame},
    reader::{Progress, Reader},
};

/// What is behind the lock.
pub(super) struct State<B> {
    /// Everything that was yielded.
    pub(super) frames: Frames,
    /// The next frame, if it was read already: ahead, or by a handle that was superseded meanwhile.
    pub(super) ahead: Option<KeptFrame>,
    /// Where the frames after that come from.
    pub(super) source: Source<B>,
    /// The waker of the handle that polled last, if that is pending.
    pub(super) waker: Option<Waker>,
}

pub(super) enum Source<B> {
    Available(B),
    Ended,
    /// The error of the body, which no handle has yielded yet.
    Failed(BoxError),
}

impl<B> State<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// The frame after the kept ones.
    #[inline]
    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.ahead.is_some() {
            return self.take_ahead();
        }
        let Source::Available(body) = &mut self.source else {
            return self.read_end();
        };
        let polled = poll_bytes(body, cx);
        let has_ended = match &polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
            Poll::Ready(_) => true,
        };
        if has_ended {
            self.source = Source::Ended;
        }
        polled
    }

    #[cold]
    fn take_ahead(&mut self) -> Polled {
        Poll::Ready(self.ahead.take().map(KeptFrame::into_frame).map(Ok))
    }

    #[cold]
    fn read_end(&mut self) -> Polled {
        Poll::Ready(match mem::replace(&mut self.source, Source::Ended) {
            Source::Failed(error) => Some(Err(error)),
            Source::Ended | Source::Available(_) => None,
        })
    }
}

impl<B> State<B> {
    #[inline]
    pub(super) fn new(body: B) -> Self {
        Self {
            frames: Frames::default(),
            ahead: None,
            source: Source::Available(body),
            waker: None,
        }
    }

    /// Drops the waker that the handle left in its last poll, or wakes the handle that it has superseded. Superseded handles
    /// do not get further than this lock, so to wake one under the lock is safe, even if it is polled at once.
    #[cold]
    pub(super) fn take_waker(&mut self, reader: &mut Reader) {
        let waker = self.waker.take();
        if !mem::take(&mut reader.is_waiting)
            && let Some(waker) = waker
        {
            waker.wake();
        }
    }

    #[inline]
    pub(super) fn set_ahead(&mut self, frame: Frame<Bytes>) {
        self.ahead = KeptFrame::of(frame);
        if self.ahead.is_none() {
            self.source = Source::Failed(ReplayError::NotReplayable.into());
        }
    }

    /// Leaves a frame that a superseded handle has read to the handle that sends.
    #[cold]
    pub(super) fn put_back(&mut self, frame: Frame<Bytes>, reader: &mut Reader) -> Polled {
        self.set_ahead(frame);
        reader.fail(ReplayError::Superseded)
    }

    /// Frees everything but the rest of the body, because no handle can replay it.
    #[cold]
    pub(super) fn give_up(&mut self) -> Option<B> {
        self.frames = Frames::default();
        self.ahead = None;
        match mem::replace(&mut self.source, Source::Ended) {
            Source::Available(body) => Some(body),
            Source::Ended | Source::Failed(_) => None,
        }
    }

    #[cold]
    pub(super) fn yield_kept(&mut self, reader: &mut Reader) -> Polled {
        let frame = self.frames.get(reader.position);
        reader.position += 1;
        let data = frame.as_ref().and_then(Frame::data_ref);
        reader.sent += data.map_or(0, Bytes::len) as u64;
        self.finish(reader);
        Poll::Ready(frame.map(Ok))
    }

    /// Marks a handle as finished if it has yielded everything.
    #[inline]
    pub(super) fn finish(&self, reader: &mut Reader) {
        if matches!(self.source, Source::Ended)
            && self.ahead.is_none()
            && reader.position == self.frames.len()
        {
            reader.progress = Progress::Finished;
        }
    }
}
