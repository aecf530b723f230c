//! [`CacheStatus`]: the state of a session, for health checks, metrics and logs.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{current_token::CurrentToken, state::State};
use crate::{clock::Now, error::TokenError, freshness::Freshness, token::Warning};

/// The state of a session, for health checks, metrics and logs. From [`TokenCache::status`](crate::TokenCache::status).
///
/// It holds no secret. With serde it becomes a JSON object like this, with times in seconds since 1970:
///
/// ```json
/// {
///   "state": "fresh", "expires_at": 1767225600, "due_at": 1767225300, "refreshed_at": 1767224700,
///   "refreshing": false, "held_until": null, "last_error": null, "issued": 1, "failed": 0, "rejected": 0
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CacheStatus {
    /// The state of the current token.
    pub state: TokenState,
    /// When the current token ends, if that is known.
    pub expires_at: Option<SystemTime>,
    /// When the next refresh is due, if that is known. A refresh starts then with the next request, or by itself if the
    /// schedule [refreshes in the background](crate::Schedule::background_refresh).
    pub due_at: Option<SystemTime>,
    /// When the current token came.
    pub refreshed_at: Option<SystemTime>,
    /// Whether a refresh runs.
    pub refreshing: bool,
    /// Until when refreshes are held back. The reason is [`last_error`](CacheStatus::last_error), or `min_interval` if there is
    /// none. `None` if a refresh may start, or if only a change of the source ends the pause.
    pub held_until: Option<SystemTime>,
    /// The last failure, until a token comes. A token can come with a warning, for example if its session could not be
    /// saved: then the warning is here until it is.
    pub last_error: Option<TokenError>,
    /// How many tokens came.
    pub issued: u64,
    /// How many refreshes failed.
    pub failed: u64,
    /// How many tokens the API rejected while they were current.
    pub rejected: u64,
    /// The later of two statuses has the larger number.
    pub(super) number: u64,
}

/// The state of the current token of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// There has been no token yet.
    #[default]
    Empty,
    /// The token is used.
    Fresh,
    /// The token is used, and a refresh is due.
    Due,
    /// The token is no longer used: requests wait for a new one.
    Expired,
    /// The API rejected the token.
    Rejected,
}

impl TokenState {
    /// The name of the state in lower case, for labels and logs: `empty`, `fresh`, `due`, `expired`, `rejected`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }
}

impl CacheStatus {
    pub(super) fn of(state: &State, now: Now, min_interval: Duration) -> Self {
        let issued = state.token.issued();
        let counts = &state.counts;
        let warning = state.warning.as_ref().and_then(Warning::error);
        let last_error = state.throttle.error().or(warning);
        let due = issued.and_then(|issued| issued.deadlines.due.or(issued.deadlines.unusable));
        let is_rejected = state.token.is_rejected();
        let held = state.throttle.held_for(now.mono, min_interval, is_rejected);
        Self {
            state: TokenState::of(&state.token, now),
            expires_at: issued.and_then(|issued| issued.expires_at),
            due_at: due.map(|due| due.wall),
            refreshed_at: state.refreshed_at,
            refreshing: state.is_refreshing(),
            held_until: held.map(|held| now.later(held).wall),
            last_error: last_error.cloned(),
            issued: counts.issued,
            failed: counts.failed,
            rejected: counts.rejected,
            number: counts.notified,
        }
    }
}

impl TokenState {
    fn of(token: &CurrentToken, now: Now) -> Self {
        match token {
            CurrentToken::None => Self::Empty,
            CurrentToken::BeingReplaced(_) => Self::Rejected,
            CurrentToken::InUse(issued) if issued.is_rejected() => Self::Rejected,
            CurrentToken::InUse(issued) => match issued.deadlines.freshness(now) {
                Freshness::Fresh => Self::Fresh,
                Freshness::Due => Self::Due,
                Freshness::Expired => Self::Expired,
            },
        }
    }
}

impl fmt::Display for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for TokenState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for CacheStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = |at: Option<SystemTime>| {
            let since = at?.duration_since(SystemTime::UNIX_EPOCH).ok();
            Some(since.as_ref().map_or(0, Duration::as_secs))
        };
        let mut fields = serializer.serialize_struct("CacheStatus", 10)?;
        fields.serialize_field("state", &self.state)?;
        fields.serialize_field("expires_at", &seconds(self.expires_at))?;
        fields.serialize_field("due_at", &seconds(self.due_at))?;
        fields.serialize_field("refreshed_at", &seconds(self.refreshed_at))?;
        fields.serialize_field("refreshing", &self.refreshing)?;
        fields.serialize_field("held_until", &seconds(self.held_until))?;
        fields.serialize_field(
            "last_error",
            &self.last_error.as_ref().map(ToString::to_string),
        )?;
        fields.serialize_field("issued", &self.issued)?;
        fields.serialize_field("failed", &self.failed)?;
        fields.serialize_field("rejected", &self.rejected)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TokenErrorKind;

    #[test]
    fn the_status_serializes_as_documented() {
        let mut status = CacheStatus {
            state: TokenState::Fresh,
            expires_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)),
            issued: 1,
            ..CacheStatus::default()
        };
        let json = serde_json::to_value(&status).unwrap();
        let expected = serde_json::json!({
            "state": "fresh", "expires_at": 1_767_225_600, "due_at": null, "refreshed_at": null, "refreshing": false,
            "held_until": null, "last_error": null, "issued": 1, "failed": 0, "rejected": 0,
        });
        assert_eq!(json, expected);

        let error = TokenError::new(TokenErrorKind::Server, "down");
        status.last_error = Some(error.clone());
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["last_error"], error.to_string());
    }
}
