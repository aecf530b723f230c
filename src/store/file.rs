//! [`FileStore`]: a session in a file, for the processes of one machine.

mod file_system;
mod permissions;
mod session_files;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use self::{
    file_system::{FileSystem, OsFileSystem},
    permissions::Access,
    session_files::{FileLock, SessionFiles},
};
use super::{
    StoreLease, StoredSession, TokenStore, format,
    lease_wait::{self, LEASE_TIMEOUT, LeaseQueue, PollInterval, QueuePermit},
};
use crate::error::{TokenError, TokenErrorKind};

/// How often the lock is tried: at first, and when it is held for long.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(2);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Keeps a session in a file, which the processes of one machine share.
///
/// The session is JSON in the file `<path>`, see [`StoredSession`]. Next to it is `<path>.lock`, on which the operating
/// system holds a lock while a lease is held. A save writes `<path>.tmp`. If a process is killed during a save, that file
/// stays, and the next save removes it. Do not remove the lock file while processes run: it is noticed, but it can cost one
/// of them a refresh.
///
/// - **Durability.** A save writes `<path>.tmp`, syncs it, renames it to `<path>` and syncs the folder. A crash or a power
///   cut at any time leaves the old session or the new one. If the caller drops the save, it still runs to its end, and the
///   lease ends after it.
/// - **Permissions.** Files are created with mode 0600. A file is rejected if others than its owner may read or write it, if
///   it belongs to another user, or if it is a symbolic link. [`allow_group_access`](FileStore::allow_group_access) lets a
///   group share it. Only trusted users may have write access to the folder. Symbolic links on the path to the folder are
///   followed.
/// - **Other content.** A file that is empty, incomplete, not a session or of a newer format is an error that says which. It
///   is never overwritten. Remove it to begin a new session.
/// - **Waiting.** All file access runs on Tokio's blocking threads. The lock is tried at growing intervals of 2 to 100 ms, so
///   that waiting has a time limit and can be dropped, which leaves no lock behind. The kernel releases the lock of a
///   process that dies.
/// - **Notifications.** There are none. A process notices the login of another one when it reads the file next: before its
///   next refresh, after a rejection, or within 10 seconds if its own session is dead and a caller wants a token.
///
/// Clones, and stores of the same path in this or other processes, share the session. Locks work on local file systems, and
/// on network file systems that support them, such as NFS 4. Where they do not work, [`lease`](TokenStore::lease) returns an
/// error that says so. For processes on several hosts, use `RedisStore` or `PostgresStore`.
///
/// On systems other than Unix, files get the permissions of their folder, permissions and owners are not checked, and the
/// folder is not synced.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{FileStore, TokenStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("session.json");
/// let store = FileStore::new(path)?.lease_timeout(Duration::from_secs(10));
/// assert!(store.load().await?.is_none());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FileStore {
    files: Arc<SessionFiles>,
    file_system: Arc<dyn FileSystem>,
    queue: LeaseQueue,
    lease_timeout: Duration,
}

