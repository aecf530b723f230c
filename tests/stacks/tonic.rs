//! gRPC with tonic: tokens that are revoked all the time, and the `Status` of calls without a token.

#[path = "../../examples/stacks/support/grpc.rs"]
mod grpc;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use grpc::{CUT, EchoClient};
use http::{Request, Response, header::AUTHORIZATION};
use support::source;
use tokio::{sync::Notify, task::JoinSet, time::interval};
use tonic::{
    Code, Status,
    body::Body,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};
use tower_bearer::{
    BearerAuthLayer, RejectOnTrailersLayer, ReplayBody, Schedule, TokenCache, TokenError,
    TokenErrorKind, source_fn,
    testing::{self, AuthorizationServer, Dialect, Served},
};

/// A gRPC service that accepts the tokens of `server`, and delays each call.
async fn echo(server: &AuthorizationServer, delay: Duration) -> Served {
    let server = server.clone();
    let service = service_fn(move |request| {
        let server = server.clone();
        async move {
            tokio::time::sleep(delay).await;
            let rejected = || Status::unauthenticated("the token is not valid");
            let check = |token: &str| server.is_live(token).then_some(()).ok_or_else(rejected);
            grpc::answer(request, check).await
        }
    });
    testing::serve(service).await.unwrap()
}

fn channel(running: &Served) -> Channel {
    Endpoint::from_shared(running.url()).unwrap().connect_lazy()
}

// ---------------------------------------------------------------------------------------------------------------------
// Tokens that are revoked all the time.

/// Tracks the calls between the layer and the channels. A call is replayed only once, so the test must not revoke a
/// token while a call could be rejected for the second time.
#[derive(Clone, Default)]
struct CallTracker {
    calls: Arc<Mutex<Calls>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Calls {
    next: usize,
    /// The token of each call, and whether the call has been rejected before.
    in_progress: HashMap<usize, (String, bool)>,
    /// The token that was accepted last.
    accepted_token: String,
}

/// The number of a call, the same for both attempts.
#[derive(Clone, Copy)]
struct Call(usize);

impl CallTracker {
    fn sent<B>(&self, request: &Request<B>) -> (Call, String) {
        let token = request.headers()[AUTHORIZATION]
            .to_str()
            .unwrap()
            .to_owned();
        let call = *request
            .extensions()
            .get()
            .expect("numbered above the layer");
        let mut calls = self.calls.lock().unwrap();
        let Call(number) = call;
        let again = calls.in_progress.contains_key(&number);
        calls.in_progress.insert(number, (token.clone(), again));
        (call, token)
    }

    fn answered(&self, Call(number): Call, token: String, accepted: bool) {
        if accepted {
            let mut calls = self.calls.lock().unwrap();
            calls.in_progress.remove(&number);
            calls.accepted_token = token;
        }
        self.changed.notify_one();
    }

    /// Waits until a token other than `revoked` is in use, no rejected call is in progress, and no call with an older
    /// token. If the current token is revoked then, each call is rejected at most once. Returns that token.
    async fn wait_until_settled(&self, revoked: &str) -> String {
        loop {
            {
                let calls = self.calls.lock().unwrap();
                let mut in_progress = calls.in_progress.values();
                let settled =
                    in_progress.all(|(token, again)| !again && *token == calls.accepted_token);
                if settled && calls.accepted_token != revoked {
                    return calls.accepted_token.clone();
                }
            }
            self.changed.notified().await;
        }
    }
}

impl<S> Layer<S> for CallTracker {
    type Service = TrackedService<S>;

    fn layer(&self, inner: S) -> TrackedService<S> {
        let tracker = self.clone();
        TrackedService { inner, tracker }
    }
}

#[derive(Clone)]
struct TrackedService<S> {
    inner: S,
    tracker: CallTracker,
}

impl<S, B, R> Service<Request<B>> for TrackedService<S>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (call, token) = self.tracker.sent(&request);
        let answering = self.inner.call(request);
        let tracker = self.tracker.clone();
        Box::pin(async move {
            let answer = answering.await;
            let accepted = |answer: &Response<R>| !answer.headers().contains_key("grpc-status");
            tracker.answered(call, token, answer.as_ref().is_ok_and(accepted));
            answer
        })
    }
}

