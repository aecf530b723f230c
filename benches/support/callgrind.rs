//! Counts instructions with valgrind's callgrind, under which a bench runs itself.
//!
//! Only instructions in [`measured`] count, once for N requests and once for 2N. The difference divided by N is the cost of
//! one request. System calls do not count, and under valgrind reading a clock is a system call. The cost of allocations
//! depends on the state of the heap, so each contender is measured with several states, and the least count is its result.

use std::{
    env, fs,
    hint::black_box,
    io, iter,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    table::{median, size},
    work::Runner,
};

/// Requests of the shorter of the two runs.
const REQUESTS: usize = 100;
/// States of the heap.
const HEAPS: usize = 9;
/// All requests of one contender that are counted.
pub(crate) const COUNTED: usize = HEAPS * 3 * REQUESTS;
/// The argument that makes a process the child.
const CHILD: &str = "--under-callgrind";

/// In the child, its arguments.
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

/// In the child: counts the requests of one contender.
pub(crate) fn count(runner: &mut dyn Runner) {
    for heap in 0..HEAPS {
        let _kept = ballast(heap);
        // Work that happens only once is done before counting.
        for _ in 0..REQUESTS {
            runner.fill(1);
            runner.run();
        }
        for requests in [REQUESTS, 2 * REQUESTS] {
            // One request at a time, as callers send them: the allocator is used in the same order.
            for _ in 0..requests {
                runner.fill(1);
                measured(runner);
            }
            measured_to_here();
        }
    }
}

/// How often and how many requests are counted in batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counting {
    pub(crate) repeats: usize,
    /// Requests of the shorter of the two runs.
    pub(crate) requests: usize,
}

impl Counting {
    /// How many totals callgrind writes.
    pub(crate) fn totals(self) -> usize {
        2 * self.repeats
    }

    /// The cost of one request, from these totals. The median, because a late packet may come in either run of a pair.
    pub(crate) fn cost(self, totals: &[f64]) -> f64 {
        median(each(totals, self.requests).collect())
    }
}

/// In the child: counts requests that depend on a network, and so are not the same each time.
pub(crate) fn count_batches(runner: &mut dyn Runner, counting: Counting) {
    for _ in 0..counting.repeats {
        runner.fill(counting.requests);
        runner.run();
        for requests in [counting.requests, 2 * counting.requests] {
            runner.fill(requests);
            measured(runner);
            measured_to_here();
        }
    }
}

/// The cost of one request that each pair of totals shows.
fn each(totals: &[f64], requests: usize) -> impl Iterator<Item = f64> {
    let pairs = totals.chunks_exact(2);
    pairs.map(move |pair| (pair[1] - pair[0]) / size(requests))
}

/// Changes the state of the heap for as long as the result is kept: all free memory is used, or there are holes of all
/// sizes.
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

/// Instructions are counted in functions of this name only.
#[inline(never)]
fn measured(runner: &mut dyn Runner) {
    runner.run();
}

/// Calls [`write_down`] where instructions are counted: callgrind does not notice the call elsewhere.
#[inline(never)]
fn measured_to_here() {
    write_down();
    // Without this the call above would become a jump, which callgrind does not see as a call.
    black_box(());
}

/// callgrind writes its counts when this function returns.
#[inline(never)]
fn write_down() {
    black_box(());
}

/// Instructions per request of each contender, in the order in which a child with these arguments [counted](count) them.
pub(crate) fn costs(child: &[&str]) -> io::Result<Vec<f64>> {
    Ok(all_totals(child)?
        .chunks_exact(2 * HEAPS)
        .map(|heaps| each(heaps, REQUESTS).fold(f64::MAX, f64::min))
        .collect())
}

/// Everything that a child with these arguments counted, in order.
pub(crate) fn all_totals(child: &[&str]) -> io::Result<Vec<f64>> {
    in_folder(|folder| totals(&run(folder, &["--dump-after=*write_down*"], child)?))
}

/// Calls a function with a temporary folder, and removes the folder afterwards.
pub(crate) fn in_folder<T>(what: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = env::temp_dir().join(format!("callgrind-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let outcome = what(&folder);
    drop(fs::remove_dir_all(&folder));
    outcome
}

/// Runs this program under callgrind, and returns the name of its output files.
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

/// Prints the functions of an output file with what they call.
pub(crate) fn annotate(out: &Path) -> io::Result<()> {
    let status = Command::new("callgrind_annotate")
        .args(["--inclusive=yes", "--threshold=99", "--auto=no"])
        .arg(out)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("callgrind_annotate: {status}")))
    }
}

/// The totals in callgrind's numbered files.
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
            .ok_or_else(|| io::Error::other("callgrind wrote a file without a total"))?;
        totals.push(total);
    }
}
