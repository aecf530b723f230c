//! [`TokenCache::login`].

use std::sync::Arc;

use tracing::Instrument;

use super::{
    lookup::{interrupted, runtime},
    token_cache::TokenCache,
};
use crate::{
    error::TokenError,
    store::StoredSession,
    token_source::{TokenContext, TokenSource},
};

impl TokenCache {
    /// Goes on with the session of a new login, for example after a person has logged in again in a browser. No restart is
    /// needed, neither of this process nor of others that share the store.
    ///
    /// The session is stored in place of the one before it. Its access token is used at once. If it has none that is usable,
    /// the next request waits for one refresh with its refresh token. What was before no longer counts: a dead grant, the
    /// backoff after failures, a revocation, and a refresh that is running. Callers that wait get the new token. Requests
    /// that were sent with the old token may still be rejected: that rejects nothing of the new session.
    ///
    /// Other processes go on with the new session when they read the store next. If the store
    /// [notifies](crate::TokenStore::changes) them, as Postgres and Redis do, that is within seconds.
    ///
    /// The module `login` has logins that make the session. Or make it with [`StoredSession::new`]. Its identity is the one of the login: `Identity::new("refresh",
    /// refresh_token)` fits the sources that may be configured with this refresh token later. If it is an identity that the
    /// store knows already, or that of the source, the session gets another one. So a process that is started again with the
    /// old credential goes on with the new session.
    ///
    /// Dropping the returned future does not stop it.
    ///
    /// # Errors
    ///
    /// The login was not taken. The session goes on as before, and this can be called again:
    ///
    /// - [`Config`](crate::TokenErrorKind::Config): the source keeps no session; `session` has no token that can be used; or
    ///   the stored session belongs to another client and lives.
    /// - [`Store`](crate::TokenErrorKind::Store), [`Timeout`](crate::TokenErrorKind::Timeout): the store was not reached, or other
    ///   processes held the lease for too long.
    /// - [`LeaseLost`](crate::TokenErrorKind::LeaseLost): other processes saved again and again.
    ///
    /// If only saving fails, there is no error: this process goes on with the session from memory and saves it in the
    /// background, as after a refresh. The [status](TokenCache::status) says so, and [`close`](TokenCache::close) tries
    /// to save it.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{Identity, StoredSession, TokenCache, TokenError};
    ///
    /// async fn log_in(cache: &TokenCache, refresh_token: &str) -> Result<(), TokenError> {
    ///     let identity = Identity::new("refresh", refresh_token);
    ///     cache.login(StoredSession::new(identity).with_refresh_token(refresh_token)).await
    /// }
    /// # #[cfg(feature = "testing")] {
    /// # use tower_bearer::{ClientAuth, OAuthClient, RefreshTokenSource, TokenErrorKind, testing::{AuthorizationServer, Dialect}};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), TokenError> {
    /// # let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
    /// # let client = OAuthClient::with_transport("https://login.example.com/token", server.clone())?
    /// #     .client_auth(ClientAuth::none("app"));
    /// # let cache = TokenCache::new(RefreshTokenSource::new(client, "an-old-one"));
    /// # let new_refresh_token = server.issue_refresh_token();
    /// assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::ReauthRequired);
    /// log_in(&cache, &new_refresh_token).await?;
    /// cache.token().await?;
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    pub async fn login(&self, session: StoredSession) -> Result<(), TokenError> {
        let shared = Arc::clone(&self.shared);
        // A task of its own: once the source has the session, this cache must not use the one before it any more.
        let task = runtime()?.spawn(
            async move {
                let _until_known = shared.replacing_session.lock().await;
                let asked = shared.now();
                let cx = TokenContext::with_clock(shared.settings.clock.clone());
                let token = shared.source.login(session, cx).await?;
                shared.logged_in(token, asked);
                Ok(())
            }
            .in_current_span(),
        );
        task.await.unwrap_or_else(|_| {
            Err(interrupted(
                "the task that was taking the login ended early",
            ))
        })
    }
}
