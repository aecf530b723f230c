//! Processes that are killed exactly between a token request and the save of its tokens, with real stores.
//!
//! The authorization server aims: it sends SIGKILL to the process whose request it has, before or after it has rotated the
//! refresh token, or shortly after it has answered.

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/redis.rs"]
mod redis_server;

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use fleet::{CONFIG_VARIABLE, StoreLocation, TIMEOUT, WorkerConfig};
use http::{Request, Response};
use hyper::body::Incoming;
use redis_server::Server as Redis;
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::{sleep, timeout},
};
use tower::{BoxError, ServiceExt, service_fn};
use tower_bearer::testing::{self, AuthorizationServer, Dialect, ResponseBody, Served};

/// The entry point of the processes. Prints a token, or why there is none.
#[test]
fn process() {
    let Some(config) = fleet::config() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match runtime.block_on(config.session().token()) {
        Ok(token) => println!("\ntoken: {}", token.expose_secret()),
        Err(error) => println!("\nerror: {error}"),
    }
}

/// When the server kills the process whose request it has.
#[derive(Clone, Copy, Debug)]
enum Aim {
    /// It has not processed the request.
    BeforeRotation,
    /// It has rotated the refresh token, and not answered.
    AfterRotation,
    /// So long after it has handed over its answer.
    AfterAnswer(Duration),
}

/// The process to kill, and when.
type Target = Arc<Mutex<Option<(Aim, Child)>>>;

fn kill(target: &Target) {
    if let Some((_, process)) = &mut *target.lock().unwrap() {
        process.start_kill().unwrap();
    }
}

/// Serves `server`, and kills the target of its next request.
async fn serve(server: AuthorizationServer, target: &Target) -> Served {
    let target = Arc::clone(target);
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, target) = (server.clone(), Arc::clone(&target));
        async move {
            let aim = target.lock().unwrap().as_ref().map(|target| target.0);
            if let Some(Aim::BeforeRotation) = aim {
                kill(&target);
                return Err("the process is killed".into());
            }
            let response: Response<ResponseBody> = server.oneshot(request).await?;
            match aim {
                Some(Aim::AfterRotation) => {
                    kill(&target);
                    Err("the process is killed".into())
                }
                Some(Aim::AfterAnswer(after)) => {
                    tokio::spawn(async move {
                        sleep(after).await;
                        kill(&target);
                    });
                    Ok(response)
                }
                Some(Aim::BeforeRotation) | None => Ok::<_, BoxError>(response),
            }
        }
    });
    testing::serve(service).await.unwrap()
}

