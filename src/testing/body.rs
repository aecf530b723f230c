//! [`ResponseBody`] and [`ResponseFuture`]: what the servers return.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::time::{Instant, Sleep};
use tower::BoxError;

/// One frame of a huge body.
static CHUNK: [u8; 16 * 1024] = [b' '; 16 * 1024];

/// The response body of the servers. A [`Fault`](super::Fault) can make it very long or very slow.
///
/// It never fails.
#[derive(Debug)]
pub struct ResponseBody {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Whole(Bytes, Option<HeaderMap>),
    Huge(u64),
    Slow(Duration, Pin<Box<Sleep>>),
}

impl ResponseBody {
    pub(super) fn empty() -> Self {
        Self::from(Bytes::new())
    }

    pub(super) fn with_trailers(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self {
            kind: Kind::Whole(data, trailers),
        }
    }

    /// The same JSON object, in which the member `name` is `value`, or is missing if that is `null`.
    pub(super) fn with_member(self, name: &str, value: &Value) -> Self {
        let Kind::Whole(data, _) = &self.kind else {
            return self;
        };
        let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(data) else {
            return self;
        };
        match value {
            Value::Null => object.remove(name),
            value => object.insert(name.to_owned(), value.clone()),
        };
        Self::from(Bytes::from(Value::Object(object).to_string()))
    }

    pub(super) fn huge(bytes: u64) -> Self {
        Self {
            kind: Kind::Huge(bytes),
        }
    }

    pub(super) fn slow(every: Duration) -> Self {
        Self {
            kind: Kind::Slow(every, Box::pin(tokio::time::sleep(every))),
        }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(data: Bytes) -> Self {
        Self::with_trailers(data, None)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut self.get_mut().kind {
            Kind::Whole(data, _) if !data.is_empty() => Frame::data(std::mem::take(data)),
            Kind::Whole(_, trailers) => match trailers.take() {
                Some(trailers) => Frame::trailers(trailers),
                None => return Poll::Ready(None),
            },
            Kind::Huge(0) => return Poll::Ready(None),
            Kind::Huge(left) => {
                let len = usize::try_from(*left).map_or(CHUNK.len(), |left| left.min(CHUNK.len()));
                *left -= len as u64;
                Frame::data(Bytes::from_static(&CHUNK[..len]))
            }
            Kind::Slow(every, sleep) => {
                ready!(sleep.as_mut().poll(cx));
                // `Duration::MAX` overflows the clock, and means never.
                match Instant::now().checked_add(*every) {
                    Some(next) => sleep.as_mut().reset(next),
                    None => sleep.set(tokio::time::sleep(*every)),
                }
                Frame::data(Bytes::from_static(&CHUNK[..1]))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(data, trailers) => data.is_empty() && trailers.is_none(),
            Kind::Huge(left) => *left == 0,
            Kind::Slow(..) => false,
        }
    }

    /// The size of a huge body is not announced, so that the client has to limit what it reads.
    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(data, _) => SizeHint::with_exact(data.len() as u64),
            Kind::Huge(_) | Kind::Slow(..) => SizeHint::default(),
        }
    }
}

/// The response future of both servers.
pub struct ResponseFuture {
    inner: Pin<Box<dyn Future<Output = ResponseResult> + Send>>,
}

pub(super) type ResponseResult = Result<Response<ResponseBody>, BoxError>;

impl ResponseFuture {
    pub(super) fn new(response: impl Future<Output = ResponseResult> + Send + 'static) -> Self {
        Self {
            inner: Box::pin(response),
        }
    }
}

impl Future for ResponseFuture {
    type Output = ResponseResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ResponseResult> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// A request body that is read in steps.
pub(super) struct Upload<B> {
    body: Pin<Box<B>>,
    pub(super) data: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

impl<B> Upload<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(body: B) -> Self {
        Self {
            body: Box::pin(body),
            data: Vec::new(),
            trailers: None,
        }
    }

    /// Reads on until `enough` bytes are there, or the body ends.
    pub(super) async fn read(&mut self, enough: usize) -> Result<(), BoxError> {
        while self.data.len() < enough
            && let Some(frame) = self.body.frame().await
        {
            match frame.map_err(Into::into)?.into_data() {
                Ok(mut data) => self
                    .data
                    .extend_from_slice(&data.copy_to_bytes(data.remaining())),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
        Ok(())
    }
}
