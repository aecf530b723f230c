//! A disk that fails, a process that dies, and a power cut, at each call of a save.

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

/// Where a save ends, counted in calls from 0.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// One call fails; what comes after it is done.
    Fails(usize, io::ErrorKind),
    /// The process dies in a call: half of what is to be written is, nothing else of it, and nothing comes after it.
    Dies(usize),
}

/// The calls of the operating system, with a fault at one of them.
///
/// It knows what a power cut would take: what was written but not synced, and names in a folder that was not synced.
#[derive(Default)]
struct Faulty {
    fault: Option<Fault>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: Vec<&'static str>,
    unsynced: Vec<PathBuf>,
    /// What stood at a path before it got another file.
    replaced: HashMap<PathBuf, Option<Vec<u8>>>,
    draft: PathBuf,
}

impl Faulty {
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

    /// Takes from the disk what a power cut may take.
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

impl Disk for Faulty {
    fn open(&self, path: &Path) -> io::Result<File> {
        self.call("open")?;
        Os.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.call("create")?;
        self.state.lock().unwrap().draft = path.to_owned();
        Os.create(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let outcome = self.call("write");
        let mut state = self.state.lock().unwrap();
        let draft = state.draft.clone();
        state.unsynced.push(draft);
        if outcome.is_err() {
            file.write_all(&bytes[..bytes.len() / 2])?;
        } else {
            Os.write(file, bytes)?;
        }
        outcome
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.call("sync")?;
        self.state.lock().unwrap().unsynced.clear();
        Os.sync(file)
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
        Os.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.call("sync folder")?;
        self.state.lock().unwrap().replaced.clear();
        Os.sync_folder(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call("remove")?;
        Os.remove(path)
    }
}

/// All calls of a save that replaces a session.
const CALLS: [&str; 7] = [
    "open",
    "remove",
    "create",
    "write",
    "sync",
    "rename",
    "sync folder",
];

/// A folder with the session of version 1, or with none.
async fn folder(with_session: bool) -> (TempDir, FileStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("session.json"));
    if with_session {
        let mut lease = store.lease().await.unwrap();
        lease.save(0, &sample(1, "old")).await.unwrap();
    }
    (folder, store)
}

async fn save(store: &FileStore, disk: &Arc<Faulty>, replaces: u64) -> Result<(), TokenError> {
    let store = store.clone().on(Arc::clone(disk) as Arc<dyn Disk>);
    let mut lease = store.lease().await.unwrap();
    lease.save(replaces, &sample(replaces + 1, "new")).await
}

/// The version that is loaded, which is an intact session or nothing.
async fn loaded(store: &FileStore) -> u64 {
    let session = store.load().await.unwrap();
    session.map_or(0, |session| session.version())
}

#[tokio::test]
async fn a_save_syncs_the_file_before_its_name_changes_and_the_folder_after() {
    let (_folder, store) = folder(true).await;
    let disk = Faulty::with(None);
    save(&store, &disk, 1).await.unwrap();
    assert_eq!(disk.calls(), CALLS);
}

#[tokio::test]
async fn a_process_that_dies_at_any_call_of_a_save_leaves_the_old_session_or_the_new_one() {
    for before in [0, 1] {
        for call in 0..CALLS.len() {
            let (_folder, store) = folder(before == 1).await;
            save(&store, &Faulty::with(Some(Fault::Dies(call))), before)
                .await
                .unwrap_err();
            let renamed = call > 5;
            assert_eq!(loaded(&store).await, before + u64::from(renamed), "{call}");
            // The next process goes on from there, whatever the dead one left lying about.
            let next = Faulty::with(None);
            save(&store, &next, before + u64::from(renamed))
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_power_cut_at_any_call_of_a_save_leaves_the_old_session_or_the_new_one() {
    for before in [0, 1] {
        for call in 0..CALLS.len() {
            let (_folder, store) = folder(before == 1).await;
            let disk = Faulty::with(Some(Fault::Dies(call)));
            save(&store, &disk, before).await.unwrap_err();
            disk.cut_power();
            assert_eq!(loaded(&store).await, before, "{call}");
        }
    }
}

#[tokio::test]
async fn a_power_cut_after_a_save_takes_nothing() {
    for before in [0, 1] {
        let (_folder, store) = folder(before == 1).await;
        let disk = Faulty::with(None);
        save(&store, &disk, before).await.unwrap();
        disk.cut_power();
        assert_eq!(loaded(&store).await, before + 1);
    }
}

#[tokio::test]
async fn a_power_cut_during_a_rename_that_the_disk_has_done_leaves_an_intact_session() {
    // The folder may reach the disk by itself, before it is synced: what the name leads to must be there by then.
    let (_folder, store) = folder(true).await;
    let disk = Faulty::with(Some(Fault::Dies(6)));
    save(&store, &disk, 1).await.unwrap_err();
    disk.state.lock().unwrap().replaced.clear();
    disk.cut_power();
    assert_eq!(loaded(&store).await, 2);
}

#[tokio::test]
async fn a_call_that_fails_is_told_and_saving_again_succeeds() {
    let kinds = [
        (io::ErrorKind::StorageFull, "no space left"),
        (io::ErrorKind::PermissionDenied, "this process may not"),
        (io::ErrorKind::ReadOnlyFilesystem, "can only be read"),
        (io::ErrorKind::Other, "failed"),
    ];
    for (kind, told) in kinds {
        for call in 0..CALLS.len() {
            let (folder, store) = folder(true).await;
            let disk = Faulty::with(Some(Fault::Fails(call, kind)));
            let store = store.on(disk);
            let mut lease = store.lease().await.unwrap();
            let error = lease.save(1, &sample(2, "new")).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Store);
            assert!(error.to_string().contains(told), "{error}");
            assert!(std::error::Error::source(&error).is_some());
            let draft = folder.path().join("session.json.tmp");
            assert!(!draft.exists(), "a draft stayed behind at call {call}");
            assert!((1..=2).contains(&loaded(&store).await));

            lease.save(1, &sample(2, "new")).await.unwrap();
            assert_eq!(loaded(&store).await, 2);
        }
    }
}

#[tokio::test]
async fn a_save_that_is_repeated_after_the_folder_was_not_synced_syncs_it() {
    let (_folder, store) = folder(true).await;
    save(&store, &Faulty::with(Some(Fault::Dies(6))), 1)
        .await
        .unwrap_err();
    let disk = Faulty::with(None);
    save(&store, &disk, 1).await.unwrap();
    assert_eq!(disk.calls(), ["open", "sync folder"]);
}

/// Stands still in a save until it is let go.
struct Slow {
    reached: mpsc::SyncSender<()>,
    go: Mutex<mpsc::Receiver<()>>,
    writing: AtomicBool,
}

impl Disk for Slow {
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        assert!(
            !self.writing.swap(true, Ordering::SeqCst),
            "two saves at once"
        );
        self.reached.send(()).ok();
        self.go.lock().unwrap().recv().ok();
        self.writing.store(false, Ordering::SeqCst);
        Os.write(file, bytes)
    }
}

fn slow() -> (Arc<Slow>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (reached, has_reached) = mpsc::sync_channel(8);
    let (go, goes) = mpsc::channel();
    let disk = Slow {
        reached,
        go: Mutex::new(goes),
        writing: AtomicBool::new(false),
    };
    (Arc::new(disk), has_reached, go)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_whose_caller_left_runs_to_its_end_before_anybody_else_gets_the_lease() {
    let (folder, store) = folder(true).await;
    let (disk, reached, go) = slow();
    let slow = store.clone().on(disk);
    let caller = tokio::spawn(async move {
        let mut lease = slow.lease().await.unwrap();
        lease.save(1, &sample(2, "new")).await
    });
    reached.recv().unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());

    // Another process, as it were: nothing but the file is shared.
    let path = folder.path().join("session.json");
    let other = FileStore::new(&path);
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
async fn a_save_waits_for_the_one_before_it_whose_caller_left() {
    let (_folder, store) = folder(true).await;
    let (disk, reached, go) = slow();
    let mut lease = store.clone().on(disk).lease().await.unwrap();
    let new = sample(2, "new");
    {
        let mut dropped = Box::pin(lease.save(1, &new));
        std::future::poll_fn(|cx| {
            assert!(dropped.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        reached.recv().unwrap();
    }
    let again = tokio::spawn(async move { lease.save(1, &new).await });
    // It would write, too, if it did not wait.
    let watched = Duration::from_millis(50);
    assert!(reached.recv_timeout(watched).is_err());
    go.send(()).unwrap();
    go.send(()).ok();
    again.await.unwrap().unwrap();
    assert_eq!(loaded(&store).await, 2);
}

/// Somebody removes the lock file just after it was opened, once.
#[derive(Default)]
struct Tidied(AtomicBool);

impl Disk for Tidied {
    fn open_lock(&self, path: &Path) -> io::Result<File> {
        let file = Os.open_lock(path)?;
        if !self.0.swap(true, Ordering::SeqCst) {
            fs::remove_file(path)?;
        }
        Ok(file)
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_lock_on_a_file_that_nobody_else_can_find_is_not_taken_for_the_lease() {
    let (_folder, store) = folder(true).await;
    let place = store.place().unwrap();
    let tidied = Tidied::default();
    assert!(place.try_lock(&tidied).unwrap().is_none());
    assert!(place.try_lock(&tidied).unwrap().is_some());
}

/// Somebody puts a link in the place of the draft, just after the old one was removed.
#[cfg(unix)]
struct Planted(PathBuf);

#[cfg(unix)]
impl Disk for Planted {
    fn remove(&self, path: &Path) -> io::Result<()> {
        Os.remove(path).ok();
        std::os::unix::fs::symlink(&self.0, path)
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_is_put_there_in_the_last_moment_is_not_written_through() {
    let (folder, store) = folder(true).await;
    let victim = folder.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let planted = store.clone().on(Arc::new(Planted(victim.clone())));
    let mut lease = planted.lease().await.unwrap();
    let error = lease.save(1, &sample(2, "new")).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(loaded(&store).await, 1);
}

#[tokio::test]
async fn the_lock_is_free_as_soon_as_the_lease_is_dropped() {
    let (_folder, store) = folder(true).await;
    for _ in 0..50 {
        drop(store.lease().await.unwrap());
        let place = store.place().unwrap();
        assert!(place.try_lock(&Os).unwrap().is_some());
    }
}

#[test]
fn a_runtime_that_ends_is_an_error_and_leaves_nothing_locked() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("session.json"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let lease = runtime.block_on(store.lease()).unwrap();
    drop(runtime);
    drop(lease);
    assert!(store.place().unwrap().try_lock(&Os).unwrap().is_some());
}
