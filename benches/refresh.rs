//! How long callers wait while tokens change: latency at a fixed rate of requests, and many callers at once.
//!
//! `cargo bench -p benches --bench refresh [-- path.svg]` takes a minute and a half. The plot goes to `target/refresh.svg`
//! unless a path is given, which is relative to `benches/`. The name of a part (`latencies`, `cold`, `rejections`,
//! `failures`, `memory`) runs that part alone.
//!
//! For latencies, a thread starts requests on schedule and does not wait for their responses, so that a slow response
//! delays no other request. The time of each is counted from its start. All contenders run at the same time, so that other
//! load on the machine slows all of them alike. The results are medians of many short rounds.

mod support;

use std::{
    convert::Infallible,
    env,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
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
    table::{float, heading, median, millis, size},
    work::Model,
};
use tokio::{runtime::Handle, sync, time};
use tower::{BoxError, Service, ServiceExt, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, Schedule, Token, TokenCache, TokenError, TokenErrorKind, source_fn,
};
use tower_layer::Layer;

/// How long the token endpoint takes.
const ENDPOINT: Duration = Duration::from_millis(50);
const LIFETIME: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(5);
const ROUNDS: usize = 12;
/// Requests of each contender that start together, and how often: few enough that none waits for a processor.
const BURST: usize = 2;
const TICK: Duration = Duration::from_millis(1);
const TICKS: usize = (ROUND.as_millis() / TICK.as_millis()) as usize;
const CALLERS: usize = 10_000;
const REPEATS: usize = 9;
/// After this time a caller counts as unanswered.
const TIMEOUT: Duration = Duration::from_secs(2);

const PARTS: [&str; 5] = ["latencies", "cold", "rejections", "failures", "memory"];

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Empty<Bytes>>, BoxError>;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        if asked_for("latencies") {
            latencies().await;
        }
        if asked_for("cold") {
            cold().await;
        }
        if asked_for("rejections") {
            rejections().await;
        }
        if asked_for("failures") {
            failures().await;
        }
    });
    if asked_for("memory") {
        memory();
    }
}

/// Whether to run a part: it was named on the command line, or no part was.
fn asked_for(part: &str) -> bool {
    let mut named = env::args()
        .skip(1)
        .filter(|it| PARTS.contains(&it.as_str()));
    let first = named.next();
    first.is_none() || first.as_deref() == Some(part) || named.any(|it| it == part)
}

// ---- the token endpoint and the API ----

/// An API that answers after `takes`. Once it is strict, it rejects the first token.
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
        let rejected = self.strict.load(Ordering::Relaxed) && first();
        Box::pin(async move {
            if !takes.is_zero() {
                time::sleep(takes).await;
            }
            let mut response = Response::new(Empty::new());
            if rejected {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok(response)
        })
    }
}

/// A token endpoint that issues a new token each time, or fails, and counts its requests.
#[derive(Clone, Default)]
struct Endpoint {
    calls: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<Instant>>>,
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
        self.note();
        time::sleep(ENDPOINT).await;
        if self.fails.load(Ordering::Relaxed) {
            return Err(TokenError::new(
                TokenErrorKind::Server,
                "the bench's token endpoint fails",
            ));
        }
        Token::new(format!("token-{call}"))
    }

    fn note(&self) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(Instant::now());
    }

    fn asked_since(&self, start: Instant) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |asked: &Instant| asked.checked_duration_since(start);
        asked.iter().filter_map(since).collect()
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

// ---- the contenders ----

/// A cache whose tokens are refreshed in the second half of their lifetime.
fn cache(endpoint: &Endpoint, lifetime: Duration) -> TokenCache {
    let endpoint = endpoint.clone();
    let source = source_fn(move |_| {
        let token = endpoint.clone().token();
        async move { Ok(token.await?.expires_in(lifetime)) }
    });
    // The defaults are for tokens that live for minutes. These live too short for one attempt a second.
    let schedule = Schedule::default()
        .refresh_ahead(0.5, Duration::from_secs(300))
        .min_interval(Duration::from_millis(100));
    TokenCache::builder(source).schedule(schedule).build()
}

