//! One session shared by many processes, over real sockets and in real time: short token lifetimes, killed processes.

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "support/redis.rs"]
mod redis_server;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fleet::{Fleet, LEASE_DURATION, StoreLocation, TIMEOUT, WorkerConfig};
use form_urlencoded::byte_serialize;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use postgres_server::Server as Postgres;
use redis_server::Server as Redis;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::{Mutex, RwLock},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower::{BoxError, Service, ServiceExt, service_fn};
use tower_bearer::{
    PostgresStore, SqliteStore,
    testing::{self, AuthorizationServer, Dialect, Fault, Served},
};

/// Only one of these tests runs at a time, because each needs the whole machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const ENTRY: &str = "worker_process";

/// The entry point of the worker processes. Does nothing unless one of the tests below has started it.
#[test]
fn worker_process() {
    if let Some(config) = fleet::config() {
        fleet::run_worker(config);
    }
}

/// An authorization server, and an API that accepts its tokens.
struct Servers {
    server: AuthorizationServer,
    tokens: Served,
    api: Served,
    checked: Arc<AtomicUsize>,
    revocations: Arc<Revocations>,
}

/// Decides when access tokens may be revoked. A rejected request is replayed once, and not a second time, so the token
/// of its replay must not be revoked. Another process may have got that token, so no token is revoked before all
/// processes use it.
#[derive(Default)]
struct Revocations {
    /// Requests are checked under the shared lock, and tokens are revoked under the exclusive one.
    may_revoke: RwLock<()>,
    state: StdMutex<RevocationState>,
}

#[derive(Default)]
struct RevocationState {
    rejected: HashSet<String>,
    /// The token of the last request of each process.
    tokens: HashMap<String, String>,
    /// Requests that were dropped by their callers, and killed processes. They are not sent again.
    dropped: HashSet<String>,
}

impl Revocations {
    fn checked(&self, id: &str, token: String, rejected: bool) {
        let mut state = self.state.lock().unwrap();
        let process = id.split('-').next().unwrap_or_default();
        if state.dropped.contains(process) {
            return;
        }
        state.tokens.insert(process.to_owned(), token);
        if rejected && !state.dropped.contains(id) {
            state.rejected.insert(id.to_owned());
        } else {
            state.rejected.remove(id);
        }
    }

    /// Forgets a request or a process that was dropped.
    fn dropped(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.dropped.insert(name.to_owned());
        state.tokens.remove(name);
        let process = format!("{name}-");
        state
            .rejected
            .retain(|id| id != name && !id.starts_with(&process));
    }

    /// Calls `revoke` with the current token, if no request would be rejected twice. Returns whether it was called.
    async fn revoke(&self, revoke: impl AsyncFnOnce(String)) -> bool {
        let _alone = self.may_revoke.write().await;
        let tokens: HashSet<String> = {
            let state = self.state.lock().unwrap();
            if !state.rejected.is_empty() {
                return false;
            }
            state.tokens.values().cloned().collect()
        };
        let mut tokens = tokens.into_iter();
        let (Some(token), None) = (tokens.next(), tokens.next()) else {
            return false;
        };
        revoke(token).await;
        true
    }
}

/// Serves `api`, and records the result of each request.
async fn serve_api<S, B>(api: S, revocations: &Arc<Revocations>, count: &Arc<AtomicUsize>) -> Served
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let (revocations, count) = (Arc::clone(revocations), Arc::clone(count));
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, revocations, count) = (api.clone(), Arc::clone(&revocations), Arc::clone(&count));
        async move {
            let header = |name| request.headers()[name].to_str().map(str::to_owned);
            let (id, token) = (header("x-request-id")?, header("authorization")?);
            let _permit = revocations.may_revoke.read().await;
            let response = api.oneshot(request).await.map_err(Into::into)?;
            revocations.checked(&id, token, response.status() == StatusCode::UNAUTHORIZED);
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, BoxError>(response)
        }
    });
    testing::serve(service).await.unwrap()
}

