//! [`TokenError`]: why there is no token.

mod asked;
mod internal;
mod kind;
mod recovery;

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use http::{Response, StatusCode};
use secrecy::zeroize::Zeroizing;
use tower::BoxError;

pub use self::kind::TokenErrorKind;
pub(crate) use self::{asked::Asked, recovery::Recovery};

/// Why there is no token.
///
/// Cloning is cheap, because all callers that wait for one refresh get its error. It never holds a secret or the text of a
/// server's response: of a response it holds the status, the content type, the size, and the error code (RFC 6749 §5.2) if
/// there is one.
///
/// The services of this crate fail with [`tower::BoxError`], like other Tower middleware. [`TokenError::of`] finds a
/// `TokenError` in what they return.
///
/// # In responses of your own
///
/// [`is_transient`](TokenError::is_transient) decides what to tell your callers. A gRPC server answers `UNAVAILABLE` if the
/// error is transient, and `UNAUTHENTICATED` if it is not. An HTTP gateway answers 503 or 502: its callers know nothing of
/// the token. tonic turns errors that it does not know into `UNKNOWN`, so a tonic stack needs a `map_err`, which the README
/// shows.
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
    asked: Asked,
    message: Cow<'static, str>,
    /// Where the response came from, its content type and its size.
    response: Option<Box<str>>,
    status: Option<StatusCode>,
    /// Wiped, because it may repeat a secret, and is then removed.
    oauth_code: Option<Zeroizing<Box<str>>>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// `None`: that of the kind.
    recovery: Option<Recovery>,
    /// The request could not be made, so nothing was sent.
    is_unsent: bool,
}

impl TokenError {
    /// Makes an error of `kind`. `message` says what was tried, what came, and what to do.
    ///
    /// The message reaches logs. It must not hold a secret or the text of a server's response.
    #[must_use]
    pub fn new(kind: TokenErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                asked: Asked::default(),
                message: message.into(),
                response: None,
                status: None,
                oauth_code: None,
                retry_after: None,
                source: None,
                recovery: None,
                is_unsent: false,
            }),
        }
    }

    /// Wraps an error of your own source, for `map_err` in [`source_fn`](crate::source_fn).
    ///
    /// The error is of kind [`Source`](TokenErrorKind::Source), so it is transient. [`Error::source`] returns `error`, and
    /// `Display` does not show its text.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{Token, TokenCache, TokenError, TokenErrorKind, source_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let source = source_fn(|_cx| async {
    ///     let secret = std::fs::read_to_string("/run/secrets/missing-token")
    ///         .map_err(TokenError::other)?; // from `std::io::Error`
    ///     Token::new(secret.trim())
    /// });
    ///
    /// let error = TokenCache::new(source).token().await.unwrap_err();
    /// assert_eq!(error.kind(), TokenErrorKind::Source);
    /// assert!(std::error::Error::source(&error).is_some());
    /// # }
    /// ```
    #[must_use]
    pub fn other(error: impl Into<BoxError>) -> Self {
        let message = "it returned an error of its own, see the cause";
        Self::new(TokenErrorKind::Source, message).with_source(error)
    }

    /// The error of this crate in what a client returned, if there is one: its error, that error's cause, or the reason in the
    /// extensions of a response why the API's rejection is all that there is.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::Request;
    /// use http_body_util::Full;
    /// use tower::{BoxError, ServiceBuilder, ServiceExt};
    /// use tower_bearer::{BearerAuthLayer, TokenCache, TokenError};
    /// # use tower_bearer::{TokenErrorKind, source_fn, testing::{AuthorizationServer, Dialect}};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// # let source = source_fn(|_cx| async { Err(TokenError::new(TokenErrorKind::ReauthRequired, "log in again")) });
    /// # let (cache, api) = (TokenCache::new(source), AuthorizationServer::new(Dialect::Rfc6749).api());
    /// let client = ServiceBuilder::new().layer(BearerAuthLayer::from(cache.clone())).service(api);
    /// let request = Request::get("https://api.example.com/orders").body(Full::<Bytes>::default())?;
    /// let result = client.oneshot(request).await;
    ///
    /// if TokenError::of(&result).is_some_and(TokenError::is_final) {
    ///     println!("log in again"); // and then `cache.login(session)`
    /// }
    /// # assert!(TokenError::of(&result).is_some());
    /// # Ok(()) }
    /// ```
    pub fn of<B>(result: &Result<Response<B>, BoxError>) -> Option<&Self> {
        match result {
            Ok(response) => response.extensions().get(),
            Err(error) => {
                let mut cause: Option<&(dyn Error + 'static)> = Some(&**error);
                while let Some(error) = cause {
                    if let Some(found) = error.downcast_ref() {
                        return Some(found);
                    }
                    cause = error.source();
                }
                None
            }
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// Adds the error that caused this one. [`Error::source`] returns it.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        self.edit(|inner| inner.source = Some(Arc::from(source.into())))
    }

    /// Adds the HTTP status of the response.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        self.edit(|inner| inner.status = Some(status))
    }

    /// Adds the server's error code (RFC 6749 §5.2).
    ///
    /// A code has letters, digits, `_`, `-` and `.`, and at most 64 of them. Anything else is not a code, and is left out.
    #[must_use]
    pub fn with_oauth_code(self, code: &str) -> Self {
        if !is_oauth_code(code) {
            return self;
        }
        self.edit(|inner| inner.oauth_code = Some(Zeroizing::new(code.into())))
    }

    /// Adds how long the server asks to wait before the next request.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        self.edit(|inner| inner.retry_after = Some(retry_after))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> TokenErrorKind {
        self.inner.kind
    }

    /// Whether a later attempt may succeed although nothing is changed by a person.
    ///
    /// The cache refreshes again within seconds after a transient error. Other errors it returns at once, and refreshes
    /// again slowly, in case somebody has corrected the cause: after 30 seconds, then up to 15 minutes apart. Only an error
    /// that [is final](TokenError::is_final) ends this.
    ///
    /// It depends on the [kind](TokenError::kind) alone. Not transient are
    /// [`InvalidClient`](TokenErrorKind::InvalidClient), [`InvalidRequest`](TokenErrorKind::InvalidRequest),
    /// [`ReauthRequired`](TokenErrorKind::ReauthRequired), [`LoginDenied`](TokenErrorKind::LoginDenied),
    /// [`InvalidToken`](TokenErrorKind::InvalidToken), [`InsufficientScope`](TokenErrorKind::InsufficientScope),
    /// [`InsecureOrigin`](TokenErrorKind::InsecureOrigin) and [`Config`](TokenErrorKind::Config).
    pub fn is_transient(&self) -> bool {
        self.inner.kind.is_transient()
    }

    /// Whether the grant is dead: a person must log in again, or configure a new credential.
    ///
    /// The cache does not refresh again until the source reports a change
    /// ([`has_changed`](crate::TokenSource::has_changed)) or the cache is [reset](crate::TokenCache::reset).
    ///
    /// To decide whether a person must log in, use this and not the kind. An error of kind
    /// [`ReauthRequired`](TokenErrorKind::ReauthRequired) is not final if the server did not say that the grant is dead, with the
    /// code `invalid_grant` for example: a page with status 400 may pass by itself. Also final is the error of a
    /// [revocation](crate::TokenCache::revoke) that could not be saved.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{TokenError, TokenErrorKind};
    ///
    /// assert!(TokenError::new(TokenErrorKind::ReauthRequired, "log in again").is_final());
    /// assert!(!TokenError::new(TokenErrorKind::InvalidClient, "the secret has changed").is_final());
    /// ```
    pub fn is_final(&self) -> bool {
        self.recovery() == Recovery::Never
    }

    /// How long the server asks to wait before the next request, in `Retry-After` or in the vendor's own way.
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// The HTTP status of the response, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.inner.status
    }

    /// The server's error code, if there was one: `invalid_grant` for example (RFC 6749 §5.2), or one of the vendor's own.
    pub fn oauth_code(&self) -> Option<&str> {
        self.inner.oauth_code.as_ref().map(|code| &***code)
    }
}

