//! Where one handle stands.

use bytes::Bytes;
use http_body::{Frame, SizeHint};

#[derive(Default)]
pub(super) struct Reader {
    /// Counts the starts of all handles; 0 until this one is polled.
    pub(super) turn: u32,
    /// How many of the kept frames it has passed on.
    pub(super) position: usize,
    pub(super) progress: Progress,
    /// How many bytes of data it has passed on.
    sent: u64,
}

#[derive(Default, PartialEq)]
pub(super) enum Progress {
    #[default]
    Going,
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

    pub(super) fn count(&mut self, frame: &Frame<Bytes>) {
        self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
    }

    /// What is left of a body of this size.
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
