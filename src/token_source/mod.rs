//! [`TokenSource`]: what the cache asks for a token, and what it tells the source.

mod boxed;
mod context;
mod source;
mod source_fn;

pub use self::{
    boxed::BoxTokenSource,
    context::TokenContext,
    source::TokenSource,
    source_fn::{SourceFn, source_fn},
};
