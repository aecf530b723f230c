//! [`ExchangeTokenSource`].

use super::GrantSource;
use crate::{grant::ExchangeTokenGrant, oauth::OAuthClient};

/// Exchanges a long-lived token once, and refreshes afterwards.
///
/// The exchange is a POST of `grant_type=exchange_token` with the token in `code`.
/// [`grant_type`](GrantSource::grant_type) sets other names: an assertion (RFC 7523) has the same form. The refresh token
/// in the response keeps the session alive, rotation included. If there is none, the exchange is repeated. If the refresh
/// token becomes invalid, the exchange token begins the session anew, as long as the server accepts it.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{ClientAuth, ExchangeTokenSource, OAuthClient};
///
/// // RFC 7523 §2.1
/// let client = OAuthClient::new("https://login.example.com/token")?
///     .client_auth(ClientAuth::none("my-client"));
/// let source = ExchangeTokenSource::new(client, "a-signed-assertion")
///     .grant_type("urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion");
/// # let _ = source;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
pub type ExchangeTokenSource = GrantSource<ExchangeTokenGrant>;

impl GrantSource<ExchangeTokenGrant> {
    /// A source that begins with `exchange_token`, and keeps its session in memory.
    pub fn new(client: OAuthClient, exchange_token: impl Into<String>) -> Self {
        Self::with_grant(client, ExchangeTokenGrant::new(exchange_token))
    }

    /// Sets the grant type of the exchange, and the parameter that carries the token.
    ///
    /// Default: `exchange_token` and `code`.
    pub fn grant_type(self, grant_type: impl Into<String>, parameter: impl Into<String>) -> Self {
        self.map_grant(|grant| grant.grant_type(grant_type, parameter))
    }

    /// Sets whether the exchange token may be used again when the refresh token is invalid, or when none was issued.
    ///
    /// Default: yes. If the server accepts it only once, that costs one more request.
    pub fn reusable(self, reusable: bool) -> Self {
        self.map_grant(|grant| grant.reusable(reusable))
    }
}
