//! The settings of an [`AuthorizationServer`].

#[cfg(feature = "jwt")]
use std::collections::HashMap;
use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, SystemTime},
};

#[cfg(feature = "jwt")]
use super::assertion::VerifyingKey;
use super::{
    authentication::Credential,
    clock::SimulatedClock,
    device::DeviceSettings,
    dialect::Dialect,
    metadata::MetadataSettings,
    rules::{Limit, Rules},
    server::AuthorizationServer,
};

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) dialect: Dialect,
    pub(super) prefix: String,
    pub(super) client_id: String,
    pub(super) credential: Credential,
    /// The client assertions that are accepted whatever they contain.
    pub(super) client_assertions: HashSet<String>,
    /// The keys of those who sign assertions about others.
    #[cfg(feature = "jwt")]
    pub(super) assertion_issuers: HashMap<String, VerifyingKey>,
    /// The name and the password of the user.
    pub(super) user: Option<(String, String)>,
    pub(super) email: String,
    pub(super) raw_basic: bool,
    pub(super) expires_in: NumberFormat,
    pub(super) expiry: NumberFormat,
    pub(super) clock: SimulatedClock,
    pub(super) skew: i64,
    pub(super) date: bool,
    pub(super) rules: Rules,
    /// The scopes that are granted. `None`: all.
    pub(super) scopes: Option<BTreeSet<String>>,
    pub(super) metadata: MetadataSettings,
    pub(super) device: DeviceSettings,
}

/// How the server writes a number in its JSON responses.
///
/// # Examples
///
/// ```
/// use tower_bearer::testing::{AuthorizationServer, Dialect, NumberFormat};
///
/// // Several vendors write `expires_in` as a string.
/// let server = AuthorizationServer::new(Dialect::Rfc6749).expires_in_format(NumberFormat::String);
/// # drop(server);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NumberFormat {
    /// As a JSON number: `900`.
    Number,
    /// As a JSON string: `"900"`.
    String,
    /// The field is left out.
    Omitted,
}

impl Settings {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            prefix: String::new(),
            client_id: AuthorizationServer::CLIENT_ID.to_owned(),
            credential: Credential::Secret(AuthorizationServer::CLIENT_SECRET.to_owned()),
            client_assertions: HashSet::new(),
            #[cfg(feature = "jwt")]
            assertion_issuers: HashMap::new(),
            user: None,
            email: AuthorizationServer::EMAIL.to_owned(),
            raw_basic: false,
            expires_in: dialect.expires_in_format(),
            expiry: NumberFormat::Number,
            // Follows Tokio's time, paused or not.
            clock: SimulatedClock::new(SystemTime::now()),
            skew: 0,
            date: true,
            rules: dialect.rules(),
            scopes: None,
            metadata: MetadataSettings::default(),
            device: DeviceSettings::default(),
        }
    }

    /// The time by the server's clock.
    pub(super) fn now(&self) -> SystemTime {
        let wall = self.clock.now();
        let skew = Duration::from_secs(self.skew.unsigned_abs());
        let skewed = if self.skew < 0 {
            wall.checked_sub(skew)
        } else {
            wall.checked_add(skew)
        };
        skewed.unwrap_or(wall)
    }
}

/// Settings. They take effect at once and for every clone, so a test can change them at any time.
impl AuthorizationServer {
    /// A path before that of the token endpoint, such as `/wow/v2`. Default: none.
    pub fn path_prefix(self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        self.set(|it| prefix.trim_end_matches('/').clone_into(&mut it.prefix))
    }

    /// The client id and secret that clients must send. Default: [`CLIENT_ID`](Self::CLIENT_ID) and
    /// [`CLIENT_SECRET`](Self::CLIENT_SECRET).
    ///
    /// Call it again to rotate the secret at the server. With the feature `jwt`, the client may also sign assertions
    /// with a secret of at least 32 bytes (`client_secret_jwt`).
    pub fn client(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        let (id, secret) = (id.into(), secret.into());
        self.set(|it| (it.client_id, it.credential) = (id, Credential::Secret(secret)))
    }

    /// Expects a public client, with an id and no secret.
    pub fn public_client(self, id: impl Into<String>) -> Self {
        self.set(|it| (it.client_id, it.credential) = (id.into(), Credential::None))
    }

