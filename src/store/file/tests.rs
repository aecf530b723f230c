//! An error, a killed process and a power cut, at each file operation of a save.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use tempfile::TempDir;

use super::*;
use crate::store::sample;

/// A fault at one of the operations of a save, which are counted from 0.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// One operation fails. Those after it succeed.
    Fails(usize, io::ErrorKind),
    /// The process dies in an operation. A write writes half of its bytes. No operation after it does anything.
    Dies(usize),
}

/// The file operations of the operating system, with a fault at one of them.
///
/// It records what a power cut would undo: bytes that were written but not synced, and names in a folder that was not
/// synced.
#[derive(Default)]
struct FaultyFileSystem {
    fault: Option<Fault>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: Vec<&'static str>,
    unsynced: Vec<PathBuf>,
    /// The content of a path before another file was renamed to it.
    replaced: HashMap<PathBuf, Option<Vec<u8>>>,
    temporary: PathBuf,
}

impl FaultyFileSystem {
    fn with(fault: Option<Fault>) -> Arc<Self> {
        Arc::new(Self {
            fault,
            ..Self::default()
        })
    }

    fn call(&self, name: &'static str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let number = state.calls.len();
        state.calls.push(name);
        match self.fault {
            Some(Fault::Fails(at, kind)) if number == at => Err(kind.into()),
            Some(Fault::Dies(at)) if number >= at => Err(io::Error::other("dead")),
            _ => Ok(()),
        }
    }

