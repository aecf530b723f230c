//! gRPC by tonic: tokens that are revoked all the time, and what its `Status` says without one.

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
    transport::{Channel, Endpoint},
};
use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};
use tower_bearer::{
    BearerAuthLayer, RejectOnTrailersLayer, ReplayBody, Schedule, TokenCache, TokenError,
    TokenErrorKind, source_fn,
    testing::{self, AuthorizationServer, Dialect, Served},
};

/// A gRPC service that takes the tokens of `server`, and thinks about each call for a while.
async fn echo(server: &AuthorizationServer, thinks: Duration) -> Served {
    let server = server.clone();
    let service = service_fn(move |request| {
        let server = server.clone();
        async move {
            tokio::time::sleep(thinks).await;
            let rejected = || Status::unauthenticated("the token is not good");
            let judge = |token: &str| server.is_live(token).then_some(()).ok_or_else(rejected);
            grpc::answer(request, judge).await
        }
    });
    testing::serve(service).await.unwrap()
}

fn channel(site: &Served) -> Channel {
    Endpoint::from_shared(site.url()).unwrap().connect_lazy()
}

// ---------------------------------------------------------------------------------------------------------------------
// Revoked all the time.

/// Watches what passes between the layer and the channels. A call is sent again only once, so whoever revokes tokens must
/// see to it that none is rejected twice: that would be a failure by design.
#[derive(Clone, Default)]
struct Wire {
    calls: Arc<Mutex<Calls>>,
    moved: Arc<Notify>,
}

#[derive(Default)]
struct Calls {
    next: usize,
    /// The token that each call carries, and whether it has been rejected before.
    under_way: HashMap<usize, (String, bool)>,
    /// The token that was accepted last.
    good: String,
}

/// The same for both attempts of a call.
#[derive(Clone, Copy)]
struct Call(usize);

impl Wire {
    fn sent<B>(&self, request: &Request<B>) -> (Call, String) {
        let token = request.headers()[AUTHORIZATION]
            .to_str()
            .unwrap()
            .to_owned();
        let call = *request.extensions().get().expect("marked above the layer");
        let mut calls = self.calls.lock().unwrap();
        let Call(number) = call;
        let again = calls.under_way.contains_key(&number);
        calls.under_way.insert(number, (token.clone(), again));
        (call, token)
    }

    fn answered(&self, Call(number): Call, token: String, accepted: bool) {
        if accepted {
            let mut calls = self.calls.lock().unwrap();
            calls.under_way.remove(&number);
            calls.good = token;
        }
        self.moved.notify_one();
    }

    /// Waits until another token than `revoked` is in use, no call that was rejected is still under way, and none with an
    /// older token: if the current one is revoked now, each call is rejected at most once. Gives that token.
    async fn settled(&self, revoked: &str) -> String {
        loop {
            {
                let calls = self.calls.lock().unwrap();
                let mut under_way = calls.under_way.values();
                let settled = under_way.all(|(token, again)| !again && *token == calls.good);
                if settled && calls.good != revoked {
                    return calls.good.clone();
                }
            }
            self.moved.notified().await;
        }
    }
}

impl<S> Layer<S> for Wire {
    type Service = Wired<S>;

    fn layer(&self, inner: S) -> Wired<S> {
        let wire = self.clone();
        Wired { inner, wire }
    }
}

#[derive(Clone)]
struct Wired<S> {
    inner: S,
    wire: Wire,
}

impl<S, B, R> Service<Request<B>> for Wired<S>
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
        let (call, token) = self.wire.sent(&request);
        let answering = self.inner.call(request);
        let wire = self.wire.clone();
        Box::pin(async move {
            let answer = answering.await;
            let accepted = |answer: &Response<R>| !answer.headers().contains_key("grpc-status");
            wire.answered(call, token, answer.as_ref().is_ok_and(accepted));
            answer
        })
    }
}

