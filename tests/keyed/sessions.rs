//! How sessions are made, kept and dropped, and which session a request gets.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::{Instant, sleep},
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_bearer::{
    BearerAuthLayer, KeyedSessions, OAuthClient, Origins, RefreshTokenSource, ReplayBody,
    SessionKey, Sessions, Token, TokenCache, TokenContext, TokenError, TokenErrorKind, TokenSource,
    WithoutToken, source_fn,
};

use super::{cache_of, echo, kind, request};

#[tokio::test(start_paused = true)]
async fn each_request_is_sent_with_the_token_of_its_key() {
    let sessions = Sessions::new(|key| async move { Ok(cache_of(key)) });
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::keyed(sessions.clone()))
        .service_fn(echo);
    for key in [1, 2, 1, 3, 2] {
        let response = client.clone().oneshot(request(key)).await.unwrap();
        assert_eq!(*response.body(), format!("Bearer token-of-{key}"));
    }
    assert_eq!(sessions.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn many_first_requests_of_a_key_call_the_factory_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let sessions = Sessions::new({
        let calls = Arc::clone(&calls);
        move |key| {
            calls.fetch_add(1, Ordering::Relaxed);
            async move {
                sleep(Duration::from_secs(1)).await;
                Ok(cache_of(key))
            }
        }
    });
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::keyed(sessions))
        .service_fn(echo);
    let requests: Vec<_> = (0..100)
        .map(|_| tokio::spawn(client.clone().oneshot(request(7))))
        .collect();
    for response in requests {
        assert_eq!(response.await.unwrap().unwrap().body(), "Bearer token-of-7");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_factory_is_called_once_for_all_who_wait_and_again_later() {
    let calls = Arc::new(AtomicUsize::new(0));
    let sessions = Sessions::new({
        let calls = Arc::clone(&calls);
        move |key| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move {
                sleep(Duration::from_secs(1)).await;
                if call == 0 {
                    return Err(TokenError::new(TokenErrorKind::Store, "no such user"));
                }
                Ok(cache_of(key))
            }
        }
    });
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let sessions = sessions.clone();
            tokio::spawn(async move { sessions.get(&7).await })
        })
        .collect();
    for result in waiting {
        assert_eq!(
            result.await.unwrap().unwrap_err().kind(),
            TokenErrorKind::Store
        );
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    sessions.get(&7).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_made_although_the_request_that_needed_it_is_dropped() {
    let sessions = Sessions::new(|key| async move {
        sleep(Duration::from_secs(1)).await;
        Ok(cache_of(key))
    });
    let dropped = tokio::time::timeout(Duration::from_millis(1), sessions.get(&7)).await;
    assert!(dropped.is_err());
    sleep(Duration::from_secs(1)).await;
    assert!(sessions.peek(&7).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_panics_or_hangs_is_an_error_and_is_called_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let sessions = Sessions::builder({
        let calls = Arc::clone(&calls);
        move |key| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move {
                match call {
                    0 => panic!("the factory panics"),
                    1 => pending().await,
                    _ => Ok(cache_of(key)),
                }
            }
        }
    })
    .creation_timeout(Duration::from_secs(5))
    .build();
    for expected in [TokenErrorKind::Interrupted, TokenErrorKind::Timeout] {
        assert_eq!(sessions.get(&7).await.unwrap_err().kind(), expected);
    }
    sessions.get(&7).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_is_an_error_unless_it_needs_no_token() {
    let sessions = Sessions::new(|key| async move { Ok(cache_of(key)) });
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::keyed(sessions.clone()))
        .service_fn(echo);
    let request = || Request::get("https://api.example.com/");

    // The key of another type is none.
    for request in [request(), request().extension(SessionKey(7_i32))] {
        let request = request.body(String::new()).unwrap();
        let error = client.clone().oneshot(request).await.unwrap_err();
        assert_eq!(kind(&error), TokenErrorKind::Config);
        assert!(error.to_string().contains("SessionKey<u64>"), "{error}");
    }

    let own = request().header("authorization", "Basic abc");
    for (request, expected) in [(own, "Basic abc"), (request().extension(WithoutToken), "")] {
        let request = request.body(String::new()).unwrap();
        let mut with_key = request.clone();
        with_key.extensions_mut().insert(SessionKey(7_u64));
        for request in [request, with_key] {
            let response = client.clone().oneshot(request).await.unwrap();
            assert_eq!(response.body(), expected);
        }
    }
    assert!(
        sessions.is_empty(),
        "nothing was made for requests without a token"
    );
}

#[tokio::test(start_paused = true)]
async fn the_key_can_be_found_in_the_head_of_a_request() {
    let sessions = Sessions::new(|key: u64| async move { Ok(cache_of(key)) });
    let layer = BearerAuthLayer::keyed_by(sessions, |head| head.uri.path()[1..].parse().ok());
    let client = ServiceBuilder::new().layer(layer).service_fn(echo);
    let request = |path| {
        Request::get(format!("https://api.example.com{path}"))
            .body(String::new())
            .unwrap()
    };
    let response = client.clone().oneshot(request("/7")).await.unwrap();
    assert_eq!(response.body(), "Bearer token-of-7");
    let error = client.oneshot(request("/health")).await.unwrap_err();
    assert_eq!(kind(&error), TokenErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn no_readiness_is_held_while_a_session_is_made_or_if_there_is_no_key() {
    let sessions = Sessions::new(|key| async move {
        if key == 7 {
            pending::<()>().await;
        }
        Ok(cache_of(key))
    });
    let mut client = ServiceBuilder::new()
        .layer(BearerAuthLayer::keyed(sessions))
        .concurrency_limit(1)
        .service_fn(echo);
    let waiting = client.ready().await.unwrap().call(request(7));
    let no_key = Request::get("https://api.example.com/")
        .body(String::new())
        .unwrap();
    let no_key = client.ready().await.unwrap().call(no_key);
    let response = client
        .ready()
        .await
        .unwrap()
        .call(request(8))
        .await
        .unwrap();
    assert_eq!(response.body(), "Bearer token-of-8");
    drop((waiting, no_key));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_is_sent_again_with_the_next_token_of_its_key() {
    let sessions = Sessions::new(|key: u64| async move {
        let issued = Arc::new(AtomicUsize::new(0));
        Ok(TokenCache::new(source_fn(move |_| {
            let number = issued.fetch_add(1, Ordering::Relaxed);
            async move { Token::new(format!("{key}-{number}")) }
        })))
    });
    let sent = Arc::new(Mutex::new(Vec::new()));
    let api = {
        let sent = Arc::clone(&sent);
        service_fn(move |request: Request<ReplayBody<String>>| {
            let token = request.headers()["authorization"]
                .to_str()
                .unwrap()
                .to_owned();
            let is_old = token.ends_with("-0");
            sent.lock().unwrap().push(token);
            let status = if is_old {
                StatusCode::UNAUTHORIZED
            } else {
                StatusCode::OK
            };
            let response = Response::builder().status(status).body(String::new());
            async move { response }
        })
    };
    let mut client = ServiceBuilder::new()
        .layer(BearerAuthLayer::keyed(sessions.clone()))
        .service(api);
    for key in [1, 2] {
        let first = client.ready().await.unwrap().call(request(key));
        assert_eq!(first.await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(
        *sent.lock().unwrap(),
        ["Bearer 1-0", "Bearer 1-1", "Bearer 2-0", "Bearer 2-1"]
    );
}

#[tokio::test(start_paused = true)]
async fn there_are_hardly_more_sessions_than_the_capacity() {
    let made = Arc::new(AtomicUsize::new(0));
    let sessions = Sessions::builder({
        let made = Arc::clone(&made);
        move |key| {
            made.fetch_add(1, Ordering::Relaxed);
            async move { Ok(cache_of(key)) }
        }
    })
    .capacity(100)
    .build();
    for key in 0..1_000 {
        sessions.get(&key).await.unwrap().token().await.unwrap();
    }
    assert!((50..=100).contains(&sessions.len()), "{}", sessions.len());
    assert_eq!(made.load(Ordering::Relaxed), 1_000);
    // All of them are in use: none is dropped.
    let held: Vec<_> = sessions.iter().collect();
    let mut more = Vec::new();
    for key in 2_000..2_300 {
        more.push(sessions.get(&key).await.unwrap());
    }
    for (key, _) in &held {
        assert!(sessions.peek(key).is_some(), "{key}");
    }
    for key in 2_000..2_300 {
        assert!(sessions.peek(&key).is_some(), "{key}");
    }
    drop((held, more));
    for key in 3_000..3_500 {
        sessions.get(&key).await.unwrap();
    }
    assert!(sessions.len() <= 100, "{}", sessions.len());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_dropped_when_it_was_not_used_for_the_idle_timeout() {
    let sessions = Sessions::builder(|key| async move { Ok(cache_of(key)) })
        .idle_timeout(Duration::from_secs(400))
        .build();
    for key in [1, 2] {
        sessions.get(&key).await.unwrap().token().await.unwrap();
    }
    for _ in 0..20 {
        sleep(Duration::from_secs(30)).await;
        sessions.get(&2).await.unwrap();
        // A look does not count.
        if sessions.peek(&1).is_none() {
            break;
        }
    }
    assert!(sessions.peek(&1).is_none());
    assert!(sessions.peek(&2).is_some());

    sessions.get(&1).await.unwrap();
    sleep(Duration::from_secs(399)).await;
    assert!(sessions.peek(&1).is_some(), "dropped before the timeout");
    sleep(Duration::from_secs(102)).await;
    assert!(sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_in_use_is_not_dropped_when_it_is_idle() {
    let sessions = Sessions::builder(|key| async move { Ok(cache_of(key)) })
        .idle_timeout(Duration::from_secs(40))
        .build();
    let in_use = sessions.get(&1).await.unwrap();
    sleep(Duration::from_secs(1_000)).await;
    assert_eq!(sessions.len(), 1);
    drop(in_use);
    sleep(Duration::from_secs(11)).await;
    assert!(sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rotating_refresh_token_in_memory_is_an_error_unless_its_loss_is_allowed() {
    let server =
        tower_bearer::testing::AuthorizationServer::new(tower_bearer::testing::Dialect::Rfc6749);
    let factory = move |_: u64| {
        let server = server.clone();
        async move {
            let client =
                OAuthClient::with_transport("https://login.example.com/token", server.clone())?;
            Ok(TokenCache::new(RefreshTokenSource::new(
                client,
                server.issue_refresh_token(),
            )))
        }
    };
    let error = Sessions::new(factory.clone()).get(&1).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(error.to_string().contains("durable store"), "{error}");
    let sessions = Sessions::builder(factory).allow_memory_stores().build();
    sessions.get(&1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_removed_session_is_made_again_also_if_it_was_being_made() {
    let made = Arc::new(AtomicUsize::new(0));
    let sessions = Sessions::new({
        let made = Arc::clone(&made);
        move |key| {
            made.fetch_add(1, Ordering::Relaxed);
            async move {
                sleep(Duration::from_secs(1)).await;
                Ok(cache_of(key))
            }
        }
    });
    sessions.get(&1).await.unwrap();
    sessions.remove(&1).await.unwrap();
    assert!(sessions.is_empty());

    let first = tokio::spawn({
        let sessions = sessions.clone();
        async move { sessions.get(&1).await }
    });
    sleep(Duration::from_millis(500)).await;
    sessions.remove(&1).await.unwrap();
    let session = first.await.unwrap().unwrap();
    assert_eq!(
        made.load(Ordering::Relaxed),
        3,
        "the second one was begun before it was removed"
    );
    let (kept, session) = (sessions.peek(&1).unwrap(), session.token().await.unwrap());
    assert_eq!(
        kept.peek().unwrap().header(),
        session.header(),
        "the same session"
    );
    sessions.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_do_not_wait_for_the_factory_call_of_a_removed_session() {
    let made = Arc::new(AtomicUsize::new(0));
    let sessions = Sessions::new({
        let made = Arc::clone(&made);
        move |key| {
            let number = made.fetch_add(1, Ordering::Relaxed);
            async move {
                if number == 0 {
                    pending::<()>().await;
                }
                Ok(cache_of(key))
            }
        }
    });
    let mut waiting = task::spawn(sessions.get(&7));
    assert_pending!(waiting.poll());
    yield_now().await;
    assert_eq!(made.load(Ordering::Relaxed), 1);
    sessions.remove(&7).await.unwrap();
    let begun = Instant::now();
    waiting.await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

fn one_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[test]
fn a_session_is_not_made_on_a_runtime_that_has_ended() {
    let runtime = one_thread();
    let ended = runtime.handle().clone();
    drop(runtime);
    let sessions = Sessions::new(|key| async move { Ok(cache_of(key)) });
    {
        let _inside = ended.enter();
        let mut get = task::spawn(sessions.get(&7));
        let error = assert_ready!(get.poll()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Interrupted);
    }
    one_thread().block_on(sessions.get(&7)).unwrap();
}

#[test]
fn those_who_wait_make_a_session_that_was_lost_with_its_runtime() {
    let (first, second) = (one_thread(), one_thread());
    let sessions = Sessions::new(|key| async move { Ok(cache_of(key)) });
    let mut begun = {
        let _inside = first.enter();
        let mut get = task::spawn(sessions.get(&7));
        assert_pending!(get.poll());
        get
    };
    second.block_on(async {
        let mut joined = task::spawn(sessions.get(&7));
        assert_pending!(joined.poll());
        first.shutdown_background();
        joined.await.unwrap();
        assert_ready!(begun.poll()).unwrap();
    });
}

#[test]
fn a_runtime_that_is_not_polled_blocks_a_key_until_the_creation_timeout_only() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (stopped, running) = (one_thread(), one_thread());
    let sessions = Sessions::new({
        let calls = Arc::clone(&calls);
        move |key| {
            calls.fetch_add(1, Ordering::Relaxed);
            async move { Ok(cache_of(key)) }
        }
    });
    {
        let _inside = stopped.enter();
        assert_pending!(task::spawn(sessions.get(&7)).poll());
    }
    running.block_on(async {
        let error = sessions.get(&7).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
        sessions.get(&7).await.unwrap();
    });
    // Its task comes too late, and does not call the factory for nothing.
    stopped.block_on(async {
        sleep(Duration::from_secs(1)).await;
        sessions.get(&7).await.unwrap();
    });
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// A source that panics, without a message, where that is not expected.
struct Panics {
    if_asked: bool,
    if_dropped: bool,
}

impl TokenSource for Panics {
    async fn token(&self, _cx: TokenContext) -> Result<Token, TokenError> {
        Token::new("token")
    }

    fn has_unsaved(&self) -> bool {
        assert_no_panic(!self.if_asked);
        false
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert_no_panic(!self.if_dropped);
    }
}

fn assert_no_panic(is_ok: bool) {
    if !is_ok && !std::thread::panicking() {
        std::panic::resume_unwind(Box::new("the source panics"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_when_it_is_asked_or_dropped_disturbs_no_other_key() {
    for (if_asked, if_dropped) in [(true, false), (false, true)] {
        let sessions = Sessions::builder(move |key| async move {
            Ok(if key == 0 {
                TokenCache::new(Panics {
                    if_asked,
                    if_dropped,
                })
            } else {
                cache_of(key)
            })
        })
        .capacity(1)
        .build();
        for key in 0..10 {
            drop(sessions.get(&key).await.unwrap());
            assert!(sessions.peek(&key).is_some(), "{key}");
        }
        // It is not known whether it has something to save.
        assert_eq!(sessions.peek(&0).is_some(), if_asked);
        let removed = sessions.remove(&0).await;
        assert_eq!(
            removed.err().map(|error| error.kind()),
            if_asked.then_some(TokenErrorKind::Store)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_task_is_left_when_all_handles_are_dropped() {
    let sessions = Sessions::builder(|key| async move { Ok(cache_of(key)) })
        .idle_timeout(Duration::MAX)
        .build();
    sessions.get(&1).await.unwrap();
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        1
    );
    drop(sessions);
    yield_now().await;
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn the_least_and_the_greatest_settings_work() {
    for (capacity, duration) in [
        (0, Duration::MAX),
        (1, Duration::MAX),
        (usize::MAX, Duration::ZERO),
    ] {
        let sessions = Sessions::builder(|key| async move { Ok(cache_of(key)) })
            .capacity(capacity)
            .idle_timeout(duration)
            .creation_timeout(Duration::MAX)
            .build();
        for key in [1, 2, 1, 2] {
            sessions.get(&key).await.unwrap();
        }
        assert_eq!(sessions.len(), capacity.clamp(1, 2));
        sleep(Duration::from_millis(999)).await;
        assert!(!sessions.is_empty());
        sleep(Duration::from_millis(260)).await;
        assert_eq!(sessions.is_empty(), duration.is_zero());
    }
}

/// A source that has something to save again, while it is being saved for the first time.
#[derive(Default)]
struct SavedTwice(AtomicUsize);

impl TokenSource for SavedTwice {
    async fn token(&self, _cx: TokenContext) -> Result<Token, TokenError> {
        Token::new("token")
    }

    async fn flush(&self) -> Result<(), TokenError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn has_unsaved(&self) -> bool {
        self.0.load(Ordering::Relaxed) < 2
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_saved_until_nothing_is_unsaved_before_it_is_removed() {
    let source = Arc::new(SavedTwice::default());
    let sessions = Sessions::new({
        let source = Arc::clone(&source);
        move |_: u64| {
            let source = Arc::clone(&source);
            async move { Ok(TokenCache::new(source)) }
        }
    });
    sessions.get(&1).await.unwrap();
    sessions.remove(&1).await.unwrap();
    assert!(sessions.is_empty());
    assert_eq!(source.0.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_go_to_the_origins_of_their_session_unless_the_layer_has_others() {
    let sessions = Sessions::new(|key: u64| async move {
        let source = source_fn(move |_| async move { Token::new(format!("token-of-{key}")) });
        let origins = Origins::only([format!("https://{key}.example.com")])?;
        Ok(TokenCache::builder(source).origins(origins).build())
    });
    let send = async |layer: &BearerAuthLayer<KeyedSessions<u64>>, key: u64, host: &str| {
        let request = Request::get(format!("https://{host}/"))
            .extension(SessionKey(key))
            .body(String::new())
            .unwrap();
        let client = ServiceBuilder::new().layer(layer.clone()).service_fn(echo);
        client.oneshot(request).await.unwrap().into_body()
    };
    let own = BearerAuthLayer::keyed(sessions);
    let origins = Origins::only(["https://api.example.com"]).unwrap();
    let others = own.clone().origins(origins);
    // The second time, the sessions are there.
    for _ in 0..2 {
        for key in [1, 2] {
            let token = format!("Bearer token-of-{key}");
            assert_eq!(send(&own, key, &format!("{key}.example.com")).await, token);
            assert_eq!(
                send(&own, key, &format!("{}.example.com", 3 - key)).await,
                ""
            );
            assert_eq!(send(&own, key, "api.example.com").await, "");
            assert_eq!(send(&others, key, "api.example.com").await, token);
            assert_eq!(send(&others, key, &format!("{key}.example.com")).await, "");
        }
    }
}
