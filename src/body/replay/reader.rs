//! [`Reader`]: the read position of one handle.

use std::task::Poll;

use http_body::SizeHint;

use super::{Polled, ReplayError};

#[derive(Default)]
pub(super) struct Reader {
    /// The number of this handle in the order in which handles start; 0 until it starts.
    pub(super) generation: u32,
    /// How many of the kept frames it has yielded.
    pub(super) position: usize,
    pub(super) progress: Progress,
    /// Its last poll was pending, and left a waker.
    pub(super) is_waiting: bool,
    /// How many bytes of data it has yielded.
    pub(super) sent: u64,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Progress {
    #[default]
    Sending,
    /// Sends, and no other handle can any more: it is to take the body.
    Alone,
    Finished,
    Failed,
}

impl Reader {
    pub(super) fn is_finished(&self) -> bool {
        self.progress == Progress::Finished
    }

    /// Ends with an error.
    #[cold]
    pub(super) fn fail(&mut self, error: ReplayError) -> Polled {
        self.progress = Progress::Failed;
        Poll::Ready(Some(Err(error.into())))
    }

    /// Whether the size hint of the whole body allows that the data ends here, and does not already say so.
    #[inline]
    pub(super) fn may_end(&self, whole: &SizeHint) -> bool {
        self.sent >= whole.lower() && whole.upper() != Some(self.sent)
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
