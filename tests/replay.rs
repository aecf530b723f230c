//! Replays through the whole layer, in memory and with paused time: what is replayed, and what rejections cost.

#[path = "support/wire.rs"]
mod support;

use std::{
    convert::Infallible,
    fmt,
    future::ready,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header::AUTHORIZATION};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use support::{Numbered, Upload, bytes, reason, text};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer,
    retry::budget::Budget, service_fn,
};
use tower_bearer::{
    BearerAuthLayer, OAuthClient, RefreshTokenSource, ReplayBody, Token, TokenCache, TokenError,
    TokenErrorKind, source_fn,
    testing::{AuthorizationServer, Dialect, ResponseBody},
};

const SECOND: Duration = Duration::from_secs(1);
const URL: &str = "https://api.example/";

fn get() -> Request<Full<Bytes>> {
    Request::get(URL).body(Full::default()).unwrap()
}

fn token<B>(request: &Request<B>) -> String {
    let value = request.headers().get(AUTHORIZATION);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = code;
    response
}

/// A budget with a fixed number of replays.
#[derive(Clone)]
struct FixedBudget(Arc<AtomicI64>);

impl FixedBudget {
    fn of(replays: i64) -> Self {
        Self(Arc::new(AtomicI64::new(replays)))
    }
}

impl Budget for FixedBudget {
    fn deposit(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn withdraw(&self) -> bool {
        let enough = |left: i64| (left > 0).then(|| left - 1);
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, enough)
            .is_ok()
    }
}

/// How many requests and refreshes 1,000 calls cost at a server that rejects them all.
async fn cost_of_rejections(replays: i64, at_once: bool, pause: Duration) -> (usize, usize) {
    let sends = Arc::new(AtomicUsize::new(0));
    let count = sends.clone();
    let rejecting = service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
        count.fetch_add(1, Ordering::SeqCst);
        ready(Ok::<_, Infallible>(status(StatusCode::UNAUTHORIZED)))
    });
    let source = Numbered::default().min_interval(SECOND);
    let layer = BearerAuthLayer::new(source.clone()).replay_budget(FixedBudget::of(replays));
    let service = layer.layer(rejecting);
    let mut running = JoinSet::new();
    for _ in 0..1_000 {
        let call = service.clone().oneshot(get());
        running.spawn(async move {
            let response = call.await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert!(reason(&response).is_some());
        });
        if !at_once {
            while running.join_next().await.transpose().unwrap().is_some() {}
            sleep(pause).await;
        }
    }
    while running.join_next().await.transpose().unwrap().is_some() {}
    (sends.load(Ordering::SeqCst), source.calls())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_rejects_everything_costs_at_most_the_budget() {
    for replays in [0, 50, 10_000] {
        let budget = usize::try_from(replays).unwrap();
        let (sends, refreshes) = cost_of_rejections(replays, true, Duration::ZERO).await;
        assert!(sends <= 1_000 + budget.min(1_000), "{sends} sends at once");
        assert!(refreshes <= 3, "{refreshes} tokens at once");

        let (sends, refreshes) = cost_of_rejections(replays, false, Duration::ZERO).await;
        assert!(sends <= 1_000 + budget.min(5), "{sends} sends one by one");
        assert!(refreshes <= 4, "{refreshes} tokens one by one");

        // 100 seconds: the interval between refreshes doubles from one second to one minute.
        let (sends, refreshes) = cost_of_rejections(replays, false, SECOND / 10).await;
        assert!(sends <= 1_000 + budget.min(12), "{sends} sends in a while");
        assert!(refreshes <= 12, "{refreshes} tokens in a while");
    }
}

#[tokio::test(start_paused = true)]
async fn many_rejections_of_one_token_cost_one_refresh() {
    let good = Arc::new(Mutex::new(String::from("Bearer token-1")));
    let check = good.clone();
    let api = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let check = check.clone();
        async move {
            sleep(SECOND).await;
            let good = token(&request) == *check.lock().unwrap();
            let code = if good {
                StatusCode::OK
            } else {
                StatusCode::UNAUTHORIZED
            };
            Ok::<_, Infallible>(status(code))
        }
    });
    let source = Numbered::default().min_interval(SECOND);
    let service = BearerAuthLayer::new(source.clone()).layer(api);
    service.clone().oneshot(get()).await.unwrap();
    let running: JoinSet<_> = (0..1_000).map(|_| service.clone().oneshot(get())).collect();
    *good.lock().unwrap() = String::from("Bearer token-2");
    for response in running.join_all().await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(source.calls(), 2);
}

