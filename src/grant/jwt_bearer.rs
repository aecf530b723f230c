//! [`JwtBearer`].

use super::{Grant, GrantContext, Requested, SecurityToken, requested::requested_setters};
use crate::{error::TokenError, oauth::Parameters, store::Identity};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Obtains tokens with a signed assertion (RFC 7523 §2.1), such as that of a service account.
///
/// The assertion is made or read anew for each request, so it can be short-lived. Each token is requested with one. A
/// refresh token in a response is ignored. A rejected assertion never ends the session: the next request has another
/// one. If it was made for a wrong [time](GrantContext::now), as the response of the server shows, that request is sent
/// at once, but only once.
///
/// # Examples
///
/// ```
/// use tower_bearer::{Grant, JwtBearer, SecurityToken};
///
/// let grant = JwtBearer::new(SecurityToken::from_file("/run/assertion")).scope("invoices:read");
/// assert!(!grant.is_fixed());
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct JwtBearer {
    assertion: SecurityToken,
    requested: Requested,
}

requested_setters!(JwtBearer);

impl JwtBearer {
    /// A grant of this assertion.
    pub fn new(assertion: SecurityToken) -> Self {
        Self {
            assertion,
            requested: Requested::default(),
        }
    }
}

impl Grant for JwtBearer {
    async fn parameters(&self, cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
        let assertion = self.assertion.obtain(cx).await?;
        let parameters = Parameters::new(GRANT_TYPE).with_secret("assertion", assertion.text);
        Ok(self.requested.add_to(parameters))
    }

    fn identity(&self) -> Identity {
        Identity::new("jwt-bearer", "")
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn rejected(&self) {
        self.assertion.rejected();
    }

    fn uses_refresh_tokens(&self) -> bool {
        false
    }

    fn session_parts(&self) -> Vec<(&str, &str)> {
        let mut parts = self.requested.parts();
        let path = self.assertion.path().and_then(|path| path.to_str());
        parts.extend(path.map(|path| ("assertion_file", path)));
        parts
    }

    fn name(&self) -> &'static str {
        "jwt_bearer"
    }
}
