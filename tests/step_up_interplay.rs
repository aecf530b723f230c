//! Step-ups beside rejections, refreshes, other processes and other sessions.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::{
    API,
    failing_store::FailingStore,
    get, source, status,
    step_up::{
        allowed, api, asks, cache, client, machine, oauth, ok, reason, requested, send, server,
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::{Instant, advance, sleep},
};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_bearer::{
    AddTokenLayer, BearerAuthLayer, ClientCredentialsSource, Identity, MemoryStore,
    RefreshOnReject, RefreshTokenSource, ReplayBody, Schedule, StepUp, StoredSession, Token,
    TokenCache, TokenContext, TokenError, TokenErrorKind, TokenSource, source_fn, testing::Fault,
};

const HOUR: Duration = Duration::from_secs(3600);

/// How many tokens a process needs for a day, at most. They are due after twelve minutes.
const TOKENS_A_DAY: usize = 24 * 60 / 12;

#[tokio::test(start_paused = true)]
async fn a_pointer_to_a_source_passes_its_scopes_on() {
    let server = server();
    let api = server.api().require_scope("/orders", "read write");
    let caches = [
        cache(Arc::new(machine(&server))),
        cache(Box::new(machine(&server))),
        cache(Arc::new(machine(&server).boxed())),
    ];
    for cache in caches {
        assert!(ok(&client(&cache, &api), "/orders").await);
    }
}

/// A source that is asked for another session when the test says so, and takes a while to find none.
#[derive(Clone, Default)]
struct Looking {
    changes: watch::Sender<()>,
    step_ups: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
}

