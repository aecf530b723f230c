//! [`RefreshTokenGrant`].

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{Grant, GrantContext};
use crate::{error::TokenError, oauth::Parameters, store::Identity, zeroize::secret};

/// Begins a session with a refresh token (RFC 6749 §6).
///
/// If the server issues no other refresh token, the session keeps this one. The grant cannot be repeated: once the
/// session's refresh token is invalid, so is this one.
///
/// # Examples
///
/// ```
/// use tower_bearer::{Grant, RefreshTokenGrant};
///
/// let grant = RefreshTokenGrant::new("the-refresh-token");
/// assert!(!grant.can_repeat());
/// ```
#[derive(Clone)]
#[must_use]
pub struct RefreshTokenGrant {
    refresh_token: SecretString,
}

impl RefreshTokenGrant {
    /// A grant of this refresh token.
    pub fn new(refresh_token: impl Into<String>) -> Self {
        Self {
            refresh_token: secret(refresh_token),
        }
    }
}

impl Grant for RefreshTokenGrant {
    async fn parameters(&self, _cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
        Ok(Parameters::refresh_token(
            self.refresh_token.expose_secret(),
        ))
    }

    fn identity(&self) -> Identity {
        Identity::of_refresh_token(self.refresh_token.expose_secret())
    }

    fn can_repeat(&self) -> bool {
        false
    }

    fn is_fixed(&self) -> bool {
        true
    }
}

impl fmt::Debug for RefreshTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTokenGrant").finish_non_exhaustive()
    }
}
