//! [`TokenContext`]: why a source is asked.

use crate::{clock::Clock, token::Token};

/// Why a [`TokenSource`](crate::TokenSource) is asked for a token, and which token it replaces.
///
/// # Examples
///
/// ```
/// use tower_bearer::{Token, TokenContext};
///
/// let cx = TokenContext::new().rejected(Token::new("revoked")?);
/// assert!(cx.rejected_token().is_some());
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TokenContext {
    previous: Option<Token>,
    is_rejected: bool,
    is_after_reset: bool,
    clock: Clock,
}

impl TokenContext {
    /// The context of a first token. For tests of sources, and for sources that wrap others.
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

    /// Asks for a token that replaces `token`.
    #[must_use]
    pub fn replacing(mut self, token: Token) -> Self {
        self.previous = Some(token);
        self
    }

    /// Asks for a token that replaces `token`, because the API rejected it.
    #[must_use]
    pub fn rejected(mut self, token: Token) -> Self {
        self.is_rejected = true;
        self.replacing(token)
    }

    /// Asks for a token after the user has [reset](crate::TokenCache::reset) the cache.
    #[must_use]
    pub fn after_reset(mut self) -> Self {
        self.is_after_reset = true;
        self
    }

    /// The token to replace, if there is one: it is due, has expired, or was rejected.
    ///
    /// A source with a store of its own must not return this token again.
    pub fn previous_token(&self) -> Option<&Token> {
        self.previous.as_ref()
    }

    /// The token to replace, if the reason is that the API rejected it.
    pub fn rejected_token(&self) -> Option<&Token> {
        self.previous.as_ref().filter(|_| self.is_rejected)
    }

    /// Whether the user has [reset](crate::TokenCache::reset) the cache since the last refresh that ended with a new token or
    /// with a dead grant.
    ///
    /// Then a source sends its credential although the server has declared it dead before.
    pub fn is_after_reset(&self) -> bool {
        self.is_after_reset
    }

    /// The same without a reset, because the session was revoked after it.
    pub(crate) fn without_reset(self) -> Self {
        Self {
            is_after_reset: false,
            ..self
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}
