//! [`BodySnapshot`]: what remains of a body for a replay, after the body itself has been sent.

use std::sync::Arc;

use super::{ReplayBody, reader::Reader, shared::Shared};

/// What is kept of a body.
pub(crate) enum BodySnapshot<B> {
    NotKept,
    Empty,
    Shared(Arc<Shared<B>>),
}

impl<B> BodySnapshot<B> {
    /// As [`ReplayBody::can_replay`](super::ReplayBody::can_replay).
    pub(crate) fn can_replay(&self) -> bool {
        match self {
            Self::NotKept => false,
            Self::Empty => true,
            Self::Shared(shared) => shared.can_replay(),
        }
    }

    /// Returns a handle that sends the body from its start, and takes over from all others now. `None` if the body was not
    /// kept.
    pub(crate) fn claim(self) -> Option<ReplayBody<B>> {
        match self {
            Self::NotKept => None,
            Self::Empty => Some(ReplayBody::default()),
            Self::Shared(shared) => {
                let mut reader = Reader::default();
                let started = shared.take_over(&mut reader);
                started.then(|| ReplayBody::started(shared, reader))
            }
        }
    }
}
