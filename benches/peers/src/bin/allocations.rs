//! What each contender adds in allocations, a line each: apart from the rest, because an allocator that counts takes
//! instructions and time of all who allocate.

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
        // What happens only once, happens now.
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
