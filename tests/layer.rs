//! The layers through their public API: what a caller sees, and what the servers receive.

mod support;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body::{Body, Frame};
use http_body_util::Full;
use support::{
    API, FullRequest, TOKEN_URL, failure, get, order, reason, send, source, status, text,
};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::{Instant, sleep, timeout},
};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    limit::ConcurrencyLimit,
    retry::{Policy, budget::Budget},
    service_fn,
};
use tower_bearer::{
    AddToken, AddTokenLayer, BearerAuth, BearerAuthLayer, BoxTokenSource, ClientAuth, OAuthClient,
    Origins, RefreshOnReject, RefreshTokenSource, ReplayBody, ResponseHead, Schedule, Token,
    TokenCache, TokenContext, TokenError, TokenErrorKind, TokenRejected, TokenSource, Verdict,
    WithoutToken, source_fn,
    testing::{AuthorizationServer, Dialect, Fault, ProtectedApi, ResponseBody, ResponseFuture},
};
use tower_test::mock;

fn standard() -> (AuthorizationServer, ProtectedApi) {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    (server, api)
}

/// A source of `token-1`, `token-2` and so on.
fn numbered() -> impl TokenSource {
    let issued = AtomicUsize::new(0);
    source_fn(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Token::new(format!("token-{number}")) }
    })
}

/// As `numbered`, but each token takes a second.
fn slow() -> impl TokenSource {
    let issued = AtomicUsize::new(0);
    source_fn(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            sleep(Duration::from_secs(1)).await;
            Token::new(format!("token-{number}"))
        }
    })
}

// ---------------------------------------------------------------------------------------------------------------------
// Revoked tokens.

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_whose_token_is_revoked_all_succeed_with_one_refresh() {
    let (server, api) = standard();
    let client = BearerAuthLayer::new(source(&server)).layer(api.clone());
    assert_eq!(status(&client, order("first", "a bell")).await, 200);

    api.hold();
    let mut sending = JoinSet::new();
    for n in 0..100 {
        let request = order(&format!("order-{n}"), "a bicycle");
        sending.spawn(client.clone().oneshot(request));
    }
    api.wait_for_held(100).await;
    server.revoke_access_tokens();
    api.release();

    while let Some(response) = sending.join_next().await {
        let response = response.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(text(response).await, "a bicycle");
    }
    assert_eq!(
        server.refreshes(),
        2,
        "one for the first token, one for all rejections"
    );
    assert_eq!((api.accepted(), api.rejected()), (101, 100));
    assert!((0..100).all(|n| api.attempts()[&format!("order-{n}")] == 2));
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_of_an_old_token_does_not_affect_the_new_one() {
    let (server, api) = standard();
    let (arrive, late) = watch::channel(false);
    let delayed_api = service_fn(move |request: MockRequest| {
        let (api, mut late) = (api.clone(), late.clone());
        async move {
            if request.headers()["x-request-id"] == "late" {
                late.wait_for(|arrived| *arrived).await.unwrap();
            }
            api.oneshot(request).await
        }
    });
    let client = BearerAuthLayer::new(source(&server)).layer(delayed_api);
    assert_eq!(status(&client, order("first", "")).await, 200);

    let sending = tokio::spawn(client.clone().oneshot(order("late", "")));
    yield_now().await;
    server.revoke_access_tokens();
    assert_eq!(status(&client, order("prompt", "")).await, 200);
    assert_eq!(server.refreshes(), 2);
    arrive.send_replace(true);
    assert_eq!(sending.await.unwrap().unwrap().status(), 200);
    assert_eq!(status(&client, order("last", "")).await, 200);
    assert_eq!(server.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_waits_for_a_new_token_if_the_newer_one_has_expired() {
    let issued = AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            let token = Token::new(format!("token-{number}"))?;
            Ok(token.expires_in(Duration::from_secs(10)))
        }
    });
    let (arrive, late) = watch::channel(false);
    let api = service_fn(move |request: MockRequest| {
        let mut late = late.clone();
        async move {
            let token = request.headers()[AUTHORIZATION].clone();
            if request.headers()["x-request-id"] == "late" && token == "Bearer token-1" {
                late.wait_for(|arrived| *arrived).await.unwrap();
                return Ok(Response::builder()
                    .status(401)
                    .body(Full::<Bytes>::default())
                    .unwrap());
            }
            Ok::<_, Infallible>(Response::new(Full::from(Bytes::from_owner(token))))
        }
    });
    let client = BearerAuthLayer::new(source).layer(api);
    let sending = tokio::spawn(client.clone().oneshot(order("late", "")));
    sleep(Duration::from_secs(20)).await;
    let other = send(&client, order("other", "")).await.unwrap();
    assert_eq!(text(other).await, "Bearer token-2");
    sleep(Duration::from_secs(20)).await;
    arrive.send_replace(true);
    let response = sending.await.unwrap().unwrap();
    assert_eq!(text(response).await, "Bearer token-3");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_at_most_twice() {
    let (server, api) = standard();
    let client = BearerAuthLayer::new(source(&server)).layer(api.clone());
    assert_eq!(status(&client, order("accepted", "")).await, 200);

    api.reject_all(true);
    let response = send(&client, order("rejected", "")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(reason(&response).kind(), TokenErrorKind::Rejected);
    assert_eq!(api.attempts()["rejected"], 2);
    assert_eq!(
        server.refreshes(),
        2,
        "the rejection of the replay causes no refresh"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_beyond_the_limit_is_sent_and_its_rejection_is_returned() {
    let (server, api) = standard();
    let client = BearerAuthLayer::new(source(&server))
        .replay_limit(8)
        .layer(api.clone());
    let response = send(&client, order("fits", "12345678")).await.unwrap();
    assert_eq!(text(response).await, "12345678");

    server.revoke_access_tokens();
    let response = send(&client, order("too long", "123456789")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(reason(&response).kind(), TokenErrorKind::NotReplayed);
    assert_eq!(api.attempts()["too long"], 1);

    let response = send(&client, order("next", "123456789")).await.unwrap();
    assert_eq!(text(response).await, "123456789", "the token was replaced");
}

/// A body that records whether it was polled.
struct ObservedBody {
    text: Option<Bytes>,
    polled: Arc<AtomicBool>,
}

impl Body for ObservedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.polled.store(true, Ordering::SeqCst);
        Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text))))
    }
}

