//! Processes that share a session. Each is this test binary, started again as a worker.
//!
//! A worker stops in order when it reads `stop` from its standard input. It ends at once when the input ends, which
//! happens when the test that started it has gone. It reports results as JSON on its standard output, one in each line.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of these helpers"
)]

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{BufRead, stdin},
    path::PathBuf,
    process::{Stdio, exit},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tower::{BoxError, Layer, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, BoxTokenStore, ClientAuth, FileStore, OAuthClient, PostgresStore, RedisStore,
    RefreshTokenSource, Schedule, SqliteStore, StoreLease, TokenCache, TokenError, TokenErrorKind,
    TokenStore,
};

/// Longer than any step takes, unless it hangs.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a lease in Redis or a database outlives a killed holder.
pub const LEASE_DURATION: Duration = Duration::from_secs(2);

pub const CONFIG_VARIABLE: &str = "TOWER_BEARER_WORKER";
const REPORT_PREFIX: &str = "report: ";

/// The settings of a worker process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerConfig {
    pub name: String,
    pub store: StoreLocation,
    pub token_url: String,
    pub client: (String, String),
    pub refresh_token: String,
    pub api: String,
    pub tasks: usize,
    /// The longest pause of a task between two requests.
    pub pause: Duration,
}

/// Where the session is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum StoreLocation {
    File(PathBuf),
    Redis { url: String, name: String },
    Postgres { url: String, name: String },
    Sqlite { path: PathBuf, name: String },
}

/// A report of a worker process.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Report {
    /// A caller has dropped this request.
    Dropped(String),
    Failed {
        ended: bool,
        why: String,
    },
    Done(Counts),
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    pub served: u64,
    pub dropped: u64,
    /// The number of tokens that the process got or adopted.
    pub tokens: u64,
    /// The number of tokens that the API rejected.
    pub rejected: u64,
}

impl StoreLocation {
    fn store(&self) -> Result<BoxTokenStore, TokenError> {
        Ok(match self {
            Self::File(path) => FileStore::new(path)?.boxed(),
            Self::Redis { url, name } => RedisStore::new(url, name)?
                .lease_duration(LEASE_DURATION)
                .boxed(),
            Self::Postgres { url, name } => PostgresStore::new(url, name)?
                .lease_duration(LEASE_DURATION)
                .boxed(),
            Self::Sqlite { path, name } => SqliteStore::new(path, name)?
                .lease_duration(LEASE_DURATION)
                .boxed(),
        })
    }

    /// Waits until no refresh is running, in this process or another.
    async fn wait_for_refresh(&self) {
        let store = self.store().unwrap();
        let lease = async {
            loop {
                // On a busy machine the server may not answer in time.
                if let Ok(lease) = store.lease().await {
                    return lease;
                }
            }
        };
        let lease = timeout(TIMEOUT, lease).await.expect("the lease");
        lease.release().await;
    }

    /// Whether there is a stored session, which must be whole.
    pub async fn is_stored(&self) -> Result<bool, TokenError> {
        Ok(self.store()?.load().await?.is_some())
    }

    /// Loads the stored session again and again, which must always be whole. `loaded` is called for each load that
    /// finds one.
    pub async fn keep_loading(&self, loaded: impl Fn()) {
        let store = self.store().unwrap();
        loop {
            let stored = store.load().await;
            if stored.expect("a whole session, or none").is_some() {
                loaded();
            }
            sleep(Duration::from_millis(3)).await;
        }
    }
}

impl WorkerConfig {
    /// The session of these settings.
    pub fn session(&self) -> TokenCache {
        let endpoint = OAuthClient::new(&self.token_url).unwrap().client_auth(
            ClientAuth::client_secret_basic(self.client.0.clone(), self.client.1.clone()),
        );
        let source = RefreshTokenSource::new(endpoint, self.refresh_token.clone());
        let source = source.store(self.store.store().unwrap());
        let schedule = Schedule::default().min_interval(Duration::from_millis(50));
        TokenCache::builder(source).schedule(schedule).build()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The worker process.

/// The settings of this process, if a fleet has started it.
pub fn config() -> Option<WorkerConfig> {
    let config = env::var(CONFIG_VARIABLE).ok()?;
    Some(serde_json::from_str(&config).unwrap())
}

struct Worker {
    config: WorkerConfig,
    stop: Arc<AtomicBool>,
    served: AtomicU64,
    dropped: AtomicU64,
}

/// Sends requests until it is stopped, and exits.
pub fn run_worker(config: WorkerConfig) -> ! {
    let stop = Arc::new(AtomicBool::new(false));
    let stop_requested = Arc::clone(&stop);
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if line == "stop" {
                stop_requested.store(true, Ordering::SeqCst);
            }
        }
        // The test has gone, so no `stop` will come.
        exit(3);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run_tasks(config, stop));
    exit(0)
}

