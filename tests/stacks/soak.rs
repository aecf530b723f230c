//! One session, many processes, real sockets, real time: tokens that hardly live, processes that are killed.

#[path = "support/fleet.rs"]
mod fleet;
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
use fleet::{Fleet, LEASE, LONG, Orders, Place};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use redis_server::Server as Redis;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::{Mutex, RwLock},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower::{BoxError, Service, ServiceExt, service_fn};
use tower_bearer::testing::{self, AuthorizationServer, Dialect, Fault, Served};
use url::form_urlencoded::byte_serialize;

/// One test at a time: each keeps a machine busy.
static TURN: Mutex<()> = Mutex::const_new(());

const ENTRY: &str = "a_process_of_the_fleet_does_as_it_is_told";

/// Where the processes begin; nothing to do unless one of the tests below has started it.
#[test]
fn a_process_of_the_fleet_does_as_it_is_told() {
    if let Some(orders) = fleet::orders() {
        fleet::sail(orders);
    }
}

/// An authorization server, and an API that takes its tokens.
struct Site {
    server: AuthorizationServer,
    tokens: Served,
    api: Served,
    judged: Arc<AtomicUsize>,
    healing: Arc<Healing>,
}

/// Who would be the worse for a revocation. A request that was rejected is sent once more, and not a third time: so nobody
/// may revoke the token that it comes back with. That may be one that another process got, so nobody may revoke a token
/// either before all processes have it.
#[derive(Default)]
struct Healing {
    /// Held to judge requests, and alone to revoke tokens.
    turn: RwLock<()>,
    state: StdMutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    rejected: HashSet<String>,
    /// The token of the last request of each process.
    tokens: HashMap<String, String>,
    /// Requests that their callers have left, and processes that are dead: they don't come back.
    gone: HashSet<String>,
}

impl Healing {
    fn judged(&self, id: &str, token: String, rejected: bool) {
        let mut state = self.state.lock().unwrap();
        let process = id.split('-').next().unwrap_or_default();
        if state.gone.contains(process) {
            return;
        }
        state.tokens.insert(process.to_owned(), token);
        if rejected && !state.gone.contains(id) {
            state.rejected.insert(id.to_owned());
        } else {
            state.rejected.remove(id);
        }
    }

    /// Of a request, or of a process.
    fn gone(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.gone.insert(name.to_owned());
        state.tokens.remove(name);
        let process = format!("{name}-");
        state
            .rejected
            .retain(|id| id != name && !id.starts_with(&process));
    }

    /// Does `revoke` if nobody is the worse for it.
    async fn revoke(&self, revoke: impl AsyncFnOnce(String)) -> bool {
        let _alone = self.turn.write().await;
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

/// Serves `api`, and notes what it makes of the requests.
async fn guard<S, B>(api: S, healing: &Arc<Healing>, count: &Arc<AtomicUsize>) -> Served
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let (healing, count) = (Arc::clone(healing), Arc::clone(count));
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, healing, count) = (api.clone(), Arc::clone(&healing), Arc::clone(&count));
        async move {
            let header = |name| request.headers()[name].to_str().map(str::to_owned);
            let (id, token) = (header("x-request-id")?, header("authorization")?);
            let _turn = healing.turn.read().await;
            let response = api.oneshot(request).await.map_err(Into::into)?;
            healing.judged(&id, token, response.status() == StatusCode::UNAUTHORIZED);
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, BoxError>(response)
        }
    });
    testing::serve(service).await.unwrap()
}

impl Site {
    async fn open(server: AuthorizationServer) -> Self {
        let healing = Arc::new(Healing::default());
        let judged = Arc::new(AtomicUsize::new(0));
        Self {
            tokens: testing::serve(server.clone()).await.unwrap(),
            api: guard(server.api(), &healing, &judged).await,
            server,
            judged,
            healing,
        }
    }

