//! How often each situation occurred.

use std::{collections::BTreeMap, fmt};

/// Counts of situations, by name.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn count(&mut self, situation: &'static str) {
        *self.0.entry(situation).or_default() += 1;
    }

    /// How often this situation occurred.
    pub fn get(&self, situation: &str) -> u64 {
        self.0.get(situation).copied().unwrap_or_default()
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.0 {
            writeln!(f, "{count:>12}  {name}")?;
        }
        Ok(())
    }
}

/// The situations that must occur in the seeds that are always run.
pub const SITUATIONS: &[&str] = &[];
