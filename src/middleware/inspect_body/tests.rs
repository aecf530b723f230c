use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};
use tower_layer::Layer;

use super::*;
use crate::{
    body::PeekBody,
    challenge::{ResponseHead, Verdict},
};

/// A body that yields these frames, or an error, and then ends or hangs.
#[derive(Default)]
struct Script {
    frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
    announced: Option<u64>,
    hangs: bool,
    polled: Arc<AtomicUsize>,
}

impl Script {
    fn data(pieces: &[&'static str]) -> Self {
        let frames = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from(*piece))));
        Self {
            frames: frames.collect(),
            ..Self::default()
        }
    }

    fn then(mut self, frame: Result<Frame<Bytes>, &'static str>) -> Self {
        self.frames.push_back(frame);
        self
    }

    fn hanging(mut self) -> Self {
        self.hangs = true;
        self
    }

    fn announcing(mut self, bytes: u64) -> Self {
        self.announced = Some(bytes);
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.polled.fetch_add(1, Ordering::SeqCst);
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None if self.hangs => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && !self.hangs
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map(SizeHint::with_exact).unwrap_or_default()
    }
}

fn reject_bad(_: ResponseHead<'_>, beginning: &[u8]) -> Option<Verdict> {
    (beginning == b"bad").then_some(Verdict::Rejected)
}

fn layer() -> InspectBodyLayer {
    InspectBodyLayer::new(reject_bad)
}

/// Sends a request with a token through the layer to a service that returns `response`.
async fn respond<P>(
    layer: InspectBodyLayer<P>,
    response: Response<Script>,
) -> Response<PeekBody<Script>>
where
    P: Fn(ResponseHead<'_>, &[u8]) -> Option<Verdict> + Clone,
{
    let mut response = Some(response);
    let service = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(response.take().unwrap()))
    });
    let request = Request::get("/").header("authorization", "Bearer abc");
    layer
        .layer(service)
        .oneshot(request.body(()).unwrap())
        .await
        .unwrap()
}

fn verdict<B>(response: &Response<B>) -> Option<Verdict> {
    response.extensions().get().copied()
}

#[tokio::test]
async fn the_verdict_is_in_the_extensions_and_the_body_is_whole() {
    let trailers = HeaderMap::from_iter([(header::ETAG, header::HeaderValue::from_static("x"))]);
    let script = Script::data(&["b", "", "ad"]).then(Ok(Frame::trailers(trailers.clone())));
    let response = respond(
        layer(),
        Response::builder()
            .status(202)
            .header("x-a", "b")
            .body(script)
            .unwrap(),
    )
    .await;
    assert_eq!(verdict(&response), Some(Verdict::Rejected));
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["x-a"], "b");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(body.to_bytes(), "bad");
}

#[tokio::test]
async fn a_body_that_says_nothing_leaves_no_verdict() {
    let response = respond(layer(), Response::new(Script::data(&["good"]))).await;
    assert_eq!(verdict(&response), None);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "good"
    );
}

#[tokio::test]
async fn an_error_of_the_body_keeps_its_position() {
    let response = respond(
        layer(),
        Response::new(Script::data(&["bad"]).then(Err("cut"))),
    )
    .await;
    assert_eq!(verdict(&response), Some(Verdict::Rejected));
    let mut body = response.into_body();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "bad"
    );
    assert_eq!(body.frame().await.unwrap().unwrap_err(), "cut");
}

#[tokio::test]
async fn only_json_and_untyped_bodies_are_inspected() {
    let types = [
        (None, true),
        (Some("application/json"), true),
        (Some("Application/JSON; charset=utf-8"), true),
        (Some("text/json"), true),
        (Some("application/problem+json"), true),
        (Some("application/vnd.api+JSON ; x=y"), true),
        (Some("application/stream+json"), false),
        (Some("application/x-ndjson"), false),
        (Some("application/json-seq"), false),
        (Some("text/event-stream"), false),
        (Some("application/grpc"), false),
        (Some("application/grpc+json"), false),
        (Some("application/octet-stream"), false),
        (Some("image/svg+xml"), false),
        (Some("image/json"), false),
        (Some("json"), false),
        (Some("\u{e9}"), false),
    ];
    for (content_type, wanted) in types {
        let mut response = Response::new(Script::data(&["bad"]));
        if let Some(content_type) = content_type {
            let value = header::HeaderValue::from_bytes(content_type.as_bytes()).unwrap();
            response.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        let polled = response.body().polled.clone();
        let response = respond(layer(), response).await;
        assert_eq!(verdict(&response).is_some(), wanted, "{content_type:?}");
        assert_eq!(
            polled.load(Ordering::SeqCst) > 0,
            wanted,
            "{content_type:?}"
        );
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "bad"
        );
    }
}

