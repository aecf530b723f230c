//! The clients, and the requests that they send.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use tonic::{
    body::Body,
    client::GrpcService,
    transport::{Channel, Endpoint},
};
use tower::{BoxError, Service, ServiceExt};

use crate::{
    contender::Client,
    grpc::EchoClient,
    support::work::{Model, TOKEN},
};

const HEADERS: usize = 6;
const KILOBYTE: &[u8] = &[b'x'; 1024];
const MESSAGES: usize = 1_000;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Get,
    /// 1 KiB.
    Post,
    /// A gRPC call.
    Call,
}

impl Load {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => ", GET",
            Self::Post => ", POST of 1 KiB",
            Self::Call => "",
        }
    }

    fn body(self) -> &'static [u8] {
        match self {
            Self::Get => &[],
            Self::Post | Self::Call => KILOBYTE,
        }
    }

    fn model(self, url: &str) -> Model<Full<Bytes>> {
        let uri: Uri = format!("{url}/v1/orders?id=42").parse().expect("a URI");
        let method = match self {
            Self::Get => Method::GET,
            Self::Post | Self::Call => Method::POST,
        };
        let body = Full::new(Bytes::from_static(self.body()));
        Model::new(HEADERS, body).addressed_to(method, uri)
    }
}

/// hyper's client. It speaks HTTP/2 from the start, or HTTP/1.1.
pub(crate) fn hyper<B>(http2: bool) -> HyperClient<HttpConnector, B>
where
    B: http_body::Body<Data: Send> + Send,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    HyperClient::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(connector)
}

/// A stack that takes `http` requests.
#[derive(Clone)]
pub(crate) struct HttpClient<S> {
    service: S,
    model: Model<Full<Bytes>>,
}

impl<S> HttpClient<S> {
    pub(crate) fn new(service: S, url: &str, load: Load) -> Self {
        let model = load.model(url);
        Self { service, model }
    }
}

impl<S, R> Client for HttpClient<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: http_body::Body<Data: Send, Error: Into<BoxError>> + Send,
{
    async fn exchange(&mut self) -> Result<(), BoxError> {
        let request = self.model.request();
        let service = self.service.ready().await.map_err(Into::into)?;
        let response = service.call(request).await.map_err(Into::into)?;
        check(response.status())?;
        response.into_body().collect().await.map_err(Into::into)?;
        Ok(())
    }
}

fn check(status: StatusCode) -> Result<(), BoxError> {
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err(format!("the server answered {status}").into())
    }
}

/// reqwest's client. It follows no redirects and uses no proxy.
pub(crate) fn reqwest() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("reqwest starts")
}

/// Requests as a user of reqwest builds them.
#[derive(Clone)]
pub(crate) struct ReqwestRequests {
    pub(crate) reqwest: reqwest::Client,
    pub(crate) model: Model<()>,
    pub(crate) url: reqwest::Url,
    body: &'static [u8],
}

impl ReqwestRequests {
    pub(crate) fn new(url: &str, load: Load) -> Self {
        let model = load.model(url);
        Self {
            reqwest: reqwest(),
            url: model.uri().to_string().parse().expect("a URL"),
            model: model.with_body(()),
            body: load.body(),
        }
    }

    pub(crate) fn next(&self) -> reqwest::RequestBuilder {
        let method = self.model.method().clone();
        self.fill(self.reqwest.request(method, self.url.clone()))
    }

    /// Adds headers and the body to a request.
    pub(crate) fn fill(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let (head, ()) = self.model.request().into_parts();
        let request = request.headers(head.headers);
        if self.body.is_empty() {
            request
        } else {
            request.body(self.body)
        }
    }
}

/// Reads a response, which must be a success.
pub(crate) async fn finish(response: reqwest::Response) -> Result<(), BoxError> {
    check(response.status())?;
    response.bytes().await?;
    Ok(())
}

/// A stack over reqwest, with reqwest's own requests and responses above it.
#[derive(Clone)]
pub(crate) struct ReqwestClient<S> {
    service: S,
    requests: ReqwestRequests,
}

impl<S> ReqwestClient<S> {
    pub(crate) fn new(service: S, url: &str, load: Load) -> Self {
        let requests = ReqwestRequests::new(url, load);
        Self { service, requests }
    }
}

impl<S, R> Client for ReqwestClient<S>
where
    S: Service<Request<reqwest::Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Into<reqwest::Body> + Send,
{
    async fn exchange(&mut self) -> Result<(), BoxError> {
        let request = self.requests.next().build()?;
        let request = Request::<reqwest::Body>::try_from(request)?;
        let service = self.service.ready().await.map_err(Into::into)?;
        let response = service.call(request).await.map_err(Into::into)?;
        finish(response.into()).await
    }
}

/// reqwest by itself, with a token that never changes.
#[derive(Clone)]
pub(crate) struct ReqwestAlone(ReqwestRequests);

impl ReqwestAlone {
    pub(crate) fn new(url: &str, load: Load) -> Self {
        Self(ReqwestRequests::new(url, load))
    }
}

impl Client for ReqwestAlone {
    async fn exchange(&mut self) -> Result<(), BoxError> {
        finish(self.0.next().bearer_auth(TOKEN).send().await?).await
    }
}

/// tonic's connection.
pub(crate) fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
    endpoint.connect_lazy()
}

fn echo<S>(service: S, url: &str) -> EchoClient<S>
where
    S: GrpcService<Body> + Clone,
    S::ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    EchoClient::with_origin(service, url.parse().expect("a URI"))
}

/// Calls with one message each way.
#[derive(Clone)]
pub(crate) struct UnaryClient<S> {
    echo: EchoClient<S>,
    text: String,
}

impl<S> UnaryClient<S>
where
    S: GrpcService<Body> + Clone,
    S::ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    pub(crate) fn new(service: S, url: &str, load: Load) -> Self {
        Self {
            echo: echo(service, url),
            text: String::from_utf8_lossy(load.body()).into_owned(),
        }
    }
}

impl<S> Client for UnaryClient<S>
where
    S: GrpcService<Body, Future: Send> + Clone + Send + Sync + 'static,
    S::ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    async fn exchange(&mut self) -> Result<(), BoxError> {
        self.echo.say(&*self.text).await?;
        Ok(())
    }
}

/// Calls with one message there and [`MESSAGES`] back.
#[derive(Clone)]
pub(crate) struct StreamClient<S> {
    echo: EchoClient<S>,
    text: String,
}

impl<S> StreamClient<S>
where
    S: GrpcService<Body> + Clone,
    S::ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    pub(crate) fn new(service: S, url: &str, _: Load) -> Self {
        Self {
            echo: echo(service, url),
            text: "message ".repeat(MESSAGES),
        }
    }
}

impl<S> Client for StreamClient<S>
where
    S: GrpcService<Body, Future: Send> + Clone + Send + Sync + 'static,
    S::ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    async fn exchange(&mut self) -> Result<(), BoxError> {
        let mut messages = self.echo.split(&self.text).await?;
        let mut count = 0;
        while messages.message().await?.is_some() {
            count += 1;
        }
        if count == MESSAGES {
            Ok(())
        } else {
            Err(format!("{count} messages came").into())
        }
    }
}
