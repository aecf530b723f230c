//! Credentials that the server has declared dead: no process that shares the store sends them again.

use super::{GrantSource, attempt::Attempt, session_state::Failed};
use crate::{
    error::{TokenError, TokenErrorKind},
    grant::Grant,
    store::{Identity, StoredSession},
    token_source::TokenContext,
};

impl<G: Grant> GrantSource<G> {
    /// Whether the server of our client has declared this credential dead. The store says so, or we know it and could not
    /// save it.
    fn is_declared_dead(&self, session: &StoredSession, credential: &Identity) -> bool {
        let is_stored = session.client() == Some(&self.client_identity)
            && session.ended().is_some_and(|it| it.contains(credential));
        // A login that the session does not know stays dead, however often others refresh that session.
        let is_of_session = *credential != self.identity || !session.is_older_than(credential);
        let generation = is_of_session.then(|| session.generation());
        let is_known = |failed: &Failed| failed.knows_dead(generation, credential);
        is_stored || self.with_state(|state| state.failed.as_ref().is_some_and(is_known))
    }

    /// Fails if there is nothing that a refresh of `session` could send, or if all of it has been declared dead. After a reset
    /// that is sent once more.
    pub(super) fn check_not_ended(
        &self,
        session: &StoredSession,
        cx: &TokenContext,
    ) -> Result<(), TokenError> {
        self.check_not_revoked(session, cx)?;
        let Some(next) = self.credential_identity(session) else {
            self.note_failed(session, &[], true);
            let attempt = Attempt::new(session.clone(), 0, None, cx);
            let error = self.nothing_to_send(session);
            return Err(self.explain(error, &attempt, cx.clock().wall()));
        };
        let is_dead = |credential: &Identity| self.is_declared_dead(session, credential);
        if cx.is_after_reset() || !is_dead(&next) {
            return Ok(());
        }
        if self.can_begin_anew(session) && !is_dead(&self.identity) {
            return Ok(());
        }
        self.note_failed(session, &[], true);
        let attempt = Attempt::new(session.clone(), 0, session.refreshing_since(), cx);
        Err(self.explain(not_sent_again(), &attempt, cx.clock().wall()))
    }

    /// Whether `credential` is not sent, because it was declared dead. The grant may still begin the session anew.
    pub(super) fn skips(&self, attempt: &Attempt, credential: &Identity) -> bool {
        !attempt.is_after_reset && self.is_declared_dead(&attempt.session, credential)
    }

    /// The error if there is no credential to refresh `session` with.
    pub(super) fn nothing_to_send(&self, session: &StoredSession) -> TokenError {
        let message = if !session.has_tokens() {
            "no session is stored; log in"
        } else if self.grant.can_begin() {
            "the stored session has no refresh token, and did not begin with the configured credential"
        } else {
            "the last login brought no refresh token, so the session has ended with its access token; log in again, and ask for \
             what the server wants for a refresh token, mostly the scope `offline_access`"
        };
        TokenError::new(TokenErrorKind::ReauthRequired, message)
    }
}

/// The error for a credential that was declared dead before.
pub(super) fn not_sent_again() -> TokenError {
    TokenError::new(
        TokenErrorKind::ReauthRequired,
        "the credential of the stored session is dead; log in again",
    )
}