#[derive(Clone, Debug, PartialEq)]
struct Marker(u8);

#[tokio::test(start_paused = true)]
async fn a_replay_has_the_same_head_as_the_first_attempt() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let log = heads.clone();
    let inner = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let code = match token(&request).as_str() {
            "Bearer token-1" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::OK,
        };
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        assert_eq!(request.body().size_hint().exact(), Some(8));
        let (mut head, _) = request.into_parts();
        head.headers.remove(AUTHORIZATION);
        log.lock().unwrap().push(head);
        ready(Ok::<_, Infallible>(status(code)))
    });
    let service = BearerAuthLayer::new(Numbered::default()).layer(inner);
    let mut secret = HeaderValue::from_static("hush");
    secret.set_sensitive(true);
    let request = Request::patch("https://api.example/orders?id=1")
        .version(Version::HTTP_3)
        .header("x-many", "one")
        .header("x-secret", secret)
        .header("x-many", "two")
        .header("expect", "100-continue")
        .extension(Marker(7))
        .body(Full::from("an order"))
        .unwrap();
    service.oneshot(request).await.unwrap();
    let heads = heads.lock().unwrap();
    let [first, second] = &heads[..] else {
        panic!("{} attempts", heads.len());
    };
    assert_eq!(first.method, second.method);
    assert_eq!(first.uri, second.uri);
    assert_eq!(first.version, second.version);
    assert_eq!(first.headers, second.headers);
    assert_eq!(second.headers.len(), 4);
    assert!(second.headers["x-secret"].is_sensitive());
    assert!(!second.headers["expect"].is_sensitive());
    assert_eq!(second.extensions.get(), Some(&Marker(7)));
}

/// A body that is always pending.
struct EndlessBody;

impl Body for EndlessBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Rejects `token-1` with a body that never ends, and answers other requests with the size of their body.
fn reject_first_token_slowly(
    seen: Arc<Mutex<Vec<String>>>,
) -> impl Service<
    Request<ReplayBody<Upload>>,
    Response = Response<UnsyncBoxBody<Bytes, Infallible>>,
    Error = Infallible,
    Future: Send,
