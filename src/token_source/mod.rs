//! Where tokens come from: [`TokenSource`] and the implementations of this crate.

use std::{fmt, future::Future, sync::Arc};

use crate::{clock::Clock, error::TokenError, origins::Origins, schedule::Schedule, token::Token};

/// Yields tokens; whatever can do that can stand behind a [`TokenCache`](crate::TokenCache) and its layers.
///
/// The cache calls it for one token at a time, from a task of its own that no caller's cancellation reaches, spaces
/// failing attempts, and shares what comes. A source only has to get one token, now.
///
/// For a closure there is [`source_fn`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{BearerAuthLayer, Token, TokenError, TokenContext, TokenSource};
///
/// struct Sidecar;
///
/// impl TokenSource for Sidecar {
///     async fn token(&self, _request: TokenContext) -> Result<Token, TokenError> {
///         Ok(Token::new("from-the-sidecar")?.expires_in(Duration::from_secs(300)))
///     }
/// }
///
/// let layer = BearerAuthLayer::new(Sidecar);
/// # let _ = layer;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of tokens",
    label = "this yields no tokens",
    note = "`source_fn` makes a source of an async closure; `RefreshTokenSource` and `ExchangeTokenSource` ask a server"
)]
pub trait TokenSource: Send + Sync + 'static {
    /// Gets a token. `request` says why it is wanted, and which one it is to replace.
    fn token(
        &self,
        request: TokenContext,
    ) -> impl Future<Output = Result<Token, TokenError>> + Send;

    /// Whether something new has come since [`token`](TokenSource::token) failed for good, such as a login by another
    /// process, so that it is worth another call.
    ///
    /// Asked every 10 seconds at most, and only while somebody wants a token or the cache is kept warm. Default: no.
    fn has_changed(&self) -> impl Future<Output = bool> + Send {
        std::future::ready(false)
    }

    /// Where the tokens of this source may be sent. Default: [`Origins::any_https`].
    fn origins(&self) -> Origins {
        Origins::any_https()
    }

    /// When the tokens of this source are to be renewed. Default: [`Schedule::default`].
    fn schedule(&self) -> Schedule {
        Schedule::default()
    }
}

/// Why a token is wanted.
#[derive(Clone, Debug, Default)]
pub struct TokenContext {
    previous: Option<Token>,
    is_rejected: bool,
    clock: Clock,
}

impl TokenContext {
    /// A first request for a token; for tests of sources, and for sources that wrap others.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_clock(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// The same request, made because `token` is to be replaced.
    #[must_use]
    pub fn replacing(mut self, token: Token) -> Self {
        self.previous = Some(token);
        self
    }

    /// The same request, made because `token` was rejected.
    #[must_use]
    pub fn rejected(mut self, token: Token) -> Self {
        self.is_rejected = true;
        self.replacing(token)
    }

    /// The token that is to be replaced, if there is one: because its time has come, or because it was rejected.
    ///
    /// A source with a store of its own must not return it again.
    pub fn previous_token(&self) -> Option<&Token> {
        self.previous.as_ref()
    }

    /// The token that the API rejected, if that is why another is wanted.
    pub fn rejected_token(&self) -> Option<&Token> {
        self.previous.as_ref().filter(|_| self.is_rejected)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// Makes a [`TokenSource`] of a closure.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{Token, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
/// let source = source_fn(|_request| async {
///     Ok(Token::new("abc")?.expires_in(Duration::from_secs(900)))
/// });
/// let cache = TokenCache::new(source);
/// assert_eq!(cache.token().await?.header(), "Bearer abc");
/// # Ok(()) }
/// ```
pub fn source_fn<F, Fut>(f: F) -> SourceFn<F>
where
    F: Fn(TokenContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, TokenError>> + Send,
{
    SourceFn { f }
}

/// A closure as a [`TokenSource`]; made by [`source_fn`].
#[derive(Clone)]
pub struct SourceFn<F> {
    f: F,
}

impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(TokenContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, TokenError>> + Send,
{
    fn token(
        &self,
        request: TokenContext,
    ) -> impl Future<Output = Result<Token, TokenError>> + Send {
        (self.f)(request)
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceFn")
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        impl<T: TokenSource> TokenSource for $pointer<T> {
            fn token(&self, request: TokenContext) -> impl Future<Output = Result<Token, TokenError>> + Send {
                (**self).token(request)
            }

            fn has_changed(&self) -> impl Future<Output = bool> + Send {
                (**self).has_changed()
            }

            fn origins(&self) -> Origins {
                (**self).origins()
            }

            fn schedule(&self) -> Schedule {
                (**self).schedule()
            }
        }
    )*};
}

forward!(Arc, Box);
