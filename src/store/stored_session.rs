//! [`StoredSession`]: what is stored.

mod access;
mod encoding;
#[cfg(any(feature = "file-store", feature = "redis-store"))]
mod first_format;
mod import;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use self::{
    access::Access,
    encoding::{Format, Secret, count, millis},
};
#[cfg(any(feature = "file-store", feature = "redis-store"))]
pub(super) use self::{
    encoding::{FORMAT, MAX_COUNT},
    first_format::{FIRST_FORMAT, FirstFormat},
};
use super::Identity;
use crate::{token::Token, zeroize::to_json};

/// How many identities of earlier credentials a session keeps.
const MAX_FORMER_IDENTITIES: usize = 8;

/// A session as a store keeps it: its tokens, their times of expiry, and a version that counts its changes.
///
/// A store reads nothing of it but its [`version`](StoredSession::version), and serializes it with serde in a
/// self-describing format such as JSON. What is written contains secrets. `Debug` shows none.
///
/// # What is written
///
/// ```json
/// {
///   "format": 2,
///   "version": 3,
///   "generation": 2,
///   "identity": "…",
///   "former_identities": [],
///   "access": {
///     "token": "…",
///     "expires_at": 1700000900000,
///     "lifetime_secs": 900,
///     "token_type": "Bearer",
///     "scope": "invoices:read",
///     "id_token": "…",
///     "extra": { "instance_url": "https://eu4.example.com" }
///   },
///   "refresh_token": "…",
///   "refresh_expires_at": null,
///   "refreshing_since": null
/// }
/// ```
///
/// Times are milliseconds since 1970. `generation` counts the token responses, and `identity` is an [`Identity`]. A session
/// of another `format` is not deserialized: the error of a newer one says to update the crate. The stores of this crate
/// also read format 1, and save such a session in format 2.
///
/// # Examples
///
/// A session that another program has begun, to be saved into an empty store:
///
/// ```
/// use tower_bearer::{Identity, StoredSession, Token};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let session = StoredSession::new(Identity::new("refresh", "the-refresh-token"))
///     .with_refresh_token("a-later-refresh-token")
///     .with_access_token(&Token::new("abc")?);
///
/// assert_eq!(session.version(), 1);
/// let json = serde_json::to_string(&session)?;
/// assert!(json.starts_with(r#"{"format":2,"version":1,"#));
/// # Ok(()) }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredSession {
    format: Format,
    #[serde(deserialize_with = "count")]
    version: u64,
    /// Counts the token responses. Of two sessions, the one with the higher generation has the newer tokens.
    #[serde(default, deserialize_with = "count")]
    generation: u64,
    /// The credential that the session began with.
    identity: Identity,
    /// The credentials of the sessions before it. A process that is still configured with one of them has an old
    /// credential, not a new login.
    #[serde(default)]
    former_identities: Vec<Identity>,
    #[serde(default)]
    access: Option<Access>,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default, with = "millis")]
    refresh_expires_at: Option<SystemTime>,
    /// When a refresh began whose outcome is not known yet.
    #[serde(default, with = "millis")]
    refreshing_since: Option<SystemTime>,
}

/// What a token response contains of a session.
pub(crate) struct NewTokens {
    /// `None` if the access token of the response cannot be used.
    pub(crate) token: Option<Token>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) refresh_token: Option<SecretString>,
    pub(crate) refresh_expires_at: Option<SystemTime>,
}

impl StoredSession {
    /// The number of this change of the session, counted from 1. Stores compare it.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// A session that begins with the credential of `identity`, in place of `before`, and has no tokens yet.
    pub(crate) fn begin(identity: Identity, before: Option<&Self>) -> Self {
        Self {
            format: Format,
            version: before.map_or(0, Self::version),
            generation: before.map_or(0, Self::generation),
            former_identities: before
                .map(|before| before.former_identities_before(&identity))
                .unwrap_or_default(),
            identity,
            access: None,
            refresh_token: None,
            refresh_expires_at: None,
            refreshing_since: None,
        }
    }

    /// The former identities of a session of `next` that replaces this one.
    fn former_identities_before(&self, next: &Identity) -> Vec<Identity> {
        let all = self.former_identities.iter().chain([&self.identity]);
        let mut former: Vec<_> = all.filter(|former| *former != next).cloned().collect();
        former.drain(..former.len().saturating_sub(MAX_FORMER_IDENTITIES));
        former
    }

