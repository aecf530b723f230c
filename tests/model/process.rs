//! What a process knows of the session: `src/source/session_state.rs`, `src/source/ended.rs`, and the part of the cache
//! that says whether a refresh may start.

use crate::{
    session::{Credential, Credentials, Mark, Session},
    setup::{Fault, Setup},
    step::{Attempt, Sends, Step},
};

/// A process. A process that dies is replaced by one that knows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Process {
    /// The configured credential.
    pub(crate) config: Credential,
    /// `SessionState::newest`.
    pub(crate) newest: Option<Session>,
    /// `SessionState::failed`.
    pub(crate) failed: Option<Failed>,
    /// `SessionState::superseded`.
    pub(crate) superseded: Option<Credential>,
    /// The access token that the cache has, by the refresh token that came with it.
    pub(crate) published: Option<Credential>,
    /// The last error was final: the cache only looks for changes.
    pub(crate) is_dead: bool,
    /// `LeaseSlot::unsaved`.
    pub(crate) unsaved: Option<Unsaved>,
    /// Has a lease, which may have ended.
    pub(crate) has_lease: bool,
    /// Its lease had ended, and was extended again. `is_held` says no.
    pub(crate) is_retaken: bool,
    pub(crate) step: Step,
    pub(crate) past: Past,
}

