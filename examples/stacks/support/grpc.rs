//! A gRPC service and its client, as `tonic-build` would generate them from
//!
//! ```proto
//! service Echo {
//!   rpc Say(Text) returns (Text);                  // the text
//!   rpc Join(stream Text) returns (Text);          // all texts in one
//!   rpc Split(Text) returns (stream Text);         // its words, up to the end or to the word `CUT`
//!   rpc Chat(stream Text) returns (stream Text);   // each text as it comes
//! }
//! ```
//!
//! A text is sent as its UTF-8 bytes instead of as Protobuf.

#![allow(dead_code, reason = "not every example and test uses all of it")]

use std::{convert::Infallible, future::ready};

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Response, uri::PathAndQuery};
use http_body::Body as HttpBody;
use tokio_stream::Stream;
use tonic::{
    Status, Streaming,
    body::Body,
    client::GrpcService,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tower::{BoxError, service_fn};

/// The word at which a stream ends with `UNAUTHENTICATED`, as if its token had expired.
pub(crate) const CUT: &str = "CUT";

/// The client, over any gRPC service.
#[derive(Clone, Debug)]
pub(crate) struct EchoClient<T> {
    service: T,
    origin: http::Uri,
}

impl<T> EchoClient<T>
where
    T: GrpcService<Body> + Clone,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError>,
{
    pub(crate) fn with_origin(service: T, origin: http::Uri) -> Self {
        Self { service, origin }
    }

    async fn ready(&self) -> Result<tonic::client::Grpc<T>, Status> {
        let mut grpc = tonic::client::Grpc::with_origin(self.service.clone(), self.origin.clone());
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }

    pub(crate) async fn say(&self, text: impl Into<String>) -> Result<String, Status> {
        let request = tonic::Request::new(text.into());
        let response = self
            .ready()
            .await?
            .unary(request, path("Say"), Text)
            .await?;
        Ok(response.into_inner())
    }

    pub(crate) async fn join(
        &self,
        texts: impl Stream<Item = String> + Send + 'static,
    ) -> Result<String, Status> {
        let request = tonic::Request::new(texts);
        let response = self
            .ready()
            .await?
            .client_streaming(request, path("Join"), Text)
            .await?;
        Ok(response.into_inner())
    }

    pub(crate) async fn split(&self, text: &str) -> Result<Streaming<String>, Status> {
        let request = tonic::Request::new(text.to_owned());
        let response = self
            .ready()
            .await?
            .server_streaming(request, path("Split"), Text)
            .await?;
        Ok(response.into_inner())
    }

    pub(crate) async fn chat(
        &self,
        texts: impl Stream<Item = String> + Send + 'static,
    ) -> Result<Streaming<String>, Status> {
        let request = tonic::Request::new(texts);
        let response = self
            .ready()
            .await?
            .streaming(request, path("Chat"), Text)
            .await?;
        Ok(response.into_inner())
    }
}

fn path(method: &'static str) -> PathAndQuery {
    format!("/echo.Echo/{method}").parse().expect("a path")
}

/// The server. `check_token` decides whether to answer, before any message is read.
pub(crate) async fn answer<B>(
    request: Request<B>,
    check_token: impl FnOnce(&str) -> Result<(), Status>,
) -> Result<Response<Body>, Infallible>
where
    B: HttpBody<Error: Into<BoxError> + Send> + Send + 'static,
{
    let token = request.headers().get(http::header::AUTHORIZATION);
    let token = token
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if let Err(status) = check_token(token.unwrap_or_default()) {
        return Ok(status.into_http());
    }
    let mut grpc = tonic::server::Grpc::new(Text);
    Ok(match request.uri().path() {
        "/echo.Echo/Say" => {
            let say = service_fn(|request: tonic::Request<String>| {
                ready(Ok(tonic::Response::new(request.into_inner())))
            });
            grpc.unary(say, request).await
        }
        "/echo.Echo/Join" => {
            let join = service_fn(|request: tonic::Request<Streaming<String>>| async {
                let mut texts = request.into_inner();
                let mut joined = String::new();
                while let Some(text) = texts.message().await? {
                    joined.push_str(&text);
                }
                Ok(tonic::Response::new(joined))
            });
            grpc.client_streaming(join, request).await
        }
        "/echo.Echo/Split" => {
            let split = service_fn(|request: tonic::Request<String>| {
                let words = request.into_inner();
                let words: Vec<_> = words
                    .split_whitespace()
                    .map(|word| match word {
                        CUT => Err(Status::unauthenticated("the token expired during the call")),
                        word => Ok(word.to_owned()),
                    })
                    .collect();
                ready(Ok(tonic::Response::new(tokio_stream::iter(words))))
            });
            grpc.server_streaming(split, request).await
        }
        "/echo.Echo/Chat" => {
            let chat = service_fn(|request: tonic::Request<Streaming<String>>| {
                ready(Ok(tonic::Response::new(request.into_inner())))
            });
            grpc.streaming(chat, request).await
        }
        _ => Status::unimplemented("no such method").into_http(),
    })
}

/// The codec of texts.
#[derive(Clone, Copy, Debug)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let text = String::from_utf8(bytes.into());
        text.map(Some)
            .map_err(|_| Status::internal("a text is not UTF-8"))
    }
}
