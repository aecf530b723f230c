//! The gateway of the example under load. The tokens of its API live for one second.

#[allow(dead_code, reason = "`main` and the demonstration of the example")]
#[path = "../../examples/stacks/axum_gateway.rs"]
mod axum_gateway;
#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum_gateway::{api_client, gateway};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::source;
use tokio::{net::TcpListener, task::JoinSet};
use tower_bearer::{
    BearerAuthLayer,
    testing::{self, AuthorizationServer, Dialect},
};

const CALLERS: usize = 200;
/// Below the replay limit.
const MAX_BODY: usize = 48 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_of_one_second_all_requests_succeed() {
    run_load(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 20 seconds"]
async fn with_tokens_of_one_second_all_requests_succeed_for_20_seconds() {
    run_load(Duration::from_secs(20)).await;
}

async fn run_load(time: Duration) {
    let server = AuthorizationServer::new(Dialect::Rfc6749).access_lifetime(Duration::from_secs(1));
    let api = server.api();
    let upstream = testing::serve(api.clone()).await.unwrap();
    let client = api_client(BearerAuthLayer::new(source(&server)));
    let gateway = gateway(client, &upstream.url()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let running = tokio::spawn(axum::serve(listener, gateway).into_future());

    let caller: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let requests = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut callers: JoinSet<()> = (0..CALLERS)
        .map(|n| {
            let (caller, requests) = (caller.clone(), requests.clone());
            let url = format!("{url}/echo/{n}");
            async move {
                let mut rng = fastrand::Rng::with_seed(n as u64);
                while start.elapsed() < time {
                    let mut body = vec![0; rng.usize(..MAX_BODY)];
                    rng.fill(&mut body);
                    let body = Bytes::from(body);
                    let request = Request::post(&url).body(Full::new(body.clone())).unwrap();
                    let response = caller.request(request).await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    let echo = response.into_body().collect().await.unwrap().to_bytes();
                    assert!(echo == body, "caller {n} got another body than it sent");
                    requests.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .collect();
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
    let took = start.elapsed();
    running.abort();

    let (answered, refreshes) = (requests.load(Ordering::SeqCst), server.token_requests());
    println!(
        "{answered} requests and {refreshes} token requests in {took:?}, {} rejected",
        api.rejected()
    );
    assert!(answered >= CALLERS);
    assert_eq!(server.reuse_detected(), 0);
    assert!(refreshes >= 2, "{refreshes} token requests in {took:?}");
    // The minimum interval between refreshes is one second.
    let most = usize::try_from(took.as_secs()).unwrap() + 1;
    assert!(refreshes <= most, "{refreshes} token requests in {took:?}");
}
