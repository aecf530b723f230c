//! [`RefreshOnReject`]: send again what was refused for its token, once, and only that.

mod attempt;
mod challenge;
mod classify;
mod drain;
mod policy;

pub(crate) use self::attempt::{Answer, Attempt, Refused};
pub use self::{
    classify::{BearerChallenge, ClassifyResponse, ResponseHead, Verdict},
    drain::{Drain, Renewed},
    policy::RefreshOnReject,
};
