//! What callers feel while tokens change: latency under an open loop, and storms.
//!
//! `cargo bench --bench refresh [-- path.svg]`, in less than a minute; the plot goes to `target/refresh.svg` unless a path
//! is given.
//!
//! A thread that waits for nobody starts requests at a fixed rate, so that a caller who is held up holds up no other, and
//! everybody's waiting is counted from when his request was made. Contenders take turns.

mod support;

use std::{
    convert::Infallible,
    env,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use allocation_counter::measure;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{Empty, Full};
use plotters::prelude::*;
use support::{
    table::{float, heading, millis, size},
    work::Model,
};
use tokio::{runtime::Handle, sync, task::JoinSet, time};
use tower::{BoxError, Service, ServiceExt, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, Schedule, Token, TokenCache, TokenError, TokenErrorKind, source_fn,
};
use tower_layer::Layer;

/// What the token endpoint takes.
const ENDPOINT: Duration = Duration::from_millis(50);
const LIFETIME: Duration = Duration::from_secs(1);
/// A turn, of which there are three a contender.
const TURN: Duration = Duration::from_secs(3);
const TURNS: usize = 3;
/// Requests that start together, and how often.
const BURST: usize = 5;
const TICK: Duration = Duration::from_millis(1);
const STORM: usize = 10_000;
/// What nobody waits for.
const PATIENCE: Duration = Duration::from_secs(2);

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Empty<Bytes>>, BoxError>;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        latencies().await;
        cold().await;
        refusals().await;
        failures().await;
    });
    memory();
}

// ---- the two ends ----

/// Answers at once, or a while later; once it is strict, it refuses the first token.
#[derive(Clone, Default)]
struct Api {
    takes: Duration,
    strict: Arc<AtomicBool>,
}

type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<Empty<Bytes>>, E>> + Send>>;

impl<B: Send + 'static> Service<Request<B>> for Api {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Answering<Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let takes = self.takes;
        let first = || {
            request
                .headers()
                .get(AUTHORIZATION)
                .is_some_and(|it| it == "Bearer token-0")
        };
        let refused = self.strict.load(Ordering::Relaxed) && first();
        Box::pin(async move {
            if !takes.is_zero() {
                time::sleep(takes).await;
            }
            let mut response = Response::new(Empty::new());
            if refused {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok(response)
        })
    }
}

/// Issues a new token each time, or fails, and counts.
#[derive(Clone, Default)]
struct Endpoint {
    calls: Arc<AtomicU64>,
    fails: Arc<AtomicBool>,
}

impl Endpoint {
    fn failing() -> Self {
        let endpoint = Self::default();
        endpoint.fails.store(true, Ordering::Relaxed);
        endpoint
    }

