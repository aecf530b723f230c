//! [`GrantSource`]: the source itself and its settings.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use super::session_state::SessionState;
use crate::{
    error::TokenError,
    grant::Grant,
    oauth::OAuthClient,
    origins::Origins,
    schedule::Schedule,
    store::{BoxTokenStore, Identity, MemoryStore, StoredSession, TokenStore, Unencrypted},
    token::Token,
    token_source::{TokenContext, TokenSource},
};

/// Keeps an OAuth session that begins with a [`Grant`].
///
/// The first tokens come from the grant. From then on the session is refreshed with the refresh tokens that the server
/// issues. Sources in many tasks, processes and hosts can share one session through a [`TokenStore`]: each refresh token
/// is used once, and every source adopts what another one has obtained. With a grant that does not
/// [use refresh tokens](Grant::uses_refresh_tokens), the store is only there to share access tokens.
///
/// [`ClientCredentialsSource`](crate::ClientCredentialsSource), [`RefreshTokenSource`](crate::RefreshTokenSource),
/// [`ExchangeTokenSource`](crate::ExchangeTokenSource) and others are this type with the grants of this crate. Clones share
/// the session.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{GrantSource, OAuthClient, RefreshTokenGrant};
///
/// let client = OAuthClient::new("https://login.example.com/token")?;
/// let source = GrantSource::with_grant(client, RefreshTokenGrant::new("the-refresh-token"))
///     .reauth_hint("log in at https://portal.example.com again");
/// # let _ = source;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[must_use]
pub struct GrantSource<G> {
    pub(super) client: OAuthClient,
    pub(super) grant: Arc<G>,
    pub(super) identity: Identity,
    /// Which sessions of a store are ours: those of this client.
    pub(super) client_identity: Identity,
    /// `client_identity` is a name that was set.
    is_named: bool,
    pub(super) store: BoxTokenStore,
    origins: Origins,
    pub(super) schedule: Schedule,
    pub(super) reauth_hint: Option<String>,
    pub(super) state: Arc<Mutex<SessionState>>,
}

impl<G: Grant> GrantSource<G> {
    /// A source that begins with `grant`, and keeps its session in memory.
    pub fn with_grant(client: OAuthClient, grant: G) -> Self {
        Self {
            client_identity: client.identity(&grant.session_parts()),
            is_named: false,
            client,
            identity: grant.identity(),
            grant: Arc::new(grant),
            store: MemoryStore::new().boxed(),
            origins: Origins::any_https(),
            schedule: Schedule::default(),
            reauth_hint: None,
            state: Arc::default(),
        }
    }

    /// Sets where the session is kept. Default: a [`MemoryStore`] of its own.
    pub fn store(self, store: impl TokenStore) -> Self {
        Self {
            // No source uses or overwrites what it cannot read.
            store: Unencrypted::new(store).boxed(),
            // What is known of the session in the other store does not apply here.
            state: Arc::default(),
            ..self
        }
    }

    /// Names the session. The name is stored with it instead of the client that it belongs to.
    ///
    /// Without a name, a stored session belongs to the token endpoint and the refresh URL, the client id, the scope, the
    /// resources and the audiences, as [`parameter`](OAuthClient::parameter) of the client or the grant sets them, and
    /// to whatever else the grant [adds](Grant::session_parts). A source of another client neither uses nor overwrites
    /// it: its error is of kind [`Config`](crate::TokenErrorKind::Config). The client's secret may change.
    ///
    /// Set a name before the session begins if these may change while it lives, for example if the token endpoint is
    /// reached through changing ports. Then different sessions need different names. It is not a key: each session needs
    /// a store of its own.
    pub fn session_name(self, name: impl AsRef<str>) -> Self {
        Self {
            client_identity: Identity::new("session-name", name.as_ref()),
            is_named: true,
            // What is known of the session of the client does not apply here.
            state: Arc::default(),
            ..self
        }
    }

    /// Sets where the tokens may go. Default: [`Origins::any_https`].
    pub fn origins(self, origins: Origins) -> Self {
        Self { origins, ..self }
    }

