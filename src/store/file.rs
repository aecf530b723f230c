//! [`FileStore`]: a session in a file, for the processes of one machine.

mod disk;
mod paths;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use self::{
    disk::{Disk, Os},
    paths::{Lock, Place},
};
use super::{
    StoreLease, StoredSession, TokenStore, format,
    lease_wait::{self, LEASE_TIMEOUT, Pauses, Turn, Turns},
};
use crate::error::{TokenError, TokenErrorKind};

/// How often a lock is asked for: at first, and when others hold it for long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Keeps a session in a file, which the processes of one machine share.
///
/// Beside the session `<path>` lie `<path>.lock`, on which the lease is a lock of the operating system, and, while a save
/// runs or after a process was killed in one, `<path>.tmp`, which the next save removes. The lock file stays: removing it
/// while processes run is noticed, but can cost one of them a refresh. What is stored is JSON, `{"format":1,"session":{…}}`.
///
/// - **Durable.** A save writes `<path>.tmp`, syncs it, renames it to `<path>` and syncs the folder. A crash or a power cut
///   at any instant leaves the old session or the new one. So does a caller who drops the save: it runs to its end, and
///   only then is the lease free.
/// - **Private.** Files are created with mode 0600. A file that others than its owner may read or write, that belongs to
///   another user, or that is a symbolic link, is rejected. The folder must be one in which only trusted users may write;
///   links on the way to it are followed.
/// - **Careful.** A file that is empty, torn, foreign or of a newer format is an error that says which. It is never
///   overwritten; remove it yourself to begin anew.
/// - **Polite.** All file work runs on Tokio's blocking threads. The lease is asked for, at growing intervals of 2 to
///   100 ms, so that a wait can be bounded and dropped; a dropped one leaves nothing locked. The kernel ends the lease of
///   a process that dies.
///
/// Clones, and stores of the same path in this or other processes, share the session. Locks work on local file systems,
/// and on network ones that support them (NFS 4 does); where there are none, [`lease`](TokenStore::lease) says so. For
/// processes on many hosts, `RedisStore` is the better choice.
///
/// Where the operating system is no Unix, files have the permissions that their folder gives them, nobody's are checked,
/// and the folder isn't synced.
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
/// let store = FileStore::new(path).lease_timeout(Duration::from_secs(10));
/// assert!(store.load().await?.is_none());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FileStore {
    /// A path that can't be one is told when it is used, so that building a source stays one line.
    place: Result<Arc<Place>, TokenError>,
    disk: Arc<dyn Disk>,
    turns: Turns,
    lease_timeout: Duration,
}

impl FileStore {
    /// A store in the file `path`, which need not exist yet; its folder must.
    ///
    /// A relative path is understood from the folder that is current now. Nothing is read or written yet; a `path` without
    /// a file name makes [`load`](TokenStore::load) and [`lease`](TokenStore::lease) fail with
    /// [`Config`](TokenErrorKind::Config).
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            place: Place::new(path.as_ref()).map(Arc::new),
            disk: Arc::new(Os),
            turns: Turns::default(),
            lease_timeout: LEASE_TIMEOUT,
        }
    }

    /// How long to wait for others who hold the lease (default: 65 s).
    ///
    /// It should be longer than a refresh takes at worst: the time limit of the token endpoint, twice.
    #[must_use]
    pub fn lease_timeout(self, lease_timeout: Duration) -> Self {
        Self {
            lease_timeout,
            ..self
        }
    }

    #[cfg(test)]
    fn on(self, disk: Arc<dyn Disk>) -> Self {
        Self { disk, ..self }
    }

    fn place(&self) -> Result<Arc<Place>, TokenError> {
        self.place.clone()
    }

    async fn hold(&self, place: Arc<Place>) -> Result<FileLease, TokenError> {
        let turn = self.turns.next().await;
        let mut pauses = Pauses::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let (disk, at) = (Arc::clone(&self.disk), Arc::clone(&place));
            // Who stops waiting drops what this returns, and a dropped lock is released.
            let lock = blocking(move || at.try_lock(&*disk)).await?;
            if let Some(lock) = lock {
                return Ok(FileLease {
                    disk: Arc::clone(&self.disk),
                    held: Arc::new(Held {
                        place,
                        lock,
                        saving: Mutex::new(()),
                        _turn: turn,
                    }),
                });
            }
            pauses.pause().await;
        }
    }
}

impl TokenStore for FileStore {
    type Lease = FileLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        let (disk, place) = (Arc::clone(&self.disk), self.place()?);
        blocking(move || {
            let stored = place.read(&*disk)?;
            stored
                .map(|bytes| format::decode(&bytes, &place))
                .transpose()
        })
        .await
    }

    async fn lease(&self) -> Result<FileLease, TokenError> {
        let place = self.place()?;
        let what = format!("on {place}");
        lease_wait::within(self.lease_timeout, &what, self.hold(place)).await
    }
}

/// The lease of a [`FileStore`].
pub struct FileLease {
    disk: Arc<dyn Disk>,
    held: Arc<Held>,
}

/// What is locked, until the lease and the last save under it are gone.
struct Held {
    place: Arc<Place>,
    lock: Lock,
    /// A save whose caller left still runs: the next one waits for its end.
    saving: Mutex<()>,
    _turn: Turn,
}

impl StoreLease for FileLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let new = format::encode(session)?;
        let (disk, held) = (Arc::clone(&self.disk), Arc::clone(&self.held));
        blocking(move || {
            let _alone = held.saving.lock().unwrap_or_else(PoisonError::into_inner);
            held.place.save(&*disk, &held.lock, replaces, &new)
        })
        .await
    }
}

/// Runs `work` where it may block. It runs to its end even if nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TokenError> + Send + 'static,
) -> Result<T, TokenError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let message = "the thread that used the file was ended, with its runtime or by a panic";
        Err(TokenError::new(TokenErrorKind::Store, message).with_source(error))
    })
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.as_ref().map(ToString::to_string);
        f.debug_struct("FileStore")
            .field("path", &place)
            .field("lease_timeout", &self.lease_timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FileLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLease")
            .field("path", &self.held.place.to_string())
            .finish_non_exhaustive()
    }
}
