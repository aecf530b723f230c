//! [`SecurityToken`]: a token or an assertion that a grant sends.

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroize};
use serde::Deserialize;

use super::GrantContext;
use crate::{
    clock::MAX_DURATION,
    error::{TokenError, TokenErrorKind},
    oauth::SubjectExpires,
    secret_file::read_secret,
    token::Token,
    token_source::{BoxTokenSource, TokenContext, TokenSource},
    zeroize::secret,
};

type Made = Pin<Box<dyn Future<Output = Result<SecretString, TokenError>> + Send>>;

/// Where a grant gets the assertion or the token that it sends, such as a signed JWT. It is made or read anew for each token
/// request.
///
/// "Security token" is the term of RFC 7521 and RFC 8693 for both.
///
/// # Examples
///
/// ```
/// use tower_bearer::{SecurityToken, Token, source_fn};
///
/// // A JWT that is signed for each request. The context has the time and the audience.
/// # fn sign(_: std::time::SystemTime, _: &str) -> String { "a.b.c".into() }
/// let signed = SecurityToken::from_fn(|cx| async move { Ok(sign(cx.now(), cx.audience())) });
/// // A file that another process replaces.
/// let file = SecurityToken::from_file("/var/run/secrets/tokens/assertion");
/// // The token of another session.
/// let issued = SecurityToken::from_source(source_fn(|_| async { Token::new("abc") }));
/// # let _ = (signed, file, issued);
/// ```
#[derive(Clone)]
pub struct SecurityToken {
    from: From,
}

#[derive(Clone)]
enum From {
    Fn(Arc<dyn Fn(GrantContext<'static>) -> Made + Send + Sync>),
    File(Arc<Path>),
    Source(BoxTokenSource, Arc<Mutex<Last>>),
}

/// The last token of a source.
#[derive(Default)]
struct Last {
    token: Option<Token>,
    /// It was rejected, and another one is wanted.
    is_rejected: bool,
    /// It replaced a rejected one, and was not accepted so far. If it is rejected as well, the cause is something else.
    is_replacement: bool,
    /// It was obtained for a request, and was not rejected.
    is_good: bool,
}

/// A security token, for one request.
pub(super) struct Obtained {
    pub(super) text: SecretString,
    /// When it expires, if that is known.
    pub(super) expires: Option<SubjectExpires>,
}

impl SecurityToken {
    /// The text that an async closure returns.
    ///
    /// If it is a JWT with a time of expiry (`exp`), a token that is issued for it without a lifetime lives no longer.
    pub fn from_fn<F, Fut>(make: F) -> Self
    where
        F: Fn(GrantContext<'static>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        let boxed = move |cx| -> Made {
            let text = make(cx);
            Box::pin(async { Ok(secret(text.await?)) })
        };
        Self {
            from: From::Fn(Arc::new(boxed)),
        }
    }

    /// The text of a file, without white space around it. At most 64 KiB.
    ///
    /// The error of a request is of kind [`Source`](TokenErrorKind::Source) if the file cannot be read or is empty. The
    /// request is tried again later. A JWT is used as by [`from_fn`](Self::from_fn).
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self {
            from: From::File(path.into().into()),
        }
    }

    /// The access tokens of a source.
    ///
    /// The source is asked for each request, not through a cache. The sources of this crate that ask a server return the
    /// token that they have as long as it is usable. If the server rejects it, they are asked once for another one.
    pub fn from_source(source: impl TokenSource) -> Self {
        Self {
            from: From::Source(source.boxed(), Arc::default()),
        }
    }

    pub(super) async fn obtain(&self, cx: &GrantContext<'_>) -> Result<Obtained, TokenError> {
        let text = match &self.from {
            From::Fn(make) => make(cx.to_owned()).await?,
            From::File(path) => read_secret(path, "assertion or token").await?,
            From::Source(source, last) => {
                let context = last_of(last).context(cx);
                let token = source.token(context).await?;
                last_of(last).note(&token);
                let expires = token.expires(cx.both_clocks(), cx.clock().now());
                return Ok(Obtained {
                    text: secret(token.expose_secret()),
                    expires: expires.map(SubjectExpires::Ours),
                });
            }
        };
        if text.expose_secret().is_empty() {
            let message = "the assertion or token to be sent is empty";
            return Err(TokenError::new(TokenErrorKind::Source, message));
        }
        Ok(Obtained {
            expires: jwt_expiry(text.expose_secret()).map(SubjectExpires::Servers),
            text,
        })
    }