impl TokenSource for Looking {
    async fn token(&self, cx: TokenContext) -> Result<Token, TokenError> {
        let counter = if cx.is_step_up() {
            &self.step_ups
        } else {
            &self.others
        };
        let n = counter.fetch_add(1, Ordering::SeqCst);
        Token::new(format!("token-{}-{n}", cx.is_step_up()))
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.changes.subscribe())
    }

    async fn session_changed(&self, _: TokenContext) -> Result<bool, TokenError> {
        sleep(Duration::from_secs(5)).await;
        Ok(false)
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_up_starts_after_a_look_that_has_found_nothing() {
    for _ in 0..200 {
        let source = Looking::default();
        let cache = cache(source.clone());
        cache.token().await.unwrap();
        sleep(Duration::from_millis(1)).await;
        source.changes.send_replace(());
        sleep(Duration::from_secs(2)).await;
        assert!(cache.status().refreshing);
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache))
            .service(service_fn(asks));
        assert_eq!(status(&client, get(API)).await, 403);
        let asked = (
            source.step_ups.load(Ordering::SeqCst),
            source.others.load(Ordering::SeqCst),
        );
        assert_eq!(asked, (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_rejected_during_a_step_up_is_replaced_once() {
    for is_granted in [true, false] {
        for _ in 0..100 {
            let calls = Arc::new(AtomicUsize::new(0));
            let source = source_fn({
                let calls = Arc::clone(&calls);
                move |cx: TokenContext| {
                    let n = calls.fetch_add(1, Ordering::SeqCst);
                    async move {
                        if cx.is_step_up() {
                            sleep(Duration::from_secs(5)).await;
                            if !is_granted {
                                let kind = TokenErrorKind::InsufficientScope;
                                return Err(TokenError::new(kind, "not granted"));
                            }
                        }
                        Token::new(format!("token-{n}"))
                    }
                }
            });
            // The first token is good until it is revoked.
            let is_revoked = Arc::new(AtomicBool::new(false));
            let api = service_fn({
                let is_revoked = Arc::clone(&is_revoked);
                move |request: Request<ReplayBody<Full<Bytes>>>| {
                    let is_first = request.headers()["authorization"] == "Bearer token-0";
                    let is_bad = is_first && is_revoked.load(Ordering::SeqCst);
                    let needs_more = is_first && request.uri().path() == "/orders";
                    let mut response = Response::builder();
                    if is_bad || needs_more {
                        let error = if is_bad {
                            "Bearer error=\"invalid_token\""
                        } else {
                            "Bearer error=\"insufficient_scope\", scope=\"write\""
                        };
                        let status = if is_bad { 401 } else { 403 };
                        response = response.status(status).header("www-authenticate", error);
                    }
                    async move { response.body(String::new()) }
                }
            });
            let client = ServiceBuilder::new()
                .layer(BearerAuthLayer::from(cache(source)))
                .service(api);
            let send = |path: &str| {
                let (client, request) = (client.clone(), get(&format!("{API}{path}")));
                async move { status(&client, request).await }
            };
            assert_eq!(send("/").await, 200);
            let more = tokio::spawn(send("/orders"));
            sleep(Duration::from_secs(1)).await;
            is_revoked.store(true, Ordering::SeqCst);
            let mut others = JoinSet::new();
            for _ in 0..20 {
                others.spawn(send("/"));
            }
            let others = others.join_all().await;
            assert!(others.iter().all(|status| *status == 200), "{others:?}");
            assert_eq!(more.await.unwrap(), if is_granted { 200 } else { 403 });
            // The rejected requests use the token of the step-up, or start a refresh after it.
            let expected = if is_granted { 2 } else { 3 };
            assert_eq!(calls.load(Ordering::SeqCst), expected);
        }
    }
}

/// An API that takes only this token. To others it answers 401 with the challenge, in which `{}` is claims that differ each time.
fn accepts_only(
    token: &'static str,
    challenge: &'static str,
) -> impl Service<
    Request<ReplayBody<Full<Bytes>>>,
    Response = Response<String>,
    Error = http::Error,
    Future = impl Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let rejected = Arc::new(AtomicUsize::new(0));
    service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let mut response = Response::builder();
        if request.headers()["authorization"] != format!("Bearer {token}").as_str() {
            let n = rejected.fetch_add(1, Ordering::SeqCst);
            let claims = BASE64_STANDARD.encode(format!("{{\"n\":{n}}}"));
            let challenge = challenge.replace("{}", &claims);
            response = response.status(401).header("www-authenticate", challenge);
        }
        async move { response.body(String::new()) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_although_there_are_no_claims_for_it() {
    for challenge in [
        r#"Bearer error="invalid_token", claims="eyJhIjoxfQ""#,
        r#"Bearer error="insufficient_claims", claims="eyJhIjoxfQ""#,
        r#"Bearer error="invalid_token", claims="{}""#,
        // Not to be followed.
        r#"Bearer error="invalid_token", claims="%%%""#,
        r#"Bearer error="insufficient_scope", scope="admin", Bearer error="invalid_token""#,
    ] {
        for layer in ["BearerAuthLayer", "RefreshOnReject", "AddTokenLayer"] {
            let calls = Arc::new(AtomicUsize::new(0));
            let source = source_fn({
                let calls = Arc::clone(&calls);
                move |cx: TokenContext| {
                    let calls = Arc::clone(&calls);
                    async move {
                        if cx.is_step_up() {
                            let kind = TokenErrorKind::InsufficientScope;
                            return Err(TokenError::new(kind, "a person must log in"));
                        }
                        calls.fetch_add(1, Ordering::SeqCst);
                        let is_rejected = cx.rejected_token().is_some();
                        Token::new(if is_rejected { "second" } else { "first" })
                    }
                }
            });
            let cache = TokenCache::builder(source)
                .step_up(StepUp::new().claims(true))
                .build();
            let api = accepts_only("second", challenge);
            let add_token = AddTokenLayer::from(cache.clone());
            for number in 0..4 {
                let request = get(API).map(|body| ReplayBody::new(body, 1024));
                let status = match layer {
                    "BearerAuthLayer" => {
                        let client = ServiceBuilder::new()
                            .layer(BearerAuthLayer::from(cache.clone()))
                            .service(api.clone());
                        status(&client, get(API)).await
                    }
                    "RefreshOnReject" => {
                        let client = ServiceBuilder::new()
                            .retry(RefreshOnReject::new(cache.clone()))
                            .layer(add_token.clone())
                            .service(api.clone());
                        status(&client, request).await
                    }
                    _ => {
                        let client = add_token.layer(api.clone());
                        status(&client, request).await
                    }
                };
                // By itself, the layer sends nothing again. After a step-up has failed, the next request starts the refresh.
                let is_early = layer == "AddTokenLayer" && number < 2;
                assert!(is_early || status == 200, "{challenge} {layer}");
                sleep(Duration::from_secs(2)).await;
            }
            assert_eq!(calls.load(Ordering::SeqCst), 2, "{challenge}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_rejects_and_asks_each_time_costs_a_bounded_number_of_token_requests() {
    for challenge in [
        r#"Bearer error="invalid_token", claims="eyJhIjoxfQ""#,
        r#"Bearer error="invalid_token", claims="{}""#,
        r#"Bearer error="insufficient_scope", scope="write", Bearer error="invalid_token""#,
    ] {
        for is_machine in [true, false] {
            let server = server();
            let step_up = || allowed().claims(true);
            let cache = if is_machine {
                TokenCache::builder(machine(&server)).step_up(step_up())
            } else {
                TokenCache::builder(source(&server)).step_up(step_up())
            };
            let cache = cache.build();
            let client = ServiceBuilder::new()
                .layer(BearerAuthLayer::from(cache.clone()))
                .service(accepts_only("none", challenge));
            for _ in 0..3600 {
                assert_eq!(status(&client, get(API)).await, 401);
                advance(Duration::from_secs(1)).await;
            }
            let requests = server.token_requests();
            assert!(requests <= 100, "{requests}: {challenge} {is_machine}");
            assert!(cache.peek().is_some(), "{challenge} {is_machine}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_rejected_after_a_step_up_is_replaced_with_the_same_scope() {
    let server = server();
    let api = api(&server);
    let cache = cache(machine(&server));
    let client = client(&cache, &api);
    assert!(ok(&client, "/invoices").await);
    // The API knows the wide token too late.
    server.fault(Fault::Delay(Duration::from_secs(1)));
    let first = tokio::spawn({
        let client = client.clone();
        async move { send(&client, "/orders").await }
    });
    sleep(Duration::from_millis(500)).await;
    api.reject_next(1);
    let response = first.await.unwrap();
    assert_eq!(response.status(), 401);
    let reason = reason(&response).unwrap();
    assert_eq!(reason.kind(), TokenErrorKind::Rejected);
    advance(Duration::from_secs(2)).await;
    server.revoke_access_tokens();
    assert!(ok(&client, "/orders").await);
    assert_eq!(requested(&server), ["read", "read write", "read write"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_could_not_be_saved_steps_up_and_keeps_the_scope() {
    let server = server();
    let store = FailingStore::default();
    store.fails.store(true, Ordering::SeqCst);
    let cache = cache(machine(&server).store(store.clone()));
    let client = client(&cache, &api(&server));
    assert!(ok(&client, "/invoices").await && ok(&client, "/orders").await);
    advance(HOUR).await;
    assert!(ok(&client, "/orders").await);
    assert_eq!(requested(&server), ["read", "read write", "read write"]);
    // What others find later has the scope.
    store.fails.store(false, Ordering::SeqCst);
    advance(HOUR).await;
    assert!(ok(&client, "/orders").await);
    let stored = serde_json::to_value(tower_bearer::TokenStore::load(&store).await.unwrap());
    assert_eq!(stored.unwrap()["access"]["added_scope"], "write");
    assert_eq!(requested(&server)[3..], ["read write"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_step_up_leaves_an_unsaved_session_as_it_is() {
    let server = server();
    let store = FailingStore::default();
    let source = source(&server).store(store.clone());
    let cache = cache(source.clone());
    let client = client(&cache, &api(&server));
    store.fails.store(true, Ordering::SeqCst);
    assert!(ok(&client, "/invoices").await);
    assert!(source.has_unsaved());
    assert!(!ok(&client, "/orders").await && ok(&client, "/invoices").await);
    assert!(source.has_unsaved());
    store.fails.store(false, Ordering::SeqCst);
    source.flush().await.unwrap();
    assert!(!source.has_unsaved());
    server.revoke_access_tokens();
    assert!(ok(&client, "/invoices").await);
    assert_eq!((server.refreshes(), server.reuse_detected()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wider_token_of_another_process_is_used_without_a_token_request() {
    let server = server();
    let store = MemoryStore::new();
    let api = api(&server);
    let process = || client(&cache(machine(&server).store(store.clone())), &api);
    let (first, second) = (process(), process());
    assert!(ok(&first, "/invoices").await && ok(&second, "/invoices").await);
    assert!(ok(&first, "/orders").await);
    assert_eq!(requested(&server), ["read", "read write"]);
    assert!(ok(&second, "/orders").await);
    assert_eq!(requested(&server).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn processes_that_need_different_things_agree_on_all_of_them() {
    let server = server();
    let store = MemoryStore::new();
    let api = server
        .api()
        .require_scope("/a", "write")
        .require_scope("/b", "delete");
    let process = || client(&cache(machine(&server).store(store.clone())), &api);
    let processes = [process(), process(), process()];
    for _ in 0..24 * 60 {
        for (process, path) in processes.iter().zip(["/a", "/b", "/c"]) {
            assert!(ok(process, path).await, "{path}");
        }
        advance(HOUR / 60).await;
    }
    let requested = requested(&server);
    assert!(requested.len() <= TOKENS_A_DAY + 4, "{}", requested.len());
    assert!(requested[4..].iter().all(|it| it == "read delete write"));
}

#[tokio::test(start_paused = true)]
async fn processes_that_allow_different_things_request_one_token_each() {
    let server = server();
    let store = MemoryStore::new();
    let api = server
        .api()
        .require_scope("/a", "write")
        .require_scope("/b", "delete");
    let process = |scope: &str| {
        let source = machine(&server).store(store.clone());
        let step_up = StepUp::new().scopes([scope]);
        client(&TokenCache::builder(source).step_up(step_up).build(), &api)
    };
    let processes = [process("write"), process("delete")];
    for _ in 0..24 * 60 {
        for (process, path) in processes.iter().zip(["/a", "/b"]) {
            assert!(ok(process, path).await, "{path}");
        }
        advance(HOUR / 60).await;
    }
    let requests = server.token_requests();
    assert!(requests <= 2 * (TOKENS_A_DAY + 4), "{requests}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_always_asks_costs_several_processes_little() {
    let server = server();
    let store = MemoryStore::new();
    let client = || {
        let cache = cache(machine(&server).store(store.clone()));
        ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache))
            .service(service_fn(asks))
    };
    let clients = [client(), client(), client()];
    for _ in 0..24 * 60 {
        for client in &clients {
            assert_eq!(status(client, get(API)).await, 403);
        }
        advance(Duration::from_secs(60)).await;
    }
    let requests = server.token_requests();
    assert!(requests <= TOKENS_A_DAY + 4, "{requests}");
}

#[tokio::test(start_paused = true)]
async fn refreshes_of_a_login_are_shared_after_a_step_up_by_another_login() {
    let server = server().grant_scopes(["read", "write"]);
    let store = MemoryStore::new();
    let refresh_token = server.issue_refresh_token();
    let process = |_| {
        let source = RefreshTokenSource::new(oauth(&server), refresh_token.clone());
        cache(source.store(store.clone()))
    };
    let processes: Vec<_> = (0..3).map(process).collect();
    let api = api(&server);
    let clients: Vec<_> = processes.iter().map(|it| client(it, &api)).collect();
    for client in &clients {
        assert!(ok(client, "/invoices").await);
    }
    let wide = server.issue_refresh_token_with_scope("read write");
    let login = StoredSession::new(Identity::new("refresh", &wide)).with_refresh_token(wide);
    processes[0].login(login).await.unwrap();
    for client in &clients {
        assert!(ok(client, "/orders").await);
    }
    // Later responses do not name the scope, because it stays the same (RFC 6749 §5.1).
    server.fault_always(Fault::member("scope", serde_json::Value::Null));
    for _ in 0..5 {
        let before = server.token_requests();
        advance(HOUR).await;
        for client in &clients {
            assert!(ok(client, "/orders").await);
        }
        assert_eq!(server.token_requests() - before, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_brings_less_than_was_asked_for_costs_no_further_requests() {
    let server = server();
    let cache = cache(machine(&server));
    let client = client(&cache, &api(&server));
    assert!(ok(&client, "/orders").await);
    let server = server.grant_scopes(["read", "write"]);
    server.fault_always(Fault::member("scope", "read"));
    for _ in 0..3 {
        let before = server.token_requests();
        advance(HOUR).await;
        for _ in 0..10 {
            assert!(ok(&client, "/invoices").await);
        }
        assert_eq!(server.token_requests() - before, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_keeps_the_scope() {
    let server = server();
    let schedule = Schedule::default().background_refresh(true);
    let cache = TokenCache::builder(machine(&server))
        .schedule(schedule)
        .step_up(allowed())
        .build();
    let client = client(&cache, &api(&server));
    assert!(ok(&client, "/orders").await);
    let before = server.token_requests();
    sleep(5 * HOUR).await;
    let requested = requested(&server);
    assert!(requested.len() >= before + 4);
    assert!(requested[before..].iter().all(|it| it == "read write"));
}

#[tokio::test(start_paused = true)]
async fn callers_that_do_not_wait_get_the_token_in_use_during_a_step_up() {
    let server = server();
    let cache = cache(machine(&server));
    let client = client(&cache, &api(&server));
    let narrow = cache.token().await.unwrap();
    server.fault(Fault::Delay(Duration::from_secs(5)));
    let more = tokio::spawn(async move { ok(&client, "/orders").await });
    sleep(Duration::from_secs(1)).await;
    assert!(cache.status().refreshing);
    for token in [cache.peek().unwrap(), cache.token().await.unwrap()] {
        assert_eq!(token.expose_secret(), narrow.expose_secret());
    }
    assert!(more.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_narrower_login_of_another_process_is_used_if_it_has_what_is_needed() {
    let server = server().grant_scopes(["read", "write"]);
    let store = MemoryStore::new();
    let narrow = server.issue_refresh_token_with_scope("read");
    let source = RefreshTokenSource::new(oauth(&server), narrow);
    let cache = cache(source.store(store.clone()));
    let client = client(&cache, &api(&server));
    assert!(ok(&client, "/invoices").await);
    assert!(!ok(&client, "/orders").await);
    // Otherwise that is remembered for a while.
    cache.reset();

    let refresh_token = server.issue_refresh_token_with_scope("write");
    let source = RefreshTokenSource::new(oauth(&server), refresh_token.clone());
    let other = TokenCache::new(source.store(store));
    let identity = Identity::new("refresh", &refresh_token);
    let login = StoredSession::new(identity).with_refresh_token(refresh_token);
    other.login(login).await.unwrap();
    let token = other.token().await.unwrap();
    assert!(ok(&client, "/orders").await);
    assert!(ok(&client, "/orders").await);
    assert!(server.is_live(token.expose_secret()));
    assert_eq!(server.token_requests(), 2);
}

#[cfg(feature = "sessions")]
#[tokio::test(start_paused = true)]
async fn a_step_up_of_one_key_changes_no_other_session() {
    use tower_bearer::{SessionKey, Sessions};

    let server = server();
    let sessions = Sessions::new({
        let server = server.clone();
        move |_: u64| {
            let cache = cache(machine(&server));
            async move { Ok(cache) }
        }
    });
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::keyed(sessions))
        .service(api(&server));
    let send = |key: u64, path: &str| {
        let mut request = get(&format!("{API}{path}"));
        request.extensions_mut().insert(SessionKey(key));
        let client = client.clone();
        async move { status(&client, request).await }
    };
    for key in 0..3 {
        assert_eq!(send(key, "/invoices").await, 200);
    }
    assert_eq!(send(1, "/orders").await, 200);
    // What one session may not have is no reason against another one.
    assert_eq!(send(1, "/admin").await, 403);
    for key in [0, 2] {
        assert_eq!(send(key, "/invoices").await, 200);
    }
    assert_eq!(requested(&server), ["read", "read", "read", "read write"]);
    let mut all = JoinSet::new();
    for _ in 0..50 {
        all.spawn(send(0, "/orders"));
        all.spawn(send(2, "/orders"));
    }
    assert!(all.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(requested(&server)[4..], ["read write"; 2]);
}

#[cfg(feature = "sessions")]
#[tokio::test(start_paused = true)]
async fn an_api_that_always_asks_costs_each_key_a_bounded_number_of_token_requests() {
    use tower_bearer::{SessionKey, Sessions};

    let server = server();
    let sessions = Sessions::new({
        let server = server.clone();
        move |_: u64| {
            let step_up = StepUp::new().claims(true);
            let cache = TokenCache::builder(machine(&server)).step_up(step_up);
            let cache = cache.build();
            async move { Ok(cache) }
        }
    });
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::keyed(sessions))
        .service(accepts_only(
            "none",
            r#"Bearer error="insufficient_claims", claims="{}""#,
        ));
    for _ in 0..600 {
        for key in 0..5_u64 {
            let mut request = get(API);
            request.extensions_mut().insert(SessionKey(key));
            assert_eq!(status(&client, request).await, 401);
        }
        advance(Duration::from_secs(1)).await;
    }
    let requests = server.token_requests() / 5;
    assert!(requests <= 40, "{requests} for each key");
}

#[tokio::test(start_paused = true)]
async fn a_step_up_that_fails_after_a_reset_is_not_remembered() {
    let step_ups = Arc::new(AtomicUsize::new(0));
    let source = source_fn({
        let step_ups = Arc::clone(&step_ups);
        move |cx: TokenContext| {
            let step_ups = Arc::clone(&step_ups);
            async move {
                if cx.is_step_up() {
                    step_ups.fetch_add(1, Ordering::SeqCst);
                    sleep(Duration::from_secs(5)).await;
                    let kind = TokenErrorKind::InsufficientScope;
                    return Err(TokenError::new(kind, "not granted"));
                }
                Token::new("narrow")
            }
        }
    });
    let cache = cache(source);
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache.clone()))
        .service(service_fn(asks));
    for (is_reset, expected) in [(true, 1), (false, 2), (false, 2)] {
        let request = tokio::spawn({
            let client = client.clone();
            async move { status(&client, get(API)).await }
        });
        sleep(Duration::from_secs(1)).await;
        if is_reset {
            cache.reset();
        }
        assert_eq!(request.await.unwrap(), 403);
        assert_eq!(step_ups.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_few_different_step_ups_wait_for_the_one_that_runs() {
    let server = server();
    let names: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let mut api = server.api();
    for name in &names {
        api = api.require_scope(format!("/{name}"), name);
    }
    let cache = TokenCache::builder(machine(&server))
        .step_up(StepUp::new().scopes(&names))
        .build();
    let client = client(&cache, &api);
    cache.token().await.unwrap();
    server.fault(Fault::Delay(Duration::from_secs(5)));
    let start = |name: &str| {
        let (client, path) = (client.clone(), format!("/{name}"));
        tokio::spawn(async move { send(&client, &path).await })
    };
    // One runs, and eight wait.
    let mut waiting = Vec::new();
    for name in &names[..9] {
        waiting.push(start(name));
        sleep(Duration::from_millis(10)).await;
    }
    let refused = start("s9").await.unwrap();
    let reason = reason(&refused).unwrap();
    assert!(reason.to_string().contains("too many others"), "{reason}");
    // Those that want the same wait together.
    waiting.extend(["s0", "s8"].map(start));
    for request in waiting {
        assert_eq!(request.await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn no_step_up_starts_while_failed_refreshes_are_held_back() {
    let server = server();
    let cache = cache(machine(&server));
    let client = client(&cache, &api(&server));
    cache.token().await.unwrap();
    sleep(Duration::from_secs(2)).await;
    server.fault(Fault::TooManyRequests {
        retry_after: Duration::from_secs(60),
    });
    cache.refresh().await.unwrap_err();
    assert!(ok(&client, "/invoices").await);
    let response = send(&client, "/orders").await;
    assert_eq!(response.status(), 403);
    let reason = reason(&response).unwrap();
    assert_eq!(reason.kind(), TokenErrorKind::RateLimited);
    assert_eq!(server.token_requests(), 2);
    advance(Duration::from_secs(61)).await;
    assert!(ok(&client, "/orders").await);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_rejected_again_after_a_step_up_counts_as_rejected() {
    for challenge in [
        r#"Bearer error="insufficient_claims", claims="{}""#,
        r#"Bearer error="invalid_token", claims="{}""#,
    ] {
        let server = server();
        let cache = TokenCache::builder(machine(&server))
            .step_up(StepUp::new().claims(true))
            .build();
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(accepts_only("none", challenge));
        assert_eq!(status(&client, get(API)).await, 401);
        assert_eq!((server.token_requests(), cache.status().rejected), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_more_no_longer_than_its_limit() {
    let source = source_fn(|cx: TokenContext| async move {
        if cx.is_step_up() {
            sleep(Duration::from_secs(100)).await;
        }
        Token::new("first")
    });
    let cache = TokenCache::builder(source)
        .step_up(StepUp::new().claims(true))
        .build();
    let challenge = r#"Bearer error="invalid_token", claims="{}""#;
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache))
        .service(accepts_only("second", challenge));
    let begun = Instant::now();
    assert_eq!(status(&client, get(API)).await, 401);
    assert!(begun.elapsed() < Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn a_source_of_ones_own_may_let_a_person_log_in() {
    let challenges = Arc::new(Mutex::new(Vec::new()));
    let source = source_fn({
        let challenges = Arc::clone(&challenges);
        move |cx: TokenContext| {
            let asked = cx.challenge().map(|it| (it.max_age(), cx.is_step_up()));
            challenges.lock().unwrap().extend(asked);
            async move { Token::new(if cx.is_step_up() { "second" } else { "first" }) }
        }
    });
    let cache = cache(source);
    let challenge = r#"Bearer error="insufficient_user_authentication", max_age=60"#;
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache))
        .service(accepts_only("second", challenge));
    for _ in 0..3 {
        assert_eq!(status(&client, get(API)).await, 200);
    }
    assert_eq!(*challenges.lock().unwrap(), [(Some(60), true)]);
}

#[tokio::test(start_paused = true)]
async fn claims_are_asked_for_again_after_a_refresh_without_them() {
    let server = server();
    let api = server.api().require_claims("/", r#"{"a":1}"#);
    let cache = TokenCache::builder(machine(&server))
        .step_up(StepUp::new().claims(true))
        .build();
    let client = client(&cache, &api);
    for _ in 0..3 {
        let before = server.token_requests();
        assert!(ok(&client, "/").await && ok(&client, "/").await);
        assert_eq!(server.token_requests() - before, 2);
        advance(HOUR).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stored_token_is_not_taken_for_one_with_claims() {
    let server = server();
    let store = MemoryStore::new();
    let process = || {
        let step_up = StepUp::new().claims(true);
        TokenCache::builder(machine(&server).store(store.clone()))
            .step_up(step_up)
            .build()
    };
    let (first, second) = (process(), process());
    first.token().await.unwrap();
    second.token().await.unwrap();
    sleep(Duration::from_secs(2)).await;
    first.refresh().await.unwrap();
    assert_eq!(server.token_requests(), 2);
    let api = server.api().require_claims("/", r#"{"a":1}"#);
    assert!(ok(&client(&second, &api), "/").await);
    assert_eq!(server.token_requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_says_when_to_ask_again_up_to_a_quarter_of_an_hour() {
    for (retry_after, is_early, is_late) in [(100, 99, 101), (3600, 899, 901)] {
        let server = server();
        let cache = cache(ClientCredentialsSource::new(oauth(&server)).scope("read"));
        let client = client(&cache, &api(&server));
        cache.token().await.unwrap();
        server.fault(Fault::TooManyRequests {
            retry_after: Duration::from_secs(retry_after),
        });
        let begun = Instant::now();
        assert!(!ok(&client, "/orders").await);
        tokio::time::sleep_until(begun + Duration::from_secs(is_early)).await;
        assert!(!ok(&client, "/orders").await);
        tokio::time::sleep_until(begun + Duration::from_secs(is_late)).await;
        assert!(ok(&client, "/orders").await);
    }
}

/// A runtime that only runs while the test says so.
fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[test]
fn those_that_wait_for_a_step_up_start_over_if_its_runtime_does_not_run() {
    for has_ended in [true, false] {
        let (first, second) = (runtime(), runtime());
        let hangs = source_fn(|cx: TokenContext| async move {
            if cx.is_step_up() && cx.scopes().any(|it| it == "write") {
                std::future::pending::<()>().await;
            }
            Token::new(format!("token-{}", fastrand::u64(..)))
        });
        let cache = TokenCache::builder(hangs)
            .step_up(allowed())
            .refresh_timeout(Duration::from_secs(1))
            .build();
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(service_fn(asks));
        first.block_on(async {
            cache.token().await.unwrap();
            let request = tokio::spawn({
                let client = client.clone();
                async move { status(&client, get(API)).await }
            });
            sleep(Duration::from_millis(1)).await;
            assert!(cache.status().refreshing && !request.is_finished());
        });
        let mut first = Some(first);
        second.block_on(async {
            let begun = Instant::now();
            let early = tokio::spawn({
                let client = client.clone();
                async move { status(&client, get(API)).await }
            });
            sleep(Duration::from_millis(1)).await;
            if has_ended && let Some(first) = first.take() {
                first.shutdown_background();
            }
            // By then it is known that the refresh is lost.
            sleep(Duration::from_secs(12)).await;
            assert_eq!(status(&client, get(API)).await, 403);
            assert_eq!(early.await.unwrap(), 403);
            assert!(begun.elapsed() < Duration::from_secs(25), "{has_ended}");
        });
        drop(first);
    }
}

/// A source whose step-ups take a while, and whose session can be revoked.
struct Revocable;

impl TokenSource for Revocable {
    async fn token(&self, cx: TokenContext) -> Result<Token, TokenError> {
        if cx.is_step_up() {
            sleep(Duration::from_secs(10)).await;
        }
        Token::new("first")
    }

    async fn revoke(&self, _: TokenContext) -> Result<(), TokenError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_up_that_waits_ends_with_the_session() {
    let cache = cache(Revocable);
    let wants = |scope: &'static str| {
        let api = service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
            let challenge = format!("Bearer error=insufficient_scope, scope=\"{scope}\"");
            let response = Response::builder()
                .status(403)
                .header("www-authenticate", challenge);
            async move { response.body(String::new()) }
        });
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(api);
        tokio::spawn(async move { support::send(&client, get(API)).await.unwrap() })
    };
    let ended = wants("write");
    sleep(Duration::from_secs(1)).await;
    // This one begins before the session is revoked, which waits for the one before it.
    let running = wants("delete");
    sleep(Duration::from_secs(1)).await;
    let waiting = wants("write delete");
    sleep(Duration::from_secs(1)).await;
    cache.revoke().await.unwrap();
    let begun = Instant::now();
    let reason = reason(&waiting.await.unwrap()).unwrap();
    assert_eq!(reason.kind(), TokenErrorKind::ReauthRequired);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(ended.await.is_ok() && running.await.is_ok());
    assert!(cache.peek().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_need_more_share_one_step_up() {
    for _ in 0..20 {
        let server = server();
        let cache = cache(machine(&server));
        let client = client(&cache, &api(&server));
        cache.token().await.unwrap();
        let mut all = JoinSet::new();
        for _ in 0..100 {
            let client = client.clone();
            all.spawn(async move { ok(&client, "/orders").await });
        }
        assert!(all.join_all().await.into_iter().all(|is_ok| is_ok));
        assert_eq!(requested(&server), ["read", "read write"]);
    }
}
