//! What a layer adds to each request while the token is good, in instructions, which don't wobble.
//!
//! `cargo bench --bench instructions`, with valgrind installed. The bench runs itself under callgrind, which counts within
//! [`measured`] only, once for N requests and once for 2N: their difference over N is what one costs. System calls don't
//! count, and under valgrind the two readings of the clock are system calls.
//!
//! `… -- --profile` says which functions the full layer spends them in.

mod support;

use std::{
    env, fs,
    hint::black_box,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::{
    contenders::{self, ADD, AUTHORIZE, BARE, FULL, Load, RETRY_ADD},
    table::{float, heading},
    work::Runner,
};

const REQUESTS: usize = 200;
const HEADERS: [usize; 3] = [2, 6, 20];
/// Says to the child that it is one, and what to run.
const CHILD: &str = "--under-callgrind";

fn main() {
    let mut args = env::args().skip(1);
    if let Some(CHILD) = args.next().as_deref() {
        let only = args.next().and_then(|it| it.parse().ok());
        return under_callgrind(only);
    }
    if Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        println!(
            "There is no valgrind here: install it, and run this again. Nothing was measured."
        );
        return;
    }
    let folder = env::temp_dir().join(format!("instructions-{}", std::process::id()));
    let outcome = fs::create_dir(&folder).and_then(|()| {
        if env::args().any(|it| it == "--profile") {
            profile(&folder)
        } else {
            compare(&folder)
        }
    });
    drop(fs::remove_dir_all(&folder));
    outcome.expect("valgrind runs this bench, and writes what it counted");
}

/// Instructions count in functions of this name only.
#[inline(never)]
fn measured(runner: &mut dyn Runner) {
    runner.run();
}

/// The little that [`write_down`] takes counts as well, or it would not be seen.
#[inline(never)]
fn measured_to_here() {
    write_down();
    // Or the call above would be a jump, which callgrind takes for another thing.
    black_box(());
}

/// As callgrind leaves this one, it writes what it has counted.
#[inline(never)]
fn write_down() {
    black_box(());
}

fn under_callgrind(only: Option<usize>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let session = runtime.block_on(contenders::session());
    let _inside = runtime.enter();
    for load in Load::ALL {
        for headers in HEADERS {
            for (number, mut runner) in load.contenders(&session, headers).into_iter().enumerate() {
                if only.is_some_and(|it| (it, 6, Load::Kilobyte) != (number, headers, load)) {
                    continue;
                }
                // What happens only once, happens now.
                for _ in 0..REQUESTS {
                    runner.fill(1);
                    runner.run();
                }
                for requests in [REQUESTS, 2 * REQUESTS] {
                    // One after the other, as callers send them: the allocator sees what it would see there.
                    for _ in 0..requests {
                        runner.fill(1);
                        measured(runner.as_mut());
                    }
                    measured_to_here();
                }
            }
        }
    }
}

fn callgrind(folder: &Path, options: &[&str], child: &[&str]) -> io::Result<PathBuf> {
    let out = folder.join("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "-q", "--toggle-collect=*measured*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args(options)
        .arg(env::current_exe()?)
        .arg(CHILD)
        .args(child)
        .status()?;
    if status.success() {
        Ok(out)
    } else {
        Err(io::Error::other(format!("valgrind: {status}")))
    }
}

/// What each turn took, from callgrind's numbered files.
fn counts(out: &Path) -> io::Result<Vec<u64>> {
    let mut counts = Vec::new();
    loop {
        let part = PathBuf::from(format!("{}.{}", out.display(), counts.len() + 1));
        if !part.exists() {
            return Ok(counts);
        }
        let text = fs::read_to_string(part)?;
        let total = text
            .lines()
            .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
            .ok_or_else(|| io::Error::other("a file of callgrind without its total"))?;
        counts.push(total);
    }
}

fn compare(folder: &Path) -> io::Result<()> {
    let out = callgrind(folder, &["--dump-after=*write_down*"], &[])?;
    let requests = float(REQUESTS as u64);
    let mut each = counts(&out)?
        .chunks_exact(2)
        .map(|pair| float(pair[1].saturating_sub(pair[0])) / requests)
        .collect::<Vec<_>>()
        .into_iter();

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
                    "callgrind counted fewer turns than there were",
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
                "added: AuthorizeLayer {:.2} × AddAuthorization; BearerAuthLayer {:.2} × (Retry + AddAuthorization)",
                added(AUTHORIZE) / added(ADD),
                added(FULL) / added(RETRY_ADD),
            );
        }
    }
    Ok(())
}

/// Prints callgrind's own account of the full layer.
fn profile(folder: &Path) -> io::Result<()> {
    let out = callgrind(folder, &[], &[&FULL.to_string()])?;
    let status = Command::new("callgrind_annotate")
        .args(["--inclusive=yes", "--threshold=99", "--auto=no"])
        .arg(out)
        .status()?;
    println!("Counted were {} requests: {status}.", 3 * REQUESTS);
    Ok(())
}