    fn calls(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Undoes what a power cut may undo.
    fn cut_power(&self) {
        let state = std::mem::take(&mut *self.state.lock().unwrap());
        for path in state.unsynced {
            if path.exists() {
                fs::write(path, "").unwrap();
            }
        }
        for (path, content) in state.replaced {
            match content {
                Some(content) => fs::write(path, content).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
    }
}

impl FileSystem for FaultyFileSystem {
    fn open(&self, path: &Path) -> io::Result<File> {
        self.call("open")?;
        OsFileSystem.open(path)
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<File> {
        self.call("create")?;
        self.state.lock().unwrap().temporary = path.to_owned();
        OsFileSystem.create(path, access)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let outcome = self.call("write");
        let mut state = self.state.lock().unwrap();
        let temporary = state.temporary.clone();
        state.unsynced.push(temporary);
        if outcome.is_err() {
            file.write_all(&bytes[..bytes.len() / 2])?;
        } else {
            OsFileSystem.write(file, bytes)?;
        }
        outcome
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.call("sync")?;
        self.state.lock().unwrap().unsynced.clear();
        OsFileSystem.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename")?;
        let mut state = self.state.lock().unwrap();
        state.replaced.insert(to.to_owned(), fs::read(to).ok());
        for path in &mut state.unsynced {
            if path == from {
                to.clone_into(path);
            }
        }
        OsFileSystem.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.call("sync folder")?;
        self.state.lock().unwrap().replaced.clear();
        OsFileSystem.sync_folder(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call("remove")?;
        OsFileSystem.remove(path)
    }
}

/// All operations of a save that replaces a session.
const CALLS: [&str; 7] = [
    "open",
    "remove",
    "create",
    "write",
    "sync",
    "rename",
    "sync folder",
];

/// A folder, and a store in it with a session of version 1 or with none.
async fn folder(with_session: bool) -> (TempDir, FileStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("session.json")).unwrap();
    if with_session {
        let mut lease = store.lease().await.unwrap();
        lease.save(0, &sample(1, "old")).await.unwrap();
    }
    (folder, store)
}

async fn save(
    store: &FileStore,
    file_system: &Arc<FaultyFileSystem>,
    replaces: u64,
) -> Result<(), TokenError> {
    let store = store
        .clone()
        .on(Arc::clone(file_system) as Arc<dyn FileSystem>);
    let mut lease = store.lease().await.unwrap();
    lease.save(replaces, &sample(replaces + 1, "new")).await
}

/// The version of the loaded session, which is whole; 0 if there is none.
async fn loaded(store: &FileStore) -> u64 {
    let session = store.load().await.unwrap();
    session.map_or(0, |session| session.version())
}

#[tokio::test]
async fn a_save_syncs_the_file_before_its_name_changes_and_the_folder_after() {
    let (_folder, store) = folder(true).await;
    let file_system = FaultyFileSystem::with(None);
    save(&store, &file_system, 1).await.unwrap();
    assert_eq!(file_system.calls(), CALLS);
}

#[tokio::test]
async fn a_process_that_dies_at_any_operation_of_a_save_leaves_the_old_session_or_the_new_one() {
    for before in [0, 1] {
        for call in 0..CALLS.len() {
            let (_folder, store) = folder(before == 1).await;
            save(
                &store,
                &FaultyFileSystem::with(Some(Fault::Dies(call))),
                before,
            )
            .await
            .unwrap_err();
            let renamed = call > 5;
            assert_eq!(loaded(&store).await, before + u64::from(renamed), "{call}");
            // The next process continues from there, whatever files the dead one has left.
            let next = FaultyFileSystem::with(None);
            save(&store, &next, before + u64::from(renamed))
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_power_cut_at_any_operation_of_a_save_leaves_the_old_session_or_the_new_one() {
    for before in [0, 1] {
        for call in 0..CALLS.len() {
            let (_folder, store) = folder(before == 1).await;
            let file_system = FaultyFileSystem::with(Some(Fault::Dies(call)));
            save(&store, &file_system, before).await.unwrap_err();
            file_system.cut_power();
            assert_eq!(loaded(&store).await, before, "{call}");
        }
    }
}

#[tokio::test]
async fn a_power_cut_after_a_save_loses_nothing() {
    for before in [0, 1] {
        let (_folder, store) = folder(before == 1).await;
        let file_system = FaultyFileSystem::with(None);
        save(&store, &file_system, before).await.unwrap();
        file_system.cut_power();
        assert_eq!(loaded(&store).await, before + 1);
    }
}

#[tokio::test]
async fn a_power_cut_after_the_rename_reached_the_disk_leaves_a_whole_session() {
    // The folder may be written to the disk before it is synced. The content of the file must be there by then.
    let (_folder, store) = folder(true).await;
    let file_system = FaultyFileSystem::with(Some(Fault::Dies(6)));
    save(&store, &file_system, 1).await.unwrap_err();
    file_system.state.lock().unwrap().replaced.clear();
    file_system.cut_power();
    assert_eq!(loaded(&store).await, 2);
}

#[tokio::test]
async fn the_error_of_an_operation_is_explained_and_saving_again_succeeds() {
    let kinds = [
        (io::ErrorKind::StorageFull, "no space is left"),
        (
            io::ErrorKind::PermissionDenied,
            "this process has no permission",
        ),
        (io::ErrorKind::ReadOnlyFilesystem, "is read-only"),
        (
            io::ErrorKind::NotADirectory,
            "a part of its path is not a folder",
        ),
        (io::ErrorKind::Unsupported, "does not support it"),
        (io::ErrorKind::Other, "failed"),
    ];
    for (kind, expected) in kinds {
        for call in 0..CALLS.len() {
            let (folder, store) = folder(true).await;
            let file_system = FaultyFileSystem::with(Some(Fault::Fails(call, kind)));
            let store = store.on(file_system);
            let mut lease = store.lease().await.unwrap();
            let error = lease.save(1, &sample(2, "new")).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Store);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(std::error::Error::source(&error).is_some());
            let temporary = folder.path().join("session.json.tmp");
            assert!(
                !temporary.exists(),
                "the temporary file stayed after call {call}"
            );
            assert!((1..=2).contains(&loaded(&store).await));

            lease.save(1, &sample(2, "new")).await.unwrap();
            assert_eq!(loaded(&store).await, 2);
        }
    }
}

#[tokio::test]
async fn a_repeated_save_syncs_the_folder_that_was_not_synced() {
    let (_folder, store) = folder(true).await;
    save(&store, &FaultyFileSystem::with(Some(Fault::Dies(6))), 1)
        .await
        .unwrap_err();
    let file_system = FaultyFileSystem::with(None);
    save(&store, &file_system, 1).await.unwrap();
    assert_eq!(file_system.calls(), ["open", "sync folder"]);
}

/// Blocks in each write until the test continues it.
struct BlockingFileSystem {
    write_began: mpsc::SyncSender<()>,
    may_continue: Mutex<mpsc::Receiver<()>>,
    writing: AtomicBool,
}

impl FileSystem for BlockingFileSystem {
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        assert!(
            !self.writing.swap(true, Ordering::SeqCst),
            "two saves at once"
        );
        self.write_began.send(()).ok();
        self.may_continue.lock().unwrap().recv().ok();
        self.writing.store(false, Ordering::SeqCst);
        OsFileSystem.write(file, bytes)
    }
}

fn blocking_file_system() -> (
    Arc<BlockingFileSystem>,
    mpsc::Receiver<()>,
    mpsc::Sender<()>,
) {
    let (write_began, began) = mpsc::sync_channel(8);
    let (go, may_continue) = mpsc::channel();
    let file_system = BlockingFileSystem {
        write_began,
        may_continue: Mutex::new(may_continue),
        writing: AtomicBool::new(false),
    };
    (Arc::new(file_system), began, go)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_save_runs_to_its_end_before_the_next_lease_is_given() {
    let (folder, store) = folder(true).await;
    let (file_system, began, go) = blocking_file_system();
    let blocking = store.clone().on(file_system);
    let caller = tokio::spawn(async move {
        let mut lease = blocking.lease().await.unwrap();
        lease.save(1, &sample(2, "new")).await
    });
    began.recv().unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());

    // Like another process, this store shares nothing but the file.
    let path = folder.path().join("session.json");
    let other = FileStore::new(&path).unwrap();
    let busy = other.clone().lease_timeout(Duration::from_millis(50));
    let error = busy.lease().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert_eq!(loaded(&other).await, 1);
    go.send(()).unwrap();
    let lease = other.lease().await.unwrap();
    assert_eq!(loaded(&other).await, 2);
    drop(lease);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_waits_for_the_dropped_one_before_it() {
    let (_folder, store) = folder(true).await;
    let (file_system, began, go) = blocking_file_system();
    let mut lease = store.clone().on(file_system).lease().await.unwrap();
    let new = sample(2, "new");
    {
        let mut dropped = Box::pin(lease.save(1, &new));
        std::future::poll_fn(|cx| {
            assert!(dropped.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        began.recv().unwrap();
    }
    let again = tokio::spawn(async move { lease.save(1, &new).await });
    // If it did not wait, it would write as well.
    let watched = Duration::from_millis(50);
    assert!(began.recv_timeout(watched).is_err());
    go.send(()).unwrap();
    go.send(()).ok();
    again.await.unwrap().unwrap();
    assert_eq!(loaded(&store).await, 2);
}

/// Removes the lock file right after it was opened, once.
#[derive(Default)]
struct RemovesLockFile(AtomicBool);

impl FileSystem for RemovesLockFile {
    fn open_lock(&self, path: &Path, access: Access) -> io::Result<File> {
        let file = OsFileSystem.open_lock(path, access)?;
        if !self.0.swap(true, Ordering::SeqCst) {
            fs::remove_file(path)?;
        }
        Ok(file)
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_lock_on_a_removed_file_is_not_the_lease() {
    let (_folder, store) = folder(true).await;
    let files = &store.files;
    let removes = RemovesLockFile::default();
    assert!(files.try_lock(&removes).unwrap().is_none());
    assert!(files.try_lock(&removes).unwrap().is_some());
}

#[tokio::test]
async fn the_longest_session_is_read_back_and_a_longer_file_is_not_a_session() {
    let (folder, store) = folder(false).await;
    let session = |length| sample(1, "x").with_refresh_token("x".repeat(length));
    let rest = format::encode(&session(0)).unwrap().len();
    let mut lease = store.lease().await.unwrap();
    lease
        .save(0, &session(format::MAX_LEN - rest))
        .await
        .unwrap();
    assert_eq!(loaded(&store).await, 1);
    let path = folder.path().join("session.json");
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(b"\n").unwrap();
    let error = store.load().await.unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
}

#[tokio::test]
async fn a_lease_is_held_until_its_lock_file_is_removed() {
    let (folder, store) = folder(true).await;
    let lease = store.lease().await.unwrap();
    assert!(lease.is_held().await.unwrap());
    fs::remove_file(folder.path().join("session.json.lock")).unwrap();
    assert!(!lease.is_held().await.unwrap());
}

/// So a process with an unsaved session keeps its lease.
#[cfg(unix)]
#[tokio::test]
async fn whether_a_lease_is_held_is_an_error_if_its_lock_file_is_not_reached() {
    let parent = tempfile::tempdir().unwrap();
    let (path, moved) = (parent.path().join("store"), parent.path().join("moved"));
    fs::create_dir(&path).unwrap();
    let store = FileStore::new(path.join("session.json")).unwrap();
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &sample(1, "old")).await.unwrap();
    fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = lease.is_held().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
    let error = lease.save(1, &sample(2, "new")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
    fs::remove_file(&path).unwrap();
    fs::rename(&moved, &path).unwrap();
    assert!(lease.is_held().await.unwrap());
}

/// Makes a symbolic link at the path of the temporary file, right after the old one was removed.
#[cfg(unix)]
struct PlantsLink(PathBuf);

#[cfg(unix)]
impl FileSystem for PlantsLink {
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.remove(path).ok();
        std::os::unix::fs::symlink(&self.0, path)
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_is_made_right_before_the_write_is_not_followed() {
    let (folder, store) = folder(true).await;
    let victim = folder.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let store_with_link = store.clone().on(Arc::new(PlantsLink(victim.clone())));
    let mut lease = store_with_link.lease().await.unwrap();
    let error = lease.save(1, &sample(2, "new")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(loaded(&store).await, 1);
}

#[tokio::test]
async fn the_lock_is_released_when_the_lease_is_dropped() {
    let (_folder, store) = folder(true).await;
    for _ in 0..50 {
        drop(store.lease().await.unwrap());
        let files = &store.files;
        assert!(files.try_lock(&OsFileSystem).unwrap().is_some());
    }
}

#[test]
fn a_runtime_that_ends_leaves_nothing_locked() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("session.json")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let lease = runtime.block_on(store.lease()).unwrap();
    drop(runtime);
    drop(lease);
    assert!(store.files.try_lock(&OsFileSystem).unwrap().is_some());
}

/// Runs the test of this name in a process of its own, because a umask applies to a whole process.
#[cfg(unix)]
#[tokio::test]
async fn a_umask_that_forbids_everything_leaves_a_session_with_the_access_that_is_set() {
    use std::os::unix::fs::PermissionsExt;

    const FOLDER: &str = "TOWER_BEARER_TEST_FOLDER";
    const GROUP: &str = "TOWER_BEARER_TEST_GROUP";
    let name = "store::file::tests::a_umask_that_forbids_everything_leaves_a_session_with_the_access_that_is_set";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let store = FileStore::new(Path::new(&folder).join("session.json"))
            .unwrap()
            .allow_group_access(std::env::var_os(GROUP).is_some());
        save(&store, &FaultyFileSystem::with(None), 0)
            .await
            .unwrap();
        return;
    }
    for (group, mode) in [(None, 0o600), (Some("yes"), 0o660)] {
        let folder = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("sh")
            .args(["-c", "umask 0777 && exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(FOLDER, folder.path())
            .envs(group.map(|group| (GROUP, group)))
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        for file in ["session.json", "session.json.lock"] {
            let found = fs::metadata(folder.path().join(file)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
        }
    }
}
