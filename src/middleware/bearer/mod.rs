//! [`BearerAuthLayer`]: adds the token, and sends a rejected request again with a new one.

mod attempt;
#[cfg(feature = "sessions")]
mod keyed;
mod layer;
mod replay;
mod send;
mod service;

#[cfg(feature = "sessions")]
pub use self::keyed::{KeyedBearerAuthFuture, KeyedSessions};
pub use self::{
    layer::BearerAuthLayer,
    service::{BearerAuth, BearerAuthFuture},
};
