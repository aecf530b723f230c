//! How many instructions a layer adds to each request with a fresh token. Unlike times, they do not vary.
//!
//! `cargo bench -p benches --bench instructions`, with valgrind installed. [`callgrind`] describes how they are counted.
//!
//! With `-- --waiters` it counts what a caller costs that waits for the first token, and with `-- --keyed` a hit of a
//! session with a key. With `-- --observed` it counts what observers and metrics cost. With `-- --profile` too, it prints the functions in which the full layer spends them.

mod support;

use std::{env, io};

use support::{
    callgrind::{self, COUNTED, Counting},
    cold,
    contenders::{self, ADD, ADD_TOKEN, BARE, FULL, Load, RETRY_ADD},
    keyed, observed,
    table::heading,
};

const HEADERS: [usize; 3] = [2, 6, 20];
/// The argument for callers that wait.
const WAITERS: &str = "--waiters";
/// The argument for sessions with a key.
const KEYED: &str = "--keyed";
/// The argument for observers and metrics.
const OBSERVED: &str = "--observed";
const COUNTING: Counting = Counting {
    repeats: 3,
    requests: 10_000,
};

fn main() {
    if let Some(mut args) = callgrind::child() {
        if env::args().any(|it| it == WAITERS) {
            return waiters_under_callgrind(args.nth(1));
        }
        if env::args().any(|it| it == KEYED) {
            return keyed_under_callgrind(args.nth(1));
        }
        if env::args().any(|it| it == OBSERVED) {
            return observed_under_callgrind();
        }
        // The one contender to run, the number of headers, and the position of the load; all of them without it.
        let mut next = || args.next().and_then(|it| it.parse::<usize>().ok());
        let only = next().map(|number| (number, next().unwrap_or(6), next().unwrap_or(1)));
        return under_callgrind(only);
    }
    if !callgrind::is_installed() {
        println!(
            "valgrind is not installed, so nothing was measured. Install it and run this again."
        );
        return;
    }
    let is_given = |arg| env::args().any(|it| it == arg);
    let is_profile = is_given("--profile");
    let outcome = if is_given(WAITERS) {
        if is_profile {
            let number = cold::FULL.to_string();
            let counted = COUNTING.repeats * 3 * COUNTING.requests;
            profile(&[WAITERS, &number], counted)
        } else {
            compare_waiters()
        }
    } else if is_given(KEYED) {
        if is_profile {
            profile(&[KEYED, &keyed::KEYED.to_string()], COUNTED)
        } else {
            compare_keyed()
        }
    } else if is_given(OBSERVED) {
        compare_observed()
    } else if is_profile {
        profile(&[&FULL.to_string()], COUNTED)
    } else {
        compare()
    };
    outcome.expect("valgrind runs this bench");
}

fn under_callgrind(only: Option<(usize, usize, usize)>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let session = runtime.block_on(contenders::session());
    let _inside = runtime.enter();
    for (position, load) in Load::ALL.into_iter().enumerate() {
        for headers in HEADERS {
            for (number, mut runner) in load.contenders(&session, headers).into_iter().enumerate() {
                if only.is_some_and(|it| it != (number, headers, position)) {
                    continue;
                }
                callgrind::count(runner.as_mut());
            }
        }
    }
}