    /// The server has rejected what was obtained last.
    pub(super) fn rejected(&self) {
        if let From::Source(_, last) = &self.from {
            let mut last = last_of(last);
            last.is_rejected = !last.is_replacement;
            last.is_good = false;
        }
    }

    /// The path of the file, if it is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.from {
            From::File(path) => Some(path),
            From::Fn(_) | From::Source(..) => None,
        }
    }
}

impl Last {
    fn context(&self, cx: &GrantContext<'_>) -> TokenContext {
        let context = TokenContext::with_clock(cx.clock().clone());
        match &self.token {
            Some(token) if self.is_rejected => context.rejected(token.clone()),
            _ => context,
        }
    }

    fn note(&mut self, token: &Token) {
        let is_same = |last: &Token| last.same_secret(token);
        if self.token.as_ref().is_some_and(is_same) {
            self.is_replacement &= !self.is_good;
            self.is_good = true;
            return;
        }
        *self = Self {
            token: Some(token.clone()),
            is_rejected: false,
            is_replacement: self.is_rejected,
            is_good: true,
        };
    }
}

fn last_of(last: &Mutex<Last>) -> MutexGuard<'_, Last> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a JWT expires (RFC 7519 §4.1.4). `None` if the text is something else.
fn jwt_expiry(text: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }

    let mut parts = text.split('.');
    let claims = parts.nth(1).filter(|_| parts.count() == 1)?;
    let mut claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let expires = serde_json::from_slice(&claims)
        .ok()
        .and_then(|claims: Claims| Duration::try_from_secs_f64(claims.exp).ok());
    claims.zeroize();
    Some(SystemTime::UNIX_EPOCH + expires?.min(2 * MAX_DURATION))
}

impl fmt::Debug for SecurityToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            From::Fn(_) => f.write_str("SecurityToken(closure)"),
            From::File(path) => write!(f, "SecurityToken({})", path.display()),
            From::Source(..) => f.write_str("SecurityToken(source)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_a_jwt_is_read_and_other_texts_have_none() {
        let jwt = |claims: &str| format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let at = |secs| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(jwt_expiry(&jwt(r#"{"exp":1700000000}"#)), at(1_700_000_000));
        assert_eq!(jwt_expiry(&jwt(r#"{"exp":17.5}"#)).map(|_| ()), Some(()));
        assert!(jwt_expiry(&jwt(r#"{"exp":1e300}"#)).is_none());
        for claims in [r#"{"exp":-1}"#, r#"{"exp":"1"}"#, "{}", "", "[]"] {
            assert_eq!(jwt_expiry(&jwt(claims)), None, "{claims}");
        }
        for text in ["", "a", "a.b", "a.b.c", "a.b.c.d", "..", "….….…"] {
            assert_eq!(jwt_expiry(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_anew_and_must_hold_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("assertion");
        let token = SecurityToken::from_file(&path);
        let cx = GrantContext::new(SystemTime::UNIX_EPOCH, "https://login.example");
        for text in ["one", "two"] {
            std::fs::write(&path, format!(" {text}\n")).unwrap();
            let obtained = token.obtain(&cx).await.ok().unwrap();
            assert_eq!(obtained.text.expose_secret(), text);
        }
        let huge = vec![b'x'; 70_000];
        for bad in [&b"\n"[..], b"\xff", &huge] {
            std::fs::write(&path, bad).unwrap();
            let error = token.obtain(&cx).await.err().unwrap();
            assert_eq!(error.kind(), TokenErrorKind::Source);
            assert!(error.to_string().contains("assertion"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(token.obtain(&cx).await.is_err());
    }
}
