//! Stores whose server fails while sessions are refreshed: restarted, killed, or replaced by a replica that had not received
//! the last write. What must happen then is written down in the documentation of `TokenStore`.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis_server;

use std::time::Duration;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tower_bearer::{
    BoxTokenStore, ClientAuth, OAuthClient, PostgresStore, RedisStore, RefreshTokenSource,
    Schedule, Token, TokenCache, TokenError, TokenErrorKind, TokenStore,
    testing::{AuthorizationServer, Dialect},
};

/// Longer than everything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(60);

/// A server that takes a refresh token which comes back for a theft.
fn strict_server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .public_client("app")
        .rotate(true)
        .detect_reuse(true)
}

fn cache(server: &AuthorizationServer, refresh_token: &str, store: BoxTokenStore) -> TokenCache {
    let client = OAuthClient::with_transport("https://login.example.com/token", server.clone())
        .unwrap()
        .client_auth(ClientAuth::none("app"));
    let schedule = Schedule::default().min_interval(Duration::from_millis(1));
    let source = RefreshTokenSource::new(client, refresh_token)
        .store(store)
        .schedule(schedule);
    TokenCache::new(source)
}

/// Rejects the token, and tries until there is another.
async fn next_token(cache: &TokenCache, rejected: &Token) -> Token {
    cache.reject(rejected);
    let next = async {
        loop {
            match cache.token().await {
                Ok(token) if token.expose_secret() != rejected.expose_secret() => return token,
                Ok(_) => {}
                Err(error) => assert!(!error.is_final(), "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, next)
        .await
        .expect("a token after the failure")
}

/// Forwards connections to the port that was set last. Those to an earlier one are closed.
async fn proxy(target: watch::Receiver<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut target = target.clone();
            tokio::spawn(async move {
                let port = *target.borrow_and_update();
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else {
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = target.changed() => {}
                }
            });
        }
    });
    port
}

/// A Redis whose address leads to its replica after a failover.
struct Redis {
    primary: redis_server::Server,
    replica: redis_server::Server,
    target: watch::Sender<u16>,
    port: u16,
}

impl Redis {
    async fn start() -> Self {
        let at_once = ["--repl-diskless-sync-delay", "0"];
        let primary = redis_server::Server::start(&at_once).await;
        let replica = redis_server::Server::start(&[]).await;
        let port = primary.port.to_string();
        let _: () = replica.raw(&["REPLICAOF", "127.0.0.1", &port]).await;
        let (target, targets) = watch::channel(primary.port);
        let port = proxy(targets).await;
        Self {
            primary,
            replica,
            target,
            port,
        }
    }

    fn store(&self) -> BoxTokenStore {
        let url = format!("redis://127.0.0.1:{}", self.port);
        RedisStore::new(&url, "test").unwrap().boxed()
    }

    /// Waits until the replica has all writes, and cuts it off. It gets no more.
    async fn stop_replication(&self) {
        let received =
            async { while self.primary.raw::<usize>(&["WAIT", "1", "100"]).await == 0 {} };
        timeout(LONG, received).await.expect("the replica is there");
        let _: () = self.replica.raw(&["REPLICAOF", "NO", "ONE"]).await;
    }

    fn fail_over(&mut self) {
        self.primary.stop();
        self.target.send_replace(self.replica.port);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test failover -- --ignored"]
async fn after_a_failover_that_lost_a_session_the_process_that_knows_it_saves_it_again() {
    let mut redis = Redis::start().await;
    let server = strict_server();
    let refresh_token = server.issue_refresh_token();
    let knows = cache(&server, &refresh_token, redis.store());
    let first = knows.token().await.unwrap();
    redis.stop_replication().await;
    let lost = next_token(&knows, &first).await;
    redis.fail_over();

    let next = next_token(&knows, &lost).await;
    let another = cache(&server, &refresh_token, redis.store());
    let adopted = another.token().await.unwrap();
    assert_eq!(adopted.expose_secret(), next.expose_secret());
    assert_eq!((server.refreshes(), server.reuse_detected()), (3, 0));
}

/// What a process gets that reads the store after a failover which has lost the last session.
async fn token_after_the_loss(server: &AuthorizationServer) -> Result<Token, TokenError> {
    let mut redis = Redis::start().await;
    let refresh_token = server.issue_refresh_token();
    let old = cache(server, &refresh_token, redis.store());
    let first = old.token().await.unwrap();
    redis.stop_replication().await;
    next_token(&old, &first).await;
    drop(old);
    redis.fail_over();
    let new = cache(server, &refresh_token, redis.store());
    new.token().await?;
    new.refresh().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test failover -- --ignored"]
async fn after_a_failover_that_lost_a_session_a_new_process_goes_on_with_grace_and_loses_it_without()
 {
    let with_grace = strict_server().grace(LONG);
    token_after_the_loss(&with_grace).await.unwrap();
    assert_eq!(with_grace.live_sessions(), 1);

    let strict = strict_server();
    let error = token_after_the_loss(&strict).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    assert_eq!(strict.live_sessions(), 0);
}

/// Several processes refresh all the time, while the server of their store fails and comes back again and again.
async fn refresh_while_the_store_fails(stores: Vec<BoxTokenStore>, fail: impl AsyncFnMut()) {
    let mut fail = fail;
    let server = strict_server();
    let refresh_token = server.issue_refresh_token();
    let (stop, stopped) = watch::channel(false);
    let mut processes = Vec::new();
    for store in stores {
        let cache = cache(&server, &refresh_token, store);
        let mut token = cache.token().await.unwrap();
        let stopped = stopped.clone();
        processes.push(tokio::spawn(async move {
            let mut tokens = 0;
            while !*stopped.borrow() {
                token = next_token(&cache, &token).await;
                tokens += 1;
                sleep(Duration::from_millis(fastrand::u64(..20))).await;
            }
            next_token(&cache, &token).await;
            cache.close().await.unwrap();
            tokens
        }));
    }
    for _ in 0..6 {
        sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        fail().await;
    }
    stop.send_replace(true);
    for process in processes {
        let tokens: u32 = timeout(LONG, process).await.unwrap().unwrap();
        assert!(tokens > 0);
    }
    assert_eq!((server.reuse_detected(), server.live_sessions()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test failover -- --ignored"]
async fn a_redis_that_is_killed_and_restarted_during_saves_costs_no_session() {
    let mut redis = redis_server::Server::start(&[]).await;
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let store = || RedisStore::new(&url, "test").unwrap().boxed();
    let stores = (0..4).map(|_| store()).collect();
    refresh_while_the_store_fails(stores, async || redis.restart().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test failover -- --ignored"]
async fn a_postgres_that_is_killed_and_restarted_during_saves_costs_no_session() {
    let mut postgres = postgres::Server::start(&[]).await;
    let url = postgres.url();
    let store = || PostgresStore::new(&url, "test").unwrap();
    store().create_table().await.unwrap();
    let stores = (0..4).map(|_| store().boxed()).collect();
    refresh_while_the_store_fails(stores, async || postgres.restart().await).await;
}
