//! [`PendingLogin`]: what is remembered of a login while a person is at the authorization server.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::secret_text;
use crate::store::Identity;

/// What a program remembers of a login while the person is at the authorization server. It is used once.
///
/// [`AuthorizationCode::begin`](super::AuthorizationCode::begin) makes it, and
/// [`finish`](super::AuthorizationCode::finish) takes it.
///
/// A web application keeps it with serde in the session of the browser that it sends away, and removes it from there when
/// that browser comes back. Keep several, by their [`state`](Self::state), because people open two tabs. **It holds secrets**:
/// the `state` and the code verifier. So keep it on the server, or in a cookie only if that is encrypted, `HttpOnly` and
/// `Secure`. What was written by one version of this crate is meant to be read minutes later, and need not be readable by
/// another version. A value that was damaged is not read.
///
/// `Debug` shows no secret.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use tower_bearer::login::PendingLogin;
/// # use tower_bearer::{ClientAuth, OAuthClient, login::AuthorizationCode, testing::{AuthorizationServer, Dialect}};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// # let server = AuthorizationServer::new(Dialect::Rfc6749).issuer("https://login.example.com");
/// # let client = OAuthClient::discover_with_transport("https://login.example.com", server)?
/// #     .client_auth(ClientAuth::none("my-app"));
/// # let login = AuthorizationCode::new(client);
///
/// let (url, pending) = login.begin("https://app.example.com/callback").await?;
///
/// // In the session of the browser, until it comes back.
/// let kept: String = serde_json::to_string(&pending)?;
/// let pending: PendingLogin = serde_json::from_str(&kept)?;
/// # drop((url, pending));
/// # Ok(()) }
/// # main().unwrap();
/// # }
/// ```
#[derive(Serialize, Deserialize)]
#[serde(try_from = "super::stored_login::StoredLogin")]
#[must_use = "a login cannot be finished without it"]
pub struct PendingLogin {
    /// The client that has begun it.
    pub(super) client: Identity,
    /// The server that the person was sent to, if it is known.
    pub(super) issuer: Option<String>,
    /// The response must name the issuer.
    pub(super) names_issuer: bool,
    pub(super) redirect_uri: String,
    #[serde(with = "secret_text")]
    pub(super) state: SecretString,
    #[serde(with = "secret_text")]
    pub(super) verifier: SecretString,
}

impl PendingLogin {
    /// The `state` of this login: 43 characters of base64url. The authorization server sends it back in the query of the
    /// redirect URI.
    ///
    /// Keep pending logins by it, in the session of the browser: a person who opens two tabs has begun two logins, and may
    /// finish both. Look only in the session of the browser that comes back. Otherwise an attacker can send a person the
    /// response to a login of their own.
    ///
    /// It is a secret of the browser's session, so do not log it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::collections::HashMap;
    ///
    /// use tower_bearer::login::PendingLogin;
    /// # use tower_bearer::{ClientAuth, OAuthClient, login::AuthorizationCode, testing::{AuthorizationServer, Dialect}};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// # let server = AuthorizationServer::new(Dialect::Rfc6749).issuer("https://login.example.com");
    /// # let client = OAuthClient::discover_with_transport("https://login.example.com", server)?
    /// #     .client_auth(ClientAuth::none("my-app"));
    /// # let login = AuthorizationCode::new(client);
    /// // In the session of the browser.
    /// let mut logins: HashMap<String, PendingLogin> = HashMap::new();
    ///
    /// for _tab in 0..2 {
    ///     let (url, pending) = login.begin("https://app.example.com/callback").await?;
    ///     assert!(url.contains(&format!("&state={}&", pending.state())));
    ///     logins.insert(pending.state().to_owned(), pending);
    /// }
    /// assert_eq!(logins.len(), 2);
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn state(&self) -> &str {
        self.state.expose_secret()
    }
}

impl fmt::Debug for PendingLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLogin")
            .field("issuer", &self.issuer)
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}
