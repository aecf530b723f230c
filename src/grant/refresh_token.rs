//! [`RefreshTokenGrant`].

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{Grant, GrantContext};
use crate::{
    error::{TokenError, TokenErrorKind},
    oauth::Parameters,
    store::Identity,
    zeroize::secret,
};

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
    /// `None`: sessions come from the store.
    refresh_token: Option<SecretString>,
}

impl RefreshTokenGrant {
    /// A grant of this refresh token.
    pub fn new(refresh_token: impl Into<String>) -> Self {
        Self {
            refresh_token: Some(secret(refresh_token)),
        }
    }

    /// A grant without a refresh token of its own: see
    /// [`RefreshTokenSource::stored`](crate::RefreshTokenSource::stored).
    pub fn stored() -> Self {
        Self {
            refresh_token: None,
        }
    }
}

impl Grant for RefreshTokenGrant {
    async fn parameters(&self, _cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
        match &self.refresh_token {
            Some(refresh_token) => Ok(Parameters::refresh_token(refresh_token.expose_secret())),
            None => Err(TokenError::new(
                TokenErrorKind::ReauthRequired,
                "there is no refresh token to begin a session with; log in",
            )),
        }
    }

    fn identity(&self) -> Identity {
        match &self.refresh_token {
            Some(refresh_token) => Identity::of_refresh_token(refresh_token.expose_secret()),
            None => Identity::new("stored", ""),
        }
    }

    fn can_begin(&self) -> bool {
        self.refresh_token.is_some()
    }

    fn can_repeat(&self) -> bool {
        false
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "refresh_token"
    }
}

impl fmt::Debug for RefreshTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTokenGrant").finish_non_exhaustive()
    }
}
