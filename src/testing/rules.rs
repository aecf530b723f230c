//! [`Rules`]: the lifetimes, rotation and limits of tokens, and the results of a token request.

use std::time::{Duration, SystemTime};

/// The lifetimes, rotation and limits of tokens.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a rule of its own, and servers combine them freely"
)]
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) access_lifetime: Duration,
    pub(super) refresh_lifetime: Option<Duration>,
    pub(super) give_refresh_token: bool,
    pub(super) rotate: bool,
    pub(super) grace: Duration,
    pub(super) detect_reuse: bool,
    pub(super) exchange_once: bool,
    pub(super) one_access_token: bool,
    /// Issues the last access token again. This is a fault, not a setting.
    pub(super) repeat_access: bool,
    pub(super) limit: Option<Limit>,
}

/// The number of refreshes that one session may do within `per`.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) refreshes: usize,
    pub(super) per: Duration,
    pub(super) penalty: Option<Duration>,
}

/// Why a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    Unknown,
    Expired,
    /// Used up or replaced. The session goes on.
    Spent,
    /// Used after it was replaced. The whole session has ended.
    Reused,
    Revoked,
    /// The subject or actor token of a token exchange is not valid.
    Subject,
    /// Valid, but used too often.
    Limited,
}

/// The tokens that were issued.
#[derive(Clone, Debug, Default)]
pub(super) struct Issued {
    pub(super) access: String,
    pub(super) access_expires: Option<SystemTime>,
    pub(super) lifetime: Duration,
    pub(super) refresh: Option<String>,
    pub(super) refresh_expires: Option<SystemTime>,
    /// The granted scope, if the response names it.
    pub(super) scope: Option<String>,
    /// The type of the token that a token exchange has issued.
    pub(super) exchanged_type: Option<String>,
}

/// The type of an access token (RFC 8693 §3).
pub(super) const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
