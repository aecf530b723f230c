//! [`TokenError`]: why there is no token.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;
use tower::BoxError;

/// Why there is no token.
///
/// One failed refresh answers everybody who waited for it, so the error is cheap to clone. It never holds a secret, nor
/// the text of a foreign answer: only its status, content type, size, and the error code of RFC 6749 §5.2 where the
/// server gave one.
///
/// The services of this crate fail with [`tower::BoxError`], as everywhere in Tower; look for a `TokenError` in it by
/// `downcast_ref`.
///
/// # To others
///
/// Whoever hands the failure on says it in words of his own; [`is_transient`](TokenError::is_transient) is what it turns
/// on. To gRPC it is `UNAVAILABLE` if it is transient, else `UNAUTHENTICATED`; a gateway says 503 or 502, for the token
/// is no business of its callers. tonic makes `UNKNOWN` of what it doesn't know, so a stack of its wants a `map_err`: the
/// README has the six lines.
///
/// # Examples
///
/// ```
/// use tower_bearer::{TokenError, TokenErrorKind};
///
/// let error = TokenError::new(TokenErrorKind::RateLimited, "the quota of this hour is used up")
///     .with_retry_after(std::time::Duration::from_secs(90));
///
/// assert!(error.is_transient());
/// assert_eq!(error.retry_after(), Some(std::time::Duration::from_secs(90)));
/// assert_eq!(error.to_string(), "too many token requests: the quota of this hour is used up");
/// ```
#[derive(Clone)]
pub struct TokenError {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: TokenErrorKind,
    message: Cow<'static, str>,
    /// What came, as far as it can be told.
    answer: Option<Box<str>>,
    status: Option<StatusCode>,
    oauth_code: Option<Box<str>>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What kind of failure a [`TokenError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The token endpoint could not be reached, or the connection broke.
    Transport,
    /// The token endpoint, a store or a lease took longer than it was given.
    Timeout,
    /// The token endpoint answered with a server error.
    Server,
    /// The token endpoint asks to be called less often.
    RateLimited,
    /// The answer of the token endpoint could not be understood.
    InvalidResponse,
    /// The token endpoint does not accept the client's identification (`invalid_client`, RFC 6749 §5.2).
    InvalidClient,
    /// The token endpoint rejects the request for another reason that repeating it cannot mend.
    InvalidRequest,
    /// The refresh or exchange token is no longer good: a person must log in again or bring a new one.
    ReauthRequired,
    /// A token that no header may carry, or an empty one.
    InvalidToken,
    /// The API rejects tokens as soon as they are issued.
    Rejected,
    /// A rejected request was not sent again: its body or its method does not allow it, or the budget is used up.
    NotReplayed,
    /// The session could not be loaded from or saved to its store.
    Store,
    /// Another process saved the session while this one believed to hold the lease.
    LeaseLost,
    /// A token would have left over plain http.
    InsecureOrigin,
    /// The task that was getting the token ended before it was done: its runtime shut down, or the source panicked.
    Interrupted,
    /// The configuration cannot work: a malformed URL, a missing value, no Tokio runtime.
    Config,
    /// A [`TokenSource`](crate::TokenSource) of the user's own failed.
    Source,
}

impl TokenErrorKind {
    fn describe(self) -> &'static str {
        match self {
            Self::Transport => "the token endpoint was not reached",
            Self::Timeout => "no token in time",
            Self::Server => "the token endpoint failed",
            Self::RateLimited => "too many token requests",
            Self::InvalidResponse => "the token endpoint's answer was not understood",
            Self::InvalidClient => "the token endpoint does not know this client",
            Self::InvalidRequest => "the token endpoint rejected the request",
            Self::ReauthRequired => "a person must authorize again",
            Self::InvalidToken => "not a usable token",
            Self::Rejected => "the API rejects tokens as soon as they are issued",
            Self::NotReplayed => "the rejected request was not sent again",
            Self::Store => "the session store failed",
            Self::LeaseLost => "the session was saved by another process",
            Self::InsecureOrigin => "a token may not leave over an insecure connection",
            Self::Interrupted => "getting a token was interrupted",
            Self::Config => "not configured",
            Self::Source => "the token source failed",
        }
    }
}

impl fmt::Display for TokenErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

impl TokenError {
    /// An error of `kind`; `message` says what was tried, what came, and what to do.
    ///
    /// The message reaches logs: it must hold no secret and no text of a foreign answer.
    #[must_use]
    pub fn new(kind: TokenErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                answer: None,
                status: None,
                oauth_code: None,
                retry_after: None,
                source: None,
            }),
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// With the error that caused it, which [`Error::source`] then gives.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        self.edit(|inner| inner.source = Some(Arc::from(source.into())))
    }

    /// With the HTTP status of the answer.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        self.edit(|inner| inner.status = Some(status))
    }

    /// With the server's error code (RFC 6749 §5.2).
    ///
    /// A code is a short identifier; what has other characters than letters, digits, `_`, `-` and `.`, or more than 64
    /// of them, is foreign text and left out.
    #[must_use]
    pub fn with_oauth_code(self, code: &str) -> Self {
        let identifier = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if code.is_empty() || code.len() > 64 || !code.bytes().all(identifier) {
            return self;
        }
        self.edit(|inner| inner.oauth_code = Some(code.into()))
    }

    /// With the time the server asked to be left alone.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        self.edit(|inner| inner.retry_after = Some(retry_after))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> TokenErrorKind {
        self.inner.kind
    }

    /// Whether another attempt, later, may succeed without anyone changing anything.
    ///
    /// Transient failures are retried with backoff; others are remembered, and answered at once until something new
    /// comes.
    pub fn is_transient(&self) -> bool {
        match self.inner.kind {
            TokenErrorKind::Transport
            | TokenErrorKind::Timeout
            | TokenErrorKind::Server
            | TokenErrorKind::RateLimited
            | TokenErrorKind::InvalidResponse
            | TokenErrorKind::Rejected
            | TokenErrorKind::NotReplayed
            | TokenErrorKind::Store
            | TokenErrorKind::LeaseLost
            | TokenErrorKind::Interrupted
            | TokenErrorKind::Source => true,
            TokenErrorKind::InvalidClient
            | TokenErrorKind::InvalidRequest
            | TokenErrorKind::ReauthRequired
            | TokenErrorKind::InvalidToken
            | TokenErrorKind::InsecureOrigin
            | TokenErrorKind::Config => false,
        }
    }

    /// How long the server asked to be left alone, by `Retry-After` or in the vendor's own way.
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// The HTTP status of the answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.inner.status
    }

    /// The server's error code, if it gave one: `invalid_grant` and the like (RFC 6749 §5.2), or the vendor's own.
    pub fn oauth_code(&self) -> Option<&str> {
        self.inner.oauth_code.as_deref()
    }

    /// With what is to be told of the answer: where it came from, its content type and size.
    #[must_use]
    pub(crate) fn with_answer(self, answer: String) -> Self {
        self.edit(|inner| inner.answer = Some(answer.into()))
    }

    /// The same failure, with what to do about it in the words of one who knows the vendor.
    #[must_use]
    pub(crate) fn with_reauth_hint(self, reauth_hint: String) -> Self {
        self.edit(|inner| inner.message = reauth_hint.into())
    }

    /// The same failure, with more to be said about it.
    #[must_use]
    pub(crate) fn with_more(self, more: &str) -> Self {
        self.edit(|inner| inner.message = format!("{}; {more}", inner.message).into())
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            message,
            answer,
            ..
        } = &*self.inner;
        write!(f, "{kind}: {message}")?;
        let status = self
            .inner
            .status
            .map(|status| format!("HTTP {}", status.as_u16()));
        let told = [answer.as_deref(), status.as_deref(), self.oauth_code()];
        let mut before = " (";
        for told in told.into_iter().flatten() {
            write!(f, "{before}{told}")?;
            before = ", ";
        }
        f.write_str(if before == ", " { ")" } else { "" })
    }
}

impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("answer", &self.inner.answer)
            .field("status", &self.inner.status)
            .field("oauth_code", &self.inner.oauth_code)
            .field("retry_after", &self.inner.retry_after)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_tells_this_level_and_source_the_next() {
        let error = TokenError::new(
            TokenErrorKind::Transport,
            "POST to https://a.example failed",
        )
        .with_source(std::io::Error::other("connection reset"));
        assert_eq!(
            error.to_string(),
            "the token endpoint was not reached: POST to https://a.example failed"
        );
        assert_eq!(error.source().unwrap().to_string(), "connection reset");
    }

    #[test]
    fn status_and_code_stand_at_the_end() {
        let error = TokenError::new(TokenErrorKind::ReauthRequired, "log in again")
            .with_status(StatusCode::BAD_REQUEST)
            .with_oauth_code("invalid_grant");
        assert_eq!(
            error.to_string(),
            "a person must authorize again: log in again (HTTP 400, invalid_grant)"
        );
    }

    #[test]
    fn foreign_text_is_no_code() {
        for text in [
            "",
            "two words",
            "<html>",
            &"x".repeat(65),
            "quote\"",
            "new\nline",
        ] {
            let error = TokenError::new(TokenErrorKind::Server, "…").with_oauth_code(text);
            assert_eq!(error.oauth_code(), None, "{text:?}");
        }
    }

    #[test]
    fn editing_a_clone_leaves_the_original() {
        let original = TokenError::new(TokenErrorKind::Server, "down");
        let edited = original.clone().with_retry_after(Duration::from_secs(1));
        assert_eq!(original.retry_after(), None);
        assert_eq!(edited.retry_after(), Some(Duration::from_secs(1)));
    }
}
