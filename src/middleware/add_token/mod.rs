//! [`AddTokenLayer`]: adds the token to each request, and never sends one again.

mod future;
mod layer;
mod service;

pub use self::{future::AddTokenFuture, layer::AddTokenLayer, service::AddToken};