impl Servers {
    async fn open(server: AuthorizationServer) -> Self {
        let revocations = Arc::new(Revocations::default());
        let checked = Arc::new(AtomicUsize::new(0));
        Self {
            tokens: testing::serve(server.clone()).await.unwrap(),
            api: serve_api(server.api(), &revocations, &checked).await,
            server,
            checked,
            revocations,
        }
    }

    fn config(&self, store: StoreLocation, tasks: usize, pause: Duration) -> WorkerConfig {
        WorkerConfig {
            name: String::new(),
            store,
            token_url: format!("{}{}", self.tokens.url(), self.server.token_path()),
            client: (
                AuthorizationServer::CLIENT_ID.into(),
                AuthorizationServer::CLIENT_SECRET.into(),
            ),
            refresh_token: self.server.issue_refresh_token(),
            api: self.api.url(),
            tasks,
            pause,
        }
    }

    fn start(&self, size: usize, config: &WorkerConfig) -> Fleet {
        let revocations = Arc::clone(&self.revocations);
        Fleet::start(ENTRY, size, config.clone(), move |id| {
            revocations.dropped(id);
        })
    }

    /// Revokes or expires all access tokens.
    async fn end_access_tokens(&self) -> bool {
        let server = &self.server;
        self.revocations
            .revoke(async |_| {
                if fastrand::bool() {
                    server.revoke_access_tokens();
                } else {
                    server.expire_access_tokens();
                }
            })
            .await
    }
}

/// Whether a new process gets a token that the API accepts.
async fn session_is_alive(config: &WorkerConfig) -> bool {
    let token = config.session().token().await.unwrap();
    let request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(&config.api)
        .header("x-request-id", "last")
        .header("authorization", token.header().clone());
    request.send().await.unwrap().status() == StatusCode::OK
}

fn in_folder(folder: &Path, name: &str) -> StoreLocation {
    StoreLocation::File(folder.join(name))
}

fn in_postgres(postgres: &Postgres, name: &str) -> StoreLocation {
    StoreLocation::Postgres {
        url: postgres.url(),
        name: name.into(),
    }
}

fn in_sqlite(folder: &Path, name: &str) -> StoreLocation {
    StoreLocation::Sqlite {
        path: folder.join("sessions.db"),
        name: name.into(),
    }
}

/// A server of Postgres with the table of the sessions.
async fn postgres() -> Postgres {
    let postgres = Postgres::start(&[]).await;
    let store = PostgresStore::new(&postgres.url(), "any").unwrap();
    store.create_table().await.unwrap();
    postgres
}

/// A folder with a database of SQLite, with the table of the sessions.
async fn sqlite() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::new(folder.path().join("sessions.db"), "any").unwrap();
    store.create_table().await.unwrap();
    folder
}

