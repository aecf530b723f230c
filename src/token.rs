//! [`Token`]: an access token, ready to be sent.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use tokio::time::Instant;

use crate::{
    clock::{AGES, Now},
    error::{TokenError, TokenErrorKind},
    zeroize::zeroized,
};

const PREFIX: &str = "Bearer ";

/// An access token, ready to be sent: its header value is built once, and marked sensitive.
///
/// Cheap to clone. `Debug` shows no secret; the bytes are zeroised when the last clone of the token and of its header
/// value is gone.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::Token;
///
/// let token = Token::new("2YotnFZFEjr1zCsicMWpAA")?.expires_in(Duration::from_secs(900));
///
/// assert_eq!(token.header(), "Bearer 2YotnFZFEjr1zCsicMWpAA");
/// assert!(token.header().is_sensitive());
/// assert!(!format!("{token:?}").contains("2YotnFZFEjr1zCsicMWpAA"));
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone)]
pub struct Token {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    header: HeaderValue,
    expiry: Expiry,
    scope: Option<Box<str>>,
    warning: Option<TokenError>,
}

/// When a token ends, as far as its source knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Used until rejected.
    Unknown,
    /// Counted from when the source was asked.
    In(Duration),
    /// At a wall-clock time, of which the source knows no more.
    At(SystemTime),
    /// Counted by the source itself, from before it sent its request.
    Counted { from: Now, lifetime: Duration },
    /// As another process counted it: its end by the wall clock, and how long it was to live.
    Stored {
        at: SystemTime,
        lifetime: Option<Duration>,
    },
}

/// The end of a token by both clocks, and how long it lives in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expires {
    pub(crate) mono: Instant,
    pub(crate) wall: SystemTime,
    pub(crate) lifetime: Duration,
}

impl Token {
    /// A token that lives until it is rejected, unless [`expires_in`](Token::expires_in) or
    /// [`expires_at`](Token::expires_at) say more.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`](TokenErrorKind::InvalidToken) if `secret` is empty or holds what RFC 6750 §2.1 keeps out of a
    /// header: spaces, control characters, anything that isn't visible ASCII.
    pub fn new(secret: impl AsRef<str>) -> Result<Self, TokenError> {
        let secret = secret.as_ref();
        if secret.is_empty() {
            return Err(TokenError::new(
                TokenErrorKind::InvalidToken,
                "the access token is empty",
            ));
        }
        if let Some(at) = secret.bytes().position(|b| !b.is_ascii_graphic()) {
            return Err(TokenError::new(
                TokenErrorKind::InvalidToken,
                format!(
                    "the access token of {} bytes has one at offset {at} that no header may carry; \
                     was it cut, quoted or read with its line break?",
                    secret.len()
                ),
            ));
        }
        let mut value = Vec::with_capacity(PREFIX.len() + secret.len());
        value.extend_from_slice(PREFIX.as_bytes());
        value.extend_from_slice(secret.as_bytes());
        let mut header = HeaderValue::from_maybe_shared(zeroized(value)).map_err(|error| {
            TokenError::new(TokenErrorKind::InvalidToken, "no header value").with_source(error)
        })?;
        header.set_sensitive(true);
        Ok(Self {
            inner: Arc::new(Inner {
                header,
                expiry: Expiry::Unknown,
                scope: None,
                warning: None,
            }),
        })
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// The token ends this long after its source was asked for it. Zero is an end, not "for ever".
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        self.expiry(Expiry::In(lifetime))
    }

    /// The token ends at this time of the wall clock.
    #[must_use]
    pub fn expires_at(self, end: SystemTime) -> Self {
        self.expiry(Expiry::At(end))
    }

    /// The scope that was granted (RFC 6749 §3.3), as the server wrote it.
    #[must_use]
    pub fn with_scope(self, scope: impl Into<Box<str>>) -> Self {
        self.edit(|inner| inner.scope = Some(scope.into()))
    }

    pub(crate) fn expiry(self, expiry: Expiry) -> Self {
        self.edit(|inner| inner.expiry = expiry)
    }

    /// Something went wrong beside the token, and must be told without withholding it.
    pub(crate) fn with_warning(self, warning: TokenError) -> Self {
        self.edit(|inner| inner.warning = Some(warning))
    }

    pub(crate) fn warning(&self) -> Option<&TokenError> {
        self.inner.warning.as_ref()
    }

