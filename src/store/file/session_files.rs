//! [`SessionFiles`]: the files of one session. All methods may block.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    file_system::FileSystem,
    permissions::{Access, check},
};
use crate::{
    error::{TokenError, TokenErrorKind},
    store::{
        format::{self, Encoded, MAX_LEN},
        version_mismatch,
    },
};

/// The paths of a session's files.
#[derive(Clone, Debug)]
pub(super) struct SessionFiles {
    session: PathBuf,
    /// The file that a save writes. Its name is always the same, so that killed processes leave at most one such file. Only
    /// the holder of the lock uses it.
    temporary: PathBuf,
    lock: PathBuf,
    folder: PathBuf,
    access: Access,
}

/// A lock on the lock file. It is released when dropped.
pub(super) struct FileLock(File);

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a forked child that has a copy of its descriptor would keep the lock.
        self.0.unlock().ok();
    }
}

impl SessionFiles {
    pub(super) fn new(path: &Path) -> Result<Self, TokenError> {
        let invalid = |message: String| Err(TokenError::new(TokenErrorKind::Config, message));
        let session = match std::path::absolute(path) {
            Ok(path) => path,
            Err(error) => {
                return invalid(format!(
                    "{} cannot be the path of a session: {error}",
                    path.display()
                ));
            }
        };
        if path.starts_with("~") {
            return invalid(format!(
                "{} begins with `~`, which a shell replaces and this crate does not; give the store the whole path",
                path.display()
            ));
        }
        let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let (Some(name), Some(folder), false) = (session.file_name(), session.parent(), is_folder)
        else {
            return invalid(format!(
                "{} has no file name; give the store the path of a file",
                path.display()
            ));
        };
        let beside = |suffix: &str| {
            let mut name = name.to_owned();
            name.push(OsStr::new(suffix));
            folder.join(name)
        };
        Ok(Self {
            temporary: beside(".tmp"),
            lock: beside(".lock"),
            folder: folder.to_owned(),
            session,
            access: Access::default(),
        })
    }

    pub(super) fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Returns the content of the session's file, or `None` if there is no such file in its folder.
    pub(super) fn read(&self, file_system: &dyn FileSystem) -> Result<Option<Encoded>, TokenError> {
        let file = match file_system.open(&self.session) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Without its folder no session can be saved. It is better known before a person logs in.
                return match fs::metadata(&self.folder) {
                    Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                        Err(io_error("opening", &self.session, error))
                    }
                    _ => Ok(None),
                };
            }
            Err(error) => return Err(io_error("opening", &self.session, error)),
        };
        let length = check(&file, &self.session, self.access)?;
        // Enough for all of it: a buffer that grows leaves copies of its content in memory.
        let mut bytes = Encoded::new(Vec::with_capacity(length.min(MAX_LEN) + 64));
        file.take(MAX_LEN as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| io_error("reading", &self.session, error))?;
        Ok(Some(bytes))
    }

    /// Returns the lock, or `None` if it is held elsewhere.
    pub(super) fn try_lock(
        &self,
        file_system: &dyn FileSystem,
    ) -> Result<Option<FileLock>, TokenError> {
        let file = file_system
            .open_lock(&self.lock, self.access)
            .map_err(|error| io_error("opening", &self.lock, error))?;
        // Another user who can open it can lock it, and so stop all refreshes.
        check(&file, &self.lock, self.access)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(io_error("locking", &self.lock, error)),
        }
        // The file may have been removed since it was opened. Then other processes lock another file.
        let lock = FileLock(file);
        Ok(self.is_current(&lock)?.then_some(lock))
    }

    /// Whether the locked file is still the one that other processes lock.
    pub(super) fn is_current(&self, lock: &FileLock) -> Result<bool, TokenError> {
        let failed = |error| io_error("reading the attributes of", &self.lock, error);
        let locked = lock.0.metadata().map_err(failed)?;
        let found = match fs::symlink_metadata(&self.lock) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        Ok(is_same_file(&locked, &found))
    }

    /// Replaces the session of version `replaces` by `new`. A crash at any time leaves one or the other.
    pub(super) fn save(
        &self,
        file_system: &dyn FileSystem,
        lock: &FileLock,
        replaces: u64,
        new: &[u8],
    ) -> Result<(), TokenError> {
        if !self.is_current(lock)? {
            let message = format!(
                "the lock file {} was removed or replaced while the lease was held",
                self.lock.display()
            );
            return Err(TokenError::new(TokenErrorKind::LeaseLost, message));
        }
        let stored = self.read(file_system)?;
        if stored.as_ref().is_none_or(|stored| **stored != new) {
            let version = format::version(stored.as_ref().map(|stored| stored.as_slice()), self)?;
            if version != replaces {
                return Err(version_mismatch(replaces, version));
            }
            let written = self.write_temporary(file_system, new).and_then(|()| {
                file_system
                    .rename(&self.temporary, &self.session)
                    .map_err(|error| io_error("replacing", &self.session, error))
            });
            if let Err(error) = written {
                file_system.remove(&self.temporary).ok();
                return Err(error);
            }
        }
        // A save that is repeated because this failed must sync the folder as well.
        file_system
            .sync_folder(&self.folder)
            .map_err(|error| io_error("syncing", &self.folder, error))
    }

    /// Writes and syncs `new` before it is renamed to the session's file.
    fn write_temporary(&self, file_system: &dyn FileSystem, new: &[u8]) -> Result<(), TokenError> {
        let failed = |operation| move |error| io_error(operation, &self.temporary, error);
        // A process that was killed may have left it.
        match file_system.remove(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing")(error));
            }
            _ => {}
        }
        let mut file = file_system
            .create(&self.temporary, self.access)
            .map_err(failed("creating"))?;
        file_system
            .write(&mut file, new)
            .map_err(failed("writing"))?;
        file_system.sync(&file).map_err(failed("syncing"))
    }
}

#[cfg(unix)]
fn is_same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// There is no number of a file to compare.
#[cfg(not(unix))]
fn is_same_file(_one: &fs::Metadata, _other: &fs::Metadata) -> bool {
    true
}

/// The error of a file operation, with what to do about it.
pub(super) fn io_error(operation: &str, path: &Path, error: io::Error) -> TokenError {
    let hint = match error.kind() {
        _ if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            ": it is a symbolic link, which another user may have made; give the store the path that it points to"
        }
        io::ErrorKind::PermissionDenied => {
            ": this process has no permission; it needs to read and write the file and its folder"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": no space is left",
        io::ErrorKind::ReadOnlyFilesystem => ": the file system is read-only",
        io::ErrorKind::NotFound => ": its folder does not exist; create it, or mount it",
        io::ErrorKind::NotADirectory => ": a part of its path is not a folder",
        io::ErrorKind::Unsupported => ": this file system does not support it; use a local one",
        _ => "",
    };
    let message = format!("{operation} {} failed{hint}", path.display());
    TokenError::new(TokenErrorKind::Store, message).with_source(error)
}

impl fmt::Display for SessionFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.session.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::file_system::OsFileSystem;

    #[test]
    fn a_released_lock_is_free_although_a_forked_child_has_its_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let files = SessionFiles::new(&folder.path().join("session.json")).unwrap();
        let lock = files.try_lock(&OsFileSystem).unwrap().unwrap();
        // A forked child shares the open file, as this handle does.
        let childs = lock.0.try_clone().unwrap();
        assert!(files.try_lock(&OsFileSystem).unwrap().is_none());
        drop(lock);
        assert!(files.try_lock(&OsFileSystem).unwrap().is_some());
        drop(childs);
    }
}
