//! [`InspectBodyLayer`]: finds rejections in the beginning of response bodies, where the status does not show them.

mod future;
mod layer;
mod service;
#[cfg(test)]
mod tests;

pub use self::{
    future::InspectBodyFuture,
    layer::{InspectBodyLayer, InspectFn},
    service::InspectBody,
};
