//! What other clients add to each request to put a fresh token on it, with the same work in one run.
//!
//! Only `BearerAuthLayer` and `Retry` can send a request again. The others are shown for how they read the token. azure_core
//! has its own request type, so it is compared with an inner service of its own.
//!
//! Instructions need valgrind; [`callgrind`] describes how they are counted. They include the allocator's, so this program
//! uses the usual one, and the program `allocations` counts allocations.

mod peers;
#[path = "../../support/mod.rs"]
mod support;

use std::{
    env, io,
    process::{Command, Stdio},
    time::Instant,
};

use peers::{Contenders, HEADERS, LOAD};
use support::{
    callgrind,
    contenders::{FULL, RETRY_ADD},
    table::{heading, median, size},
};

const BATCH: usize = 64;
const ROUNDS: usize = 401;
/// The first of the peers.
const BY_HAND: usize = FULL + 1;

fn main() -> io::Result<()> {
    let mut contenders = Contenders::new()?;
    if callgrind::child().is_some() {
        contenders.each(|runner| callgrind::count(runner.as_mut()));
        return Ok(());
    }
    let allocations = allocations()?;
    let instructions = if callgrind::is_installed() {
        Some(contenders.added(&callgrind::costs()?))
    } else {
        println!("valgrind is not installed, so instructions were not counted.");
        None
    };
    let times = times(&mut contenders);
    print(&contenders, &times, instructions.as_deref(), &allocations);
    Ok(())
}

/// Nanoseconds per request of each contender.
fn times(contenders: &mut Contenders) -> Vec<f64> {
    let mut times = vec![Vec::new(); contenders.runners.len()];
    for number in 0..ROUNDS {
        let round = contenders.each(|runner| {
            runner.fill(BATCH);
            let start = Instant::now();
            runner.run();
            start.elapsed().as_secs_f64() * 1e9 / size(BATCH)
        });
        // The first round only warms up.
        if number > 0 {
            for (times, time) in times.iter_mut().zip(round) {
                times.push(time);
            }
        }
    }
    times.into_iter().map(median).collect()
}

/// The output of the program `allocations`.
fn allocations() -> io::Result<Vec<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--bin", "allocations"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("allocations: {}", output.status)));
    }
    let text = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    Ok(text.lines().map(String::from).collect())
}

fn print(
    contenders: &Contenders,
    times: &[f64],
    instructions: Option<&[f64]>,
    allocations: &[String],
) {
    let added = contenders.added(times);
    // Without valgrind the table has no columns for instructions.
    let counted = |count: &str, ratio: &str| match instructions {
        Some(_) => format!("{count:>14}{ratio:>10}"),
        None => String::new(),
    };
    heading(&format!("{HEADERS} headers, {}", LOAD.name()));
    println!(
        "{:26}{:>8}{:>8}{}{:>13}{:>12}",
        "",
        "ns",
        "added",
        counted("instructions", "× RwLock"),
        "allocations",
        "can replay"
    );
    for (number, runner) in contenders.runners.iter().enumerate() {
        if number == BY_HAND {
            println!();
        }
        let columns = instructions.map_or(String::new(), |all| {
            let ratio = all[number] / all[BY_HAND];
            counted(&format!("{:.0}", all[number]), &format!("{ratio:.2}"))
        });
        let replays = match runner.name() {
            "BearerAuthLayer" | "Retry, cloning" | "Retry + AddAuthorization" => "yes",
            _ => "",
        };
        println!(
            "{:26}{:8.0}{:8.0}{columns}{:>13}{replays:>12}",
            runner.name(),
            times[number],
            added[number],
            allocations[number],
        );
    }
    if let Some(all) = instructions {
        let best = (BY_HAND..all.len())
            .filter(|number| contenders.bare(*number) != *number)
            .min_by(|one, other| all[*one].total_cmp(&all[*other]))
            .expect("there are peers");
        println!(
            "\ninstructions added: BearerAuthLayer {:.2} × {}, the best peer; {:.2} × (Retry + AddAuthorization)",
            all[FULL] / all[best],
            contenders.runners[best].name(),
            all[FULL] / all[RETRY_ADD],
        );
    }
}
