//! What this process knows of a session, and which credential its next request sends.

use std::sync::PoisonError;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use super::{GrantSource, unsaved::SharedSlot};
use crate::{
    error::TokenError,
    freshness::{Deadlines, Freshness},
    grant::Grant,
    store::{Identity, StoredSession},
    token::Token,
    token_source::TokenContext,
};

/// What this process knows of the session.
#[derive(Default)]
pub(super) struct SessionState {
    /// The newest session that was adopted or obtained here. Newer than the stored one if it could not be saved.
    pub(super) newest: Option<StoredSession>,
    /// The session and the credential of the last refresh that failed for good.
    pub(super) failed: Option<Failed>,
    /// The credential that the store has, while it could not save the sessions that came after it. It is spent.
    pub(super) superseded: Option<Identity>,
    /// Changes when this process revokes the session.
    pub(super) revocations: u64,
    /// The store had a session of another client when it was last read.
    pub(super) has_seen_another_client: bool,
    /// The lease while a session is not saved.
    pub(super) slot: SharedSlot,
    /// Closed when the last clone of the source is dropped.
    pub(super) alive: watch::Sender<()>,
}

pub(super) struct Failed {
    /// The generation of the session.
    pub(super) generation: u64,
    /// What a refresh of it sends.
    pub(super) credential: Identity,
    /// The credentials that the server has declared dead, each with the generation of its session. It may be that the store
    /// could not save that.
    dead: Vec<(u64, Identity)>,
}

/// How many dead credentials a process remembers.
const MAX_DEAD: usize = 8;

impl Failed {
    /// Whether the session cannot go on with its credential.
    fn is_final(&self) -> bool {
        self.knows_dead(self.generation, &self.credential)
    }

    /// Whether the server has declared this credential of a session of this generation dead. `None`: of any session.
    pub(super) fn knows_dead(
        &self,
        generation: impl Into<Option<u64>>,
        credential: &Identity,
    ) -> bool {
        let generation = generation.into();
        self.dead.iter().any(|(of, dead)| {
            dead == credential && generation.is_none_or(|generation| generation == *of)
        })
    }
}

impl SessionState {
    /// Whether `stored`, which would send `credential`, takes the place of the newest session that is known here: it is
    /// not earlier, or it is another session, as after a login, and ours is dead.
    fn is_replaced_by(&self, stored: &StoredSession, credential: Option<&Identity>) -> bool {
        let Some(newest) = &self.newest else {
            return true;
        };
        if credential.is_some() && credential == self.superseded.as_ref() {
            return newest.generation() <= stored.generation();
        }
        if newest.is_revoked() {
            // A stored session of the same credential is the one that was revoked, and could not be replaced yet.
            let ended = newest.ended();
            let is_other = |credential: &Identity| !ended.is_some_and(|it| it.contains(credential));
            return !stored.is_before(newest) || credential.is_some_and(is_other);
        }
        let is_dead = |failed: &Failed| {
            failed.is_final()
                && failed.generation == newest.generation()
                && credential.is_some_and(|credential| *credential != failed.credential)
        };
        !stored.is_before(newest) || self.failed.as_ref().is_some_and(is_dead)
    }
}

/// What a refresh of a session sends.
pub(super) enum Credential<'a> {
    RefreshToken(&'a SecretString),
    /// The grant that the session begins with.
    Grant,
}

