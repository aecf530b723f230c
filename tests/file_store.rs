//! The file store with files of all kinds, and with other processes.

#![cfg(feature = "file-store")]

#[path = "support/endpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
mod endpoint;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use endpoint::TokenEndpoint;
use tempfile::TempDir;
use tower_bearer::{
    FileStore, RefreshTokenSource, StoreLease, TokenCache, TokenError, TokenErrorKind, TokenStore,
    testing::{sample_session, store_conformance},
};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.json");
    (folder, path)
}

async fn save_first(path: &Path) {
    let mut lease = FileStore::new(path).unwrap().lease().await.unwrap();
    lease.save(0, &sample_session(1, "first")).await.unwrap();
}

/// The error of loading. Saving must fail with the same error, and the file must stay as it is.
async fn rejection(path: &Path) -> String {
    let before = fs::read(path).ok();
    let store = FileStore::new(path).unwrap();
    let error = store.load().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
    let leased = store.lease_and_load().await.err().unwrap();
    assert_eq!(leased.to_string(), error.to_string());
    // That has left no lease behind.
    let mut lease = store.lease().await.unwrap();
    for replaces in [0, 1] {
        let saved = lease.save(replaces, &sample_session(2, "over")).await;
        assert_eq!(saved.unwrap_err().to_string(), error.to_string());
    }
    assert_eq!(fs::read(path).ok(), before);
    error.to_string()
}

#[tokio::test]
async fn stores_of_one_path_conform() {
    let (_folder, path) = folder();
    store_conformance(|| FileStore::new(&path).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clones_on_several_threads_conform() {
    let (_folder, path) = folder();
    let store = FileStore::new(&path).unwrap();
    store_conformance(|| store.clone()).await;
}

#[tokio::test]
async fn a_save_leaves_only_the_session_and_its_lock_file() {
    let (folder, path) = folder();
    save_first(&path).await;
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["session.json", "session.json.lock"]);
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["format"], 3);
    assert_eq!(json["version"], 1);
}

#[tokio::test]
async fn a_file_that_is_not_a_session_is_an_error_and_never_overwritten() {
    let (_folder, path) = folder();
    save_first(&path).await;
    let session = fs::read(&path).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (b"", "is empty"),
        (&session[..session.len() / 2], "ends in the middle"),
        (
            b"{\"refresh_token\":\"s3cret\"}",
            "not a session of this crate",
        ),
        (b"{\"format\":5,\"version\":1}", "format 5"),
    ];
    for (content, expected) in cases {
        fs::write(&path, content).unwrap();
        let error = rejection(&path).await;
        assert!(
            error.contains(expected) && error.contains("session.json"),
            "{error}"
        );
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn a_session_can_be_saved_after_a_rejected_file_was_removed() {
    let (_folder, path) = folder();
    save_first(&path).await;
    fs::write(&path, b"").unwrap();
    rejection(&path).await;
    fs::remove_file(&path).unwrap();
    save_first(&path).await;
}

#[test]
fn a_path_without_a_file_name_is_an_error_of_the_configuration() {
    for path in ["", "/", "..", "folder/"] {
        let error = FileStore::new(path).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{path:?}");
    }
}

/// Known before a person logs in, and not only when the new session is saved.
#[tokio::test]
async fn a_missing_folder_is_an_error_before_anything_is_saved() {
    let (folder, _) = folder();
    let store = FileStore::new(folder.path().join("missing/session.json")).unwrap();
    for error in [
        store.load().await.unwrap_err(),
        store.lease().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), TokenErrorKind::Store);
        assert!(
            error.to_string().contains("its folder does not exist"),
            "{error}"
        );
    }
    fs::create_dir(folder.path().join("missing")).unwrap();
    assert!(store.load().await.unwrap().is_none());
}

#[test]
fn the_home_folder_of_a_shell_is_an_error() {
    let error = FileStore::new("~/session.json").unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(error.to_string().contains("the whole path"), "{error}");
    for path in ["/tmp/~/session.json", "~session.json"] {
        FileStore::new(path).unwrap();
    }
}

