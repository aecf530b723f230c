//! A process of the authorization server `oidc-provider`.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// The process, which ends when this is dropped.
pub(crate) struct OidcProvider {
    pub(crate) url: String,
    _process: Child,
    /// Keeps the pipe open that the process logs to.
    _output: Lines<BufReader<ChildStdout>>,
}

impl OidcProvider {
    pub(crate) async fn start() -> Self {
        let home = std::env::var_os("OIDC_PROVIDER_HOME");
        let home = home.expect("`OIDC_PROVIDER_HOME`: a folder with oidc-provider in it");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/support/oidc-provider.mjs");
        let mut process = Command::new("node")
            .arg(script)
            .env("OIDC_PROVIDER_HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Node.js");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // It prints warnings before.
        let url = loop {
            let line = lines.next_line().await.unwrap();
            let line = line.expect("the server's URL");
            if line.starts_with("http://") {
                break line;
            }
        };
        Self {
            url,
            _process: process,
            _output: lines,
        }
    }
}
