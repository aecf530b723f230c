//! [`AddTokenLayer`]: adds the token to each request, and never sends one again.

mod future;
mod header;
mod layer;

pub use self::{
    future::AddTokenFuture,
    layer::{AddToken, AddTokenLayer},
};
pub(crate) use self::{future::Authorizing, layer::Guard};
