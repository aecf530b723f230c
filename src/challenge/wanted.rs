//! [`Wanted`]: what an API has asked for beyond what a token has.

use std::{collections::BTreeSet, fmt};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

use super::{Challenge, StepUp};
use crate::{
    error::{TokenError, TokenErrorKind},
    token::Token,
};

/// What an API has asked for beyond what a token has. All of it is allowed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    scopes: BTreeSet<Box<str>>,
    /// JSON, an object.
    claims: Option<Box<str>>,
    user: Option<UserAuthentication>,
}

/// What a user must have done (RFC 9470 §3).
#[derive(Clone, PartialEq, Eq)]
struct UserAuthentication {
    acr_values: Option<Box<str>>,
    max_age: Option<u64>,
}

impl Wanted {
    /// What `challenge` asks for that `token` does not have. `own` is the scope that the source asks for anyway.
    ///
    /// # Errors
    ///
    /// Something is not allowed, or makes no sense. The error names no scope that is not allowed: the API has chosen the name,
    /// and it may repeat a secret.
    pub(crate) fn by(
        challenge: &Challenge,
        step_up: &StepUp,
        own: &[String],
        token: &Token,
    ) -> Result<Self, TokenError> {
        if challenge.is_cut() {
            return Err(refused("its challenge is too long"));
        }
        let mut wanted = Self::default();
        if let Some(claims) = challenge.claims().filter(|_| step_up.allows_claims()) {
            let claims = decode_claims(claims).ok_or_else(|| {
                refused("the `claims` of its challenge are not a JSON object in base64")
            })?;
            wanted.claims = Some(claims);
        }
        match challenge.error() {
            Some("insufficient_scope") => {
                let has = |name: &str| own.iter().any(|it| it == name) || token.has_scope(name);
                let is_refused = |name: &str| !step_up.allows(name) && !has(name);
                if challenge.scopes().any(is_refused) {
                    return Err(refused(
                        "it asks for a scope that is not on the list of `StepUp::scopes`; its response names it in \
                         `WWW-Authenticate`",
                    ));
                }
                if challenge.scope().is_none() && wanted.claims.is_none() {
                    return Err(refused("its challenge names no scope"));
                }
                let lacking = challenge.scopes().filter(|name| !has(name));
                wanted.scopes = lacking.map(Box::from).collect();
            }
            Some("insufficient_user_authentication") => {
                wanted.user = Some(UserAuthentication {
                    acr_values: challenge.acr_values().map(Box::from),
                    max_age: challenge.max_age(),
                });
            }
            _ => {}
        }
        Ok(wanted)
    }

    pub(crate) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(|name| &**name)
    }

    pub(crate) fn claims(&self) -> Option<&str> {
        self.claims.as_deref()
    }

    /// Whether a person must authenticate for it.
    pub(crate) fn needs_user(&self) -> bool {
        self.user.is_some()
    }

    /// Whether nothing but scopes is asked for.
    pub(crate) fn is_only_scopes(&self) -> bool {
        self.claims.is_none() && self.user.is_none()
    }

    /// Fails if `token`, which was requested in place of `before`, says itself that it does not have what is wanted, or that it
    /// has less than `before`.
    ///
    /// A token without a scope has what was requested (RFC 6749 §5.1).
    pub(crate) fn check_granted(
        &self,
        before: Option<&Token>,
        token: &Token,
    ) -> Result<(), TokenError> {
        if before.is_some_and(|before| before.same_secret(token)) {
            return Err(self.not_had("the token source returned the current token again"));
        }
        let Some(granted) = token.scope() else {
            return Ok(());
        };
        let granted: BTreeSet<&str> = granted.split(' ').collect();
        let had = before.and_then(Token::scope).unwrap_or_default();
        let had: BTreeSet<&str> = had.split(' ').filter(|name| !name.is_empty()).collect();
        if !granted.is_superset(&had) {
            let message = "the token that the authorization server issued for it lacks a scope that the current one has";
            return Err(self.not_had(message));
        }
        let has_all = self.scopes().all(|name| granted.contains(name));
        // Some servers name scopes in another way than they are requested.
        let has_more = !had.is_empty() && granted.len() > had.len();
        if has_all || has_more {
            return Ok(());
        }
        Err(self.not_had("the authorization server issued a token without it"))
    }

    /// The error if the wanted thing cannot be had.
    pub(crate) fn not_had(&self, why: &str) -> TokenError {
        refused(&format!("it asks for {}, and {why}", self.describe()))
    }

    /// What is wanted, in words. The scopes are on the list of the user. The rest is text of the API, and not shown.
    pub(crate) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if !self.scopes.is_empty() {
            let scopes: Vec<_> = self.scopes().collect();
            parts.push(format!("the scope `{}`", scopes.join(" ")));
        }
        if self.claims.is_some() {
            parts.push("other claims".to_owned());
        }
        if let Some(user) = &self.user {
            parts.push(match (&user.acr_values, user.max_age) {
                (Some(_), Some(_)) => {
                    "a recent login of another kind (`acr_values`, `max_age`)".into()
                }
                (Some(_), None) => "a login of another kind (`acr_values`)".into(),
                (None, Some(age)) => {
                    format!("a login that is at most {age} seconds old (`max_age`)")
                }
                (None, None) => "another login".into(),
            });
        }
        if parts.is_empty() {
            parts.push("what the token has already".to_owned());
        }
        parts.join(" and ")
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wanted").field(&self.describe()).finish()
    }
}

#[cold]
fn refused(why: &str) -> TokenError {
    TokenError::new(TokenErrorKind::InsufficientScope, why.to_owned())
}

/// The JSON in base64, of either alphabet, padded or not. `None` if it is not an object.
fn decode_claims(text: &str) -> Option<Box<str>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, config);
    let json = engine
        .decode(text.replace('-', "+").replace('_', "/"))
        .ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&json).ok()?;
    Some(Value::Object(claims).to_string().into())
}

#[cfg(test)]
mod tests;
