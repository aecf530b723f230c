//! Revocation of a session: at the server, then in the store.
//!
//! What stays in the store has no tokens. It keeps the identities of the credentials, so that no process that is configured
//! with one of them begins the session anew.

use secrecy::{ExposeSecret, SecretString};
use tracing::Instrument;

use super::{
    GrantSource,
    lease::{AtLease, IsLast, is_lost},
    outcome::http_date,
    session_state::Credential,
    step_up::More,
    unsaved::{LeaseSlot, Unsaved},
};
use crate::{
    error::{Recovery, TokenError, TokenErrorKind},
    grant::Grant,
    oauth::TokenTypeHint,
    store::{BoxStoreLease, Ended, Identity, StoredSession},
    token::Warning,
    token_source::TokenContext,
};

/// How often one call begins. It begins again if another process has saved in between.
const MAX_ROUNDS: u32 = 3;

/// What the server is asked to revoke.
#[derive(Default)]
struct Tokens {
    refresh: Vec<SecretString>,
    access: Vec<SecretString>,
}

impl<G: Grant> GrantSource<G> {
    /// Revokes the session. Once begun, this is finished although its future is dropped.
    pub(super) async fn revoke_session(&self, cx: &TokenContext) -> Result<(), TokenError> {
        self.client.prepare(cx.clock()).await?;
        self.client.check_can_revoke(cx.clock()).await?;
        let (source, cx) = (self.clone(), cx.clone());
        let task = tokio::spawn(
            async move {
                let mut round = 1;
                loop {
                    match source.lease_and_revoke(&cx).await {
                        Err(error)
                            if error.kind() == TokenErrorKind::LeaseLost && round < MAX_ROUNDS =>
                        {
                            tracing::debug!(%error, "lease lost, starting over");
                            round += 1;
                        }
                        result => return result,
                    }
                }
            }
            .in_current_span(),
        );
        task.await.unwrap_or_else(|error| {
            let message = "the task that was revoking the session ended early";
            Err(TokenError::new(TokenErrorKind::Interrupted, message).with_source(error))
        })
    }

    async fn lease_and_revoke(&self, cx: &TokenContext) -> Result<(), TokenError> {
        // A refresh of this process holds the slot, and one of another process the lease. So the newest tokens are revoked.
        let mut slot = self.lease_slot().lock_owned().await;
        let (mut lease, at_lease) = self.take_lease(&mut slot).await?;
        let result = self
            .revoke_under_lease(&mut lease, at_lease, &mut slot, cx)
            .await;
        let was_overtaken = result
            .as_ref()
            .is_err_and(|error| error.kind() == TokenErrorKind::LeaseLost);
        self.put_back(lease, &mut slot, was_overtaken).await;
        result
    }

    async fn revoke_under_lease(
        &self,
        lease: &mut BoxStoreLease,
        at_lease: AtLease,
        slot: &mut LeaseSlot,
        cx: &TokenContext,
    ) -> Result<(), TokenError> {
        let stored = self.load_under_lease(at_lease).await?;
        self.check_owner(stored.as_ref())?;
        if stored.as_ref().is_some_and(|it| self.is_of_later_login(it)) {
            let message = "the store has the session of a later login, so nothing is revoked; give each login a store of its own";
            return Err(TokenError::new(TokenErrorKind::Config, message));
        }
        let replaces = stored.as_ref().map_or(0, StoredSession::version);
        let session = self.newest(stored.clone());
        if self.is_revoked(&session) {
            self.note_revoked(&session);
            // A failover may have lost that our login was revoked, too.
            if stored.is_some_and(|stored| stored.is_revoked() && self.is_known_to(&stored)) {
                return Ok(());
            }
            let session = self
                .with_our_login(session, cx)
                .at(replaces.saturating_add(1));
            return self.save_revoked(lease, slot, session, replaces).await;
        }
        let tokens = self.tokens_of(&session, cx).await?;
        self.revoke_tokens(&tokens, cx).await?;

        let mut credentials: Vec<Identity> = tokens
            .refresh
            .iter()
            .map(|token| Identity::of_refresh_token(token.expose_secret()))
            .collect();
        let session = if self.is_new_login(&session) || !self.is_ours(&session) {
            StoredSession::begin(self.identity.clone(), Some(&session))
        } else {
            session
        };
        credentials.push(session.identity().clone());
        let session = session
            .at(replaces)
            .of_client(self.client_identity.clone())
            .revoked(&credentials, cx.clock().wall());
        let session = self.with_our_login(session, cx);
        // Twice, for refreshes that have begun before and during the save. They wait for us, and their reset came before.
        self.with_state(|state| state.revocations += 1);
        self.supersede(stored.as_ref(), &session);
        self.note_revoked(&session);
        let result = self.save_revoked(lease, slot, session, replaces).await;
        self.with_state(|state| state.revocations += 1);
        result
    }

