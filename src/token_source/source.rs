//! The trait [`TokenSource`].

use std::{future::Future, sync::Arc};

use tokio::sync::watch;

use super::{BoxTokenSource, TokenContext};
use crate::{
    error::{TokenError, TokenErrorKind},
    origins::Origins,
    schedule::Schedule,
    store::StoredSession,
    token::Token,
};

/// Where tokens come from.
///
/// A [`TokenCache`](crate::TokenCache) calls its source for one token at a time, from a task that no caller can cancel. The
/// cache spaces failing attempts and shares the result. A source only has to get one token, now.
///
/// For a closure there is [`source_fn`](crate::source_fn). A source that wraps another one passes all methods on, not only
/// [`token`](TokenSource::token).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{BearerAuthLayer, Token, TokenContext, TokenError, TokenSource};
///
/// struct Sidecar;
///
/// impl TokenSource for Sidecar {
///     async fn token(&self, _cx: TokenContext) -> Result<Token, TokenError> {
///         Ok(Token::new("from-the-sidecar")?.expires_in(Duration::from_secs(300)))
///     }
/// }
///
/// let layer = BearerAuthLayer::new(Sidecar);
/// # let _ = layer;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source of tokens",
    label = "this does not implement `TokenSource`",
    note = "`source_fn` makes a source from an async closure; `ClientCredentialsSource`, `RefreshTokenSource` and others ask a server"
)]
pub trait TokenSource: Send + Sync + 'static {
    /// Gets a token. `cx` says why it is wanted, and which token it replaces.
    fn token(&self, cx: TokenContext) -> impl Future<Output = Result<Token, TokenError>> + Send;

    /// Whether something has changed since [`token`](TokenSource::token) failed, so that another call may succeed: for
    /// example, another process has stored a new login.
    ///
    /// The cache asks at most every 10 seconds, and only while a caller wants a token or the schedule refreshes in the
    /// background. Default: `false`.
    fn has_changed(&self) -> impl Future<Output = bool> + Send {
        std::future::ready(false)
    }

    /// Tells when another process may have begun or ended a session. `None`: the source cannot tell.
    ///
    /// The cache calls it once, in a Tokio runtime, and then [`session_changed`](TokenSource::session_changed) each time
    /// that the receiver has [changed](watch::Receiver::changed), at most once a second. If the sender is dropped, it
    /// calls this again after a while. Default: `None`.
    fn changes(&self) -> Option<watch::Receiver<()>> {
        None
    }

    /// Whether [`token`](TokenSource::token) should be called, because the store has another session than the one in use.
    /// `cx` has the token that the cache uses.
    ///
    /// The cache asks after [`changes`](TokenSource::changes) has told it. Default: as
    /// [`has_changed`](TokenSource::has_changed).
    ///
    /// # Errors
    ///
    /// The session was revoked. The cache stops using its token.
    fn session_changed(
        &self,
        cx: TokenContext,
    ) -> impl Future<Output = Result<bool, TokenError>> + Send {
        let _ = cx;
        async { Ok(self.has_changed().await) }
    }

    /// Returns a token that another process has stored, if it can replace the one in `cx`. It sends no token request.
    ///
    /// The cache asks after a rejection while refreshes are held back, at most every 100 ms. Default: `None`.
    fn stored_token(&self, cx: TokenContext) -> impl Future<Output = Option<Token>> + Send {
        let _ = cx;
        std::future::ready(None)
    }

    /// Ends the session at the authorization server, so that neither its tokens nor the configured credential are used
    /// again (RFC 7009). `cx` has the token that the cache uses.
    ///
    /// [`TokenCache::revoke`](crate::TokenCache::revoke) calls it. After it has succeeded, [`token`](TokenSource::token)
    /// fails with [`ReauthRequired`](TokenErrorKind::ReauthRequired), until there is a new login or
    /// [`is_after_reset`](TokenContext::is_after_reset). Default: an error of kind [`Config`](TokenErrorKind::Config).
    ///
    /// # Errors
    ///
    /// The session is not revoked, and goes on.
    fn revoke(&self, cx: TokenContext) -> impl Future<Output = Result<(), TokenError>> + Send {
        let _ = cx;
        std::future::ready(Err(TokenError::new(
            TokenErrorKind::Config,
            "this source cannot revoke its session; implement `TokenSource::revoke`, or pass it on from the wrapped source",
        )))
    }

    /// Takes the session of a new login in place of the one before it, and returns its access token if that can be used.
    ///
    /// [`TokenCache::login`](crate::TokenCache::login) calls it, and uses the token at once. Without one, it calls
    /// [`token`](TokenSource::token) when a caller wants a token. Default: an error of kind
    /// [`Config`](TokenErrorKind::Config).
    ///
    /// # Errors
    ///
    /// The login was not taken, and the session goes on.
    fn login(
        &self,
        session: StoredSession,
        cx: TokenContext,
    ) -> impl Future<Output = Result<Option<Token>, TokenError>> + Send {
        let _ = (session, cx);
        std::future::ready(Err(TokenError::new(
            TokenErrorKind::Config,
            "this source keeps no session that a login could replace; implement `TokenSource::login`, or pass it on from \
             the wrapped source",
        )))
    }

    /// Waits until nothing would be lost if the process ended now: a refresh is finished, and its session is saved.
    ///
    /// Call it before the process exits. Default: there is nothing to save.
    ///
    /// # Errors
    ///
    /// The session could not be saved.
    fn flush(&self) -> impl Future<Output = Result<(), TokenError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Whether a source that is made again goes on where this one has ended. `false` if its session is only in memory and
    /// cannot begin anew by itself. Default: `true`.
    fn is_durable(&self) -> bool {
        true
    }

    /// Whether something would be lost if the source were dropped now, because it could not be saved so far. Default:
    /// `false`.
    ///
    /// A map of sessions calls it while it is locked: it must answer at once, and not use that map.
    fn has_unsaved(&self) -> bool {
        false
    }

    /// Where the tokens of this source may be sent. Default: [`Origins::any_https`].
    fn origins(&self) -> Origins {
        Origins::any_https()
    }

    /// The scopes that this source requests on its own. An API may ask for them, too, whatever the list of
    /// [`StepUp`](crate::StepUp) is. Default: none.
    fn scopes(&self) -> Vec<String> {
        Vec::new()
    }

    /// When the tokens of this source are refreshed. Default: [`Schedule::default`].
    fn schedule(&self) -> Schedule {
        Schedule::default()
    }

    /// The kind of this source, for logs and metrics: for the sources of this crate the name of the grant, such as
    /// `refresh_token`. Default: `custom`.
    ///
    /// Metrics have it as a label, so it must not tell users apart.
    fn grant(&self) -> &'static str {
        "custom"
    }

    /// The default of a cache's [group](crate::TokenCacheBuilder::group) and [name](crate::TokenCacheBuilder::name): for the
    /// sources of this crate the host of the token endpoint or of the issuer. Default: as [`grant`](TokenSource::grant).
    ///
    /// It is logged, and metrics have it as a label. So it must not contain a secret or tell users apart.
    fn name(&self) -> &str {
        self.grant()
    }

    /// Erases the type of the source, so that sources of different types fit one variable.
    fn boxed(self) -> BoxTokenSource
    where
        Self: Sized,
    {
        BoxTokenSource::new(self)
    }
}

