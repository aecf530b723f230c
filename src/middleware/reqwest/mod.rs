//! [`BearerAuthLayer`](crate::BearerAuthLayer) for programs that do not use Tower: its whole behaviour over reqwest's
//! own requests and responses.
//!
//! | File | Contents |
//! |---|---|
//! | `request_builder.rs` | [`RequestBuilderExt::send_with`], with nothing but reqwest |
//! | `chain.rs` | the trait of the crate `reqwest-middleware`, for the feature of that name |
//! | `send.rs` | what both call: the layer over a service that sends one request |
//!
//! No rule of the layer is written down here: [`BearerAuth`](crate::BearerAuth) sends the requests.

#[cfg(feature = "reqwest-middleware")]
mod chain;
mod error;
mod request_builder;
mod send;

pub use self::{error::SendError, request_builder::RequestBuilderExt};
