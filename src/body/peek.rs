//! [`PeekBody`]: a body whose beginning can be read ahead without being lost.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

#[cfg(test)]
mod tests;

pin_project! {
    /// A body whose beginning can be read ahead, to inspect it, without being lost.
    ///
    /// [`peek`](PeekBody::peek) reads the beginning. Reading the body afterwards yields exactly what it would have
    /// yielded otherwise: the same frames, trailers and errors in the same order. The size hint covers what has not
    /// been yielded yet.
    ///
    /// # The limit
    ///
    /// `peek` stops when it has read `limit` bytes, or at the end of the data. The layers of this crate set the limit
    /// to [`PEEK_LIMIT`](crate::PEEK_LIMIT), 4 KiB, by default. A frame that exceeds the limit is kept whole, since it
    /// is in memory anyway. An empty frame counts as one byte. If the data is [`Bytes`], and the first frame reaches
    /// the limit or is the only one, nothing is copied.
    ///
    /// There is no time limit: peeking into an event stream waits for its events.
    ///
    /// # Examples
    ///
    /// ```
    /// use http_body_util::{BodyExt, Full};
    /// use tower_bearer::{PEEK_LIMIT, PeekBody};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// let body = Full::<bytes::Bytes>::from(r#"{"success":0,"error_message_id":"auth.token_error"}"#);
    /// let (beginning, body) = PeekBody::new(body, PEEK_LIMIT).peek().await;
    ///
    /// assert!(beginning.ends_with(br#""auth.token_error"}"#));
    /// assert_eq!(body.collect().await?.to_bytes(), beginning);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a body does nothing unless it is polled"]
    pub struct PeekBody<B: Body> {
        front: VecDeque<Result<Frame<Bytes>, B::Error>>,
        limit: usize,
        // How many bytes of the limit are used.
        read: usize,
        ended: bool,
        #[pin]
        inner: B,
    }
}

impl<B: Body> PeekBody<B> {
    /// Wraps `body`, so that up to `limit` bytes of it can be read ahead. A limit of 0 reads nothing ahead.
    pub fn new(body: B, limit: usize) -> Self {
        Self {
            front: VecDeque::new(),
            limit,
            read: 0,
            ended: false,
            inner: body,
        }
    }

    /// Reads the beginning ahead. Returns it together with the body, which is still whole.
    ///
    /// The future owns the body, so the body must be `Unpin`. For other bodies, use [`poll_peek`](PeekBody::poll_peek).
    pub fn peek(self) -> Peek<B> {
        Peek { body: Some(self) }
    }

    /// Reads the beginning ahead, in place. Once it is ready, [`beginning`](PeekBody::beginning) returns what was read.
    pub fn poll_peek(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        while *this.read < *this.limit && !*this.ended && !this.inner.is_end_stream() {
            let frame = ready!(this.inner.as_mut().poll_frame(cx)).map(bytes);
            let data = match &frame {
                Some(Ok(frame)) => frame.data_ref(),
                _ => None,
            };
            // Anything but data ends the beginning.
            let size = data.map_or(*this.limit, |data| data.len().max(1));
            *this.read = this.read.saturating_add(size);
            *this.ended = frame.is_none();
            this.front.extend(frame);
        }
        Poll::Ready(())
    }

    /// The data that was read ahead and not yet yielded, in one piece and cut at the limit.
    pub fn beginning(&self) -> Bytes {
        let mut pieces = self.data().filter(|data| !data.is_empty());
        match (pieces.next(), pieces.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.slice(..only.len().min(self.limit)),
            (Some(_), Some(_)) => {
                let size = self.data().map(Bytes::len).sum::<usize>().min(self.limit);
                let mut whole = BytesMut::with_capacity(size);
                for data in self.data() {
                    whole.extend_from_slice(&data[..data.len().min(size - whole.len())]);
                }
                whole.freeze()
            }
        }
    }

    fn data(&self) -> impl Iterator<Item = &Bytes> {
        self.front.iter().flatten().filter_map(Frame::data_ref)
    }

    /// The inner body, without what was read ahead.
    pub fn get_ref(&self) -> &B {
        &self.inner
    }

    /// The inner body. What was read ahead is lost.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

fn bytes<D: Buf, E>(frame: Result<Frame<D>, E>) -> Result<Frame<Bytes>, E> {
    frame.map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
}

impl<B: Body> Body for PeekBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if let Some(frame) = this.front.pop_front() {
            return Poll::Ready(Some(frame));
        }
        if *this.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(this.inner.poll_frame(cx)).map(bytes);
        *this.ended = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.front.is_empty() && (self.ended || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let front = self.data().map(|data| data.len() as u64).sum::<u64>();
        if self.ended {
            return SizeHint::with_exact(front);
        }
        let rest = self.inner.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower().saturating_add(front));
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper.saturating_add(front));
        }
        whole
    }
}

impl<B: Body> fmt::Debug for PeekBody<B> {
    /// Shows how much was read ahead, never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekBody")
            .field("frames", &self.front.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// The future of [`PeekBody::peek`]. It returns the beginning of the body, cut at the limit, and the whole body.
#[must_use = "futures do nothing unless polled"]
pub struct Peek<B: Body> {
    body: Option<PeekBody<B>>,
}

impl<B: Body + Unpin> Future for Peek<B> {
    type Output = (Bytes, PeekBody<B>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(body) = &mut this.body {
            ready!(Pin::new(body).poll_peek(cx));
        }
        let body = this.body.take().expect("`Peek` polled after completion");
        Poll::Ready((body.beginning(), body))
    }
}

// This future never pins the body structurally, and polling it requires `B: Unpin`.
impl<B: Body> Unpin for Peek<B> {}

impl<B: Body> fmt::Debug for Peek<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peek").field(&self.body).finish()
    }
}