    /// Whether the session began with the credential of `identity`.
    pub(crate) fn began_with(&self, identity: &Identity) -> bool {
        self.identity == *identity
    }

    /// Whether neither the session nor one before it began with the credential of `identity`. Then that credential is a
    /// new login.
    pub(crate) fn is_older_than(&self, identity: &Identity) -> bool {
        self.identity != *identity && !self.former_identities.contains(identity)
    }

    pub(crate) fn refresh_token(&self) -> Option<&SecretString> {
        self.refresh_token.as_ref().map(|secret| &secret.0)
    }

    pub(crate) fn refresh_expires_at(&self) -> Option<SystemTime> {
        self.refresh_expires_at
    }

    pub(crate) fn refreshing_since(&self) -> Option<SystemTime> {
        self.refreshing_since
    }

    /// The session while a refresh runs whose outcome is not known yet.
    pub(crate) fn refreshing(&self, since: SystemTime) -> Self {
        Self {
            version: self.version.saturating_add(1),
            // Of several interrupted refreshes, the first tells since when a rotation may have been lost.
            refreshing_since: self.refreshing_since.or(Some(since)),
            ..self.clone()
        }
    }

    /// The session with the refresh token that it began with.
    pub(crate) fn with_secret_refresh_token(self, refresh_token: SecretString) -> Self {
        Self {
            refresh_token: Some(Secret(refresh_token)),
            ..self
        }
    }

    /// The session with another version.
    pub(crate) fn at(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// The session after a refresh that changed nothing, because the server rejected it.
    pub(crate) fn settled(&self, doubtful_since: Option<SystemTime>) -> Self {
        Self {
            version: self.version.saturating_add(1),
            refreshing_since: doubtful_since,
            ..self.clone()
        }
    }

    /// The session after a token response. The old refresh token stays if the response has none (RFC 6749 §6).
    pub(crate) fn merged(&self, new: NewTokens) -> Self {
        let rotated = new.refresh_token.is_some();
        Self {
            format: Format,
            version: self.version.saturating_add(1),
            generation: self.generation.saturating_add(1),
            identity: self.identity.clone(),
            former_identities: self.former_identities.clone(),
            access: new
                .token
                .map(|token| Access::new(&token, new.expires_at, new.lifetime)),
            refresh_token: new
                .refresh_token
                .map(Secret)
                .or_else(|| self.refresh_token.clone()),
            refresh_expires_at: if rotated {
                new.refresh_expires_at
            } else {
                new.refresh_expires_at.or(self.refresh_expires_at)
            },
            refreshing_since: None,
        }
    }

    /// The access token, if there is one, even if it has expired.
    pub(crate) fn token(&self) -> Option<Token> {
        self.access.as_ref()?.token()
    }

    /// Whether both sessions are serialized to the same text, so that saving one over the other changes nothing.
    pub(crate) fn is_written_like(&self, other: &Self) -> bool {
        let written = |session| to_json(session, 1024).ok();
        written(self).is_some_and(|written_self| Some(written_self) == written(other))
    }
}

impl fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = self.access.as_ref();
        f.debug_struct("StoredSession")
            .field("version", &self.version)
            .field("has_access_token", &access.is_some())
            .field("expires_at", &access.and_then(Access::expires_at))
            .field("has_refresh_token", &self.refresh_token.is_some())
            .field("refresh_expires_at", &self.refresh_expires_at)
            .field("refreshing_since", &self.refreshing_since)
            .finish_non_exhaustive()
    }
}

/// A session of made-up tokens, for tests of stores.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sample(version: u64, label: &str) -> StoredSession {
    // Whole milliseconds, so that a loaded session equals the saved one.
    let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let token = Token::new(format!("sample-access-token-{version}"))
        .unwrap_or_else(|_| unreachable!("a number is visible ASCII"))
        .with_token_type("Bearer")
        .with_scope(label)
        .with_id_token("sample-id-token")
        .with_extra("region", "eu");
    StoredSession::begin(Identity::new("sample", label), None)
        .at(version.saturating_sub(1))
        .merged(NewTokens {
            token: Some(token),
            expires_at: Some(expires_at),
            lifetime: Some(Duration::from_secs(900)),
            refresh_token: Some(format!("sample-refresh-token-{label}-{version}").into()),
            refresh_expires_at: Some(expires_at),
        })
}