#[tokio::test(start_paused = true)]
async fn if_the_refresh_fails_the_caller_gets_the_servers_own_rejection_unread() {
    let polled = Arc::new(AtomicBool::new(false));
    let flag = polled.clone();
    let api = service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
        let body = ObservedBody {
            text: Some(Bytes::from_static(b"the administrator has locked you out")),
            polled: flag.clone(),
        };
        let response = Response::builder()
            .status(401)
            .header("x-incident", "4711")
            .body(body);
        async { response }
    });
    let source = source_fn(|request| async move {
        match request.rejected_token() {
            None => Token::new("only-one"),
            Some(_) => Err(TokenError::new(
                TokenErrorKind::ReauthRequired,
                "log in again",
            )),
        }
    });
    let client = BearerAuthLayer::new(source).layer(api);

    let response = send(&client, order("order", "")).await.unwrap();
    assert!(!polled.load(Ordering::SeqCst));
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["x-incident"], "4711");
    assert_eq!(reason(&response).kind(), TokenErrorKind::ReauthRequired);
    assert_eq!(text(response).await, "the administrator has locked you out");
}

#[tokio::test(start_paused = true)]
async fn other_error_statuses_cause_no_refresh_and_no_replay() {
    for code in [400, 403, 404, 409, 422, 500] {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let api = service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { Response::builder().status(code).body(String::from("no")) }
        });
        let server = AuthorizationServer::new(Dialect::Rfc6749);
        let client = BearerAuthLayer::new(source(&server)).layer(api);
        let response = send(&client, order("order", "")).await.unwrap();
        assert_eq!(response.status(), code);
        assert_eq!(
            response
                .extensions()
                .get::<TokenError>()
                .map(TokenError::kind),
            None
        );
        assert_eq!(
            (sent.load(Ordering::SeqCst), server.token_requests()),
            (1, 1)
        );
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Sharing.

