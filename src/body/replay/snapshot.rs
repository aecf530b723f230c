//! [`BodySnapshot`]: answers whether a body can be replayed, after the body itself has been sent.

use std::sync::Arc;

use super::shared::Shared;

/// What is kept of a body. It can't send: it only answers whether a new handle could.
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
}
