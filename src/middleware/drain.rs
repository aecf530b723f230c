//! [`Drain`]: reads the rest of a rejected response.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

/// Reading more costs more than a new connection.
const MAX_BYTES: u64 = 64 * 1024;
/// Waiting longer costs more than a new connection.
const MAX_TIME: Duration = Duration::from_secs(1);

pin_project! {
    /// Reads a rejected response to its end, so that its connection can be used again.
    ///
    /// It stops after 64 KiB or one second. Then the connection is closed when the body is dropped.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Drain<R> {
        #[pin]
        body: R,
        read: u64,
        // Created when the body is first pending: most are not.
        timeout: Option<Pin<Box<Sleep>>>,
    }
}

impl<R> Drain<R> {
    pub(super) fn new(body: R) -> Self {
        Self {
            body,
            read: 0,
            timeout: None,
        }
    }
}

impl<R: Body> Future for Drain<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            if this.read.saturating_add(this.body.size_hint().lower()) > MAX_BYTES
                || this.body.is_end_stream()
            {
                return Poll::Ready(());
            }
            match this.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // An empty frame counts too: a server that sends nothing else must not keep this future busy.
                    let data = frame.data_ref().map_or(0, Buf::remaining).max(1);
                    *this.read = this.read.saturating_add(data as u64);
                }
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
                Poll::Pending => {
                    let timeout = this
                        .timeout
                        .get_or_insert_with(|| Box::pin(sleep(MAX_TIME)));
                    return timeout.as_mut().poll(cx);
                }
            }
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

    /// Yields its frames, then ends or stays pending.
    struct Frames {
        rest: VecDeque<usize>,
        stays_pending: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.rest.pop_front() {
                Some(size) => Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; size]))))),
                None if self.stays_pending => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    fn frames(sizes: impl IntoIterator<Item = usize>, stays_pending: bool) -> Drain<Frames> {
        Drain::new(Frames {
            rest: sizes.into_iter().collect(),
            stays_pending,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_response_is_read_to_its_end_without_a_timer() {
        let mut drain = frames([100, 200], false);
        (&mut drain).await;
        assert!(drain.body.rest.is_empty());
        assert!(drain.timeout.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_response_is_not_read_to_its_end() {
        let mut drain = frames(std::iter::repeat_n(10_000, 1_000), false);
        (&mut drain).await;
        assert_eq!(drain.read, 70_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_of_empty_frames_is_not_read_for_ever() {
        let mut drain = frames(std::iter::repeat_n(0, 100_000), false);
        (&mut drain).await;
        assert!(!drain.body.rest.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_response_is_given_up() {
        let start = Instant::now();
        frames([1], true).await;
        assert_eq!(start.elapsed(), MAX_TIME);
    }

    #[tokio::test]
    async fn a_response_that_is_announced_as_long_is_not_read_at_all() {
        let mut drain = Drain::new(http_body_util::Full::new(Bytes::from(vec![0; 70_000])));
        (&mut drain).await;
        assert_eq!(drain.read, 0);
    }
}
