//! How cost grows with the number of waiters, headers, body bytes, clones of the service, and sessions.
//!
//! `cargo bench -p benches --bench scale`. Everything runs on one thread, because allocations are counted per thread.

mod support;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use allocation_counter::measure;
use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{Empty, Full};
use support::{
    contenders::{self, ADD, BARE, FULL, RETRY_ADD},
    table::{float, heading, median, millis, size},
    work::{Bare, Chunks, Model, Runner, TOKEN, drive},
};
use tokio::runtime::{Builder, Runtime};
use tower::{BoxError, Layer, Service};
use tower_bearer::{BearerAuthLayer, Schedule, Sessions, Token, TokenCache, source_fn};

const ENDPOINT: Duration = Duration::from_millis(50);
const DECADES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];

fn main() {
    let runtime = one_thread();
    let _inside = runtime.enter();
    let session = runtime.block_on(contenders::session());
    waiters();
    headers(&session);
    bodies(&session);
    clones(&session);
    sessions(&runtime);
    keyed_sessions(&runtime);
    refresh_times();
}

fn one_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
}

fn waiters() {
    heading(&format!(
        "callers that wait for the first token; the endpoint takes {ENDPOINT:?}"
    ));
    println!(
        "{:>9}{:>9}{:>16}{:>17}{:>15}",
        "waiters", "tokens", "bytes each", "besides request", "last after ms"
    );
    for waiters in DECADES {
        let runtime = one_thread();
        let _inside = runtime.enter();
        let calls = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&calls);
        let cache = TokenCache::new(source_fn(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(ENDPOINT).await;
                Token::new(TOKEN)
            }
        }));
        let mut service = BearerAuthLayer::from(cache).layer(Bare { reads: false });
        let model = Model::new(6, Full::new(Bytes::from_static(&[7; 1024])));
        let requests: Vec<_> = std::iter::repeat_with(|| model.request())
            .take(waiters)
            .collect();
        let request = size_of::<Request<Full<Bytes>>>();
        let mut waiting = Vec::with_capacity(waiters);

        let start = Instant::now();
        let cost = measure(|| {
            let mut cx = Context::from_waker(Waker::noop());
            for request in requests {
                let mut call = Box::pin(service.call(request));
                assert!(call.as_mut().poll(&mut cx).is_pending());
                waiting.push(call);
            }
        });
        runtime.block_on(async {
            for call in waiting {
                assert!(call.await.is_ok());
            }
        });
        let last = start.elapsed();
        // The vector of requests was freed meanwhile.
        let kept = u64::try_from(cost.bytes_current).unwrap_or_default();
        let each = float(kept) / size(waiters) + size(request);
        println!(
            "{waiters:9}{:9}{each:16.0}{:17.0}{:15.1}",
            calls.load(Ordering::Relaxed),
            each - size(request),
            millis(last),
        );
    }
}

/// Nanoseconds per request: medians of rounds in which the contenders run one after the other.
fn times(runners: &mut [Box<dyn Runner>]) -> Vec<f64> {
    const BATCH: usize = 64;
    let mut times = vec![Vec::new(); runners.len()];
    for number in 0..101 {
        for (runner, times) in runners.iter_mut().zip(&mut times) {
            runner.fill(BATCH);
            let start = Instant::now();
            runner.run();
            if number > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e9 / size(BATCH));
            }
        }
    }
    times.into_iter().map(median).collect()
}

fn allocations(runner: &mut dyn Runner) -> (u64, u64) {
    runner.fill(1);
    let cost = measure(|| runner.run());
    (cost.count_total, cost.bytes_max)
}

fn row<B>(what: usize, session: &TokenCache, headers: usize, body: B, reads: bool)
where
    B: Body + Clone + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut runners = contenders::contenders(session, headers, body, reads);
    let times = times(&mut runners);
    let added = |which: usize| times[which] - times[BARE];
    let (count, bytes) = allocations(runners[FULL].as_mut());
    let (bare_count, bare_bytes) = allocations(runners[BARE].as_mut());
    println!(
        "{what:9}{:12.0}{:18.0}{:26.0}{:13}{:9}",
        added(FULL),
        added(ADD),
        added(RETRY_ADD),
        count - bare_count,
        bytes - bare_bytes,
    );
}

fn row_heading(text: &str, what: &str) {
    heading(text);
    println!(
        "{what:>9}{:>12}{:>18}{:>26}{:>13}{:>9}",
        "full layer", "AddAuthorization", "Retry + AddAuthorization", "allocations", "bytes"
    );
}

fn headers(session: &TokenCache) {
    row_heading(
        "nanoseconds added to a request without a body; allocations of the full layer",
        "headers",
    );
    for headers in [0, 1, 2, 6, 20, 50, 100] {
        row(headers, session, headers, Empty::<Bytes>::new(), false);
    }
}

fn bodies(session: &TokenCache) {
    row_heading(
        "the same with 6 headers and a body in one piece, read; the replay limit is 65536",
        "bytes",
    );
    for bytes in [1, 256, 1_024, 4_096, 16_384, 65_536, 65_537, 1_048_576] {
        let body = Full::new(Bytes::from(vec![7; bytes]));
        row(bytes, session, 6, body, true);
    }
    row_heading(
        "the same, streamed in chunks of 256 bytes; more than 256 are not kept",
        "chunks",
    );
    for chunks in [1, 4, 16, 64, 256, 257, 1_024] {
        let body = Chunks(u32::try_from(chunks).expect("it is small"));
        row(chunks, session, 6, body, true);
    }
}