fn bearer_auth(endpoint: &Endpoint, lifetime: Duration, api: Api) -> Client {
    let layer = BearerAuthLayer::from(cache(endpoint, lifetime));
    BoxCloneSyncService::new(layer.layer(api))
}

type Kept = Option<(HeaderValue, Instant)>;

fn usable(kept: &Kept) -> Option<HeaderValue> {
    let (value, end) = kept.as_ref()?;
    (*end > Instant::now()).then(|| value.clone())
}

async fn refresh(
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

/// A mutex around the token: each caller locks it, and refreshes the token if it has expired.
fn mutex(endpoint: &Endpoint, lifetime: Duration, api: Api) -> Client {
    let kept = Arc::new(sync::Mutex::new(Kept::None));
    let endpoint = endpoint.clone();
    BoxCloneSyncService::new(tower::service_fn(move |request| {
        let (kept, endpoint, api) = (Arc::clone(&kept), endpoint.clone(), api.clone());
        async move {
            let mut kept = kept.lock().await;
            let value = match usable(&kept) {
                Some(value) => value,
                None => refresh(&mut kept, endpoint, lifetime).await?,
            };
            drop(kept);
            send(request, value, api).await
        }
    }))
}

/// An `RwLock` around the token: the first caller that finds it expired locks it for writing and refreshes it.
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
                    None => refresh(&mut kept, endpoint, lifetime).await?,
                }
            };
            send(request, value, api).await
        }
    }))
}

/// No token at all, but a timer as long as a token request: what the runtime takes for so many callers.
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
    ("BearerAuthLayer", bearer_auth),
    ("mutex", mutex),
    ("RwLock, on demand", on_demand),
];

fn request() -> Request<Full<Bytes>> {
    Model::new(6, Full::new(Bytes::from_static(&[7; 1024]))).request()
}

// ---- latency ----

/// One request. Times are in microseconds.
#[derive(Clone, Copy)]
struct Sample {
    tick: usize,
    /// Since the round began.
    made: u64,
    took: u64,
}

struct Contender {
    name: &'static str,
    make: Make,
    lifetime: Duration,
    rounds: Vec<Histogram<u64>>,
    calls: u64,
    first_round: Vec<Sample>,
}

impl Contender {
    fn new(name: &'static str, make: Make, lifetime: Duration) -> Self {
        Self {
            name,
            make,
            lifetime,
            rounds: Vec::new(),
            calls: 0,
            first_round: Vec::new(),
        }
    }

    fn record(&mut self, samples: Vec<Sample>) {
        let mut round = Histogram::new(3).expect("three digits are possible");
        for sample in &samples {
            let recorded = round.record(sample.took);
            recorded.expect("the histogram grows by itself");
        }
        self.rounds.push(round);
        if self.first_round.is_empty() {
            self.first_round = samples;
        }
    }

    /// The quantile of each round, in milliseconds.
    fn at(&self, part: f64) -> impl Iterator<Item = f64> {
        let at = move |round: &Histogram<u64>| float(round.value_at_quantile(part)) / 1e3;
        self.rounds.iter().map(at)
    }

    fn median(&self, part: f64) -> f64 {
        median(self.at(part).collect())
    }
}

/// How much slower a request was than one with a token that does not expire, started at the same tick, in microseconds.
/// Other load on the machine slows both alike, so the difference between the two tails comes from refreshes.
#[derive(Default)]
struct Differences {
    all: Vec<i64>,
    /// While a refresh ran, and a moment longer.
    refreshing: Vec<i64>,
}

const MOMENT: Duration = Duration::from_millis(10);

impl Differences {
    fn add(&mut self, lasting: &[Sample], changing: &[Sample], refreshes: &[Duration]) {
        let mut slowest = vec![(0, 0, 0); TICKS];
        for sample in lasting {
            let (_, lasting, _) = &mut slowest[sample.tick];
            *lasting = sample.took.max(*lasting);
        }
        for sample in changing {
            let (made, _, changing) = &mut slowest[sample.tick];
            *made = sample.made;
            *changing = sample.took.max(*changing);
        }
        for (made, lasting, changing) in slowest {
            let difference = changing.cast_signed() - lasting.cast_signed();
            self.all.push(difference);
            let made = Duration::from_micros(made);
            let during =
                |asked: &Duration| made + TICK > *asked && made < *asked + ENDPOINT + MOMENT;
            if refreshes.iter().any(during) {
                self.refreshing.push(difference);
            }
        }
    }