    /// Sets when the tokens are refreshed. Default: [`Schedule::default`].
    pub fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Sets what a person must do when the session has ended, such as where to log in. The error then says it after the reason.
    pub fn reauth_hint(self, reauth_hint: impl Into<String>) -> Self {
        Self {
            reauth_hint: Some(reauth_hint.into()),
            ..self
        }
    }

    /// The identity of the grant, which a store keeps beside the session.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn map_grant(self, change: impl FnOnce(G) -> G) -> Self
    where
        G: Clone,
    {
        let grant = change(Arc::unwrap_or_clone(self.grant));
        let client_identity = if self.is_named {
            self.client_identity
        } else {
            self.client.identity(&grant.session_parts())
        };
        Self {
            client_identity,
            identity: grant.identity(),
            grant: Arc::new(grant),
            // What is known of the session of another grant does not apply here.
            state: Arc::default(),
            ..self
        }
    }
}

impl<G: Grant> TokenSource for GrantSource<G> {
    /// # Errors
    ///
    /// [`ReauthRequired`](crate::TokenErrorKind::ReauthRequired) if the session has ended, otherwise the error of the
    /// token endpoint, of the store or of the grant.
    async fn token(&self, cx: TokenContext) -> Result<Token, TokenError> {
        if !self.grant.uses_refresh_tokens() {
            return self.adopt_or_request(&cx).await;
        }
        let token = match cx.wanted() {
            Some(wanted) => self.more_of_login(wanted, &cx).await,
            None => self.refresh(&cx).await,
        }?;
        let is_asked_for_more = cx.scopes().next().is_some();
        Ok(if is_asked_for_more {
            token.with_no_added_scope()
        } else {
            token
        })
    }

    async fn has_changed(&self) -> bool {
        self.store_has_changed().await
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        self.store.changes()
    }

    async fn session_changed(&self, cx: TokenContext) -> Result<bool, TokenError> {
        self.stored_session_changed(&cx).await
    }

    async fn stored_token(&self, cx: TokenContext) -> Option<Token> {
        let stored = self.store.load().await.inspect_err(|error| {
            tracing::debug!(%error, "the store was not read after a rejection");
        });
        self.adopt(stored.ok()?.as_ref(), &cx)
    }

    async fn revoke(&self, cx: TokenContext) -> Result<(), TokenError> {
        self.revoke_session(&cx).await
    }

    async fn login(
        &self,
        session: StoredSession,
        cx: TokenContext,
    ) -> Result<Option<Token>, TokenError> {
        self.take_login(session, &cx).await
    }

    async fn flush(&self) -> Result<(), TokenError> {
        GrantSource::flush(self).await
    }

    fn is_durable(&self) -> bool {
        !self.grant.uses_refresh_tokens() || self.grant.can_repeat() || self.store.is_durable()
    }

    fn has_unsaved(&self) -> bool {
        let slot = self.lease_slot();
        // Locked: a refresh, or a save in the background.
        slot.try_lock().map_or(true, |slot| slot.unsaved.is_some())
    }

    fn origins(&self) -> Origins {
        self.origins.clone()
    }

    fn scopes(&self) -> Vec<String> {
        self.own_scopes()
    }

    fn schedule(&self) -> Schedule {
        self.schedule.clone()
    }

    fn grant(&self) -> &'static str {
        self.grant.name()
    }

    fn name(&self) -> &str {
        self.client.host()
    }
}

impl<G> Clone for GrantSource<G> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            grant: Arc::clone(&self.grant),
            identity: self.identity.clone(),
            client_identity: self.client_identity.clone(),
            is_named: self.is_named,
            store: self.store.clone(),
            origins: self.origins.clone(),
            schedule: self.schedule.clone(),
            reauth_hint: self.reauth_hint.clone(),
            state: Arc::clone(&self.state),
        }
    }
}

impl<G> fmt::Debug for GrantSource<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantSource")
            .field("client", &self.client)
            .field("origins", &self.origins)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
