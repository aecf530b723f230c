//! A Chromium without a window, driven over its `DevTools` protocol.

use std::{path::Path, process::Stdio, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// How long anything in the browser may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A browser with one page. Its process ends when this is dropped.
pub(crate) struct Chromium {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    sent: u64,
    /// Names the page in messages.
    page: String,
    _process: Child,
    _profile: TempDir,
}

impl Chromium {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("chromium")
            .args([
                "--headless=new",
                "--remote-debugging-port=0",
                "--no-first-run",
            ])
            // It refuses to run as root with a sandbox, and `/dev/shm` of containers is small.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
            .args([
                "--proxy-server=direct://",
                "--disable-background-networking",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("`chromium`, from the Debian package of that name");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let url = loop {
            let line = timeout(LIMIT, lines.next_line()).await.expect("it starts");
            let line = line.unwrap().expect("it says where it listens");
            if let Some(url) = line.strip_prefix("DevTools listening on ") {
                break url.to_owned();
            }
        };
        // A pipe that nobody reads would block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = connect_async(url).await.unwrap();
        let mut browser = Self {
            socket,
            sent: 0,
            page: String::new(),
            _process: process,
            _profile: profile,
        };
        let target = browser
            .command("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.command("Target.attachToTarget", target).await;
        let page = attached["sessionId"].as_str().unwrap();
        page.clone_into(&mut browser.page);
        browser
    }

    /// Sends a command, and returns its result. Events are skipped.
    async fn command(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": params});
        if !self.page.is_empty() {
            message["sessionId"] = json!(self.page);
        }
        let message = Message::text(message.to_string());
        self.socket.send(message).await.unwrap();
        loop {
            let answer = timeout(LIMIT, self.socket.next()).await.expect(method);
            let answer = answer.expect("the browser runs").unwrap();
            let Message::Text(text) = answer else {
                continue;
            };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == self.sent {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    pub(crate) async fn open(&mut self, url: &str) {
        self.command("Page.navigate", json!({ "url": url })).await;
    }

    /// The value of a JavaScript expression in the page, or `null` if it fails.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let result = self.command("Runtime.evaluate", params).await;
        result["result"]["value"].clone()
    }

    /// Waits until a JavaScript expression is true in the page that is shown by then.
    pub(crate) async fn until(&mut self, expression: &str) {
        for _ in 0..LIMIT.as_millis() / 50 {
            if self.evaluate(expression).await == true {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let page = self.evaluate("document.documentElement.outerHTML").await;
        panic!("`{expression}` does not become true in {page}");
    }

    /// Shows the page in a window of this size, in CSS pixels.
    pub(crate) async fn resize(&mut self, width: u32, height: u32) {
        let is_phone = width < 500;
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": if is_phone { 2 } else { 1 }, "mobile": is_phone,
        });
        self.command("Emulation.setDeviceMetricsOverride", params)
            .await;
    }

    pub(crate) async fn screenshot(&mut self, path: &Path) {
        let result = self.command("Page.captureScreenshot", json!({})).await;
        let png = BASE64_STANDARD.decode(result["data"].as_str().unwrap());
        std::fs::write(path, png.unwrap()).unwrap();
    }
}
