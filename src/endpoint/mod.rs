//! [`TokenEndpoint`]: asks an authorization server for tokens (RFC 6749 §3.2), and understands what it answers.
//!
//! Four things differ from server to server, and each has its own place here:
//!
//! | What | Where |
//! |---|---|
//! | the address, and what it must not be | [`TokenEndpoint`] |
//! | how the client says who it is | [`ClientAuth`] |
//! | whether the body is a form or JSON, and how parameters are called | [`BodyFormat`], [`TokenEndpoint::refresh_parameter`] |
//! | what the answer looks like | one parser, lenient about all forms seen in the wild |
//!
//! Requests go through any [`tower::Service`] that speaks HTTP, so timeouts, proxies, tracing or a test double are added
//! with the layers one knows. With the feature `reqwest` there is one ready-made.
//!
//! A token request carries secrets, and that rules the rest: only https, or http to the machine itself; a redirect is
//! never followed; of an answer that was not understood, an error tells the status, the type and the size, and never
//! the text.

mod address;
mod client_auth;
mod exchange;
mod refusal;
mod request;
mod response;
mod token_endpoint;
mod values;

#[cfg(feature = "reqwest")]
mod transport;

pub(crate) use address::{join, parse};
pub use client_auth::ClientAuth;
pub(crate) use exchange::never_left;
pub use request::BodyFormat;
pub(crate) use response::TokenResponse;
pub use token_endpoint::TokenEndpoint;
#[cfg(feature = "reqwest")]
pub use transport::{ReqwestFuture, ReqwestTransport};
