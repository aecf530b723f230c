//! How much time and how many allocations a layer adds to each request with a fresh token.
//!
//! `cargo bench -p benches --bench overhead`. The contenders run one after the other in many rounds, so that other load on
//! the machine slows all of them alike. The results are medians. Times vary from run to run; instructions do not, and the
//! bench `instructions` counts them.

mod support;

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant, SystemTime},
};

use allocation_counter::{AllocationInfo, measure};
use support::{
    contenders::{self, ADD, ADD_TOKEN, BARE, FULL, Load, RETRY_ADD},
    table::{heading, median, size},
    work::Runner,
};
use tower_bearer::TokenCache;

/// Requests of one round: few enough to stay in the processor's cache.
const BATCH: usize = 64;
const ROUNDS: usize = 401;
/// Rounds of two threads are long enough for both to run at the same time.
const LONG_BATCH: usize = 4_096;
const LONG_ROUNDS: usize = 201;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let _inside = runtime.enter();
    let session = runtime.block_on(contenders::session());

    for load in Load::ALL {
        for headers in [2, 6, 20] {
            one_thread(&session, load, headers);
        }
    }
    two_threads(&session);
    clocks();
}

/// The part of a layer's time that the system takes: each look at a token that expires reads both clocks.
fn clocks() {
    const READINGS: usize = 100_000;
    let start = Instant::now();
    for _ in 0..READINGS {
        black_box((Instant::now(), SystemTime::now()));
    }
    let each = nanos(start.elapsed(), READINGS);
    println!("\nreading both clocks once on this machine: {each:.0} ns");
}

fn nanos(time: Duration, requests: usize) -> f64 {
    time.as_secs_f64() * 1e9 / size(requests)
}

fn round(runner: &mut dyn Runner, batch: usize) -> f64 {
    runner.fill(batch);
    let start = Instant::now();
    runner.run();
    nanos(start.elapsed(), batch)
}

fn allocations(runner: &mut dyn Runner) -> AllocationInfo {
    runner.fill(1);
    measure(|| runner.run())
}

fn one_thread(session: &TokenCache, load: Load, headers: usize) {
    let mut runners = load.contenders(session, headers);
    let mut times = vec![Vec::new(); runners.len()];
    for number in 0..ROUNDS {
        for (runner, times) in runners.iter_mut().zip(&mut times) {
            let time = round(runner.as_mut(), BATCH);
            // The first round only warms up.
            if number > 0 {
                times.push(time);
            }
        }
    }
    let times: Vec<f64> = times.into_iter().map(median).collect();
    let costs: Vec<_> = runners.iter_mut().map(|r| allocations(&mut **r)).collect();

    heading(&format!("{headers} headers, {}", load.name()));
    println!(
        "{:26}{:>9}{:>9}{:>9}{:>13}{:>15}",
        "", "ns", "added", "× bare", "allocations", "bytes at most"
    );
    for ((runner, time), cost) in runners.iter().zip(&times).zip(&costs) {
        println!(
            "{:26}{time:9.0}{:9.0}{:9.2}{:13}{:15}",
            runner.name(),
            time - times[BARE],
            time / times[BARE],
            cost.count_total - costs[BARE].count_total,
            cost.bytes_max - costs[BARE].bytes_max,
        );
    }
    let added = |which: usize| times[which] - times[BARE];
    println!(
        "added: AddTokenLayer {:.2} × AddAuthorization; BearerAuthLayer {:.2} × (Retry + AddAuthorization)",
        added(ADD_TOKEN) / added(ADD),
        added(FULL) / added(RETRY_ADD),
    );
}

/// Requests per microsecond of as many threads as there are runners, each of which has its own service.
fn together(runners: &mut [Box<dyn Runner>]) -> f64 {
    let barrier = Barrier::new(runners.len());
    thread::scope(|scope| {
        let threads: Vec<_> = runners
            .iter_mut()
            .map(|runner| {
                scope.spawn(|| {
                    runner.fill(LONG_BATCH);
                    barrier.wait();
                    let start = Instant::now();
                    runner.run();
                    1e3 / nanos(start.elapsed(), LONG_BATCH)
                })
            })
            .collect();
        let rates = threads.into_iter().map(|it| it.join().expect("it ends"));
        rates.sum()
    })
}

fn two_threads(session: &TokenCache) {
    let (load, headers) = (Load::Kilobyte, 6);
    let what = format!("{headers} headers, {}", load.name());
    let firsts = || load.contenders(session, headers).into_iter();
    heading(&format!(
        "one thread and two, each with a service of its own over one session; {what}"
    ));
    compare(firsts().zip(firsts()));
    heading(&format!(
        "one thread and two, with clones of one service; {what}"
    ));
    compare(
        firsts().filter_map(|runner| runner.with_clone().map(|with_clone| (runner, with_clone))),
    );
}

type Boxed = Box<dyn Runner>;

fn compare(pairs: impl Iterator<Item = (Boxed, Boxed)>) {
    let mut pairs: Vec<_> = pairs
        .map(|(a, b)| ([a, b], Vec::new(), Vec::new()))
        .collect();
    for _ in 0..LONG_ROUNDS {
        for (runners, alone, both) in &mut pairs {
            alone.push(together(&mut runners[..1]));
            both.push(together(runners));
        }
    }
    println!("{:26}{:>9}{:>9}{:>9}", "requests/µs", "one", "two", "×");
    for (runners, alone, both) in pairs {
        // Round by round, because the machine's speed changes over a run.
        let gain = median(
            both.iter()
                .zip(&alone)
                .map(|(two, one)| two / one)
                .collect(),
        );
        let (alone, both) = (median(alone), median(both));
        let name = runners[0].name();
        println!("{name:26}{alone:9.2}{both:9.2}{gain:9.2}");
    }
}
