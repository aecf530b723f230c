//! The Tower layers of this crate, their services and their retry policy.

mod add_token;
mod bearer;
mod drain;
mod inspect_body;
mod reject_on_trailers;
mod retry;

pub use self::{
    add_token::{AddToken, AddTokenFuture, AddTokenLayer},
    bearer::{BearerAuth, BearerAuthFuture, BearerAuthLayer},
    drain::{Drain, Renewed},
    inspect_body::{InspectBody, InspectBodyFuture, InspectBodyLayer, InspectFn},
    reject_on_trailers::{
        RejectOnTrailers, RejectOnTrailersBody, RejectOnTrailersFuture, RejectOnTrailersLayer,
    },
    retry::RefreshOnReject,
};
