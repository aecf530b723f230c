//! [`TokenExchangeSource`].

use super::GrantSource;
use crate::{
    error::TokenError,
    grant::{SecurityToken, TokenExchange},
    oauth::OAuthClient,
};

/// Exchanges the tokens of a subject for others (RFC 8693): for another API, or on behalf of a user.
///
/// [`TokenExchange`] says what a response must have, and what is done with a `token_type` of `N_A`.
///
/// # Examples
///
/// The token of a user's session, exchanged for one that a second API accepts:
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{
///     ClientAuth, OAuthClient, RefreshTokenSource, SecurityToken, TokenExchange, TokenExchangeSource,
/// };
///
/// let client = OAuthClient::new("https://login.example.com/token")?
///     .client_auth(ClientAuth::client_secret_basic("my-gateway", "my-secret"));
/// let user = RefreshTokenSource::new(client.clone(), "the-refresh-token-of-user-42");
///
/// let subject = SecurityToken::from_source(user);
/// let source = TokenExchangeSource::new(client, "user-42", subject, TokenExchange::ACCESS_TOKEN)?
///     .resource("https://second-api.example.com");
/// # let _ = source;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
pub type TokenExchangeSource = GrantSource<TokenExchange>;

impl GrantSource<TokenExchange> {
    /// A source that exchanges the tokens of `subject`, which are of the type `subject_token_type`. It keeps its token in
    /// memory.
    ///
    /// `key` tells the session of one subject from that of another in a store. It must stay the same while the subject is the
    /// same, and be another for each other subject: a user id, for example.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::TokenErrorKind::Config) if `key` or the type is empty.
    pub fn new(
        client: OAuthClient,
        key: impl Into<String>,
        subject: SecurityToken,
        subject_token_type: impl Into<String>,
    ) -> Result<Self, TokenError> {
        let grant = TokenExchange::new(key, subject, subject_token_type)?;
        Ok(Self::with_grant(client, grant))
    }

    /// Sets the token of the party that acts on behalf of the subject, and its type (RFC 8693 §1.1). Default: none.
    pub fn actor(self, actor: SecurityToken, actor_token_type: impl Into<String>) -> Self {
        self.map_grant(|grant| grant.actor(actor, actor_token_type))
    }

    /// Sets the type of token to be issued (RFC 8693 §2.1). Default: none is sent, and the server decides.
    pub fn requested_token_type(self, token_type: impl Into<String>) -> Self {
        self.map_grant(|grant| grant.requested_token_type(token_type))
    }
}
