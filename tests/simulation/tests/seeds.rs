//! Runs the simulation.

use std::{collections::BTreeMap, fmt::Write, ops::Range, sync::Mutex};

use simulation_tests::{Coverage, SITUATIONS, run, run_many};

/// Runs seeds, fails if something did not hold, and returns how often each situation occurred.
fn check(seeds: Range<u64>) -> Coverage {
    let all = Mutex::new((Coverage::default(), BTreeMap::new()));
    run_many(seeds, |report| {
        let mut all = all.lock().unwrap();
        all.0.add(&report.coverage);
        if let Some(first) = report.violations.first() {
            all.1.insert(report.seed, first.clone());
        }
    });
    let (coverage, violations) = all.into_inner().unwrap();
    let mut text = String::new();
    for (seed, first) in &violations {
        writeln!(text, "seed {seed}: {first}").unwrap();
    }
    assert!(
        violations.is_empty(),
        "{text}`cargo run -p simulation-tests -- SEED` prints what happens in one seed"
    );
    coverage
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..200 {
        let (first, second) = (run(seed, false), run(seed, false));
        assert!(first.log.lines().count() > 20, "seed {seed}");
        // Not `assert_eq!`: the logs are long.
        let difference = first.log.lines().zip(second.log.lines());
        let difference = difference.clone().find(|(first, second)| first != second);
        assert!(
            difference.is_none() && first.log.len() == second.log.len(),
            "seed {seed}: {difference:?}"
        );
    }
}

#[test]
fn two_seeds_differ() {
    assert_ne!(run(1, false).log, run(2, false).log);
}

#[test]
fn two_hundred_seeds_break_no_promise() {
    check(0..200);
}

#[test]
#[ignore = "needs an optimized build: cargo test --profile simulation -p simulation-tests -- --ignored"]
fn ten_thousand_seeds_break_no_promise_and_reach_each_situation() {
    let coverage = check(0..10_000);
    println!("{coverage}");
    for situation in SITUATIONS {
        assert!(coverage.get(situation) > 0, "never occurred: {situation}");
    }
}