#[tokio::test]
async fn a_thousand_calls_over_four_channels_succeed_with_tokens_revoked_every_50_ms() {
    const CALLS: usize = 1_000;
    const CHANNELS: usize = 4;
    const AT_ONCE: usize = 40;

    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let running = echo(&server, Duration::from_millis(20)).await;
    let session = TokenCache::builder(source(&server))
        .schedule(Schedule::default().min_interval(Duration::from_millis(1)))
        .build();
    let tracker = CallTracker::default();
    let clients: Vec<_> = (0..CHANNELS)
        .map(|_| {
            let calls = tracker.calls.clone();
            let number_calls = move |mut request: Request<Body>| {
                let mut calls = calls.lock().unwrap();
                calls.next += 1;
                request.extensions_mut().insert(Call(calls.next));
                request
            };
            let stack = ServiceBuilder::new()
                .map_request(number_calls)
                .layer(BearerAuthLayer::from(session.clone()))
                .layer(tracker.clone())
                .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
                .service(channel(&running));
            EchoClient::with_origin(stack, running.url().parse().unwrap())
        })
        .collect();

    let revoked = Arc::new(AtomicUsize::new(0));
    let revoking_task = tokio::spawn({
        let (server, tracker, revoked) = (server.clone(), tracker.clone(), revoked.clone());
        async move {
            let mut tick = interval(Duration::from_millis(50));
            let mut token = String::new();
            loop {
                tick.tick().await;
                token = tracker.wait_until_settled(&token).await;
                server.revoke_access_tokens();
                revoked.fetch_add(1, Ordering::SeqCst);
            }
        }
    });

    let done = Arc::new(AtomicUsize::new(0));
    let mut callers: JoinSet<()> = (0..AT_ONCE)
        .map(|n| {
            let client = clients[n % CHANNELS].clone();
            let (done, revoked) = (done.clone(), revoked.clone());
            async move {
                // Even on a fast machine, the test goes on until there were a few revocations.
                while done.load(Ordering::SeqCst) < CALLS || revoked.load(Ordering::SeqCst) < 5 {
                    let text = format!("caller {n}");
                    let reply = client.say(text.clone()).await;
                    assert_eq!(reply.expect("each call succeeds"), text);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .collect();
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
    revoking_task.abort();

    let (revoked, refreshes) = (revoked.load(Ordering::SeqCst), server.refreshes());
    assert!(done.load(Ordering::SeqCst) >= CALLS);
    assert_eq!(running.connections(), CHANNELS);
    // One for the first token, and one for each revocation. The last revocation may not have affected any call.
    assert!(
        (revoked..=revoked + 1).contains(&refreshes),
        "{refreshes} refreshes for {revoked} revocations"
    );
    assert_eq!(server.reuse_detected(), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// A rejection in the middle of a stream.

#[tokio::test]
async fn after_a_stream_is_cut_off_for_its_token_the_next_call_has_a_new_one() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let running = echo(&server, Duration::ZERO).await;
    let session = TokenCache::builder(source(&server))
        .schedule(Schedule::default().min_interval(Duration::ZERO))
        .build();
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(session.clone()))
        .layer(RejectOnTrailersLayer::new(session.clone()))
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel(&running));
    let client = EchoClient::with_origin(stack, running.url().parse().unwrap());

    let mut words = client.split(&format!("one two {CUT}")).await.unwrap();
    assert_eq!(words.message().await.unwrap().as_deref(), Some("one"));
    assert_eq!(words.message().await.unwrap().as_deref(), Some("two"));
    let cut = words.message().await.unwrap_err();
    assert_eq!(cut.code(), Code::Unauthenticated);
    assert_eq!(session.status().rejected, 1);

    // The stream is not sent again, because its messages were delivered. The next call has another token.
    assert_eq!(client.say("the next").await.unwrap(), "the next");
    assert_eq!(server.refreshes(), 2);
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls without a token.

/// The status of a call without a token. `mapped`: with the error mapping of the README above the layer.
async fn failure(kind: TokenErrorKind, mapped: bool) -> Status {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let running = echo(&server, Duration::ZERO).await;
    let source = source_fn(move |_| async move { Err(TokenError::new(kind, "no token")) });
    let stack = ServiceBuilder::new()
        .map_result(move |result| if mapped { with_status(result) } else { result })
        .layer(BearerAuthLayer::new(source))
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel(&running));
    let client = EchoClient::with_origin(stack, running.url().parse().unwrap());
    client.say("hello").await.unwrap_err()
}

/// As in the README.
fn with_status(result: Result<Response<Body>, BoxError>) -> Result<Response<Body>, BoxError> {
    let error = match result {
        Ok(mut response) => match response.extensions_mut().remove::<TokenError>() {
            Some(reason) => return Err(Status::unauthenticated(reason.to_string()).into()),
            None => return Ok(response),
        },
        Err(error) => error.downcast::<TokenError>()?,
    };
    let status = if error.is_transient() {
        Status::unavailable
    } else {
        Status::unauthenticated
    };
    Err(status(error.to_string()).into())
}

#[tokio::test]
async fn a_call_whose_session_has_ended_says_so_in_its_status() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let running = echo(&server, Duration::ZERO).await;
    let stack = ServiceBuilder::new()
        .map_result(with_status)
        .layer(BearerAuthLayer::new(source(&server)))
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel(&running));
    let client = EchoClient::with_origin(stack, running.url().parse().unwrap());
    assert_eq!(client.say("hello").await.unwrap(), "hello");

    server.revoke_access_tokens();
    server.revoke_sessions();
    let status = client.say("hello").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let reason = "a person must authorize again";
    assert!(status.message().contains(reason), "{status:?}");
}

#[tokio::test]
async fn a_call_without_a_token_is_unavailable_or_unauthenticated_by_the_kind_of_error() {
    for kind in [
        TokenErrorKind::ReauthRequired,
        TokenErrorKind::InvalidClient,
    ] {
        let status = failure(kind, true).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{kind:?}");
        assert!(status.message().contains("no token"), "{status:?}");
    }
    for kind in [TokenErrorKind::Transport, TokenErrorKind::RateLimited] {
        let status = failure(kind, true).await;
        assert_eq!(status.code(), Code::Unavailable, "{kind:?}");
    }
}

#[tokio::test]
async fn without_the_error_mapping_the_status_is_unknown_and_has_the_reason_as_source() {
    let status = failure(TokenErrorKind::ReauthRequired, false).await;
    assert_eq!(status.code(), Code::Unknown);
    let reason: &TokenError = status.source().unwrap().downcast_ref().unwrap();
    assert_eq!(reason.kind(), TokenErrorKind::ReauthRequired);
}

// ---------------------------------------------------------------------------------------------------------------------
// Where only metadata can be set.

/// As in the README: for exporters, and whatever else takes an interceptor but no layer.
fn interceptor(
    cache: TokenCache,
) -> impl FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, Status> + Clone {
    move |mut request| {
        let token = cache
            .try_token()
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let headers = request.metadata_mut().as_mut();
        headers.insert(AUTHORIZATION, token.header().clone());
        Ok(request)
    }
}

#[tokio::test]
async fn an_interceptor_sends_the_current_token() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let running = echo(&server, Duration::ZERO).await;
    let cache = TokenCache::new(source(&server));
    let intercepted = InterceptedService::new(channel(&running), interceptor(cache.clone()));
    let client = EchoClient::with_origin(intercepted, running.url().parse().unwrap());

    let status = client.say("hello").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "no token yet: {status:?}");

    cache.token().await.unwrap();
    assert_eq!(client.say("hello").await.unwrap(), "hello");

    // What an interceptor cannot do: nobody sees the rejection, and the call is not sent again.
    server.revoke_access_tokens();
    for _ in 0..2 {
        let status = client.say("hello").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    cache.reject(&cache.try_token().unwrap());
    cache.token().await.unwrap();
    assert_eq!(client.say("hello").await.unwrap(), "hello");
    assert_eq!(server.refreshes(), 2);
}

#[tokio::test]
async fn an_interceptor_works_in_a_thread_without_a_runtime() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let cache = TokenCache::new(source(&server));
    let token = cache.token().await.unwrap();
    let mut interceptor = interceptor(cache);
    let call = move || interceptor(tonic::Request::new(()));
    let request = std::thread::spawn(call).join().unwrap().unwrap();
    let header = request.metadata().as_ref().get(AUTHORIZATION).unwrap();
    assert_eq!(header, token.header());
    assert!(header.is_sensitive());
}
