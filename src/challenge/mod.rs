//! What a response says about the token of its request: the `WWW-Authenticate` parser, and what counts as a rejection.

mod classify;
mod parser;

pub use self::classify::{BearerChallenge, ClassifyRejection, ResponseHead, Verdict};
pub(crate) use self::classify::{has_only_other_schemes, is_grpc, is_unauthenticated};
