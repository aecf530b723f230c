//! Step-ups: what is requested beyond what the grant requests on its own, because an API asks for it.
//!
//! The scope that a token was requested with beyond that is stored with the token. It is no part of what tells sessions apart:
//! a source that allows no step-up uses the session as well.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::GrantSource;
use crate::{
    challenge::Wanted,
    error::{TokenError, TokenErrorKind},
    grant::Grant,
    oauth::Parameters,
    store::StoredSession,
    token::Token,
    token_source::TokenContext,
};

/// What is requested beyond what the grant requests on its own.
#[derive(Clone, Default)]
pub(super) struct More {
    scopes: BTreeSet<String>,
    /// What was granted without having been requested. Requested now, or it would be lost.
    granted: BTreeSet<String>,
    claims: Option<String>,
}

impl More {
    /// What to request beyond what the grant requests, in place of the session `before`.
    pub(super) fn of(before: Option<&StoredSession>, cx: &TokenContext) -> Self {
        let stored = before.and_then(StoredSession::token);
        let replaced = cx.previous_token().or(stored.as_ref());
        let names = |scope: Option<&str>| -> BTreeSet<String> {
            let names = scope.unwrap_or_default().split(' ');
            names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let mut scopes: BTreeSet<_> = cx.scopes().map(str::to_owned).collect();
        let kept = names(stored.as_ref().and_then(Token::added_scope));
        scopes.extend(kept.into_iter().filter(|name| cx.allows(name)));
        Self {
            scopes,
            granted: names(replaced.and_then(Token::scope)),
            claims: cx.wanted().and_then(Wanted::claims).map(str::to_owned),
        }
    }

    /// The scopes, with spaces between them.
    pub(super) fn scope(&self) -> String {
        let scopes: Vec<_> = self.scopes.iter().map(String::as_str).collect();
        scopes.join(" ")
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.scopes.is_empty() && self.claims.is_none()
    }

    /// Adds it to `parameters`. `own` has what the client sends for a parameter that these do not have.
    pub(super) fn add_to(
        &self,
        mut parameters: Parameters,
        own: impl Fn(&str) -> Option<String>,
    ) -> Parameters {
        let sent = |name: &str, parameters: &Parameters| {
            let sent = parameters.expose_secret(name).map(str::to_owned);
            sent.or_else(|| own(name))
        };
        if !self.scopes.is_empty() {
            let requested = sent("scope", &parameters);
            let requested = requested
                .iter()
                .flat_map(|scope| scope.split_ascii_whitespace());
            let mut all: Vec<&str> = requested.collect();
            if all.is_empty() {
                all.extend(self.granted.iter().map(String::as_str));
            }
            for name in &self.scopes {
                if !all.contains(&name.as_str()) {
                    all.push(name);
                }
            }
            let scope = all.join(" ");
            parameters = parameters.replacing("scope", scope);
        }
        if let Some(claims) = &self.claims {
            let all = match sent("claims", &parameters) {
                Some(sent) => merged(&sent, claims),
                None => claims.clone(),
            };
            parameters = parameters.replacing("claims", all);
        }
        parameters
    }
}

/// Both objects in one. Of two values that are no objects, the added one counts.
fn merged(sent: &str, added: &str) -> String {
    fn merge(into: &mut Map<String, Value>, added: Map<String, Value>) {
        for (name, value) in added {
            match (into.get_mut(&name), value) {
                (Some(Value::Object(into)), Value::Object(added)) => merge(into, added),
                (_, value) => drop(into.insert(name, value)),
            }
        }
    }
    let object = |text| serde_json::from_str::<Map<String, Value>>(text).ok();
    match (object(sent), object(added)) {
        (Some(mut all), Some(added)) => {
            merge(&mut all, added);
            Value::Object(all).to_string()
        }
        _ => added.to_owned(),
    }
}

impl<G: Grant> GrantSource<G> {
    /// The scopes that are requested without a step-up.
    pub(super) fn own_scopes(&self) -> Vec<String> {
        let parts = self.grant.session_parts();
        let of_grant = parts.iter().filter(|(name, _)| *name == "scope");
        let mut scopes: Vec<&str> = of_grant.map(|(_, scope)| *scope).collect();
        if scopes.is_empty() {
            scopes = self.client.own_parameters("scope").collect();
        }
        let names = scopes.into_iter().flat_map(str::split_ascii_whitespace);
        names.map(str::to_owned).collect()
    }