/// What has happened to a process, as far as a rule or its exceptions need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Past {
    /// Its lease has ended although it lives, and it has neither taken another one nor saved since.
    pub(crate) has_lost_lease: bool,
    /// That lease has ended since the process last asked whether it has it, or so soon after it was taken that the process
    /// does not ask.
    pub(crate) is_loss_unseen: bool,
    /// Another process has saved between its last look at the store and its request.
    pub(crate) is_overtaken: bool,
    /// The credentials that the server has declared dead to it.
    pub(crate) told_dead: Credentials,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Failed {
    pub(crate) generation: u8,
    pub(crate) credential: Credential,
    /// Without generations: no dead credential lives again.
    pub(crate) dead: Credentials,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Unsaved {
    pub(crate) session: Session,
    pub(crate) replaces: u8,
    pub(crate) is_lease_lost: bool,
}

impl Process {
    pub(crate) fn new(config: Credential) -> Self {
        Self {
            config,
            newest: None,
            failed: None,
            superseded: None,
            published: None,
            is_dead: false,
            unsaved: None,
            has_lease: false,
            is_retaken: false,
            step: Step::Idle,
            past: Past::default(),
        }
    }

    pub(crate) fn is_new_login(&self, session: &Session) -> bool {
        session.is_older_than(self.config) && self.newest.is_none()
    }

    pub(crate) fn sends(&self, session: &Session) -> Sends {
        if self.is_new_login(session) {
            return Sends::Grant;
        }
        match session.refresh_token {
            Some(refresh_token) => Sends::RefreshToken(refresh_token),
            None if session.identity == self.config => Sends::Grant,
            None => Sends::Nothing,
        }
    }

    /// `credential_identity`.
    pub(crate) fn credential(&self, session: &Session) -> Option<Credential> {
        match self.sends(session) {
            Sends::RefreshToken(refresh_token) => Some(refresh_token),
            Sends::Grant => Some(self.config),
            Sends::Nothing => None,
        }
    }

    /// `StoredSession::is_before`.
    pub(crate) fn is_before(setup: &Setup, session: &Session, other: &Session) -> bool {
        if setup.has(Fault::ComparesGenerationsOnly) {
            session.generation < other.generation
        } else {
            session.is_before(other)
        }
    }

    /// `SessionState::is_replaced_by`.
    fn is_replaced_by(&self, setup: &Setup, stored: &Session) -> bool {
        let credential = self.credential(stored);
        let Some(newest) = &self.newest else {
            return true;
        };
        if self.is_superseded(credential) {
            return newest.generation <= stored.generation;
        }
        if setup.has(Fault::AdoptsWithoutComparing) {
            return true;
        }
        if newest.is_revoked {
            let is_other = credential.is_some_and(|it| !newest.ended.contains(it));
            return !Self::is_before(setup, stored, newest) || is_other;
        }
        let is_dead = self.failed.is_some_and(|failed| {
            failed.dead.contains(failed.credential)
                && failed.generation == newest.generation
                && credential.is_some_and(|it| it != failed.credential)
        });
        !Self::is_before(setup, stored, newest) || is_dead
    }

    /// Adopts the token of the stored session, if it can be used now.
    pub(crate) fn adopt(
        &mut self,
        setup: &Setup,
        stored: Option<&Session>,
        expired: Option<Credential>,
    ) -> Option<Credential> {
        let stored = stored.filter(|stored| !self.is_new_login(stored))?;
        let token = stored.access?;
        let has_expired = expired.is_some_and(|last| token <= last);
        if has_expired || self.published == Some(token) || !self.is_replaced_by(setup, stored) {
            return None;
        }
        self.newest = Some(*stored);
        self.failed = None;
        Some(token)
    }

    /// The session to refresh: the stored one, or a newer one that could not be saved.
    pub(crate) fn newest(&self, setup: &Setup, stored: Option<&Session>) -> Session {
        let loaded = stored;
        let stored = stored.filter(|stored| {
            setup.has(Fault::ForgetsUnsaved) || self.is_replaced_by(setup, stored)
        });
        let newest = self
            .newest
            .map(|newest| loaded.map_or(newest, |loaded| newest.with_dead_of(loaded)));
        let session = stored.copied().or(newest);
        session.unwrap_or_else(|| Session::begin(self.config, None))
    }

    /// `store_has_changed`.
    pub(crate) fn has_changed(&self, stored: Option<&Session>) -> bool {
        let Some(stored) = stored else {
            return false;
        };
        if stored.is_revoked && !self.is_new_login(stored) {
            return false;
        }
        let credential = self.credential(stored);
        let newest = self.newest.map_or(0, |newest| newest.generation);
        let is_newer = stored.generation > newest && newest > 0;
        if self.is_superseded(credential) {
            return is_newer;
        }
        self.failed.map_or(is_newer, |failed| {
            stored.generation != failed.generation || credential != Some(failed.credential)
        })
    }

    /// `is_superseded`.
    pub(crate) fn is_superseded(&self, credential: Option<Credential>) -> bool {
        credential.is_some() && credential == self.superseded
    }

    /// `supersede`. `stored` is what the stored session would send.
    pub(crate) fn supersede(&mut self, stored: Option<Credential>, session: &Session) {
        self.newest = Some(*session);
        let is_other = session.is_revoked || stored != self.credential(session);
        self.superseded = stored.filter(|_| is_other);
    }

    /// What the stored session would send if the configured credential was no new login any more.
    pub(crate) fn would_send(&self, stored: Option<&Session>) -> Option<Credential> {
        let session = stored?;
        let grant = (session.identity == self.config).then_some(self.config);
        session.refresh_token.or(grant)
    }

    /// `is_declared_dead` in `src/source/ended.rs`.
    pub(crate) fn is_declared_dead(&self, session: &Session, credential: Credential) -> bool {
        let is_known = |failed: Failed| failed.dead.contains(credential);
        session.says_is_dead(credential) || self.failed.is_some_and(is_known)
    }

    /// `is_revoked` in `src/source/revoke.rs`.
    pub(crate) fn is_revoked(&self, session: &Session) -> bool {
        session.is_revoked && (!self.is_new_login(session) || session.ended.contains(self.config))
    }

    pub(crate) fn can_begin_anew(&self, setup: &Setup, session: &Session) -> bool {
        session.refresh_token.is_some() && session.identity == self.config && setup.grant_can_repeat
    }

    /// `with_owner`.
    pub(crate) fn with_owner(&self, session: Session) -> Session {
        if self.is_new_login(&session) {
            session
        } else {
            session.of_client()
        }
    }

    /// `check_not_ended` and `check_not_revoked`. Returns `false`, and remembers it, if nothing may be sent.
    pub(crate) fn may_send(&mut self, setup: &Setup, session: &Session) -> bool {
        if !self.may_use(session) {
            return false;
        }
        let next = self.credential(session);
        if let Some(next) = next {
            if !self.is_declared_dead(session, next) {
                return true;
            }
            if self.can_begin_anew(setup, session) && !self.is_declared_dead(session, self.config) {
                return true;
            }
        }
        self.note_failed(session, Credentials::default(), true);
        false
    }

    /// `check_not_revoked`.
    pub(crate) fn may_use(&mut self, session: &Session) -> bool {
        if !self.is_revoked(session) {
            return true;
        }
        self.note_revoked(session);
        false
    }

    pub(crate) fn note_revoked(&mut self, session: &Session) {
        self.note_failed(session, Credentials::default(), true);
    }

    pub(crate) fn note_failed(&mut self, session: &Session, dead: Credentials, is_final: bool) {
        let credential = self.credential(session).unwrap_or(self.config);
        let generation = session.generation;
        let mut dead = self.failed.map_or(dead, |known| known.dead.union(dead));
        if is_final {
            dead = dead.with(credential);
        }
        self.failed = Some(Failed {
            generation,
            credential,
            dead,
        });
    }

    /// Renames the processes in all that it has of sessions.
    pub(crate) fn rename(&mut self, rename: impl Fn(Mark) -> Mark) {
        let in_session = |session: &mut Session| session.mark = session.mark.map(&rename);
        if let Some(newest) = &mut self.newest {
            in_session(newest);
        }
        if let Some(unsaved) = &mut self.unsaved {
            in_session(&mut unsaved.session);
        }
        match &mut self.step {
            Step::Marking { session, .. }
            | Step::Saving { session, .. }
            | Step::SavingLogin { session, .. }
            | Step::Revoking { session, .. }
            | Step::SavingRevoked { session, .. } => in_session(session),
            Step::Recording { outcome, .. } => in_session(outcome),
            Step::Sending(attempt) | Step::Waiting(attempt, _) => {
                in_session(&mut attempt.session);
                attempt.unknown = attempt.unknown.map(&rename);
            }
            Step::Idle
            | Step::WantsLease
            | Step::LoginWantsLease(_)
            | Step::RevocationWantsLease
            | Step::Releasing(_) => {}
        }
    }

    /// What the request of `attempt` sends.
    pub(crate) fn credential_of(&self, attempt: &Attempt) -> Option<Credential> {
        match attempt.sends {
            Sends::RefreshToken(refresh_token) => Some(refresh_token),
            Sends::Grant => Some(self.config),
            Sends::Nothing => None,
        }
    }

    /// A session that is not saved yet, if no other process has had the lease since, and none has saved a later one.
    pub(crate) fn unsaved_in_its_lease(&self, stored: Option<&Session>) -> Option<Session> {
        let session = match &self.step {
            Step::Saving { session, .. } => *session,
            _ => self.unsaved?.session,
        };
        let is_later = stored.is_none_or(|stored| stored.is_before(&session));
        (!self.past.has_lost_lease && is_later).then_some(session)
    }

    /// Its mark or its session is not in the store.
    pub(crate) fn could_not_save(&self) -> bool {
        let is_unmarked = match &self.step {
            Step::Waiting(attempt, _) => !attempt.is_marked(),
            Step::Saving {
                session, replaces, ..
            } => session.version <= *replaces + 1,
            _ => false,
        };
        is_unmarked || self.unsaved.is_some()
    }

    /// The refresh tokens that it has in memory.
    pub(crate) fn refresh_tokens(&self) -> impl Iterator<Item = Credential> + Clone + use<> {
        let unsaved = self.unsaved.map(|unsaved| unsaved.session);
        [self.newest, unsaved]
            .into_iter()
            .filter_map(|session| session?.refresh_token)
    }
}
