//! Metrics and alert rules in a real Prometheus, which these tests start and end.

use std::{
    io::Write,
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use axum::{Router, routing};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, TokenCache,
    testing::{AuthorizationServer, Dialect, Fault},
};

/// Longer than everything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(60);
const RULES: &str = include_str!("../../examples/stacks/observed_service/rules.yml");
const LABELS: &str = r#"group="orders",grant="refresh_token""#;

static EXPORTER: LazyLock<PrometheusHandle> = LazyLock::new(|| {
    PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_duration_seconds".into()),
            &[0.1, 1.0, 10.0],
        )
        .unwrap()
        .install_recorder()
        .unwrap()
});

/// A session that has had some requests, a failure and two rejections, and has ended then.
async fn scripted_run() -> TokenCache {
    LazyLock::force(&EXPORTER);
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let client = OAuthClient::with_transport("https://login.example.com/token", server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    let source = RefreshTokenSource::new(client, server.issue_refresh_token());
    let cache = TokenCache::builder(source)
        .group("orders")
        .name("user-7")
        .metrics()
        .build();
    let service = BearerAuthLayer::from(cache.clone()).layer(server.api());
    let send = async || {
        let request = Request::get("https://api.example.com/orders");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let response = service.clone().oneshot(request).await;
        response.map_or(0, |response| response.status().as_u16())
    };
    server.fault(Fault::Status(StatusCode::BAD_GATEWAY));
    assert_eq!(send().await, 0);
    cache.reset();
    for _ in 0..7 {
        assert_eq!(send().await, 200);
    }
    server.revoke_access_tokens();
    assert_eq!(send().await, 200);
    server.revoke_sessions();
    server.revoke_access_tokens();
    assert_eq!(send().await, 401);
    assert_eq!(send().await, 401);
    cache
}

/// What the run above must show.
fn expected(cache: &TokenCache) -> Vec<(String, f64)> {
    let expires_at = cache.status().expires_at.unwrap();
    let expires_at = expires_at.duration_since(std::time::UNIX_EPOCH).unwrap();
    let ended = |reason, outcome, error| {
        format!(
            r#"refreshes_total{{{LABELS},reason="{reason}",outcome="{outcome}",error="{error}"}}"#
        )
    };
    let replayed = |outcome| format!(r#"replays_total{{{LABELS},outcome="{outcome}"}}"#);
    let plain = |name| format!("{name}{{{LABELS}}}");
    let expected = [
        (plain("requests_total"), 11.0),
        (plain("rejections_total"), 2.0),
        (plain("sessions_not_saved_total"), 0.0),
        (plain("reauth_required"), 1.0),
        (
            plain("token_expiry_timestamp_seconds"),
            expires_at.as_secs_f64(),
        ),
        (plain("refresh_duration_seconds_count"), 4.0),
        // The last rejected request waits for a look into the store.
        (plain("wait_duration_seconds_count"), 5.0),
        (replayed("accepted"), 1.0),
        (replayed("rejected"), 0.0),
        (replayed("failed"), 0.0),
        (replayed("not_sent"), 2.0),
        (ended("no_token", "failed", "server"), 1.0),
        (ended("no_token", "refreshed", "none"), 1.0),
        (ended("rejected", "refreshed", "none"), 1.0),
        (ended("rejected", "reauth_required", "reauth_required"), 1.0),
    ];
    let full = |(name, value)| (format!("tower_bearer_{name}"), value);
    expected.into_iter().map(full).collect()
}

fn render() -> String {
    EXPORTER.run_upkeep();
    EXPORTER.render()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

struct Prometheus {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts a server that reads the metrics of `target`, with the rules of the example.
    async fn start(target: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n- job_name: service\n  static_configs: [{{targets: ['{target}']}}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        std::fs::write(folder.path().join("rules.yml"), RULES).unwrap();
        let port = free_port();
        let process = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need prometheus in the PATH");
        let server = Self {
            process,
            port,
            _folder: folder,
        };
        let ready = async {
            while server.get("/-/ready").await.is_none_or(|it| it.0 != 200) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LONG, ready)
            .await
            .expect("prometheus did not start in time");
        server
    }

    /// Status and text. `None` if there was no response.
    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        let response = client.get(uri.parse().unwrap()).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn api(&self, path: &str) -> Value {
        let (_, text) = self.get(&format!("/api/v1/{path}")).await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], "success", "{text}");
        answer["data"].clone()
    }

    /// The value of one series.
    async fn value(&self, query: &str) -> Option<f64> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let data = self.api(&format!("query?query={query}")).await;
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn promtool(args: &[&str], input: &str) -> Output {
    let mut process = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need promtool, which comes with prometheus, in the PATH");
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    process.wait_with_output().unwrap()
}

#[tokio::test]
#[ignore = "needs prometheus"]
async fn a_prometheus_reads_the_metrics_and_sees_that_a_person_must_log_in() {
    let cache = scripted_run().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let router = Router::new().route("/metrics", routing::get(async || render()));
    let service = tokio::spawn(axum::serve(listener, router).into_future());
    let prometheus = Prometheus::start(&target).await;

    let read = async {
        while prometheus
            .value("tower_bearer_requests_total")
            .await
            .is_none()
        {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, read).await.expect("nothing was read in time");
    for (series, value) in expected(&cache) {
        let read = prometheus.value(&series).await;
        let read = read.unwrap_or_else(|| panic!("{series} is not there:\n{}", render()));
        assert!(
            (read - value).abs() < 0.001,
            "{series}: {read} and not {value}"
        );
    }
    let all = prometheus.api("label/__name__/values").await;
    let names: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let of_users = prometheus.api("label/group/values").await;
    assert_eq!(of_users, serde_json::json!(["orders"]));
    let ours = names
        .iter()
        .filter(|it| it.starts_with("tower_bearer_"))
        .count();
    assert_eq!(ours, 13, "{names:?}");

    let pending = async {
        loop {
            let alerts = prometheus.api("alerts").await;
            let alerts = alerts["alerts"].as_array().unwrap().clone();
            if let Some(alert) = alerts.first() {
                return alert.clone();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let alert = timeout(LONG, pending).await.expect("no alert in time");
    assert_eq!(alert["labels"]["alertname"], "LoginNeeded");
    assert_eq!(alert["labels"]["group"], "orders");
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("1 sessions of orders"), "{summary}");

    let checked = promtool(&["check", "metrics"], &render());
    assert!(checked.status.success(), "{checked:?}");
    service.abort();
}

#[test]
#[ignore = "needs prometheus"]
fn the_rules_of_the_example_are_valid() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(RULES.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let checked = promtool(&["check", "rules", path], "");
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{checked:?}");
    assert!(text.contains("4 rules found"), "{text}");
}
