//! [`BearerAuthLayer`]: adds the token, and sends a rejected request again with a new one.

mod attempt;
mod layer;
mod replay;
mod send;
mod service;

pub use self::{
    layer::BearerAuthLayer,
    service::{BearerAuth, BearerAuthFuture},
};
