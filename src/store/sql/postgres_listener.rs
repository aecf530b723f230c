//! Listening for notifications of Postgres: one connection for each pool.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use sqlx::{
    AssertSqlSafe, Error, Executor, PgPool, Postgres,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::sync::watch;

use super::pool::Driver;
use crate::store::listeners::{Failure, Listen, Listeners, ListeningConnection};

/// All pools that are listened for. Many stores can be made with the same pool.
static POOLS: Mutex<Vec<Weak<Listeners<ListeningPool>>>> = Mutex::new(Vec::new());

/// Listens for the notifications to `channel` about `session`.
pub(super) fn subscribe(
    pool: &PgPool,
    channel: &str,
    session: &str,
) -> Option<watch::Receiver<()>> {
    let id = pool.connect_options();
    let listeners = {
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        let is_same = |it: &Arc<Listeners<ListeningPool>>| Arc::ptr_eq(&it.server.id, &id);
        let known = pools.iter().filter_map(Weak::upgrade).find(is_same);
        known.unwrap_or_else(|| {
            let pool = pool.clone();
            let listeners = Arc::new(Listeners::new(ListeningPool { pool, id }));
            pools.push(Arc::downgrade(&listeners));
            listeners
        })
    };
    listeners.subscribe(channel, session)
}

/// A pool whose database is listened to.
pub(super) struct ListeningPool {
    pool: PgPool,
    /// Tells pools apart: clones of a pool have the same one.
    id: Arc<PgConnectOptions>,
}

impl Listen for ListeningPool {
    type Connection = PgListener;

    /// Makes a connection outside of the pool, which would have one less otherwise.
    async fn connect(&self) -> Result<PgListener, Failure> {
        let options = PgConnectOptions::clone(&self.pool.connect_options());
        let alone = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&alone).await.map_err(failure)?;
        // A lost connection is noticed here, and made again with pauses.
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        Ok(listener)
    }

    fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }
}

impl fmt::Display for ListeningPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Postgres::fmt_address(&self.id, f)
    }
}

impl ListeningConnection for PgListener {
    async fn listen(&mut self, channel: &str) -> Result<(), Failure> {
        // Not `PgListener::listen`, which remembers each call.
        let statement = AssertSqlSafe(format!("LISTEN \"{channel}\""));
        self.execute(statement).await.map(drop).map_err(failure)
    }

    async fn next(&mut self) -> Option<(String, String)> {
        let notification = self.try_recv().await.ok()??;
        Some((notification.channel().into(), notification.payload().into()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failure(error: Error) -> Failure {
    Failure::lost(match &error {
        Error::Database(error) => Postgres::describe(&**error).problem,
        _ => "it was not reached, or closed the connection".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::pool::tests::reported;

    #[test]
    fn a_pool_that_nobody_listens_for_any_more_is_forgotten() {
        for _ in 0..3 {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let changes = runtime.block_on(async {
                let pool = PgPool::connect_lazy("postgres://app@localhost:1/db").unwrap();
                subscribe(&pool, "channel", "session")
            });
            assert!(changes.is_some());
            // With it, the task that listens ends.
            drop(runtime);
        }
        assert_eq!(POOLS.lock().unwrap().len(), 1);
    }

    #[test]
    fn an_error_of_the_database_is_explained() {
        let failure = failure(reported("53300"));
        assert_eq!(failure.problem, "has no connection left");
    }

    #[tokio::test]
    async fn the_address_has_no_password() {
        let url = "postgres://app:hunter2@localhost:1/db?sslmode=disable";
        let pool = PgPool::connect_lazy(url).unwrap();
        let id = pool.connect_options();
        let shown = ListeningPool { pool, id }.to_string();
        assert_eq!(shown, "Postgres at localhost:1/db");
    }
}
