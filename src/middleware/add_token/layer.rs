//! The layer and its service.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    future::{AddTokenFuture, Authorizing},
    header,
};
use crate::{
    cache::{Issued, Lookup, Sent, TokenCache, Wait},
    challenge::{BearerChallenge, ClassifyRejection, ResponseHead, Verdict},
    error::{TokenError, TokenErrorKind},
    middleware::retry::Replays,
    origins::{OriginMatch, Origins},
    token_source::TokenSource,
};

/// Puts a token on each request: any body, no replay.
///
/// A rejection is reported to the cache, so that the next request has another token, and the response is handed on as it
/// is. For requests to be healed, use [`BearerAuthLayer`](crate::BearerAuthLayer), or put
/// [`RefreshOnReject`](crate::RefreshOnReject) above.
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
    guard: Guard,
}

impl AddTokenLayer {
    /// A layer with a cache of its own over `source`, sending tokens where the source says they may go.
    pub fn new(source: impl TokenSource) -> Self {
        Self::from(TokenCache::new(source))
    }

    /// Where the token may go. Default: what the source says.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.guard.origins = origins;
        self
    }

    /// What counts as a rejection of the token. Default: [`BearerChallenge`].
    pub fn classifier(mut self, classifier: impl ClassifyRejection) -> Self {
        self.guard.classifier = Some(Arc::new(classifier));
        self
    }
}

impl From<TokenCache> for AddTokenLayer {
    fn from(cache: TokenCache) -> Self {
        Self {
            guard: Guard::new(cache),
        }
    }
}

/// Only over what can be cloned, so that the compiler says of anything else what it lacks, and where.
impl<S: Clone> Layer<S> for AddTokenLayer {
    type Service = AddToken<S>;

    fn layer(&self, inner: S) -> AddToken<S> {
        AddToken::new(inner, Arc::new(self.guard.clone()))
    }
}

/// What stands between a token and the network.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) cache: TokenCache,
    pub(crate) origins: Origins,
    /// `None` is the default, which costs no call through a pointer.
    pub(crate) classifier: Option<Arc<dyn ClassifyRejection>>,
    pub(crate) replays: Arc<Replays>,
}

impl Guard {
    pub(crate) fn new(cache: TokenCache) -> Self {
        Self {
            origins: cache.origins().clone(),
            cache,
            classifier: None,
            replays: Arc::default(),
        }
    }

    /// Whether the token goes with this request, for who must know before he keeps anything of it. One that has an
    /// `Authorization` of the caller's is none of our business.
    #[inline]
    pub(crate) fn judge<B>(&self, request: &Request<B>) -> OriginMatch {
        if header::is_set(request.headers()) {
            return OriginMatch::NotAllowed;
        }
        self.origins.check(request.uri())
    }

    /// Whether this answer rejects the token that was sent. If it shows that the token is good, that is noted.
    #[inline]
    pub(crate) fn rejects<R>(&self, response: &Response<R>, sent: Sent) -> bool {
        let head = ResponseHead::of(response);
        let verdict = match &self.classifier {
            None => BearerChallenge.classify(head),
            Some(classifier) => classifier.classify(head),
        };
        if !sent.proven && head.proves_token(verdict) {
            self.cache.prove(sent.generation);
        }
        verdict == Verdict::Rejected
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("cache", &self.cache)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}

/// Puts a token on each request; made by [`AddTokenLayer`].
///
/// # Readiness
///
/// It is ready when the inner service is. But while a request waits for a token it holds no readiness of the inner
/// service: a token endpoint behind the same client and the same concurrency limit could not be called otherwise. For
/// that the inner service must be [`Clone`]; one that isn't can stand behind a `tower::buffer::Buffer`.
#[derive(Clone, Debug)]
pub struct AddToken<S> {
    inner: S,
    guard: Arc<Guard>,
}

impl<S> AddToken<S> {
    pub(crate) fn new(inner: S, guard: Arc<Guard>) -> Self {
        Self { inner, guard }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }

    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Makes a request ready to be sent to the inner service: with the token, if `scope` says that it may have it.
    #[inline]
    pub(crate) fn prepare<B>(
        &self,
        request: &mut Request<B>,
        scope: OriginMatch,
    ) -> Result<Option<Sent>, NotYet> {
        let headers = request.headers_mut();
        if scope == OriginMatch::Allowed
            && let Some(sent) = self.guard.cache.read(|issued| authorize(issued, headers))
        {
            return Ok(Some(sent));
        }
        self.prepare_otherwise(headers, scope)
    }

    #[cold]
    fn prepare_otherwise(
        &self,
        headers: &mut HeaderMap,
        scope: OriginMatch,
    ) -> Result<Option<Sent>, NotYet> {
        if scope == OriginMatch::NotAllowed || header::is_set(headers) {
            return Ok(None);
        }
        if scope == OriginMatch::Insecure {
            let reason = "a request with a token was to go over plain http; use https, or a loopback address";
            let error = TokenError::new(TokenErrorKind::InsecureOrigin, reason);
            return Err(NotYet::Failed(error));
        }
        match self.guard.cache.lookup() {
            Lookup::Ready(issued) => Ok(authorize(&issued, headers)),
            Lookup::Wait(wait) => Err(NotYet::Wait(wait)),
            Lookup::Failed(error) => Err(NotYet::Failed(error)),
        }
    }

    /// Puts the token on what is sent again. Who has waited for one already waits for no other, nor fails for want of it.
    pub(crate) fn prepare_again<B>(
        &self,
        request: &mut Request<B>,
        waited_for: &Issued,
    ) -> Option<Sent> {
        let headers = request.headers_mut();
        let cache = &self.guard.cache;
        cache.read_or(waited_for, |issued| authorize(issued, headers))
    }

    /// Keeps what can't be sent yet, and gives back the readiness that was acquired for it.
    #[cold]
    pub(crate) fn hold<B>(&mut self, request: Request<B>, not_yet: NotYet) -> Authorizing<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        // It goes with the instance that acquired it; a clone has none.
        let inner = self.inner.clone();
        drop(mem::replace(&mut self.inner, inner.clone()));
        match not_yet {
            NotYet::Wait(wait) => {
                Authorizing::waiting(wait, inner, request, self.guard.cache.clone())
            }
            NotYet::Failed(error) => Authorizing::failed(error),
        }
    }
}

/// Why a request can't be sent at once.
pub(crate) enum NotYet {
    Wait(Wait),
    Failed(TokenError),
}

/// Puts the token on, unless the caller has set an `Authorization` himself; and tells what was put on.
#[inline]
pub(super) fn authorize(issued: &Issued, headers: &mut HeaderMap) -> Option<Sent> {
    header::put_on(headers, issued.header()).then(|| issued.sent())
}

impl<S, B, R> Service<Request<B>> for AddToken<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = AddTokenFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let scope = self.guard.origins.check(request.uri());
        let sending = match self.prepare(&mut request, scope) {
            Ok(sent) => Authorizing::sent(self.inner.call(request), sent),
            Err(not_yet) => self.hold(request, not_yet),
        };
        AddTokenFuture::new(sending, Arc::clone(&self.guard))
    }
}
