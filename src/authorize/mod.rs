//! [`AuthorizeLayer`]: puts the token on requests, and does no more.

mod future;
mod header;
mod layer;
mod origins;

pub(crate) use self::future::Authorizing;
pub use self::{
    future::ResponseFuture,
    layer::{Authorize, AuthorizeLayer},
    origins::Origins,
};
pub(crate) use self::{layer::Guard, origins::Scope};
