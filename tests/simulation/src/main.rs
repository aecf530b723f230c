//! Runs a range of seeds, or prints what happens in one.

use std::{
    env,
    process::{ExitCode, exit},
    sync::Mutex,
    time::Instant,
};

use simulation_tests::{Coverage, run, run_many};

const USAGE: &str = "\
Usage: cargo run -p simulation-tests -- SEED          prints what happens in one seed
       cargo run -p simulation-tests -- FIRST..LAST   runs seeds, LAST excluded, and prints what must not happen
With `--first` after the range, it ends with the first of these.";

fn main() -> ExitCode {
    let argument = env::args().nth(1).unwrap_or_default();
    if let Ok(seed) = argument.parse() {
        let report = run(seed, true);
        print!("{}", report.log);
        return exit_code(report.violations.is_empty());
    }
    let range = argument.split_once("..");
    let range = range.and_then(|(first, last)| Some(first.parse().ok()?..last.parse().ok()?));
    let Some(range) = range else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let ends_early = env::args()
        .nth(2)
        .is_some_and(|argument| argument == "--first");
    let (begin, seeds) = (Instant::now(), range.end - range.start);
    let all = Mutex::new((Coverage::default(), 0));
    run_many(range, |report| {
        let mut all = all
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        all.0.add(&report.coverage);
        for violation in report.violations.iter().take(2) {
            println!("seed {}: {violation}", report.seed);
            if ends_early {
                exit(1);
            }
        }
        all.1 += u64::from(!report.violations.is_empty());
    });
    let (coverage, bad) = all
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("{coverage}");
    println!(
        "{seeds} seeds, {bad} with violations, {:?}",
        begin.elapsed()
    );
    exit_code(bad == 0)
}

fn exit_code(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
