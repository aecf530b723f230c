//! A server of Postgres that tests start and end, with its data and its socket in a temporary folder.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::{
    fs::Permissions,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, postgres::PgConnectOptions,
};
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than everything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(60);

/// A server with a data folder of its own.
pub struct Server {
    process: Option<Child>,
    folder: TempDir,
    pub port: u16,
    settings: Vec<String>,
}

impl Server {
    /// Starts a server with these settings, each as `name=value`.
    pub async fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let account = account();
        if let Some((user, group)) = account {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut server = Self {
            process: None,
            folder,
            port,
            settings: settings.iter().map(ToString::to_string).collect(),
        };
        let made = server
            .command("initdb")
            .args([
                "--no-sync",
                "--auth",
                "trust",
                "--username",
                "app",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
            ])
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb").success());
        server.restart().await;
        server
    }

    /// The folder of the socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A URL that leads to the server.
    pub fn url(&self) -> String {
        let (folder, port) = (self.folder().display(), self.port);
        format!("postgres:///postgres?host={folder}&port={port}&user=app")
    }

    /// Adds settings, which the next start reads.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings
            .extend(settings.iter().map(ToString::to_string));
    }

    /// Writes a file that only the server can read.
    pub fn write(&self, name: &str, contents: &str) {
        let path = self.folder().join(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = account() {
            chown(&path, Some(user), Some(group)).unwrap();
        }
    }

    /// A program of Postgres, for the data of this server. None of them runs as root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command
            .arg("-D")
            .arg(self.folder().join("data"))
            .current_dir(self.folder());
        as_account(&mut command);
        command
    }

    /// Starts the server, or kills it and starts it again, with the data in its folder.
    pub async fn restart(&mut self) {
        self.kill();
        let up = async {
            while !self.answers().await {
                // Another attempt, while the processes of a killed server end.
                let has_ended = |process: &mut Child| process.try_wait().unwrap().is_some();
                if self.process.as_mut().is_none_or(has_ended) {
                    self.process = Some(self.spawn());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, up)
            .await
            .expect("Postgres did not start in time");
    }

    fn spawn(&self) -> Child {
        let mut command = self.command("postgres");
        command
            .arg("-k")
            .arg(self.folder())
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=", "-c", "max_connections=30"]);
        // The tests kill processes, and not the machine.
        command.args(["-c", "fsync=off"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder().join("log"));
        command
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .expect("postgres")
    }

    async fn answers(&self) -> bool {
        match self.options().connect().await {
            Ok(connection) => connection.close().await.is_ok(),
            Err(_) => false,
        }
    }

    /// Kills the server with `kill -9`, so that what was not written is lost.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn options(&self) -> PgConnectOptions {
        self.url().parse().unwrap()
    }

    pub async fn connection(&self) -> PgConnection {
        self.options().connect().await.unwrap()
    }

    /// Sends a statement over a connection of its own. Returns the first column of the first row, a text.
    pub async fn raw(&self, sql: &str) -> Option<String> {
        let mut connection = self.connection().await;
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await;
        let value = rows.unwrap().first().and_then(|row| row.get(0));
        connection.close().await.unwrap();
        value
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // An immediate shutdown, which also frees what a killed server would leave behind.
            let quit = Command::new("kill")
                .args(["-QUIT", &process.id().to_string()])
                .status();
            if quit.is_err() {
                process.kill().ok();
            }
            process.wait().ok();
        }
    }
}

/// The folder of the programs: that of the newest version of Debian's packages, or of the `PATH`.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions.max_by_key(|version| {
        version
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<f32>().ok())
            .map(f32::to_bits)
    });
    newest.map_or_else(PathBuf::new, |version| version.path().join("bin"))
}

/// Makes a program run as the user that servers run as.
pub fn as_account(command: &mut Command) {
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
}

/// The user and the group that servers run as, if this process is root's.
fn account() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().expect("id");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse::<u32>()
            .ok()
    };
    if id(&["-u"])? != 0 {
        return None;
    }
    let of = |name: &str| Some((id(&["-u", name])?, id(&["-g", name])?));
    Some(
        of("postgres")
            .or_else(|| of("nobody"))
            .expect("a user for Postgres"),
    )
}
