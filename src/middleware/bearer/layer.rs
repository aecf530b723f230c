//! [`BearerAuthLayer`]: the layer users put into their stacks.

use std::sync::Arc;

use tower::retry::budget::Budget;
use tower_layer::Layer;

use super::service::BearerAuth;
use crate::{
    body::REPLAY_LIMIT, cache::TokenCache, challenge::ClassifyRejection,
    middleware::add_token::Guard, origins::Origins, token_source::TokenSource,
};

/// Puts a token on each request, renews it ahead of its end, and when the server rejects it, gets another and sends the
/// request again.
///
/// Clones of the layer, and all services it makes, share one session.
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
pub struct BearerAuthLayer {
    guard: Guard,
    replay_limit: usize,
}

impl BearerAuthLayer {
    /// A layer with a cache of its own over `source`: scoped and timed as the source says.
    ///
    /// To share a session with other layers or other uses, make a [`TokenCache`] and use `BearerAuthLayer::from`.
    pub fn new(source: impl TokenSource) -> Self {
        Self::from(TokenCache::new(source))
    }

    /// Where the token may go. Default: what the source says.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.guard.origins = origins;
        self
    }

    /// What counts as a rejection of the token. Default: [`BearerChallenge`](crate::BearerChallenge).
    pub fn classifier(mut self, classifier: impl ClassifyRejection) -> Self {
        self.guard.classifier = Some(Arc::new(classifier));
        self
    }

    /// How many bytes of a request's body are kept while it is sent, in case it must be sent again; 0 replays only
    /// requests without a body.
    ///
    /// Larger bodies flow on unharmed; if one is rejected, the caller gets the rejection. Default: 64 KiB.
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// The budget that replays are charged to, shared by all services of this layer. A replay that is accepted is paid
    /// back.
    ///
    /// Default: 1,000 replays a second, saved up for ten.
    pub fn replay_budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.guard.replays).budget = Arc::new(budget);
        self
    }

    /// Replays only methods that are idempotent (RFC 9110 §9.2.2).
    ///
    /// Default: all. A server that answers 401 to the token has not processed the request, so that sending it again is
    /// no repetition: that is what "rejected" means here, and anything less clear is not replayed. For servers that are
    /// known to act first and to reject later, turn this on.
    pub fn replay_only_idempotent(mut self, on: bool) -> Self {
        Arc::make_mut(&mut self.guard.replays).only_idempotent = on;
        self
    }
}

impl From<TokenCache> for BearerAuthLayer {
    fn from(cache: TokenCache) -> Self {
        Self {
            guard: Guard::new(cache),
            replay_limit: REPLAY_LIMIT,
        }
    }
}

/// Only over what can be cloned, so that the compiler says of anything else what it lacks, and where.
impl<S: Clone> Layer<S> for BearerAuthLayer {
    type Service = BearerAuth<S>;

    fn layer(&self, inner: S) -> BearerAuth<S> {
        BearerAuth::new(inner, Arc::new(self.guard.clone()), self.replay_limit)
    }
}
