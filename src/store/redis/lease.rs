//! The lease of a Redis store: a key with an owner, which is renewed while it is held.

use std::fmt;

use redis::Cmd;
use tokio::{runtime::Handle, task::AbortHandle, time::sleep};

use super::{RedisStore, millis};
use crate::{
    error::TokenError,
    store::{StoreLease, StoredSession, lease_wait::Turn},
};

/// Takes the lease, or finds that it has it already: so the command can be sent again when its answer was lost.
const TAKE: &str = "\
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0";

const RENEW: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

const RELEASE: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// How many times a lease is renewed within its duration: two failures in a row don't end it.
const RENEWALS: u32 = 3;

/// The lease of a [`RedisStore`].
pub struct RedisLease {
    key: Key,
    runtime: Handle,
    renewal: Option<AbortHandle>,
    /// Nothing is there to be given back.
    over: bool,
    turn: Option<Turn>,
}

/// What is needed to keep the lease.
#[derive(Clone)]
struct Key {
    store: RedisStore,
    /// Tells this lease from all others, also from earlier ones of the same process.
    owner: String,
}

impl Key {
    async fn eval(&self, script: &str) -> Result<bool, TokenError> {
        let mut command = Cmd::new();
        command
            .arg("EVAL")
            .arg(script)
            .arg(1)
            .arg(self.store.key("lease"))
            .arg(&self.owner)
            .arg(millis(self.store.lease_duration));
        self.store.link.run(&command).await
    }

    /// Renews the lease until it is found to be somebody else's, or the task is ended.
    async fn keep(self) {
        loop {
            sleep(self.store.lease_duration / RENEWALS).await;
            match self.eval(RENEW).await {
                Ok(true) => {}
                Ok(false) => {
                    let key = self.store.key("lease");
                    tracing::warn!(key, "a lease ended before its holder was done");
                    return;
                }
                Err(error) => tracing::debug!(%error, "a lease was not renewed"),
            }
        }
    }

    async fn release(self) {
        if let Err(error) = self.eval(RELEASE).await {
            tracing::debug!(%error, "a lease was not given back, and ends by itself");
        }
    }
}

impl RedisLease {
    /// Takes the lease, unless somebody else has it.
    pub(super) async fn attempt(store: RedisStore) -> Result<Option<Self>, TokenError> {
        let owner = format!("{}-{:032x}", std::process::id(), fastrand::u128(..));
        let mut lease = Self {
            key: Key { store, owner },
            runtime: Handle::current(),
            renewal: None,
            over: false,
            turn: None,
        };
        // If the answer is lost, or nobody waits for it any more, the lease may have been taken: it is there already, so that
        // dropping it gives it back.
        if !lease.key.eval(TAKE).await? {
            lease.over = true;
            return Ok(None);
        }
        let renewal = lease.runtime.spawn(lease.key.clone().keep());
        lease.renewal = Some(renewal.abort_handle());
        Ok(Some(lease))
    }

    pub(super) fn in_turn(mut self, turn: Turn) -> Self {
        self.turn = Some(turn);
        self
    }

    /// What gives the lease back; once.
    fn end(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        let (key, turn) = (self.key.clone(), self.turn.take());
        Some(async move {
            key.release().await;
            // The next in this process asks when there is something to be had.
            drop(turn);
        })
    }
}

impl StoreLease for RedisLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        self.key.store.save(replaces, session).await
    }

    async fn release(mut self) {
        if let Some(end) = self.end() {
            // In a task, so that it is done also if nobody waits for it.
            self.runtime.spawn(end).await.ok();
        }
    }
}

impl Drop for RedisLease {
    fn drop(&mut self) {
        if let Some(end) = self.end() {
            self.runtime.spawn(end);
        }
    }
}

impl fmt::Debug for RedisLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLease")
            .field("key", &self.key.store.key("lease"))
            .finish_non_exhaustive()
    }
}
