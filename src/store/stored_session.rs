//! [`StoredSession`]: what is stored.

mod access;
mod encoding;
mod ended;
#[cfg(any(
    feature = "encrypted-store",
    feature = "file-store",
    feature = "postgres-store",
    feature = "redis-store",
    feature = "sqlite-store"
))]
mod first_format;
mod import;
mod login;
mod members;
mod notify;
mod owner;
#[cfg(any(test, feature = "testing"))]
mod sample;
mod sealed;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use secrecy::SecretString;

pub(crate) use self::ended::Ended;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::sample::sample;
pub(super) use self::sealed::Sealed;
use self::{
    access::Access,
    encoding::{Format, Secret},
};
#[cfg(any(
    feature = "encrypted-store",
    feature = "file-store",
    feature = "postgres-store",
    feature = "redis-store",
    feature = "sqlite-store"
))]
pub(super) use self::{
    encoding::{MAX_COUNT, SEALED_FORMAT},
    first_format::{FIRST_FORMAT, FirstFormat},
};
use super::Identity;
use crate::{token::Token, zeroize::to_json};

/// A session as a store keeps it: its tokens, their times of expiry, and a version that counts its changes.
///
/// A store reads nothing of it but its [`version`](StoredSession::version), and serializes it with serde in a
/// self-describing format such as JSON. What is written contains secrets. `Debug` shows none.
///
/// # What is written
///
/// ```json
/// {
///   "format": 3,
///   "version": 3,
///   "generation": 2,
///   "identity": "…",
///   "former_identities": [],
///   "client": "…",
///   "access": {
///     "token": "…",
///     "expires_at": 1700000900000,
///     "lifetime_secs": 900,
///     "token_type": "Bearer",
///     "scope": "invoices:read",
///     "id_token": "…",
///     "added_scope": "invoices:write",
///     "extra": { "instance_url": "https://eu4.example.com" }
///   },
///   "refresh_token": "…",
///   "refresh_expires_at": null,
///   "refreshing_since": 1700000800000,
///   "refresh_id": 2130771,
///   "ended": { "since": 1700000900000, "credentials": ["…"], "reason": "rejected" }
/// }
/// ```
///
/// Times are milliseconds since 1970, and `generation` counts the token responses and the revocations.
///
/// - `identity` and `former_identities` are [`Identity`]s of the credentials that the session and those before it began
///   with.
/// - `client` is a hash of what tells clients apart: the token endpoint, the client id, the scope, the resource and the
///   audience, or the [name](crate::GrantSource::session_name) that was set instead. A source of another client does not
///   use the session. If it is `null`, as in older formats, any source adopts the session, and the next one that
///   refreshes it records its own client. So setting it to `null` by hand moves a session to a client with other settings.
/// - `added_scope` is what the token was requested with beyond the scope of its source, because an API has
///   [asked for it](crate::TokenCacheBuilder::step_up). It is no part of what `client` tells apart.
/// - `refreshing_since` and `refresh_id` are the mark that a refresh runs, or was interrupted. The number is another one for
///   each refresh, so that no two processes save the same.
/// - `ended` has credentials that no process sends again, because the server has declared them dead (`rejected`), or because
///   the session was [revoked](crate::TokenCache::revoke) (`revoked`). `credentials` are [`Identity`]s as well. The session
///   itself has ended if its own credential is one of them, and lives if they are those of another login. A revoked session
///   has no tokens.
///
/// A session of another `format` is not deserialized: the error of a newer one says to update the crate. Format 2, which
/// has neither `client` nor `ended`, is deserialized. The stores of this crate also read format 1. Both are saved in
/// format 3.
///
/// Format 4 is an encrypted session. An `EncryptedStore` saves it to the store inside, whichever that is. It has nothing
/// readable but its version and what identifies the key, and methods that set a part of it do not change what is written:
///
/// ```json
/// { "format": 4, "version": 3, "sealed": { "key": "1f2e3d4c", "data": "…" } }
/// ```
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
/// assert!(json.starts_with(r#"{"format":3,"version":1,"#));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct StoredSession {
    format: Format,
    version: u64,
    /// Counts the token responses. Of two sessions, the one with the higher generation has the newer tokens.
    generation: u64,
    /// The credential that the session began with.
    identity: Identity,
    /// The credentials of the sessions before it. A process that is still configured with one of them has an old
    /// credential, not a new login.
    former_identities: Vec<Identity>,
    /// The client that the tokens belong to. `None` in a session of an older format, and in an imported one.
    client: Option<Identity>,
    access: Option<Access>,
    refresh_token: Option<Secret>,
    refresh_expires_at: Option<SystemTime>,
    /// When a refresh began whose outcome is not known yet.
    refreshing_since: Option<SystemTime>,
    /// A random number of the refresh that has saved the mark, so that no two processes save the same one.
    refresh_id: Option<u32>,
    ended: Option<Ended>,
    /// What was in `ended` before the server accepted it. Not written: other processes learn it from the next save.
    not_dead: Option<Identity>,
    /// The encrypted session. Then all that is known besides is the version.
    ///
    /// Boxed: without it, room for it in a session would keep what was on the stack, which may be a secret.
    sealed: Option<Box<Sealed>>,
    /// Saving it concerns other processes now, and not only when they read it next. Not written: it is about one save.
    is_news: bool,
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

    /// A session that begins with the credential of `identity`, in place of `before`, and has no tokens yet. What the server
    /// has declared dead stays dead, unless `before` was revoked.
    pub(crate) fn begin(identity: Identity, before: Option<&Self>) -> Self {
        Self {
            format: Format::Plain,
            version: before.map_or(0, Self::version),
            generation: before.map_or(0, Self::generation),
            is_news: before.is_some_and(|it| it.is_revoked() || !it.began_with(&identity)),
            former_identities: before
                .map(|before| before.former_identities_before(&identity))
                .unwrap_or_default(),
            identity,
            client: before.and_then(|before| before.client.clone()),
            access: None,
            refresh_token: None,
            refresh_expires_at: None,
            refreshing_since: None,
            refresh_id: None,
            ended: before
                .filter(|before| !before.is_revoked())
                .and_then(|before| before.ended.clone()),
            not_dead: None,
            sealed: None,
        }
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

    /// The session while the refresh `id` runs, whose outcome is not known yet.
    ///
    /// No two refreshes have the same `id`. Of a session that an interrupted refresh has marked, their marks would be equal
    /// otherwise, and a store takes an equal session for a save that is repeated.
    pub(crate) fn refreshing(&self, since: SystemTime, id: u32) -> Self {
        Self {
            version: self.version.saturating_add(1),
            // Of several interrupted refreshes, the first tells since when a rotation may have been lost.
            refreshing_since: self.refreshing_since.or(Some(since)),
            refresh_id: Some(id),
            is_news: false,
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
            refresh_id: None,
            is_news: false,
            ..self.clone()
        }
    }

    /// The session after a token response. The old refresh token stays if the response has none (RFC 6749 §6).
    pub(crate) fn merged(&self, new: NewTokens) -> Self {
        let rotated = new.refresh_token.is_some();
        Self {
            format: Format::Plain,
            version: self.version.saturating_add(1),
            generation: self.generation.saturating_add(1),
            identity: self.identity.clone(),
            former_identities: self.former_identities.clone(),
            client: self.client.clone(),
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
            refresh_id: None,
            ended: self.ended.clone().filter(Ended::has_rejected),
            not_dead: self.not_dead.clone(),
            sealed: None,
            is_news: self.is_news,
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
        if let Some(sealed) = &self.sealed {
            return f
                .debug_struct("StoredSession")
                .field("version", &self.version)
                .field("encrypted_with", &sealed.key)
                .finish_non_exhaustive();
        }
        f.debug_struct("StoredSession")
            .field("version", &self.version)
            .field("has_access_token", &access.is_some())
            .field("expires_at", &access.and_then(Access::expires_at))
            .field("has_refresh_token", &self.refresh_token.is_some())
            .field("refresh_expires_at", &self.refresh_expires_at)
            .field("refreshing_since", &self.refreshing_since)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