#[tokio::test]
async fn only_if_selects_other_responses() {
    let html = Response::builder()
        .header("content-type", "text/html")
        .body(Script::data(&["bad"]));
    let response = respond(
        layer().only_if(|head| head.headers["content-type"] == "text/html"),
        html.unwrap(),
    )
    .await;
    assert_eq!(verdict(&response), Some(Verdict::Rejected));
}

#[tokio::test]
async fn a_body_that_is_announced_as_longer_is_not_inspected() {
    for (announced, inspected) in [(4096, true), (4097, false)] {
        let script = Script::data(&["bad"]).announcing(announced);
        let polled = script.polled.clone();
        let response = respond(layer(), Response::new(script)).await;
        assert_eq!(verdict(&response).is_some(), inspected, "{announced}");
        assert_eq!(polled.load(Ordering::SeqCst) > 0, inspected, "{announced}");
    }
}

#[tokio::test]
async fn no_more_than_the_limit_is_read_and_inspected() {
    let long: &'static str = "bad".repeat(10_000).leak();
    let script = Script::data(&["b", "ad", long, long]);
    let polled = script.polled.clone();
    let response = respond(layer().limit(3), Response::new(script)).await;
    assert_eq!(verdict(&response), Some(Verdict::Rejected));
    assert_eq!(polled.load(Ordering::SeqCst), 2);
    let whole = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(whole, format!("bad{long}{long}"));

    let response = respond(layer().limit(3), Response::new(Script::data(&["badly"]))).await;
    assert_eq!(
        verdict(&response),
        Some(Verdict::Rejected),
        "cut at the limit"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_held_back_no_longer_than_the_timeout() {
    let start = Instant::now();
    let response = respond(layer(), Response::new(Script::data(&["bad"]).hanging())).await;
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert_eq!(
        verdict(&response),
        Some(Verdict::Rejected),
        "decided by what had arrived"
    );

    let start = Instant::now();
    let layer = layer().timeout(Duration::from_secs(7));
    let response = respond(layer, Response::new(Script::default().hanging())).await;
    assert_eq!(start.elapsed(), Duration::from_secs(7));
    assert_eq!(verdict(&response), None);
}

#[test]
fn a_body_that_is_ready_needs_no_timer() {
    // Without a runtime a timer would panic.
    let response = respond(layer(), Response::new(Script::data(&["b", "ad"])));
    let mut response = tokio_test::task::spawn(response);
    let Poll::Ready(response) = response.poll() else {
        panic!("the body is ready, so the response must be");
    };
    assert_eq!(verdict(&response), Some(Verdict::Rejected));
}

#[tokio::test]
async fn responses_to_requests_without_a_token_are_not_inspected() {
    let service = layer().layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Script::data(&["bad"])))
    }));
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(verdict(&response), None);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "bad"
    );
}

#[test]
fn an_error_of_the_service_is_passed_on() {
    let service = layer().layer(service_fn(|_: Request<()>| async {
        Err::<Response<Script>, _>("down")
    }));
    let error = tokio_test::block_on(service.oneshot(Request::new(()))).unwrap_err();
    assert_eq!(error, "down");
}

#[tokio::test]
async fn an_empty_body_is_not_inspected() {
    let layer = InspectBodyLayer::new(|_: ResponseHead<'_>, _: &[u8]| Some(Verdict::Rejected));
    let response = respond(layer, Response::new(Script::default())).await;
    assert_eq!(verdict(&response), None);
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_inner_service_is() {
    let (inner, mut handle) = tower_test::mock::pair::<Request<()>, Response<Script>>();
    let inspect = |_: ResponseHead<'_>, _: &[u8]| None;
    let mut service = InspectBodyLayer::new(inspect).layer(inner);
    handle.allow(0);
    let mut ready = tokio_test::task::spawn(service.ready());
    assert!(ready.poll().is_pending());
    handle.allow(1);
    assert!(ready.poll().is_ready());
}