    /// The tokens of `session`, and the refresh token of a login that has not begun its session yet.
    async fn tokens_of(
        &self,
        session: &StoredSession,
        cx: &TokenContext,
    ) -> Result<Tokens, TokenError> {
        let mut tokens = Tokens::default();
        if self.is_ours(session) {
            tokens.refresh.extend(session.refresh_token().cloned());
            tokens.access = [session.token().as_ref(), cx.previous_token()]
                .into_iter()
                .flatten()
                .map(|token| token.expose_secret().into())
                .collect();
            tokens
                .access
                .dedup_by(|a, b| a.expose_secret() == b.expose_secret());
        }
        // Other parameters are made for each request, and hold no token of the server.
        if self.grant.is_fixed() && matches!(self.credential(session), Some(Credential::Grant)) {
            let grant = self.grant_parameters(cx.clock(), More::default());
            let made = self.client.make(cx.clock(), &grant).await?;
            let refresh_token = made.parameters.as_refresh_token();
            tokens.refresh.extend(refresh_token.map(SecretString::from));
        }
        Ok(tokens)
    }

    /// Sends refresh tokens first: if that fails, nothing has changed, and the session goes on.
    async fn revoke_tokens(&self, tokens: &Tokens, cx: &TokenContext) -> Result<(), TokenError> {
        for token in &tokens.refresh {
            self.client
                .revoke(cx.clock(), token, TokenTypeHint::RefreshToken)
                .await?;
        }
        for token in &tokens.access {
            let result = self
                .client
                .revoke(cx.clock(), token, TokenTypeHint::AccessToken)
                .await;
            match result {
                // The session has ended with its refresh token, and most servers end its access tokens with it. Signed
                // ones cannot be revoked.
                Err(error) if !tokens.refresh.is_empty() => {
                    tracing::warn!(%error, "the refresh token is revoked, the access token may be valid until it expires");
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Saves that the session was revoked. If that fails, it is saved in the background, and the error is final: the session
    /// has ended.
    async fn save_revoked(
        &self,
        lease: &mut BoxStoreLease,
        slot: &mut LeaseSlot,
        session: StoredSession,
        replaces: u64,
    ) -> Result<(), TokenError> {
        match Self::save_repeatedly(lease, replaces, &session, IsLast::Yes).await {
            Ok(()) => {
                slot.saved();
                Ok(())
            }
            Err(error) => {
                let is_fenced = error.kind() == TokenErrorKind::LeaseLost;
                let error = error
                    .with_more(
                        "the session was revoked at the server, and is saved as such in the background",
                    )
                    .with_recovery(Recovery::Never);
                slot.unsaved = Some(Unsaved {
                    session,
                    replaces,
                    is_lease_lost: is_fenced && is_lost(lease).await,
                    warning: Warning::new(error.clone()),
                });
                Err(error)
            }
        }
    }

    /// `cx` after waiting for the lease. A reset that came before a revocation meanwhile does not pass it. `before` is how many
    /// there had been.
    pub(super) fn after_revocations(&self, before: u64, cx: &TokenContext) -> TokenContext {
        if self.with_state(|state| state.revocations) == before {
            cx.clone()
        } else {
            cx.clone().without_reset()
        }
    }

    /// Whether `session` was revoked, and our login is not a new one that begins another in its place.
    fn is_revoked(&self, session: &StoredSession) -> bool {
        session.is_revoked() && (!self.is_new_login(session) || self.is_ended_in(session))
    }

    /// Whether a process that is configured with our login knows from `session` that it is not a new one.
    fn is_known_to(&self, session: &StoredSession) -> bool {
        !self.grant.can_begin()
            || !session.is_older_than(&self.identity)
            || self.is_ended_in(session)
    }

    /// The revoked `session` with our login, which is revoked as well. `session` does not know it if the session of our login was
    /// never saved, and that of a later one is stored.
    fn with_our_login(&self, session: StoredSession, cx: &TokenContext) -> StoredSession {
        if self.is_known_to(&session) {
            session
        } else {
            session.with_dead(std::slice::from_ref(&self.identity), cx.clock().wall())
        }
    }

    fn is_ended_in(&self, session: &StoredSession) -> bool {
        session
            .ended()
            .is_some_and(|ended| ended.contains(&self.identity))
    }

    /// Remembers the revoked session, to tell it from the one of a later login.
    fn note_revoked(&self, session: &StoredSession) {
        self.note_failed(session, &[], true);
    }

    /// Fails if `session` was revoked. After a reset the grant begins it anew.
    pub(super) fn check_not_revoked(
        &self,
        session: &StoredSession,
        cx: &TokenContext,
    ) -> Result<(), TokenError> {
        if cx.is_after_reset() || !self.is_revoked(session) {
            return Ok(());
        }
        self.note_revoked(session);
        let since = session.ended().and_then(Ended::since);
        let on = since.and_then(http_date);
        let on = on.map_or(String::new(), |date| format!(" on {date}"));
        let mut error = TokenError::new(TokenErrorKind::ReauthRequired, "log in again");
        if let Some(reauth_hint) = &self.reauth_hint {
            error = error.with_more(reauth_hint);
        }
        Err(error.with_more(&format!(
            "the session was revoked{on}, so nothing is sent before a new login or a reset of the cache"
        )))
    }
}