async fn run_tasks(config: WorkerConfig, stop: Arc<AtomicBool>) {
    let session = config.session();
    let worker = Arc::new(Worker {
        config,
        stop,
        served: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for task in 0..worker.config.tasks {
        tasks.spawn(Arc::clone(&worker).send_requests(session.clone(), task));
    }
    tasks.join_all().await;
    let status = session.status();
    // A process that exits during a refresh would lose the new refresh token. While this process holds the lease, no
    // refresh is running.
    worker.config.store.wait_for_refresh().await;
    send_report(&Report::Done(Counts {
        served: worker.served.load(Ordering::SeqCst),
        dropped: worker.dropped.load(Ordering::SeqCst),
        tokens: status.issued,
        rejected: status.rejected,
    }));
}

fn send_report(report: &Report) {
    // On a line of its own, because the test harness may have printed the beginning of a line.
    println!(
        "\n{REPORT_PREFIX}{}",
        serde_json::to_string(report).unwrap()
    );
}

impl Worker {
    /// Sends one request after the other.
    async fn send_requests(self: Arc<Self>, session: TokenCache, task: usize) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let client = BearerAuthLayer::from(session).layer(client);
        for n in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            sleep(self.config.pause.mul_f64(fastrand::f64())).await;
            let id = format!("{}-{task}-{n}", self.config.name);
            let request: Request<Full<Bytes>> =
                Request::post(format!("{}/config", self.config.api))
                    .header("x-request-id", &id)
                    .body(Full::from(id.clone()))
                    .unwrap();
            let answer = client.clone().oneshot(request);
            let time_limit = match fastrand::u8(..100) {
                0..5 => Duration::from_millis(fastrand::u64(..20)),
                5..10 => Duration::from_millis(fastrand::u64(..1000)),
                _ => TIMEOUT,
            };
            match timeout(time_limit, answer).await {
                Ok(Ok(response)) if response.status() == StatusCode::OK => {
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body, id);
                    self.served.fetch_add(1, Ordering::SeqCst);
                }
                Ok(Ok(response)) => {
                    let status = response.status();
                    failed(&id, &status.to_string(), response.extensions().get());
                }
                Ok(Err(error)) => {
                    let error: BoxError = error;
                    failed(&id, &error_chain(&*error), error.downcast_ref());
                }
                Err(_) if time_limit < TIMEOUT => {
                    self.dropped.fetch_add(1, Ordering::SeqCst);
                    send_report(&Report::Dropped(id));
                }
                Err(_) => failed(&id, "no answer", None),
            }
        }
    }
}

fn failed(id: &str, what: &str, reason: Option<&TokenError>) {
    let ended = reason.is_some_and(|reason| reason.kind() == TokenErrorKind::ReauthRequired);
    let reason = reason.map(|reason| error_chain(reason)).unwrap_or_default();
    let why = format!("{id}: {what}: {reason}");
    send_report(&Report::Failed { ended, why });
}

fn error_chain(error: &dyn Error) -> String {
    let mut report = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        report = format!("{report}: {error}");
        cause = error.source();
    }
    report
}

// ---------------------------------------------------------------------------------------------------------------------
// The test that starts the workers.

/// What the processes have reported so far.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// Requests that failed, except because the session has ended.
    pub failed: Vec<String>,
    /// Requests that failed because the session has ended.
    pub ended: Vec<String>,
    /// The counts of the processes that were stopped in order.
    pub done: BTreeMap<String, Counts>,
}

impl Reports {
    pub fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in self.done.values() {
            sum.served += counts.served;
            sum.dropped += counts.dropped;
            sum.tokens += counts.tokens;
            sum.rejected += counts.rejected;
        }
        sum
    }
}

