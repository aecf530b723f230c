//! The number of allocations: of a request with a fresh token, of a replayable body besides its data, and of a response
//! with trailers.

use allocation_counter::measure;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{Empty, Full};
use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Context,
    time::Duration,
};
use tower::{Layer, Service, service_fn};
use tower_bearer::{
    AddTokenLayer, BearerAuthLayer, REPLAY_LIMIT, RejectOnTrailersLayer, ReplayBody, Token,
    TokenCache,
    events::{Event, EventKind, Observer},
    source_fn,
};

fn drain<B>(mut body: B)
where
    B: Body + Unpin,
    B::Error: std::fmt::Debug,
{
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while !body.is_end_stream() {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            std::task::Poll::Ready(Some(frame)) => drop(black_box(frame.unwrap())),
            _ => break,
        }
    }
}

/// The allocations of a request through `layer`, without those of creating and dropping the request.
fn allocations_per_request<L, B>(layer: &L, body: &B, values: usize) -> u64
where
    L: Layer<Api>,
    L::Service: Service<Request<B>, Response = Response<Empty<Bytes>>>,
    B: Clone,
{
    let mut service = layer.layer(Api);
    let mut request = Request::post("https://api.example.com/v1/orders?id=42")
        .body(body.clone())
        .unwrap();
    // Room for one more header, so that the growth of the map is not counted.
    request.headers_mut().reserve(40);
    for number in 0..20 {
        let name = HeaderName::try_from(format!("x-header-{number}")).unwrap();
        let value = HeaderValue::try_from("v".repeat(values)).unwrap();
        request.headers_mut().append(name, value);
    }
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let cost = measure(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let answer = std::pin::pin!(service.call(request)).poll(&mut cx);
        assert!(matches!(answer, std::task::Poll::Ready(Ok(_))));
    });
    cost.count_total
}

/// Drops each request.
#[derive(Clone)]
struct Api;

impl<B> Service<Request<B>> for Api {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Empty<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let sent = request.headers().get("authorization");
        assert_eq!(sent.unwrap(), "Bearer abc");
        std::future::ready(Ok(Response::new(Empty::new())))
    }
}

#[tokio::test]
async fn a_request_with_a_fresh_token_allocates_only_for_the_replay() {
    let source =
        || source_fn(|_| async { Ok(Token::new("abc")?.expires_in(Duration::from_secs(3_600))) });
    let counts = Arc::new(Counts::default());
    let observed = TokenCache::builder(source()).observer(Arc::clone(&counts));
    for cache in [TokenCache::new(source()), observed.build()] {
        cache.token().await.unwrap();
        let add_token = AddTokenLayer::from(cache.clone());
        let bearer = BearerAuthLayer::from(cache);
        let (empty, full) = (
            Empty::<Bytes>::new(),
            Full::new(Bytes::from_static(b"hello")),
        );
        for values in [0, 10, 1_000, 100_000] {
            assert_eq!(allocations_per_request(&add_token, &empty, values), 0);
            assert_eq!(allocations_per_request(&add_token, &full, values), 0);
            assert_eq!(allocations_per_request(&bearer, &empty, values), 1);
            assert_eq!(allocations_per_request(&bearer, &full, values), 2);
        }
    }
    assert_eq!(counts.0.load(Ordering::SeqCst), 16);
}

/// Counts requests.
#[derive(Default)]
struct Counts(AtomicUsize);