fn in_redis(redis: &Redis, name: &str) -> StoreLocation {
    StoreLocation::Redis {
        url: format!("redis://127.0.0.1:{}", redis.port),
        name: name.into(),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// All processes stay alive.

/// With a strict server and a token lifetime of 2 s, no request fails and no refresh token is used twice.
async fn soak(store: StoreLocation, span: Duration) {
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .detect_reuse(true)
        .access_lifetime(Duration::from_secs(2));
    let servers = Servers::open(server.clone()).await;
    let config = servers.config(store, 25, Duration::from_millis(600));
    let mut fleet = servers.start(8, &config);
    let (mut revoked, end) = (0, Instant::now() + span);
    while Instant::now() < end {
        sleep(Duration::from_millis(fastrand::u64(100..700))).await;
        revoked += usize::from(servers.end_access_tokens().await);
        fleet.check();
        assert_eq!(server.reuse_detected(), 0);
    }
    let reports = fleet.stop().await;
    let counts = reports.sum();
    println!(
        "{} refreshes, {revoked} revocations, {} requests checked, {counts:?}, reuse detected {}",
        server.refreshes(),
        servers.checked.load(Ordering::SeqCst),
        server.reuse_detected()
    );
    assert!(
        reports.failed.is_empty() && reports.ended.is_empty(),
        "{reports:#?}"
    );
    assert!(session_is_alive(&config).await);
    // Each refresh token was used once, and there were no other token requests.
    assert_eq!(server.refreshes(), server.token_requests());
    assert_eq!((server.rejected(), server.reuse_detected()), (0, 0));
    assert!(revoked > 0 && counts.served > 0 && counts.dropped > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_share_a_session_in_a_file_for_seconds() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    soak(
        in_folder(folder.path(), "session.json"),
        Duration::from_secs(5),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test -p stack-tests --test soak -- --ignored"]
async fn eight_processes_share_a_session_in_a_file_for_a_minute() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    soak(
        in_folder(folder.path(), "session.json"),
        Duration::from_secs(60),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes a minute: cargo test -p stack-tests --test soak -- --ignored"]
async fn eight_processes_share_a_session_in_redis_for_a_minute() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let redis = Redis::start(&[]).await;
    soak(in_redis(&redis, "soak"), Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test soak -- --ignored"]
async fn eight_processes_share_a_session_in_postgres() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let postgres = postgres().await;
    soak(in_postgres(&postgres, "soak"), Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes seconds: cargo test -p stack-tests --test soak -- --ignored"]
async fn eight_processes_share_a_session_in_sqlite() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = sqlite().await;
    soak(in_sqlite(folder.path(), "soak"), Duration::from_secs(10)).await;
}

// ---------------------------------------------------------------------------------------------------------------------
// Processes are killed.

/// The longest time without a refresh. A lease outlives a killed holder by [`LEASE_DURATION`], the next holder needs
/// time to notice, and the machine may be busy.
const MAX_OUTAGE: Duration = Duration::from_secs(20);

/// How long a server that is not strict accepts a refresh token after it was replaced.
const GRACE: Option<Duration> = Some(Duration::from_secs(20));

/// How often a process is killed that has its session in a database. The statements are the same for both, and the
/// leases end as in Redis.
const KILLS_WITH_DATABASES: usize = 15;

/// Loads the stored session all the time, and fails if it is not whole.
struct StoreReader(JoinHandle<()>);

impl StoreReader {
    fn on(store: StoreLocation, loads: Arc<AtomicUsize>) -> Self {
        Self(tokio::spawn(async move {
            let loaded = || {
                loads.fetch_add(1, Ordering::SeqCst);
            };
            store.keep_loading(loaded).await;
        }))
    }

    async fn end(self) {
        self.0.abort();
        let ended = self.0.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}

/// `kill -9` of one of 4 processes, again and again, while tokens are refreshed as often as possible.
async fn kill_processes(
    stores: impl Fn(&str) -> StoreLocation,
    kills: usize,
    grace: Option<Duration>,
) {
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .detect_reuse(true)
        .grace(grace.unwrap_or_default())
        .access_lifetime(Duration::from_secs(2));
    // The server delays its replies: a process that is killed meanwhile has used up a refresh token and loses the new
    // one.
    server.fault_always(Fault::Delay(Duration::from_millis(60)));
    let servers = Arc::new(Servers::open(server.clone()).await);
    let ending_tokens = tokio::spawn({
        let servers = Arc::clone(&servers);
        async move {
            loop {
                sleep(Duration::from_millis(fastrand::u64(50..200))).await;
                servers.end_access_tokens().await;
            }
        }
    });
    let loads = Arc::new(AtomicUsize::new(0));
    let mut config = servers.config(stores("0"), 10, Duration::from_millis(200));
    let mut watch = StoreReader::on(config.store.clone(), Arc::clone(&loads));
    let mut fleet = servers.start(4, &config);
    let (mut alive, mut ended, mut longest) = (0, 0, Duration::ZERO);
    for n in 1..=kills {
        sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        fleet.check();
        let before = server.refreshes();
        let (killed, name) = fleet.kill_one().await;
        servers.revocations.dropped(&name);
        let since = Instant::now();
        // One of the refreshes may be that of the killed process.
        while server.refreshes() < before + 2 && server.reuse_detected() == ended {
            assert!(
                since.elapsed() < MAX_OUTAGE,
                "no process refreshes: {:?}",
                fleet.reports()
            );
            sleep(Duration::from_millis(2)).await;
        }
        longest = longest.max(since.elapsed());
        fleet.replace(killed);
        if server.reuse_detected() == ended {
            alive += 1;
            continue;
        }
        ended += 1;
        assert_eq!(grace, None, "reuse within the grace");
        // The other processes report why a new login is needed. Then the test logs in again.
        while fleet.reports().ended.is_empty() {
            assert!(
                since.elapsed() < TIMEOUT,
                "no process reports the end of the session"
            );
            sleep(Duration::from_millis(2)).await;
        }
        for why in fleet.reports().ended {
            assert!(why.contains("was interrupted"), "{why}");
        }
        watch.end().await;
        config = servers.config(stores(&n.to_string()), 10, Duration::from_millis(200));
        watch = StoreReader::on(config.store.clone(), Arc::clone(&loads));
        fleet.restart_all(config.clone()).await;
    }
    ending_tokens.abort();
    let reports = fleet.stop().await;
    watch.end().await;
    println!(
        "{kills} killed: alive {alive}, ended {ended}; {} refreshes, {} requests checked, {} loads of the stored session, \
         longest without a refresh {longest:?}, of the survivors {:?}",
        server.refreshes(),
        servers.checked.load(Ordering::SeqCst),
        loads.load(Ordering::SeqCst),
        reports.sum()
    );
    assert!(
        reports.failed.is_empty() && reports.ended.is_empty(),
        "{reports:#?}"
    );
    assert!(session_is_alive(&config).await);
    assert_eq!(server.reuse_detected(), ended);
    assert!(LEASE_DURATION < MAX_OUTAGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test -p stack-tests --test soak -- --ignored"]
async fn killed_processes_do_not_corrupt_the_file_and_the_session_survives_with_grace() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    kill_processes(|name| in_folder(folder.path(), name), 100, GRACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test -p stack-tests --test soak -- --ignored"]
async fn killed_processes_do_not_corrupt_the_file_and_a_strict_server_is_named() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    kill_processes(|name| in_folder(folder.path(), name), 100, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes minutes: cargo test -p stack-tests --test soak -- --ignored"]
async fn killed_processes_do_not_corrupt_redis_and_the_session_survives_with_grace() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let redis = Redis::start(&[]).await;
    kill_processes(|name| in_redis(&redis, name), 100, GRACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes minutes: cargo test -p stack-tests --test soak -- --ignored"]
async fn killed_processes_do_not_corrupt_redis_and_a_strict_server_is_named() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let redis = Redis::start(&[]).await;
    kill_processes(|name| in_redis(&redis, name), 100, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test soak -- --ignored"]
async fn killed_processes_do_not_corrupt_postgres_and_the_session_survives_with_grace() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let postgres = postgres().await;
    let stores = |name: &str| in_postgres(&postgres, name);
    kill_processes(stores, KILLS_WITH_DATABASES, GRACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test soak -- --ignored"]
async fn killed_processes_do_not_corrupt_postgres_and_a_strict_server_is_named() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let postgres = postgres().await;
    let stores = |name: &str| in_postgres(&postgres, name);
    kill_processes(stores, KILLS_WITH_DATABASES, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes seconds: cargo test -p stack-tests --test soak -- --ignored"]
async fn killed_processes_do_not_corrupt_sqlite_and_the_session_survives_with_grace() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = sqlite().await;
    let stores = |name: &str| in_sqlite(folder.path(), name);
    kill_processes(stores, KILLS_WITH_DATABASES, GRACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes seconds: cargo test -p stack-tests --test soak -- --ignored"]
async fn killed_processes_do_not_corrupt_sqlite_and_a_strict_server_is_named() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = sqlite().await;
    let stores = |name: &str| in_sqlite(folder.path(), name);
    kill_processes(stores, KILLS_WITH_DATABASES, None).await;
}

// ---------------------------------------------------------------------------------------------------------------------
// A certified server, which ends the session when a refresh token is used again.

/// A process of npm's `oidc-provider`, which ends when this is dropped.
struct Provider {
    url: String,
    http: reqwest::Client,
    _process: Child,
    /// Keeps the pipe open that the process logs to.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Provider {
    const CLIENT: (&str, &str) = ("client:1", "s3cr+t/=&% and more");

    async fn start() -> Self {
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
        let url = lines.next_line().await.unwrap();
        // The server may close an idle connection just when it is used again.
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0);
        Self {
            url: url.expect("the server's URL"),
            http: http.build().unwrap(),
            _process: process,
            _output: lines,
        }
    }

    async fn post(&self, path: &str) -> String {
        let request = self.http.post(format!("{}{path}", self.url));
        let response = request.send().await.unwrap().error_for_status().unwrap();
        response.text().await.unwrap()
    }

    /// Introspects the token (RFC 7662), as an API does for each request.
    async fn is_live(&self, access_token: &str) -> bool {
        let token: String = byte_serialize(access_token.as_bytes()).collect();
        let request = self
            .http
            .post(format!("{}/token/introspection", self.url))
            .basic_auth("api", Some("api-secret"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"));
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        answer["active"] == true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs npm oidc-provider: a folder with it in `OIDC_PROVIDER_HOME`"]
async fn six_processes_share_a_session_at_a_certified_server() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let provider = Arc::new(Provider::start().await);
    let revocations = Arc::new(Revocations::default());
    let checked = Arc::new(AtomicUsize::new(0));
    let api = service_fn({
        let provider = Arc::clone(&provider);
        move |request: Request<Incoming>| {
            let provider = Arc::clone(&provider);
            async move {
                let token = request.headers()["authorization"].to_str()?;
                let token = token.strip_prefix("Bearer ").unwrap_or_default();
                let mut response = Response::new(Either::Left(Empty::<Bytes>::new()));
                if provider.is_live(token).await {
                    response = Response::new(Either::Right(request.into_body()));
                } else {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                Ok::<_, BoxError>(response)
            }
        }
    });
    let api = serve_api(api, &revocations, &checked).await;
    let folder = tempfile::tempdir().unwrap();
    let (id, secret) = Provider::CLIENT;
    let config = WorkerConfig {
        name: String::new(),
        store: in_folder(folder.path(), "session.json"),
        token_url: format!("{}/token", provider.url),
        client: (id.into(), secret.into()),
        refresh_token: provider.post("/login/refresh_token").await,
        api: api.url(),
        tasks: 10,
        pause: Duration::from_secs(1),
    };
    let dropped = Arc::clone(&revocations);
    let mut fleet = Fleet::start(ENTRY, 6, config.clone(), move |id| dropped.dropped(id));
    let (mut revoked, end) = (0, Instant::now() + Duration::from_secs(30));
    while Instant::now() < end {
        sleep(Duration::from_millis(fastrand::u64(100..700))).await;
        revocations
            .revoke(async |token| {
                let token = token.strip_prefix("Bearer ").unwrap_or_default();
                if provider.is_live(token).await {
                    provider
                        .post(&format!("/revoke_access_token/{token}"))
                        .await;
                    revoked += 1;
                }
            })
            .await;
        fleet.check();
    }
    let reports = fleet.stop().await;
    let counts = reports.sum();
    println!(
        "{revoked} revocations, {} requests checked, {counts:?}",
        checked.load(Ordering::SeqCst)
    );
    assert!(
        reports.failed.is_empty() && reports.ended.is_empty(),
        "{reports:#?}"
    );
    assert!(session_is_alive(&config).await);
    assert!(revoked > 0 && counts.served > 0);
}