#[tokio::test]
async fn a_thousand_calls_over_four_channels_outlive_tokens_that_are_revoked_every_50_ms() {
    const CALLS: usize = 1_000;
    const CHANNELS: usize = 4;
    const AT_ONCE: usize = 40;

    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let site = echo(&server, Duration::from_millis(20)).await;
    let session = TokenCache::builder(source(&server))
        .schedule(Schedule::default().min_interval(Duration::from_millis(1)))
        .build();
    let wire = Wire::default();
    let clients: Vec<_> = (0..CHANNELS)
        .map(|_| {
            let calls = wire.calls.clone();
            let mark = move |mut request: Request<Body>| {
                let mut calls = calls.lock().unwrap();
                calls.next += 1;
                request.extensions_mut().insert(Call(calls.next));
                request
            };
            let stack = ServiceBuilder::new()
                .map_request(mark)
                .layer(BearerAuthLayer::from(session.clone()))
                .layer(wire.clone())
                .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
                .service(channel(&site));
            EchoClient::with_origin(stack, site.url().parse().unwrap())
        })
        .collect();

    let revoked = Arc::new(AtomicUsize::new(0));
    let warden = tokio::spawn({
        let (server, wire, revoked) = (server.clone(), wire.clone(), revoked.clone());
        async move {
            let mut tick = interval(Duration::from_millis(50));
            let mut token = String::new();
            loop {
                tick.tick().await;
                token = wire.settled(&token).await;
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
                // However fast this machine is, it is not over before a few revocations.
                while done.load(Ordering::SeqCst) < CALLS || revoked.load(Ordering::SeqCst) < 5 {
                    let text = format!("caller {n}");
                    let said = client.say(text.clone()).await;
                    assert_eq!(said.expect("each call succeeds"), text);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .collect();
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
    warden.abort();

    let (revoked, refreshes) = (revoked.load(Ordering::SeqCst), server.refreshes());
    assert!(done.load(Ordering::SeqCst) >= CALLS);
    assert_eq!(site.connections(), CHANNELS);
    // The first token, and one for each that was revoked; the last may not have been missed by anybody.
    assert!(
        (revoked..=revoked + 1).contains(&refreshes),
        "{refreshes} refreshes for {revoked} revocations"
    );
    assert_eq!(server.reuse_detected(), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Rejected on the way.

#[tokio::test]
async fn a_stream_that_is_cut_off_for_its_token_renews_it_for_the_next_call() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let site = echo(&server, Duration::ZERO).await;
    let session = TokenCache::builder(source(&server))
        .schedule(Schedule::default().min_interval(Duration::ZERO))
        .build();
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(session.clone()))
        .layer(RejectOnTrailersLayer::new(session.clone()))
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel(&site));
    let client = EchoClient::with_origin(stack, site.url().parse().unwrap());

    let mut words = client.split(&format!("one two {CUT}")).await.unwrap();
    assert_eq!(words.message().await.unwrap().as_deref(), Some("one"));
    assert_eq!(words.message().await.unwrap().as_deref(), Some("two"));
    let cut = words.message().await.unwrap_err();
    assert_eq!(cut.code(), Code::Unauthenticated);
    assert_eq!(session.status().rejected, 1);

    // Not sent again, for its messages have been delivered; but nobody else is sent with that token.
    assert_eq!(client.say("the next").await.unwrap(), "the next");
    assert_eq!(server.refreshes(), 2);
}

// ---------------------------------------------------------------------------------------------------------------------
// Without a token.

/// What a call fails with, the error function of the recipe above the layer or not, if there is no token.
async fn failure(kind: TokenErrorKind, recipe: bool) -> Status {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let site = echo(&server, Duration::ZERO).await;
    let source = source_fn(move |_| async move { Err(TokenError::new(kind, "none today")) });
    let stack = ServiceBuilder::new()
        .map_err(move |error: BoxError| if recipe { status(error) } else { error })
        .layer(BearerAuthLayer::new(source))
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel(&site));
    let client = EchoClient::with_origin(stack, site.url().parse().unwrap());
    client.say("anybody?").await.unwrap_err()
}

/// As the README has it.
fn status(error: BoxError) -> BoxError {
    match error.downcast::<TokenError>() {
        Ok(error) if error.is_transient() => Status::unavailable(error.to_string()).into(),
        Ok(error) => Status::unauthenticated(error.to_string()).into(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_call_without_a_token_is_unavailable_or_unauthenticated_as_its_kind_says() {
    for kind in [
        TokenErrorKind::ReauthRequired,
        TokenErrorKind::InvalidClient,
    ] {
        let status = failure(kind, true).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{kind:?}");
        assert!(status.message().contains("none today"), "{status:?}");
    }
    for kind in [TokenErrorKind::Transport, TokenErrorKind::RateLimited] {
        let status = failure(kind, true).await;
        assert_eq!(status.code(), Code::Unavailable, "{kind:?}");
    }
}

#[tokio::test]
async fn without_the_recipe_it_is_unknown_with_the_reason_as_its_source() {
    let status = failure(TokenErrorKind::ReauthRequired, false).await;
    assert_eq!(status.code(), Code::Unknown);
    let reason: &TokenError = status.source().unwrap().downcast_ref().unwrap();
    assert_eq!(reason.kind(), TokenErrorKind::ReauthRequired);
}