    /// The value of the `Authorization` header, `Bearer` and the token (RFC 6750 §2.1), marked sensitive.
    ///
    /// Cloning it costs a reference count.
    #[inline]
    pub fn header(&self) -> &HeaderValue {
        &self.inner.header
    }

    /// The token itself. Whoever reads it must keep it out of logs, errors and `Debug`.
    pub fn expose_secret(&self) -> &str {
        // What was put in is ASCII, checked by `new`.
        std::str::from_utf8(&self.inner.header.as_bytes()[PREFIX.len()..]).unwrap_or_default()
    }

    /// The scope that was granted, if the server told (RFC 6749 §5.1).
    pub fn scope(&self) -> Option<&str> {
        self.inner.scope.as_deref()
    }

    /// Whether `other` is the same secret.
    #[inline]
    pub(crate) fn same_secret(&self, other: &Token) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.inner.header == other.inner.header
    }

    /// When the token ends by both clocks, if its source was asked at `asked`, and tells at `now`.
    pub(crate) fn expires(&self, asked: Now, now: Now) -> Option<Expires> {
        let count = |from: Now, lifetime: Duration| {
            let lifetime = lifetime.min(AGES);
            Expires {
                mono: from.mono + lifetime,
                wall: from.wall + lifetime,
                lifetime,
            }
        };
        let until = |at: SystemTime, lifetime: Option<Duration>| {
            let left = at.duration_since(now.wall).unwrap_or_default();
            let left = left.min(AGES);
            Expires {
                mono: now.mono + left,
                wall: at,
                lifetime: lifetime.unwrap_or(left).clamp(left, AGES),
            }
        };
        match self.inner.expiry {
            Expiry::Unknown => None,
            Expiry::In(lifetime) => Some(count(asked, lifetime)),
            Expiry::Counted { from, lifetime } => Some(count(from, lifetime)),
            Expiry::At(at) => Some(until(at, None)),
            Expiry::Stored { at, lifetime } => Some(until(at, lifetime)),
        }
    }
}

impl fmt::Debug for Token {
    /// Tells when the token ends and what it is for, never the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expiry", &self.inner.expiry)
            .field("scope", &self.inner.scope)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }
    }

    #[test]
    fn what_no_header_may_carry_is_no_token() {
        for bad in [
            "",
            " ",
            "a b",
            "a\n",
            "a\r\nX-Evil: 1",
            "tab\t",
            "nul\0",
            "ümlaut",
            "del\u{7f}",
        ] {
            let error = Token::new(bad).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::InvalidToken, "{bad:?}");
            assert!(bad.len() < 3 || !error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn the_header_is_sensitive_and_so_are_its_clones() {
        let token = Token::new("abc+/=.~_-").unwrap();
        assert_eq!(token.header(), "Bearer abc+/=.~_-");
        assert!(token.header().clone().is_sensitive());
        assert_eq!(token.expose_secret(), "abc+/=.~_-");
        assert_eq!(format!("{:?}", token.header()), "Sensitive");
    }

    #[test]
    fn debug_holds_no_secret() {
        let token = Token::new("s3cr3t-value").unwrap().with_scope("read");
        let shown = format!("{token:?} {token:#?}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert!(shown.contains("read"));
    }

    #[test]
    fn relative_lifetimes_count_from_before_the_source_was_asked() {
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
    fn an_end_in_the_past_is_an_end_now() {
        let now = now();
        let token = Token::new("a").unwrap().expires_at(SystemTime::UNIX_EPOCH);
        let expires = token.expires(now, now).unwrap();
        assert_eq!(expires.mono, now.mono);
        assert_eq!(expires.lifetime, Duration::ZERO);
    }

    #[test]
    fn huge_lifetimes_are_clamped_not_overflowed() {
        let now = now();
        let token = Token::new("a").unwrap().expires_in(Duration::MAX);
        assert_eq!(token.expires(now, now).unwrap().lifetime, AGES);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX as u64 / 2);
        let token = Token::new("a").unwrap().expires_at(far);
        assert_eq!(token.expires(now, now).unwrap().lifetime, AGES);
    }

    #[test]
    fn an_unknown_end_is_no_end() {
        let now = now();
        assert_eq!(Token::new("a").unwrap().expires(now, now), None);
    }

    #[test]
    fn editing_a_clone_leaves_the_original() {
        let original = Token::new("a").unwrap();
        let edited = original.clone().with_scope("x");
        assert_eq!(original.scope(), None);
        assert_eq!(edited.scope(), Some("x"));
        assert!(original.same_secret(&edited));
    }
}