impl<G: Grant> GrantSource<G> {
    pub(super) fn with_state<T>(&self, f: impl FnOnce(&mut SessionState) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers that a refresh of `session` has failed, and that the server has declared these credentials `dead`. `is_final`
    /// says that the session cannot go on.
    pub(super) fn note_failed(&self, session: &StoredSession, dead: &[Identity], is_final: bool) {
        let credential = self.credential_identity(session);
        let credential = credential.unwrap_or_else(|| self.identity.clone());
        let generation = session.generation();
        self.with_state(|state| {
            let known = state.failed.take();
            let mut failed = Failed {
                generation,
                credential: credential.clone(),
                dead: known.map_or_else(Vec::new, |failed| failed.dead),
            };
            for dead in dead.iter().chain(is_final.then_some(&credential)) {
                if !failed.knows_dead(generation, dead) {
                    failed.dead.push((generation, dead.clone()));
                }
            }
            let excess = failed.dead.len().saturating_sub(MAX_DEAD);
            failed.dead.drain(..excess);
            state.failed = Some(failed);
        });
    }

    pub(super) fn revocations(&self) -> u64 {
        self.with_state(|state| state.revocations)
    }

    /// Remembers that `session`, which could not be saved, takes the place of the `stored` one.
    pub(super) fn supersede(&self, stored: Option<&StoredSession>, session: &StoredSession) {
        self.with_state(|state| state.newest = Some(session.clone()));
        // Our grant is no new login any more. So this is what the stored session would send from now on.
        let stored = stored.and_then(|it| self.credential_identity(it));
        let is_other = session.is_revoked() || stored != self.credential_identity(session);
        self.with_state(|state| state.superseded = stored.filter(|_| is_other));
    }

    /// Whether this process has a newer credential than this one, which is in the store.
    pub(super) fn is_superseded(&self, credential: Option<&Identity>) -> bool {
        credential.is_some() && self.with_state(|state| state.superseded.as_ref() == credential)
    }

    /// Whether our grant is a new login that `session` does not know yet. It is not new once it has been used.
    pub(super) fn is_new_login(&self, session: &StoredSession) -> bool {
        self.grant.can_begin()
            && session.is_older_than(&self.identity)
            && self.with_state(|state| state.newest.is_none())
    }

    /// What a refresh of `session` sends. `None` if it has no refresh token, and our grant cannot begin it, or is not the one
    /// that it began with.
    ///
    /// A grant that the session has replaced by a later login is never sent again.
    pub(super) fn credential<'a>(&self, session: &'a StoredSession) -> Option<Credential<'a>> {
        if self.is_new_login(session) {
            return Some(Credential::Grant);
        }
        if !self.is_ours(session) && session.has_tokens() {
            return None;
        }
        match session.refresh_token() {
            Some(refresh_token) => Some(Credential::RefreshToken(refresh_token)),
            None => (self.grant.can_begin() && session.began_with(&self.identity))
                .then_some(Credential::Grant),
        }
    }

    /// Identifies the credential of `session`, to tell whether another session would send the same one.
    pub(super) fn credential_identity(&self, session: &StoredSession) -> Option<Identity> {
        Some(match self.credential(session)? {
            Credential::RefreshToken(token) => Identity::of_refresh_token(token.expose_secret()),
            Credential::Grant => self.identity.clone(),
        })
    }

    /// The token of a stored session, if it can be used now: it is not older than what this process has, has not
    /// expired, is not the token to be replaced, and has what APIs have asked for.
    pub(super) fn adopt(&self, stored: Option<&StoredSession>, cx: &TokenContext) -> Option<Token> {
        let stored = stored.filter(|stored| !self.is_new_login(stored) && self.is_ours(stored))?;
        // A later login, with another grant, may be that of a user.
        if !self.grant.uses_refresh_tokens() && !stored.began_with(&self.identity) {
            return None;
        }
        let token = stored.token()?;
        let now = cx.clock().now();
        let deadlines = Deadlines::new(token.expires(now, now), &self.schedule, 0.0, now);
        let is_replaced = cx
            .previous_token()
            .is_some_and(|previous| previous.same_secret(&token));
        if deadlines.freshness(now) == Freshness::Expired
            || is_replaced
            || !cx.is_covered_by(&token)
        {
            return None;
        }
        let credential = self.credential_identity(stored);
        self.with_state(|state| {
            state.is_replaced_by(stored, credential.as_ref()).then(|| {
                state.newest = Some(stored.clone());
                state.failed = None;
            })
        })?;
        Some(token.into_adopted())
    }

    /// The session to refresh: the stored one, or a newer one that could not be saved.
    pub(super) fn newest(&self, stored: Option<StoredSession>) -> StoredSession {
        let credential = stored.as_ref().and_then(|it| self.credential_identity(it));
        let stored_or_newer = self.with_state(|state| match (stored, &state.newest) {
            (Some(stored), _) if state.is_replaced_by(&stored, credential.as_ref()) => Some(stored),
            (Some(stored), Some(newest)) => Some(newest.clone().with_dead_of(&stored)),
            (_, newest) => newest.clone(),
        });
        stored_or_newer.unwrap_or_else(|| StoredSession::begin(self.identity.clone(), None))
    }

    /// Whether the store has a newer session than this process, or another one than the one whose refresh failed.
    pub(super) async fn store_has_changed(&self) -> bool {
        let had_another_client = self.with_state(|state| state.has_seen_another_client);
        match self.load().await {
            Ok(_) if had_another_client => true,
            Ok(Some(stored)) => self.is_changed(&stored),
            Ok(None) | Err(_) => false,
        }
    }

    /// The same, and an error if the session was revoked.
    pub(super) async fn stored_session_changed(
        &self,
        cx: &TokenContext,
    ) -> Result<bool, TokenError> {
        let had_another_client = self.with_state(|state| state.has_seen_another_client);
        match self.load().await {
            Ok(Some(stored)) => {
                let is_changed = had_another_client || self.is_changed(&stored);
                self.check_not_revoked(&self.newest(Some(stored)), cx)?;
                Ok(is_changed)
            }
            Ok(None) => Ok(had_another_client),
            Err(error) => {
                tracing::debug!(%error, "the store was not read after a notification");
                Ok(false)
            }
        }
    }

    fn is_changed(&self, stored: &StoredSession) -> bool {
        if stored.is_revoked() && !self.is_new_login(stored) {
            return false;
        }
        // A session that `adopt` does not use.
        if !self.grant.uses_refresh_tokens() && !stored.began_with(&self.identity) {
            return false;
        }
        let credential = self.credential_identity(stored);
        self.with_state(|state| {
            let newest = state.newest.as_ref().map_or(0, StoredSession::generation);
            let is_newer = newest > 0 && stored.generation() > newest;
            // A grant is the same credential in the session that another process begins with it later.
            if credential.is_some() && credential == state.superseded {
                return is_newer;
            }
            if let Some(failed) = &state.failed {
                return stored.generation() != failed.generation
                    || credential.as_ref() != Some(&failed.credential);
            }
            is_newer
        })
    }
}
