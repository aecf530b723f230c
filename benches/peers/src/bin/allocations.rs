//! Prints the allocations that each contender adds, one per line. A program of its own, because the allocator that counts
//! would add instructions and time to the other measurements.

#[path = "../peers.rs"]
mod peers;
#[path = "../../../support/mod.rs"]
mod support;

use std::io;

use allocation_counter::measure;
use support::table::float;

fn main() -> io::Result<()> {
    let mut contenders = peers::Contenders::new()?;
    let counts = contenders.each(|runner| {
        // Work that happens only once is done before counting.
        runner.fill(1);
        runner.run();
        runner.fill(1);
        float(measure(|| runner.run()).count_total)
    });
    for count in contenders.added(&counts) {
        println!("{count}");
    }
    Ok(())
}
