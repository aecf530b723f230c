//! The files of one session, and what is done with them. Everything here may block.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::disk::Disk;
use crate::{
    error::{TokenError, TokenErrorKind},
    store::{
        format::{self, Encoded, LONGEST},
        lease_wait,
    },
};

/// Where a session is.
#[derive(Debug)]
pub(super) struct Place {
    session: PathBuf,
    /// What the next session is written to. It always has the same name, so that processes that were killed leave one such
    /// file and not many; only the holder of the lock touches it.
    draft: PathBuf,
    lock: PathBuf,
    folder: PathBuf,
}

/// A lock on the lock file, until dropped.
pub(super) struct Lock(File);

impl Place {
    pub(super) fn new(path: &Path) -> Result<Self, TokenError> {
        let wrong = |what: String| Err(TokenError::new(TokenErrorKind::Config, what));
        let session = match std::path::absolute(path) {
            Ok(path) => path,
            Err(error) => {
                return wrong(format!(
                    "{} is no path for a session: {error}",
                    path.display()
                ));
            }
        };
        let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let (Some(name), Some(folder), false) = (session.file_name(), session.parent(), is_folder)
        else {
            return wrong(format!("{} names no file for a session", path.display()));
        };
        let beside = |ending: &str| {
            let mut name = name.to_owned();
            name.push(OsStr::new(ending));
            folder.join(name)
        };
        Ok(Self {
            draft: beside(".tmp"),
            lock: beside(".lock"),
            folder: folder.to_owned(),
            session,
        })
    }

    /// What is stored, if anything is.
    pub(super) fn read(&self, disk: &dyn Disk) -> Result<Option<Encoded>, TokenError> {
        let file = match disk.open(&self.session) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("opening", &self.session, error)),
        };
        let length = check(&file, &self.session)?;
        // Room for all of it and for the end: a buffer that grows leaves copies behind.
        let mut bytes = Encoded::new(Vec::with_capacity(length.min(LONGEST) + 64));
        file.take(LONGEST as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed("reading", &self.session, error))?;
        Ok(Some(bytes))
    }

    /// The lock, unless somebody else has it.
    pub(super) fn try_lock(&self, disk: &dyn Disk) -> Result<Option<Lock>, TokenError> {
        let file = disk
            .open_lock(&self.lock)
            .map_err(|error| failed("opening", &self.lock, error))?;
        // Whoever else may open it may lock it, and keep everybody waiting.
        check(&file, &self.lock)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed("locking", &self.lock, error)),
        }
        // Somebody may have removed the file since it was opened: then this lock is one that nobody else will meet.
        let lock = Lock(file);
        Ok(self.is_met(&lock).then_some(lock))
    }

    /// Whether the locked file is still the one that others would lock.
    fn is_met(&self, lock: &Lock) -> bool {
        let there = fs::symlink_metadata(&self.lock);
        match (lock.0.metadata(), there) {
            #[cfg(unix)]
            (Ok(ours), Ok(there)) => {
                use std::os::unix::fs::MetadataExt;
                (ours.dev(), ours.ino()) == (there.dev(), there.ino())
            }
            #[cfg(not(unix))]
            (Ok(_), Ok(_)) => true,
            _ => false,
        }
    }

    /// Replaces the session of version `replaces` by `new`; a crash at any instant leaves the one or the other.
    pub(super) fn save(
        &self,
        disk: &dyn Disk,
        lock: &Lock,
        replaces: u64,
        new: &[u8],
    ) -> Result<(), TokenError> {
        if !self.is_met(lock) {
            let message = format!("{} was removed or replaced", self.lock.display());
            return Err(TokenError::new(TokenErrorKind::LeaseLost, message));
        }
        let stored = self.read(disk)?;
        if stored.as_ref().is_none_or(|stored| **stored != new) {
            let version = format::version(stored.as_ref().map(|stored| stored.as_slice()), self)?;
            if version != replaces {
                return Err(lease_wait::lost(replaces, version));
            }
            let outcome = self.write_draft(disk, new).and_then(|()| {
                disk.rename(&self.draft, &self.session)
                    .map_err(|error| failed("replacing", &self.session, error))
            });
            if let Err(error) = outcome {
                disk.remove(&self.draft).ok();
                return Err(error);
            }
        }
        // Also for a save that is repeated because this failed.
        disk.sync_folder(&self.folder)
            .map_err(|error| failed("syncing", &self.folder, error))
    }

    /// A file with `new` in it, on the disk before it gets the session's name.
    fn write_draft(&self, disk: &dyn Disk, new: &[u8]) -> Result<(), TokenError> {
        let failed = |doing| move |error| failed(doing, &self.draft, error);
        // Of a process that was killed.
        match disk.remove(&self.draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing")(error));
            }
            _ => {}
        }
        let mut draft = disk.create(&self.draft).map_err(failed("creating"))?;
        disk.write(&mut draft, new).map_err(failed("writing"))?;
        disk.sync(&draft).map_err(failed("syncing"))
    }
}

/// Rejects what is no file of our own, or not ours alone; gives its length.
fn check(file: &File, path: &Path) -> Result<usize, TokenError> {
    let reject = |what: String| {
        let message = format!("{} {what}; it is left as it is", path.display());
        Err(TokenError::new(TokenErrorKind::Store, message))
    };
    let found = file
        .metadata()
        .map_err(|error| failed("examining", path, error))?;
    if !found.is_file() {
        return reject("is no regular file: give the store another path".into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return reject(format!(
                "belongs to user {owner}, and this process runs as user {user}: \
                 run it as {owner}, or give the file to {user} with chown"
            ));
        }
        let mode = found.mode() & 0o777;
        if mode & 0o077 != 0 {
            return reject(format!(
                "can be used by others (its mode is {mode:03o}): if they were not meant to know the session, \
                 authorize anew; then run `chmod 600 {}`",
                path.display()
            ));
        }
    }
    Ok(usize::try_from(found.len()).unwrap_or(usize::MAX))
}

/// What was tried, what came, and what to do.
fn failed(doing: &str, path: &Path, error: io::Error) -> TokenError {
    let hint = match error.kind() {
        _ if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            ": it is a symbolic link, which others may have put there; give the store the path it leads to"
        }
        io::ErrorKind::PermissionDenied => {
            ": this process may not; it needs the right to read and write the file and its folder"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": there is no space left",
        io::ErrorKind::ReadOnlyFilesystem => ": the file system can only be read",
        io::ErrorKind::NotFound => ": its folder does not exist; create it, or mount it",
        io::ErrorKind::NotADirectory => ": a part of its path is no folder",
        io::ErrorKind::Unsupported => ": this file system cannot do that; choose a local one",
        _ => "",
    };
    let message = format!("{doing} {} failed{hint}", path.display());
    TokenError::new(TokenErrorKind::Store, message).with_source(error)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.session.display().fmt(f)
    }
}