    /// A session of refresh tokens never gets more than was granted (RFC 6749 §6), so a person must log in. Another process may
    /// have the session of that login.
    pub(super) async fn more_of_login(
        &self,
        wanted: &Wanted,
        cx: &TokenContext,
    ) -> Result<Token, TokenError> {
        let stored = self.load().await?;
        if let Some(token) = self.adopt(stored.as_ref(), cx) {
            return Ok(token);
        }
        let error = wanted.not_had(
            "a person must log in for that: a refresh token never gets more than was granted at the last login",
        );
        Err(match &self.reauth_hint {
            Some(hint) => error.with_more(hint),
            None => error,
        })
    }
}

/// Fails if no token request can get what is wanted.
pub(super) fn check_requestable(wanted: Option<&Wanted>) -> Result<(), TokenError> {
    match wanted {
        Some(wanted) if wanted.needs_user() => {
            Err(wanted.not_had("a person must log in for that, which this grant cannot do"))
        }
        _ => Ok(()),
    }
}

/// The error of a step-up, for which the token request failed with `error`.
pub(super) fn not_granted(wanted: &Wanted, error: TokenError) -> TokenError {
    if error.is_transient() {
        return error;
    }
    let mut refused = wanted.not_had("the authorization server did not grant it");
    if let Some(code) = error.oauth_code() {
        refused = refused.with_oauth_code(code);
    }
    if let Some(status) = error.status() {
        refused = refused.with_status(status);
    }
    refused.with_source(error)
}

/// Whether the server may have refused a request because of what it asked for beyond what the grant asks for on its own.
pub(super) fn is_too_much(error: &TokenError) -> bool {
    !error.is_transient() && error.kind() != TokenErrorKind::InvalidClient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_the_client_and_of_the_challenge_are_merged() {
        for (sent, added, all) in [
            (
                r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#,
                r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#,
                r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"},"xms_cc":{"values":["cp1"]}}}"#,
            ),
            (r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":2}"#, r#"{"a":2}"#),
            ("no object", r#"{"a":2}"#, r#"{"a":2}"#),
        ] {
            assert_eq!(merged(sent, added), all);
        }
    }

    #[test]
    fn scopes_are_added_to_what_is_sent_anyway() {
        let more = |scopes: &[&str], granted: &[&str]| More {
            scopes: scopes.iter().map(|it| (*it).to_owned()).collect(),
            granted: granted.iter().map(|it| (*it).to_owned()).collect(),
            claims: None,
        };
        for (of_grant, of_client, added, expected) in [
            (Some("b a"), None, more(&["c", "a"], &[]), Some("b a c")),
            (None, Some("x"), more(&["c"], &["y"]), Some("x c")),
            (None, None, more(&["c"], &["y", "z"]), Some("y z c")),
            (None, None, more(&["c"], &[]), Some("c")),
            (Some("a"), None, more(&[], &["y"]), Some("a")),
            (None, None, more(&[], &["y"]), None),
        ] {
            let mut parameters = Parameters::new("x");
            if let Some(scope) = of_grant {
                parameters = parameters.with("scope", scope);
            }
            let own = |name: &str| of_client.filter(|_| name == "scope").map(str::to_owned);
            let sent = added.add_to(parameters, own);
            assert_eq!(sent.expose_secret("scope"), expected);
        }
    }
}
