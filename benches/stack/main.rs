//! What the layers cost in whole stacks: real clients over loopback, with a server in a process of its own.
//!
//! `cargo bench -p benches --bench stack [-- OPTIONS]` takes two minutes. It prints the CPU time of the client for each
//! request, the kernel's included, with intervals: compare ratios whose intervals do not overlap. [`sample`] describes how
//! they are measured. Two equal contenders show how large a difference is noise.
//!
//! - `--seconds N` takes about so many seconds in all. Four times as many make the intervals half as wide.
//! - `--only TEXT` runs the stacks whose names contain the text, and `--list` prints the names.
//! - `--quick` runs everything for a moment, to see that it works.
//! - `--instructions` counts instructions instead, with valgrind and one request at a time. The kernel's do not count, so
//!   differences are larger than in CPU time, but exact.
//! - `--profile NAME` prints the functions in which the contender of that name spends its instructions.

mod by_hand;
mod clients;
mod contender;
#[path = "../../examples/stacks/support/grpc.rs"]
mod grpc;
mod instructions;
mod options;
mod report;
mod run;
mod sample;
mod server;
mod stacks;
#[path = "../support/mod.rs"]
mod support;

fn main() -> Result<(), tower::BoxError> {
    run::main(&|_, _, _| Vec::new())
}
