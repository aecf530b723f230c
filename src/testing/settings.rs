//! What an [`AuthorizationServer`] can be told to do otherwise.

use std::time::{Duration, SystemTime};

use super::{
    clock::SimulatedClock,
    dialect::Dialect,
    rules::{Limit, Rules},
    server::AuthorizationServer,
};

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) dialect: Dialect,
    pub(super) prefix: String,
    pub(super) client_id: String,
    pub(super) client_secret: Option<String>,
    pub(super) email: String,
    pub(super) raw_basic: bool,
    pub(super) expires_in: Printed,
    pub(super) expiry: Printed,
    pub(super) clock: SimulatedClock,
    pub(super) skew: i64,
    pub(super) date: bool,
    pub(super) rules: Rules,
}

/// How a number stands in an answer.
///
/// # Examples
///
/// ```
/// use tower_bearer::testing::{AuthorizationServer, Dialect, Printed};
///
/// // a standard server with a quirk seen at several vendors
/// let server = AuthorizationServer::new(Dialect::Rfc6749).expires_in(Printed::Text);
/// # drop(server);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// As JSON has numbers: `900`.
    Number,
    /// As a string: `"900"`.
    Text,
    /// Not at all.
    Absent,
}

impl Settings {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            prefix: String::new(),
            client_id: AuthorizationServer::CLIENT_ID.to_owned(),
            client_secret: Some(AuthorizationServer::CLIENT_SECRET.to_owned()),
            email: AuthorizationServer::EMAIL.to_owned(),
            raw_basic: false,
            expires_in: dialect.expires_in(),
            expiry: Printed::Number,
            // Follows Tokio's time whether that is paused or not.
            clock: SimulatedClock::new(SystemTime::now()),
            skew: 0,
            date: true,
            rules: dialect.rules(),
        }
    }
}

/// Settings. They take effect at once and for every clone, so a test can change them midway.
impl AuthorizationServer {
    /// The path before the token endpoint's own, such as `/wow/v2`. Default: none.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        self.set(|it| prefix.trim_end_matches('/').clone_into(&mut it.prefix))
    }

    /// The client id and secret expected. Default: [`CLIENT_ID`](Self::CLIENT_ID) and
    /// [`CLIENT_SECRET`](Self::CLIENT_SECRET).
    pub fn client(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        let (id, secret) = (id.into(), secret.into());
        self.set(|it| (it.client_id, it.client_secret) = (id, Some(secret)))
    }

    /// A public client, with an id and no secret.
    pub fn public_client(self, id: impl Into<String>) -> Self {
        self.set(|it| (it.client_id, it.client_secret) = (id.into(), None))
    }

    /// The e-mail address by which [`Dialect::Winbooks`] knows its client. Default: [`EMAIL`](Self::EMAIL).
    pub fn email(self, email: impl Into<String>) -> Self {
        self.set(|it| it.email = email.into())
    }

    /// Whether Basic credentials are taken as they are, instead of form-encoded first (RFC 6749 §2.3.1). Default: no.
    pub fn raw_basic(self, raw: bool) -> Self {
        self.set(|it| it.raw_basic = raw)
    }

    /// How long access tokens live. Default: 900 s; [`Dialect::Xoxoday`]: 15 days.
    pub fn access_lifetime(self, lifetime: Duration) -> Self {
        self.set(|it| it.rules.access_lifetime = lifetime)
    }

    /// How long refresh tokens live, each from when it was issued. Default: for ever; [`Dialect::Xoxoday`]: 30 days.
    pub fn refresh_lifetime(self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.set(|it| it.rules.refresh_lifetime = lifetime.into())
    }

    /// Whether answers hold a refresh token; if not, nothing rotates. Default: yes.
    pub fn give_refresh_token(self, give: bool) -> Self {
        self.set(|it| it.rules.give_refresh_token = give)
    }

    /// Whether a refresh replaces the refresh token; if not, the answer repeats it. Default: yes;
    /// [`Dialect::Winbooks`]: no.
    pub fn rotate(self, rotate: bool) -> Self {
        self.set(|it| it.rules.rotate = rotate)
    }

    /// How long a refresh token still works after it was replaced. Default: not at all.
    pub fn grace(self, grace: Duration) -> Self {
        self.set(|it| it.rules.grace = grace)
    }

    /// Whether the use of a replaced refresh token, its grace over, ends the whole session: every refresh and access
    /// token that came of the same login. Default: [`Dialect::Rfc6749`] does, the others do not.
    pub fn detect_reuse(self, detect: bool) -> Self {
        self.set(|it| it.rules.detect_reuse = detect)
    }

    /// Whether an exchange token is good for one use only. Default: no.
    pub fn exchange_once(self, once: bool) -> Self {
        self.set(|it| it.rules.exchange_once = once)
    }

    /// Whether a refresh ends the older access tokens of its session. Default: [`Dialect::Xoxoday`] does, the others
    /// do not.
    pub fn one_access_token(self, one: bool) -> Self {
        self.set(|it| it.rules.one_access_token = one)
    }

    /// At most `refreshes` of one session within `per`; more are rejected, and end the session's access tokens.
    /// Default: no limit.
    ///
    /// [`Dialect::Xoxoday`] answers as its vendor prints it, which isn't JSON, or with a `penalty` in its other form,
    /// which is; other dialects answer 429 with `Retry-After`. The limit itself knows no penalty: it lifts as the
    /// refreshes fall out of `per`.
    pub fn limit(
        self,
        refreshes: usize,
        per: Duration,
        penalty: impl Into<Option<Duration>>,
    ) -> Self {
        let limit = Limit {
            refreshes,
            per,
            penalty: penalty.into(),
        };
        self.set(|it| it.rules.limit = Some(limit))
    }

    /// How `expires_in` stands in answers. Default: a number; [`Dialect::Winbooks`] and [`Dialect::Xoxoday`]: a string.
    pub fn expires_in(self, printed: Printed) -> Self {
        self.set(|it| it.expires_in = printed)
    }

    /// How the `access_token_expiry` and `refresh_token_expiry` of [`Dialect::Xoxoday`], in milliseconds since the
    /// epoch, stand in answers. Default: numbers.
    pub fn expiry(self, printed: Printed) -> Self {
        self.set(|it| it.expiry = printed)
    }

    /// The clock by which tokens expire. Default: one that began with the system's time and follows Tokio's since, so
    /// that paused time needs no more.
    pub fn clock(self, clock: SimulatedClock) -> Self {
        self.set(|it| it.clock = clock)
    }

    /// By how many seconds the server's clock is ahead of it, or behind if negative: seen in `Date` and in absolute
    /// times. Default: 0.
    pub fn skew(self, seconds: i64) -> Self {
        self.set(|it| it.skew = seconds)
    }

    /// Whether answers have a `Date`. Default: yes.
    pub fn date(self, date: bool) -> Self {
        self.set(|it| it.date = date)
    }
}
