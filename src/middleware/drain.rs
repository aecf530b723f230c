//! What is waited for between a rejection and the replay.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use crate::cache::Wait;

/// A rejection that is larger is not worth the connection it came on.
const MOST_BYTES: u64 = 64 * 1024;
/// Nor is one that is slower.
const LONGEST: Duration = Duration::from_secs(1);

pin_project! {
    /// Reads a rejected response to its end, so that its connection can be used again.
    ///
    /// It gives up after 64 KiB or one second; then the connection is closed when the body is dropped.
    #[must_use = "futures do nothing unless polled"]
    pub struct Drain<R> {
        #[pin]
        body: R,
        read: u64,
        // Only a body that makes us wait needs a timer.
        limit: Option<Pin<Box<Sleep>>>,
    }
}

impl<R> Drain<R> {
    pub(crate) fn new(body: R) -> Self {
        Self {
            body,
            read: 0,
            limit: None,
        }
    }
}

impl<R: Body> Future for Drain<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            if this.read.saturating_add(this.body.size_hint().lower()) > MOST_BYTES
                || this.body.is_end_stream()
            {
                return Poll::Ready(());
            }
            match this.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // An empty frame counts too: a server that sends nothing else must not keep us busy.
                    let data = frame.data_ref().map_or(0, Buf::remaining).max(1);
                    *this.read = this.read.saturating_add(data as u64);
                }
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
                Poll::Pending => {
                    let limit = this.limit.get_or_insert_with(|| Box::pin(sleep(LONGEST)));
                    return limit.as_mut().poll(cx);
                }
            }
        }
    }
}

impl<R> fmt::Debug for Drain<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

/// Waits until a rejected token has been replaced, or could not be: then the replay is told why.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Renewed {
    wait: Option<Wait>,
}

impl Renewed {
    pub(crate) fn new(wait: Option<Wait>) -> Self {
        Self { wait }
    }
}

impl Future for Renewed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.wait {
            Some(wait) => Pin::new(wait).poll(cx).map(drop),
            None => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;
    use http_body::Frame;
    use tokio::time::Instant;

    use super::*;

    /// Gives frames until there are none, then ends or hangs.
    struct Frames {
        left: VecDeque<usize>,
        hangs: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.left.pop_front() {
                Some(size) => Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; size]))))),
                None if self.hangs => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    fn frames(sizes: impl IntoIterator<Item = usize>, hangs: bool) -> Drain<Frames> {
        Drain::new(Frames {
            left: sizes.into_iter().collect(),
            hangs,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_answer_is_read_to_its_end_without_a_timer() {
        let mut drain = frames([100, 200], false);
        (&mut drain).await;
        assert!(drain.body.left.is_empty());
        assert!(drain.limit.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_is_left() {
        let mut drain = frames(std::iter::repeat_n(10_000, 1_000), false);
        (&mut drain).await;
        assert_eq!(drain.read, 70_000);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_empty_frames_is_left() {
        let mut drain = frames(std::iter::repeat_n(0, 100_000), false);
        (&mut drain).await;
        assert!(!drain.body.left.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_left() {
        let start = Instant::now();
        frames([1], true).await;
        assert_eq!(start.elapsed(), LONGEST);
    }

    #[tokio::test]
    async fn an_answer_that_says_it_is_long_is_not_read_at_all() {
        let mut drain = Drain::new(http_body_util::Full::new(Bytes::from(vec![0; 70_000])));
        (&mut drain).await;
        assert_eq!(drain.read, 0);
    }
}
