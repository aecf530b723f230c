//! One session, many processes, real sockets, real time: tokens that hardly live, processes that are killed.

#![cfg(all(feature = "file-store", feature = "redis-store", feature = "reqwest"))]

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/redis.rs"]
mod redis_server;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fleet::{Fleet, LEASE, LONG, Orders, Place};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use redis_server::Server as Redis;
use tokio::{
    sync::RwLock,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower::{ServiceExt, service_fn};
use tower_bearer::testing::{self, AuthorizationServer, Dialect, Fault, Served};

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
    served: Arc<AtomicUsize>,
    healing: Arc<Healing>,
}

/// Who would be the worse for a revocation. A request that was refused is sent once more, and not a third time: so nobody
/// may revoke the token that it comes back with. That may be one that another process got, so nobody may revoke a token
/// either before all processes have it.
#[derive(Default)]
struct Healing {
    /// Held to judge requests, and alone to revoke tokens.
    turn: RwLock<()>,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    refused: HashSet<String>,
    /// The token of the last request of each process.
    tokens: HashMap<String, String>,
    /// Requests that their callers have left, and processes that are dead: they don't come back.
    gone: HashSet<String>,
}

impl Healing {
    fn judged(&self, id: &str, token: String, refused: bool) {
        let mut state = self.state.lock().unwrap();
        let process = id.split('-').next().unwrap_or_default();
        if state.gone.contains(process) {
            return;
        }
        state.tokens.insert(process.to_owned(), token);
        if refused && !state.gone.contains(id) {
            state.refused.insert(id.to_owned());
        } else {
            state.refused.remove(id);
        }
    }

    /// Of a request, or of a process.
    fn gone(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.gone.insert(name.to_owned());
        state.tokens.remove(name);
        let process = format!("{name}-");
        state
            .refused
            .retain(|id| id != name && !id.starts_with(&process));
    }

    /// Does `revoke` if nobody is the worse for it.
    async fn revoke(&self, revoke: impl AsyncFnOnce(String)) -> bool {
        let _alone = self.turn.write().await;
        let tokens: HashSet<String> = {
            let state = self.state.lock().unwrap();
            if !state.refused.is_empty() {
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

impl Site {
    async fn open(server: AuthorizationServer) -> Self {
        let healing = Arc::new(Healing::default());
        let served = Arc::new(AtomicUsize::new(0));
        let (api, known, count) = (server.api(), Arc::clone(&healing), Arc::clone(&served));
        let service = service_fn(move |request: Request<Incoming>| {
            let (api, known, count) = (api.clone(), Arc::clone(&known), Arc::clone(&count));
            async move {
                let header = |name| request.headers()[name].to_str().map(str::to_owned);
                let (id, token) = (header("x-request-id")?, header("authorization")?);
                let _turn = known.turn.read().await;
                let response = api.oneshot(request).await?;
                known.judged(&id, token, response.status() == StatusCode::UNAUTHORIZED);
                count.fetch_add(1, Ordering::SeqCst);
                Ok::<_, tower::BoxError>(response)
            }
        });
        Self {
            tokens: testing::serve(server.clone()).await.unwrap(),
            api: testing::serve(service).await.unwrap(),
            server,
            served,
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
        site.served.load(Ordering::SeqCst),
        server.reuse_detected()
    );
    assert!(
        heard.failed.is_empty() && heard.ended.is_empty(),
        "{heard:#?}"
    );
    assert!(is_alive(&orders).await);
    // Each refresh token once, and nothing else was asked for.
    assert_eq!(server.refreshes(), server.token_requests());
    assert_eq!((server.refused(), server.reuse_detected()), (0, 0));
    assert!(revoked > 0 && counts.served > 0 && counts.left > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_keep_one_session_in_a_file_for_seconds() {
    let folder = tempfile::tempdir().unwrap();
    soak(
        in_folder(folder.path(), "session.json"),
        Duration::from_secs(5),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test --all-features --test soak -- --ignored"]
async fn eight_processes_keep_one_session_in_a_file_for_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    soak(
        in_folder(folder.path(), "session.json"),
        Duration::from_secs(60),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes a minute: cargo test --all-features --test soak -- --ignored"]
async fn eight_processes_keep_one_session_in_redis_for_a_minute() {
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
        site.served.load(Ordering::SeqCst),
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
#[ignore = "takes a minute: cargo test --all-features --test soak -- --ignored"]
async fn processes_that_are_killed_leave_a_whole_file_and_a_server_with_grace_forgives() {
    let folder = tempfile::tempdir().unwrap();
    kill(
        |name| in_folder(folder.path(), name),
        Some(Duration::from_secs(20)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test --all-features --test soak -- --ignored"]
async fn processes_that_are_killed_leave_a_whole_file_and_a_strict_server_is_named() {
    let folder = tempfile::tempdir().unwrap();
    kill(|name| in_folder(folder.path(), name), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes minutes: cargo test --all-features --test soak -- --ignored"]
async fn processes_that_are_killed_leave_redis_in_order_and_a_server_with_grace_forgives() {
    let redis = Redis::start(&[]).await;
    kill(|name| in_redis(&redis, name), Some(Duration::from_secs(20))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes minutes: cargo test --all-features --test soak -- --ignored"]
async fn processes_that_are_killed_leave_redis_in_order_and_a_strict_server_is_named() {
    let redis = Redis::start(&[]).await;
    kill(|name| in_redis(&redis, name), None).await;
}
