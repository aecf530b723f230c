//! [`StoredSession`]: what is stored.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Identity;
use crate::token::{Expiry, Token};

/// How many former credentials are remembered.
const RETIRED: usize = 8;

/// A session as a store keeps it: the tokens, when they end, and a version that counts its changes.
///
/// It is opaque, but for its [`version`](StoredSession::version), and serialises with serde: a store of your own writes it as
/// JSON, for example. What is written holds secrets; `Debug` shows none.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredSession {
    version: u64,
    /// Counts the tokens that came, so that the newer of two sessions can be told. Marks leave it as it is.
    #[serde(default)]
    generation: u64,
    /// Names the credential that the session began with.
    seed: Identity,
    /// Names those of the sessions before it. Who is still configured with one of them is late, not new.
    #[serde(default)]
    retired: Vec<Identity>,
    access: Option<Access>,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default, with = "millis")]
    refresh_expires_at: Option<SystemTime>,
    /// When a refresh began of which nobody knows yet how it ended.
    #[serde(default, with = "millis")]
    refreshing_since: Option<SystemTime>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Access {
    token: Secret,
    #[serde(default, with = "millis")]
    expires_at: Option<SystemTime>,
    #[serde(default)]
    lifetime_secs: Option<u64>,
    #[serde(default)]
    scope: Option<Box<str>>,
}

/// What a token endpoint gave.
pub(crate) struct NewTokens {
    /// None if the one that came can't be used.
    pub(crate) token: Option<Token>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) refresh_token: Option<SecretString>,
    pub(crate) refresh_expires_at: Option<SystemTime>,
}

impl StoredSession {
    /// Counts what was saved, from 1: what a store compares.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Counts the tokens that came: what tells the newer of two sessions.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// A session that begins with a credential and has nothing yet, in place of `before`.
    pub(crate) fn begin(seed: Identity, before: Option<&Self>) -> Self {
        let mut retired = before.map_or_else(Vec::new, |before| {
            let known = before.retired.iter().chain([&before.seed]);
            known.filter(|known| **known != seed).cloned().collect()
        });
        retired.drain(..retired.len().saturating_sub(RETIRED));
        Self {
            version: before.map_or(0, Self::version),
            generation: before.map_or(0, Self::generation),
            seed,
            retired,
            access: None,
            refresh_token: None,
            refresh_expires_at: None,
            refreshing_since: None,
        }
    }

    /// Whether the session began with `seed`.
    pub(crate) fn began_with(&self, seed: &Identity) -> bool {
        self.seed == *seed
    }

    /// Whether the session has never heard of `seed`: then it is a new login, and the session is to begin anew.
    pub(crate) fn is_older_than(&self, seed: &Identity) -> bool {
        self.seed != *seed && !self.retired.contains(seed)
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

    /// The session from when a refresh has begun until its outcome is known.
    pub(crate) fn refreshing(&self, since: SystemTime) -> Self {
        Self {
            version: self.version + 1,
            // The first of several in a row tells since when a rotation may have been lost.
            refreshing_since: self.refreshing_since.or(Some(since)),
            ..self.clone()
        }
    }

    /// The session with the refresh token that it began with.
    pub(crate) fn with_refresh_token(self, refresh_token: SecretString) -> Self {
        Self {
            refresh_token: Some(Secret(refresh_token)),
            ..self
        }
    }

    /// The session with the tokens of `self` and the version of what is stored.
    pub(crate) fn at(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// The session after a refresh that the server has judged, and so did not happen: as it was before.
    pub(crate) fn settled(&self, doubtful_since: Option<SystemTime>) -> Self {
        Self {
            version: self.version + 1,
            refreshing_since: doubtful_since,
            ..self.clone()
        }
    }

    /// The session with what came: a server that gives no refresh token means the old one to be kept (RFC 6749 §6).
    pub(crate) fn merged(&self, new: NewTokens) -> Self {
        let rotated = new.refresh_token.is_some();
        Self {
            version: self.version + 1,
            generation: self.generation + 1,
            seed: self.seed.clone(),
            retired: self.retired.clone(),
            access: new.token.map(|token| Access {
                token: Secret(token.expose_secret().into()),
                expires_at: new.expires_at,
                lifetime_secs: new.lifetime.map(|lifetime| lifetime.as_secs()),
                scope: token.scope().map(Into::into),
            }),
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

    /// The access token, if there is one, whether or not it has ended.
    pub(crate) fn token(&self) -> Option<Token> {
        let access = self.access.as_ref()?;
        let mut token = Token::new(access.token.0.expose_secret()).ok()?;
        if let Some(at) = access.expires_at {
            let lifetime = access.lifetime_secs.map(Duration::from_secs);
            token = token.expiry(Expiry::Stored { at, lifetime });
        }
        if let Some(scope) = &access.scope {
            token = token.with_scope(scope.clone());
        }
        Some(token)
    }
}

/// A session of made-up tokens, for tests of stores.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sample(version: u64, label: &str) -> StoredSession {
    // Whole milliseconds, as they are written, so that a loaded session says what the saved one said.
    let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let token = Token::new(format!("sample-access-token-{version}"))
        .unwrap_or_else(|_| unreachable!("a number is visible ASCII"));
    StoredSession::begin(Identity::new("sample", label), None)
        .at(version.saturating_sub(1))
        .merged(NewTokens {
            token: Some(token.with_scope(label)),
            expires_at: Some(expires_at),
            lifetime: Some(Duration::from_secs(900)),
            refresh_token: Some(format!("sample-refresh-token-{label}-{version}").into()),
            refresh_expires_at: Some(expires_at),
        })
}

impl StoredSession {
    /// Whether both are written alike, so that saving one over the other changes nothing.
    pub(crate) fn is_written_like(&self, other: &Self) -> bool {
        let written = |session| serde_json::to_vec(session).map(Zeroizing::new).ok();
        written(self).is_some_and(|written_self| Some(written_self) == written(other))
    }
}

impl fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("version", &self.version)
            .field("has_access_token", &self.access.is_some())
            .field(
                "expires_at",
                &self.access.as_ref().and_then(|access| access.expires_at),
            )
            .field("has_refresh_token", &self.refresh_token.is_some())
            .field("refresh_expires_at", &self.refresh_expires_at)
            .field("refreshing_since", &self.refreshing_since)
            .finish_non_exhaustive()
    }
}

/// A secret that is written out, because that is what a store is for.
#[derive(Clone)]
struct Secret(SecretString);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|secret| Self(secret.into()))
    }
}