#[tokio::test(start_paused = true)]
async fn two_layers_from_one_cache_share_the_token() {
    let (server, api) = standard();
    let cache = TokenCache::new(source(&server));
    let orders = BearerAuthLayer::from(cache.clone()).layer(api.clone());
    let invoices = AddTokenLayer::from(cache.clone()).layer(api.clone());

    assert_eq!(status(&orders, order("order", "")).await, 200);
    assert_eq!(status(&invoices, get(API)).await, 200);
    let sent: Vec<_> = api
        .requests()
        .into_iter()
        .map(|it| it.headers[AUTHORIZATION].clone())
        .collect();
    assert_eq!(sent[0], sent[1]);
    assert_eq!(cache.token().await.unwrap().header(), &sent[0]);

    // A rejection that one layer sees counts for both.
    server.revoke_access_tokens();
    assert_eq!(status(&orders, order("again", "")).await, 200);
    assert_eq!(status(&invoices, get(API)).await, 200);
    assert_eq!((server.refreshes(), api.rejected()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn clones_of_the_service_share_the_token() {
    let (server, api) = standard();
    let original = BearerAuthLayer::new(source(&server)).layer(api.clone());
    let early = original.clone();
    assert_eq!(status(&original, order("original", "")).await, 200);
    let late = original.clone();
    for (n, client) in [&early, &late, &original].into_iter().enumerate() {
        assert_eq!(status(client, order("before", "")).await, 200);
        assert_eq!(server.refreshes(), n + 1);
        server.revoke_access_tokens();
        let id = format!("replayed-{n}");
        let response = send(client, order(&id, "a bell")).await.unwrap();
        assert_eq!(
            (response.status(), api.attempts()[&id]),
            (StatusCode::OK, 2)
        );
        assert_eq!(text(response).await, "a bell");
        assert_eq!(server.refreshes(), n + 2, "the clones share the new token");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_on_an_empty_cache_wait_for_one_refresh() {
    let (server, api) = standard();
    server.fault(Fault::Delay(Duration::from_secs(3)));
    let client = BearerAuthLayer::new(source(&server)).layer(api.clone());
    let mut sending: JoinSet<_> = (0..50)
        .map(|n| client.clone().oneshot(order(&n.to_string(), "")))
        .collect();
    while let Some(response) = sending.join_next().await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!((server.token_requests(), api.received()), (1, 50));
}

#[tokio::test(start_paused = true)]
async fn all_waiting_callers_get_the_same_failure() {
    let (server, api) = standard();
    server.fault_always(Fault::Status(StatusCode::BAD_GATEWAY));
    let client = BearerAuthLayer::new(source(&server)).layer(api.clone());
    let mut sending: JoinSet<_> = (0..50)
        .map(|n| client.clone().oneshot(order(&n.to_string(), "")))
        .collect();
    while let Some(outcome) = sending.join_next().await {
        let error = failure(outcome.unwrap());
        assert_eq!(error.kind(), TokenErrorKind::Server);
        assert_eq!(error.status(), Some(StatusCode::BAD_GATEWAY));
    }
    assert_eq!((server.token_requests(), api.received()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_does_not_abort_the_refresh() {
    let (server, api) = standard();
    server.fault(Fault::Delay(Duration::from_secs(5)));
    let client = BearerAuthLayer::new(source(&server)).layer(api.clone());

    let short_wait = timeout(
        Duration::from_secs(1),
        client.clone().oneshot(order("short_wait", "")),
    );
    assert!(short_wait.await.is_err());
    assert_eq!((server.token_requests(), server.refreshes()), (1, 1));

    let since = Instant::now();
    assert_eq!(status(&client, order("second", "")).await, 200);
    assert_eq!(
        since.elapsed().as_secs(),
        4,
        "the rest of the first caller's refresh"
    );
    assert_eq!((server.token_requests(), api.attempts().len()), (1, 1));
}

// ---------------------------------------------------------------------------------------------------------------------
// Readiness. The mock fails if it is called without being ready.

type MockRequest = Request<ReplayBody<Full<Bytes>>>;

/// Answers this number of requests: 401 to those with `rejected_token`, 200 to the others.
async fn reject_token(
    rejected_token: &str,
    handle: &mut mock::Handle<MockRequest, Response<String>>,
    requests: usize,
) {
    for _ in 0..requests {
        let (request, reply) = handle.next_request().await.unwrap();
        let rejected = request.headers()[AUTHORIZATION] == *rejected_token;
        let status = if rejected { 401 } else { 200 };
        reply.send_response(
            Response::builder()
                .status(status)
                .body(String::new())
                .unwrap(),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_awaited_with_a_fresh_token() {
    let (inner, mut handle) = mock::pair::<MockRequest, Response<String>>();
    let cache = TokenCache::new(numbered());
    cache.token().await.unwrap();
    let mut client = BearerAuthLayer::from(cache).layer(inner);

    handle.allow(0);
    let mut ready = tokio_test::task::spawn(client.ready());
    assert!(
        ready.poll().is_pending(),
        "it is not ready before the inner service"
    );
    handle.allow(1);
    assert!(ready.is_woken());
    assert!(ready.poll().is_ready());
    drop(ready);
    let sending = tokio::spawn(client.call(get(API)));
    reject_token("none", &mut handle, 1).await;
    assert_eq!(sending.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_awaited_again_after_waiting_for_a_token() {
    let (inner, mut handle) = mock::pair::<MockRequest, Response<String>>();
    let mut client = BearerAuthLayer::new(slow()).layer(inner);
    handle.allow(1);
    client.ready().await.unwrap();
    let sending = tokio::spawn(client.call(get(API)));
    // The call gave up its readiness while it waits, so the inner service must be polled for it again.
    yield_now().await;
    handle.allow(0);
    sleep(Duration::from_secs(2)).await;
    assert!(!sending.is_finished());
    handle.allow(1);
    reject_token("none", &mut handle, 1).await;
    assert_eq!(sending.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_awaited_before_a_replay() {
    for source in [false, true] {
        let (inner, mut handle) = mock::pair::<MockRequest, Response<String>>();
        let cache = if source {
            TokenCache::new(slow())
        } else {
            TokenCache::new(numbered())
        };
        let mut client = BearerAuthLayer::from(cache).layer(inner);
        handle.allow(1);
        client.ready().await.unwrap();
        let sending = tokio::spawn(client.call(get(API)));
        if source {
            sleep(Duration::from_secs(2)).await;
        }
        reject_token("Bearer token-1", &mut handle, 1).await;
        handle.allow(0);
        sleep(Duration::from_secs(5)).await;
        assert!(
            !sending.is_finished(),
            "the replay waits until the inner service is ready"
        );
        handle.allow(1);
        reject_token("Bearer token-1", &mut handle, 1).await;
        assert_eq!(sending.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn add_token_awaits_readiness_again_after_waiting_for_a_token() {
    let (inner, mut handle) = mock::pair::<FullRequest, Response<()>>();
    let mut client = AddTokenLayer::new(slow()).layer(inner);
    client.ready().await.unwrap();
    let sending = tokio::spawn(client.call(get(API)));
    yield_now().await;
    handle.allow(0);
    sleep(Duration::from_secs(2)).await;
    assert!(!sending.is_finished());
    handle.allow(1);
    let (request, reply) = handle.next_request().await.unwrap();
    assert_eq!(request.headers()[AUTHORIZATION], "Bearer token-1");
    reply.send_response(Response::new(()));
    assert_eq!(sending.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn add_token_is_ready_when_the_inner_service_is() {
    let (inner, mut handle) = mock::pair::<FullRequest, Response<()>>();
    let mut client = AddTokenLayer::new(numbered()).layer(inner);
    handle.allow(0);
    let mut ready = tokio_test::task::spawn(client.ready());
    assert!(ready.poll().is_pending());
    handle.allow(1);
    assert!(ready.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_poll_ready_is_returned() {
    let (inner, mut handle) = mock::pair::<MockRequest, Response<String>>();
    handle.send_error("out of order");
    let client = BearerAuthLayer::new(numbered()).layer(inner);
    let error = client.oneshot(get(API)).await.unwrap_err();
    assert!(error.to_string().contains("out of order"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_poll_ready_after_waiting_for_a_token_is_returned() {
    let (inner, mut handle) = mock::pair::<MockRequest, Response<String>>();
    let sending = tokio::spawn(BearerAuthLayer::new(slow()).layer(inner).oneshot(get(API)));
    yield_now().await;
    handle.send_error("out of order");
    let error = sending.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("out of order"), "{error}");

    let (inner, mut handle) = mock::pair::<FullRequest, Response<()>>();
    let sending = tokio::spawn(AddTokenLayer::new(slow()).layer(inner).oneshot(get(API)));
    yield_now().await;
    handle.send_error("out of order");
    let error = sending.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("out of order"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_token_expires_while_it_waits_for_readiness_succeeds() {
    let issued = AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            sleep(Duration::from_secs(1)).await;
            Ok(Token::new(format!("token-{number}"))?.expires_in(Duration::from_secs(60)))
        }
    });
    let (inner, mut handle) = mock::pair::<MockRequest, Response<String>>();
    handle.allow(1);
    let client = BearerAuthLayer::new(source).layer(inner);
    let sending = tokio::spawn(client.oneshot(order("waits", "an order")));
    yield_now().await;
    handle.allow(0);
    sleep(Duration::from_secs(100)).await;
    handle.allow(2);
    reject_token("Bearer token-1", &mut handle, 2).await;
    assert_eq!(sending.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_at_any_point_before_it_is_sent_leaves_the_service_usable() {
    let inner = service_fn(|_: MockRequest| async {
        sleep(Duration::from_secs(3)).await;
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    for seconds in 0..5 {
        let narrow = ConcurrencyLimit::new(inner, 1);
        let client = BearerAuthLayer::new(slow()).layer(narrow);
        // The first one is sent after a second. The others wait for the token, and then for the first one.
        let running: Vec<_> = (0..3)
            .map(|_| tokio::spawn(client.clone().oneshot(get(API))))
            .collect();
        sleep(Duration::from_secs(seconds)).await;
        for task in running {
            task.abort();
        }
        let sent = timeout(Duration::from_secs(10), client.oneshot(get(API))).await;
        assert_eq!(sent.unwrap().unwrap().status(), 200, "after {seconds} s");
    }
}

/// Token endpoint and API in one service.
#[derive(Clone)]
struct CombinedServer {
    server: AuthorizationServer,
    api: ProtectedApi,
}

impl<B> Service<Request<B>> for CombinedServer
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        if request.uri().path() == self.server.token_path() {
            self.server.call(request)
        } else {
            self.api.call(request)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn token_endpoint_and_api_do_not_deadlock_behind_a_concurrency_limit_of_1() {
    let (server, api) = standard();
    server.fault_always(Fault::Delay(Duration::from_millis(100)));
    let combined = CombinedServer {
        server: server.clone(),
        api: api.clone(),
    };
    let narrow = ConcurrencyLimit::new(combined, 1);
    let endpoint = OAuthClient::with_transport(TOKEN_URL, narrow.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
    let client = BearerAuthLayer::new(source).layer(narrow);

    let since = Instant::now();
    for round in 1..=3 {
        let mut sending: JoinSet<_> = (0..10)
            .map(|n| client.clone().oneshot(order(&format!("{round}-{n}"), "")))
            .collect();
        while let Some(response) = sending.join_next().await {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
        assert_eq!(server.refreshes(), round);
        server.revoke_access_tokens();
    }
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Which requests get the token.

#[tokio::test(start_paused = true)]
async fn the_callers_own_authorization_is_kept() {
    let (server, api) = standard();
    let client = BearerAuthLayer::new(source(&server)).layer(api.clone());
    let mut request = get(API);
    request
        .headers_mut()
        .insert(AUTHORIZATION, "Basic bWU6bWU=".parse().unwrap());
    assert_eq!(status(&client, request).await, 401);
    assert_eq!(api.requests()[0].headers[AUTHORIZATION], "Basic bWU6bWU=");
    assert_eq!((api.received(), server.token_requests()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_opts_out_is_sent_without_a_token() {
    let (server, api) = standard();
    let cache = TokenCache::new(source(&server));
    let replaying = BearerAuth::new(api.clone(), cache.clone());
    let adding = AddToken::new(api.clone(), cache.clone());
    let health = || {
        let mut request = get(API);
        request.extensions_mut().insert(WithoutToken);
        request
    };
    assert_eq!(status(&replaying, health()).await, 401);
    assert_eq!(status(&adding, health()).await, 401);
    // The rejection says nothing about a token: nothing is refreshed, and nothing is sent again.
    assert_eq!((api.received(), server.token_requests()), (2, 0));
    let sent = api.requests();
    assert!(
        sent.iter()
            .all(|request| !request.headers.contains_key(AUTHORIZATION))
    );

    assert_eq!(status(&replaying, get(API)).await, 200);
    assert_eq!(status(&adding, get(API)).await, 200);
}

#[tokio::test(start_paused = true)]
async fn the_origins_of_a_cache_are_those_of_its_source_or_builder() {
    let only = || Origins::only([API]).unwrap();
    let elsewhere: http::Uri = "https://elsewhere.example/".parse().unwrap();
    let of_builder = TokenCache::builder(numbered()).origins(only()).build();
    assert!(TokenCache::new(numbered()).origins().allows(&elsewhere));
    assert!(!of_builder.origins().allows(&elsewhere));

    let (_, api) = standard();
    let client = BearerAuthLayer::from(of_builder).layer(api.clone());
    assert_eq!(
        status(&client, get("https://elsewhere.example/")).await,
        401
    );
    assert!(!api.requests()[0].headers.contains_key(AUTHORIZATION));
}

#[tokio::test(start_paused = true)]
async fn a_request_to_another_origin_is_sent_without_a_token() {
    let (server, api) = standard();
    let layer = BearerAuthLayer::new(source(&server)).origins(Origins::only([API]).unwrap());
    let client = layer.layer(api.clone());
    for other in [
        "https://api.example.com.evil.example/",
        "https://api.example.com@evil.example/",
        "https://api.example.com:8443/",
        "http://api.example.com/",
    ] {
        // A rejection there causes no refresh either.
        assert_eq!(status(&client, get(other)).await, 401, "{other}");
        let sent = api.requests().pop().unwrap();
        assert!(!sent.headers.contains_key(AUTHORIZATION), "{other}");
    }
    assert_eq!((api.received(), server.token_requests()), (4, 0));
    assert_eq!(status(&client, get(API)).await, 200);
}

#[tokio::test(start_paused = true)]
async fn plain_http_to_another_host_is_an_error_and_nothing_is_sent() {
    let (server, api) = standard();
    let client = BearerAuthLayer::new(source(&server)).layer(api.clone());
    let error = failure(send(&client, get("http://api.example.com/")).await);
    assert_eq!(error.kind(), TokenErrorKind::InsecureOrigin);
    assert!(error.to_string().contains("use https"), "{error}");
    assert_eq!((api.received(), server.token_requests()), (0, 0));
    assert_eq!(status(&client, get("http://127.0.0.1:8080/")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn sensitive_headers_stay_sensitive_in_a_replay() {
    let (server, api) = standard();
    let sensitive = Arc::new(AtomicUsize::new(0));
    let seen = sensitive.clone();
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source(&server)))
        .map_request(move |request: MockRequest| {
            let hidden = |name| request.headers()[name].is_sensitive();
            let both = hidden("authorization") && hidden("x-api-key");
            seen.fetch_add(usize::from(both), Ordering::SeqCst);
            request
        })
        .service(api);
    let with_key = || {
        let mut request = get(API);
        let mut key = HeaderValue::from_static("the caller's");
        key.set_sensitive(true);
        request.headers_mut().insert("x-api-key", key);
        request
    };
    assert_eq!(status(&client, with_key()).await, 200);
    server.revoke_access_tokens();
    assert_eq!(status(&client, with_key()).await, 200);
    assert_eq!(sensitive.load(Ordering::SeqCst), 3);
}

// ---------------------------------------------------------------------------------------------------------------------
// The parts on their own.

#[tokio::test(start_paused = true)]
async fn add_token_alone_never_replays() {
    let (server, api) = standard();
    let client = AddTokenLayer::new(source(&server)).layer(api.clone());
    assert_eq!(status(&client, order("first", "")).await, 200);
    server.revoke_access_tokens();
    assert_eq!(status(&client, order("rejected", "")).await, 401);
    assert_eq!(api.attempts()["rejected"], 1);
    // But the rejection was reported to the cache.
    assert_eq!(status(&client, order("next", "")).await, 200);
    assert_eq!((server.refreshes(), api.received()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn add_token_marks_a_rejected_response_and_no_other() {
    let (server, api) = standard();
    let client = AddTokenLayer::new(source(&server)).layer(api.clone());
    let accepted = send(&client, get(API)).await.unwrap();
    assert!(accepted.extensions().get::<TokenRejected>().is_none());
    server.revoke_access_tokens();
    let rejected = send(&client, get(API)).await.unwrap();
    let mark = rejected.extensions().get::<TokenRejected>();
    assert!(!format!("{:?}", mark.unwrap()).contains("access"));
}

#[tokio::test(start_paused = true)]
async fn of_two_policies_only_the_inner_one_sends_a_request_again() {
    let sends = Arc::new(AtomicUsize::new(0));
    let count = sends.clone();
    let (outer, inner) = (TokenCache::new(numbered()), TokenCache::new(numbered()));
    outer.token().await.unwrap();
    let origins = |origin| Origins::only([origin]).unwrap();
    let client = ServiceBuilder::new()
        .retry(RefreshOnReject::new(outer.clone()))
        .layer(AddTokenLayer::from(outer).origins(origins("https://outer.example")))
        .retry(RefreshOnReject::new(inner.clone()))
        .layer(AddTokenLayer::from(inner).origins(origins("https://inner.example")))
        .service(service_fn(move |_: Request<ReplayBody<String>>| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Response::builder().status(401).body(()) }
        }));
    let request = Request::get("https://inner.example/");
    let request = request.body(ReplayBody::new(String::new(), 0)).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(sends.load(Ordering::SeqCst), 2);
}

/// A policy that retries a 503 as well.
#[derive(Clone)]
struct RetryUnavailable(RefreshOnReject);

type RetryFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<E: Send + 'static> Policy<Request<ReplayBody<String>>, Response<()>, E> for RetryUnavailable {
    type Future = RetryFuture;

    fn retry(
        &mut self,
        request: &mut Request<ReplayBody<String>>,
        result: &mut Result<Response<()>, E>,
    ) -> Option<RetryFuture> {
        if let Some(future) = self.0.retry(request, result) {
            return Some(Box::pin(future));
        }
        let response = result.as_ref().ok()?;
        (response.status() == 503).then(|| Box::pin(std::future::ready(())) as RetryFuture)
    }

    fn clone_request(
        &mut self,
        request: &Request<ReplayBody<String>>,
    ) -> Option<Request<ReplayBody<String>>> {
        Policy::<_, Response<()>, E>::clone_request(&mut self.0, request)
    }
}

#[derive(Clone, Debug, Default)]
struct CountingBudget(Arc<AtomicIsize>);

impl Budget for CountingBudget {
    fn deposit(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn withdraw(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst);
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_paid_back_once_however_often_another_policy_retries() {
    let cache = TokenCache::new(numbered());
    let budget = CountingBudget::default();
    let sends = Arc::new(AtomicUsize::new(0));
    let policy = RefreshOnReject::new(cache.clone()).budget(budget.clone());
    let client = ServiceBuilder::new()
        .retry(RetryUnavailable(policy))
        .layer(AddTokenLayer::from(cache))
        .service(service_fn(move |_: Request<ReplayBody<String>>| {
            let status = match sends.fetch_add(1, Ordering::SeqCst) {
                0 => 401,
                1..=4 => 503,
                _ => 200,
            };
            async move { Response::builder().status(status).body(()) }
        }));
    let request = Request::get(API);
    let request = request.body(ReplayBody::new(String::new(), 0)).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(budget.0.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_boxed_source_keeps_its_origins_and_its_schedule() {
    let (server, api) = standard();
    let source = source(&server)
        .origins(Origins::only([API]).unwrap())
        .schedule(Schedule::default().min_interval(Duration::from_secs(9)));
    let boxed: BoxTokenSource = source.boxed();
    let sources: Vec<BoxTokenSource> = vec![boxed.clone(), numbered().boxed()];
    assert_eq!(
        boxed.schedule(),
        Schedule::default().min_interval(Duration::from_secs(9))
    );
    assert!(
        !boxed
            .origins()
            .allows(&"https://elsewhere.example/".parse().unwrap())
    );
    for source in sources {
        TokenCache::new(source).token().await.unwrap();
    }
    let client = BearerAuthLayer::new(boxed).layer(api);
    assert_eq!(status(&client, get(API)).await, 200);
}

#[tokio::test(start_paused = true)]
async fn retry_and_add_token_composed_by_hand_replay_a_rejection() {
    let (server, api) = standard();
    let cache = TokenCache::new(source(&server));
    let client = ServiceBuilder::new()
        .map_request(|request: FullRequest| request.map(|body| ReplayBody::new(body, 64 * 1024)))
        .retry(RefreshOnReject::new(cache.clone()))
        .layer(AddTokenLayer::from(cache))
        .service(api.clone());
    assert_eq!(status(&client, order("first", "")).await, 200);
    server.revoke_access_tokens();
    let response = send(&client, order("replayed", "a bell")).await.unwrap();
    assert_eq!(text(response).await, "a bell");
    assert_eq!((server.refreshes(), api.attempts()["replayed"]), (2, 2));

    api.reject_all(true);
    let response = send(&client, order("rejected", "")).await.unwrap();
    assert_eq!(
        (response.status(), api.attempts()["rejected"]),
        (StatusCode::UNAUTHORIZED, 2)
    );
    assert_eq!(reason(&response).kind(), TokenErrorKind::Rejected);
}

/// How often an order and a query are sent whose tokens are rejected.
async fn attempts<S, R>(client: S, server: &AuthorizationServer, api: &ProtectedApi) -> [usize; 2]
where
    S: Service<FullRequest, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    assert_eq!(status(&client, get(API)).await, 200);
    server.revoke_access_tokens();
    assert_eq!(status(&client, order("order", "")).await, 401);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(status(&client, get(API)).await, 200);
    server.revoke_access_tokens();
    let mut query = get(API);
    query
        .headers_mut()
        .insert("x-request-id", HeaderValue::from_static("query"));
    assert_eq!(status(&client, query).await, 200);
    ["order", "query"].map(|id| api.attempts()[id])
}

#[tokio::test(start_paused = true)]
async fn if_that_is_set_only_idempotent_requests_are_sent_again() {
    let (server, api) = standard();
    let layer = BearerAuthLayer::new(source(&server)).replay_only_idempotent(true);
    let client = layer.layer(api.clone());
    assert_eq!(attempts(client, &server, &api).await, [1, 2]);

    let (server, api) = standard();
    let cache = TokenCache::new(source(&server));
    let client = ServiceBuilder::new()
        .map_request(|request: FullRequest| request.map(|body| ReplayBody::new(body, 64 * 1024)))
        .retry(RefreshOnReject::new(cache.clone()).only_idempotent(true))
        .layer(AddTokenLayer::from(cache))
        .service(api.clone());
    assert_eq!(attempts(client, &server, &api).await, [1, 2]);
}

/// A source whose store gets the token `stored` from another process, a moment after it is asked for one.
struct Stored(AtomicUsize);

impl TokenSource for Stored {
    async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
        Token::new(format!("token-{}", self.0.fetch_add(1, Ordering::SeqCst)))
    }

    async fn stored_token(&self, _: TokenContext) -> Option<Token> {
        sleep(Duration::from_millis(10)).await;
        Token::new("stored").ok()
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_waits_for_the_token_of_another_process() {
    let cache = TokenCache::new(Stored(AtomicUsize::new(1)));
    let client = ServiceBuilder::new()
        .retry(RefreshOnReject::new(cache.clone()))
        .layer(AddTokenLayer::from(cache))
        .service(service_fn(
            |request: Request<ReplayBody<String>>| async move {
                let is_good = request.headers()[AUTHORIZATION] == "Bearer stored";
                let status = if is_good { 200 } else { 401 };
                Response::builder().status(status).body(())
            },
        ));
    // After two tokens that were rejected at once, the next refresh is held back.
    for expected in [401, 200] {
        let request = Request::get(API).body(ReplayBody::new(String::new(), 0));
        assert_eq!(status(&client, request.unwrap()).await, expected);
    }
}

/// How many tokens are issued if each is used for one 404, which the classifier gives this verdict, and then rejected.
async fn issued_with(verdict: Verdict) -> u64 {
    let cache = TokenCache::new(numbered());
    let classifier = move |head: ResponseHead<'_>| match head.status {
        StatusCode::UNAUTHORIZED => Verdict::Rejected,
        _ => verdict,
    };
    let api = service_fn(|request: FullRequest| async move {
        let status = request.headers()["x-status"].to_str()?.parse::<u16>()?;
        Ok::<_, BoxError>(Response::builder().status(status).body(())?)
    });
    let client = AddTokenLayer::from(cache.clone())
        .classifier(classifier)
        .layer(api);
    for code in [404, 401].repeat(10) {
        let mut request = get(API);
        request.headers_mut().insert("x-status", code.into());
        assert_eq!(status(&client, request).await, code);
        sleep(Duration::from_secs(1)).await;
    }
    cache.status().issued
}

#[tokio::test(start_paused = true)]
async fn a_classifier_that_accepts_an_error_status_is_believed() {
    // The first token, and one for each rejection.
    assert_eq!(issued_with(Verdict::Accepted).await, 11);
    // Tokens that are rejected without having been accepted slow down refreshes.
    let unrelated = issued_with(Verdict::Unrelated).await;
    assert!(unrelated < 7, "{unrelated} tokens");
}
