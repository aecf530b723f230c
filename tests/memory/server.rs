//! Services in memory whose own blocks hold no secret: what they send is never freed.

use std::{
    collections::VecDeque,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body::{Body, Frame};
use tower::{BoxError, Service};

use crate::scanner::unwatched;

/// A response, and what the request before it must show.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    expected: &'static [&'static str],
    status: u16,
    pieces: &'static [&'static [u8]],
    is_broken: bool,
}

impl Answer {
    /// A response with this body in one piece.
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        unwatched(|| Self {
            expected: &[],
            status,
            pieces: Box::leak(Box::new([&*Box::leak(body.into().into_boxed_slice())])),
            is_broken: false,
        })
    }

    /// The body arrives in pieces of `size` bytes.
    pub(crate) fn in_pieces(self, size: usize) -> Self {
        let pieces = self.pieces.iter().flat_map(|piece| piece.chunks(size));
        Self {
            pieces: Box::leak(pieces.collect()),
            ..self
        }
    }

    /// The connection breaks at the end of the body.
    pub(crate) fn broken(self) -> Self {
        Self {
            is_broken: true,
            ..self
        }
    }

    /// The request must show these secrets in its `Authorization` header, decoded, or in its body.
    pub(crate) fn after(self, expected: &'static [&'static str]) -> Self {
        Self { expected, ..self }
    }
}

/// Gives one answer after another. Panics when there is none left.
#[derive(Clone)]
pub(crate) struct Server {
    answers: &'static [Answer],
    requests: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn new(answers: &[Answer]) -> Self {
        Self {
            answers: Box::leak(answers.into()),
            requests: Arc::default(),
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl<B: Body<Data = Bytes>> Service<Request<B>> for Server {
    type Response = Response<Pieces>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.answers[number];
        let (head, body) = request.into_parts();
        let frames = unwatched(|| read(body));
        unwatched(|| {
            let body = frames.concat();
            for secret in answer.expected {
                let is_shown = shows(&head.headers, &body, secret);
                assert!(is_shown, "request {number} does not show `{secret}`");
            }
        });
        // Freed while memory is watched, like the head.
        drop(frames);
        let mut response = Response::new(Pieces {
            left: answer.pieces.iter().copied().collect(),
            is_broken: answer.is_broken,
        });
        *response.status_mut() = answer.status.try_into().unwrap();
        ready(Ok(response))
    }
}

/// The body of a request, which is in memory.
fn read<B: Body<Data = Bytes>>(body: B) -> Vec<Bytes> {
    let mut body = pin!(body);
    let mut all = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
        all.extend(frame.into_data());
    }
    all
}

fn shows(headers: &HeaderMap, body: &[u8], secret: &str) -> bool {
    let header = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let header = header.unwrap_or_default();
    let basic = header.strip_prefix(b"Basic ").unwrap_or_default();
    let decoded = BASE64_STANDARD.decode(basic).unwrap_or_default();
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    [header, &decoded, body].iter().any(|text| {
        [secret, &encoded].iter().any(|secret| {
            text.windows(secret.len())
                .any(|window| window == secret.as_bytes())
        })
    })
}

/// A body of pieces that are never freed.
pub(crate) struct Pieces {
    left: VecDeque<&'static [u8]>,
    is_broken: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let end = || {
            self.is_broken
                .then(|| Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()))
        };
        Poll::Ready(match self.left.front() {
            None => end(),
            Some(_) => self
                .left
                .pop_front()
                .map(|piece| Ok(Frame::data(Bytes::from_static(piece)))),
        })
    }
}

/// Runs a future whose time is not real.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(future)
}
