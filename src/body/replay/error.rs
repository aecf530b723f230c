//! [`ReplayError`]: why a handle can't send the body.

use std::{error::Error, fmt};

/// Why a handle of a [`ReplayBody`](super::ReplayBody) can't send the body.
///
/// It is the error of the body; `downcast_ref` on the [`BoxError`](tower::BoxError) finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayError {
    /// The body was not kept: it is larger than the limit, or it failed while it was sent.
    NotReplayable,
    /// Another handle has started later and sends the body instead.
    Superseded,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReplayable => {
                "the request body cannot be sent again: it is larger than the replay limit, or it failed"
            }
            Self::Superseded => "a later attempt sends the request body instead of this one",
        })
    }
}

impl Error for ReplayError {}
