//! [`LegacyPassword`].

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{Grant, GrantContext, Requested, requested::requested_setters};
use crate::{error::TokenError, oauth::Parameters, store::Identity, zeroize::secret};

/// Begins a session with the password of a user (RFC 6749 §4.3). Legacy: RFC 9700 §2.4 says that it must not be used.
///
/// It is here for servers that have no other way to log in. The password is sent once. After that the session is refreshed
/// with the refresh tokens that the server issues: ask for them, often with the scope `offline_access`. If the server issues
/// none, the password is sent for each token. If the session ends, the password is not sent again: some servers lock the
/// account of a user whose password is wrong.
///
/// # Examples
///
/// ```
/// use tower_bearer::{Grant, LegacyPassword};
///
/// let grant = LegacyPassword::new("somebody@example.com", "the-password").scope("offline_access");
/// assert!(!grant.can_repeat());
/// ```
#[derive(Clone)]
#[must_use]
pub struct LegacyPassword {
    username: String,
    password: SecretString,
    requested: Requested,
}

requested_setters!(LegacyPassword);

impl LegacyPassword {
    /// A grant of this password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: secret(password),
            requested: Requested::default(),
        }
    }
}

impl Grant for LegacyPassword {
    async fn parameters(&self, _cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
        let parameters = Parameters::new("password")
            .with("username", &self.username)
            .with_secret("password", self.password.clone());
        Ok(self.requested.add_to(parameters))
    }

    fn identity(&self) -> Identity {
        // A corrected password is a new login. People choose passwords that can be guessed, so the store gets only so much
        // of the hash: enough to notice another password, too little to find it.
        let username = ("username", self.username.as_str());
        let password = ("password", self.password.expose_secret());
        let credential = Identity::of_parts("password", [username, password]);
        let start = ("credential", credential.start());
        Identity::of_parts("legacy-password", [username, start])
    }

    fn can_repeat(&self) -> bool {
        false
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn session_parts(&self) -> Vec<(&str, &str)> {
        self.requested.parts()
    }

    fn name(&self) -> &'static str {
        "password"
    }
}

impl fmt::Debug for LegacyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyPassword")
            .field("requested", &self.requested)
            .finish_non_exhaustive()
    }
}
