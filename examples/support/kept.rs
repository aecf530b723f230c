//! A store of one's own: the session in a file, for one process at a time.
//!
//! Vendors that rotate refresh tokens take each only once. An example that forgot the new one would log its user out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tower_bearer::{Session, StoreLease, TokenError, TokenErrorKind, TokenStore};

pub(crate) struct Kept {
    path: PathBuf,
    turn: Arc<Mutex<()>>,
}

pub(crate) struct Turn {
    path: PathBuf,
    _held: OwnedMutexGuard<()>,
}

impl Kept {
    pub(crate) fn in_file(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            turn: Arc::default(),
        }
    }
}

impl TokenStore for Kept {
    type Lease = Turn;

    async fn load(&self) -> Result<Option<Session>, TokenError> {
        read(&self.path)
    }

    async fn lease(&self) -> Result<Turn, TokenError> {
        Ok(Turn {
            path: self.path.clone(),
            _held: Arc::clone(&self.turn).lock_owned().await,
        })
    }
}

impl StoreLease for Turn {
    async fn save(&mut self, replaces: u64, session: &Session) -> Result<(), TokenError> {
        if read(&self.path)?.map_or(0, |stored| stored.version()) != replaces {
            let message = "another session was saved meanwhile";
            return Err(TokenError::new(TokenErrorKind::LeaseLost, message));
        }
        write(&self.path, session).map_err(|error| failed(&self.path, error))
    }
}

fn read(path: &Path) -> Result<Option<Session>, TokenError> {
    match fs::read(path) {
        // Without serde's own words, which may quote the text.
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|_| failed(path, io::Error::other("this is no session"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

/// Beside its place first, and on the disk: whatever happens, the old session or the new one is there.
fn write(path: &Path, session: &Session) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(&serde_json::to_vec(session)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn failed(path: &Path, error: io::Error) -> TokenError {
    let message = format!("the session in {} can't be read or written", path.display());
    TokenError::new(TokenErrorKind::Store, message).with_source(error)
}
