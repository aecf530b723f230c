//! [`ExchangeTokenGrant`].

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{Grant, GrantContext};
use crate::{error::TokenError, oauth::Parameters, store::Identity, zeroize::secret};

/// Begins a session with a long-lived token or an assertion.
///
/// The default is Winbooks' `grant_type=exchange_token`, with the token in `code`. Other grants that send one secret have
/// the same form with other names.
///
/// # Examples
///
/// ```
/// use tower_bearer::{Grant, ExchangeTokenGrant};
///
/// // RFC 7523 §2.1
/// let grant = ExchangeTokenGrant::new("a-signed-assertion")
///     .grant_type("urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion");
/// assert!(grant.can_repeat());
/// ```
#[derive(Clone)]
#[must_use]
pub struct ExchangeTokenGrant {
    token: SecretString,
    grant_type: String,
    parameter: String,
    reusable: bool,
}

impl ExchangeTokenGrant {
    /// A grant of this exchange token.
    pub fn new(exchange_token: impl Into<String>) -> Self {
        Self {
            token: secret(exchange_token),
            grant_type: "exchange_token".into(),
            parameter: "code".into(),
            reusable: true,
        }
    }

    /// Sets the grant type, and the parameter that carries the token. Default: `exchange_token` and `code`.
    pub fn grant_type(
        mut self,
        grant_type: impl Into<String>,
        parameter: impl Into<String>,
    ) -> Self {
        self.grant_type = grant_type.into();
        self.parameter = parameter.into();
        self
    }

    /// Sets whether the token may be exchanged more than once. Default: yes.
    ///
    /// If the server accepts it only once, the default costs one more request at the end of the session.
    pub fn reusable(mut self, reusable: bool) -> Self {
        self.reusable = reusable;
        self
    }
}

impl Grant for ExchangeTokenGrant {
    async fn parameters(&self, _cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
        Ok(Parameters::new(&self.grant_type).with(&self.parameter, self.token.expose_secret()))
    }

    fn identity(&self) -> Identity {
        Identity::new("exchange", self.token.expose_secret())
    }

    fn can_repeat(&self) -> bool {
        self.reusable
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "exchange_token"
    }
}

impl fmt::Debug for ExchangeTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeTokenGrant")
            .field("grant_type", &self.grant_type)
            .field("parameter", &self.parameter)
            .field("reusable", &self.reusable)
            .finish_non_exhaustive()
    }
}
