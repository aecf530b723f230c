//! [`BoxTokenSource`]: a source without its type.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tokio::sync::watch;

use super::{TokenContext, TokenSource};
use crate::{
    error::TokenError, origins::Origins, schedule::Schedule, store::StoredSession, token::Token,
};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A [`TokenSource`] whose type is erased. Made by [`TokenSource::boxed`].
///
/// Clones share the source.
///
/// # Examples
///
/// Which source is used is decided at run time:
///
/// ```
/// use tower_bearer::{BearerAuthLayer, BoxTokenSource, Token, TokenSource, source_fn};
///
/// fn configured(fixed_token: Option<String>) -> BoxTokenSource {
///     match fixed_token {
///         Some(token) => source_fn(move |_| std::future::ready(Token::new(&token))).boxed(),
///         None => source_fn(|_| async { Token::new("from-a-server") }).boxed(),
///     }
/// }
///
/// let layer = BearerAuthLayer::new(configured(Some("abc".into())));
/// # let _ = layer;
/// ```
#[derive(Clone)]
pub struct BoxTokenSource {
    source: Arc<dyn ErasedSource>,
}

impl BoxTokenSource {
    pub(super) fn new(source: impl TokenSource) -> Self {
        Self {
            source: Arc::new(source),
        }
    }
}

/// [`TokenSource`] with boxed futures, which makes it usable as a trait object.
trait ErasedSource: Send + Sync {
    fn token(&self, cx: TokenContext) -> BoxFuture<'_, Result<Token, TokenError>>;
    fn has_changed(&self) -> BoxFuture<'_, bool>;
    fn changes(&self) -> Option<watch::Receiver<()>>;
    fn session_changed(&self, cx: TokenContext) -> BoxFuture<'_, Result<bool, TokenError>>;
    fn stored_token(&self, cx: TokenContext) -> BoxFuture<'_, Option<Token>>;
    fn revoke(&self, cx: TokenContext) -> BoxFuture<'_, Result<(), TokenError>>;
    fn login(
        &self,
        session: StoredSession,
        cx: TokenContext,
    ) -> BoxFuture<'_, Result<Option<Token>, TokenError>>;
    fn flush(&self) -> BoxFuture<'_, Result<(), TokenError>>;
    fn is_durable(&self) -> bool;
    fn has_unsaved(&self) -> bool;
    fn origins(&self) -> Origins;
    fn scopes(&self) -> Vec<String>;
    fn schedule(&self) -> Schedule;
    fn grant(&self) -> &'static str;
    fn name(&self) -> &str;
}

impl<T: TokenSource> ErasedSource for T {
    fn token(&self, cx: TokenContext) -> BoxFuture<'_, Result<Token, TokenError>> {
        Box::pin(TokenSource::token(self, cx))
    }

    fn has_changed(&self) -> BoxFuture<'_, bool> {
        Box::pin(TokenSource::has_changed(self))
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        TokenSource::changes(self)
    }

    fn session_changed(&self, cx: TokenContext) -> BoxFuture<'_, Result<bool, TokenError>> {
        Box::pin(TokenSource::session_changed(self, cx))
    }

    fn stored_token(&self, cx: TokenContext) -> BoxFuture<'_, Option<Token>> {
        Box::pin(TokenSource::stored_token(self, cx))
    }

    fn revoke(&self, cx: TokenContext) -> BoxFuture<'_, Result<(), TokenError>> {
        Box::pin(TokenSource::revoke(self, cx))
    }

    fn login(
        &self,
        session: StoredSession,
        cx: TokenContext,
    ) -> BoxFuture<'_, Result<Option<Token>, TokenError>> {
        Box::pin(TokenSource::login(self, session, cx))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), TokenError>> {
        Box::pin(TokenSource::flush(self))
    }

    fn is_durable(&self) -> bool {
        TokenSource::is_durable(self)
    }

    fn has_unsaved(&self) -> bool {
        TokenSource::has_unsaved(self)
    }

    fn origins(&self) -> Origins {
        TokenSource::origins(self)
    }

    fn scopes(&self) -> Vec<String> {
        TokenSource::scopes(self)
    }

    fn schedule(&self) -> Schedule {
        TokenSource::schedule(self)
    }

    fn grant(&self) -> &'static str {
        TokenSource::grant(self)
    }

    fn name(&self) -> &str {
        TokenSource::name(self)
    }
}

impl TokenSource for BoxTokenSource {
    fn token(&self, cx: TokenContext) -> impl Future<Output = Result<Token, TokenError>> + Send {
        self.source.token(cx)
    }

    fn has_changed(&self) -> impl Future<Output = bool> + Send {
        self.source.has_changed()
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        self.source.changes()
    }

    fn session_changed(
        &self,
        cx: TokenContext,
    ) -> impl Future<Output = Result<bool, TokenError>> + Send {
        self.source.session_changed(cx)
    }

    fn stored_token(&self, cx: TokenContext) -> impl Future<Output = Option<Token>> + Send {
        self.source.stored_token(cx)
    }

    fn revoke(&self, cx: TokenContext) -> impl Future<Output = Result<(), TokenError>> + Send {
        self.source.revoke(cx)
    }

    fn login(
        &self,
        session: StoredSession,
        cx: TokenContext,
    ) -> impl Future<Output = Result<Option<Token>, TokenError>> + Send {
        self.source.login(session, cx)
    }

    fn flush(&self) -> impl Future<Output = Result<(), TokenError>> + Send {
        self.source.flush()
    }

    fn is_durable(&self) -> bool {
        self.source.is_durable()
    }

    fn has_unsaved(&self) -> bool {
        self.source.has_unsaved()
    }

    fn origins(&self) -> Origins {
        self.source.origins()
    }

    fn scopes(&self) -> Vec<String> {
        self.source.scopes()
    }

    fn schedule(&self) -> Schedule {
        self.source.schedule()
    }

    fn grant(&self) -> &'static str {
        self.source.grant()
    }

    fn name(&self) -> &str {
        self.source.name()
    }

    fn boxed(self) -> BoxTokenSource {
        self
    }
}

impl fmt::Debug for BoxTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxTokenSource")
    }
}