    async fn token(self) -> Result<Token, TokenError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        time::sleep(ENDPOINT).await;
        if self.fails.load(Ordering::Relaxed) {
            return Err(TokenError::new(
                TokenErrorKind::Server,
                "down for the bench",
            ));
        }
        Token::new(format!("token-{call}"))
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

// ---- the contenders ----

/// A cache whose tokens live so long, renewed in the second half of that.
fn cache(endpoint: &Endpoint, lifetime: Duration) -> TokenCache {
    let endpoint = endpoint.clone();
    let source = source_fn(move |_| {
        let token = endpoint.clone().token();
        async move { Ok(token.await?.expires_in(lifetime)) }
    });
    // The defaults are for tokens that live for minutes: an attempt each second would be too late for these.
    let schedule = Schedule::default()
        .refresh_ahead(0.5, Duration::from_secs(300))
        .min_interval(Duration::from_millis(100));
    TokenCache::builder(source).schedule(schedule).build()
}

fn ours(endpoint: &Endpoint, lifetime: Duration, api: Api) -> Client {
    let layer = BearerAuthLayer::from(cache(endpoint, lifetime));
    BoxCloneSyncService::new(layer.layer(api))
}

type Kept = Option<(HeaderValue, Instant)>;

fn usable(kept: &Kept) -> Option<HeaderValue> {
    let (value, end) = kept.as_ref()?;
    (*end > Instant::now()).then(|| value.clone())
}

async fn renew(
    kept: &mut Kept,
    endpoint: Endpoint,
    lifetime: Duration,
) -> Result<HeaderValue, TokenError> {
    let asked = Instant::now();
    let value = endpoint.token().await?.header().clone();
    *kept = Some((value.clone(), asked + lifetime));
    Ok(value)
}

async fn send(
    mut request: Request<Full<Bytes>>,
    value: HeaderValue,
    api: Api,
) -> Result<Response<Empty<Bytes>>, BoxError> {
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(api.oneshot(request).await?)
}

/// The common mutex: whoever comes locks it, and renews what he finds expired.
fn mutex(endpoint: &Endpoint, lifetime: Duration, api: Api) -> Client {
    let kept = Arc::new(sync::Mutex::new(Kept::None));
    let endpoint = endpoint.clone();
    BoxCloneSyncService::new(tower::service_fn(move |request| {
        let (kept, endpoint, api) = (Arc::clone(&kept), endpoint.clone(), api.clone());
        async move {
            let mut kept = kept.lock().await;
            let value = match usable(&kept) {
                Some(value) => value,
                None => renew(&mut kept, endpoint, lifetime).await?,
            };
            drop(kept);
            send(request, value, api).await
        }
    }))
}

/// Renewal on demand: readers share the token, and the first to find it expired writes the next.
fn on_demand(endpoint: &Endpoint, lifetime: Duration, api: Api) -> Client {
    let kept = Arc::new(sync::RwLock::new(Kept::None));
    let endpoint = endpoint.clone();
    BoxCloneSyncService::new(tower::service_fn(move |request| {
        let (kept, endpoint, api) = (Arc::clone(&kept), endpoint.clone(), api.clone());
        async move {
            let found = usable(&*kept.read().await);
            let value = if let Some(value) = found {
                value
            } else {
                let mut kept = kept.write().await;
                match usable(&kept) {
                    Some(value) => value,
                    None => renew(&mut kept, endpoint, lifetime).await?,
                }
            };
            send(request, value, api).await
        }
    }))
}

/// Nobody needs a token, but everybody waits as long: what the runtime itself takes to serve so many.
fn timers(_: &Endpoint, _: Duration, api: Api) -> Client {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Full<Bytes>>| {
        let api = api.clone();
        async move {
            time::sleep(ENDPOINT).await;
            Ok(api.oneshot(request).await?)
        }
    }))
}

type Make = fn(&Endpoint, Duration, Api) -> Client;
const MAKERS: [(&str, Make); 3] = [
    ("BearerAuthLayer", ours),
    ("mutex", mutex),
    ("RwLock, on demand", on_demand),
];

fn request() -> Request<Full<Bytes>> {
    Model::new(6, Full::new(Bytes::from_static(&[7; 1024]))).request()
}

// ---- latency ----

/// When a request was made, since its turn began, and what it took, in microseconds.
type Sample = (u64, u64);

struct Contender {
    name: &'static str,
    make: Make,
    lifetime: Duration,
    latency: Histogram<u64>,
    calls: u64,
    first_turn: Vec<Sample>,
}

impl Contender {
    fn new(name: &'static str, make: Make, lifetime: Duration) -> Self {
        Self {
            name,
            make,
            lifetime,
            latency: Histogram::new(3).expect("three digits are possible"),
            calls: 0,
            first_turn: Vec::new(),
        }
    }

    async fn turn(&mut self) {
        let endpoint = Endpoint::default();
        let client = (self.make)(&endpoint, self.lifetime, Api::default());
        // The first token is another bench.
        let warm = client.clone().oneshot(request()).await;
        warm.expect("there is a token");
        let samples = load(client).await;
        for (_, took) in &samples {
            let recorded = self.latency.record(*took);
            recorded.expect("the histogram grows as it must");
        }
        self.calls += endpoint.calls();
        if self.first_turn.is_empty() {
            self.first_turn = samples;
        }
    }
}

