//! A `redis-server` that tests start and end.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than everything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(60);

/// A `redis-server` with a port and a data folder of its own.
pub struct Server {
    process: Option<Child>,
    folder: TempDir,
    pub port: u16,
    tls_port: Option<u16>,
    settings: Vec<String>,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_at(None, settings).await
    }

    /// Starts a server that has a port for TLS as well. `settings` name its certificate.
    pub async fn start_with_tls(settings: &[&str]) -> Self {
        Self::start_at(Some(free_port()), settings).await
    }

    async fn start_at(tls_port: Option<u16>, settings: &[&str]) -> Self {
        let mut settings: Vec<_> = settings.iter().map(ToString::to_string).collect();
        if let Some(port) = tls_port {
            settings.extend(["--tls-port".into(), port.to_string()]);
        }
        let mut server = Self {
            process: None,
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            tls_port,
            settings,
        };
        server.restart().await;
        server
    }

    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port
    }

    /// Starts the server, or starts it again, with the data in its folder.
    pub async fn restart(&mut self) {
        self.stop();
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args([
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
            ])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.settings)
            .stdout(Stdio::null())
            .spawn()
            .expect("these tests need redis-server 6 or later in the PATH");
        self.process = Some(process);
        let up = async {
            while !self.answers().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, up)
            .await
            .expect("redis-server did not start in time");
    }

    /// Whether the server has started and loaded its data. It may ask for a password.
    async fn answers(&self) -> bool {
        let client = redis::Client::open(("127.0.0.1", self.port)).unwrap();
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            return false;
        };
        let pong = redis::cmd("PING").query_async::<()>(&mut connection).await;
        pong.map_or_else(|error| error.code() == Some("NOAUTH"), |()| true)
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends a command over a connection of its own.
    pub async fn raw<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(("127.0.0.1", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut cmd = redis::Cmd::new();
        for part in command {
            cmd.arg(part);
        }
        cmd.query_async(&mut connection).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
