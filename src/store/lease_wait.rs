//! How a store waits for a lease that is held elsewhere: it asks again, at growing intervals.
//!
//! Neither a file, nor a key of Redis, nor a row of a table notifies those that wait. A blocking wait for a lock can be neither limited nor
//! cancelled: each caller that stops waiting would leave a thread behind that takes the lock later. Within one process,
//! the clones of a store wait in a queue, and only the first of the queue asks.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::{TokenError, TokenErrorKind};

/// The default limit of waiting for a lease: more than twice the time limit of a token request.
pub(super) const LEASE_TIMEOUT: Duration = Duration::from_secs(65);

/// The queue of the callers in this process that want the lease.
#[derive(Clone, Default)]
pub(super) struct LeaseQueue(Arc<Mutex<()>>);

/// The first position in a [`LeaseQueue`]. Its owner may ask for the lease and hold it.
pub(super) type QueuePermit = OwnedMutexGuard<()>;

impl LeaseQueue {
    pub(super) async fn acquire(&self) -> QueuePermit {
        Arc::clone(&self.0).lock_owned().await
    }
}

/// The interval between two attempts to get a lease. It begins short, because most refreshes take a fraction of a second,
/// and doubles up to a limit.
///
/// Each wait is a random time from half the interval to all of it, so that processes which start together spread out.
pub(super) struct PollInterval {
    next: Duration,
    max: Duration,
}

impl PollInterval {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { next: min, max }
    }

    pub(super) async fn wait(&mut self) {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.max);
        tokio::time::sleep(wait).await;
    }
}

/// Waits for `lease`, at most for `limit`. `location` is named in the error.
pub(super) async fn with_timeout<L>(
    limit: Duration,
    location: &str,
    lease: impl Future<Output = Result<L, TokenError>>,
) -> Result<L, TokenError> {
    tokio::time::timeout(limit, lease).await.unwrap_or_else(|_| {
        let message = format!(
            "the lease {location} was not free within {limit:?}: another process is refreshing, or hangs while it holds the lease"
        );
        Err(TokenError::new(TokenErrorKind::Timeout, message))
    })
}
