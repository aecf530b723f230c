//! [`RefreshTokenSource`]: tokens for a refresh token.

use secrecy::SecretString;

use super::{
    seed::Seed,
    session::{SessionSource, session_source},
};
use crate::oauth::OAuthClient;

/// Gets tokens for a refresh token (RFC 6749 §6).
///
/// A server may give a new refresh token with each answer, and take the old one out of force (rotation): the new one is
/// saved before its access token is used. If none comes, the old one stays.
///
/// With a durable [`TokenStore`](crate::TokenStore) a restart goes on where the last process stopped: the refresh token given here only begins
/// the session. Giving another one, after a new login, begins it anew.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BearerAuthLayer, ClientAuth, Origins, RefreshTokenSource, OAuthClient};
///
/// let endpoint = OAuthClient::new("https://authorize.example.com/OAuth/Token")?
///     .client_auth(ClientAuth::client_secret_post("my-client", "my-secret"));
/// let source = RefreshTokenSource::new(endpoint, "the-refresh-token")
///     .origins(Origins::only(["https://api.example.com"])?);
/// let layer = BearerAuthLayer::new(source);
/// # let _ = layer;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RefreshTokenSource {
    session: SessionSource,
}

session_source!(RefreshTokenSource);

impl RefreshTokenSource {
    /// A source that begins with `refresh_token`, and keeps its session in memory.
    pub fn new(endpoint: OAuthClient, refresh_token: impl Into<SecretString>) -> Self {
        Self {
            session: SessionSource::new(endpoint, Seed::Refresh(refresh_token.into())),
        }
    }
}
