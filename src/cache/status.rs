//! [`CacheStatus`]: what state a session is in.

use std::time::SystemTime;

use crate::error::TokenError;

/// What state a session is in; for health checks, metrics and logs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CacheStatus {
    /// How good the current token is.
    pub state: TokenState,
    /// When the current token ends, if that is known.
    pub expires_at: Option<SystemTime>,
    /// The last failure, until a token comes. A token that came with a warning, such as a session that could not be
    /// saved, leaves the warning here.
    pub last_error: Option<TokenError>,
    /// How many tokens came.
    pub issued: u64,
    /// How many attempts failed.
    pub failed: u64,
    /// How many tokens were rejected while they were current.
    pub rejected: u64,
    /// Counts what was told, so that the later of two stays.
    pub(super) told: u64,
}

/// How good the current token of a cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// There has been none yet.
    #[default]
    Empty,
    /// Usable, and not yet to be renewed.
    Fresh,
    /// Usable, and to be renewed.
    Due,
    /// No longer usable.
    Expired,
    /// Rejected by the API.
    Rejected,
}