/// Whether this is an identifier, and not prose such as "Bad Request".
pub(crate) fn is_oauth_code(text: &str) -> bool {
    let identifier = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(identifier)
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            asked,
            message,
            response,
            ..
        } = &*self.inner;
        kind.describe(*asked, f)?;
        write!(f, ": {message}")?;
        let status = self
            .inner
            .status
            .map(|status| format!("HTTP {}", status.as_u16()));
        let parts = [response.as_deref(), status.as_deref(), self.oauth_code()];
        let mut separator = " (";
        for part in parts.into_iter().flatten() {
            write!(f, "{separator}{part}")?;
            separator = ", ";
        }
        f.write_str(if separator == ", " { ")" } else { "" })
    }
}

impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("response", &self.inner.response)
            .field("status", &self.inner.status)
            .field("oauth_code", &self.oauth_code())
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
    fn display_shows_this_level_and_source_returns_the_next() {
        let error = TokenError::new(
            TokenErrorKind::Transport,
            "POST to https://a.example failed",
        )
        .with_source(std::io::Error::other("connection reset"));
        assert_eq!(
            error.to_string(),
            "the request to the token endpoint failed: POST to https://a.example failed"
        );
        assert_eq!(error.source().unwrap().to_string(), "connection reset");
    }

    #[test]
    fn display_ends_with_the_status_and_the_code() {
        let error = TokenError::new(TokenErrorKind::ReauthRequired, "log in again")
            .with_status(StatusCode::BAD_REQUEST)
            .with_oauth_code("invalid_grant");
        assert_eq!(
            error.to_string(),
            "a person must authorize again: log in again (HTTP 400, invalid_grant)"
        );
    }

    #[test]
    fn display_begins_with_what_was_asked() {
        use TokenErrorKind::{
            InvalidClient, InvalidRequest, InvalidResponse, RateLimited, Server, Timeout, Transport,
        };

        let kinds = [
            Transport,
            Timeout,
            Server,
            RateLimited,
            InvalidResponse,
            InvalidClient,
            InvalidRequest,
        ];
        for (asked, word) in [
            (Asked::Token, "token"),
            (Asked::Metadata, "metadata"),
            (Asked::Revocation, "revocation"),
            #[cfg(feature = "login")]
            (Asked::Authorization, "authorization"),
            #[cfg(feature = "login")]
            (Asked::DeviceAuthorization, "device authorization"),
        ] {
            for kind in kinds {
                let error = TokenError::new(kind, "…").asking(asked).to_string();
                assert!(error.contains(word), "{error}");
                assert_eq!(error.contains("token"), asked == Asked::Token, "{error}");
            }
        }
    }

    #[test]
    fn a_text_that_is_not_a_code_is_left_out() {
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
    fn editing_a_clone_leaves_the_original_unchanged() {
        let original = TokenError::new(TokenErrorKind::Server, "down");
        let edited = original.clone().with_retry_after(Duration::from_secs(1));
        assert_eq!(original.retry_after(), None);
        assert_eq!(edited.retry_after(), Some(Duration::from_secs(1)));
    }
}
