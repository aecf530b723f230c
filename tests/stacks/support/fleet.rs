//! Processes that share a session: this very test binary, started again as a client.
//!
//! A process obeys its standard input: `stop` ends it in order, and the end of the input, which comes when the test that
//! started it is gone, ends it at once. What it has to tell it prints as JSON, one thing a line.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses some of it, and none of it is anybody else's"
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
    BearerAuthLayer, ClientAuth, FileStore, OAuthClient, RedisStore, RefreshTokenSource, Schedule,
    StoreLease, TokenCache, TokenError, TokenErrorKind, TokenStore,
};

/// Longer than anything here takes, unless it hangs.
pub const LONG: Duration = Duration::from_secs(60);

/// How long a lease in Redis outlives its holder.
pub const LEASE: Duration = Duration::from_secs(2);

const ORDERS: &str = "TOWER_BEARER_ORDERS";
const TOLD: &str = "told: ";

/// What a process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub name: String,
    pub place: Place,
    pub token_url: String,
    pub client: (String, String),
    pub refresh_token: String,
    pub api: String,
    pub tasks: usize,
    /// The longest pause of a task between two requests.
    pub pause: Duration,
}

/// Where the session is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Place {
    File(PathBuf),
    Redis { url: String, name: String },
}

/// What processes tell.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Told {
    /// A caller has left, and does not care what becomes of this request.
    Left(String),
    Failed {
        ended: bool,
        why: String,
    },
    Done(Counts),
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    pub served: u64,
    pub left: u64,
    /// Tokens that the process got or adopted.
    pub tokens: u64,
    /// Tokens that the API rejected to it.
    pub rejected: u64,
}

impl Place {
    fn file(&self) -> Option<FileStore> {
        match self {
            Self::File(path) => Some(FileStore::new(path)),
            Self::Redis { .. } => None,
        }
    }

    fn redis(&self) -> Option<RedisStore> {
        match self {
            Self::File(_) => None,
            Self::Redis { url, name } => {
                Some(RedisStore::new(url, name).unwrap().lease_duration(LEASE))
            }
        }
    }

    /// Loads what is stored, which must be whole whatever happens to those who write it.
    pub async fn look(&self) -> Result<bool, TokenError> {
        let stored = match (self.file(), self.redis()) {
            (Some(store), _) => store.load().await?,
            (_, Some(store)) => store.load().await?,
            _ => None,
        };
        Ok(stored.is_some())
    }

    /// Waits until nobody is in the midst of a refresh, in this process or another.
    async fn settle(&self) {
        match (self.file(), self.redis()) {
            (Some(store), _) => store.lease().await.unwrap().release().await,
            (_, Some(store)) => store.lease().await.unwrap().release().await,
            _ => {}
        }
    }
}

impl Orders {
    /// A session as these orders say.
    pub fn session(&self) -> TokenCache {
        let endpoint = OAuthClient::new(&self.token_url).unwrap().client_auth(
            ClientAuth::client_secret_basic(self.client.0.clone(), self.client.1.clone()),
        );
        let source = RefreshTokenSource::new(endpoint, self.refresh_token.clone());
        let source = match (self.place.file(), self.place.redis()) {
            (Some(store), _) => source.store(store),
            (_, Some(store)) => source.store(store),
            _ => source,
        };
        let schedule = Schedule::default().min_interval(Duration::from_millis(50));
        TokenCache::builder(source).schedule(schedule).build()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The process.

/// What this process was started for, if a fleet has started it.
pub fn orders() -> Option<Orders> {
    let orders = env::var(ORDERS).ok()?;
    Some(serde_json::from_str(&orders).unwrap())
}

struct Sailor {
    orders: Orders,
    stop: Arc<AtomicBool>,
    served: AtomicU64,
    left: AtomicU64,
}

/// Does what was ordered, and ends the process.
pub fn sail(orders: Orders) -> ! {
    let stop = Arc::new(AtomicBool::new(false));
    let told_to = Arc::clone(&stop);
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if line == "stop" {
                told_to.store(true, Ordering::SeqCst);
            }
        }
        // Nobody is there any more who could end it.
        exit(3);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work(orders, stop));
    exit(0)
}

async fn work(orders: Orders, stop: Arc<AtomicBool>) {
    let session = orders.session();
    let sailor = Arc::new(Sailor {
        orders,
        stop,
        served: AtomicU64::new(0),
        left: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for task in 0..sailor.orders.tasks {
        tasks.spawn(Arc::clone(&sailor).ask(session.clone(), task));
    }
    tasks.join_all().await;
    let status = session.status();
    // A process that ends in the midst of a refresh takes the new refresh token along. Who has the lease knows that
    // nobody is at it.
    sailor.orders.place.settle().await;
    tell(&Told::Done(Counts {
        served: sailor.served.load(Ordering::SeqCst),
        left: sailor.left.load(Ordering::SeqCst),
        tokens: status.issued,
        rejected: status.rejected,
    }));
}

fn tell(told: &Told) {
    // On a line of its own, whatever the test harness has begun to print.
    println!("\n{TOLD}{}", serde_json::to_string(told).unwrap());
}

impl Sailor {
    /// Asks the API for one thing after the other.
    async fn ask(self: Arc<Self>, session: TokenCache, task: usize) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let client = BearerAuthLayer::from(session).layer(client);
        for n in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            sleep(self.orders.pause.mul_f64(fastrand::f64())).await;
            let id = format!("{}-{task}-{n}", self.orders.name);
            let request: Request<Full<Bytes>> =
                Request::post(format!("{}/orders", self.orders.api))
                    .header("x-request-id", &id)
                    .body(Full::from(id.clone()))
                    .unwrap();
            let answer = client.clone().oneshot(request);
            let patience = match fastrand::u8(..100) {
                0..5 => Duration::from_millis(fastrand::u64(..20)),
                5..10 => Duration::from_millis(fastrand::u64(..1000)),
                _ => LONG,
            };
            match timeout(patience, answer).await {
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
                    failed(&id, &chain(&*error), error.downcast_ref());
                }
                Err(_) if patience < LONG => {
                    self.left.fetch_add(1, Ordering::SeqCst);
                    tell(&Told::Left(id));
                }
                Err(_) => failed(&id, "no answer", None),
            }
        }
    }
}

