//! Whose the stored session is: nothing of another client's session is used, sent or overwritten.

use secrecy::ExposeSecret;

use super::GrantSource;
use crate::{
    error::{TokenError, TokenErrorKind},
    grant::Grant,
    store::{Identity, StoredSession, TokenStore},
};

impl<G: Grant> GrantSource<G> {
    /// Loads the stored session, if it is ours or a session of ours may begin in its place.
    pub(super) async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        let stored = self.store.load().await?;
        self.check_owner(stored.as_ref())?;
        Ok(stored)
    }

    /// Fails if `stored` belongs to another client, unless nothing would be lost if a session of ours began in its place.
    pub(super) fn check_owner(&self, stored: Option<&StoredSession>) -> Result<(), TokenError> {
        let is_others = |it: &&StoredSession| is_of_another_client(it, &self.client_identity);
        let Some(stored) = stored.filter(is_others) else {
            return Ok(());
        };
        let may_begin = self.is_new_login(stored) || stored.began_with(&self.identity);
        let may_replace = if stored.is_revoked() {
            self.is_new_login(stored)
        } else if stored.has_tokens() {
            self.is_new_login(stored) && has_ended(stored)
        } else {
            may_begin
        };
        if may_replace {
            return Ok(());
        }
        self.with_state(|state| state.has_seen_another_client = true);
        Err(of_another_client())
    }

    /// Whether `stored` is the session of a later login, which may be that of a user. A grant without refresh tokens neither uses
    /// nor replaces nor revokes it.
    pub(super) fn is_of_later_login(&self, stored: &StoredSession) -> bool {
        !self.grant.uses_refresh_tokens()
            && !stored.began_with(&self.identity)
            && !stored.is_older_than(&self.identity)
    }

    /// Whether the tokens of `session` are ours, as far as is known.
    pub(super) fn is_ours(&self, session: &StoredSession) -> bool {
        !is_of_another_client(session, &self.client_identity)
    }

    /// Records the client of `session`, before its credential is sent.
    pub(super) fn with_owner(&self, session: StoredSession) -> StoredSession {
        // Until a new login has succeeded, the session before it keeps its client.
        if self.is_new_login(&session) || (!self.is_ours(&session) && session.has_tokens()) {
            return session;
        }
        if self.is_ours(&session) {
            return session.of_client(self.client_identity.clone());
        }
        // What another client tried without success says nothing about this one.
        let begun = StoredSession::begin(self.identity.clone(), Some(&session));
        begun.of_client(self.client_identity.clone())
    }
}

/// Whether `session` is recorded as one of another client than that of `client`.
pub(super) fn is_of_another_client(session: &StoredSession, client: &Identity) -> bool {
    session.client().is_some_and(|recorded| recorded != client)
}

/// Whether the server of its client has declared dead what `session` would send.
pub(super) fn has_ended(session: &StoredSession) -> bool {
    let next = session
        .refresh_token()
        .map(|token| Identity::of_refresh_token(token.expose_secret()));
    let next = next.as_ref().unwrap_or(session.identity());
    session.ended().is_some_and(|ended| ended.contains(next))
}

pub(super) fn of_another_client() -> TokenError {
    TokenError::new(
        TokenErrorKind::Config,
        "the stored session belongs to another token endpoint, client id, scope, resource or audience, or has another \
         `session_name`, so it is neither used nor overwritten; give each client a store of its own, or remove the stored \
         session to begin a new one",
    )
}
