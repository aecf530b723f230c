//! How tokens live and die, and what comes of asking for one.

use std::time::{Duration, SystemTime};

/// How tokens live and die.
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
    /// The access token that was issued last is given again: a fault, not a setting.
    pub(super) repeat_access: bool,
    pub(super) limit: Option<Limit>,
}

/// So many refreshes of one session in so long a time.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) refreshes: usize,
    pub(super) per: Duration,
    pub(super) penalty: Option<Duration>,
}

/// Why a token isn't good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    Unknown,
    Expired,
    /// Used up or replaced, and nothing else is lost.
    Spent,
    /// Used after it was replaced: the whole session ended.
    Reused,
    Revoked,
    /// Nothing wrong with it, but it came too often.
    Limited,
}

/// What a grant gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Issued {
    pub(super) access: Option<String>,
    pub(super) access_expires: Option<SystemTime>,
    pub(super) lifetime: Duration,
    pub(super) refresh: Option<String>,
    pub(super) refresh_expires: Option<SystemTime>,
}
