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

/// The situations that must occur in 10,000 seeds.
pub const SITUATIONS: &[&str] = &[
    "access tokens revoked",
    "caller got a transient error",
    "caller got the API's rejection",
    "caller must log in again",
    "caller stopped waiting",
    "clock stepped",
    "crash after a save",
    "crash at any time",
    "crash before a release",
    "crash before a save",
    "crash between mark and token request",
    "crash between token response and save",
    "dead credential saved",
    "delayed message",
    "exchange tokens ended by the server",
    "failover lost a lease",
    "failover lost a write",
    "fenced save",
    "machine suspended",
    "mark over a mark",
    "new login after the end",
    "new login",
    "no lease in time",
    "page of a gateway in place of a token request",
    "partition",
    "process closed in order",
    "process started",
    "request delivered twice",
    "request into a partition",
    "request lost",
    "request served with an adopted token",
    "request served",
    "request with a token that is not valid",
    "reset",
    "response lost after a rotation",
    "revocation saved",
    "rotation hidden by a page of a gateway",
    "sent again at once",
    "sent again: a gateway has answered",
    "sent again: a process died before it saved that it is dead",
    "sent again: a process died before it saved the successor",
    "sent again: a process was held up longer than its lease lasts",
    "sent again: it was not replaced",
    "sent again: it was refused",
    "sent again: no response came",
    "sent again: reset",
    "sent again: the lease of the first process has lapsed",
    "sent again: the process that sent it has died",
    "sent again: the store has lost the lease of the first process",
    "sent again: the store could not save that it is dead",
    "sent again: the store has lost the save",
    "server down",
    "session ended by reuse",
    "session revoked",
    "session saved in the background",
    "sessions ended by the server",
    "store command failed",
    "store down",
    "store full",
    "store slow",
    "suspension at any time",
    "suspension between mark and token request",
    "token request refused",
    "token request",
    "token response lost",
    "valid token rejected",
];
