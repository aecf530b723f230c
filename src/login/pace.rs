//! [`Pace`]: how often a server is asked whether a person has logged in (RFC 8628 §3.5), and [`Answer`]: what it says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Asked, TokenError, TokenErrorKind};

/// RFC 8628 §3.2: if the server names none.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// The server may name 0.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// A longer one is taken for a mistake, such as milliseconds: no login would be noticed. `slow_down` still lengthens it.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// More than `slow_down` makes of it while a code lives.
const LONGEST_POSSIBLE: Duration = Duration::from_secs(3600);
/// RFC 8628 §3.5.
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest wait after failures, unless the interval or the server's `Retry-After` is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// What the server says of a device code that it issues no token for.
pub(super) enum Answer {
    /// Nobody has decided yet.
    Pending,
    /// The same, and it was asked too often.
    SlowDown,
    /// It says nothing of the code: the network, a gateway, or a server that has a problem.
    Failed,
    Denied,
    Expired,
    /// The server knows no such code, or not any more.
    Unknown,
    /// Asking again cannot help.
    Rejected,
}

impl Answer {
    pub(super) fn of(error: &TokenError) -> Self {
        match (error.oauth_code(), error.kind()) {
            (Some("authorization_pending"), _) => Self::Pending,
            (Some("slow_down"), _) => Self::SlowDown,
            (_, kind) if is_passing(kind) => Self::Failed,
            // The second of each is Microsoft's.
            (Some("access_denied" | "authorization_declined"), _) => Self::Denied,
            (Some("expired_token" | "code_expired"), _) => Self::Expired,
            (_, TokenErrorKind::ReauthRequired) => Self::Unknown,
            _ => Self::Rejected,
        }
    }
}

fn is_passing(kind: TokenErrorKind) -> bool {
    TokenError::new(kind, "").is_transient()
}

/// How often a server is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pace {
    interval: Duration,
    /// In a row.
    #[serde(skip)]
    failures: u32,
}

impl Pace {
    /// The pace that a server asks for.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        let interval = interval.unwrap_or(DEFAULT_INTERVAL);
        Self {
            interval: interval.clamp(MIN_INTERVAL, MAX_INTERVAL),
            failures: 0,
        }
    }

    /// Whether a server can have led to it. A stored one may be damaged.
    pub(super) fn is_possible(&self) -> bool {
        (MIN_INTERVAL..=LONGEST_POSSIBLE).contains(&self.interval)
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// How long to wait after `answer`. `retry_after` is what the server asks for.
    pub(super) fn after(&mut self, answer: &Answer, retry_after: Option<Duration>) -> Duration {
        match answer {
            Answer::Failed => self.failures += 1,
            Answer::SlowDown => {
                self.failures = 0;
                self.interval += SLOW_DOWN;
            }
            _ => self.failures = 0,
        }
        // RFC 8628 §3.5 recommends to double it. Logins begin when people want, so nothing random is needed to spread them.
        let doubled = 2_u32.saturating_pow(self.failures);
        let wait = self.interval.saturating_mul(doubled);
        let longest = MAX_BACKOFF.max(self.interval);
        wait.min(longest).max(retry_after.unwrap_or_default())
    }
}

/// The code has expired. `failure` is why asking has failed last, if it has.
pub(super) fn expired(failure: Option<TokenError>) -> TokenError {
    let message = "nobody has logged in before the device code expired; begin another login";
    let error = TokenError::new(TokenErrorKind::Timeout, message).asking(Asked::Authorization);
    match failure {
        Some(failure) => error.with_source(failure),
        None => error,
    }
}

/// The error of a login that ends with `answer`, which the server gave as `error`. `failure` is why asking has failed last, if
/// it has.
pub(super) fn ended(answer: &Answer, error: TokenError, failure: Option<TokenError>) -> TokenError {
    let new = |message| TokenError::new(TokenErrorKind::ReauthRequired, message);
    let ended = match answer {
        Answer::Denied => TokenError::new(
            TokenErrorKind::LoginDenied,
            "the person or the server has denied the access; begin another login only if the person wants that",
        ),
        Answer::Expired => expired(None),
        Answer::Unknown if failure.is_some() => new(
            "the server no longer accepts the device code, and an earlier answer was lost, perhaps the one with the tokens, \
             which comes once; begin another login",
        ),
        Answer::Unknown => new(
            "the server does not accept the device code: it was used or revoked, or is another client's; begin another login",
        ),
        _ => return error,
    };
    let ended = error
        .status()
        .into_iter()
        .fold(ended, TokenError::with_status);
    let ended = match error.oauth_code() {
        Some(code) => ended.with_oauth_code(code),
        None => ended,
    };
    match failure {
        Some(failure) => ended.with_source(failure),
        None => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_server_is_limited() {
        for (named, expected) in [
            (None, 5),
            (Some(0), 1),
            (Some(1), 1),
            (Some(5), 5),
            (Some(60), 60),
            (Some(5000), 60),
        ] {
            let pace = Pace::new(named.map(Duration::from_secs));
            assert_eq!(pace.interval(), Duration::from_secs(expected), "{named:?}");
        }
    }

    #[test]
    fn waits_double_with_failures_and_grow_for_good_with_slow_down() {
        let mut pace = Pace::new(None);
        let mut seconds = |answer: &Answer, retry_after: Option<u64>| {
            let wait = pace.after(answer, retry_after.map(Duration::from_secs));
            wait.as_secs()
        };
        let failed: Vec<_> = (0..6).map(|_| seconds(&Answer::Failed, None)).collect();
        assert_eq!(failed, [10, 20, 40, 60, 60, 60]);
        assert_eq!(seconds(&Answer::Pending, None), 5);
        assert_eq!(seconds(&Answer::Pending, Some(7)), 7);
        assert_eq!(seconds(&Answer::Failed, Some(100)), 100);
        assert_eq!(seconds(&Answer::Failed, Some(1)), 20);
        assert_eq!(seconds(&Answer::SlowDown, None), 10);
        assert_eq!(seconds(&Answer::SlowDown, None), 15);
        assert_eq!(seconds(&Answer::Pending, None), 15);
        for _ in 0..20 {
            seconds(&Answer::SlowDown, None);
        }
        assert_eq!(
            seconds(&Answer::Failed, None),
            115,
            "no shorter than the interval"
        );
        for _ in 0..100 {
            seconds(&Answer::Failed, None);
        }
        assert_eq!(seconds(&Answer::Pending, None), 115);
    }
}
