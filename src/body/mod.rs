//! Bodies that can be sent again, and bodies whose beginning can be read ahead.
//!
//! A token can be rejected after the request body has been sent. [`ReplayBody`] keeps what was sent, up to a limit, so
//! that the request can be sent again. A response can report a rejection in its body. [`PeekBody`] reads the beginning
//! of that body and still passes all of it on to the caller.

mod peek;
mod replay;

pub(crate) use self::replay::BodySnapshot;
pub use self::{
    peek::{Peek, PeekBody},
    replay::{ReplayBody, ReplayError},
};

/// How many bytes of a request body are kept for a replay by default: 64 KiB.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// How many bytes of a response body are read ahead by default: 4 KiB.
pub const PEEK_LIMIT: usize = 4 * 1024;
