//! Runs the bench with the contenders of all stacks, and with more if a program has more.

use tower::BoxError;

use crate::{
    clients::Load,
    instructions,
    options::Options,
    report,
    sample::{self, Plan},
    server::{self, Server},
    stacks::{Contenders, Parts, Stack},
    support::{callgrind, contenders::session},
};

/// Each stack with each load, and how many requests are sent at once.
pub(crate) const SCENARIOS: [(Stack, Load, [usize; 2]); 8] = [
    (Stack::Http1, Load::Get, [1, 32]),
    (Stack::Http1, Load::Post, [1, 32]),
    (Stack::Http2, Load::Get, [1, 32]),
    (Stack::Http2, Load::Post, [1, 32]),
    (Stack::Reqwest, Load::Get, [1, 32]),
    (Stack::Reqwest, Load::Post, [1, 32]),
    (Stack::Unary, Load::Call, [1, 32]),
    (Stack::Stream, Load::Call, [1, 8]),
];

/// Makes contenders that run beside those of a stack.
pub(crate) type More<'a> = &'a dyn Fn(Stack, Load, &Parts<'_>) -> Contenders;

pub(crate) fn main(more: More<'_>) -> Result<(), BoxError> {
    if server::is_asked_for() {
        return Ok(server::serve()?);
    }
    // One thread: then all that happens between two readings of the CPU clock belongs to the contender.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let all = |stack: Stack, load, parts: &Parts<'_>| {
        let mut contenders = stack.contenders(load, parts);
        contenders.append(&mut more(stack, load, parts));
        contenders
    };
    if let Some(args) = callgrind::child() {
        return instructions::under_callgrind(&runtime, args, &all);
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
        return instructions::compare(&runtime, &server.urls, &options.only, &all);
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
        let samples = sample::measure(&runtime, plan, || all(stack, load, &parts))?;
        comparisons.extend(report::print(&name(stack, load, at_once), &samples));
    }
    report::print_summary(&comparisons);
    Ok(())
}

pub(crate) fn name(stack: Stack, load: Load, at_once: usize) -> String {
    format!("{}{}, {at_once} at once", stack.name(), load.name())
}

/// As many as take a few milliseconds.
fn requests(stack: Stack, at_once: usize) -> usize {
    match stack {
        Stack::Stream => 2 * at_once,
        _ => (4 * at_once).max(64),
    }
}
