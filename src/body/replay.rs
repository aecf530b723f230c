//! [`ReplayBody`]: any body made replayable up to a limit.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use self::{reader::Reader, shared::Shared};

mod after;
mod frames;
mod reader;
mod shared;
#[cfg(test)]
mod tests;

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Makes any body replayable, up to a limit: a clone begins again from the start.
///
/// Nothing is read ahead. What a transport pulls through one handle is remembered, chunk by chunk and without copying
/// where the data is [`Bytes`]; a clone yields that first and goes on with the rest of the body. So a request that is
/// rejected in the middle of its upload can be sent again, whole, though only its beginning had been read.
///
/// # Which handle sends
///
/// The one that was polled *for the first time* last. It takes over whatever the others were doing, on whatever thread:
/// an older handle that is polled again fails with [`ReplayError::Superseded`], and is woken for that, so that a
/// transport that still holds it gives that upload up. A handle that is dropped leaves everything to the others.
///
/// # The limit
///
/// Counts the bytes of data and of trailers, [`REPLAY_LIMIT`](super::REPLAY_LIMIT) by default of the layers. Once a body
/// exceeds it, what was kept is freed, the handle that sends goes on unharmed, and others fail with
/// [`ReplayError::NotReplayable`]. A body that is known to be larger, or any with a limit of 0, is only passed through.
/// Each chunk that is kept costs 32 bytes beside its data, and keeps alive the allocation that it is a part of.
///
/// # What is kept of the body
///
/// All of it that can be seen: frames of data and their boundaries, trailers, and the size hint, so that a replay has
/// the `content-length` of the first attempt (RFC 9110 §8.6). Frames that hold nothing are sent, but not replayed.
///
/// A body that is empty (`is_end_stream`) stays so without any allocation; else there is one, and more only for a body
/// of several chunks.
///
/// # Examples
///
/// ```
/// use http_body_util::{BodyExt, Full};
/// use tower_bearer::{REPLAY_LIMIT, ReplayBody};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let body = ReplayBody::new(Full::<bytes::Bytes>::from("an order"), REPLAY_LIMIT);
/// let kept = body.clone();
///
/// assert_eq!(body.collect().await?.to_bytes(), "an order");
/// assert!(kept.can_replay());
/// assert_eq!(kept.collect().await?.to_bytes(), "an order");
/// # Ok(())
/// # }
/// ```
#[must_use = "a body does nothing unless it is polled"]
pub struct ReplayBody<B> {
    kind: Kind<B>,
}

enum Kind<B> {
    /// Was empty when it was wrapped.
    Empty,
    /// Too large, or not to be kept: sent as it is.
    Once { body: B, over: bool },
    /// A clone of `Once`, which has nothing to send but an error.
    Spent { told: bool },
    /// Kept while it is sent.
    Shared(Handle<B>),
}

struct Handle<B> {
    shared: Arc<Shared<B>>,
    reader: Reader,
}

/// Why a handle of a [`ReplayBody`] can't go on. Found in the body's error by `downcast_ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayError {
    /// The body is not kept: it is larger than the limit, or failed while it was sent.
    NotReplayable,
    /// Another handle started later, and sends instead.
    Superseded,
}

impl<B: Body> ReplayBody<B> {
    /// Keeps up to `limit` bytes of `body` for its clones; 0 keeps nothing.
    #[inline]
    pub fn new(body: B, limit: usize) -> Self {
        let kind = if body.is_end_stream() {
            Kind::Empty
        } else {
            let hint = body.size_hint();
            if limit == 0 || hint.lower() > limit as u64 {
                Kind::Once { body, over: false }
            } else {
                Kind::Shared(Handle {
                    shared: Arc::new(Shared::new(body, hint, limit)),
                    reader: Reader::default(),
                })
            }
        };
        Self { kind }
    }
}

impl<B> ReplayBody<B> {
    /// Whether a clone that is polled now sends the body from its start.
    ///
    /// Once false, it stays so.
    pub fn can_replay(&self) -> bool {
        self.kept().can_replay()
    }
}