fn failed(id: &str, what: &str, reason: Option<&TokenError>) {
    let ended = reason.is_some_and(|reason| reason.kind() == TokenErrorKind::ReauthRequired);
    let reason = reason.map(|reason| chain(reason)).unwrap_or_default();
    let why = format!("{id}: {what}: {reason}");
    tell(&Told::Failed { ended, why });
}

fn chain(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

// ---------------------------------------------------------------------------------------------------------------------
// Those who started it.

/// What the processes have told so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Of requests that failed for another reason than that the session has ended.
    pub failed: Vec<String>,
    /// Of those that failed for that reason.
    pub ended: Vec<String>,
    /// Of the processes that were stopped in order.
    pub done: BTreeMap<String, Counts>,
}

impl Heard {
    pub fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in self.done.values() {
            sum.served += counts.served;
            sum.left += counts.left;
            sum.tokens += counts.tokens;
            sum.rejected += counts.rejected;
        }
        sum
    }
}

/// Processes that end with it, however it ends.
pub struct Fleet {
    entry: &'static str,
    orders: Orders,
    processes: Vec<Process>,
    started: usize,
    heard: Arc<Mutex<Heard>>,
    gone: Arc<dyn Fn(&str) + Send + Sync>,
}

struct Process {
    name: String,
    child: Child,
    listening: JoinHandle<()>,
}

impl Fleet {
    /// Starts processes that run the test `entry`. `gone` is called with each request that its caller gave up, and
    /// with each process that [`begin_anew`](Self::begin_anew) ended.
    pub fn start(
        entry: &'static str,
        size: usize,
        orders: Orders,
        gone: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let mut fleet = Self {
            entry,
            orders,
            processes: Vec::new(),
            started: 0,
            heard: Arc::default(),
            gone: Arc::new(gone),
        };
        for _ in 0..size {
            let process = fleet.launch();
            fleet.processes.push(process);
        }
        fleet
    }

    fn launch(&mut self) -> Process {
        self.started += 1;
        let name = format!("p{}", self.started);
        let orders = Orders {
            name: name.clone(),
            ..self.orders.clone()
        };
        let mut child = Command::new(env::current_exe().unwrap())
            .args([self.entry, "--exact", "--nocapture", "--test-threads=1"])
            .env(ORDERS, serde_json::to_string(&orders).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (heard, gone) = (Arc::clone(&self.heard), Arc::clone(&self.gone));
        let told_by = name.clone();
        let listening = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Some(told) = line.strip_prefix(TOLD) else {
                    continue;
                };
                // Who is killed may not have finished his sentence.
                let Ok(told) = serde_json::from_str(told) else {
                    continue;
                };
                match told {
                    Told::Left(id) => gone(&id),
                    Told::Failed { ended, why } => {
                        let mut heard = heard.lock().unwrap();
                        let told = if ended {
                            &mut heard.ended
                        } else {
                            &mut heard.failed
                        };
                        told.push(why);
                    }
                    Told::Done(counts) => {
                        heard.lock().unwrap().done.insert(told_by.clone(), counts);
                    }
                }
            }
        });
        Process {
            name,
            child,
            listening,
        }
    }

    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    /// Forgets what was told.
    pub fn forget(&self) {
        *self.heard.lock().unwrap() = Heard::default();
    }

    /// `kill -9` of one process, any of them; says which, and its name.
    pub async fn kill_one(&mut self) -> (usize, String) {
        let which = fastrand::usize(..self.processes.len());
        self.processes[which].end().await;
        (which, self.processes[which].name.clone())
    }

    /// Starts another in the place of one that was killed.
    pub fn replace(&mut self, which: usize) {
        self.processes[which] = self.launch();
    }

    /// Kills all of them, and starts as many with other orders.
    pub async fn begin_anew(&mut self, orders: Orders) {
        for process in &mut self.processes {
            process.end().await;
            (self.gone)(&process.name);
        }
        self.forget();
        self.orders = orders;
        for which in 0..self.processes.len() {
            self.replace(which);
        }
    }

    /// Fails if a process has ended that nobody has ended.
    pub fn check(&mut self) {
        for process in &mut self.processes {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "a process ended: {ended:?}");
        }
    }

    /// Ends all processes in order.
    pub async fn stop(mut self) -> Heard {
        // Kept until they have ended: the end of their input would end them at once, and waiting closes what they hold.
        let mut inputs = Vec::new();
        for process in &mut self.processes {
            let mut input = process.child.stdin.take().unwrap();
            input.write_all(b"stop\n").await.unwrap();
            inputs.push(input);
        }
        for process in &mut self.processes {
            let status = timeout(2 * LONG, process.child.wait()).await;
            let status = status.expect("a process does not stop").unwrap();
            assert!(status.success(), "{status}");
            timeout(LONG, &mut process.listening)
                .await
                .unwrap()
                .unwrap();
        }
        self.heard()
    }
}

impl Process {
    async fn end(&mut self) {
        self.child.kill().await.unwrap();
        timeout(LONG, &mut self.listening).await.unwrap().unwrap();
    }
}
