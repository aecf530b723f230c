//! [`BearerAuthLayer`]: adds the token, and sends a rejected request again with a new one.

mod attempt;
mod layer;
mod send;
mod service;

pub(crate) use self::attempt::{Attempt, Healed, Rejected};
pub use self::{
    layer::BearerAuthLayer,
    service::{BearerAuth, BearerAuthFuture},
};
