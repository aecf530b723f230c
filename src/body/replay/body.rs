//! [`ReplayBody`]: the handle that a transport polls.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, SizeHint};
use tower::BoxError;

use super::{
    Polled, ReplayError,
    reader::{Progress, Reader},
    shared::Shared,
    snapshot::BodySnapshot,
};

/// Makes any body replayable, up to a limit: a clone sends it again from the start.
///
/// What a transport reads through one handle is kept, frame by frame, without copying if the data is [`Bytes`]. A clone
/// yields the kept frames first and then reads the rest of the body. So a request that is rejected in the middle of its
/// upload can be sent again as a whole.
///
/// # Which handle sends
///
/// The handle that was polled *for the first time* last. It takes over from the others, on any thread. An older handle
/// is woken, and fails with [`ReplayError::Superseded`] when it is polled again, so that a transport that still holds
/// it stops its upload. Dropping a handle does not affect the others.
///
/// # Reading ahead
///
/// The second frame is read together with the first, if it is there at once. So a body of one frame ends with that frame
/// ([`is_end_stream`](Body::is_end_stream)), even if the body itself does not know its end, and the transport need not write
/// the end by itself. Nothing is read ahead of later frames, of a body that says where it ends, and of one that is not kept.
///
/// # The limit
///
/// The limit counts the bytes of data and trailers. The layers of this crate set it to
/// [`REPLAY_LIMIT`](crate::REPLAY_LIMIT), 64 KiB, by default. When a body exceeds the limit, the kept frames are freed.
/// The handle that sends goes on; other handles fail with [`ReplayError::NotReplayable`]. Nothing is kept of a body
/// that is known to be larger from the start, or if the limit is 0.
///
/// Each kept frame costs 32 bytes beside its data, and keeps the allocation alive that its data is a part of.
///
/// # What is kept
///
/// The data with its frame boundaries, the trailers, and the size hint, so that a replay has the `content-length` of
/// the first attempt (RFC 9110 §8.6). Empty frames are sent, but not replayed.
///
/// An empty body (`is_end_stream`) needs no allocation. Any other body needs one, and more only if it has several
/// frames.
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
/// let clone = body.clone();
///
/// assert_eq!(body.collect().await?.to_bytes(), "an order");
/// assert!(clone.can_replay());
/// assert_eq!(clone.collect().await?.to_bytes(), "an order");
/// # Ok(())
/// # }
/// ```
#[must_use = "a body does nothing unless it is polled"]
pub struct ReplayBody<B> {
    kind: Kind<B>,
}

enum Kind<B> {
    /// The body was empty from the start.
    Empty,
    /// The body is too large, or the limit is 0: nothing is kept.
    PassThrough { body: B, ended: bool },
    /// A clone of `PassThrough`. It can only yield an error, once.
    NotReplayable { reported: bool },
    /// What is sent is kept.
    Shared(Handle<B>),
}

struct Handle<B> {
    shared: Arc<Shared<B>>,
    reader: Reader,
}

impl<B: Body> ReplayBody<B> {
    /// Wraps `body` and keeps up to `limit` bytes of it for its clones. With 0 nothing is kept.
    #[inline]
    pub fn new(body: B, limit: usize) -> Self {
        let kind = if body.is_end_stream() {
            Kind::Empty
        } else {
            let hint = body.size_hint();
            if limit == 0 || hint.lower() > limit as u64 {
                Kind::PassThrough { body, ended: false }
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
    /// Whether a clone that is polled now would send the body from its start.
    ///
    /// Once it is false, it stays false.
    pub fn can_replay(&self) -> bool {
        self.snapshot().can_replay()
    }
}

impl<B> ReplayBody<B> {
    #[inline]
    pub(crate) fn snapshot(&self) -> BodySnapshot<B> {
        match &self.kind {
            Kind::Empty => BodySnapshot::Empty,
            Kind::PassThrough { .. } | Kind::NotReplayable { .. } => BodySnapshot::NotKept,
            Kind::Shared(handle) => BodySnapshot::Shared(Arc::clone(&handle.shared)),
        }
    }

    /// A handle that has started, and so has taken over from the others.
    pub(super) fn started(shared: Arc<Shared<B>>, reader: Reader) -> Self {
        Self {
            kind: Kind::Shared(Handle { shared, reader }),
        }
    }
}

impl<B> Default for ReplayBody<B> {
    /// An empty body. Layers that follow redirects need it.
    fn default() -> Self {
        Self { kind: Kind::Empty }
    }
}

impl<B> Clone for ReplayBody<B> {
    /// Returns a new handle, which sends the body from its start.
    fn clone(&self) -> Self {
        let kind = match &self.kind {
            Kind::Empty => Kind::Empty,
            Kind::PassThrough { .. } | Kind::NotReplayable { .. } => {
                Kind::NotReplayable { reported: false }
            }
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
        self.shared.release(&self.reader);
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let kind = &mut self.as_mut().get_mut().kind;
        match kind {
            Kind::Empty
            | Kind::PassThrough { ended: true, .. }
            | Kind::NotReplayable { reported: true } => Poll::Ready(None),
            Kind::PassThrough { body, ended } => {
                let frame = ready!(poll_bytes(body, cx));
                *ended = !matches!(frame, Some(Ok(_)));
                Poll::Ready(frame)
            }
            Kind::NotReplayable { reported } => {
                *reported = true;
                Poll::Ready(Some(Err(ReplayError::NotReplayable.into())))
            }
            Kind::Shared(Handle { shared, reader }) => {
                if reader.progress == Progress::Alone {
                    *kind = match shared.take_body() {
                        Some(body) => Kind::PassThrough { body, ended: false },
                        None => Kind::NotReplayable { reported: false },
                    };
                    return self.poll_frame(cx);
                }
                shared.poll_frame(reader, cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::PassThrough { body, .. } => body.is_end_stream(),
            Kind::NotReplayable { .. } => false,
            Kind::Shared(handle) => handle.reader.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::PassThrough { body, .. } => body.size_hint(),
            Kind::NotReplayable { .. } => SizeHint::default(),
            Kind::Shared(handle) => handle.reader.rest_of(handle.shared.hint()),
        }
    }
}

/// Polls `body` for a frame of bytes. Copies nothing if the data is [`Bytes`].
pub(super) fn poll_bytes<B>(body: &mut B, cx: &mut Context<'_>) -> Polled
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
    /// Shows the state, never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::PassThrough { .. } => "passed through",
            Kind::NotReplayable { .. } => "not replayable",
            Kind::Shared(_) => "kept",
        };
        f.debug_struct("ReplayBody")
            .field("kind", &format_args!("{kind}"))
            .field("can_replay", &self.can_replay())
            .finish_non_exhaustive()
    }
}
