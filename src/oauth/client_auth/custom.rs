//! Client authentication by a closure.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::SystemTime};

use http::HeaderMap;
use secrecy::SecretString;

use crate::{
    error::TokenError,
    oauth::{Parameters, header::sensitive_header},
    zeroize::secret,
};

/// What the closure of [`ClientAuth::custom`](crate::ClientAuth::custom) may need to know.
#[derive(Clone)]
pub struct ClientAuthContext {
    token_url: String,
    now: SystemTime,
}

impl ClientAuthContext {
    pub(super) fn new(token_url: String, now: SystemTime) -> Self {
        Self { token_url, now }
    }

    /// The URL that the request goes to.
    pub fn token_url(&self) -> &str {
        &self.token_url
    }

    /// The server's time, as far as it is known. Use it instead of the system's clock.
    pub fn now(&self) -> SystemTime {
        self.now
    }
}

impl fmt::Debug for ClientAuthContext {
    /// Leaves out the URL: its query may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthContext")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// Parameters and headers that authenticate one token request.
///
#[derive(Default)]
pub struct AuthParts {
    parameters: Vec<(String, SecretString)>,
    headers: HeaderMap,
}

impl AuthParts {
    /// Nothing to add yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter of the body.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), secret(value)));
        self
    }

    /// Adds a header, or replaces the one of that name. Its value is marked sensitive.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::TokenErrorKind::Config) if no request can carry `name` or `value`, or if the header describes the body.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, TokenError> {
        let (name, value) = sensitive_header(name, value)?;
        self.headers.insert(name, value);
        Ok(self)
    }

    pub(super) fn add_to(self, parameters: &mut Parameters, headers: &mut HeaderMap) {
        for (name, value) in self.parameters {
            parameters.push(name, value);
        }
        headers.extend(self.headers);
    }
}

impl fmt::Debug for AuthParts {
    /// Names the parameters and headers, and shows no values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("AuthParts")
            .field("parameters", &names)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish()
    }
}

pub(super) type BoxCustom = Arc<
    dyn Fn(ClientAuthContext) -> Pin<Box<dyn Future<Output = Result<AuthParts, TokenError>> + Send>>
        + Send
        + Sync,
>;

pub(super) fn boxed<F, Fut>(make: F) -> BoxCustom
where
    F: Fn(ClientAuthContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AuthParts, TokenError>> + Send + 'static,
{
    Arc::new(move |cx| Box::pin(make(cx)))
}
