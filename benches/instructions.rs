//! How many instructions a layer adds to each request with a fresh token. Unlike times, they do not vary.
//!
//! `cargo bench -p benches --bench instructions`, with valgrind installed. [`callgrind`] describes how they are counted.
//!
//! With `-- --profile` it prints the functions in which the full layer spends them.

mod support;

use std::{env, io};

use support::{
    callgrind::{self, COUNTED},
    contenders::{self, ADD, ADD_TOKEN, BARE, FULL, Load, RETRY_ADD},
    table::heading,
};

const HEADERS: [usize; 3] = [2, 6, 20];

fn main() {
    if let Some(mut args) = callgrind::child() {
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
    let outcome = if env::args().any(|it| it == "--profile") {
        profile()
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
    let mut each = callgrind::costs()?.into_iter();

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

/// Prints callgrind's profile of the full layer.
fn profile() -> io::Result<()> {
    callgrind::in_folder(|folder| {
        let out = callgrind::run(folder, &[], &[&FULL.to_string()])?;
        callgrind::annotate(&out)?;
        println!("{COUNTED} requests were counted.");
        Ok(())
    })
}
