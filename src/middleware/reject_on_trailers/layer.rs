//! [`RejectOnTrailersLayer`]: the layer.

use tower_layer::Layer;

use super::service::RejectOnTrailers;
use crate::cache::TokenCache;

/// Reports gRPC's `UNAUTHENTICATED` in trailers to the cache, so that the next call uses a new token; it belongs
/// *below* [`BearerAuthLayer`](crate::BearerAuthLayer), with the same cache.
///
/// A gRPC server that rejects a call at once does so in the headers (`grpc-status: 16`, "trailers-only"). Then
/// [`StandardRejections`](crate::StandardRejections) recognizes the rejection, and the call is sent again with a new token. A
/// stream whose token ends while it runs gets the status in its trailers. Its messages have been delivered, so it isn't
/// sent again, but its token is not used any more. If the cache has another token by then, nothing changes.
///
/// Nothing is read ahead or held back, and nothing is allocated.
///
/// # Examples
///
/// ```
/// use http::{HeaderMap, Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_bearer::{BearerAuthLayer, RejectOnTrailersLayer, ReplayBody, Token, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
/// let cache = TokenCache::new(source_fn(|cx| async move {
///     Token::new(if cx.rejected_token().is_some() { "new" } else { "old" })
/// }));
/// let client = ServiceBuilder::new()
///     .layer(BearerAuthLayer::from(cache.clone()))
///     .layer(RejectOnTrailersLayer::new(cache.clone()))
///     .service(service_fn(|_: Request<ReplayBody<String>>| async {
///         let trailers = HeaderMap::from_iter([("grpc-status".parse()?, "16".parse()?)]);
///         let body = Full::<bytes::Bytes>::from("a message").with_trailers(async { Some(Ok(trailers)) });
///         let response = Response::builder().header("content-type", "application/grpc").body(body)?;
///         Ok::<_, tower::BoxError>(response)
///     }));
///
/// let request = Request::post("/prices.Prices/Watch").body(String::new())?;
/// client.oneshot(request).await?.into_body().collect().await?;
/// assert_eq!(cache.token().await?.header(), "Bearer new");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RejectOnTrailersLayer {
    cache: TokenCache,
}

impl RejectOnTrailersLayer {
    /// Creates a layer for requests with tokens of `cache`.
    pub fn new(cache: TokenCache) -> Self {
        Self { cache }
    }
}

impl<S> Layer<S> for RejectOnTrailersLayer {
    type Service = RejectOnTrailers<S>;

    fn layer(&self, inner: S) -> RejectOnTrailers<S> {
        RejectOnTrailers::new(inner, self.cache.clone())
    }
}
