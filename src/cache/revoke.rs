//! [`TokenCache::revoke`].

use std::sync::Arc;

use tokio::time;
use tracing::Instrument;

use super::{
    lookup::{interrupted, runtime},
    token_cache::TokenCache,
};
use crate::{
    error::TokenError,
    token_source::{TokenContext, TokenSource},
};

impl TokenCache {
    /// Ends the session: the authorization server revokes its tokens (RFC 7009), and no process that shares the store uses
    /// it again.
    ///
    /// It waits for a running refresh first, in this process and in others that share the store, so that the newest tokens
    /// are revoked. The refresh token is sent first, then the access token. Then the store gets a session without tokens,
    /// which keeps the identities of the credentials. So a process with the old configuration does not begin the session
    /// anew, not even with a grant that could. Only a new login, or a [reset](TokenCache::reset), passes it.
    ///
    /// Afterwards requests fail with [`ReauthRequired`](crate::TokenErrorKind::ReauthRequired). Other processes fail in the same way
    /// with their next refresh, or within seconds if the store [notifies](crate::TokenStore::changes) them. Until then, the access
    /// tokens that they have are as good as the server says: it should have revoked them with the refresh token (RFC 7009 §2.1).
    ///
    /// Dropping the returned future does not stop it.
    ///
    /// # Errors
    ///
    /// The session goes on, and this can be called again:
    ///
    /// - [`Config`](crate::TokenErrorKind::Config): the source cannot revoke, or no revocation endpoint is known
    ///   ([`OAuthClient::revocation_url`](crate::OAuthClient::revocation_url)).
    /// - [`InvalidRequest`](crate::TokenErrorKind::InvalidRequest): the server does not revoke tokens of this type. If it is only
    ///   the access token that it does not revoke, the session ends with its refresh token, and there is no error.
    /// - Others as in a refresh. A [transient](TokenError::is_transient) one may have a
    ///   [`retry_after`](TokenError::retry_after).
    ///
    /// With one exception: if the session was revoked at the server and could not be saved as such, the error is that of the
    /// store, but [final](TokenError::is_final). The session has ended, and it is saved in the background.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{TokenCache, TokenError};
    ///
    /// async fn log_out(cache: &TokenCache) -> Result<(), TokenError> {
    ///     cache.revoke().await
    /// }
    /// # #[cfg(feature = "testing")] {
    /// # use tower_bearer::{ClientAuth, OAuthClient, RefreshTokenSource, TokenErrorKind, testing::{AuthorizationServer, Dialect}};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), TokenError> {
    /// # let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
    /// # let client = OAuthClient::with_transport("https://login.example.com/token", server.clone())?
    /// #     .client_auth(ClientAuth::none("app"))
    /// #     .revocation_url("https://login.example.com/revoke")?;
    /// # let cache = TokenCache::new(RefreshTokenSource::new(client, server.issue_refresh_token()));
    /// cache.token().await?;
    /// log_out(&cache).await?;
    /// assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::ReauthRequired);
    /// # assert_eq!(server.live_sessions(), 0);
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    pub async fn revoke(&self) -> Result<(), TokenError> {
        let shared = Arc::clone(&self.shared);
        // A task of its own: once the server has revoked the tokens, this cache must not use them any more.
        let task = runtime()?.spawn(
            async move {
                let _until_known = shared.replacing_session.lock().await;
                if let Some(running) = shared.running_result() {
                    let limit = shared.settings.refresh_timeout;
                    drop(time::timeout(limit, running.ended()).await);
                }
                let mut cx = TokenContext::with_clock(shared.settings.clock.clone());
                if let Some(issued) = &*shared.published.load() {
                    cx = cx.replacing(issued.token().clone());
                }
                let revoked = shared.source.revoke(cx).await;
                if revoked.as_ref().err().is_none_or(TokenError::is_final) {
                    shared.revoked();
                }
                revoked
            }
            .in_current_span(),
        );
        task.await.unwrap_or_else(|_| {
            Err(interrupted(
                "the task that was revoking the session ended early",
            ))
        })
    }
}
