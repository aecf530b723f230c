//! When a token expires.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::clock::{MAX_DURATION, Now};

/// When a token expires, as far as its source knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// The token is used until it is rejected.
    Unknown,
    /// A lifetime that counts from when the source was called.
    In(Duration),
    /// A wall-clock time.
    At(SystemTime),
    /// A lifetime that counts from before the source sent its request.
    Counted { from: Now, lifetime: Duration },
    /// A wall-clock time that another process has stored, with the lifetime that the token had then.
    Stored {
        at: SystemTime,
        lifetime: Option<Duration>,
    },
}

/// When a token expires on both clocks, and its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expires {
    pub(crate) mono: Instant,
    pub(crate) wall: SystemTime,
    pub(crate) lifetime: Duration,
}

impl Expiry {
    /// The time on both clocks, if the source was called at `asked` and returned at `now`.
    pub(crate) fn resolve(self, asked: Now, now: Now) -> Option<Expires> {
        match self {
            Self::Unknown => None,
            Self::In(lifetime) => Some(Expires::after(asked, lifetime)),
            Self::Counted { from, lifetime } => Some(Expires::after(from, lifetime)),
            Self::At(at) => Some(Expires::at(at, None, now)),
            Self::Stored { at, lifetime } => Some(Expires::at(at, lifetime, now)),
        }
    }
}

impl Expires {
    fn after(from: Now, lifetime: Duration) -> Self {
        let lifetime = lifetime.min(MAX_DURATION);
        Self {
            mono: from.mono + lifetime,
            wall: from.wall + lifetime,
            lifetime,
        }
    }

    /// The lifetime is the time that is left, unless another one is known. Then no more than that is left, whatever the
    /// clock said when the end was stored.
    fn at(at: SystemTime, lifetime: Option<Duration>, now: Now) -> Self {
        let until_end = at.duration_since(now.wall).unwrap_or_default();
        let lifetime = lifetime.unwrap_or(until_end).min(MAX_DURATION);
        let left = until_end.min(lifetime);
        Self {
            mono: now.mono + left,
            wall: if left < until_end {
                now.wall + left
            } else {
                at
            },
            lifetime,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }
    }

    #[test]
    fn a_lifetime_counts_from_when_the_source_was_called() {
        let asked = now();
        let later = Now {
            mono: asked.mono + Duration::from_secs(7),
            wall: asked.wall + Duration::from_secs(7),
        };
        let token = Token::new("a").unwrap().expires_in(Duration::from_secs(60));
        let expires = token.expires(asked, later).unwrap();
        assert_eq!(expires.mono, asked.mono + Duration::from_secs(60));
        assert_eq!(expires.wall, asked.wall + Duration::from_secs(60));
        assert_eq!(expires.lifetime, Duration::from_secs(60));
    }

    #[test]
    fn a_time_in_the_past_means_that_the_token_expires_now() {
        let now = now();
        let token = Token::new("a").unwrap().expires_at(SystemTime::UNIX_EPOCH);
        let expires = token.expires(now, now).unwrap();
        assert_eq!(expires.mono, now.mono);
        assert_eq!(expires.lifetime, Duration::ZERO);
    }

    #[test]
    fn huge_lifetimes_are_limited_and_do_not_overflow() {
        let now = now();
        let token = Token::new("a").unwrap().expires_in(Duration::MAX);
        assert_eq!(token.expires(now, now).unwrap().lifetime, MAX_DURATION);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX as u64 / 2);
        let token = Token::new("a").unwrap().expires_at(far);
        assert_eq!(token.expires(now, now).unwrap().lifetime, MAX_DURATION);
    }

    #[test]
    fn a_stored_end_is_not_trusted_beyond_the_stored_lifetime() {
        let now = now();
        let year = Duration::from_secs(365 * 86_400);
        let lifetime = Duration::from_secs(900);
        for (ahead, expected) in [
            (year, lifetime),
            (Duration::MAX / 4 / 1_000_000_000, lifetime),
            (lifetime, lifetime),
            (Duration::from_secs(30), Duration::from_secs(30)),
        ] {
            let token = Token::new("a").unwrap().expiry(Expiry::Stored {
                at: now.wall + ahead,
                lifetime: Some(lifetime),
            });
            let expires = token.expires(now, now).unwrap();
            assert_eq!(expires.mono, now.mono + expected, "{ahead:?}");
            assert_eq!(expires.wall, now.wall + expected, "{ahead:?}");
            assert_eq!(expires.lifetime, lifetime, "{ahead:?}");
        }
    }

    #[test]
    fn a_token_of_unknown_lifetime_does_not_expire() {
        let now = now();
        assert_eq!(Token::new("a").unwrap().expires(now, now), None);
    }
}
