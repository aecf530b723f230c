//! [`GrantContext`]: what a grant needs to know about the request.

use std::{fmt, time::SystemTime};

/// What a [`Grant`](crate::Grant) may need to know to make its parameters.
#[derive(Clone, Copy)]
pub struct GrantContext<'a> {
    now: SystemTime,
    audience: &'a str,
}

impl<'a> GrantContext<'a> {
    /// A context for tests of grants.
    #[must_use]
    pub fn new(now: SystemTime, audience: &'a str) -> Self {
        Self { now, audience }
    }

    /// The current time: for the `iat` and `exp` of an assertion. Use it instead of the system's clock.
    pub fn now(&self) -> SystemTime {
        self.now
    }

    /// The `aud` of an assertion (RFC 7523 §3): the issuer if the client [discovers](crate::OAuthClient::discover_with_transport)
    /// its endpoints, else the URL of the token endpoint.
    pub fn audience(&self) -> &'a str {
        self.audience
    }
}

impl fmt::Debug for GrantContext<'_> {
    /// Leaves out the audience: the query of a URL may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantContext")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}
