//! [`RedisLease`]: a key with an owner, whose time to live is extended while the lease is held.

use std::{fmt, sync::Arc};

use redis::{Cmd, FromRedisValue};
use tokio::{runtime::Handle, sync::Mutex, task::AbortHandle, time::sleep};

use super::{RedisStore, millis, session::Known};
use crate::{
    error::TokenError,
    store::{StoreLease, StoredSession, format::Encoded, lease_wait::QueuePermit},
};

/// Takes the lease, and reads the session KEYS[2]. Succeeds if this owner has it already, so that the command can be sent
/// again.
const ACQUIRE: &str = "\
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {0, false}
end
return {1, redis.call('GET', KEYS[2])}";

/// Extends the lease. Takes it again if it has ended and no other owner has it, as after an outage of Redis. Then it has
/// another value, because another owner may have had it meanwhile: see `is_owner`.
const EXTEND: &str = "\
local owner = redis.call('GET', KEYS[1])
if not owner then
  redis.call('SET', KEYS[1], ARGV[1] .. '+', 'PX', ARGV[2])
  return 1
end
if owner ~= ARGV[1] and owner ~= ARGV[1] .. '+' then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

const RELEASE: &str = "\
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] and owner ~= ARGV[1] .. '+' then return 0 end
return redis.call('DEL', KEYS[1])";

/// How many times a lease is extended within its duration, so that it survives two failures in a row.
const EXTENSIONS: u32 = 3;

/// The lease of a [`RedisStore`].
pub struct RedisLease {
    key: LeaseKey,
    runtime: Handle,
    extension: Option<AbortHandle>,
    /// Whether there is nothing left to release.
    is_released: bool,
    permit: Option<QueuePermit>,
    /// What is stored, as this lease has last seen it.
    known: Option<Known>,
}

/// The key of a lease and its owner.
#[derive(Clone)]
struct LeaseKey {
    store: RedisStore,
    /// Unique for each lease, also within a process.
    owner: String,
    /// Held while the lease is extended, and while a save may release it. An extension that came after the release would
    /// take the lease again, and nothing would release it.
    changing: Arc<Mutex<()>>,
}

impl LeaseKey {
    /// Runs one of the scripts above.
    async fn eval<T: FromRedisValue>(&self, script: &str) -> Result<T, TokenError> {
        let mut command = Cmd::new();
        command
            .arg("EVAL")
            .arg(script)
            .arg(2)
            .arg(self.store.key("lease"))
            .arg(self.store.key("session"))
            .arg(&self.owner)
            .arg(millis(self.store.lease_duration));
        self.store.run(&command).await
    }

    /// Whether Redis has the lease of this owner, and has had it all the time. It works when Redis cannot write.
    async fn is_owner(&self) -> Result<bool, TokenError> {
        let mut get = redis::cmd("GET");
        get.arg(self.store.key("lease"));
        let owner: Option<String> = self.store.run(&get).await?;
        Ok(owner.is_some_and(|owner| owner == self.owner))
    }

    /// Extends the lease. Returns whether this owner has it.
    async fn extend(&self) -> Result<bool, TokenError> {
        let _changing = self.changing.lock().await;
        self.eval(EXTEND).await
    }

    /// Extends the lease until another owner has it, or until the task is aborted.
    async fn keep_extending(self) {
        loop {
            sleep(self.store.lease_duration / EXTENSIONS).await;
            match self.extend().await {
                Ok(true) => {}
                Ok(false) => {
                    let key = self.store.key("lease");
                    tracing::warn!(key, "lease lost while it was held");
                    return;
                }
                Err(error) => tracing::debug!(%error, "lease not extended"),
            }
        }
    }

    async fn release(self) {
        if let Err(error) = self.eval::<bool>(RELEASE).await {
            tracing::debug!(%error, "lease not released; it ends after its duration");
        }
    }
}

impl RedisLease {
    /// Takes the lease, and returns it with what is stored. `None` if another owner has it.
    pub(super) async fn try_acquire(
        store: RedisStore,
    ) -> Result<Option<(Self, Option<Encoded>)>, TokenError> {
        let owner = format!("{}-{:032x}", std::process::id(), fastrand::u128(..));
        // It exists before the command is sent: if the answer is lost or this future is dropped, Redis may have given the
        // lease, and dropping this value releases it.
        let mut lease = Self {
            key: LeaseKey {
                store,
                owner,
                changing: Arc::default(),
            },
            runtime: Handle::current(),
            extension: None,
            is_released: false,
            permit: None,
            known: None,
        };
        let (is_taken, stored): (bool, Option<Vec<u8>>) = lease.key.eval(ACQUIRE).await?;
        if !is_taken {
            lease.is_released = true;
            return Ok(None);
        }
        let extension = lease.runtime.spawn(lease.key.clone().keep_extending());
        lease.extension = Some(extension.abort_handle());
        Ok(Some((lease, stored.map(Encoded::new))))
    }

    pub(super) fn with_permit(mut self, permit: QueuePermit) -> Self {
        self.permit = Some(permit);
        self
    }

    pub(super) fn with_known(mut self, known: Known) -> Self {
        self.known = Some(known);
        self
    }

    /// Returns the future that releases the lease, the first time it is called.
    fn end(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if let Some(extension) = self.extension.take() {
            extension.abort();
        }
        if std::mem::replace(&mut self.is_released, true) {
            return None;
        }
        let (key, permit) = (self.key.clone(), self.permit.take());
        Some(async move {
            key.release().await;
            // Only now, so that the next of the queue finds the lease released.
            drop(permit);
        })
    }
}

impl StoreLease for RedisLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let saved = self.key.store.save(&mut self.known, replaces, session, "");
        saved.await.map(drop)
    }

    async fn save_and_release(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> Result<(), TokenError> {
        let LeaseKey {
            store,
            owner,
            changing,
        } = self.key.clone();
        let _changing = changing.lock().await;
        let saved = store.save(&mut self.known, replaces, session, &owner);
        if saved.await? {
            // Nothing is left to do but to stop extending it, and to let the next of the queue ask.
            drop(self.end());
        }
        Ok(())
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.key.is_owner().await
    }

    async fn release(mut self) {
        if let Some(end) = self.end() {
            // In a task, so that it runs to its end if this future is dropped.
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