/// The worker processes of a test. Dropping it kills them.
pub struct Fleet {
    entry: &'static str,
    config: WorkerConfig,
    processes: Vec<Process>,
    started: usize,
    reports: Arc<Mutex<Reports>>,
    dropped: Arc<dyn Fn(&str) + Send + Sync>,
}

struct Process {
    name: String,
    child: Child,
    reader: JoinHandle<()>,
}

impl Fleet {
    /// Starts processes that run the test `entry`. `dropped` is called with each request that its caller gave up, and
    /// with each process that [`restart_all`](Self::restart_all) ended.
    pub fn start(
        entry: &'static str,
        size: usize,
        config: WorkerConfig,
        dropped: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let mut fleet = Self {
            entry,
            config,
            processes: Vec::new(),
            started: 0,
            reports: Arc::default(),
            dropped: Arc::new(dropped),
        };
        for _ in 0..size {
            let process = fleet.start_process();
            fleet.processes.push(process);
        }
        fleet
    }

    fn start_process(&mut self) -> Process {
        self.started += 1;
        let name = format!("p{}", self.started);
        let config = WorkerConfig {
            name: name.clone(),
            ..self.config.clone()
        };
        let mut child = Command::new(env::current_exe().unwrap())
            .args([self.entry, "--exact", "--nocapture", "--test-threads=1"])
            .env(CONFIG_VARIABLE, serde_json::to_string(&config).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (reports, dropped) = (Arc::clone(&self.reports), Arc::clone(&self.dropped));
        let process_name = name.clone();
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Some(report) = line.strip_prefix(REPORT_PREFIX) else {
                    continue;
                };
                // A killed process may have written only a part of its last line.
                let Ok(report) = serde_json::from_str(report) else {
                    continue;
                };
                match report {
                    Report::Dropped(id) => dropped(&id),
                    Report::Failed { ended, why } => {
                        let mut reports = reports.lock().unwrap();
                        let report = if ended {
                            &mut reports.ended
                        } else {
                            &mut reports.failed
                        };
                        report.push(why);
                    }
                    Report::Done(counts) => {
                        reports
                            .lock()
                            .unwrap()
                            .done
                            .insert(process_name.clone(), counts);
                    }
                }
            }
        });
        Process {
            name,
            child,
            reader,
        }
    }

    pub fn reports(&self) -> Reports {
        self.reports.lock().unwrap().clone()
    }

    /// Forgets all reports.
    pub fn clear_reports(&self) {
        *self.reports.lock().unwrap() = Reports::default();
    }

    /// Kills a random process with `kill -9`. Returns its index and its name.
    pub async fn kill_one(&mut self) -> (usize, String) {
        let which = fastrand::usize(..self.processes.len());
        self.processes[which].end().await;
        (which, self.processes[which].name.clone())
    }

    /// Starts another process instead of one that was killed.
    pub fn replace(&mut self, which: usize) {
        self.processes[which] = self.start_process();
    }

    /// Kills all processes, and starts the same number with other settings.
    pub async fn restart_all(&mut self, config: WorkerConfig) {
        for process in &mut self.processes {
            process.end().await;
            (self.dropped)(&process.name);
        }
        self.clear_reports();
        self.config = config;
        for which in 0..self.processes.len() {
            self.replace(which);
        }
    }

    /// Panics if a process has ended on its own.
    pub fn check(&mut self) {
        for process in &mut self.processes {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "a process ended: {ended:?}");
        }
    }

    /// Stops all processes in order.
    pub async fn stop(mut self) -> Reports {
        // The inputs are kept until the processes have ended: the end of its input would end a process at once.
        let mut inputs = Vec::new();
        for process in &mut self.processes {
            let mut input = process.child.stdin.take().unwrap();
            input.write_all(b"stop\n").await.unwrap();
            inputs.push(input);
        }
        for process in &mut self.processes {
            let status = timeout(2 * TIMEOUT, process.child.wait()).await;
            let status = status.expect("a process does not stop").unwrap();
            assert!(status.success(), "{status}");
            timeout(TIMEOUT, &mut process.reader)
                .await
                .unwrap()
                .unwrap();
        }
        self.reports()
    }
}

impl Process {
    async fn end(&mut self) {
        self.child.kill().await.unwrap();
        timeout(TIMEOUT, &mut self.reader).await.unwrap().unwrap();
    }
}
