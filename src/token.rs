//! [`Token`]: an access token, ready to be sent.

mod details;
mod expiry;
mod warning;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use secrecy::ExposeSecret;
use serde_json::Value;

pub(crate) use self::{
    details::{ExtraMembers, ExtraValues, TokenDetails},
    expiry::{Expires, Expiry},
    warning::Warning,
};
use crate::{
    clock::Now,
    error::{TokenError, TokenErrorKind},
    zeroize::{secret, zeroized},
};

const PREFIX: &str = "Bearer ";

/// An access token with its `Authorization` header value, which is built once and marked sensitive.
///
/// Cloning is cheap. `Debug` shows no secret. The bytes of the token are zeroized when the last clone of the token and of
/// its header value is dropped. A request that is being sent has such a clone. The HTTP client makes copies of its own,
/// which this crate cannot zeroize.
///
/// A token that came from a token endpoint also has the other members of the response: [`token_type`](Token::token_type),
/// [`scope`](Token::scope), [`id_token`](Token::id_token) and [`extra`](Token::extra).
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
    /// Boxed, so that a token without details stays small.
    details: Option<Box<TokenDetails>>,
    warning: Option<Warning>,
    is_adopted: bool,
}

impl Token {
    /// Makes a token of unknown lifetime, which is used until it is rejected.
    ///
    /// Set its lifetime with [`expires_in`](Token::expires_in) or [`expires_at`](Token::expires_at).
    ///
    /// The text is copied. It is not zeroized itself, even if it is a `String`.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`](TokenErrorKind::InvalidToken) if `secret` is empty, or has a character that is not visible ASCII: no
    /// header may carry it (RFC 6750 §2.1).
    pub fn new(secret: impl AsRef<str>) -> Result<Self, TokenError> {
        let secret = secret.as_ref();
        if secret.is_empty() {
            return Err(TokenError::new(
                TokenErrorKind::InvalidToken,
                "the access token is empty",
            ));
        }
        let has_scheme = secret
            .get(..PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
        if has_scheme {
            return Err(TokenError::new(
                TokenErrorKind::InvalidToken,
                "the access token begins with the scheme `Bearer`, which is added to it; pass the token alone",
            ));
        }
        if let Some(at) = secret.bytes().position(|b| !b.is_ascii_graphic()) {
            return Err(TokenError::new(
                TokenErrorKind::InvalidToken,
                format!(
                    "the access token of {} bytes has a character at offset {at} that no header may carry; \
                     does it have quotes around it, or a line break at its end?",
                    secret.len()
                ),
            ));
        }
        let mut value = Vec::with_capacity(PREFIX.len() + secret.len());
        value.extend_from_slice(PREFIX.as_bytes());
        value.extend_from_slice(secret.as_bytes());
        let mut header = HeaderValue::from_maybe_shared(zeroized(value)).map_err(|error| {
            TokenError::new(TokenErrorKind::InvalidToken, "no header may carry it")
                .with_source(error)
        })?;
        header.set_sensitive(true);
        Ok(Self {
            inner: Arc::new(Inner {
                header,
                expiry: Expiry::Unknown,
                details: None,
                warning: None,
                is_adopted: false,
            }),
        })
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    fn edit_details(self, change: impl FnOnce(&mut TokenDetails)) -> Self {
        self.edit(|inner| change(inner.details.get_or_insert_default()))
    }

    /// Sets the lifetime, which counts from when the source was called for the token.
    ///
    /// A lifetime of zero means that the token has expired already.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        self.expiry(Expiry::In(lifetime))
    }

    /// Sets the wall-clock time at which the token expires.
    #[must_use]
    pub fn expires_at(self, end: SystemTime) -> Self {
        self.expiry(Expiry::At(end))
    }

    /// Sets the type of the token (RFC 6749 §7.1). The header says `Bearer` whatever the type is.
    #[must_use]
    pub fn with_token_type(self, token_type: impl Into<Box<str>>) -> Self {
        self.edit_details(|details| details.token_type = Some(token_type.into()))
    }

    /// Sets the granted scope (RFC 6749 §3.3).
    #[must_use]
    pub fn with_scope(self, scope: impl Into<Box<str>>) -> Self {
        self.edit_details(|details| details.scope = Some(scope.into()))
    }

    /// Sets the ID token (`OpenID` Connect Core §2).
    #[must_use]
    pub fn with_id_token(self, id_token: impl Into<String>) -> Self {
        self.edit_details(|details| details.id_token = Some(secret(id_token)))
    }

    /// Adds a member of the token response that this crate does not interpret.
    #[must_use]
    pub fn with_extra(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.edit_details(|details| details.extra.insert(name.into(), value.into()))
    }

    pub(crate) fn with_details(self, details: TokenDetails) -> Self {
        let details = (!details.is_empty()).then(|| Box::new(details));
        self.edit(|inner| inner.details = details)
    }

    /// Sets the scope that the token was requested with beyond what its source asks for on its own.
    pub(crate) fn with_added_scope(self, scope: impl Into<Box<str>>) -> Self {
        self.edit_details(|details| details.added_scope = Some(scope.into()))
    }

    /// Says that the token has what was granted at a login, whatever else APIs have asked for.
    pub(crate) fn with_no_added_scope(self) -> Self {
        self.with_added_scope("")
    }

    pub(crate) fn added_scope(&self) -> Option<&str> {
        self.details()?.added_scope.as_deref()
    }

    /// Whether the token was issued with this scope, or requested with it beyond what its source asks for on its own.
    pub(crate) fn has_scope(&self, name: &str) -> bool {
        let has = |scope: Option<&str>| scope.is_some_and(|it| it.split(' ').any(|it| it == name));
        has(self.scope()) || has(self.added_scope())
    }

    pub(crate) fn expiry(self, expiry: Expiry) -> Self {
        self.edit(|inner| inner.expiry = expiry)
    }

    /// Adds an error that must be reported although the token is usable: its session could not be saved.
    pub(crate) fn with_warning(self, warning: Warning) -> Self {
        self.edit(|inner| inner.warning = Some(warning))
    }

    /// Marks a token that another process has obtained.
    pub(crate) fn into_adopted(self) -> Self {
        self.edit(|inner| inner.is_adopted = true)
    }

    pub(crate) fn is_adopted(&self) -> bool {
        self.inner.is_adopted
    }

    pub(crate) fn warning(&self) -> Option<&Warning> {
        self.inner.warning.as_ref()
    }

    /// The value of the `Authorization` header, `Bearer` and the token (RFC 6750 §2.1), marked sensitive.
    ///
    /// Cloning the value increments a reference count.
    #[inline]
    pub fn header(&self) -> &HeaderValue {
        &self.inner.header
    }

    /// The token without `Bearer`. Keep it out of logs, errors and `Debug`.
    pub fn expose_secret(&self) -> &str {
        // `new` has checked that the value is ASCII.
        std::str::from_utf8(&self.inner.header.as_bytes()[PREFIX.len()..]).unwrap_or_default()
    }

    pub(crate) fn details(&self) -> Option<&TokenDetails> {
        self.inner.details.as_deref()
    }

    /// The type of the token as the server wrote it, such as `Bearer` (RFC 6749 §5.1).
    pub fn token_type(&self) -> Option<&str> {
        self.details()?.token_type.as_deref()
    }

    /// The granted scope, if the server named it (RFC 6749 §5.1).
    pub fn scope(&self) -> Option<&str> {
        self.details()?.scope.as_deref()
    }

    /// The ID token of an `OpenID` Connect login (`OpenID` Connect Core §3.1.3.3).
    ///
    /// This crate does not verify it. It identifies a person: keep it out of logs, errors and `Debug`.
    pub fn id_token(&self) -> Option<&str> {
        let id_token = self.details()?.id_token.as_ref()?;
        Some(id_token.expose_secret())
    }

    /// A member of the token response that this crate does not interpret, such as a tenant or an instance URL.
    ///
    /// It may be a secret. Refresh tokens and times of expiry are not among these members.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::Token;
    ///
    /// let token = Token::new("abc")?.with_extra("instance_url", "https://eu4.example.com");
    ///
    /// assert_eq!(token.extra("instance_url").unwrap(), "https://eu4.example.com");
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    pub fn extra(&self, name: &str) -> Option<&Value> {
        self.details()?.extra.get(name)
    }

    /// Whether both tokens are the same secret.
    #[inline]
    pub(crate) fn same_secret(&self, other: &Token) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.inner.header == other.inner.header
    }

