//! The file operations of the store, one method each, so that tests can make each of them fail.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::permissions::Access;

/// File operations. Those that an implementation does not override are the operating system's.
pub(super) trait FileSystem: Send + Sync + 'static {
    /// Opens a file for reading. Fails if it is a symbolic link.
    fn open(&self, path: &Path) -> io::Result<File> {
        open_without_following(OpenOptions::new().read(true), path)
    }

    /// Opens the lock file. Creates it if it is missing.
    fn open_lock(&self, path: &Path, access: Access) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_without_following(with_access(&mut options, access), path)?;
        restore_access(&file, access)?;
        Ok(file)
    }

    /// Creates a file. Fails if it exists.
    fn create(&self, path: &Path, access: Access) -> io::Result<File> {
        let file =
            with_access(OpenOptions::new().write(true).create_new(true), access).open(path)?;
        restore_access(&file, access)?;
        Ok(file)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Waits until the content of the file is on the disk.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Waits until the names in the folder are on the disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if cfg!(not(unix)) {
            return Ok(());
        }
        match File::open(folder)?.sync_all() {
            // Some file systems do not support this call. With them, names are as durable as they make them.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The file operations of the operating system.
pub(super) struct OsFileSystem;

impl FileSystem for OsFileSystem {}

#[cfg(unix)]
fn open_without_following(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    // Without NONBLOCK, opening a pipe would wait until its other end is opened.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    options.custom_flags(flags.cast_signed()).open(path)
}

#[cfg(not(unix))]
fn open_without_following(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(io::Error::other("a symbolic link"));
    }
    options.open(path)
}

#[cfg(unix)]
fn with_access(options: &mut OpenOptions, access: Access) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, access.mode())
}

/// Gives back the access that the umask of the process has removed. Access of others is not changed.
#[cfg(unix)]
fn restore_access(file: &File, access: Access) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mut permissions = file.metadata()?.permissions();
    let mode = permissions.mode() & 0o777;
    if mode & access.mode() == access.mode() {
        return Ok(());
    }
    permissions.set_mode(mode | access.mode());
    file.set_permissions(permissions)
}

#[cfg(not(unix))]
fn restore_access(_file: &File, _access: Access) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn with_access(options: &mut OpenOptions, _access: Access) -> &mut OpenOptions {
    options
}