fn start(config: &WorkerConfig) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["process", "--exact", "--nocapture", "--test-threads=1"])
        .env(CONFIG_VARIABLE, serde_json::to_string(config).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// What a process printed, if it was not killed before.
async fn printed(process: &mut Child) -> Option<Result<String, String>> {
    let mut output = String::new();
    let mut stdout = process.stdout.take().unwrap();
    timeout(TIMEOUT, stdout.read_to_string(&mut output))
        .await
        .expect("the process ends")
        .unwrap();
    process.wait().await.unwrap();
    output.lines().find_map(|line| {
        let token = line.strip_prefix("token: ").map(|token| Ok(token.into()));
        token.or_else(|| Some(Err(line.strip_prefix("error: ")?.into())))
    })
}

/// Kills a process at `aim`. Returns what the next one printed, and the server.
async fn kill_one(
    store: StoreLocation,
    grace: Duration,
    aim: Aim,
) -> (Result<String, String>, AuthorizationServer) {
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .detect_reuse(true)
        .grace(grace);
    let target = Target::default();
    let endpoint = serve(server.clone(), &target).await;
    let config = WorkerConfig {
        name: String::new(),
        store,
        token_url: format!("{}{}", endpoint.url(), server.token_path()),
        client: (
            AuthorizationServer::CLIENT_ID.into(),
            AuthorizationServer::CLIENT_SECRET.into(),
        ),
        refresh_token: server.issue_refresh_token(),
        api: String::new(),
        tasks: 0,
        pause: Duration::ZERO,
    };
    {
        // The server must not get the request before it knows the process.
        let mut target = target.lock().unwrap();
        *target = Some((aim, start(&config)));
    }
    // The process has ended: killed, or because it was done before the signal came.
    loop {
        let has_ended = match &mut *target.lock().unwrap() {
            Some((_, process)) => process.try_wait().unwrap().is_some(),
            None => unreachable!("the target is set"),
        };
        if has_ended {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    target.lock().unwrap().take();
    config
        .store
        .is_stored()
        .await
        .expect("a whole session, or none");
    let next = printed(&mut start(&config)).await;
    (next.expect("nobody kills the second process"), server)
}

/// Kills at each point, with a server that forgives nothing and with one that does.
async fn kill_at_each_point(stores: impl Fn(&str) -> StoreLocation, rounds: u64) {
    let mut number = 0;
    let mut store = || {
        number += 1;
        stores(&number.to_string())
    };
    for _ in 0..rounds {
        // Nothing is lost.
        for grace in [Duration::ZERO, TIMEOUT] {
            let (next, server) = kill_one(store(), grace, Aim::BeforeRotation).await;
            assert!(server.is_live(&next.unwrap()));
            assert_eq!((server.refreshes(), server.reuse_detected()), (1, 0));
        }
        // The successor is lost. Within the grace period the old refresh token is accepted again.
        let (next, server) = kill_one(store(), TIMEOUT, Aim::AfterRotation).await;
        assert!(server.is_live(&next.unwrap()));
        assert_eq!((server.refreshes(), server.reuse_detected()), (2, 0));
        // Without one, the session ends, and the next process says why.
        let (next, server) = kill_one(store(), Duration::ZERO, Aim::AfterRotation).await;
        let error = next.unwrap_err();
        assert!(error.contains("was interrupted"), "{error}");
        assert_eq!((server.refreshes(), server.reuse_detected()), (1, 1));
    }
    // It is saved or lost, and never anything between.
    let (mut saved, mut lost) = (0, 0);
    for round in 0..4 * rounds {
        let after = Duration::from_micros(round * 2_000 / rounds);
        let (next, server) = kill_one(store(), Duration::ZERO, Aim::AfterAnswer(after)).await;
        match next {
            Ok(token) => {
                saved += 1;
                assert!(server.is_live(&token));
                assert_eq!((server.refreshes(), server.reuse_detected()), (1, 0));
            }
            Err(error) => {
                lost += 1;
                assert!(error.contains("was interrupted"), "{error}");
                assert_eq!((server.refreshes(), server.reuse_detected()), (1, 1));
            }
        }
        let (next, server) = kill_one(store(), TIMEOUT, Aim::AfterAnswer(after)).await;
        assert!(server.is_live(&next.unwrap()));
        assert_eq!(server.reuse_detected(), 0);
    }
    println!("killed after the answer: {saved} sessions were saved, {lost} were lost");
}

fn in_folder(folder: &Path, name: &str) -> StoreLocation {
    StoreLocation::File(folder.join(format!("{name}.json")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_survives_a_kill_between_token_request_and_save() {
    let folder = tempfile::tempdir().unwrap();
    kill_at_each_point(|name| in_folder(folder.path(), name), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test -p stack-tests --test kills -- --ignored"]
async fn a_file_survives_hundreds_of_kills_between_token_request_and_save() {
    let folder = tempfile::tempdir().unwrap();
    kill_at_each_point(|name| in_folder(folder.path(), name), 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server, takes minutes: cargo test -p stack-tests --test kills -- --ignored"]
async fn redis_survives_a_kill_between_token_request_and_save() {
    let redis = Redis::start(&[]).await;
    let stores = |name: &str| StoreLocation::Redis {
        url: format!("redis://127.0.0.1:{}", redis.port),
        name: name.into(),
    };
    kill_at_each_point(stores, 4).await;
}
