//! Numbers and headings for the output.

use std::time::Duration;

/// The median; of an even number of values, the lower one of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(crate) fn heading(text: &str) {
    println!("\n{text}\n{}", "-".repeat(text.chars().count()));
}

/// A count as a float. Counts here are far below 2^53, so the conversion is exact.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// As [`float`].
pub(crate) fn size(count: usize) -> f64 {
    float(count as u64)
}
