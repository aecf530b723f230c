//! [`GrantContext`]: what a grant needs to know about the request.

use std::{borrow::Cow, fmt, time::SystemTime};

use crate::{
    clock::{Clock, Now},
    oauth::RequestTime,
};

/// What a [`Grant`](crate::Grant) may need to know to make its parameters.
#[derive(Clone)]
pub struct GrantContext<'a> {
    clock: Clock,
    now: Now,
    /// `now` by the clock of the server.
    server_time: RequestTime,
    audience: Cow<'a, str>,
}

impl<'a> GrantContext<'a> {
    /// A context for tests of grants.
    #[must_use]
    pub fn new(now: SystemTime, audience: &'a str) -> Self {
        let (clock, server_time) = (Clock::System, RequestTime::new(now));
        let now = Now {
            wall: now,
            ..clock.now()
        };
        Self {
            clock,
            now,
            server_time,
            audience: Cow::Borrowed(audience),
        }
    }

    pub(crate) fn with_clock(clock: &Clock, server_time: RequestTime, audience: &'a str) -> Self {
        Self {
            clock: clock.clone(),
            now: clock.now(),
            server_time,
            audience: Cow::Borrowed(audience),
        }
    }

    /// The current time by the clock of the server, as far as its responses tell it: for the `iat` and `exp` of an assertion.
    ///
    /// If the server rejects the parameters, and its response shows that this time was wrong, they are made again and
    /// sent again once. Parameters that were made without this time are not.
    pub fn now(&self) -> SystemTime {
        self.server_time.read()
    }

    /// The `aud` of an assertion (RFC 7523 §3): the issuer if the client [discovers](crate::OAuthClient::discover_with_transport)
    /// its endpoints, else the URL of the token endpoint.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn both_clocks(&self) -> Now {
        self.now
    }

    /// The same, to be moved into a future.
    pub(super) fn to_owned(&self) -> GrantContext<'static> {
        GrantContext {
            clock: self.clock.clone(),
            now: self.now,
            server_time: self.server_time.clone(),
            audience: Cow::Owned(self.audience.clone().into_owned()),
        }
    }
}

impl fmt::Debug for GrantContext<'_> {
    /// Leaves out the audience: the query of a URL may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantContext")
            .field("now", &self.server_time)
            .finish_non_exhaustive()
    }
}
