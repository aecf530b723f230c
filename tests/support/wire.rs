//! Helpers for tests over real connections: a source, a server that records requests, and clients for both versions.

#![allow(dead_code, reason = "each test binary uses a part of these helpers")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::mpsc, task::yield_now};
use tower::{BoxError, service_fn};
use tower_bearer::{
    ReplayBody, Schedule, Token, TokenContext, TokenError, TokenErrorKind, TokenSource,
    testing::{Served, serve},
};

pub(crate) type TestResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;
pub(crate) type HyperClient<B> = Client<HttpConnector, ReplayBody<B>>;

/// Both versions of HTTP: whether it is HTTP/2.
pub(crate) const VERSIONS: [bool; 2] = [false, true];

/// A client for one version of HTTP, without TLS.
pub(crate) fn client<B>(http2: bool) -> HyperClient<B>
where
    B: Body + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

/// A source that numbers its tokens: `token-1`, `token-2`, …
#[derive(Clone, Default)]
pub(crate) struct Numbered(Arc<NumberedState>);

#[derive(Default)]
pub(crate) struct NumberedState {
    calls: AtomicUsize,
    fails: AtomicBool,
    min_interval: Mutex<Duration>,
}

impl Numbered {
    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// Whether the source fails from now on.
    pub(crate) fn fail(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::SeqCst);
    }

    /// The minimum interval between attempts. None by default, because some tests run in real time.
    pub(crate) fn min_interval(self, min_interval: Duration) -> Self {
        *self.0.min_interval.lock().unwrap() = min_interval;
        self
    }
}

impl TokenSource for Numbered {
    async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
        let number = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        yield_now().await;
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(TokenError::new(
                TokenErrorKind::Server,
                "the source was set to fail",
            ));
        }
        Token::new(format!("token-{number}"))
    }

    fn schedule(&self) -> Schedule {
        Schedule::default().min_interval(*self.0.min_interval.lock().unwrap())
    }
}

/// A complete request as the server received it.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl ReceivedRequest {
    pub(crate) fn token(&self) -> Option<&str> {
        let value = self.headers.get("authorization")?.to_str().ok()?;
        value.strip_prefix("Bearer ")
    }
}

/// A server that records its requests.
pub(crate) struct TestServer {
    pub(crate) served: Served,
    seen: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl TestServer {
    /// Responds with `respond` when it has read the whole request.
    pub(crate) async fn new(
        respond: impl Fn(&ReceivedRequest) -> TestResponse + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::<Mutex<Vec<ReceivedRequest>>>::default();
        let respond = Arc::new(respond);
        let log = seen.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let (respond, log) = (respond.clone(), log.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?;
                let seen = ReceivedRequest {
                    method: head.method,
                    version: head.version,
                    headers: head.headers,
                    trailers: body.trailers().cloned(),
                    body: body.to_bytes(),
                };
                let response = respond(&seen);
                log.lock().unwrap().push(seen);
                Ok::<_, BoxError>(response)
            }
        });
        let served = serve(service).await.unwrap();
        Self { served, seen }
    }

    /// Rejects `token-1` with a challenge and a body, and echoes the bodies of other requests.
    pub(crate) async fn rejecting_token_1() -> Self {
        Self::new(|seen| match seen.token() {
            Some("token-1") | None => invalid_token(),
            Some(_) => ok(seen.body.clone()),
        })
        .await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.served.url() + path
    }

    pub(crate) fn seen(&self) -> Vec<ReceivedRequest> {
        self.seen.lock().unwrap().clone()
    }

    /// The tokens of the requests, in order of arrival. `""` stands for none.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let token = |seen: &ReceivedRequest| seen.token().unwrap_or_default().to_owned();
        self.seen().iter().map(token).collect()
    }
}

pub(crate) fn respond(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: impl Into<Bytes>,
) -> TestResponse {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        response
            .headers_mut()
            .append(*name, HeaderValue::from_static(value));
    }
    response
}

pub(crate) fn ok(body: impl Into<Bytes>) -> TestResponse {
    respond(200, &[], body)
}

pub(crate) fn invalid_token() -> TestResponse {
    let challenge = r#"Bearer error="invalid_token""#;
    respond(
        401,
        &[("www-authenticate", challenge), ("x-why", "expired")],
        "rejected",
    )
}

/// The text of a response body.
pub(crate) async fn text<B: Body>(response: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

/// The kind of the `TokenError` in the extensions of a response: why it was not replayed.
pub(crate) fn reason<B>(response: &Response<B>) -> Option<TokenErrorKind> {
    response
        .extensions()
        .get::<TokenError>()
        .map(TokenError::kind)
}

/// A body whose pieces come from a channel.
pub(crate) struct Upload {
    pieces: mpsc::UnboundedReceiver<Bytes>,
    size: Option<u64>,
}

impl Upload {
    /// `size` is the length that the body announces, if any.
    pub(crate) fn new(size: Option<u64>) -> (mpsc::UnboundedSender<Bytes>, Self) {
        let (sender, pieces) = mpsc::unbounded_channel();
        (sender, Self { pieces, size })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.poll_recv(cx);
        if let (Poll::Ready(Some(piece)), Some(size)) = (&piece, &mut self.size) {
            *size -= piece.len() as u64;
        }
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.size == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// A body that yields these frames.
#[derive(Default)]
pub(crate) struct Frames(pub(crate) VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bytes in which all pieces differ.
pub(crate) fn bytes(size: usize) -> Bytes {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..size).map(next).collect()
}
