//! [`AddTokenLayer`].

use std::sync::Arc;

use tower_layer::Layer;

use super::{AddToken, service::AddTokenSettings};
use crate::{
    cache::TokenCache, challenge::ClassifyRejection, origins::Origins, token_source::TokenSource,
};

/// Adds the token to each request. Takes any body, and never sends a request again.
///
/// A rejection is reported to the cache, so that the next request gets another token. The response is passed on as it is,
/// with a [`TokenRejected`](crate::TokenRejected) in its extensions. To send rejected requests again, use
/// [`BearerAuthLayer`](crate::BearerAuthLayer), or put [`RefreshOnReject`](crate::RefreshOnReject) above this layer.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_bearer::{AddTokenLayer, Token, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let source = source_fn(|_| async { Token::new("abc") });
/// let service = ServiceBuilder::new()
///     .layer(AddTokenLayer::new(source))
///     .service(service_fn(|request: Request<()>| async move {
///         assert_eq!(request.headers()["authorization"], "Bearer abc");
///         Ok::<_, std::convert::Infallible>(Response::new(()))
///     }));
///
/// service.oneshot(Request::get("https://api.example.com/").body(())?).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct AddTokenLayer {
    settings: AddTokenSettings,
}

impl AddTokenLayer {
    /// A layer with a cache of its own over `source`, with the source's origins and schedule.
    ///
    /// To share a session, make a [`TokenCache`] and use `AddTokenLayer::from`.
    pub fn new(source: impl TokenSource) -> Self {
        Self::from(TokenCache::new(source))
    }

    /// Where the token may be sent. Default: the [origins of the cache](TokenCache::origins).
    pub fn origins(mut self, origins: Origins) -> Self {
        self.settings.send.origins = Some(origins);
        self
    }

    /// Which responses reject the token. Default: [`StandardRejections`](crate::StandardRejections).
    pub fn classifier(mut self, classifier: impl ClassifyRejection) -> Self {
        self.settings.send.classifier = Some(Arc::new(classifier));
        self
    }
}

impl From<TokenCache> for AddTokenLayer {
    fn from(cache: TokenCache) -> Self {
        Self {
            settings: AddTokenSettings::new(cache),
        }
    }
}

// `S: Clone` here gives an early, readable compiler error.
impl<S: Clone> Layer<S> for AddTokenLayer {
    type Service = AddToken<S>;

    fn layer(&self, inner: S) -> AddToken<S> {
        AddToken::with_settings(inner, Arc::new(self.settings.clone()))
    }
}