fn clones(session: &TokenCache) {
    heading("clones of the service, used one after the other");
    println!(
        "{:>9}{:>13}{:>14}{:>15}",
        "clones", "bytes each", "ns to clone", "ns a request"
    );
    let layer = BearerAuthLayer::from(session.clone());
    let first = layer.layer(Bare { reads: false });
    let model = Model::new(6, Empty::<Bytes>::new());
    for clones in DECADES {
        let mut services = Vec::new();
        let start = Instant::now();
        let cost = measure(|| {
            services = Vec::with_capacity(clones);
            services.extend(std::iter::repeat_with(|| first.clone()).take(clones));
        });
        let cloning = start.elapsed();
        let mut used = Vec::new();
        for round in 0..50 {
            let requests: Vec<_> = std::iter::repeat_with(|| model.request())
                .take(64)
                .collect();
            let mut next = round * 64;
            let start = Instant::now();
            for request in requests {
                drive(&mut services[next % clones], request);
                // Services far apart in memory, so that the processor's cache does not help.
                next += 7_919;
            }
            used.push(start.elapsed().as_secs_f64() * 1e9 / 64.0);
        }
        let bytes = u64::try_from(cost.bytes_current).unwrap_or_default();
        println!(
            "{clones:9}{:13.0}{:14.0}{:15.0}",
            float(bytes) / size(clones),
            cloning.as_secs_f64() * 1e9 / size(clones),
            median(used),
        );
    }
}

fn session() -> TokenCache {
    TokenCache::new(source_fn(|_| async {
        Ok(Token::new(TOKEN)?.expires_in(Duration::from_secs(3_600)))
    }))
}

fn sessions(runtime: &Runtime) {
    heading("sessions in one process, each with its token");
    println!(
        "{:>9}{:>13}{:>21}",
        "sessions", "bytes each", "µs to the first token"
    );
    for sessions in DECADES {
        let mut kept = Vec::with_capacity(sessions);
        let start = Instant::now();
        let cost = measure(|| {
            runtime.block_on(async {
                for _ in 0..sessions {
                    let cache = session();
                    assert!(cache.token().await.is_ok());
                    kept.push(cache);
                }
                // The tasks that got the tokens end.
                tokio::task::yield_now().await;
            });
        });
        let bytes = u64::try_from(cost.bytes_current).unwrap_or_default();
        println!(
            "{sessions:9}{:13.0}{:24.2}",
            float(bytes) / size(sessions),
            start.elapsed().as_secs_f64() * 1e6 / size(sessions),
        );
    }
}

fn keyed_sessions(runtime: &Runtime) {
    heading("the same sessions in a `Vec`, and with keys of type `u64` in `Sessions`");
    println!(
        "{:>9}{:>13}{:>13}{:>11}",
        "sessions", "in a `Vec`", "`Sessions`", "beside"
    );
    for sessions in DECADES {
        let mut vec = Vec::with_capacity(sessions);
        let in_vec = measure(|| {
            runtime.block_on(async {
                for _ in 0..sessions {
                    vec.push(first_token(session()).await);
                }
                tokio::task::yield_now().await;
            });
        });
        // Room for all of them in each part of the map.
        let keyed = Sessions::builder(|_: u64| async { Ok(session()) })
            .capacity(2 * sessions.max(100))
            .build();
        let in_map = measure(|| {
            runtime.block_on(async {
                for key in 0..sessions as u64 {
                    let cache = keyed.get(&key).await.expect("it is made");
                    first_token(cache).await;
                }
                tokio::task::yield_now().await;
            });
        });
        assert_eq!(keyed.len(), sessions);
        let each = |bytes: i64| float(u64::try_from(bytes).unwrap_or_default()) / size(sessions);
        // The vector itself was allocated before.
        let (in_vec, in_map) = (each(in_vec.bytes_current), each(in_map.bytes_current));
        println!(
            "{sessions:9}{in_vec:13.0}{in_map:13.0}{:11.0}",
            in_map - in_vec
        );
    }
}

async fn first_token(cache: TokenCache) -> TokenCache {
    assert!(cache.token().await.is_ok());
    cache
}

/// When the sessions of one process refresh tokens that they all got at the same time. Time is paused, so it passes at
/// once.
fn refresh_times() {
    const SESSIONS: usize = 100_000;
    heading(&format!(
        "{SESSIONS} keyed sessions that began together, tokens of an hour, background refresh: when the second tokens were requested"
    ));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime starts");
    let asked = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let start = tokio::time::Instant::now();
        let all_asked = Arc::clone(&asked);
        let sessions = Sessions::builder(move |_: u64| {
            let asked = Arc::clone(&all_asked);
            let source = source_fn(move |_| {
                let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                asked.push(start.elapsed().as_secs());
                // A new token each time: a source that returns the same token is asked again.
                let token = Token::new(format!("token-{}", asked.len()));
                async { Ok(token?.expires_in(Duration::from_secs(3_600))) }
            });
            let schedule = Schedule::default().background_refresh(true);
            let cache = TokenCache::builder(source).schedule(schedule).build();
            async { Ok(cache) }
        })
        .capacity(2 * SESSIONS)
        .idle_timeout(Duration::from_secs(86_400))
        .build();
        for key in 0..SESSIONS as u64 {
            drop(sessions.get(&key).await);
        }
        tokio::time::sleep(Duration::from_secs(3_599)).await;
        assert_eq!(sessions.len(), SESSIONS);
    });
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.retain(|second| *second > 60);
    asked.sort_unstable();
    let busiest = asked.chunk_by(|a, b| a == b).map(<[_]>::len).max();
    println!(
        "from second {} to {}; {} in the busiest second, {} in all",
        asked.first().copied().unwrap_or_default(),
        asked.last().copied().unwrap_or_default(),
        busiest.unwrap_or_default(),
        asked.len(),
    );
}
