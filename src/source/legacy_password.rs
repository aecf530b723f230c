//! [`LegacyPasswordSource`].

use super::GrantSource;
use crate::{grant::LegacyPassword, oauth::OAuthClient};

/// Logs in with the password of a user once, and refreshes afterwards (RFC 6749 §4.3). Legacy: RFC 9700 §2.4 says that it
/// must not be used.
///
/// It is here for servers that have no other way to log in. With a durable [`TokenStore`](crate::TokenStore) a restarted
/// process continues the session, and the password is not sent again. [`LegacyPassword`] says when it is.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{ClientAuth, LegacyPasswordSource, OAuthClient};
///
/// let client = OAuthClient::new("https://login.example.com/token")?
///     .client_auth(ClientAuth::client_secret_post("my-client", "my-secret"));
/// let source = LegacyPasswordSource::new(client, "somebody@example.com", "the-password")
///     .scope("offline_access");
/// # let _ = source;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
pub type LegacyPasswordSource = GrantSource<LegacyPassword>;

impl GrantSource<LegacyPassword> {
    /// A source that begins with the password of a user, and keeps its session in memory.
    pub fn new(
        client: OAuthClient,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        Self::with_grant(client, LegacyPassword::new(username, password))
    }
}
