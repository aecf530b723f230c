//! [`ExchangeTokenSource`]: tokens for an exchange token, then for the refresh token that came with them.

use std::sync::Arc;

use super::{
    TokenRequest, TokenSource,
    seed::{Exchange, Seed},
    session::SessionSource,
};
use crate::{
    authorize::Origins,
    cache::Schedule,
    endpoint::TokenEndpoint,
    error::TokenError,
    store::{DynStore, TokenStore},
    token::Token,
};
use secrecy::SecretString;

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
/// use tower_bearer::{ClientAuth, ExchangeTokenSource, TokenEndpoint};
///
/// // RFC 7523 §2.1
/// let endpoint = TokenEndpoint::new("https://login.example.com/token")?
///     .client_auth(ClientAuth::post_id("my-client"));
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

impl ExchangeTokenSource {
    /// A source that begins with `exchange_token`, and keeps its session in memory.
    pub fn new(endpoint: TokenEndpoint, exchange_token: impl Into<SecretString>) -> Self {
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
    pub fn refresh_endpoint(mut self, endpoint: TokenEndpoint) -> Self {
        self.session.refresh_endpoint = Some(endpoint);
        self
    }

    /// Where the session is kept. Default: a [`MemoryStore`](crate::MemoryStore) of its own.
    pub fn store(self, store: impl TokenStore) -> Self {
        self.shared_store(Arc::new(store))
    }

    pub(crate) fn shared_store(mut self, store: Arc<dyn DynStore>) -> Self {
        self.session.store(store);
        self
    }

    /// Where the tokens may go. Default: [`Origins::any_secure`].
    pub fn origins(mut self, origins: Origins) -> Self {
        self.session.origins = origins;
        self
    }

    /// When the tokens are renewed. Default: [`Schedule::default`].
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.session.schedule = schedule;
        self
    }

    /// What a person must do when neither token is good any more, to be said in the error.
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.session.advice = Some(advice.into());
        self
    }
}

impl TokenSource for ExchangeTokenSource {
    /// # Errors
    ///
    /// [`ReauthRequired`](crate::TokenErrorKind::ReauthRequired) if neither token is good any more; else what the
    /// endpoint or the store failed with.
    async fn token(&self, request: TokenRequest) -> Result<Token, TokenError> {
        self.session.token(request).await
    }

    async fn mended(&self) -> bool {
        self.session.mended().await
    }

    fn origins(&self) -> Origins {
        self.session.origins.clone()
    }

    fn schedule(&self) -> Schedule {
        self.session.schedule.clone()
    }
}
