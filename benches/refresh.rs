//! What callers feel while tokens change: latency under an open loop, and storms.
//!
//! `cargo bench --bench refresh [-- path.svg]`, in a minute and a half; the plot goes to `target/refresh.svg` unless a
//! path is given. The name of a part (`latencies`, `cold`, `rejections`, `failures`, `memory`) runs that part alone.
//!
//! Latencies: a thread that waits for nobody starts requests at a fixed rate, so that a caller who is held up holds up no
//! other, and everybody's waiting is counted from when his request was made. All contenders run at the same time, so that
//! whatever else the machine does falls on all alike; what is told are medians of many short turns. Storms take turns.

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

/// What the token endpoint takes.
const ENDPOINT: Duration = Duration::from_millis(50);
const LIFETIME: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_secs(5);
const TURNS: usize = 12;
/// Requests of each contender that start together, and how often: little enough that nobody waits for a processor.
const BURST: usize = 2;
const TICK: Duration = Duration::from_millis(1);
const TICKS: usize = (TURN.as_millis() / TICK.as_millis()) as usize;
const STORM: usize = 10_000;
const STORMS: usize = 9;
/// What nobody waits for.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// Whether a part was named on the command line, or none was.
fn asked_for(part: &str) -> bool {
    let mut named = env::args()
        .skip(1)
        .filter(|it| PARTS.contains(&it.as_str()));
    let first = named.next();
    first.is_none() || first.as_deref() == Some(part) || named.any(|it| it == part)
}

// ---- the two ends ----

/// Answers at once, or a while later; once it is strict, it rejects the first token.
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

/// Issues a new token each time, or fails, and counts.
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
                "down for the bench",
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

/// What became of one request; in microseconds.
#[derive(Clone, Copy)]
struct Sample {
    tick: usize,
    /// Since its turn began.
    made: u64,
    took: u64,
}

struct Contender {
    name: &'static str,
    make: Make,
    lifetime: Duration,
    turns: Vec<Histogram<u64>>,
    calls: u64,
    first_turn: Vec<Sample>,
}

impl Contender {
    fn new(name: &'static str, make: Make, lifetime: Duration) -> Self {
        Self {
            name,
            make,
            lifetime,
            turns: Vec::new(),
            calls: 0,
            first_turn: Vec::new(),
        }
    }

    fn record(&mut self, samples: Vec<Sample>) {
        let mut turn = Histogram::new(3).expect("three digits are possible");
        for sample in &samples {
            let recorded = turn.record(sample.took);
            recorded.expect("the histogram grows as it must");
        }
        self.turns.push(turn);
        if self.first_turn.is_empty() {
            self.first_turn = samples;
        }
    }

    /// In milliseconds, of each turn.
    fn at(&self, part: f64) -> impl Iterator<Item = f64> {
        let at = move |turn: &Histogram<u64>| float(turn.value_at_quantile(part)) / 1e3;
        self.turns.iter().map(at)
    }

    fn median(&self, part: f64) -> f64 {
        median(self.at(part).collect())
    }
}