fn compare() -> io::Result<()> {
    let mut each = callgrind::costs(&[])?.into_iter();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let session = runtime.block_on(contenders::session());
    for load in Load::ALL {
        for headers in HEADERS {
            let runners = load.contenders(&session, headers);
            let costs: Vec<f64> = each.by_ref().take(runners.len()).collect();
            if costs.len() < runners.len() {
                return Err(io::Error::other(
                    "callgrind counted fewer contenders than there are",
                ));
            }
            heading(&format!("{headers} headers, {}", load.name()));
            println!(
                "{:26}{:>13}{:>9}{:>9}",
                "", "instructions", "added", "× bare"
            );
            for (runner, cost) in runners.iter().zip(&costs) {
                println!(
                    "{:26}{cost:13.0}{:9.0}{:9.2}",
                    runner.name(),
                    cost - costs[BARE],
                    cost / costs[BARE],
                );
            }
            let added = |which: usize| costs[which] - costs[BARE];
            println!(
                "added: AddTokenLayer {:.2} × AddAuthorization; BearerAuthLayer {:.2} × (Retry + AddAuthorization)",
                added(ADD_TOKEN) / added(ADD),
                added(FULL) / added(RETRY_ADD),
            );
        }
    }
    Ok(())
}

/// All contenders for sessions with a key, or this one.
fn keyed_under_callgrind(only: Option<String>) {
    let only = only.and_then(|it| it.parse::<usize>().ok());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let groups = runtime.block_on(keyed::contenders());
    let _inside = runtime.enter();
    let runners = groups.into_iter().flat_map(|(_, runners)| runners);
    for (number, mut runner) in runners.enumerate() {
        if only.is_none_or(|it| it == number) {
            callgrind::count(runner.as_mut());
        }
    }
}

fn compare_keyed() -> io::Result<()> {
    let costs = callgrind::costs(&[KEYED])?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let groups = runtime.block_on(keyed::contenders());
    for ((name, runners), costs) in groups.iter().zip(costs.chunks_exact(keyed::GROUP)) {
        heading(&format!("6 headers, a key of type {name}"));
        println!("{:26}{:>13}{:>9}", "", "instructions", "added");
        let added = |which: usize| costs[which] - costs[keyed::BARE];
        for (number, runner) in runners.iter().enumerate() {
            let (cost, added) = (costs[number], added(number));
            println!("{:26}{cost:13.0}{added:9.0}", runner.name());
        }
        let beyond = added(keyed::KEYED) - added(keyed::HASH);
        println!(
            "keyed, without the hash: {beyond:.0} added, {:.2} × one session",
            beyond / added(keyed::ONE),
        );
    }
    Ok(())
}

fn observed_under_callgrind() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let runners = runtime.block_on(observed::contenders());
    let _inside = runtime.enter();
    for mut runner in runners {
        callgrind::count(runner.as_mut());
    }
}

fn compare_observed() -> io::Result<()> {
    let costs = callgrind::costs(&[OBSERVED])?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let runners = runtime.block_on(observed::contenders());
    heading("6 headers, no body, BearerAuthLayer with");
    println!("{:26}{:>13}{:>9}", "", "instructions", "added");
    for (runner, cost) in runners.iter().zip(&costs) {
        println!("{:26}{cost:13.0}{:9.0}", runner.name(), cost - costs[0]);
    }
    Ok(())
}

fn waiters_under_callgrind(only: Option<String>) {
    let only = only.and_then(|it| it.parse::<usize>().ok());
    for (number, mut runner) in cold::contenders().into_iter().enumerate() {
        if only.is_none_or(|it| it == number) {
            callgrind::count_batches(runner.as_mut(), COUNTING);
        }
    }
}

fn compare_waiters() -> io::Result<()> {
    let totals = callgrind::all_totals(&[WAITERS])?;
    heading(&format!(
        "{} callers and no token yet, each in a task: instructions of each",
        COUNTING.requests
    ));
    for (runner, totals) in cold::contenders()
        .iter()
        .zip(totals.chunks_exact(COUNTING.totals()))
    {
        println!("{:26}{:13.0}", runner.name(), COUNTING.cost(totals));
    }
    Ok(())
}

/// Prints callgrind's profile of one contender.
fn profile(child: &[&str], counted: usize) -> io::Result<()> {
    callgrind::in_folder(|folder| {
        let out = callgrind::run(folder, &[], child)?;
        callgrind::annotate(&out)?;
        println!("{counted} requests were counted.");
        Ok(())
    })
}