/// What is kept of a body: no handle, since it can't send.
pub(crate) enum Kept<B> {
    Nothing,
    /// There is nothing to keep.
    Empty,
    Shared(Arc<Shared<B>>),
}

impl<B> Kept<B> {
    /// As [`ReplayBody::can_replay`].
    pub(crate) fn can_replay(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Empty => true,
            Self::Shared(shared) => shared.can_replay(),
        }
    }

    /// A handle that sends the body from its start, from now on instead of all others. `None` if the body is not kept.
    pub(crate) fn claim(self) -> Option<ReplayBody<B>> {
        let kind = match self {
            Self::Nothing => return None,
            Self::Empty => Kind::Empty,
            Self::Shared(shared) => {
                let mut reader = Reader::default();
                if !shared.start(&mut reader) {
                    return None;
                }
                Kind::Shared(Handle { shared, reader })
            }
        };
        Some(ReplayBody { kind })
    }
}

impl<B> ReplayBody<B> {
    #[inline]
    pub(crate) fn kept(&self) -> Kept<B> {
        match &self.kind {
            Kind::Empty => Kept::Empty,
            Kind::Once { .. } | Kind::Spent { .. } => Kept::Nothing,
            Kind::Shared(handle) => Kept::Shared(Arc::clone(&handle.shared)),
        }
    }
}

impl<B> Default for ReplayBody<B> {
    /// An empty body, as layers that follow redirects need it.
    fn default() -> Self {
        Self { kind: Kind::Empty }
    }
}

impl<B> Clone for ReplayBody<B> {
    /// A handle that sends the body from its start, wherever this one stands.
    fn clone(&self) -> Self {
        let kind = match &self.kind {
            Kind::Empty => Kind::Empty,
            Kind::Once { .. } | Kind::Spent { .. } => Kind::Spent { told: false },
            Kind::Shared(handle) => Kind::Shared(Handle {
                shared: Arc::clone(&handle.shared),
                reader: Reader::default(),
            }),
        };
        Self { kind }
    }
}

impl<B> Drop for Handle<B> {
    fn drop(&mut self) {
        self.shared.leave(&self.reader);
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match &mut self.get_mut().kind {
            Kind::Empty | Kind::Once { over: true, .. } | Kind::Spent { told: true } => {
                Poll::Ready(None)
            }
            Kind::Once { body, over } => {
                let frame = ready!(poll_bytes(body, cx));
                *over = !matches!(frame, Some(Ok(_)));
                Poll::Ready(frame)
            }
            Kind::Spent { told } => {
                *told = true;
                ReplayError::NotReplayable.polled()
            }
            Kind::Shared(Handle { shared, reader }) => shared.poll_frame(reader, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Once { body, .. } => body.is_end_stream(),
            Kind::Spent { .. } => false,
            Kind::Shared(handle) => handle.reader.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Once { body, .. } => body.size_hint(),
            Kind::Spent { .. } => SizeHint::default(),
            Kind::Shared(handle) => handle.reader.rest_of(handle.shared.hint()),
        }
    }
}

/// Polls `body` for a frame of bytes, which copies nothing if its data is [`Bytes`].
fn poll_bytes<B>(body: &mut B, cx: &mut Context<'_>) -> Polled
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    Pin::new(body).poll_frame(cx).map(|frame| {
        frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
            Err(error) => Err(error.into()),
        })
    })
}

impl<B> fmt::Debug for ReplayBody<B> {
    /// Tells the state, never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Once { .. } => "passed through",
            Kind::Spent { .. } => "spent",
            Kind::Shared(_) => "kept",
        };
        f.debug_struct("ReplayBody")
            .field("kind", &format_args!("{kind}"))
            .field("can_replay", &self.can_replay())
            .finish_non_exhaustive()
    }
}

impl ReplayError {
    fn polled(self) -> Polled {
        Poll::Ready(Some(Err(self.into())))
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReplayable => {
                "the body cannot be sent again: it is larger than the replay limit, or failed"
            }
            Self::Superseded => "the body is being sent again by a later attempt",
        })
    }
}

impl Error for ReplayError {}
