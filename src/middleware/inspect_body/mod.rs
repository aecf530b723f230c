//! [`InspectBodyLayer`]: reads the beginning of response bodies for rejections that the status does not tell.

mod future;
mod layer;

pub use self::{
    future::InspectBodyFuture,
    layer::{InspectBody, InspectBodyLayer, InspectFn},
};
