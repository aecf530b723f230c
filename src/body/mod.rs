//! Bodies that can be sent again, and bodies that can be looked at.
//!
//! A token can be rejected after the request is under way, so what was sent must be kept until the answer is there:
//! [`ReplayBody`] does that, lazily and up to a limit. A rejection can be told in the body of an answer, so somebody must
//! read it before the caller does: [`PeekBody`] reads its beginning, and gives it back.

mod peek;
mod replay;

pub(crate) use self::replay::Kept;
pub use self::{
    peek::{Peek, PeekBody},
    replay::{ReplayBody, ReplayError},
};

/// How many bytes of a request body are kept for a replay, unless another limit is set: 64 KiB.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// How many bytes of a response body are looked at, unless another limit is set: 4 KiB.
pub const PEEK_LIMIT: usize = 4 * 1024;
