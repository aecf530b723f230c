//! [`JwtBearerSource`].

use super::GrantSource;
use crate::{
    grant::{JwtBearer, SecurityToken},
    oauth::OAuthClient,
};

/// Obtains tokens with signed assertions (RFC 7523 §2.1).
///
/// Each token is requested with an assertion that is made or read for the request. A refresh token in a response is ignored,
/// and no other grant is tried. A rejected assertion (`invalid_grant`) never ends the session: it is tried again with another
/// one, slowly.
///
/// In a store, sessions are told apart by their clients, by what they [ask for](GrantSource::scope), and by the path of the
/// file that the assertion is read from. If other assertions of one client are about different subjects, give each session a
/// [name](GrantSource::session_name).
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{JwtBearerSource, OAuthClient, SecurityToken};
///
/// # async fn sign(_: std::time::SystemTime, _: &str) -> Result<String, std::io::Error> { Ok("a.b.c".into()) }
/// # use tower_bearer::TokenError;
/// let client = OAuthClient::new("https://login.example.com/token")?;
/// let assertion = SecurityToken::from_fn(|cx| async move {
///     sign(cx.now(), cx.audience()).await.map_err(TokenError::other)
/// });
/// let source = JwtBearerSource::new(client, assertion).scope("invoices:read");
/// # let _ = source;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
pub type JwtBearerSource = GrantSource<JwtBearer>;

impl GrantSource<JwtBearer> {
    /// A source of tokens for `assertion`, which keeps its token in memory.
    pub fn new(client: OAuthClient, assertion: SecurityToken) -> Self {
        Self::with_grant(client, JwtBearer::new(assertion))
    }
}
