//! [`RefreshTokenSource`]: tokens for a refresh token.

use std::sync::Arc;

use super::{TokenRequest, TokenSource, seed::Seed, session::SessionSource};
use crate::{
    authorize::Origins,
    cache::Schedule,
    endpoint::TokenEndpoint,
    error::TokenError,
    store::{DynStore, TokenStore},
    token::Token,
};
use secrecy::SecretString;

/// Gets tokens for a refresh token (RFC 6749 §6).
///
/// A server may give a new refresh token with each answer, and take the old one out of force (rotation): the new one is
/// saved before its access token is used. If none comes, the old one stays.
///
/// With a durable [`TokenStore`] a restart goes on where the last process stopped: the refresh token given here only begins
/// the session. Giving another one, after a new login, begins it anew.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BearerAuthLayer, ClientAuth, Origins, RefreshTokenSource, TokenEndpoint};
///
/// let endpoint = TokenEndpoint::new("https://authorize.example.com/OAuth/Token")?
///     .client_auth(ClientAuth::post("my-client", "my-secret"));
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

impl RefreshTokenSource {
    /// A source that begins with `refresh_token`, and keeps its session in memory.
    pub fn new(endpoint: TokenEndpoint, refresh_token: impl Into<SecretString>) -> Self {
        Self {
            session: SessionSource::new(endpoint, Seed::Refresh(refresh_token.into())),
        }
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

    /// What a person must do when the refresh token is dead, to be said in the error.
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.session.advice = Some(advice.into());
        self
    }
}

impl TokenSource for RefreshTokenSource {
    /// # Errors
    ///
    /// [`ReauthRequired`](crate::TokenErrorKind::ReauthRequired) if the refresh token is dead; else what the endpoint or
    /// the store failed with.
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
