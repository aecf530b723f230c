//! [`ExchangeTokenSource`]: tokens for an exchange token, then for the refresh token that came with them.

use secrecy::SecretString;

use super::{
    seed::{Exchange, Seed},
    session::{SessionSource, session_source},
};
use crate::oauth::OAuthClient;

/// Exchanges a long-lived token once, and refreshes afterwards.
///
/// The exchange is a POST of `grant_type=exchange_token` with the token in `code`, unless told otherwise: an assertion of
/// RFC 7523 or a token exchange of RFC 8693 are the same with other names. The answer's refresh token renews the session
/// from then on, rotation included; if there is none, the exchange is repeated. If the refresh token dies, the exchange
/// token begins the session anew, as long as the server takes it.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{ClientAuth, ExchangeTokenSource, OAuthClient};
///
/// // RFC 7523 §2.1
/// let endpoint = OAuthClient::new("https://login.example.com/token")?
///     .client_auth(ClientAuth::none("my-client"));
/// let source = ExchangeTokenSource::new(endpoint, "a-signed-assertion")
///     .grant("urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion");
/// # let _ = source;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ExchangeTokenSource {
    session: SessionSource,
}

session_source!(ExchangeTokenSource);

impl ExchangeTokenSource {
    /// A source that begins with `exchange_token`, and keeps its session in memory.
    pub fn new(endpoint: OAuthClient, exchange_token: impl Into<SecretString>) -> Self {
        let seed = Seed::Exchange(Exchange::new(exchange_token.into()));
        Self {
            session: SessionSource::new(endpoint, seed),
        }
    }

    /// The grant type of the exchange, and the parameter that carries the token.
    ///
    /// Default: `exchange_token` and `code`.
    pub fn grant(mut self, grant_type: impl Into<String>, parameter: impl Into<String>) -> Self {
        self.session.edit_exchange(|exchange| {
            exchange.grant_type = grant_type.into();
            exchange.parameter = parameter.into();
        });
        self
    }

    /// Whether the exchange token may be used again when the refresh token is dead, or when none came.
    ///
    /// Default: yes. If the server doesn't take it twice, nothing is lost but one request.
    pub fn reusable(mut self, reusable: bool) -> Self {
        self.session
            .edit_exchange(|exchange| exchange.reusable = reusable);
        self
    }

    /// Another endpoint for refreshing. Default: the one of the exchange.
    pub fn refresh_endpoint(mut self, endpoint: OAuthClient) -> Self {
        self.session.refresh_endpoint = Some(endpoint);
        self
    }
}
