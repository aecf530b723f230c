//! The public constructor of a session, for sessions that another program has begun.

use std::time::SystemTime;

use super::{Access, Identity, StoredSession};
use crate::{clock::Clock, token::Token, zeroize::secret};

/// Making a session to import.
impl StoredSession {
    /// Makes a session without tokens, to be imported into an empty store.
    ///
    /// A source adopts it if `identity` is the source's own: then the configured credential is the one that the session
    /// began with. A source of another identity takes its credential for a new login, and begins a session of its own.
    ///
    /// The session belongs to no client yet. The first source that refreshes it records its own.
    ///
    /// The session has version 1. See [`TokenStore`](crate::TokenStore) for how to save it.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            version: 1,
            generation: 1,
            is_news: true,
            ..Self::begin(identity, None)
        }
    }

    /// Sets the access token, with its expiry and the other members of its response.
    ///
    /// A relative lifetime ([`Token::expires_in`]) counts from now.
    #[must_use]
    pub fn with_access_token(self, token: &Token) -> Self {
        let now = Clock::System.now();
        let expires = token.expires(now, now);
        let access = Access::new(
            token,
            expires.map(|expires| expires.wall),
            expires.map(|expires| expires.lifetime),
        );
        Self {
            access: Some(access),
            ..self
        }
    }

    /// Sets the refresh token.
    #[must_use]
    pub fn with_refresh_token(self, refresh_token: impl Into<String>) -> Self {
        self.with_secret_refresh_token(secret(refresh_token))
    }

    /// Sets when the refresh token expires. It is used in errors only: the token is sent anyway.
    #[must_use]
    pub fn with_refresh_expires_at(self, refresh_expires_at: SystemTime) -> Self {
        Self {
            refresh_expires_at: Some(refresh_expires_at),
            ..self
        }
    }

    /// Makes the session newer than `stored`, which it is to replace in a store.
    ///
    /// Save it with the version of `stored` as `replaces`. Sources that are configured with the credential of `stored`
    /// adopt it as well.
    #[must_use]
    pub fn replacing(self, stored: &Self) -> Self {
        Self {
            version: stored.version.saturating_add(1),
            generation: stored.generation.saturating_add(1),
            former_identities: stored.former_identities_before(&self.identity),
            is_news: true,
            ..self
        }
    }
}