    /// When the token expires on both clocks, if its source was called at `asked` and returned at `now`.
    pub(crate) fn expires(&self, asked: Now, now: Now) -> Option<Expires> {
        self.inner.expiry.resolve(asked, now)
    }
}

impl fmt::Debug for Token {
    /// Shows when the token expires and its scope, and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = self.details().map_or(0, |details| details.extra.len());
        f.debug_struct("Token")
            .field("expiry", &self.inner.expiry)
            .field("scope", &self.scope())
            .field("has_id_token", &self.id_token().is_some())
            .field("extra_members", &extra)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_no_header_may_carry_is_rejected() {
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
    fn a_secret_with_its_scheme_is_an_error_that_says_so() {
        for secret in ["Bearer abc", "bearer  abc", "BEARER "] {
            let error = Token::new(secret).unwrap_err();
            assert!(
                error.to_string().contains("begins with the scheme"),
                "{error}"
            );
        }
        assert!(Token::new("BearerABC").is_ok());
    }

    #[test]
    fn the_header_and_its_clones_are_sensitive() {
        let token = Token::new("abc+/=.~_-").unwrap();
        assert_eq!(token.header(), "Bearer abc+/=.~_-");
        assert!(token.header().clone().is_sensitive());
        assert_eq!(token.expose_secret(), "abc+/=.~_-");
        assert_eq!(format!("{:?}", token.header()), "Sensitive");
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = Token::new("s3cr3t-value")
            .unwrap()
            .with_scope("read")
            .with_id_token("s3cr3t-id")
            .with_extra("s3cr3t-name", "s3cr3t-extra");
        let shown = format!("{token:?} {token:#?}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert!(shown.contains("read"));
    }

    #[test]
    fn a_token_has_the_details_that_were_set() {
        let token = Token::new("a")
            .unwrap()
            .with_token_type("bearer")
            .with_scope("read write")
            .with_id_token("ey.ey.sig")
            .with_extra("tenant", 7)
            .with_extra("tenant", "eu");
        assert_eq!(token.token_type(), Some("bearer"));
        assert_eq!(token.scope(), Some("read write"));
        assert_eq!(token.id_token(), Some("ey.ey.sig"));
        assert_eq!(token.extra("tenant").unwrap(), "eu");
        assert!(token.extra("region").is_none());
        let plain = Token::new("a").unwrap();
        assert_eq!((plain.token_type(), plain.id_token()), (None, None));
        assert!(plain.extra("tenant").is_none());
    }

    #[test]
    fn editing_a_clone_leaves_the_original_unchanged() {
        let original = Token::new("a").unwrap();
        let edited = original.clone().with_scope("x");
        assert_eq!(original.scope(), None);
        assert_eq!(edited.scope(), Some("x"));
        assert!(original.same_secret(&edited));
    }
}
