//! [`RejectOnTrailersLayer`]: reads rejections from the trailers of gRPC streams.

mod layer;

pub use self::layer::{
    RejectOnTrailers, RejectOnTrailersBody, RejectOnTrailersFuture, RejectOnTrailersLayer,
};