macro_rules! forward_to_pointee {
    ($($pointer:ident),*) => {$(
        impl<T: TokenSource> TokenSource for $pointer<T> {
            fn token(&self, cx: TokenContext) -> impl Future<Output = Result<Token, TokenError>> + Send {
                (**self).token(cx)
            }

            fn has_changed(&self) -> impl Future<Output = bool> + Send {
                (**self).has_changed()
            }

            fn changes(&self) -> Option<watch::Receiver<()>> {
                (**self).changes()
            }

            fn session_changed(
                &self,
                cx: TokenContext,
            ) -> impl Future<Output = Result<bool, TokenError>> + Send {
                (**self).session_changed(cx)
            }

            fn stored_token(&self, cx: TokenContext) -> impl Future<Output = Option<Token>> + Send {
                (**self).stored_token(cx)
            }

            fn revoke(&self, cx: TokenContext) -> impl Future<Output = Result<(), TokenError>> + Send {
                (**self).revoke(cx)
            }

            fn login(
                &self,
                session: StoredSession,
                cx: TokenContext,
            ) -> impl Future<Output = Result<Option<Token>, TokenError>> + Send {
                (**self).login(session, cx)
            }

            fn flush(&self) -> impl Future<Output = Result<(), TokenError>> + Send {
                (**self).flush()
            }

            fn is_durable(&self) -> bool {
                (**self).is_durable()
            }

            fn has_unsaved(&self) -> bool {
                (**self).has_unsaved()
            }

            fn origins(&self) -> Origins {
                (**self).origins()
            }

            fn scopes(&self) -> Vec<String> {
                (**self).scopes()
            }

            fn schedule(&self) -> Schedule {
                (**self).schedule()
            }

            fn grant(&self) -> &'static str {
                (**self).grant()
            }

            fn name(&self) -> &str {
                (**self).name()
            }
        }
    )*};
}

forward_to_pointee!(Arc, Box);