> + Clone {
    service_fn(move |request: Request<ReplayBody<Upload>>| {
        let seen = seen.clone();
        async move {
            let sent = token(&request);
            let mut body = request.into_body();
            let mut response = if sent == "Bearer token-1" {
                body.frame().await;
                // Reads the rest of the upload, as a transport does, even if the response is dropped.
                tokio::spawn(body.collect());
                Response::new(EndlessBody.boxed_unsync())
            } else {
                let size = body.collect().await.map_or(0, |body| body.to_bytes().len());
                Response::new(Full::from(size.to_string()).boxed_unsync())
            };
            if sent == "Bearer token-1" {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            seen.lock().unwrap().push(sent);
            Ok(response)
        }
    })
}

/// Waits until this is the header of the current token.
async fn until_current(cache: &TokenCache, header: &str) {
    let wait = async {
        while cache.peek().is_none_or(|token| token.header() != header) {
            sleep(SECOND / 100).await;
        }
    };
    timeout(SECOND * 60, wait).await.expect(header);
}

/// The text of the response to a replay. The rejection that it replaces never ends.
async fn replayed<B, E>(running: JoinHandle<Result<Response<B>, E>>) -> String
where
    B: Body<Error: fmt::Debug>,
    E: fmt::Debug,
{
    let response = timeout(SECOND * 60, running).await.expect("a response");
    let response = response.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    text(response).await
}

#[tokio::test(start_paused = true)]
async fn a_replay_uses_the_token_it_waited_for_even_if_that_is_rejected_meanwhile() {
    let source = Numbered::default().min_interval(SECOND);
    let cache = TokenCache::new(source.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    // Accepted once, so that the rejection of the next token isn't the second in a row.
    let prove = service_fn(|_: Request<ReplayBody<Full<Bytes>>>| {
        ready(Ok::<_, Infallible>(status(StatusCode::OK)))
    });
    BearerAuthLayer::from(cache.clone())
        .layer(prove)
        .oneshot(get())
        .await
        .unwrap();
    sleep(SECOND).await;

    let service =
        BearerAuthLayer::from(cache.clone()).layer(reject_first_token_slowly(seen.clone()));
    let (sender, upload) = Upload::new(Some(3));
    sender.send(Bytes::from("abc")).unwrap();
    let request = Request::post(URL).body(upload).unwrap();
    let running = tokio::spawn(service.oneshot(request));
    until_current(&cache, "Bearer token-2").await;
    // While the rejected response is drained, another caller reports the new token as rejected, and the source fails.
    source.fail(true);
    cache.reject(&cache.peek().unwrap());
    assert!(cache.peek().is_none());
    assert_eq!(replayed(running).await, "3");
    assert_eq!(*seen.lock().unwrap(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_cannot_exceed_the_limit_after_its_replay_is_decided() {
    let source = Numbered::default();
    let cache = TokenCache::new(source.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service =
        BearerAuthLayer::from(cache.clone()).layer(reject_first_token_slowly(seen.clone()));
    let (sender, upload) = Upload::new(None);
    sender.send(bytes(10)).unwrap();
    let request = Request::post(URL).body(upload).unwrap();
    let running = tokio::spawn(service.oneshot(request));
    until_current(&cache, "Bearer token-2").await;
    // The rejected response is drained for one second. Without the takeover, the first attempt would read on.
    sleep(SECOND / 10).await;
    sender.send(bytes(100 * 1024)).unwrap();
    sleep(SECOND / 10).await;
    drop(sender);
    assert_eq!(replayed(running).await, (10 + 100 * 1024).to_string());
}

type Boxed = UnsyncBoxBody<Bytes, Broken>;

/// A body error with a type of its own.
#[derive(Debug)]
struct Broken(BoxError);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Broken {}

/// A token endpoint and an API behind one client that sends one request at a time, each for 100 ms.
fn one_request_at_a_time(
    server: &AuthorizationServer,
) -> impl Service<Request<Boxed>, Response = Response<ResponseBody>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let (tokens, api, path) = (server.clone(), server.api(), server.token_path());
    let both = service_fn(move |request: Request<Boxed>| {
        let to_tokens = request.uri().path() == path;
        let (tokens, api) = (tokens.clone(), api.clone());
        async move {
            sleep(SECOND / 10).await;
            if to_tokens {
                tokens.oneshot(request).await
            } else {
                api.oneshot(request).await
            }
        }
    });
    ConcurrencyLimitLayer::new(1).layer(both)
}

#[tokio::test(start_paused = true)]
async fn a_client_with_a_concurrency_limit_of_1_serves_token_endpoint_and_api() {
    let server = AuthorizationServer::new(Dialect::TwoBa)
        .public_client("app")
        .access_lifetime(Duration::from_secs(900));
    let shared = one_request_at_a_time(&server);
    let endpoint = OAuthClient::with_transport(
        format!("https://authorize.example{}", server.token_path()),
        shared.clone().map_request(|request: Request<Full<Bytes>>| {
            request.map(|body| body.map_err(|never| match never {}).boxed_unsync())
        }),
    )
    .unwrap()
    .client_auth(tower_bearer::ClientAuth::none("app"));
    let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
    let api = shared.map_request(|request: Request<ReplayBody<Full<Bytes>>>| {
        request.map(|body| body.map_err(Broken).boxed_unsync())
    });
    let service = BearerAuthLayer::new(source).layer(api);

    let send_20 = async |what: &str| {
        let running: JoinSet<_> =
            (0..20)
                .map(|_| {
                    let mut service = service.clone();
                    let request = Request::post(URL).body(Full::from("an order")).unwrap();
                    // The readiness is acquired separately, and kept until the call.
                    async move {
                        text(service.ready().await.unwrap().call(request).await.unwrap()).await
                    }
                })
                .collect();
        let answers = timeout(Duration::from_secs(60), running.join_all()).await;
        let answers = answers.unwrap_or_else(|_| panic!("{what}: stuck"));
        assert!(answers.iter().all(|answer| answer == "an order"), "{what}");
    };
    send_20("cold start").await;
    assert_eq!(server.refreshes(), 1);
    server.revoke_access_tokens();
    send_20("rejection").await;
    assert_eq!(server.refreshes(), 2);
    // Due from 859 seconds at the latest, unusable from 895: refreshed in the background.
    sleep(Duration::from_secs(880)).await;
    send_20("due").await;
    sleep(SECOND).await;
    assert_eq!(server.refreshes(), 3);
    sleep(Duration::from_secs(1_000)).await;
    send_20("expired").await;
    assert_eq!(server.refreshes(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_for_its_token_is_sent_again_whole_up_to_the_limit() {
    for (limit, expected) in [(8, StatusCode::OK), (7, StatusCode::UNAUTHORIZED)] {
        let sends = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sends);
        let inner = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let seen = Arc::clone(&seen);
            async move {
                let (authorization, uri) = (token(&request), request.uri().clone());
                let own = request.headers()["x-own"].clone();
                let body = request.into_body().collect().await?.to_bytes();
                let code = match authorization.as_str() {
                    "Bearer token-1" => StatusCode::UNAUTHORIZED,
                    _ => StatusCode::OK,
                };
                seen.lock().unwrap().push((authorization, uri, own, body));
                Ok::<_, BoxError>(status(code))
            }
        });
        let layer = BearerAuthLayer::new(Numbered::default()).replay_limit(limit);
        let request = Request::post(URL)
            .header("x-own", "kept")
            .body(Full::from("an order"))
            .unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected);
        let sends = sends.lock().unwrap();
        let tokens: Vec<_> = sends.iter().map(|(token, ..)| token.as_str()).collect();
        let all = ["Bearer token-1", "Bearer token-2"];
        assert_eq!(tokens, all[..if limit == 8 { 2 } else { 1 }]);
        for (_, uri, own, body) in &*sends {
            assert_eq!(
                (uri.to_string().as_str(), own, &body[..]),
                (URL, &"kept".parse().unwrap(), &b"an order"[..])
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_or_has_failed_holds_no_permit() {
    let source = Numbered::default();
    source.fail(true);
    let inner = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(service_fn(|_: Request<ReplayBody<Full<Bytes>>>| {
            ready(Ok::<_, Infallible>(status(StatusCode::OK)))
        }));
    let layer = BearerAuthLayer::new(source.clone());
    let service = layer.layer(inner);
    let free = async |what: &str, service: &tower_bearer::BearerAuth<_>| {
        let mut other = service.clone();
        let ready = timeout(
            SECOND,
            ServiceExt::<Request<Full<Bytes>>>::ready(&mut other),
        )
        .await;
        assert!(ready.is_ok(), "{what}");
    };

    let mut waiting = service.clone();
    let call = waiting.ready().await.unwrap().call(get());
    free("waiting, not yet polled", &service).await;
    let error = call.await.unwrap_err();
    assert!(error.downcast_ref::<tower_bearer::TokenError>().is_some());
    free("the wait has failed", &service).await;

    // The failure is remembered, so this call fails at once.
    let failed = waiting.ready().await.unwrap().call(get());
    free("failed, not yet polled", &service).await;
    failed.await.unwrap_err();

    let request = Request::get("http://api.example/")
        .body(Full::default())
        .unwrap();
    let insecure = waiting.ready().await.unwrap().call(request);
    free("insecure", &service).await;
    insecure.await.unwrap_err();
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_that_waits_for_a_token_holds_no_permit() {
    let source = Numbered::default().min_interval(SECOND * 10);
    let inner = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(service_fn(|request: Request<ReplayBody<Full<Bytes>>>| {
            let code = match token(&request).as_str() {
                "Bearer token-1" => StatusCode::UNAUTHORIZED,
                _ => StatusCode::OK,
            };
            ready(Ok::<_, Infallible>(status(code)))
        }));
    let service = BearerAuthLayer::new(source).layer(inner);
    let start = Instant::now();
    let running = tokio::spawn(service.clone().oneshot(get()));
    sleep(SECOND).await;
    assert!(!running.is_finished());
    let mut other = service.clone();
    let ready = timeout(
        SECOND,
        ServiceExt::<Request<Full<Bytes>>>::ready(&mut other),
    )
    .await;
    assert!(ready.is_ok());
    drop(other);
    assert_eq!(running.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// Panics if it is called without being ready, and counts the instances that are ready and not yet called.
struct StrictService {
    ready: bool,
    reserved: Arc<AtomicUsize>,
}

impl Clone for StrictService {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            reserved: self.reserved.clone(),
        }
    }
}

impl Drop for StrictService {
    fn drop(&mut self) {
        if self.ready {
            self.reserved.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Service<Request<ReplayBody<Full<Bytes>>>> for StrictService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !self.ready {
            self.ready = true;
            self.reserved.fetch_add(1, Ordering::SeqCst);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<Full<Bytes>>>) -> Self::Future {
        assert!(self.ready, "called without being ready");
        self.ready = false;
        self.reserved.fetch_sub(1, Ordering::SeqCst);
        let code = match token(&request).as_str() {
            "Bearer token-1" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::OK,
        };
        ready(Ok(status(code)))
    }
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_ready_when_called_and_no_readiness_is_kept() {
    let reserved = Arc::new(AtomicUsize::new(0));
    let strict = StrictService {
        ready: false,
        reserved: reserved.clone(),
    };
    let source = Numbered::default();
    let mut service = BearerAuthLayer::new(source.clone()).layer(strict);
    // First it waits for a token, is rejected and replayed. Then there is a token; a loopback origin; plain http.
    for (uri, succeeds) in [
        (URL, true),
        (URL, true),
        ("http://localhost/", true),
        ("http://api.example/", false),
    ] {
        let request = Request::get(uri).body(Full::default()).unwrap();
        let call = service.ready().await.unwrap().call(request);
        assert_eq!(reserved.load(Ordering::SeqCst), 0, "{uri}, called");
        assert_eq!(call.await.is_ok(), succeeds, "{uri}");
        assert_eq!(reserved.load(Ordering::SeqCst), 0, "{uri}, answered");
    }
    assert_eq!(source.calls(), 2);
}

/// A body of one GiB, in pieces of 16 KiB.
struct GibibyteBody {
    piece: Bytes,
    left: u64,
}

impl Body for GibibyteBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= self.piece.len() as u64;
        // Each frame has its own allocation, so keeping the frame keeps the memory.
        Poll::Ready(Some(Ok(Frame::data(self.piece.to_vec().into()))))
    }
}

#[test]
fn a_body_of_one_gibibyte_needs_constant_memory() {
    const WHOLE: u64 = 1 << 30;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let inner = service_fn(|request: Request<ReplayBody<GibibyteBody>>| async {
        let mut body = request.into_body();
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            size += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        assert_eq!(size, WHOLE);
        Ok::<_, BoxError>(status(StatusCode::OK))
    });
    let cache = TokenCache::new(Numbered::default());
    runtime.block_on(cache.token()).unwrap();
    let service = BearerAuthLayer::from(cache).layer(inner);
    let piece = Bytes::from(vec![7; 16 * 1024]);
    let body = GibibyteBody { piece, left: WHOLE };
    let request = Request::put(URL).body(body).unwrap();
    let mut answer = None;
    let cost = allocation_counter::measure(|| {
        answer = Some(runtime.block_on(service.oneshot(request)));
    });
    assert_eq!(answer.unwrap().unwrap().status(), StatusCode::OK);
    assert!(cost.bytes_max < 128 * 1024, "{} bytes", cost.bytes_max);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_for_readiness_has_the_current_token() {
    let source = Numbered::default();
    let cache = TokenCache::new(source.clone());
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = sent.clone();
    let inner = ConcurrencyLimitLayer::new(1).layer(service_fn(
        move |request: Request<ReplayBody<Full<Bytes>>>| {
            log.lock().unwrap().push(token(&request));
            async {
                sleep(SECOND).await;
                Ok::<_, Infallible>(status(StatusCode::OK))
            }
        },
    ));
    let service = BearerAuthLayer::from(cache.clone()).layer(inner);
    let running: JoinSet<_> = (0..2).map(|_| service.clone().oneshot(get())).collect();
    sleep(SECOND / 2).await;
    cache.refresh().await.unwrap();
    running.join_all().await;
    assert_eq!(*sent.lock().unwrap(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_a_layer_below_decides() {
    use tower_bearer::Verdict;
    let layer = BearerAuthLayer::new(Numbered::default());
    let service = ServiceBuilder::new().layer(layer).service(service_fn(
        |request: Request<ReplayBody<Full<Bytes>>>| {
            let first = token(&request) == "Bearer token-1";
            let mut response = status(if first {
                StatusCode::OK
            } else {
                StatusCode::UNAUTHORIZED
            });
            let verdict = if first {
                Verdict::Rejected
            } else {
                Verdict::Accepted
            };
            response.extensions_mut().insert(verdict);
            ready(Ok::<_, Infallible>(response))
        },
    ));
    let response = service.oneshot(get()).await.unwrap();
    assert_eq!(
        (response.status(), reason(&response)),
        (StatusCode::UNAUTHORIZED, None)
    );
}

#[tokio::test(start_paused = true)]
async fn the_second_rejection_is_returned_with_its_reason() {
    let cache = TokenCache::new(Numbered::default());
    let service = BearerAuthLayer::from(cache.clone()).layer(service_fn(
        |request: Request<ReplayBody<Full<Bytes>>>| {
            let mut response = status(StatusCode::UNAUTHORIZED);
            *response.body_mut() = Full::from(token(&request));
            ready(Ok::<_, Infallible>(response))
        },
    ));
    let response = service.oneshot(get()).await.unwrap();
    assert_eq!(reason(&response), Some(TokenErrorKind::Rejected));
    assert_eq!(text(response).await, "Bearer token-2");
    assert_eq!(cache.status().rejected, 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_sent_again_with_the_token_that_was_rejected() {
    let sends = Arc::new(AtomicUsize::new(0));
    let layer = BearerAuthLayer::new(source_fn(|_| async { Token::new("fixed") }));
    let service = layer.layer(service_fn({
        let sends = sends.clone();
        move |_: Request<ReplayBody<Full<Bytes>>>| {
            sends.fetch_add(1, Ordering::SeqCst);
            ready(Ok::<_, Infallible>(status(StatusCode::UNAUTHORIZED)))
        }
    }));
    let response = service.oneshot(get()).await.unwrap();
    let reason = response.extensions().get::<TokenError>().unwrap();
    assert_eq!(reason.kind(), TokenErrorKind::Rejected);
    assert!(reason.to_string().contains("a fixed token"), "{reason}");
    assert_eq!(sends.load(Ordering::SeqCst), 1);
}

/// Accepts only the token of this number, and answers `accepted` to it.
fn accepting_token(
    number: Arc<AtomicUsize>,
    accepted: StatusCode,
) -> impl Service<
    Request<ReplayBody<Full<Bytes>>>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future: Send,
> + Clone {
    service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let wanted = format!("Bearer token-{}", number.load(Ordering::SeqCst));
        let code = if token(&request) == wanted {
            accepted
        } else {
            StatusCode::UNAUTHORIZED
        };
        ready(Ok(status(code)))
    })
}

#[tokio::test(start_paused = true)]
async fn replays_go_on_even_if_no_response_proves_a_token() {
    let number = Arc::new(AtomicUsize::new(1));
    let source = Numbered::default().min_interval(SECOND);
    let layer = BearerAuthLayer::new(source).replay_budget(FixedBudget::of(1));
    // No response is a success that would prove a token.
    let service = layer.layer(accepting_token(number.clone(), StatusCode::NOT_FOUND));
    for _ in 0..10 {
        let response = service.clone().oneshot(get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{number:?}");
        number.fetch_add(1, Ordering::SeqCst);
        sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_a_request_that_cannot_be_replayed_is_returned_at_once() {
    let source = Numbered::default().min_interval(SECOND * 10);
    let layer = BearerAuthLayer::new(source).replay_limit(3);
    let service = layer.layer(accepting_token(
        Arc::new(AtomicUsize::new(2)),
        StatusCode::OK,
    ));
    let start = Instant::now();
    let request = Request::post(URL).body(Full::from("long")).unwrap();
    let response = service.clone().oneshot(request).await.unwrap();
    assert_eq!(reason(&response), Some(TokenErrorKind::NotReplayed));
    assert!(start.elapsed().is_zero());
    let response = service.oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_request_without_a_token_is_not_kept() {
    let kept = service_fn(|request: Request<ReplayBody<Full<Bytes>>>| {
        let kept = request.body().can_replay();
        assert_eq!(kept, token(&request) == "Bearer token-1");
        ready(Ok::<_, Infallible>(status(StatusCode::OK)))
    });
    let service = BearerAuthLayer::new(Numbered::default()).layer(kept);
    for own in [None, Some("Basic abc")] {
        let mut request = Request::post(URL).body(Full::from("an order")).unwrap();
        if let Some(own) = own {
            request
                .headers_mut()
                .insert(AUTHORIZATION, HeaderValue::from_static(own));
        }
        service.clone().oneshot(request).await.unwrap();
    }
}
