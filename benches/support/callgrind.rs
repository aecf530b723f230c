//! Instructions, counted by valgrind's callgrind, under which a bench runs itself.
//!
//! They count within [`measured`] only, once for N requests and once for 2N: their difference over N is what one costs.
//! System calls don't count, and under valgrind the two readings of the clock are system calls. What allocations cost hangs
//! on the state that a program has left its heap in, so that is counted in several; told is the least, for each contender.

use std::{
    env, fs,
    hint::black_box,
    io, iter,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{table::size, work::Runner};

/// Of the shorter of the two.
const REQUESTS: usize = 100;
/// States of the heap.
const HEAPS: usize = 9;
/// All requests of one contender that count.
pub(crate) const COUNTED: usize = HEAPS * 3 * REQUESTS;
/// Says to the child that it is one.
const CHILD: &str = "--under-callgrind";

/// In the child, what [`run`] has told it.
pub(crate) fn child() -> Option<impl Iterator<Item = String>> {
    let mut args = env::args().skip(1);
    (args.next()? == CHILD).then_some(args)
}

pub(crate) fn is_installed() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok()
}

/// In the child: has the requests of one contender counted.
pub(crate) fn count(runner: &mut dyn Runner) {
    for heap in 0..HEAPS {
        let _kept = ballast(heap);
        // What happens only once, happens now.
        for _ in 0..REQUESTS {
            runner.fill(1);
            runner.run();
        }
        for requests in [REQUESTS, 2 * REQUESTS] {
            // One after the other, as callers send them: the allocator sees what it would see there.
            for _ in 0..requests {
                runner.fill(1);
                measured(runner);
            }
            measured_to_here();
        }
    }
}

/// Leaves the heap otherwise in each round, for as long as the answer is kept: without what was free in it, or with holes
/// of all sizes.
fn ballast(round: usize) -> Vec<Vec<u8>> {
    let sizes = (1..=128).map(|number| 16 * number - 8);
    let mut blocks: Vec<Vec<u8>> = sizes
        .flat_map(|size| iter::repeat_with(move || Vec::with_capacity(size)).take(7 * round))
        .collect();
    let mut keep = true;
    blocks.retain(|block| {
        black_box(block);
        keep = round.is_multiple_of(2) || !keep;
        keep
    });
    blocks
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

/// What a request cost each contender, in the order in which the child had them [counted](count).
pub(crate) fn costs() -> io::Result<Vec<f64>> {
    in_folder(|folder| {
        let out = run(folder, &["--dump-after=*write_down*"], &[])?;
        let each = |pair: &[f64]| (pair[1] - pair[0]) / size(REQUESTS);
        Ok(totals(&out)?
            .chunks_exact(2 * HEAPS)
            .map(|heaps| heaps.chunks_exact(2).map(each).fold(f64::MAX, f64::min))
            .collect())
    })
}

/// Gives a folder to what writes files, and removes it afterwards.
pub(crate) fn in_folder<T>(what: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = env::temp_dir().join(format!("callgrind-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let outcome = what(&folder);
    drop(fs::remove_dir_all(&folder));
    outcome
}

/// Runs this program under callgrind, and says where that writes.
pub(crate) fn run(folder: &Path, options: &[&str], child: &[&str]) -> io::Result<PathBuf> {
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
fn totals(out: &Path) -> io::Result<Vec<f64>> {
    let mut totals = Vec::new();
    loop {
        let part = PathBuf::from(format!("{}.{}", out.display(), totals.len() + 1));
        if !part.exists() {
            return Ok(totals);
        }
        let text = fs::read_to_string(part)?;
        let total = text
            .lines()
            .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
            .ok_or_else(|| io::Error::other("a file of callgrind without its total"))?;
        totals.push(total);
    }
}
