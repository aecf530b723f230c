//! [`Frames`]: the frames that are kept for a replay.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

/// Most bodies have few frames, so the first four need no allocation here.
#[derive(Default)]
pub(super) struct Frames {
    first: [Option<KeptFrame>; FIRST],
    more: Vec<KeptFrame>,
    len: usize,
    size: usize,
}

const FIRST: usize = 4;

#[derive(Clone)]
enum KeptFrame {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

impl Frames {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, index: usize) -> Option<Frame<Bytes>> {
        let kept = match self.first.get(index) {
            Some(first) => first.as_ref(),
            None => self.more.get(index - FIRST),
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
            match self.first.get_mut(self.len) {
                Some(first) => *first = Some(kept),
                None => self.more.push(kept),
            }
            self.len += 1;
        }
        self.size = self.size.saturating_add(size);
        self.size <= limit
    }
}
