//! The tables.

use crate::{
    sample::{Estimate, Samples},
    stacks::{ADD, ADD_TOKEN, BARE, BY_HAND, FULL},
    support::table::{float, heading, median},
};

/// The CPU time that a layer may take, as a multiple of that with `AddAuthorization`.
const TARGET: f64 = 1.02;

/// How the layers of this crate compare in one stack.
pub(crate) struct Comparison {
    what: String,
    layer: &'static str,
    to_add: Estimate,
    to_by_hand: Estimate,
}

/// Prints what was measured of one stack.
pub(crate) fn print(what: &str, all: &[Samples]) -> Vec<Comparison> {
    let find = |name| all.iter().find(|it| it.name == name).expect("it is there");
    let (bare, add, by_hand) = (find(BARE), find(ADD), find(BY_HAND));
    heading(&format!("{what}; {} rounds", bare.cpu.len()));
    println!(
        "{:28}{:>9}{:>8}{:>28}{:>28}{:>10}{:>9}{:>9}",
        "",
        "CPU µs",
        "× bare",
        "× AddAuthorization (95 %)",
        "× by hand (95 %)",
        "req/s",
        "p50 µs",
        "p99 µs"
    );
    for one in all {
        let quantile = |q| float(one.latency.value_at_quantile(q)) / 1e3;
        println!(
            "{:28}{:9.2}{:8.3}{:>28}{:>28}{:10.0}{:9.1}{:9.1}",
            one.name,
            median(one.cpu.clone()),
            one.ratio_to(bare).median,
            interval(one.ratio_to(add)),
            interval(one.ratio_to(by_hand)),
            median(one.rate.clone()),
            quantile(0.5),
            quantile(0.99),
        );
    }
    [ADD_TOKEN, FULL]
        .map(|layer| Comparison {
            what: what.to_owned(),
            layer,
            to_add: find(layer).ratio_to(add),
            to_by_hand: find(layer).ratio_to(by_hand),
        })
        .into()
}

fn interval(it: Estimate) -> String {
    if it.low.is_infinite() {
        return format!("{:.3} (too few rounds)", it.median);
    }
    format!("{:.3} ({:.3} to {:.3})", it.median, it.low, it.high)
}

/// Prints in which stacks the targets are reached.
pub(crate) fn print_summary(all: &[Comparison]) {
    heading("CPU time a request: at most 2 % more than AddAuthorization? less than by hand?");
    for one in all {
        println!(
            "{:50}{:16} {:23} {:10}   {:23} {}",
            one.what,
            one.layer,
            interval(one.to_add),
            is_below(one.to_add, TARGET),
            interval(one.to_by_hand),
            is_below(one.to_by_hand, 1.0),
        );
    }
}

fn is_below(it: Estimate, bound: f64) -> &'static str {
    if it.high <= bound {
        "yes"
    } else if it.low > bound {
        "no"
    } else {
        "undecided"
    }
}
