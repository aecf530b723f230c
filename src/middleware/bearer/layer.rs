//! [`BearerAuthLayer`]: the layer that users put into their stacks.

use std::sync::Arc;

use tower::retry::budget::Budget;
use tower_layer::Layer;

use super::{BearerAuth, send::BearerSettings};
use crate::{
    cache::TokenCache, challenge::ClassifyRejection, origins::Origins, token_source::TokenSource,
};

/// Adds a token to each request, refreshes it before it expires, and when the API rejects it, sends the request again with
/// a new one.
///
/// Clones of the layer and all services that it makes share one session.
///
/// It works without Tower too: requests of reqwest are sent with it (`RequestBuilderExt`, feature `reqwest`), and it is
/// a middleware of the crate `reqwest-middleware` (feature `reqwest-middleware`).
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_bearer::{BearerAuthLayer, ReplayBody, Token, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let source = source_fn(|_| async { Token::new("abc") });
/// let client = ServiceBuilder::new()
///     .layer(BearerAuthLayer::new(source))
///     .service(service_fn(|request: Request<ReplayBody<String>>| async move {
///         assert_eq!(request.headers()["authorization"], "Bearer abc");
///         Ok::<_, std::convert::Infallible>(Response::new(String::from("hello")))
///     }));
///
/// let request = Request::post("https://api.example.com/").body(String::from("an order"))?;
/// let response = client.oneshot(request).await?;
/// assert_eq!(response.body(), "hello");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct BearerAuthLayer<T = TokenCache> {
    pub(super) tokens: T,
    pub(super) settings: Arc<BearerSettings>,
}

impl BearerAuthLayer {
    /// A layer with a cache of its own over `source`, with the source's origins and schedule.
    ///
    /// To share a session with other layers or other uses, make a [`TokenCache`] and use `BearerAuthLayer::from`.
    pub fn new(source: impl TokenSource) -> Self {
        Self::from(TokenCache::new(source))
    }
}

impl<T> BearerAuthLayer<T> {
    pub(super) fn with_tokens(tokens: T) -> Self {
        Self {
            tokens,
            settings: Arc::default(),
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut BearerSettings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Where the token may be sent. Default: the [origins of the cache](TokenCache::origins).
    pub fn origins(self, origins: Origins) -> Self {
        self.edit(|settings| settings.send.origins = Some(origins))
    }

    /// Which responses reject the token. Default: [`StandardRejections`](crate::StandardRejections).
    pub fn classifier(self, classifier: impl ClassifyRejection) -> Self {
        self.edit(|settings| settings.send.classifier = Some(Arc::new(classifier)))
    }

    /// How many bytes of a request's body are kept while it is sent, in case it must be sent again. With 0, only requests
    /// without a body are sent again.
    ///
    /// Larger bodies are sent as usual. If such a request is rejected, the caller gets the rejection. Default: 64 KiB.
    pub fn replay_limit(self, bytes: usize) -> Self {
        self.edit(|settings| settings.replay_limit = bytes)
    }

    /// The budget for replays, shared by all services of this layer. Each replay withdraws from it, and deposits again if it
    /// is not rejected.
    ///
    /// Default: 1,000 replays a second, saved for up to 10 seconds.
    pub fn replay_budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.edit(|settings| settings.replays.budget = Arc::new(budget))
    }

    /// Sends only idempotent methods again (RFC 9110 §9.2.2). Default: `false`, all methods.
    ///
    /// A server that rejects the token has not processed the request, so sending it again does not repeat it. Turn this on
    /// for servers that are known to process a request and then reject its token.
    pub fn replay_only_idempotent(self, on: bool) -> Self {
        self.edit(|settings| settings.replays.only_idempotent = on)
    }
}

impl From<TokenCache> for BearerAuthLayer {
    fn from(cache: TokenCache) -> Self {
        Self::with_tokens(cache)
    }
}

// `S: Clone` here gives an early, readable compiler error.
impl<S: Clone, T: Clone> Layer<S> for BearerAuthLayer<T> {
    type Service = BearerAuth<S, T>;

    fn layer(&self, inner: S) -> BearerAuth<S, T> {
        BearerAuth::with_settings(inner, self.tokens.clone(), Arc::clone(&self.settings))
    }
}
