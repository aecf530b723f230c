//! [`SqlLease`]: an owner in the row of a session, which is replaced when its time has ended.

use std::{fmt, sync::Arc};

use sqlx::SqlStr;
use tokio::{runtime::Handle, sync::Mutex, task::AbortHandle, time::sleep};

use super::{
    database::{Parameter, Stored},
    row::SessionRow,
};
use crate::{
    error::TokenError,
    store::{StoreLease, StoredSession, lease_wait::QueuePermit},
};

/// How many times a lease is extended within its duration, so that it survives two failures in a row.
const EXTENSIONS: u32 = 3;

/// The lease of a [`SqlStore`](crate::SqlStore).
pub struct SqlLease {
    owner: Owner,
    runtime: Handle,
    extension: Option<AbortHandle>,
    /// Whether there is nothing left to release.
    is_released: bool,
    permit: Option<QueuePermit>,
}

/// The row of a session and the owner of its lease.
#[derive(Clone)]
struct Owner {
    row: Arc<SessionRow>,
    /// Unique for each lease, also within a process.
    id: Arc<str>,
    /// A statement runs to its end although its caller has dropped it. The next one waits for it here: over another
    /// connection, it could overtake it.
    running: Arc<Mutex<()>>,
}

impl Owner {
    /// Runs one of the statements for leases. Returns the row of the lease if this owner has it.
    async fn run(&self, sql: &SqlStr, duration: Option<i64>) -> Result<Option<Stored>, TokenError> {
        let mut parameters = vec![self.row.key(), Parameter::Text(Arc::clone(&self.id))];
        parameters.extend(duration.map(Parameter::Number));
        let permit = Arc::clone(&self.running).lock_owned().await;
        self.row.query(sql, parameters, permit).await
    }

    async fn take(&self) -> Result<Option<Stored>, TokenError> {
        let duration = self.row.lease_millis();
        self.run(&self.row.statements.take_lease, Some(duration))
            .await
    }

    /// Whether this owner has the lease, and its time has not ended.
    async fn is_held(&self) -> Result<bool, TokenError> {
        let row = self.run(&self.row.statements.holds_lease, None).await?;
        Ok(row.is_some())
    }

    async fn extend(&self) -> Result<bool, TokenError> {
        let duration = self.row.lease_millis();
        let statement = &self.row.statements.extend_lease;
        Ok(self.run(statement, Some(duration)).await?.is_some())
    }

    /// Extends the lease until another owner has it, or until the task is aborted.
    async fn keep_extending(self) {
        loop {
            sleep(self.row.lease_duration / EXTENSIONS).await;
            match self.extend().await {
                Ok(true) => {}
                Ok(false) => {
                    let session = self.row.location();
                    tracing::warn!(session, "lease lost while it was held");
                    return;
                }
                Err(error) => tracing::debug!(%error, "lease not extended"),
            }
        }
    }

    async fn release(self) {
        if let Err(error) = self.run(&self.row.statements.release_lease, None).await {
            tracing::debug!(%error, "lease not released; it ends after its duration");
        }
    }
}

impl SqlLease {
    /// Takes the lease, and returns it with its row. `None` if another owner has it.
    pub(super) async fn try_acquire(
        row: Arc<SessionRow>,
    ) -> Result<Option<(Self, Stored)>, TokenError> {
        let id = format!("{}-{:032x}", std::process::id(), fastrand::u128(..));
        // It exists before the statement is sent: if the answer is lost or this future is dropped, the database may
        // have given the lease, and dropping this value releases it.
        let mut lease = Self {
            owner: Owner {
                row,
                id: id.into(),
                running: Arc::default(),
            },
            runtime: Handle::current(),
            extension: None,
            is_released: false,
            permit: None,
        };
        let Some(stored) = lease.owner.take().await? else {
            lease.is_released = true;
            return Ok(None);
        };
        let extension = lease.runtime.spawn(lease.owner.clone().keep_extending());
        lease.extension = Some(extension.abort_handle());
        Ok(Some((lease, stored)))
    }

    pub(super) fn with_permit(mut self, permit: QueuePermit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Saves, and releases the lease of the owner `releases` in the same statement. Returns whether that has just been done.
    async fn save_and(
        &mut self,
        replaces: u64,
        session: &StoredSession,
        releases: Arc<str>,
    ) -> Result<bool, TokenError> {
        let Owner { row, running, .. } = &self.owner;
        let permit = Arc::clone(running).lock_owned().await;
        row.save(replaces, session, releases, permit).await
    }

    /// Returns the future that releases the lease, the first time it is called.
    fn end(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if let Some(extension) = self.extension.take() {
            extension.abort();
        }
        if std::mem::replace(&mut self.is_released, true) {
            return None;
        }
        let (owner, permit) = (self.owner.clone(), self.permit.take());
        Some(async move {
            owner.release().await;
            // Only now, so that the next of the queue finds the lease released.
            drop(permit);
        })
    }
}

impl StoreLease for SqlLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let no_owner = Arc::from("");
        self.save_and(replaces, session, no_owner).await.map(drop)
    }

    async fn save_and_release(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> Result<(), TokenError> {
        let owner = Arc::clone(&self.owner.id);
        if self.save_and(replaces, session, owner).await? {
            // Nothing is left to do but to stop extending it, and to let the next of the queue ask.
            drop(self.end());
        }
        Ok(())
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.owner.is_held().await
    }

    async fn release(mut self) {
        if let Some(end) = self.end() {
            // In a task, so that it runs to its end if this future is dropped.
            self.runtime.spawn(end).await.ok();
        }
    }
}

impl Drop for SqlLease {
    fn drop(&mut self) {
        if let Some(end) = self.end() {
            self.runtime.spawn(end);
        }
    }
}

impl fmt::Debug for SqlLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlLease")
            .field("session", &self.owner.row.location())
            .finish_non_exhaustive()
    }
}