    fn print(name: &str, mut differences: Vec<i64>) {
        differences.sort_unstable();
        let ticks = differences.len();
        let slower = |once_in: usize| {
            let which = ticks - 1 - ticks / once_in;
            float(differences[which].max(0).unsigned_abs()) / 1e3
        };
        let faster = |once_in: usize| {
            let which = ticks / once_in;
            float(differences[which].min(0).unsigned_abs()) / 1e3
        };
        println!(
            "{name:32}{ticks:9}{:18.3}{:9.3}{:19.3}{:9.3}",
            slower(100),
            faster(100),
            slower(1_000),
            faster(1_000),
        );
    }
}

/// One round of all contenders.
async fn round(contenders: &mut [Contender], differences: &mut Differences) {
    let mut clients = Vec::new();
    let mut endpoints = Vec::new();
    for contender in &*contenders {
        let endpoint = Endpoint::default();
        let client = (contender.make)(&endpoint, contender.lifetime, Api::default());
        // Getting the first token is not part of this bench.
        let warm = client.clone().oneshot(request()).await;
        warm.expect("there is a token");
        clients.push(client);
        endpoints.push(endpoint);
    }
    let (start, samples) = load(clients).await;
    differences.add(&samples[0], &samples[1], &endpoints[1].asked_since(start));
    for ((contender, samples), endpoint) in contenders.iter_mut().zip(samples).zip(endpoints) {
        contender.record(samples);
        contender.calls += endpoint.calls();
    }
}

/// Sends the requests of one round on schedule. Returns when it began, and how long each client's requests took.
async fn load(clients: Vec<Client>) -> (Instant, Vec<Vec<Sample>>) {
    let runtime = Handle::current();
    let ticking = thread::spawn(move || {
        // With room for all samples: growing would delay the request that needs the room.
        let room = || Arc::new(Mutex::new(Vec::with_capacity(TICKS * BURST)));
        let samples: Vec<_> = clients.iter().map(|_| room()).collect();
        let model = Model::new(6, Full::new(Bytes::from_static(&[7; 1024])));
        let start = Instant::now();
        let mut due = start;
        for tick in 0..TICKS {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // Another contender comes first each time, because the first has to wake the runtime.
            let order = (0..clients.len()).map(|next| (tick + next) % clients.len());
            for which in order.flat_map(|which| [which; BURST]) {
                let (client, samples) = (clients[which].clone(), Arc::clone(&samples[which]));
                let request = model.request();
                let made = Instant::now();
                runtime.spawn(async move {
                    let answer = client.oneshot(request).await;
                    let took = micros(made.elapsed());
                    assert!(answer.is_ok_and(|it| it.status() == StatusCode::OK));
                    let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
                    let made = micros(made - start);
                    samples.push(Sample { tick, made, took });
                });
            }
            due += TICK;
        }
        // Wait for the last response.
        while samples.iter().any(|it| Arc::strong_count(it) > 1) {
            thread::sleep(TICK);
        }
        let taken = |samples: Arc<Mutex<Vec<Sample>>>| {
            let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *samples)
        };
        (start, samples.into_iter().map(taken).collect())
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
        bearer_auth,
        Duration::from_secs(3_600),
    )];
    contenders.extend(MAKERS.map(|(name, make)| Contender::new(name, make, LIFETIME)));
    let mut differences = Differences::default();
    for _ in 0..ROUNDS {
        round(&mut contenders, &mut differences).await;
    }

    heading(&format!(
        "{BURST} requests of each at each {TICK:?}; tokens of {LIFETIME:?} from an endpoint of {ENDPOINT:?}; \
         medians of {ROUNDS} rounds of {ROUND:?}; milliseconds",
    ));
    println!(
        "{:32}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}",
        "", "p50", "p99", "p99.9", "max", "requests", "tokens"
    );
    for contender in &contenders {
        println!(
            "{:32}{:9.3}{:9.3}{:9.3}{:9.3}{:9}{:8}",
            contender.name,
            contender.median(0.5),
            contender.median(0.99),
            contender.median(0.999),
            contender.median(1.0),
            contender.rounds.iter().map(Histogram::len).sum::<u64>(),
            contender.calls,
        );
    }
    let tail = |which: usize| contenders[which].at(0.999);
    let mut ratios: Vec<_> = tail(1)
        .zip(tail(0))
        .map(|(with, without)| with / without)
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "p99.9 with refreshes: {:.2} × that without; half of the rounds between {:.2} and {:.2}",
        median(ratios.clone()),
        ratios[ROUNDS / 4],
        ratios[ROUNDS - 1 - ROUNDS / 4],
    );
    println!(
        "\n{:32}{:>9}{:>18}{:>9}{:>19}{:>9}",
        "slower or faster than with a",
        "ticks",
        "1 in 100: slower",
        "faster",
        "1 in 1000: slower",
        "faster"
    );
    Differences::print("lasting token at the same tick", differences.all);
    Differences::print("  of that, around refreshes", differences.refreshing);

    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/refresh.svg");
    let path = env::args()
        .skip(1)
        .find(|it| !it.starts_with('-') && !PARTS.contains(&it.as_str()));
    let path = path.unwrap_or_else(|| String::from(default));
    match draw(&path, &contenders[1..]) {
        Ok(()) => println!("drawn: {path}"),
        Err(error) => println!("not drawn: {path}: {error}"),
    }
}

