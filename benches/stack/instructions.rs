//! Instructions of the client for each request, one request at a time. What the kernel does is not counted.

use tokio::runtime::Runtime;
use tower::BoxError;

use crate::{
    clients::Load,
    contender::Contender,
    run::{More, SCENARIOS, name},
    server::Urls,
    stacks::{ADD, BARE, BY_HAND, Parts, Stack},
    support::{
        callgrind::{self, Counting},
        contenders::session,
        table::heading,
        work::Runner,
    },
};

fn counting(stack: Stack) -> Counting {
    match stack {
        Stack::Stream => Counting {
            repeats: 3,
            requests: 3,
        },
        _ => Counting {
            repeats: 5,
            requests: 40,
        },
    }
}

fn scenarios(only: &str) -> impl Iterator<Item = (Stack, Load)> {
    SCENARIOS
        .into_iter()
        .map(|(stack, load, _)| (stack, load))
        .filter(move |(stack, load)| name(*stack, *load, 1).contains(only))
}

/// A contender that sends as many requests as were asked for.
struct Batches<'a> {
    contender: Box<dyn Contender>,
    runtime: &'a Runtime,
    requests: usize,
}

impl Runner for Batches<'_> {
    fn name(&self) -> &'static str {
        self.contender.name()
    }

    fn fill(&mut self, count: usize) {
        self.requests = count;
    }

    fn run(&mut self) {
        let sending = self.contender.send(self.requests, 1);
        self.runtime.block_on(sending).expect("the server answers");
    }
}

/// In the child: counts.
pub(crate) fn under_callgrind(
    runtime: &Runtime,
    args: impl Iterator<Item = String>,
    contenders: More<'_>,
) -> Result<(), BoxError> {
    let args: Vec<String> = args.collect();
    let [open, protected, only, profiled @ ..] = &args[..] else {
        return Err("the URLs and the stacks are missing".into());
    };
    let urls = Urls {
        open: open.clone(),
        protected: protected.clone(),
    };
    let session = runtime.block_on(session());
    let parts = Parts {
        urls: &urls,
        session: &session,
    };
    for (stack, load) in scenarios(only) {
        let inside = runtime.enter();
        let contenders = contenders(stack, load, &parts);
        drop(inside);
        for contender in contenders {
            if profiled.first().is_some_and(|it| it != contender.name()) {
                continue;
            }
            let mut batches = Batches {
                contender,
                runtime,
                requests: 0,
            };
            callgrind::count_batches(&mut batches, counting(stack));
        }
    }
    Ok(())
}

pub(crate) fn compare(
    runtime: &Runtime,
    urls: &Urls,
    only: &str,
    contenders: More<'_>,
) -> Result<(), BoxError> {
    if !callgrind::is_installed() {
        println!("valgrind is not installed, so nothing was measured.");
        return Ok(());
    }
    let totals = callgrind::all_totals(&[&urls.open, &urls.protected, only])?;
    let mut totals = &totals[..];
    let session = runtime.block_on(session());
    let parts = Parts {
        urls,
        session: &session,
    };
    for (stack, load) in scenarios(only) {
        let inside = runtime.enter();
        let contenders = contenders(stack, load, &parts);
        drop(inside);
        let mut costs = Vec::new();
        for contender in &contenders {
            let counting = counting(stack);
            let (own, rest) = totals
                .split_at_checked(counting.totals())
                .ok_or("callgrind counted fewer contenders than there are")?;
            totals = rest;
            costs.push((contender.name(), counting.cost(own)));
        }
        let find = |name| {
            costs
                .iter()
                .find(|it| it.0 == name)
                .map_or(f64::NAN, |it| it.1)
        };
        let (bare, add, by_hand) = (find(BARE), find(ADD), find(BY_HAND));
        heading(&format!("{}{}, one at a time", stack.name(), load.name()));
        println!(
            "{:28}{:>13}{:>9}{:>9}{:>20}{:>11}",
            "", "instructions", "added", "× bare", "× AddAuthorization", "× by hand"
        );
        for (name, cost) in &costs {
            println!(
                "{name:28}{cost:13.0}{:9.0}{:9.3}{:20.3}{:11.3}",
                cost - bare,
                cost / bare,
                cost / add,
                cost / by_hand,
            );
        }
    }
    Ok(())
}

/// Prints callgrind's profile of one contender.
pub(crate) fn profile(urls: &Urls, only: &str, contender: &str) -> Result<(), BoxError> {
    let requests: usize = scenarios(only)
        .map(|(stack, _)| counting(stack))
        .map(|counting| 3 * counting.requests * counting.repeats)
        .sum();
    callgrind::in_folder(|folder| {
        let child = [&*urls.open, &urls.protected, only, contender];
        let out = callgrind::run(folder, &[], &child)?;
        callgrind::annotate(&out)
    })?;
    println!("{requests} requests were counted.");
    Ok(())
}