#[tokio::test]
async fn a_relative_path_starts_at_the_folder_that_was_current_when_the_store_was_made() {
    let store = FileStore::new("session.json").unwrap();
    let shown = format!("{store:?}");
    assert!(
        shown.contains(env::current_dir().unwrap().to_str().unwrap()),
        "{shown}"
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_lease_ends_after_the_lease_timeout() {
    let (_folder, path) = folder();
    let _held = FileStore::new(&path).unwrap().lease().await.unwrap();
    let waiting = FileStore::new(&path)
        .unwrap()
        .lease_timeout(Duration::from_secs(7));
    let error = waiting.lease().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert!(error.is_transient());
    assert!(error.to_string().contains("within 7s"), "{error}");
}

#[tokio::test]
async fn removing_the_lock_file_costs_its_holder_the_lease_and_loses_no_session() {
    let (_folder, path) = folder();
    save_first(&path).await;
    let mut first = FileStore::new(&path).unwrap().lease().await.unwrap();
    fs::remove_file(path.with_file_name("session.json.lock")).unwrap();
    let mut second = FileStore::new(&path).unwrap().lease().await.unwrap();

    let saved = first.save(1, &sample_session(2, "first")).await;
    assert_eq!(saved.unwrap_err().kind(), TokenErrorKind::LeaseLost);
    second.save(1, &sample_session(2, "second")).await.unwrap();
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn is_root() -> bool {
        let (folder, _) = folder();
        fs::metadata(folder.path()).unwrap().uid() == 0
    }

    #[tokio::test]
    async fn files_are_created_for_their_owner_only() {
        let (_folder, path) = folder();
        save_first(&path).await;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&path.with_file_name("session.json.lock")), 0o600);
    }

    #[tokio::test]
    async fn a_session_that_other_users_can_use_is_rejected_until_its_mode_is_600() {
        let (_folder, path) = folder();
        save_first(&path).await;
        for mode in [0o640, 0o604, 0o620, 0o602, 0o666] {
            set_mode(&path, mode);
            let error = rejection(&path).await;
            assert!(error.contains("chmod 600"), "{error}");
        }
        set_mode(&path, 0o600);
        assert_eq!(
            FileStore::new(&path)
                .unwrap()
                .load()
                .await
                .unwrap()
                .unwrap()
                .version(),
            1
        );
    }

    /// A store for a group.
    fn shared(path: &Path) -> FileStore {
        FileStore::new(path).unwrap().allow_group_access(true)
    }

    #[tokio::test]
    async fn files_are_created_for_a_group_if_that_is_allowed() {
        let (_folder, path) = folder();
        let lock = path.with_file_name("session.json.lock");
        let mut lease = shared(&path).lease().await.unwrap();
        lease.save(0, &sample_session(1, "first")).await.unwrap();
        assert_eq!((mode(&path), mode(&lock)), (0o660, 0o660));
        drop(lease);

        // Files from before are accepted, and the next save gives the group access.
        set_mode(&path, 0o600);
        set_mode(&lock, 0o600);
        let mut lease = shared(&path).lease().await.unwrap();
        assert_eq!(shared(&path).load().await.unwrap().unwrap().version(), 1);
        lease.save(1, &sample_session(2, "second")).await.unwrap();
        assert_eq!((mode(&path), mode(&lock)), (0o660, 0o660));
    }

    #[tokio::test]
    async fn a_file_that_its_group_can_use_is_rejected_with_the_option_that_allows_it() {
        let (_folder, path) = folder();
        save_first(&path).await;
        let lock = path.with_file_name("session.json.lock");
        for group_mode in [0o660, 0o640, 0o620, 0o610] {
            set_mode(&path, group_mode);
            let error = rejection(&path).await;
            assert!(error.contains("can be used by its group"), "{error}");
            assert!(error.contains("FileStore::allow_group_access"), "{error}");
            assert_eq!(shared(&path).load().await.unwrap().unwrap().version(), 1);
        }
        set_mode(&path, 0o600);
        set_mode(&lock, 0o660);
        let error = FileStore::new(&path).unwrap().lease().await.unwrap_err();
        assert!(error.to_string().contains("allow_group_access"), "{error}");
        shared(&path).lease().await.unwrap();
    }

    #[tokio::test]
    async fn access_of_all_users_is_rejected_whatever_is_allowed() {
        let (_folder, path) = folder();
        save_first(&path).await;
        let lock = path.with_file_name("session.json.lock");
        for all in [0o664, 0o662, 0o661, 0o604, 0o606] {
            set_mode(&path, all);
            let error = shared(&path).load().await.unwrap_err().to_string();
            assert!(error.contains("can be used by other users"), "{error}");
            assert!(error.contains("chmod 660"), "{error}");
            assert!(!error.contains("allow_group_access"), "{error}");
        }
        set_mode(&path, 0o660);
        set_mode(&lock, 0o664);
        let error = shared(&path).lease().await.unwrap_err().to_string();
        assert!(error.contains("can be used by other users"), "{error}");
    }

    #[tokio::test]
    async fn a_session_of_another_user_is_accepted_if_it_is_of_a_group_of_this_process() {
        if !is_root() {
            eprintln!("skipped: only root can give a file to another user");
            return;
        }
        let (_folder, path) = folder();
        let mut lease = shared(&path).lease().await.unwrap();
        lease.save(0, &sample_session(1, "first")).await.unwrap();
        drop(lease);
        let lock = path.with_file_name("session.json.lock");
        for path in [&path, &lock] {
            chown(path, Some(12345), None).unwrap();
        }
        let mut lease = shared(&path).lease().await.unwrap();
        lease.save(1, &sample_session(2, "second")).await.unwrap();
        drop(lease);
        let error = FileStore::new(&path).unwrap().lease().await.unwrap_err();
        assert!(
            error.to_string().contains("belongs to user 12345"),
            "{error}"
        );

        chown(&path, Some(12345), Some(54321)).unwrap();
        let error = shared(&path).load().await.unwrap_err().to_string();
        assert!(error.contains("is not in that group"), "{error}");
    }

    #[test]
    fn processes_of_two_users_share_a_session_through_a_group_and_a_third_is_kept_out() {
        use std::os::unix::process::CommandExt;

        if !is_root() {
            eprintln!("skipped: only root can run programs as other users");
            return;
        }
        // As `fsGroup` makes it: the group may write, and new files get the group of the folder.
        let (folder, path) = folder();
        chown(folder.path(), None, Some(54_321)).unwrap();
        set_mode(folder.path(), 0o2770);
        let run = |user: u32, group: u32| {
            let output = child("share", &path).uid(user).gid(group).output();
            output.map(|output| child_output(&output.stdout))
        };
        let Ok(first) = run(1_001, 54_321) else {
            eprintln!("skipped: an unprivileged user cannot run this program");
            return;
        };
        assert_eq!(first, "saved 1");
        for (user, expected) in [(1_002, "saved 2"), (1_001, "saved 3"), (1_002, "saved 4")] {
            assert_eq!(run(user, 54_321).unwrap(), expected);
            let found = fs::metadata(&path).unwrap();
            let (owner, group) = (found.uid(), found.gid());
            assert_eq!((owner, group, mode(&path)), (user, 54_321, 0o660));
        }
        let kept_out = run(1_003, 1_003).unwrap();
        assert!(kept_out.contains("no permission"), "{kept_out}");
    }

    #[tokio::test]
    async fn stores_with_group_access_conform() {
        let (_folder, path) = folder();
        store_conformance(|| shared(&path)).await;
    }

    #[tokio::test]
    async fn a_lock_file_that_other_users_could_lock_is_rejected() {
        let (_folder, path) = folder();
        save_first(&path).await;
        set_mode(&path.with_file_name("session.json.lock"), 0o644);
        let error = FileStore::new(&path).unwrap().lease().await.unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[tokio::test]
    async fn symbolic_links_are_rejected_whatever_they_point_to() {
        let (folder, path) = folder();
        let elsewhere = folder.path().join("elsewhere.json");
        save_first(&elsewhere).await;
        for target in [elsewhere.clone(), folder.path().join("dangling")] {
            symlink(&target, &path).unwrap();
            let error = rejection(&path).await;
            assert!(error.contains("symbolic link"), "{error}");
            assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
            assert!(!folder.path().join("dangling").exists());
            fs::remove_file(&path).unwrap();
        }
        let lock = path.with_file_name("session.json.lock");
        fs::remove_file(&lock).unwrap();
        symlink(folder.path().join("planted"), &lock).unwrap();
        let error = FileStore::new(&path).unwrap().lease().await.unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert!(!folder.path().join("planted").exists());
    }

    #[tokio::test]
    async fn a_symbolic_link_at_the_path_of_the_temporary_file_is_removed_and_not_followed() {
        let (folder, path) = folder();
        let victim = folder.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, path.with_file_name("session.json.tmp")).unwrap();
        save_first(&path).await;
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(
            FileStore::new(&path)
                .unwrap()
                .load()
                .await
                .unwrap()
                .unwrap()
                .version(),
            1
        );
    }

    #[tokio::test]
    async fn a_pipe_or_a_folder_at_the_path_of_the_session_is_rejected_at_once() {
        let (_folder, path) = folder();
        let made = Command::new("mkfifo").arg("-m600").arg(&path).status();
        if made.is_ok_and(|status| status.success()) {
            let error = FileStore::new(&path).unwrap().load().await.unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
            fs::remove_file(&path).unwrap();
        }
        fs::create_dir(&path).unwrap();
        let error = FileStore::new(&path).unwrap().load().await.unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[tokio::test]
    async fn a_session_that_belongs_to_another_user_is_rejected() {
        if !is_root() {
            eprintln!("skipped: only root can give a file to another user");
            return;
        }
        let (_folder, path) = folder();
        save_first(&path).await;
        chown(&path, Some(12345), None).unwrap();
        let error = rejection(&path).await;
        assert!(error.contains("belongs to user 12345"), "{error}");
    }

    /// Runs `role` as a user without the privileges of root, which ignores permissions.
    fn run_unprivileged(role: &str, path: &Path) -> Option<String> {
        use std::os::unix::process::CommandExt;

        let mut command = child(role, path);
        if is_root() {
            command.uid(65_534).gid(65_534);
            let above = path.parent().unwrap();
            for path in [above, path, &path.with_file_name("session.json.lock")] {
                chown(path, Some(65_534), Some(65_534)).unwrap();
            }
        }
        match command.output() {
            Ok(output) => Some(child_output(&output.stdout)),
            Err(error) => {
                eprintln!("skipped: an unprivileged user cannot run this program: {error}");
                None
            }
        }
    }

    #[tokio::test]
    async fn a_save_into_a_read_only_folder_is_an_error_and_keeps_the_old_session() {
        let (folder, path) = folder();
        save_first(&path).await;
        set_mode(folder.path(), 0o500);
        let output = run_unprivileged("save", &path);
        set_mode(folder.path(), 0o700);
        if let Some(output) = output {
            assert!(output.contains("version 1, then Store"), "{output}");
            assert!(
                output.contains("this process has no permission"),
                "{output}"
            );
        }
    }

    #[tokio::test]
    async fn a_session_without_read_permission_is_an_error() {
        let (_folder, path) = folder();
        save_first(&path).await;
        set_mode(&path, 0o000);
        if let Some(output) = run_unprivileged("load", &path) {
            assert!(
                output.contains("Store") && output.contains("this process has no permission"),
                "{output}"
            );
        }
    }
}

// The other processes are this program, which finds its role in the environment.

const ROLE: &str = "TOWER_BEARER_TEST_ROLE";
const PATH: &str = "TOWER_BEARER_TEST_PATH";
const OUTPUT_PREFIX: &str = "child says: ";

fn child(role: &str, path: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "the_other_process",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ROLE, role)
        .env(PATH, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

fn child_output(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    let lines: Vec<_> = output
        .lines()
        .filter_map(|line| Some(line.split_once(OUTPUT_PREFIX)?.1))
        .collect();
    lines.join("\n")
}

/// Not a test: the process that the tests below start.
#[tokio::test]
async fn the_other_process() {
    let Ok(role) = env::var(ROLE) else { return };
    let store = FileStore::new(env::var(PATH).unwrap()).unwrap();
    let describe = |error: TokenError| format!("{:?}: {error}", error.kind());
    match role.as_str() {
        "hold" => {
            let _lease = store.lease().await.unwrap();
            println!("{OUTPUT_PREFIX}held");
            // Waits until it is killed, or until the test that started it has ended.
            std::io::stdin().lock().lines().next();
        }
        "load" => {
            let loaded = store.load().await;
            println!(
                "{OUTPUT_PREFIX}{}",
                loaded.map_or_else(describe, |_| "loaded".into())
            );
        }
        "save" => {
            let loaded = store.load().await.unwrap().unwrap().version();
            let saved = async {
                let mut lease = store.lease().await?;
                lease
                    .save(loaded, &sample_session(loaded + 1, "child"))
                    .await
            };
            let saved = saved.await.map_or_else(describe, |()| "saved".into());
            println!("{OUTPUT_PREFIX}version {loaded}, then {saved}");
        }
        "count" => {
            for _ in 0..25 {
                let mut lease = store.lease().await.unwrap();
                let version = store
                    .load()
                    .await
                    .unwrap()
                    .map_or(0, |session| session.version());
                let next = sample_session(version + 1, "child");
                lease.save(version, &next).await.unwrap();
                lease.release().await;
            }
        }
        "share" => {
            let store = store.allow_group_access(true);
            let share = async {
                let mut lease = store.lease().await?;
                let version = store.load().await?.map_or(0, |it| it.version());
                let session = sample_session(version + 1, "shared");
                lease.save(version, &session).await?;
                Ok(version + 1)
            };
            let shared: Result<u64, TokenError> = share.await;
            let said = shared.map_or_else(describe, |version| format!("saved {version}"));
            println!("{OUTPUT_PREFIX}{said}");
        }
        role => panic!("{role}"),
    }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_another_process_ends_when_it_is_killed() {
    let (_folder, path) = folder();
    let mut other = KillOnDrop(child("hold", &path).spawn().unwrap());
    let output = BufReader::new(other.0.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap().contains("held")));

    let store = FileStore::new(&path)
        .unwrap()
        .lease_timeout(Duration::from_secs(5));
    assert_eq!(
        store.lease().await.unwrap_err().kind(),
        TokenErrorKind::Timeout
    );
    drop(other);
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &sample_session(1, "after")).await.unwrap();
}

#[tokio::test]
async fn several_processes_lose_no_save() {
    let (_folder, path) = folder();
    let mut others: Vec<_> = (0..4)
        .map(|_| KillOnDrop(child("count", &path).stdout(Stdio::null()).spawn().unwrap()))
        .collect();
    for other in &mut others {
        assert!(other.0.wait().unwrap().success());
    }
    let session = FileStore::new(&path)
        .unwrap()
        .load()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(session.version(), 100);
}

#[tokio::test]
async fn whatever_a_token_response_contains_the_session_can_be_read_again() {
    let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep = [60, 63, 64, 100, 124, 126, 127].map(deep);
    let odd = [
        r#"{"$serde_json::private::RawValue":"y"}"#.to_owned(),
        r#"{"$serde_json::private::Number":"y"}"#.to_owned(),
    ];
    for value in deep.into_iter().chain(odd) {
        let (_folder, path) = folder();
        let endpoint = TokenEndpoint::default();
        let response = format!(r#"{{"access_token":"at","refresh_token":"rt","x":{value}}}"#);
        endpoint.respond_next([(200, &*response.leak())]);
        let source =
            RefreshTokenSource::new(endpoint.client("https://login.example/token"), "rt-0");
        let cache = TokenCache::new(source.store(FileStore::new(&path).unwrap()));
        // A response that is too deep is not read at all. One that is read can be saved and loaded.
        if cache.token().await.is_ok() {
            let stored = FileStore::new(&path).unwrap().load().await;
            stored.unwrap_or_else(|error| panic!("{value}: {error}"));
        }
    }
}