/// Times as milliseconds since 1970, which every language reads alike.
#[allow(clippy::ref_option)] // as serde calls it
mod millis {
    use super::{Deserialize, Deserializer, Duration, Serializer, SystemTime};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            None => serializer.serialize_none(),
            Some(time) => {
                let since = time
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                serializer.serialize_u64(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let millis = Option::<u64>::deserialize(deserializer)?;
        // What no clock can say is a time that never comes.
        Ok(millis.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn new_tokens(access: &str, refresh: Option<&str>) -> NewTokens {
        NewTokens {
            token: Some(Token::new(access).unwrap()),
            expires_at: Some(now() + Duration::from_secs(900)),
            lifetime: Some(Duration::from_secs(900)),
            refresh_token: refresh.map(Into::into),
            refresh_expires_at: None,
        }
    }

    fn session() -> StoredSession {
        let seed = Identity::new("refresh", "rt-0");
        StoredSession::begin(seed, None).merged(new_tokens("at-1", Some("rt-1")))
    }

    #[test]
    fn a_session_survives_its_serialisation() {
        let session = session().refreshing(now());
        let json = serde_json::to_string(&session).unwrap();
        let back: StoredSession = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
        assert_eq!(back.version(), 2);
        assert_eq!(back.refreshing_since(), Some(now()));
        assert_eq!(back.token().unwrap().expose_secret(), "at-1");
        assert_eq!(back.refresh_token().unwrap().expose_secret(), "rt-1");
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", session());
        assert!(
            !shown.contains("at-1") && !shown.contains("rt-1"),
            "{shown}"
        );
    }

    #[test]
    fn a_server_that_gives_no_refresh_token_means_the_old_one_to_be_kept() {
        let session = session().merged(new_tokens("at-2", None));
        assert_eq!(session.refresh_token().unwrap().expose_secret(), "rt-1");
        assert_eq!(session.token().unwrap().expose_secret(), "at-2");
    }

    #[test]
    fn only_tokens_that_came_make_a_session_newer() {
        let session = session();
        let marked = session.refreshing(now());
        assert_eq!(marked.generation(), session.generation());
        assert_eq!(marked.settled(None).generation(), session.generation());
        let seed = Identity::new("refresh", "another");
        assert_eq!(
            StoredSession::begin(seed, Some(&session)).generation(),
            session.generation()
        );
        assert!(marked.merged(new_tokens("at-2", None)).generation() > session.generation());
    }

    #[test]
    fn a_new_credential_is_told_from_a_late_one() {
        let of = |name: &str| Identity::new("refresh", name);
        let mut session = StoredSession::begin(of("0"), None);
        assert!(session.is_older_than(&of("1")));
        session = StoredSession::begin(of("1"), Some(&session));
        assert!(!session.is_older_than(&of("1")) && session.began_with(&of("1")));
        assert!(!session.is_older_than(&of("0")) && !session.began_with(&of("0")));
        assert!(session.is_older_than(&of("2")));
        for n in 2..20 {
            session = StoredSession::begin(of(&n.to_string()), Some(&session));
        }
        assert_eq!(session.retired.len(), RETIRED);
        assert!(!session.is_older_than(&of("18")));
    }

    #[test]
    fn a_identity_tells_credentials_apart_and_contains_none() {
        let a = Identity::new("refresh", "secret-a");
        assert_eq!(a, Identity::new("refresh", "secret-a"));
        assert_ne!(a, Identity::new("refresh", "secret-b"));
        assert_ne!(a, Identity::new("exchange", "secret-a"));
        assert!(!format!("{a:?}").contains("secret-a"));
    }
}
