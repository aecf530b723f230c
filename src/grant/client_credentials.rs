//! [`ClientCredentials`].

use super::{Grant, GrantContext, Requested, requested::requested_setters};
use crate::{error::TokenError, oauth::Parameters, store::Identity};

/// Obtains tokens for the client itself, without a user (RFC 6749 §4.4).
///
/// Each token is requested with the client's own authentication. A refresh token in a response is ignored (§4.4.3).
///
/// # Examples
///
/// ```
/// use tower_bearer::{ClientCredentials, Grant};
///
/// let grant = ClientCredentials::new()
///     .scope("invoices:read")
///     .resource("https://api.example.com");
/// assert!(!grant.uses_refresh_tokens());
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ClientCredentials {
    requested: Requested,
}

requested_setters!(ClientCredentials);

impl ClientCredentials {
    /// A grant that asks for nothing but a token.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Grant for ClientCredentials {
    async fn parameters(&self, _cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
        Ok(self.requested.add_to(Parameters::new("client_credentials")))
    }

    fn identity(&self) -> Identity {
        // The credential is the client's. A session is stored with its client as well.
        Identity::new("client-credentials", "")
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn uses_refresh_tokens(&self) -> bool {
        false
    }

    fn session_parts(&self) -> Vec<(&str, &str)> {
        self.requested.parts()
    }

    fn name(&self) -> &'static str {
        "client_credentials"
    }
}
