//! How a lease is waited for that others hold: by asking again, since neither a file nor a key calls back.
//!
//! A blocking wait for a lock would be simpler, but can be neither bounded nor cancelled: each caller who gave up would
//! leave a thread behind that takes the lock one day. Within one process nobody asks in vain: the handles of a store
//! queue for one turn, and only its owner asks.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::{TokenError, TokenErrorKind};

/// How long a lease is waited for, unless a store is told otherwise: longer than a token endpoint has for an answer, twice.
pub(super) const LEASE_TIMEOUT: Duration = Duration::from_secs(65);

/// The queue of those in this process who want the lease.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<()>>);

/// The right to ask for the lease, and to hold it.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Turns {
    pub(super) async fn next(&self) -> Turn {
        Arc::clone(&self.0).lock_owned().await
    }
}

/// Pauses that begin short, since most refreshes take a fraction of a second, and double up to a limit.
///
/// Their length is random, from half to the whole, so that processes which began together don't go on together.
pub(super) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    pub(super) async fn pause(&mut self) {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(pause).await;
    }
}

/// Waits for a lease no longer than `limit`.
pub(super) async fn within<L>(
    limit: Duration,
    what: &str,
    lease: impl Future<Output = Result<L, TokenError>>,
) -> Result<L, TokenError> {
    tokio::time::timeout(limit, lease).await.unwrap_or_else(|_| {
        let message = format!(
            "the lease {what} was not to be had within {limit:?}: somebody else is refreshing, or stuck at it"
        );
        Err(TokenError::new(TokenErrorKind::Timeout, message))
    })
}

/// A save came too late.
pub(super) fn lost(replaces: u64, stored: u64) -> TokenError {
    let message =
        format!("version {replaces} was to be replaced, but by now version {stored} is stored");
    TokenError::new(TokenErrorKind::LeaseLost, message)
}