    fn orders(&self, place: Place, tasks: usize, pause: Duration) -> Orders {
        Orders {
            name: String::new(),
            place,
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

    fn start(&self, size: usize, orders: &Orders) -> Fleet {
        let healing = Arc::clone(&self.healing);
        Fleet::start(ENTRY, size, orders.clone(), move |id| healing.gone(id))
    }

    /// Ends all access tokens, in one way or the other.
    async fn disturb(&self) -> bool {
        let server = &self.server;
        self.healing
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

/// Whether a process that begins now is served.
async fn is_alive(orders: &Orders) -> bool {
    let token = orders.session().token().await.unwrap();
    let request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(&orders.api)
        .header("x-request-id", "last")
        .header("authorization", token.header().clone());
    request.send().await.unwrap().status() == StatusCode::OK
}

fn in_folder(folder: &Path, name: &str) -> Place {
    Place::File(folder.join(name))
}

fn in_redis(redis: &Redis, name: &str) -> Place {
    Place::Redis {
        url: format!("redis://127.0.0.1:{}", redis.port),
        name: name.into(),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Nobody dies.

/// A strict server, and tokens that live 2 s: no request fails, and no refresh token is used twice.
async fn soak(place: Place, span: Duration) {
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .detect_reuse(true)
        .access_lifetime(Duration::from_secs(2));
    let site = Site::open(server.clone()).await;
    let orders = site.orders(place, 25, Duration::from_millis(600));
    let mut fleet = site.start(8, &orders);
    let (mut revoked, end) = (0, Instant::now() + span);
    while Instant::now() < end {
        sleep(Duration::from_millis(fastrand::u64(100..700))).await;
        revoked += usize::from(site.disturb().await);
        fleet.check();
        assert_eq!(server.reuse_detected(), 0);
    }
    let heard = fleet.stop().await;
    let counts = heard.sum();
    println!(
        "{} refreshes, {revoked} revocations, {} requests judged, {counts:?}, reuse detected {}",
        server.refreshes(),
        site.judged.load(Ordering::SeqCst),
        server.reuse_detected()
    );
    assert!(
        heard.failed.is_empty() && heard.ended.is_empty(),
        "{heard:#?}"
    );
    assert!(is_alive(&orders).await);
    // Each refresh token once, and nothing else was asked for.
    assert_eq!(server.refreshes(), server.token_requests());
    assert_eq!((server.rejected(), server.reuse_detected()), (0, 0));
    assert!(revoked > 0 && counts.served > 0 && counts.left > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_keep_one_session_in_a_file_for_seconds() {
    let _alone = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    soak(
        in_folder(folder.path(), "session.json"),
        Duration::from_secs(5),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test -p stack-tests --test soak -- --ignored"]
async fn eight_processes_keep_one_session_in_a_file_for_a_minute() {
    let _alone = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    soak(
        in_folder(folder.path(), "session.json"),
        Duration::from_secs(60),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes a minute: cargo test -p stack-tests --test soak -- --ignored"]
async fn eight_processes_keep_one_session_in_redis_for_a_minute() {
    let _alone = TURN.lock().await;
    let redis = Redis::start(&[]).await;
    soak(in_redis(&redis, "soak"), Duration::from_secs(60)).await;
}

// ---------------------------------------------------------------------------------------------------------------------
// Some die.

/// Beyond this, a lease is stuck: it outlives its holder by [`LEASE`] at most, the next holder needs his time to learn of it,
/// and the machine may be busy.
const STUCK: Duration = Duration::from_secs(20);

/// Looks at what is stored, all the time.
struct Watch(JoinHandle<()>);

impl Watch {
    fn on(place: Place, looks: Arc<AtomicUsize>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                if place.look().await.expect("a whole session, or none") {
                    looks.fetch_add(1, Ordering::SeqCst);
                }
                sleep(Duration::from_millis(3)).await;
            }
        }))
    }

    async fn end(self) {
        self.0.abort();
        let ended = self.0.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}

/// `kill -9` of one of 4 processes, a hundred times, while tokens are refreshed as often as can be.
async fn kill(places: impl Fn(&str) -> Place, grace: Option<Duration>) {
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .detect_reuse(true)
        .grace(grace.unwrap_or_default())
        .access_lifetime(Duration::from_secs(2));
    // Its work done, it takes its time: whoever is killed meanwhile has spent a refresh token for nothing.
    server.fault_always(Fault::Delay(Duration::from_millis(60)));
    let site = Arc::new(Site::open(server.clone()).await);
    let disturbing = tokio::spawn({
        let site = Arc::clone(&site);
        async move {
            loop {
                sleep(Duration::from_millis(fastrand::u64(50..200))).await;
                site.disturb().await;
            }
        }
    });
    let looks = Arc::new(AtomicUsize::new(0));
    let mut orders = site.orders(places("0"), 10, Duration::from_millis(200));
    let mut watch = Watch::on(orders.place.clone(), Arc::clone(&looks));
    let mut fleet = site.start(4, &orders);
    let (mut alive, mut ended, mut longest) = (0, 0, Duration::ZERO);
    for n in 1..=100 {
        sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        fleet.check();
        let before = server.refreshes();
        let (killed, name) = fleet.kill_one().await;
        site.healing.gone(&name);
        let since = Instant::now();
        // One refresh may still be that of the process that died.
        while server.refreshes() < before + 2 && server.reuse_detected() == ended {
            assert!(
                since.elapsed() < STUCK,
                "nobody refreshes: {:?}",
                fleet.heard()
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
        // The survivors say why a person must log in, which then somebody does.
        while fleet.heard().ended.is_empty() {
            assert!(since.elapsed() < LONG, "nobody says that the session ended");
            sleep(Duration::from_millis(2)).await;
        }
        for why in fleet.heard().ended {
            assert!(why.contains("was interrupted"), "{why}");
        }
        watch.end().await;
        orders = site.orders(places(&n.to_string()), 10, Duration::from_millis(200));
        watch = Watch::on(orders.place.clone(), Arc::clone(&looks));
        fleet.begin_anew(orders.clone()).await;
    }
    disturbing.abort();
    let heard = fleet.stop().await;
    watch.end().await;
    println!(
        "100 killed: alive {alive}, ended {ended}; {} refreshes, {} requests judged, {} looks at what is stored, \
         longest without a refresh {longest:?}, of the survivors {:?}",
        server.refreshes(),
        site.judged.load(Ordering::SeqCst),
        looks.load(Ordering::SeqCst),
        heard.sum()
    );
    assert!(
        heard.failed.is_empty() && heard.ended.is_empty(),
        "{heard:#?}"
    );
    assert!(is_alive(&orders).await);
    assert_eq!(server.reuse_detected(), ended);
    assert!(LEASE < STUCK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test -p stack-tests --test soak -- --ignored"]
async fn processes_that_are_killed_leave_a_whole_file_and_a_server_with_grace_forgives() {
    let _alone = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    kill(
        |name| in_folder(folder.path(), name),
        Some(Duration::from_secs(20)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test -p stack-tests --test soak -- --ignored"]
async fn processes_that_are_killed_leave_a_whole_file_and_a_strict_server_is_named() {
    let _alone = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    kill(|name| in_folder(folder.path(), name), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes minutes: cargo test -p stack-tests --test soak -- --ignored"]
async fn processes_that_are_killed_leave_redis_in_order_and_a_server_with_grace_forgives() {
    let _alone = TURN.lock().await;
    let redis = Redis::start(&[]).await;
    kill(|name| in_redis(&redis, name), Some(Duration::from_secs(20))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes minutes: cargo test -p stack-tests --test soak -- --ignored"]
async fn processes_that_are_killed_leave_redis_in_order_and_a_strict_server_is_named() {
    let _alone = TURN.lock().await;
    let redis = Redis::start(&[]).await;
    kill(|name| in_redis(&redis, name), None).await;
}

// ---------------------------------------------------------------------------------------------------------------------
// A certified server, which ends the session when a refresh token comes back.

/// npm's `oidc-provider`, until it is dropped.
struct Provider {
    url: String,
    http: reqwest::Client,
    _process: Child,
    /// Where it still logs to.
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
        // A kept connection may be closed by the server just when it is used again.
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

    /// What an API asks of each request (RFC 7662).
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
async fn six_processes_keep_one_session_at_a_certified_server() {
    let _alone = TURN.lock().await;
    let provider = Arc::new(Provider::start().await);
    let healing = Arc::new(Healing::default());
    let judged = Arc::new(AtomicUsize::new(0));
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
    let api = guard(api, &healing, &judged).await;
    let folder = tempfile::tempdir().unwrap();
    let (id, secret) = Provider::CLIENT;
    let orders = Orders {
        name: String::new(),
        place: in_folder(folder.path(), "session.json"),
        token_url: format!("{}/token", provider.url),
        client: (id.into(), secret.into()),
        refresh_token: provider.post("/login/refresh_token").await,
        api: api.url(),
        tasks: 10,
        pause: Duration::from_secs(1),
    };
    let gone = Arc::clone(&healing);
    let mut fleet = Fleet::start(ENTRY, 6, orders.clone(), move |id| gone.gone(id));
    let (mut revoked, end) = (0, Instant::now() + Duration::from_secs(30));
    while Instant::now() < end {
        sleep(Duration::from_millis(fastrand::u64(100..700))).await;
        healing
            .revoke(async |token| {
                let token = token.strip_prefix("Bearer ").unwrap_or_default();
                if provider.is_live(token).await {
                    provider.post(&format!("/withdraw/{token}")).await;
                    revoked += 1;
                }
            })
            .await;
        fleet.check();
    }
    let heard = fleet.stop().await;
    let counts = heard.sum();
    println!(
        "{revoked} revocations, {} requests judged, {counts:?}",
        judged.load(Ordering::SeqCst)
    );
    assert!(
        heard.failed.is_empty() && heard.ended.is_empty(),
        "{heard:#?}"
    );
    assert!(is_alive(&orders).await);
    assert!(revoked > 0 && counts.served > 0);
}
