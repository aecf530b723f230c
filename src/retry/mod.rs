//! [`RefreshOnReject`]: send again what was refused for its token, once, and only that.

mod attempt;
mod challenge;
mod classify;
mod drain;
mod inspect;
mod policy;
mod trailers;

pub(crate) use self::{
    attempt::{Attempt, Healed, Refused},
    policy::Replays,
};
pub use self::{
    classify::{BearerChallenge, ClassifyResponse, ResponseHead, Verdict},
    drain::{Drain, Renewed},
    inspect::{InspectBody, InspectBodyFuture, InspectBodyLayer, InspectFn},
    policy::RefreshOnReject,
    trailers::{
        RejectOnTrailers, RejectOnTrailersBody, RejectOnTrailersFuture, RejectOnTrailersLayer,
    },
};
