//! [`Frames`]: the frames that are kept for a replay.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

/// Most bodies have one frame, so the first one needs no allocation here.
#[derive(Default)]
pub(super) struct Frames {
    first: Option<KeptFrame>,
    more: Vec<KeptFrame>,
    size: usize,
}

#[derive(Clone)]
enum KeptFrame {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

impl Frames {
    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<Frame<Bytes>> {
        let kept = match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(index) => self.more.get(index),
        };
        kept.cloned().map(|kept| match kept {
            KeptFrame::Data(data) => Frame::data(data),
            KeptFrame::Trailers(trailers) => Frame::trailers(*trailers),
        })
    }

    /// Returns false for kinds of frames that this version of http-body doesn't know: they can be sent, but not copied.
    pub(super) fn can_keep(frame: &Frame<Bytes>) -> bool {
        frame.is_data() || frame.is_trailers()
    }

    /// Keeps a copy of the frame unless it is empty. Returns false if the limit is exceeded now, or if the frame can't
    /// be copied.
    #[inline]
    pub(super) fn keep(&mut self, frame: &Frame<Bytes>, limit: usize) -> bool {
        if let Some(data) = frame.data_ref() {
            self.push(KeptFrame::Data(data.clone()), data.len(), limit)
        } else if let Some(trailers) = frame.trailers_ref() {
            self.keep_trailers(trailers, limit)
        } else {
            false
        }
    }

    #[cold]
    fn keep_trailers(&mut self, trailers: &HeaderMap, limit: usize) -> bool {
        let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        let sum = trailers.iter().map(size).sum();
        self.push(KeptFrame::Trailers(Box::new(trailers.clone())), sum, limit)
    }

    #[inline]
    fn push(&mut self, kept: KeptFrame, size: usize, limit: usize) -> bool {
        if size > 0 {
            match &mut self.first {
                Some(_) => self.more.push(kept),
                first => *first = Some(kept),
            }
        }
        self.size = self.size.saturating_add(size);
        self.size <= limit
    }
}
