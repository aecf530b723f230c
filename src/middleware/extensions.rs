//! What users and layers say in the extensions of requests and responses.

use crate::cache::SentToken;

/// In the extensions of a request: send it without a token.
///
/// For requests to the same origin that need none, such as a health check. The layers then do nothing with the request and
/// its response.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower_bearer::WithoutToken;
///
/// let request = Request::get("https://api.example.com/health")
///     .extension(WithoutToken)
///     .body(())?;
/// # let _ = request;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WithoutToken;

/// In the extensions of a request: the key of its session, for
/// [`BearerAuthLayer::keyed`](crate::BearerAuthLayer::keyed).
///
/// The type of the key must be exactly that of the [`Sessions`](crate::Sessions).
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower_bearer::SessionKey;
///
/// let request = Request::get("https://api.example.com/orders")
///     .extension(SessionKey(String::from("user-7")))
///     .body(())?;
/// # let _ = request;
/// # Ok::<(), http::Error>(())
/// ```
#[cfg(feature = "sessions")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKey<K>(pub K);

/// In the extensions of a response: the API rejected the token that the request was sent with.
///
/// [`AddTokenLayer`](crate::AddTokenLayer) adds it, and [`RefreshOnReject`](crate::RefreshOnReject) above takes it
/// out, so that of several policies only the innermost sends the request again. It identifies the token without
/// containing it.
#[derive(Clone, Debug)]
pub struct TokenRejected {
    sent: SentToken,
}

impl TokenRejected {
    pub(super) fn new(sent: SentToken) -> Self {
        Self { sent }
    }

    pub(super) fn sent(&self) -> SentToken {
        self.sent
    }
}
