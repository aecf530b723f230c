//! Rejections that are told in a body, with a status that says nothing of the kind.

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, header};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::future::InspectBodyFuture;
use crate::{
    body::{PEEK_LIMIT, PeekBody},
    challenge::{ResponseHead, Verdict},
};

/// A plain function that an [`InspectBodyLayer`] asks: what do this head and the beginning of its body say about the
/// token?
pub type InspectFn = fn(ResponseHead<'_>, &[u8]) -> Option<Verdict>;

/// How long the beginning of a body is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks into the bodies of answers for what they say about the token; it stands *below*
/// [`BearerAuthLayer`](crate::BearerAuthLayer).
///
/// Some servers reject a token with a status that means something else, even 200, and say so in the body only. A function
/// gets the head of the answer and the beginning of its body, and says what that means; `None` if it is about something
/// else. The [`Verdict`] travels in the response's extensions, where [`BearerChallenge`](crate::BearerChallenge) finds
/// and obeys it. The body goes on unharmed, as a [`PeekBody`]: to its last byte, its trailers, or its error.
///
/// # What is looked at
///
/// Only answers to requests with an `Authorization`, and of those only bodies that could tell: not empty, not announced
/// as longer than the [`limit`](InspectBodyLayer::limit), and JSON by their `Content-Type`, or without one
/// ([`only_if`](InspectBodyLayer::only_if)). So event streams, gRPC and downloads are passed on as they come.
///
/// An answer that is looked at is held back until the beginning is there: until the limit is reached, the body ends, or
/// one second has passed ([`patience`](InspectBodyLayer::patience)). The function sees what there is by then, and a part
/// of a JSON text is no JSON. What is compressed must be decompressed below.
///
/// # Examples
///
/// A server answers 200 to everything, and means it now and then:
///
/// ```
/// use http::Response;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_bearer::{BearerAuthLayer, InspectBodyLayer, ResponseHead, Token, Verdict, source_fn};
///
/// fn session_expired(_: ResponseHead<'_>, beginning: &[u8]) -> Option<Verdict> {
///     (beginning == br#"{"code":"SESSION_EXPIRED"}"#).then_some(Verdict::Rejected)
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
/// use http::Request;
/// use http_body_util::BodyExt;
/// use tower::ServiceExt;
/// use tower_bearer::ReplayBody;
///
/// let source = source_fn(|request| async move {
///     Token::new(if request.rejected_token().is_some() { "new" } else { "old" })
/// });
/// let client = ServiceBuilder::new()
///     .layer(BearerAuthLayer::new(source))
///     .layer(InspectBodyLayer::new(session_expired))
///     .service(service_fn(|request: Request<ReplayBody<String>>| async move {
///         let good = request.headers()["authorization"] == "Bearer new";
///         let answer = if good { "done" } else { r#"{"code":"SESSION_EXPIRED"}"# };
///         Ok::<_, std::convert::Infallible>(Response::new(String::from(answer)))
///     }));
///
/// let request = Request::get("https://api.example.com/").body(String::new())?;
/// let answer = client.oneshot(request).await?;
/// assert_eq!(answer.into_body().collect().await?.to_bytes(), "done");
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct InspectBodyLayer<P = InspectFn> {
    judge: Judge<P>,
}

#[derive(Clone)]
pub(super) struct Judge<P> {
    pub(super) predicate: P,
    pub(super) only_if: fn(ResponseHead<'_>) -> bool,
    pub(super) limit: usize,
    pub(super) patience: Duration,
}

impl<P> InspectBodyLayer<P> {
    /// A layer that asks `predicate`, a `Fn(ResponseHead<'_>, &[u8]) -> Option<Verdict>`.
    pub fn new(predicate: P) -> Self {
        Self {
            judge: Judge {
                predicate,
                only_if: may_be_json,
                limit: PEEK_LIMIT,
                patience: PATIENCE,
            },
        }
    }

    /// How many bytes of a body are looked at; bodies that are announced as longer are not. Default: 4 KiB.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.judge.limit = bytes;
        self
    }

    /// How long an answer may be held back for the beginning of its body. Default: 1 second.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.judge.patience = patience;
        self
    }

    /// Which answers are looked at, by their head. Default: those whose `Content-Type` is JSON (`application/json`,
    /// `text/json`, `application/…+json` but for `stream+json` and `grpc+json`) or missing.
    pub fn only_if(mut self, check: fn(ResponseHead<'_>) -> bool) -> Self {
        self.judge.only_if = check;
        self
    }
}

impl<P: Clone, S> Layer<S> for InspectBodyLayer<P> {
    type Service = InspectBody<S, P>;

    fn layer(&self, inner: S) -> InspectBody<S, P> {
        InspectBody {
            inner,
            judge: self.judge.clone(),
        }
    }
}

/// Looks into the bodies of answers for what they say about the token; made by [`InspectBodyLayer`].
///
/// # Errors
///
/// Those of the inner service. An error of a body stays in that body.
#[derive(Clone)]
pub struct InspectBody<S, P = InspectFn> {
    inner: S,
    judge: Judge<P>,
}

impl<S, P> InspectBody<S, P> {
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
}

impl<S, P, B, R> Service<Request<B>> for InspectBody<S, P>
where
    S: Service<Request<B>, Response = Response<R>>,
    P: Fn(ResponseHead<'_>, &[u8]) -> Option<Verdict> + Clone,
    R: Body + Unpin,
{
    type Response = Response<PeekBody<R>>;
    type Error = S::Error;
    type Future = InspectBodyFuture<S::Future, P, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let told_who = request.headers().contains_key(header::AUTHORIZATION);
        let judge = told_who.then(|| self.judge.clone());
        InspectBodyFuture::new(self.inner.call(request), judge)
    }
}

impl<P> Judge<P> {
    pub(super) fn wants<R: Body>(&self, response: &Response<R>) -> bool {
        let body = response.body();
        !body.is_end_stream()
            && body.size_hint().lower() <= self.limit as u64
            && (self.only_if)(ResponseHead::of(response))
    }
}

/// Whether the content type says JSON, and one text of it; or nothing at all.
fn may_be_json(head: ResponseHead<'_>) -> bool {
    let Some(content_type) = head.headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let Ok(content_type) = content_type.to_str() else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    let is = |text: &str, wanted: &str| text.eq_ignore_ascii_case(wanted);
    // Streams of texts, which may come one by one for a long time.
    let is_stream = |name: &str| is(name, "stream") || is(name, "grpc");
    let suffix = subtype
        .rsplit_once('+')
        .map(|(name, suffix)| (name, is(suffix, "json")));
    match suffix {
        Some((name, is_json)) => is_json && is(kind, "application") && !is_stream(name),
        None => is(subtype, "json") && (is(kind, "application") || is(kind, "text")),
    }
}

impl<P> fmt::Debug for InspectBodyLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectBodyLayer")
            .field("limit", &self.judge.limit)
            .field("patience", &self.judge.patience)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, P> fmt::Debug for InspectBody<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
