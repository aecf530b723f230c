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

/// A frame in a third of the space.
#[derive(Clone)]
pub(super) enum KeptFrame {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

impl KeptFrame {
    /// `None` for kinds of frames that this version of http-body does not know.
    #[inline]
    pub(super) fn of(frame: Frame<Bytes>) -> Option<Self> {
        match frame.into_data() {
            Ok(data) => Some(Self::Data(data)),
            Err(frame) => frame.into_trailers().ok().map(Box::new).map(Self::Trailers),
        }
    }

    #[inline]
    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

impl Frames {
    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    #[cold]
    pub(super) fn get(&self, index: usize) -> Option<Frame<Bytes>> {
        let kept = match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(index) => self.more.get(index),
        };
        kept.cloned().map(KeptFrame::into_frame)
    }

    /// Keeps the data unless it is empty. Returns false, and keeps nothing, if that would exceed the limit.
    #[inline]
    pub(super) fn keep(&mut self, data: &Bytes, limit: usize) -> bool {
        self.push(data.len(), limit, || KeptFrame::Data(data.clone()))
    }

    /// As [`keep`](Self::keep), for any other frame. There may be kinds that this version of http-body does not know: they
    /// can be sent, but not copied.
    #[cold]
    pub(super) fn keep_trailers(&mut self, frame: &Frame<Bytes>, limit: usize) -> bool {
        let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        frame.trailers_ref().is_some_and(|trailers| {
            let kept = || KeptFrame::Trailers(Box::new(trailers.clone()));
            self.push(trailers.iter().map(size).sum(), limit, kept)
        })
    }

    #[inline]
    fn push(&mut self, size: usize, limit: usize, kept: impl FnOnce() -> KeptFrame) -> bool {
        let sum = self.size.saturating_add(size);
        if sum > limit {
            return false;
        }
        self.size = sum;
        if size > 0 {
            match &mut self.first {
                Some(_) => self.more.push(kept()),
                first => *first = Some(kept()),
            }
        }
        true
    }
}
