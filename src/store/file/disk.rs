//! What the store asks of the operating system, call by call, so that tests can fail or end the process at each.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// A file system. The methods that an implementation leaves out are the operating system's.
pub(super) trait Disk: Send + Sync + 'static {
    /// Opens a file to read it, unless it is a symbolic link.
    fn open(&self, path: &Path) -> io::Result<File> {
        unfollowed(OpenOptions::new().read(true), path)
    }

    /// Opens the file to lock; creates it, for nobody else to open, if it isn't there.
    fn open_lock(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        unfollowed(private(&mut options), path)
    }

    /// Creates a file, for nobody else to read, that must not be there yet.
    fn create(&self, path: &Path) -> io::Result<File> {
        private(OpenOptions::new().write(true).create_new(true)).open(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Returns when the content of the file is on the disk.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Returns when the names in the folder are on the disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if cfg!(not(unix)) {
            return Ok(());
        }
        match File::open(folder)?.sync_all() {
            // There are file systems without this call; with them, names are as durable as they make them.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            done => done,
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The operating system's.
pub(super) struct Os;

impl Disk for Os {}

#[cfg(unix)]
fn unfollowed(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    // Without NONBLOCK, opening a pipe that somebody has put there would wait for its other end for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    options.custom_flags(flags.cast_signed()).open(path)
}

#[cfg(not(unix))]
fn unfollowed(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(io::Error::other("a symbolic link"));
    }
    options.open(path)
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}
