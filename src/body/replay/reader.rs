//! [`Reader`]: the read position of one handle.

use std::task::Poll;

use http_body::SizeHint;

use super::Polled;

#[derive(Default)]
pub(super) struct Reader {
    /// The number of this handle in the order in which handles start; 0 until it starts.
    pub(super) generation: u32,
    /// How many of the kept frames it has yielded.
    pub(super) position: usize,
    pub(super) progress: Progress,
    /// How many bytes of data it has yielded.
    sent: u64,
}

#[derive(Default, PartialEq)]
pub(super) enum Progress {
    #[default]
    Sending,
    Finished,
    Failed,
}

impl Reader {
    pub(super) fn is_finished(&self) -> bool {
        self.progress == Progress::Finished
    }

    pub(super) fn finish_if(&mut self, finished: bool) {
        if finished {
            self.progress = Progress::Finished;
        }
    }

    /// Counts what the handle yields.
    #[inline]
    pub(super) fn count(&mut self, polled: &Polled) {
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(_))) => self.progress = Progress::Failed,
            _ => {}
        }
    }

    /// The size hint of the rest of a body whose size hint is `whole`.
    pub(super) fn rest_of(&self, whole: &SizeHint) -> SizeHint {
        if self.is_finished() {
            return SizeHint::with_exact(0);
        }
        let mut rest = SizeHint::new();
        rest.set_lower(whole.lower().saturating_sub(self.sent));
        if let Some(upper) = whole.upper() {
            rest.set_upper(upper.saturating_sub(self.sent));
        }
        rest
    }
}
