//! [`OAuthClient`]: requests tokens from an authorization server (RFC 6749 §3.2) and parses its responses.
//!
//! Servers differ in four ways. Each has one place here:
//!
//! | What differs | Where |
//! |---|---|
//! | the URLs | [`OAuthClient::new`], [`OAuthClient::discover`](OAuthClient::discover_with_transport), [`OAuthClient::refresh_url`] |
//! | how the client authenticates | [`ClientAuth`] |
//! | the body format, and the parameters | [`BodyFormat`], [`OAuthClient::parameter`] |
//! | the response | one lenient parser for all forms seen in the wild |
//!
//! Requests go through any [`tower::Service`] that speaks HTTP, so timeouts, proxies and tracing are added with ordinary
//! layers. The feature `reqwest` brings one.
//!
//! Token requests carry secrets. So a URL must be https, or http to this machine. Redirects are never followed. An error
//! tells the status, type and size of a response, and never its text.

#[cfg(feature = "login")]
mod authorization;
mod client;
mod client_auth;
mod client_identity;
mod credential;
mod dead_grant;
#[cfg(feature = "login")]
mod device_authorization;
mod discovery;
mod endpoint_url;
mod endpoints;
mod error_kind;
mod error_response;
mod expected_exchange;
mod fields;
mod gzip;
mod header;
mod json;
#[cfg(feature = "jwt")]
mod jwt;
mod parameters;
mod response_body;
mod revocation;
mod send;
mod server_clock;
mod settings;
mod token_request;
mod token_response;
mod transport;
mod values;

#[cfg(feature = "reqwest")]
mod reqwest_attempt;
#[cfg(feature = "reqwest")]
mod reqwest_transport;

pub use client::OAuthClient;
pub use client_auth::{AuthParts, ClientAuth, ClientAuthContext, ClientSecret};
pub use dead_grant::DeadGrant;
#[cfg(feature = "login")]
pub(crate) use device_authorization::DeviceAuthorization;
pub use discovery::ProtectedResource;
pub(crate) use endpoint_url::EndpointUrl;
pub(crate) use error_response::VendorErrors;
pub(crate) use expected_exchange::{ExpectedExchange, SubjectExpires};
#[cfg(feature = "jwt")]
pub use jwt::{JwtAlgorithm, JwtAssertion, JwtSigner, SigningKey};
pub(crate) use parameters::MakeParameters;
pub use parameters::Parameters;
#[cfg(feature = "reqwest")]
pub(crate) use reqwest_attempt::ReqwestAttempt;
#[cfg(feature = "reqwest")]
pub use reqwest_transport::{ReqwestFuture, ReqwestTransport};
pub(crate) use revocation::TokenTypeHint;
pub(crate) use server_clock::RequestTime;
pub use token_request::BodyFormat;
pub(crate) use token_response::TokenResponse;
pub(crate) use transport::{erase, was_not_sent};
