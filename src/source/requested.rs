//! What a source asks for beside its grant.

use super::GrantSource;
use crate::grant::{Grant, Requested, Requests};

/// What the token requests of [`ClientCredentials`](crate::ClientCredentials), [`JwtBearer`](crate::JwtBearer),
/// [`TokenExchange`](crate::TokenExchange) and [`LegacyPassword`](crate::LegacyPassword) ask for.
///
/// It tells sessions apart in a store: a source that asks for something else neither uses nor overwrites the session.
impl<G: Grant + Requests + Clone> GrantSource<G> {
    /// Adds to the scope (RFC 6749 §3.3): one or more names with spaces between them. Default: none is sent, and the server
    /// decides.
    pub fn scope(self, scope: impl Into<String>) -> Self {
        self.asking(|requested| requested.add_scope(scope))
    }

    /// Adds a resource (RFC 8707 §2), the absolute URI of an API. It may be set several times. Default: none.
    pub fn resource(self, resource: impl Into<String>) -> Self {
        self.asking(|requested| requested.add("resource", resource))
    }

    /// Adds an audience: the logical name of an API. It may be set several times. Default: none.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.asking(|requested| requested.add("audience", audience))
    }

    /// Adds any other parameter. It may be set several times. Default: none.
    pub fn parameter(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.asking(|requested| requested.add(name, value))
    }

    fn asking(self, change: impl FnOnce(&mut Requested)) -> Self {
        self.map_grant(|mut grant| {
            change(grant.requested());
            grant
        })
    }
}