/// Draws the slowest request of each 10 ms of the first round.
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
        .build_cartesian_2d(0.0..ROUND.as_secs_f64(), 0.0..80.0)?;
    chart
        .configure_mesh()
        .x_desc("seconds; tokens live for one, and the endpoint takes 50 ms for the next")
        .y_desc("milliseconds")
        .draw()?;
    // `BearerAuthLayer` is drawn last, on top.
    for (contender, colour) in contenders.iter().zip(COLOURS).rev() {
        let mut slowest = std::collections::BTreeMap::<u64, u64>::new();
        for sample in &contender.first_round {
            let slot = slowest.entry(sample.made / 10_000).or_default();
            *slot = (*slot).max(sample.took);
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

// ---- many callers at once ----

#[derive(Default)]
struct Outcome {
    accepted: usize,
    rejected: usize,
    failed: usize,
    last: Duration,
}

/// Each caller counts its own response, and only the last one wakes the bench. A task that collected the responses would
/// take time from the two processors.
#[derive(Default)]
struct Tally {
    accepted: AtomicUsize,
    rejected: AtomicUsize,
    failed: AtomicUsize,
    left: AtomicUsize,
    last: AtomicU64,
    done: sync::Notify,
}

impl Tally {
    fn count(&self, answer: &Result<Response<Empty<Bytes>>, BoxError>, took: Duration) {
        let group = match answer {
            Ok(response) if response.status() == StatusCode::OK => &self.accepted,
            Ok(_) => &self.rejected,
            Err(_) => &self.failed,
        };
        group.fetch_add(1, Ordering::Relaxed);
        self.last.fetch_max(micros(took), Ordering::Relaxed);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            accepted: self.accepted.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            last: Duration::from_micros(self.last.load(Ordering::Relaxed)),
        }
    }
}

/// Sends a request of each caller at the same time and waits up to [`TIMEOUT`]. Runs in a task, as in a server.
async fn send_at_once(client: &Client, callers: usize) -> Outcome {
    let sending = tokio::spawn(send_all(client.clone(), callers));
    sending.await.expect("it ends")
}

async fn send_all(client: Client, callers: usize) -> Outcome {
    let requests: Vec<_> = std::iter::repeat_with(request).take(callers).collect();
    let tally = Arc::new(Tally {
        left: AtomicUsize::new(callers),
        ..Tally::default()
    });
    let mut tasks = Vec::with_capacity(callers);
    let start = Instant::now();
    for request in requests {
        let (client, tally) = (client.clone(), Arc::clone(&tally));
        tasks.push(tokio::spawn(async move {
            let answer = client.oneshot(request).await;
            tally.count(&answer, start.elapsed());
        }));
    }
    // One timer for all callers: ten thousand timers would be measured as well.
    let _in_time = time::timeout(TIMEOUT, tally.done.notified()).await;
    let outcome = tally.outcome();
    for task in tasks {
        task.abort();
        let _aborted = task.await;
    }
    outcome
}

fn print_row(name: &str, callers: usize, calls: u64, outcome: &Outcome) {
    let Outcome {
        accepted,
        rejected,
        failed,
        last,
    } = outcome;
    let unanswered = callers - accepted - rejected - failed;
    println!(
        "{name:26}{calls:8}{accepted:9}{rejected:9}{failed:9}{unanswered:12}{:14.1}",
        millis(*last)
    );
}

fn callers_heading(text: &str) {
    heading(text);
    println!(
        "{:26}{:>8}{:>9}{:>9}{:>9}{:>12}{:>14}",
        "", "tokens", "accepted", "rejected", "failed", "unanswered", "last after ms"
    );
}

async fn cold() {
    callers_heading(&format!(
        "{CALLERS} callers and no token yet; the endpoint takes {ENDPOINT:?}; the median of {REPEATS} repeats, and the best"
    ));
    let mut contenders: Vec<_> = [("a timer instead of a token", timers as Make)]
        .into_iter()
        .chain(MAKERS)
        .map(|(name, make)| (name, make, Vec::new()))
        .collect();
    for _ in 0..REPEATS {
        for (_, make, results) in &mut contenders {
            let endpoint = Endpoint::default();
            let client = make(&endpoint, Duration::from_secs(60), Api::default());
            let outcome = send_at_once(&client, CALLERS).await;
            results.push((endpoint.calls(), outcome));
        }
    }
    for (name, _, mut results) in contenders {
        results.sort_by_key(|(_, outcome)| outcome.last);
        let best = millis(results[0].1.last);
        let (calls, outcome) = &results[REPEATS / 2];
        print_row(name, CALLERS, *calls, outcome);
        println!("{:74}{best:14.1}", "");
    }
}

async fn rejections() {
    callers_heading(&format!(
        "{CALLERS} callers send the same token, which is rejected 20 ms later"
    ));
    for (name, make) in MAKERS {
        let endpoint = Endpoint::default();
        let api = Api {
            takes: Duration::from_millis(20),
            ..Api::default()
        };
        let client = make(&endpoint, Duration::from_secs(60), api.clone());
        send_at_once(&client, 1).await;
        time::sleep(Duration::from_millis(200)).await;
        api.strict.store(true, Ordering::Relaxed);
        let outcome = send_at_once(&client, CALLERS).await;
        print_row(name, CALLERS, endpoint.calls() - 1, &outcome);
    }
}

async fn failures() {
    callers_heading(&format!(
        "{CALLERS} callers, and an endpoint that fails; unanswered after {TIMEOUT:?}"
    ));
    for (name, make) in MAKERS {
        let endpoint = Endpoint::failing();
        let client = make(&endpoint, Duration::from_secs(60), Api::default());
        let outcome = send_at_once(&client, CALLERS).await;
        print_row(name, CALLERS, endpoint.calls(), &outcome);
    }
}

/// The memory of a caller that waits. On one thread, because allocations are counted per thread.
fn memory() {
    heading(&format!(
        "memory of {CALLERS} callers that wait for the first token"
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let _inside = runtime.enter();
    let endpoint = Endpoint::default();
    let mut service = BearerAuthLayer::from(cache(&endpoint, LIFETIME)).layer(Api::default());
    let requests: Vec<_> = std::iter::repeat_with(request).take(CALLERS).collect();
    let itself = size_of::<Request<Full<Bytes>>>();
    let mut waiting = Vec::with_capacity(CALLERS);
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
    // The vector of requests was freed meanwhile.
    let kept = u64::try_from(cost.bytes_current).unwrap_or_default() + (CALLERS * itself) as u64;
    let each = float(kept) / size(CALLERS);
    println!(
        "a waiter takes {each:.0} bytes, of which its future {inline}, of which the request {itself}; \
         without the request {:.0}",
        each - size(itself)
    );
    drop(waiting);
    drop(endpoint);
}
