//! Measures the contenders of one stack against each other.
//!
//! Rounds are short, and in each round every contender sends the same number of requests, in an order that changes. So
//! other load on the machine slows all of them alike, and contenders are compared round by round. The median of these
//! ratios has an interval in which it lies with 95 % probability. Which connection lies where in memory also makes a
//! difference, so now and then all contenders are built again.

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;
use tower::BoxError;

use crate::{
    stacks::Contenders,
    support::table::{median, size},
};

/// Rounds after connecting that do not count.
const WARM_UP: usize = 2;
/// The longest latency that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// With fewer rounds there is no interval of 95 %: all may lie on one side of the median by chance.
const FEWEST: usize = 6;

/// What is measured, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Requests of each contender in one round.
    pub(crate) requests: usize,
    pub(crate) at_once: usize,
    pub(crate) time: Duration,
    /// How often the contenders are built again.
    pub(crate) rebuilds: u32,
}

/// What was measured of one contender.
pub(crate) struct Samples {
    pub(crate) name: &'static str,
    /// Microseconds of CPU time for each request, round by round.
    pub(crate) cpu: Vec<f64>,
    /// Requests a second, round by round.
    pub(crate) rate: Vec<f64>,
    /// Nanoseconds from the request to the end of the response.
    pub(crate) latency: Histogram<u64>,
}

/// Runs rounds until the time is up, and at least one that counts.
pub(crate) fn measure(
    runtime: &Runtime,
    plan: Plan,
    mut contenders: impl FnMut() -> Contenders,
) -> Result<Vec<Samples>, BoxError> {
    let mut random = fastrand::Rng::with_seed(42);
    let mut all = Vec::new();
    for _ in 0..plan.rebuilds {
        let inside = runtime.enter();
        let mut contenders = contenders();
        drop(inside);
        if all.is_empty() {
            all = contenders
                .iter()
                .map(|it| Samples::new(it.name()))
                .collect();
        }
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        let end = Instant::now() + plan.time / plan.rebuilds;
        for round in 0.. {
            if round > WARM_UP && Instant::now() >= end {
                break;
            }
            random.shuffle(&mut order);
            for &number in &order {
                let (start, cpu) = (Instant::now(), ProcessTime::now());
                let sending = contenders[number].send(plan.requests, plan.at_once);
                let latencies = runtime
                    .block_on(sending)
                    .map_err(|error| format!("{}: {error}", all[number].name))?;
                let (cpu, wall) = (cpu.elapsed(), start.elapsed());
                if round >= WARM_UP {
                    all[number].add(plan.requests, cpu, wall, &latencies);
                }
            }
        }
    }
    Ok(all)
}

impl Samples {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            cpu: Vec::new(),
            rate: Vec::new(),
            latency: Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are allowed"),
        }
    }

    fn add(&mut self, requests: usize, cpu: Duration, wall: Duration, latencies: &[Duration]) {
        self.cpu.push(cpu.as_secs_f64() * 1e6 / size(requests));
        self.rate.push(size(requests) / wall.as_secs_f64());
        for latency in latencies {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST);
            self.latency.saturating_record(nanos);
        }
    }

    /// How much CPU time this takes compared with another.
    pub(crate) fn ratio_to(&self, other: &Self) -> Estimate {
        let pairs = self.cpu.iter().zip(&other.cpu);
        Estimate::of(pairs.map(|(own, other)| own / other).collect())
    }
}

/// A median, and the interval in which it lies with 95 % probability.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    /// As in a sign test: how many values lie below the median is binomially distributed, whatever the values are.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks are small and not negative"
    )]
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        if values.len() < FEWEST {
            return Self {
                median: median(values),
                low: f64::NEG_INFINITY,
                high: f64::INFINITY,
            };
        }
        let count = size(values.len());
        let half = 0.98 * count.sqrt();
        let last = values.len() - 1;
        let low = (count / 2.0 - half).floor().max(0.0) as usize;
        let high = ((count / 2.0 + half).ceil() as usize).min(last);
        let (low, high) = (values[low], values[high]);
        Self {
            median: median(values),
            low,
            high,
        }
    }
}
