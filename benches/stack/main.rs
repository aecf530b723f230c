//! What the layers cost in whole stacks: real clients over loopback, with a server in a process of its own.
//!
//! `cargo bench -p benches --bench stack [-- OPTIONS]` takes two minutes. It prints the CPU time of the client for each
//! request, the kernel's included, with intervals: compare ratios whose intervals do not overlap. [`sample`] describes how
//! they are measured. Two equal contenders show how large a difference is noise.
//!
//! - `--seconds N` takes about so many seconds in all. Four times as many make the intervals half as wide.
//! - `--only TEXT` runs the stacks whose names contain the text, and `--list` prints the names.
//! - `--quick` runs everything for a moment, to see that it works.
//! - `--instructions` counts instructions instead, with valgrind and one request at a time. The kernel's do not count, so
//!   differences are larger than in CPU time, but exact.
//! - `--profile NAME` prints the functions in which the contender of that name spends its instructions.

mod by_hand;
mod clients;
mod contender;
#[path = "../../examples/stacks/support/grpc.rs"]
mod grpc;
mod instructions;
mod options;
mod report;
mod sample;
mod server;
mod stacks;
#[path = "../support/mod.rs"]
mod support;

use clients::Load;
use options::Options;
use sample::Plan;
use server::Server;
use stacks::{Parts, Stack};
use support::{callgrind, contenders::session};
use tower::BoxError;

/// Each stack with each load, and how many requests are sent at once.
const SCENARIOS: [(Stack, Load, [usize; 2]); 8] = [
    (Stack::Http1, Load::Get, [1, 32]),
    (Stack::Http1, Load::Post, [1, 32]),
    (Stack::Http2, Load::Get, [1, 32]),
    (Stack::Http2, Load::Post, [1, 32]),
    (Stack::Reqwest, Load::Get, [1, 32]),
    (Stack::Reqwest, Load::Post, [1, 32]),
    (Stack::Unary, Load::Call, [1, 32]),
    (Stack::Stream, Load::Call, [1, 8]),
];

fn main() -> Result<(), BoxError> {
    if server::is_asked_for() {
        return Ok(server::serve()?);
    }
    // One thread: then all that happens between two readings of the CPU clock belongs to the contender.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Some(args) = callgrind::child() {
        return instructions::under_callgrind(&runtime, args);
    }
    let options = Options::read()?;
    let scenarios: Vec<_> = SCENARIOS
        .into_iter()
        .flat_map(|(stack, load, at_once)| at_once.map(|at_once| (stack, load, at_once)))
        .filter(|(stack, load, at_once)| name(*stack, *load, *at_once).contains(&options.only))
        .collect();
    if options.list {
        for (stack, load, at_once) in scenarios {
            println!("{}", name(stack, load, at_once));
        }
        return Ok(());
    }
    let server = Server::start()?;
    if options.instructions {
        return instructions::compare(&runtime, &server.urls, &options.only);
    }
    if let Some(contender) = options.profile {
        return instructions::profile(&server.urls, &options.only, &contender);
    }

    let session = runtime.block_on(session());
    let parts = Parts {
        urls: &server.urls,
        session: &session,
    };
    let count = u32::try_from(scenarios.len().max(1))?;
    let mut comparisons = Vec::new();
    for (stack, load, at_once) in scenarios {
        let plan = Plan {
            requests: requests(stack, at_once),
            at_once,
            time: options.time / count,
            rebuilds: options.rebuilds,
        };
        let samples = sample::measure(&runtime, plan, || stack.contenders(load, &parts))?;
        comparisons.extend(report::print(&name(stack, load, at_once), &samples));
    }
    report::print_summary(&comparisons);
    Ok(())
}

fn name(stack: Stack, load: Load, at_once: usize) -> String {
    format!("{}{}, {at_once} at once", stack.name(), load.name())
}

/// As many as take a few milliseconds.
fn requests(stack: Stack, at_once: usize) -> usize {
    match stack {
        Stack::Stream => 2 * at_once,
        _ => (4 * at_once).max(64),
    }
}
