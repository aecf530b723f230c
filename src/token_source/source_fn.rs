//! [`source_fn`]: a closure as a source.

use std::{fmt, future::Future};

use super::{TokenContext, TokenSource};
use crate::{error::TokenError, token::Token};

/// Makes a [`TokenSource`] from an async closure.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{Token, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
/// let source = source_fn(|_cx| async {
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

/// A closure as a [`TokenSource`]. Made by [`source_fn`].
#[derive(Clone)]
pub struct SourceFn<F> {
    f: F,
}

impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(TokenContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, TokenError>> + Send,
{
    fn token(&self, cx: TokenContext) -> impl Future<Output = Result<Token, TokenError>> + Send {
        (self.f)(cx)
    }

    fn grant(&self) -> &'static str {
        "source_fn"
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceFn")
    }
}