/// How much slower than with a lasting token a request was that began at the same tick, in microseconds: whatever else
/// the machine did fell on both, and so the tails of the two directions differ by what refreshes do.
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

    fn tell(name: &str, mut differences: Vec<i64>) {
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

/// One turn of all.
async fn turn(contenders: &mut [Contender], differences: &mut Differences) {
    let mut clients = Vec::new();
    let mut endpoints = Vec::new();
    for contender in &*contenders {
        let endpoint = Endpoint::default();
        let client = (contender.make)(&endpoint, contender.lifetime, Api::default());
        // The first token is another bench.
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

/// An open loop of one turn: when it began, and what each client's requests took.
async fn load(clients: Vec<Client>) -> (Instant, Vec<Vec<Sample>>) {
    let runtime = Handle::current();
    let ticking = thread::spawn(move || {
        // With room for all, as growing would hold up whoever happens to be at it.
        let room = || Arc::new(Mutex::new(Vec::with_capacity(TICKS * BURST)));
        let samples: Vec<_> = clients.iter().map(|_| room()).collect();
        let model = Model::new(6, Full::new(Bytes::from_static(&[7; 1024])));
        let start = Instant::now();
        let mut due = start;
        for tick in 0..TICKS {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // Another begins each time, as the first has to wake the runtime.
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
        // Until the last has its answer.
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
        ours,
        Duration::from_secs(3_600),
    )];
    contenders.extend(MAKERS.map(|(name, make)| Contender::new(name, make, LIFETIME)));
    let mut differences = Differences::default();
    for _ in 0..TURNS {
        turn(&mut contenders, &mut differences).await;
    }

    heading(&format!(
        "{BURST} requests of each at each {TICK:?}; tokens of {LIFETIME:?} from an endpoint of {ENDPOINT:?}; \
         medians of {TURNS} turns of {TURN:?}; milliseconds",
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
            contender.turns.iter().map(Histogram::len).sum::<u64>(),
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
        "p99.9 with refreshes: {:.2} × that without; half of the turns between {:.2} and {:.2}",
        median(ratios.clone()),
        ratios[TURNS / 4],
        ratios[TURNS - 1 - TURNS / 4],
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
    Differences::tell("lasting token at the same tick", differences.all);
    Differences::tell("  of that, around refreshes", differences.refreshing);

    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/target/refresh.svg");
    let path = env::args()
        .skip(1)
        .find(|it| !it.starts_with('-') && !PARTS.contains(&it.as_str()));
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
        .build_cartesian_2d(0.0..TURN.as_secs_f64(), 0.0..80.0)?;
    chart
        .configure_mesh()
        .x_desc("seconds; tokens live for one, and the endpoint takes 50 ms for the next")
        .y_desc("milliseconds")
        .draw()?;
    // Ours last, on top.
    for (contender, colour) in contenders.iter().zip(COLOURS).rev() {
        let mut slowest = std::collections::BTreeMap::<u64, u64>::new();
        for sample in &contender.first_turn {
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

// ---- storms ----

#[derive(Default)]
struct Outcome {
    served: usize,
    rejected: usize,
    failed: usize,
    last: Duration,
}

/// Whoever has his answer counts himself. Nobody is woken for it but by the last: one who collected the answers as they
/// come would be a third at work where there are two processors.
#[derive(Default)]
struct Tally {
    served: AtomicUsize,
    rejected: AtomicUsize,
    failed: AtomicUsize,
    left: AtomicUsize,
    last: AtomicU64,
    done: sync::Notify,
}

impl Tally {
    fn count(&self, answer: &Result<Response<Empty<Bytes>>, BoxError>, took: Duration) {
        let group = match answer {
            Ok(response) if response.status() == StatusCode::OK => &self.served,
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
            served: self.served.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            last: Duration::from_micros(self.last.load(Ordering::Relaxed)),
        }
    }
}

/// Everybody at once; who has no answer in [`PATIENCE`] gets none. In a task, as servers have it that call others.
async fn storm(client: &Client, callers: usize) -> Outcome {
    let storm = tokio::spawn(unleash(client.clone(), callers));
    storm.await.expect("it ends")
}

async fn unleash(client: Client, callers: usize) -> Outcome {
    let requests: Vec<_> = std::iter::repeat_with(request).take(callers).collect();
    let tally = Arc::new(Tally {
        left: AtomicUsize::new(callers),
        ..Tally::default()
    });
    let mut storm = Vec::with_capacity(callers);
    let start = Instant::now();
    for request in requests {
        let (client, tally) = (client.clone(), Arc::clone(&tally));
        storm.push(tokio::spawn(async move {
            let answer = client.oneshot(request).await;
            tally.count(&answer, start.elapsed());
        }));
    }
    // One timer for all: ten thousand would be a part of what is measured.
    let _some_may_be_left = time::timeout(PATIENCE, tally.done.notified()).await;
    let outcome = tally.outcome();
    for caller in storm {
        caller.abort();
        let _aborted = caller.await;
    }
    outcome
}

fn tell(name: &str, callers: usize, calls: u64, outcome: &Outcome) {
    let Outcome {
        served,
        rejected,
        failed,
        last,
    } = outcome;
    let unanswered = callers - served - rejected - failed;
    println!(
        "{name:26}{calls:8}{served:9}{rejected:9}{failed:9}{unanswered:12}{:14.1}",
        millis(*last)
    );
}

fn storm_heading(text: &str) {
    heading(text);
    println!(
        "{:26}{:>8}{:>9}{:>9}{:>9}{:>12}{:>14}",
        "", "tokens", "served", "rejected", "failed", "unanswered", "last after ms"
    );
}

async fn cold() {
    storm_heading(&format!(
        "{STORM} callers and no token yet; the endpoint takes {ENDPOINT:?}; the median of {STORMS} storms, and the best"
    ));
    let mut contenders: Vec<_> = [("no token, but a timer", timers as Make)]
        .into_iter()
        .chain(MAKERS)
        .map(|(name, make)| (name, make, Vec::new()))
        .collect();
    for _ in 0..STORMS {
        for (_, make, storms) in &mut contenders {
            let endpoint = Endpoint::default();
            let client = make(&endpoint, Duration::from_secs(60), Api::default());
            let outcome = storm(&client, STORM).await;
            storms.push((endpoint.calls(), outcome));
        }
    }
    for (name, _, mut storms) in contenders {
        storms.sort_by_key(|(_, outcome)| outcome.last);
        let best = millis(storms[0].1.last);
        let (calls, outcome) = &storms[STORMS / 2];
        tell(name, STORM, *calls, outcome);
        println!("{:74}{best:14.1}", "");
    }
}

async fn rejections() {
    storm_heading(&format!(
        "{STORM} callers are rejected one token, 20 ms after they sent it"
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
