//! [`Ended`]: the credentials of a session that no process sends again.

use std::time::SystemTime;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::{
    StoredSession,
    encoding::millis,
    owner::{MAX_IDENTITIES, with_newest},
};
use crate::store::Identity;

/// Which credentials of a session no process sends again, and why.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ended {
    #[serde(with = "millis")]
    since: Option<SystemTime>,
    credentials: Vec<Identity>,
    reason: EndReason,
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EndReason {
    /// The authorization server has declared the credentials dead.
    #[default]
    Rejected,
    /// The session was revoked. Nothing but a new login begins another in its place.
    Revoked,
}

impl Ended {
    pub(crate) fn since(&self) -> Option<SystemTime> {
        self.since
    }

    pub(super) fn credentials(&self) -> &[Identity] {
        &self.credentials
    }

    /// Whether the credential of `identity` is one of those that are not sent again.
    pub(crate) fn contains(&self, identity: &Identity) -> bool {
        self.credentials.contains(identity)
    }

    /// Whether there are credentials that the server has declared dead.
    pub(super) fn has_rejected(&self) -> bool {
        self.reason == EndReason::Rejected && !self.credentials.is_empty()
    }

    /// The same with more `credentials`, which were declared dead at `since`.
    pub(super) fn with_dead(mut self, credentials: &[Identity], since: Option<SystemTime>) -> Self {
        for credential in credentials {
            if !self.contains(credential) {
                if self.reason == EndReason::Rejected {
                    self.since = since;
                }
                self.credentials.push(credential.clone());
            }
        }
        let excess = self.credentials.len().saturating_sub(MAX_IDENTITIES);
        self.credentials.drain(..excess);
        self
    }
}

impl StoredSession {
    /// The credentials that were declared dead or revoked, and that the server has not accepted since.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Whether the session was revoked, and no other has begun in its place.
    pub(crate) fn is_revoked(&self) -> bool {
        self.ended
            .as_ref()
            .is_some_and(|ended| ended.reason == EndReason::Revoked)
    }

    /// The session after it was revoked: it has no tokens, and `credentials` are not sent again.
    ///
    /// Its generation is higher, so that it takes the place of the session everywhere.
    pub(crate) fn revoked(&self, credentials: &[Identity], now: SystemTime) -> Self {
        let ended = self.ended.clone().unwrap_or_default();
        Self {
            former_identities: self.former_and_dead_logins(),
            version: self.version.saturating_add(1),
            generation: self.generation.saturating_add(1),
            access: None,
            refresh_token: None,
            refresh_expires_at: None,
            refreshing_since: None,
            refresh_id: None,
            is_news: true,
            ended: Some(Ended {
                since: Some(now),
                reason: EndReason::Revoked,
                ..ended.with_dead(credentials, Some(now))
            }),
            ..self.clone()
        }
    }

    /// The session if `credential` is not dead, because the server has accepted it, or if no process can send it any more.
    pub(crate) fn without_dead(mut self, credential: &Identity) -> Self {
        if let Some(ended) = &mut self.ended
            && ended.contains(credential)
        {
            self.is_news = true;
            self.not_dead = Some(credential.clone());
            ended.credentials.retain(|dead| dead != credential);
        }
        self
    }

    /// The session after the server has declared `credentials` dead.
    pub(crate) fn with_dead(
        self,
        credentials: &[Identity],
        since: impl Into<Option<SystemTime>>,
    ) -> Self {
        let ended = self.ended.clone().unwrap_or_default();
        // No token of a revoked session is sent, so they are new logins, and older than the next one.
        let logins = credentials.iter().filter(|_| self.is_revoked());
        let logins = logins.filter(|login| **login != self.identity);
        Self {
            former_identities: with_newest(self.former_identities.clone(), logins),
            ended: Some(ended.with_dead(credentials, since.into())),
            ..self
        }
    }

    /// The session, which takes the place of `stored`, with the credentials that another process has recorded there as dead.
    /// Two are not among them: one that the server has accepted after it was declared dead, and a refresh token that only
    /// `stored` has, which no process can send any more.
    ///
    /// If `stored` is of an earlier login or was revoked, its logins are earlier ones, as in a session that begins in its
    /// place.
    pub(crate) fn with_dead_of(mut self, stored: &Self) -> Self {
        // What another client tried says nothing about ours.
        if self.client != stored.client {
            return self;
        }
        let passes_revocation = stored.is_revoked() && !self.is_revoked();
        if passes_revocation || self.former_identities.contains(&stored.identity) {
            let mut earlier = stored.former_identities_before(&self.identity);
            earlier.retain(|it| !self.former_identities.contains(it));
            self.former_identities = with_newest(self.former_identities, &earlier);
        }
        if passes_revocation {
            return self;
        }
        let Some(ended) = &stored.ended else {
            return self;
        };
        let token_of = |session: &Self| {
            let token = session.refresh_token();
            token.map(|token| Identity::of_refresh_token(token.expose_secret()))
        };
        let spent = token_of(stored).filter(|token| token_of(&self).as_ref() != Some(token));
        let mut dead = ended.credentials.clone();
        dead.retain(|dead| Some(dead) != self.not_dead.as_ref() && Some(dead) != spent.as_ref());
        if dead.is_empty() {
            self
        } else {
            self.with_dead(&dead, ended.since)
        }
    }
}