impl FileStore {
    /// Makes a store in the file `path`. The file need not exist yet, but its folder must, when the store is used: see
    /// [`std::fs::create_dir_all`].
    ///
    /// A relative path starts at the current folder of this call. Nothing is read or written yet.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `path` has no file name, or begins with `~`.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, TokenError> {
        Ok(Self {
            files: Arc::new(SessionFiles::new(path.as_ref())?),
            file_system: Arc::new(OsFileSystem),
            queue: LeaseQueue::default(),
            lease_timeout: LEASE_TIMEOUT,
        })
    }

    /// Sets how long to wait for a lease that others hold. Default: 65 seconds.
    ///
    /// Set it longer than the slowest refresh, which takes twice the time limit of the token endpoint.
    #[must_use]
    pub fn lease_timeout(self, lease_timeout: Duration) -> Self {
        Self {
            lease_timeout,
            ..self
        }
    }

    /// Sets whether the group of the files may read and write them. Default: no.
    ///
    /// It is for a volume that processes of several users share through a group, as `fsGroup` in Kubernetes makes it. Files
    /// are created with mode 0660, whatever the umask is. A file of another user is accepted if this process is in the group
    /// of the file. Access of all users is never accepted.
    ///
    /// All members of the group have the session. New files get the group of the folder if it has the setgid bit, which
    /// `fsGroup` sets, and the group of the process otherwise. It changes nothing on systems other than Unix.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::FileStore;
    ///
    /// let store = FileStore::new("/var/lib/invoices/session.json")?.allow_group_access(true);
    /// # let _ = store;
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    #[must_use]
    pub fn allow_group_access(self, allow: bool) -> Self {
        let access = if allow { Access::Group } else { Access::Owner };
        Self {
            files: Arc::new(Arc::unwrap_or_clone(self.files).with_access(access)),
            ..self
        }
    }

    #[cfg(test)]
    fn on(self, file_system: Arc<dyn FileSystem>) -> Self {
        Self {
            file_system,
            ..self
        }
    }

    /// Waits for the lease, and calls `read` as soon as the lock is held.
    async fn wait_for_lease<T: Send + 'static>(
        &self,
        read: fn(&SessionFiles, &dyn FileSystem) -> T,
    ) -> Result<(FileLease, T), TokenError> {
        let permit = self.queue.acquire().await;
        let mut interval = PollInterval::new(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
        loop {
            let (file_system, files) = (Arc::clone(&self.file_system), Arc::clone(&self.files));
            // If the caller stops waiting, the result is dropped, and a dropped lock is released.
            let locked = blocking(move || {
                let lock = files.try_lock(&*file_system)?;
                Ok(lock.map(|lock| (lock, read(&files, &*file_system))))
            });
            if let Some((lock, content)) = locked.await? {
                let lease = FileLease {
                    file_system: Arc::clone(&self.file_system),
                    held: Arc::new(Held {
                        files: Arc::clone(&self.files),
                        lock,
                        saving: Mutex::new(()),
                        _permit: permit,
                    }),
                };
                return Ok((lease, content));
            }
            interval.wait().await;
        }
    }

    async fn lease_and<T: Send + 'static>(
        &self,
        read: fn(&SessionFiles, &dyn FileSystem) -> T,
    ) -> Result<(FileLease, T), TokenError> {
        let location = format!("on {}", self.files);
        lease_wait::with_timeout(self.lease_timeout, &location, self.wait_for_lease(read)).await
    }
}

fn load(
    files: &SessionFiles,
    file_system: &dyn FileSystem,
) -> Result<Option<StoredSession>, TokenError> {
    let stored = files.read(file_system)?;
    stored
        .map(|bytes| format::decode(&bytes, files))
        .transpose()
}

impl TokenStore for FileStore {
    type Lease = FileLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        let (file_system, files) = (Arc::clone(&self.file_system), Arc::clone(&self.files));
        blocking(move || load(&files, &*file_system)).await
    }

    async fn lease(&self) -> Result<FileLease, TokenError> {
        let (lease, ()) = self.lease_and(|_, _| ()).await?;
        Ok(lease)
    }

    async fn lease_and_load(&self) -> Result<(FileLease, Option<StoredSession>), TokenError> {
        let (lease, stored) = self.lease_and(load).await?;
        Ok((lease, stored?))
    }
}

/// The lease of a [`FileStore`].
pub struct FileLease {
    file_system: Arc<dyn FileSystem>,
    held: Arc<Held>,
}

/// The lock. It is shared with a running save, so that it is released when both the lease and the save are gone.
struct Held {
    files: Arc<SessionFiles>,
    lock: FileLock,
    /// A save runs to its end although its caller dropped it. The next save waits for it here.
    saving: Mutex<()>,
    _permit: QueuePermit,
}

impl StoreLease for FileLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let new = format::encode(session)?;
        let (file_system, held) = (Arc::clone(&self.file_system), Arc::clone(&self.held));
        blocking(move || {
            let _saving = held.saving.lock().unwrap_or_else(PoisonError::into_inner);
            held.files.save(&*file_system, &held.lock, replaces, &new)
        })
        .await
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        let held = Arc::clone(&self.held);
        blocking(move || held.files.is_current(&held.lock)).await
    }
}

/// Runs `work` on a thread where it may block. It runs to its end even if the future is dropped.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TokenError> + Send + 'static,
) -> Result<T, TokenError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|error| {
        let message = "the thread that used the file panicked, or ended with its runtime";
        Err(TokenError::new(TokenErrorKind::Store, message).with_source(error))
    })
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.files.to_string())
            .field("lease_timeout", &self.lease_timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FileLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLease")
            .field("path", &self.held.files.to_string())
            .finish_non_exhaustive()
    }
}