/// An open loop of one turn.
async fn load(client: Client) -> Vec<Sample> {
    let runtime = Handle::current();
    let ticking = thread::spawn(move || {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let model = Model::new(6, Full::new(Bytes::from_static(&[7; 1024])));
        let start = Instant::now();
        let mut due = start;
        while due < start + TURN {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            for _ in 0..BURST {
                let (client, samples) = (client.clone(), Arc::clone(&samples));
                let request = model.request();
                let made = Instant::now();
                runtime.spawn(async move {
                    let answer = client.oneshot(request).await;
                    let took = micros(made.elapsed());
                    assert!(answer.is_ok_and(|it| it.status() == StatusCode::OK));
                    let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
                    samples.push((micros(made - start), took));
                });
            }
            due += TICK;
        }
        // Until the last has its answer.
        while Arc::strong_count(&samples) > 1 {
            thread::sleep(TICK);
        }
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *samples)
    });
    tokio::task::spawn_blocking(|| ticking.join().expect("it ends"))
        .await
        .expect("it ends")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

async fn latencies() {
    let mut contenders = vec![Contender::new(
        "BearerAuthLayer, lasting token",
        ours,
        Duration::from_secs(3_600),
    )];
    contenders.extend(MAKERS.map(|(name, make)| Contender::new(name, make, LIFETIME)));
    for _ in 0..TURNS {
        for contender in &mut contenders {
            contender.turn().await;
        }
    }

    heading(&format!(
        "{BURST} requests each {TICK:?}; tokens of {LIFETIME:?} from an endpoint of {ENDPOINT:?}; milliseconds",
    ));
    println!(
        "{:32}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}",
        "", "p50", "p99", "p99.9", "max", "requests", "tokens"
    );
    let at = |latency: &Histogram<u64>, part| float(latency.value_at_quantile(part)) / 1e3;
    for Contender {
        name,
        latency,
        calls,
        ..
    } in &contenders
    {
        println!(
            "{name:32}{:9.3}{:9.3}{:9.3}{:9.3}{:9}{calls:8}",
            at(latency, 0.5),
            at(latency, 0.99),
            at(latency, 0.999),
            float(latency.max()) / 1e3,
            latency.len(),
        );
    }
    let tail = |which: usize| at(&contenders[which].latency, 0.999);
    println!(
        "p99.9 with refreshes: {:.2} × that without",
        tail(1) / tail(0)
    );

    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/target/refresh.svg");
    let path = env::args().skip(1).find(|it| !it.starts_with('-'));
    let path = path.unwrap_or_else(|| String::from(default));
    match draw(&path, &contenders[1..]) {
        Ok(()) => println!("drawn: {path}"),
        Err(error) => println!("not drawn: {path}: {error}"),
    }
}

