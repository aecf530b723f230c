//! [`RejectOnTrailersLayer`]: finds rejections in the trailers of gRPC streams.

mod body;
mod future;
mod layer;
mod service;
#[cfg(test)]
mod tests;

pub use self::{
    body::RejectOnTrailersBody, future::RejectOnTrailersFuture, layer::RejectOnTrailersLayer,
    service::RejectOnTrailers,
};
