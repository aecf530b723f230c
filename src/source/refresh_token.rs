//! [`RefreshTokenSource`].

use super::GrantSource;
use crate::{grant::RefreshTokenGrant, oauth::OAuthClient};

/// Obtains tokens with a refresh token (RFC 6749 §6).
///
/// A server may issue a new refresh token with each response and invalidate the old one (rotation). The new one is saved
/// before its access token is used. If the response has none, the old one is kept.
///
/// With a durable [`TokenStore`](crate::TokenStore) a restarted process continues where the last one stopped: the refresh
/// token given here only begins the session. Configuring another one, after a new login, begins a new session.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BearerAuthLayer, ClientAuth, OAuthClient, Origins, RefreshTokenSource};
///
/// let client = OAuthClient::new("https://authorize.example.com/OAuth/Token")?
///     .client_auth(ClientAuth::client_secret_post("my-client", "my-secret"));
/// let source = RefreshTokenSource::new(client, "the-refresh-token")
///     .origins(Origins::only(["https://api.example.com"])?);
/// let layer = BearerAuthLayer::new(source);
/// # let _ = layer;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
pub type RefreshTokenSource = GrantSource<RefreshTokenGrant>;

impl GrantSource<RefreshTokenGrant> {
    /// A source that begins with `refresh_token`, and keeps its session in memory.
    pub fn new(client: OAuthClient, refresh_token: impl Into<String>) -> Self {
        Self::with_grant(client, RefreshTokenGrant::new(refresh_token))
    }

    /// A source without a refresh token of its own. It goes on with the session in its [store](GrantSource::store).
    ///
    /// It is for programs in which people log in: [`TokenCache::login`](crate::TokenCache::login) begins the session, in this
    /// process or in another one that shares the store. Until then, tokens are errors of kind
    /// [`ReauthRequired`](crate::TokenErrorKind::ReauthRequired), and nothing is sent or stored. A session that another
    /// program imports is used as well, whatever its [`Identity`](crate::Identity) is.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "reqwest", feature = "file-store"))] {
    /// use tower_bearer::{ClientAuth, FileStore, OAuthClient, RefreshTokenSource};
    ///
    /// let client = OAuthClient::new("https://login.example.com/token")?.client_auth(ClientAuth::none("my-app"));
    /// let source = RefreshTokenSource::stored(client)
    ///     .store(FileStore::new("/var/lib/my-app/session.json")?)
    ///     .reauth_hint("run `my-app login`");
    /// # let _ = source;
    /// # }
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    pub fn stored(client: OAuthClient) -> Self {
        Self::with_grant(client, RefreshTokenGrant::stored())
    }
}
