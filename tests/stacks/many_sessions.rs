//! Ten thousand keyed sessions on one server: how many connections they use, and what a refresh costs the server.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis_server;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::Row;
use tokio::{sync::Semaphore, task::JoinSet};
use tower_bearer::{
    BoxTokenStore, ClientAuth, OAuthClient, PostgresStore, RedisStore, RefreshTokenSource,
    Schedule, Sessions, TokenCache, TokenStore,
    testing::{AuthorizationServer, Dialect},
};

const SESSIONS: usize = 10_000;

/// Longer than everything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(60);

/// So many refresh at the same time.
const AT_ONCE: usize = 100;

fn sessions(
    server: &AuthorizationServer,
    store_of: impl Fn(usize) -> BoxTokenStore + Send + Sync + 'static,
) -> Sessions<usize> {
    let server = server.clone();
    Sessions::builder(move |key| {
        let client = OAuthClient::with_transport("https://login.example.com/token", server.clone())
            .unwrap()
            .client_auth(ClientAuth::none("app"));
        let source = RefreshTokenSource::new(client, server.issue_refresh_token())
            .store(store_of(key))
            .schedule(Schedule::default().min_interval(Duration::from_millis(1)));
        async move { Ok(TokenCache::builder(source).max_wait(LONG).build()) }
    })
    .capacity(2 * SESSIONS)
    .build()
}

/// Refreshes all sessions once. Returns how long that took.
async fn refresh_all(sessions: &Sessions<usize>) -> Duration {
    let began = Instant::now();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut refreshes = JoinSet::new();
    for key in 0..SESSIONS {
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let sessions = sessions.clone();
        refreshes.spawn(async move {
            let cache = sessions.get(&key).await.unwrap();
            match cache.peek() {
                None => cache.token().await,
                Some(_) => cache.refresh().await,
            }
            .unwrap();
            drop(permit);
        });
    }
    while let Some(refreshed) = refreshes.join_next().await {
        refreshed.unwrap();
    }
    began.elapsed()
}

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .public_client("app")
        .detect_reuse(true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: cargo test -p stack-tests --test many_sessions -- --ignored --nocapture"]
async fn ten_thousand_sessions_share_one_connection_to_redis() {
    let redis = redis_server::Server::start(&["--appendfsync", "no"]).await;
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let store = RedisStore::new(&url, "all")
        .unwrap()
        // No lease is extended, however slow this machine is.
        .lease_duration(10 * LONG)
        .command_timeout(LONG);
    let server = server();
    let sessions = sessions(&server, move |key| {
        store.session(format!("session-{key}")).unwrap().boxed()
    });
    let commands = async || {
        let info: String = redis.raw(&["INFO", "commandstats"]).await;
        let _: () = redis.raw(&["CONFIG", "RESETSTAT"]).await;
        let count = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls: u64 = rest.split_once(',')?.0.parse().ok()?;
            Some((name.to_owned(), calls))
        };
        info.lines().filter_map(count).collect::<BTreeMap<_, _>>()
    };
    commands().await;
    for round in 1..=2 {
        let took = refresh_all(&sessions).await;
        let clients: String = redis.raw(&["CLIENT", "LIST"]).await;
        let connections = clients.lines().count() - 1;
        let commands = commands().await;
        println!("Redis, round {round}: {connections} connections, {took:?}, {commands:?}");
        // A `GET`, and three scripts with four more: the lease, the mark, and the last save. On a slow machine, one more asks
        // whether a lease is still held.
        let sessions = u64::try_from(SESSIONS).unwrap();
        assert_eq!(commands["eval"], 3 * sessions);
        let range = 5 * sessions..=6 * sessions;
        assert!(range.contains(&commands["get"]));
        assert!(connections <= 2, "{clients}");
    }
    assert_eq!(
        (server.refreshes(), server.reuse_detected()),
        (2 * SESSIONS, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: cargo test -p stack-tests --test many_sessions -- --ignored --nocapture"]
async fn ten_thousand_sessions_share_the_pool_to_postgres() {
    let settings = ["shared_preload_libraries=pg_stat_statements", "fsync=off"];
    let postgres = postgres::Server::start(&settings).await;
    postgres.raw("CREATE EXTENSION pg_stat_statements").await;
    let store = PostgresStore::new(&postgres.url(), "all")
        .unwrap()
        .lease_duration(10 * LONG)
        .command_timeout(LONG);
    store.create_table().await.unwrap();
    let server = server();
    let sessions = sessions(&server, move |key| {
        store.session(format!("session-{key}")).unwrap().boxed()
    });
    // Without the questions whether a lease is still held, which only a slow machine asks.
    let statements = async || {
        let sql = "SELECT split_part(query, ' ', 1), CAST(sum(calls) AS bigint) FROM pg_stat_statements \
                   WHERE query LIKE '%\"tower_bearer_sessions\"%' AND query NOT LIKE 'CREATE%' \
                   AND query NOT LIKE 'LISTEN%' AND query NOT LIKE 'SELECT version FROM%' GROUP BY 1";
        let mut connection = postgres.connection().await;
        let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
        let reset = sqlx::raw_sql("SELECT pg_stat_statements_reset()");
        reset.execute(&mut connection).await.unwrap();
        let counts = rows.iter().map(|row| (row.get(0), row.get(1)));
        counts.collect::<BTreeMap<String, i64>>()
    };
    statements().await;
    for round in 1..=2 {
        let took = refresh_all(&sessions).await;
        let sql =
            "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend'";
        let connections: usize = postgres.raw(sql).await.unwrap().parse().unwrap();
        // One is that of the question.
        let connections = connections - 1;
        let statements = statements().await;
        println!("Postgres, round {round}: {connections} connections, {took:?}, {statements:?}");
        let count: i64 = statements.values().sum();
        assert_eq!(count, 4 * i64::try_from(SESSIONS).unwrap());
        assert!(connections <= 6, "{connections}");
    }
    assert_eq!(
        (server.refreshes(), server.reuse_detected()),
        (2 * SESSIONS, 0)
    );
}
