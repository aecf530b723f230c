//! Requests, an inner service that does nothing, and a driver that needs no runtime.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::Empty;
use tower::Service;

/// As long as a usual opaque token.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

/// The inner service: reads the body or not, drops the request, and answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    pub(crate) reads: bool,
}

impl<B: Body + Unpin> Service<Request<B>> for Bare {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.reads {
            drain(request.body_mut());
        }
        black_box(&request);
        ready(Ok(Response::new(Empty::new())))
    }
}

/// Reads a body that is never pending to its end, as an HTTP/1 connection would.
pub(crate) fn drain<B: Body + Unpin>(body: &mut B) {
    let mut cx = Context::from_waker(Waker::noop());
    while !body.is_end_stream() {
        match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Ready(Some(frame)) => drop(black_box(frame)),
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
}

/// A body of unknown length, in chunks of 256 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunks(pub(crate) u32);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.0.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.0 = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 256])))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }
}

/// The template of all requests. Each request has its own copies of the strings.
#[derive(Clone)]
pub(crate) struct Model<B> {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, String)>,
    extensions: Extensions,
    body: B,
}

const HEADERS: [(&str, &str); 6] = [
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("user-agent", "orders/1.4.2 (linux; x86_64)"),
    ("x-request-id", "0123456789abcdef0123456789abcdef"),
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    ("x-tenant", "tenant-0042"),
];

impl<B: Clone> Model<B> {
    pub(crate) fn new(headers: usize, body: B) -> Self {
        let further = (HEADERS.len()..headers).map(|i| {
            let name = format!("x-further-{i}").parse().expect("it is a name");
            (name, format!("value number {i}"))
        });
        Self {
            method: Method::POST,
            uri: Uri::from_static("https://api.example.com/v1/orders?id=42"),
            headers: HEADERS
                .into_iter()
                .take(headers)
                .map(|(name, value)| (HeaderName::from_static(name), String::from(value)))
                .chain(further)
                .collect(),
            extensions: Extensions::new(),
            body,
        }
    }

    /// The same requests to another server, and with another method.
    pub(crate) fn addressed_to(self, method: Method, uri: Uri) -> Self {
        Self {
            method,
            uri,
            ..self
        }
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The same requests with another body.
    pub(crate) fn with_body<C>(self, body: C) -> Model<C> {
        Model {
            method: self.method,
            uri: self.uri,
            headers: self.headers,
            extensions: self.extensions,
            body,
        }
    }

    /// The same requests with an extension.
    pub(crate) fn with_extension<T>(mut self, extension: T) -> Self
    where
        T: Clone + Send + Sync + 'static,
    {
        self.extensions.insert(extension);
        self
    }

    /// A request with room for one more header, so that growing the map is not measured.
    pub(crate) fn request(&self) -> Request<B> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 2);
        for (name, value) in &self.headers {
            let value = HeaderValue::try_from(value.clone()).expect("it is a value");
            headers.append(name.clone(), value);
        }
        *request.headers_mut() = headers;
        *request.extensions_mut() = self.extensions.clone();
        request
    }
}

/// Sends a request through a stack that is never pending.
pub(crate) fn drive<S, B>(service: &mut S, request: Request<B>)
where
    S: Service<Request<B>>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let answer = pin!(service.call(request)).poll(&mut cx);
    assert!(matches!(black_box(answer), Poll::Ready(Ok(_))));
}

/// One contender with one kind of request.
pub(crate) trait Runner: Send {
    fn name(&self) -> &'static str;

    /// Builds requests. This is not measured.
    fn fill(&mut self, count: usize);

    /// Sends all of them. This is measured.
    fn run(&mut self);

    /// The same contender with a clone of its service, if the service can be cloned.
    fn with_clone(&self) -> Option<Box<dyn Runner>> {
        None
    }
}

struct ServiceRunner<S, B> {
    name: &'static str,
    service: S,
    model: Model<B>,
    requests: Vec<Request<B>>,
}

pub(crate) fn contender<S, B>(name: &'static str, service: S, model: &Model<B>) -> Box<dyn Runner>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    B: Clone + Send + 'static,
{
    Box::new(ServiceRunner {
        name,
        service,
        model: model.clone(),
        requests: Vec::new(),
    })
}

impl<S, B> Runner for ServiceRunner<S, B>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    B: Clone + Send + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn fill(&mut self, count: usize) {
        self.requests.clear();
        let request = || self.model.request();
        self.requests
            .extend(std::iter::repeat_with(request).take(count));
    }

    fn run(&mut self) {
        for request in self.requests.drain(..) {
            drive(&mut self.service, request);
        }
    }

    fn with_clone(&self) -> Option<Box<dyn Runner>> {
        Some(contender(self.name, self.service.clone(), &self.model))
    }
}