    /// Accepts the legacy password grant (RFC 6749 §4.3) with this user name and password, in [`Dialect::Rfc6749`] and
    /// [`Dialect::TwoBa`]. Default: the grant is not supported.
    ///
    /// [`Dialect::TwoBa`] gives a refresh token only if the scope has `offline_access`.
    pub fn user(self, name: impl Into<String>, password: impl Into<String>) -> Self {
        let user = (name.into(), password.into());
        self.set(|it| it.user = Some(user))
    }

    /// The e-mail address that identifies the client in [`Dialect::Winbooks`]. Default: [`EMAIL`](Self::EMAIL).
    pub fn email(self, email: impl Into<String>) -> Self {
        self.set(|it| it.email = email.into())
    }

    /// Whether Basic credentials must be sent without the form encoding of RFC 6749 §2.3.1. Default: no.
    pub fn raw_basic(self, raw: bool) -> Self {
        self.set(|it| it.raw_basic = raw)
    }

    /// The lifetime of access tokens. Default: 900 s; [`Dialect::Xoxoday`]: 15 days.
    pub fn access_lifetime(self, lifetime: Duration) -> Self {
        self.set(|it| it.rules.access_lifetime = lifetime)
    }

    /// The lifetime of each refresh token, counted from when it was issued. Default: unlimited; [`Dialect::Xoxoday`]:
    /// 30 days.
    pub fn refresh_lifetime(self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.set(|it| it.rules.refresh_lifetime = lifetime.into())
    }

    /// Whether responses contain a refresh token. If not, nothing rotates. Default: yes.
    pub fn give_refresh_token(self, give: bool) -> Self {
        self.set(|it| it.rules.give_refresh_token = give)
    }

    /// Whether a refresh replaces the refresh token. If not, the response repeats it. Default: yes;
    /// [`Dialect::Winbooks`]: no.
    pub fn rotate(self, rotate: bool) -> Self {
        self.set(|it| it.rules.rotate = rotate)
    }

    /// How long a refresh token stays valid after it was replaced. Default: zero.
    pub fn grace(self, grace: Duration) -> Self {
        self.set(|it| it.rules.grace = grace)
    }

    /// Whether the use of a replaced refresh token after its [`grace`](Self::grace) ends the whole session: every
    /// refresh and access token that came from the same login. Default: yes for [`Dialect::Rfc6749`], no for the
    /// others.
    pub fn detect_reuse(self, detect: bool) -> Self {
        self.set(|it| it.rules.detect_reuse = detect)
    }

    /// Whether an exchange token can be used only once. Default: no.
    pub fn exchange_once(self, once: bool) -> Self {
        self.set(|it| it.rules.exchange_once = once)
    }

    /// Whether a refresh revokes the older access tokens of its session. Default: yes for [`Dialect::Xoxoday`], no for
    /// the others.
    pub fn one_access_token(self, one: bool) -> Self {
        self.set(|it| it.rules.one_access_token = one)
    }

    /// The number of refreshes that one session may do within `per`. More are rejected, and revoke the session's access
    /// tokens. Default: no limit.
    ///
    /// [`Dialect::Xoxoday`] answers in the two forms that its vendor documents: without a `penalty` in one that isn't
    /// JSON, with a `penalty` in JSON. Other dialects answer 429 with `Retry-After`. The `penalty` is only announced: a
    /// refresh succeeds again as soon as the older ones are longer ago than `per`.
    pub fn refresh_limit(
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

    /// How `expires_in` is written in responses. Default: a number; [`Dialect::Winbooks`] and [`Dialect::Xoxoday`]: a
    /// string.
    pub fn expires_in_format(self, format: NumberFormat) -> Self {
        self.set(|it| it.expires_in = format)
    }

    /// How [`Dialect::Xoxoday`] writes `access_token_expiry` and `refresh_token_expiry` in responses, which are in
    /// milliseconds since the epoch. Default: numbers.
    pub fn expiry_format(self, format: NumberFormat) -> Self {
        self.set(|it| it.expiry = format)
    }

    /// The clock by which tokens expire. Default: one that began with the system's time and follows Tokio's since, so
    /// that paused time needs no more.
    pub fn clock(self, clock: SimulatedClock) -> Self {
        self.set(|it| it.clock = clock)
    }

    /// How many seconds the server's clock is ahead of its [`clock`](Self::clock), or behind it if negative. This shows
    /// in `Date` and in absolute times. Default: 0.
    pub fn skew(self, seconds: i64) -> Self {
        self.set(|it| it.skew = seconds)
    }

    /// Whether responses have a `Date` header. Default: yes.
    pub fn date(self, date: bool) -> Self {
        self.set(|it| it.date = date)
    }
}
