//! [`InspectBodyLayer`]: the layer and its settings.

use std::{fmt, time::Duration};

use http::{Response, header};
use http_body::Body;
use tower_layer::Layer;

use super::service::InspectBody;
use crate::{
    body::PEEK_LIMIT,
    challenge::{ResponseHead, Verdict},
};

/// The function that an [`InspectBodyLayer`] calls: it gets the head of a response and the beginning of its body, and
/// returns what they say about the token.
pub type InspectFn = fn(ResponseHead<'_>, &[u8]) -> Option<Verdict>;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// Finds rejections of the token in response bodies; it belongs *below* [`BearerAuthLayer`](crate::BearerAuthLayer).
///
/// Some servers reject a token with a status that means something else, even 200, and say so in the body only. This
/// layer calls a function with the head of the response and the beginning of its body. The function returns a
/// [`Verdict`], or `None` if the body is about something else. The verdict is put into the response's extensions, where
/// [`StandardRejections`](crate::StandardRejections) finds it. The body is passed on as a [`PeekBody`](crate::PeekBody), with
/// all its data, trailers and errors.
///
/// # Which responses are inspected
///
/// Responses to requests with an `Authorization` header whose body is
///
/// - not empty,
/// - not announced as longer than the [`limit`](InspectBodyLayer::limit), and
/// - JSON by its `Content-Type`, or without one ([`only_if`](InspectBodyLayer::only_if) changes this).
///
/// So event streams, gRPC and downloads are passed on as they arrive.
///
/// A response that is inspected is held back until the limit is reached, the body ends, or the
/// [`timeout`](InspectBodyLayer::timeout) has passed. The function gets what has arrived by then, so it must expect
/// JSON that is cut off. Compressed bodies must be decompressed by a layer below.
///
/// # Examples
///
/// A server that answers 200 even if the session has expired:
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::BodyExt;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_bearer::{
///     BearerAuthLayer, InspectBodyLayer, ReplayBody, ResponseHead, Token, Verdict, source_fn,
/// };
///
/// fn session_expired(_: ResponseHead<'_>, beginning: &[u8]) -> Option<Verdict> {
///     (beginning == br#"{"code":"SESSION_EXPIRED"}"#).then_some(Verdict::Rejected)
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
/// let source = source_fn(|cx| async move {
///     Token::new(if cx.rejected_token().is_some() { "new" } else { "old" })
/// });
/// let client = ServiceBuilder::new()
///     .layer(BearerAuthLayer::new(source))
///     .layer(InspectBodyLayer::new(session_expired))
///     .service(service_fn(|request: Request<ReplayBody<String>>| async move {
///         let good = request.headers()["authorization"] == "Bearer new";
///         let body = if good { "done" } else { r#"{"code":"SESSION_EXPIRED"}"# };
///         Ok::<_, std::convert::Infallible>(Response::new(String::from(body)))
///     }));
///
/// let request = Request::get("https://api.example.com/").body(String::new())?;
/// let response = client.oneshot(request).await?;
/// assert_eq!(response.into_body().collect().await?.to_bytes(), "done");
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct InspectBodyLayer<P = InspectFn> {
    inspection: Inspection<P>,
}

/// Which responses are inspected, and how.
#[derive(Clone)]
pub(super) struct Inspection<P> {
    pub(super) inspect: P,
    pub(super) only_if: fn(ResponseHead<'_>) -> bool,
    pub(super) limit: usize,
    pub(super) timeout: Duration,
}

impl<P> InspectBodyLayer<P> {
    /// Creates a layer that calls `inspect`, a `Fn(ResponseHead<'_>, &[u8]) -> Option<Verdict>`.
    pub fn new(inspect: P) -> Self {
        Self {
            inspection: Inspection {
                inspect,
                only_if: may_be_json,
                limit: PEEK_LIMIT,
                timeout: DEFAULT_TIMEOUT,
            },
        }
    }

    /// How many bytes of a body are read ahead at most. Bodies that are announced as longer are not inspected. Default:
    /// [`PEEK_LIMIT`], 4 KiB.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.inspection.limit = bytes;
        self
    }

    /// How long a response is held back at most, waiting for the beginning of its body. Default: 1 second.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.inspection.timeout = timeout;
        self
    }

    /// Which responses are inspected, by their head. Default: those whose `Content-Type` is JSON or missing. JSON is
    /// `application/json`, `text/json` and `application/…+json`, except `stream+json` and `grpc+json`.
    pub fn only_if(mut self, check: fn(ResponseHead<'_>) -> bool) -> Self {
        self.inspection.only_if = check;
        self
    }
}

impl<P: Clone, S> Layer<S> for InspectBodyLayer<P> {
    type Service = InspectBody<S, P>;

    fn layer(&self, inner: S) -> InspectBody<S, P> {
        InspectBody::new(inner, self.inspection.clone())
    }
}

impl<P> Inspection<P> {
    pub(super) fn applies_to<R: Body>(&self, response: &Response<R>) -> bool {
        let body = response.body();
        !body.is_end_stream()
            && body.size_hint().lower() <= self.limit as u64
            && (self.only_if)(ResponseHead::of(response))
    }
}

/// Whether the content type is missing, or is that of a single JSON text.
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
    // These are streams of JSON texts, which may arrive one by one for a long time.
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
            .field("limit", &self.inspection.limit)
            .field("timeout", &self.inspection.timeout)
            .finish_non_exhaustive()
    }
}