/// The slowest request of each 10 ms of the first turn.
fn draw(path: &str, contenders: &[Contender]) -> Result<(), BoxError> {
    const COLOURS: [RGBColor; 3] = [
        RGBColor(0, 90, 181),
        RGBColor(220, 50, 32),
        RGBColor(230, 159, 0),
    ];
    let root = SVGBackend::new(path, (900, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "The slowest request of each 10 ms, while tokens change",
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..TURN.as_secs_f64(), 0.0..60.0)?;
    chart
        .configure_mesh()
        .x_desc("seconds; tokens live for one, and the endpoint takes 50 ms for the next")
        .y_desc("milliseconds")
        .draw()?;
    // Ours last, on top.
    for (contender, colour) in contenders.iter().zip(COLOURS).rev() {
        let mut slowest = std::collections::BTreeMap::<u64, u64>::new();
        for (made, took) in &contender.first_turn {
            let slot = slowest.entry(made / 10_000).or_default();
            *slot = (*slot).max(*took);
        }
        let points = slowest
            .into_iter()
            .map(|(slot, took)| (float(slot) / 100.0, float(took) / 1e3));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(contender.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

// ---- storms ----

#[derive(Default)]
struct Outcome {
    served: usize,
    refused: usize,
    failed: usize,
    last: Duration,
}

/// Everybody at once; who has no answer in [`PATIENCE`] gets none.
async fn storm(client: &Client, callers: usize) -> Outcome {
    let requests: Vec<_> = std::iter::repeat_with(request).take(callers).collect();
    let mut storm = JoinSet::new();
    let start = Instant::now();
    for request in requests {
        let client = client.clone();
        storm.spawn(time::timeout(PATIENCE, client.oneshot(request)));
    }
    let mut outcome = Outcome::default();
    while let Some(answer) = storm.join_next().await {
        match answer.expect("it ends") {
            Ok(Ok(response)) if response.status() == StatusCode::OK => outcome.served += 1,
            Ok(Ok(_)) => outcome.refused += 1,
            Ok(Err(_)) => outcome.failed += 1,
            Err(_) => continue,
        }
        outcome.last = start.elapsed();
    }
    outcome
}

fn tell(name: &str, callers: usize, calls: u64, outcome: &Outcome) {
    let Outcome {
        served,
        refused,
        failed,
        last,
    } = outcome;
    let unanswered = callers - served - refused - failed;
    println!(
        "{name:26}{calls:8}{served:9}{refused:9}{failed:9}{unanswered:12}{:14.1}",
        millis(*last)
    );
}

fn storm_heading(text: &str) {
    heading(text);
    println!(
        "{:26}{:>8}{:>9}{:>9}{:>9}{:>12}{:>14}",
        "", "tokens", "served", "refused", "failed", "unanswered", "last after ms"
    );
}

async fn cold() {
    storm_heading(&format!(
        "{STORM} callers and no token yet; the endpoint takes {ENDPOINT:?}; the best of {TURNS}"
    ));
    for (name, make) in [("no token, but a timer", timers as Make)]
        .into_iter()
        .chain(MAKERS)
    {
        let mut best: Option<(u64, Outcome)> = None;
        for _ in 0..TURNS {
            let endpoint = Endpoint::default();
            let client = make(&endpoint, Duration::from_secs(60), Api::default());
            let outcome = storm(&client, STORM).await;
            if best
                .as_ref()
                .is_none_or(|(_, best)| outcome.last < best.last)
            {
                best = Some((endpoint.calls(), outcome));
            }
        }
        if let Some((calls, outcome)) = best {
            tell(name, STORM, calls, &outcome);
        }
    }
}

async fn refusals() {
    storm_heading(&format!(
        "{STORM} callers are refused one token, 20 ms after they sent it"
    ));
    for (name, make) in MAKERS {
        let endpoint = Endpoint::default();
        let api = Api {
            takes: Duration::from_millis(20),
            ..Api::default()
        };
        let client = make(&endpoint, Duration::from_secs(60), api.clone());
        storm(&client, 1).await;
        time::sleep(Duration::from_millis(200)).await;
        api.strict.store(true, Ordering::Relaxed);
        let outcome = storm(&client, STORM).await;
        tell(name, STORM, endpoint.calls() - 1, &outcome);
    }
}

async fn failures() {
    storm_heading(&format!(
        "{STORM} callers, and an endpoint that fails; given up after {PATIENCE:?}"
    ));
    for (name, make) in MAKERS {
        let endpoint = Endpoint::failing();
        let client = make(&endpoint, Duration::from_secs(60), Api::default());
        let outcome = storm(&client, STORM).await;
        tell(name, STORM, endpoint.calls(), &outcome);
    }
}

/// What a caller who waits holds, on one thread, since allocations are counted per thread.
fn memory() {
    heading(&format!(
        "memory of {STORM} callers that wait for the first token"
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let _inside = runtime.enter();
    let endpoint = Endpoint::default();
    let mut service = BearerAuthLayer::from(cache(&endpoint, LIFETIME)).layer(Api::default());
    let requests: Vec<_> = std::iter::repeat_with(request).take(STORM).collect();
    let itself = size_of::<Request<Full<Bytes>>>();
    let mut waiting = Vec::with_capacity(STORM);
    let mut inline = 0;
    let cost = measure(|| {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for request in requests {
            let mut call = Box::pin(service.call(request));
            inline = size_of_val(&*call);
            assert!(call.as_mut().poll(&mut cx).is_pending());
            waiting.push(call);
        }
    });
    // The vector that held the requests was given back meanwhile.
    let kept = u64::try_from(cost.bytes_current).unwrap_or_default() + (STORM * itself) as u64;
    let each = float(kept) / size(STORM);
    println!(
        "a waiter takes {each:.0} bytes, of which its future {inline}, of which the request {itself}; \
         beside the request {:.0}",
        each - size(itself)
    );
    drop(waiting);
    drop(endpoint);
}
