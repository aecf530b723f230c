//! [`TokenContext`]: why a source is asked.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    challenge::{Challenge, StepUp, Wanted},
    clock::Clock,
    token::Token,
};

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
    challenge: Option<Arc<Challenge>>,
    /// What APIs may ask for. `None`: nothing.
    step_up: Option<Arc<StepUp>>,
    /// What the API asks for now beyond what the current token has.
    wanted: Option<Arc<Wanted>>,
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

    /// Adds what the API asks for, as it said when it rejected the token.
    #[must_use]
    pub fn with_challenge(mut self, challenge: Challenge) -> Self {
        self.challenge = Some(Arc::new(challenge));
        self
    }

    pub(crate) fn with_shared_challenge(mut self, challenge: Option<Arc<Challenge>>) -> Self {
        self.challenge = challenge;
        self
    }

    pub(crate) fn allowing(mut self, step_up: Option<Arc<StepUp>>) -> Self {
        self.step_up = step_up;
        self
    }

    /// Asks for a token that has more than the current one, which stays in use meanwhile.
    pub(crate) fn wanting(mut self, challenge: Arc<Challenge>, wanted: Arc<Wanted>) -> Self {
        self.wanted = Some(wanted);
        self.with_shared_challenge(Some(challenge))
    }

    /// What the API said about the token to replace: in its response to the last request that it rejected, or to the one for
    /// which [more is needed](Self::is_step_up).
    ///
    /// The API has written it. Nothing in it is checked against the list of [`StepUp`]: use [`scopes`](Self::scopes).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::TokenContext;
    ///
    /// /// How recent a login must be, if the API says so (RFC 9470).
    /// fn max_age(cx: &TokenContext) -> Option<u64> {
    ///     cx.challenge()?.max_age()
    /// }
    /// assert_eq!(max_age(&TokenContext::new()), None);
    /// ```
    pub fn challenge(&self) -> Option<&Challenge> {
        self.challenge.as_deref()
    }

    /// Whether the API asks for more than the token to replace has: see
    /// [`TokenCacheBuilder::step_up`](crate::TokenCacheBuilder::step_up).
    ///
    /// Return a token that has more, or an error of kind
    /// [`InsufficientScope`](crate::TokenErrorKind::InsufficientScope). The current token stays in use after an error.
    ///
    /// # Examples
    ///
    /// A source that gets more only by another login of a person:
    ///
    /// ```
    /// use tower_bearer::{Token, TokenError, TokenErrorKind, source_fn};
    ///
    /// let source = source_fn(|cx| async move {
    ///     if cx.is_step_up() {
    ///         let message = "log in again at https://portal.example.com";
    ///         return Err(TokenError::new(TokenErrorKind::InsufficientScope, message));
    ///     }
    ///     Token::new("abc")
    /// });
    /// # let _ = tower_bearer::TokenCache::new(source);
    /// ```
    pub fn is_step_up(&self) -> bool {
        self.wanted.is_some()
    }

    /// The scopes to request beyond those that the source requests on its own: those that the API asks for now, and those that
    /// the token to replace was requested with. [`StepUp`] allows all of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::TokenContext;
    ///
    /// let scope = |cx: &TokenContext| {
    ///     let all: Vec<&str> = ["files:read"].into_iter().chain(cx.scopes()).collect();
    ///     all.join(" ")
    /// };
    /// assert_eq!(scope(&TokenContext::new()), "files:read");
    /// ```
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let wanted = self.wanted.iter().flat_map(|wanted| wanted.scopes());
        let kept = self.previous.iter().filter_map(Token::added_scope);
        let kept = kept.flat_map(|scope| scope.split(' '));
        let allowed = kept.filter(|name| self.allows(name));
        wanted.chain(allowed).collect::<BTreeSet<_>>().into_iter()
    }

    /// Whether APIs may ask for this scope.
    pub(crate) fn allows(&self, scope: &str) -> bool {
        self.step_up.as_ref().is_some_and(|it| it.allows(scope))
    }

    /// What the API asks for now.
    pub(crate) fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_deref()
    }

    /// Whether `token` has all that [`scopes`](Self::scopes) and the API ask for, as far as is known.
    pub(crate) fn is_covered_by(&self, token: &Token) -> bool {
        self.scopes().all(|name| token.has_scope(name))
            && self.wanted().is_none_or(Wanted::is_only_scopes)
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
