//! The access token of a stored session.

use std::time::{Duration, SystemTime};

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::encoding::{Secret, millis};
use crate::token::{Expiry, ExtraMembers, Token, TokenDetails};

/// An access token and what came with it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Access {
    token: Secret,
    #[serde(default, with = "millis")]
    expires_at: Option<SystemTime>,
    #[serde(default)]
    lifetime_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_type: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    added_scope: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "ExtraMembers::is_empty")]
    extra: ExtraMembers,
}

impl Access {
    pub(super) fn new(
        token: &Token,
        expires_at: Option<SystemTime>,
        lifetime: Option<Duration>,
    ) -> Self {
        let TokenDetails {
            token_type,
            scope,
            id_token,
            added_scope,
            extra,
        } = token.details().cloned().unwrap_or_default();
        Self {
            token: Secret(token.expose_secret().into()),
            expires_at,
            lifetime_secs: lifetime.map(whole_secs),
            token_type,
            scope,
            id_token: id_token.map(Secret),
            added_scope: added_scope.filter(|scope| !scope.is_empty()),
            extra,
        }
    }

    pub(super) fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    pub(super) fn token(&self) -> Option<Token> {
        let token = Token::new(self.token.0.expose_secret()).ok()?;
        let token = token.with_details(TokenDetails {
            token_type: self.token_type.clone(),
            scope: self.scope.clone(),
            id_token: self.id_token.clone().map(|secret| secret.0),
            added_scope: self.added_scope.clone(),
            extra: self.extra.clone(),
        });
        Some(match self.expires_at {
            None => token,
            Some(at) => token.expiry(Expiry::Stored {
                at,
                lifetime: self.lifetime_secs.map(Duration::from_secs),
            }),
        })
    }
}

/// The seconds of a lifetime, rounded up: a stored token is not used for longer than its stored lifetime.
fn whole_secs(lifetime: Duration) -> u64 {
    lifetime
        .as_secs()
        .saturating_add(u64::from(lifetime.subsec_nanos() > 0))
}
