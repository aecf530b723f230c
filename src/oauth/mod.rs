//! [`OAuthClient`]: asks an authorization server for tokens (RFC 6749 §3.2), and understands what it answers.
//!
//! Four things differ from server to server, and each has its own place here:
//!
//! | What | Where |
//! |---|---|
//! | the endpoint_url, and what it must not be | [`OAuthClient`] |
//! | how the client says who it is | [`ClientAuth`] |
//! | whether the body is a form or JSON, and how parameters are called | [`BodyFormat`], [`OAuthClient::refresh_parameter`] |
//! | what the answer looks like | one parser, lenient about all forms seen in the wild |
//!
//! Requests go through any [`tower::Service`] that speaks HTTP, so timeouts, proxies, tracing or a test double are added
//! with the layers one knows. With the feature `reqwest` there is one ready-made.
//!
//! A token request carries secrets, and that rules the rest: only https, or http to the machine itself; a redirect is
//! never followed; of an answer that was not understood, an error tells the status, the type and the size, and never
//! the text.

mod client;
mod client_auth;
mod endpoint_url;
mod error_response;
mod send;
mod token_request;
mod token_response;
mod values;

#[cfg(feature = "reqwest")]
mod reqwest_transport;

pub use client::OAuthClient;
pub use client_auth::ClientAuth;
pub(crate) use endpoint_url::{join, parse};
#[cfg(feature = "reqwest")]
pub use reqwest_transport::{ReqwestFuture, ReqwestTransport};
pub(crate) use send::never_left;
pub use token_request::BodyFormat;
pub(crate) use token_response::TokenResponse;