impl Observer for Counts {
    fn on_event(&self, event: &Event<'_>) {
        if event.kind == EventKind::RequestSent {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn wants_requests(&self) -> bool {
        true
    }
}

/// The allocations of a request that waits for a token, without its future, and the bytes of both besides the request.
fn cost_of_a_waiter<L>(layer: &L) -> (u64, usize)
where
    L: Layer<Api>,
    L::Service: Service<Request<Full<Bytes>>>,
{
    let mut service = layer.layer(Api);
    let request = || {
        Request::post("https://api.example.com/v1/orders?id=42")
            .header("x-header", "v".repeat(1_000))
            .body(Full::new(Bytes::from_static(b"hello")))
            .unwrap()
    };
    let mut cx = Context::from_waker(std::task::Waker::noop());
    // The first one starts the refresh.
    let mut first = Box::pin(service.call(request()));
    assert!(first.as_mut().poll(&mut cx).is_pending());

    let request = request();
    let own = size_of_val(&request);
    let mut future = 0;
    let cost = measure(|| {
        let call = service.call(request);
        future = size_of_val(&call);
        let mut call = std::pin::pin!(call);
        assert!(call.as_mut().poll(&mut cx).is_pending());
    });
    let allocated = usize::try_from(cost.bytes_max).unwrap();
    (cost.count_total, future + allocated - own)
}

#[tokio::test]
async fn a_request_that_waits_for_a_token_keeps_little_besides_itself() {
    let cache = TokenCache::new(source_fn(|_| std::future::pending()));
    let (count, bytes) = cost_of_a_waiter(&BearerAuthLayer::from(cache.clone()));
    assert_eq!(count, 1);
    assert!(bytes <= 512, "{bytes}");
    // Its future has no room for a request.
    let (count, bytes) = cost_of_a_waiter(&AddTokenLayer::from(cache));
    assert_eq!(count, 2);
    assert!(bytes <= 512, "{bytes}");
}

#[test]
fn an_empty_body_costs_no_allocation() {
    let cost = measure(|| {
        let body = ReplayBody::new(Empty::<Bytes>::new(), REPLAY_LIMIT);
        let clone = body.clone();
        drain(body);
        drain(clone);
    });
    assert_eq!(cost.count_total, 0);
}

#[test]
fn a_body_that_is_not_kept_costs_no_allocation() {
    let data = Bytes::from_static(b"hello");
    let cost = measure(|| {
        for limit in [0, 4] {
            let body = ReplayBody::new(Full::new(data.clone()), limit);
            let clone = black_box(body.clone());
            drain(body);
            drop(clone);
        }
    });
    assert_eq!(cost.count_total, 0);
}

#[test]
fn a_body_of_one_frame_costs_one_allocation_and_its_replay_none() {
    let data = Bytes::from_static(b"hello");
    let mut kept = None;
    let cost = measure(|| {
        let body = ReplayBody::new(Full::new(data.clone()), REPLAY_LIMIT);
        kept = Some(body.clone());
        drain(body);
    });
    assert_eq!(cost.count_total, 1);
    let cost = measure(|| drain(kept.take().unwrap()));
    assert_eq!(cost.count_total, 0);
}

#[test]
fn an_endless_body_needs_no_more_memory_than_the_limit() {
    struct Chunks(u32);
    impl Body for Chunks {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            self.0 -= 1;
            let chunk = Bytes::from(vec![1; 16 * 1024]);
            std::task::Poll::Ready((self.0 > 0).then(|| Ok(http_body::Frame::data(chunk))))
        }
    }
    let cost = measure(|| {
        let body = ReplayBody::new(Chunks(10_000), REPLAY_LIMIT);
        let clone = body.clone();
        drain(body);
        drop(clone);
    });
    // The kept frames, the frame that exceeds the limit, the next one, and some bookkeeping.
    assert!(cost.bytes_max < 7 * 16 * 1024, "{} bytes", cost.bytes_max);
    assert_eq!(cost.bytes_current, 0);
}

#[test]
fn reading_the_trailers_costs_no_allocation() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cache = TokenCache::new(source_fn(|_| async { Token::new("abc") }));
    let token = runtime.block_on(cache.token()).unwrap();
    let mut request = Request::new(());
    request
        .headers_mut()
        .insert("authorization", token.header().clone());
    let trailers = HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let mut response = Response::new(Trailers(Some(trailers)));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    let mut response = Some(response);
    let mut service = RejectOnTrailersLayer::new(cache).layer(service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(response.take().unwrap()))
    }));
    let cost = measure(|| {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let call = std::pin::pin!(service.call(request));
        let std::task::Poll::Ready(response) = call.poll(&mut cx) else {
            panic!("the response must be ready at once");
        };
        drain(response.unwrap().into_body());
    });
    assert_eq!(cost.count_total, 0);
}

struct Trailers(Option<HeaderMap>);

impl Body for Trailers {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let trailers = self.0.take();
        std::task::Poll::Ready(trailers.map(|it| Ok(http_body::Frame::trailers(it))))
    }
}
