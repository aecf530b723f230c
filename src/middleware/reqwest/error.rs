//! [`SendError`]: why a request of reqwest has no response.

use std::{error::Error, fmt};

use crate::error::TokenError;

/// Why [`send_with`](crate::RequestBuilderExt::send_with) has no response.
///
/// [`Error::source`] returns the error inside.
///
/// # Examples
///
/// ```
/// use tower_bearer::SendError;
///
/// fn can_try_again(error: &SendError) -> bool {
///     match error {
///         SendError::Token(error) => error.is_transient(),
///         SendError::Reqwest(error) => error.is_connect(),
///     }
/// }
/// ```
#[derive(Debug)]
pub enum SendError {
    /// There is no token to send the request with. Nothing was sent.
    Token(TokenError),
    /// reqwest could not build or send the request, or received no response.
    Reqwest(reqwest::Error),
}

impl From<TokenError> for SendError {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        Self::Reqwest(error)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "there is no token to send the request with",
            Self::Reqwest(_) => "the request got no response",
        })
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(match self {
            Self::Token(error) => error,
            Self::Reqwest(error) => error,
        })
    }
}
