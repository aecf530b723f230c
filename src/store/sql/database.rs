//! [`Database`]: what a SQL store needs of a database, and how it deals with the faults of one.

use std::{borrow::Cow, fmt, pin::Pin, sync::Arc, time::Duration};

use sqlx::SqlStr;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::statements::Dialect;
use crate::{
    error::{TokenError, TokenErrorKind},
    store::{format::Encoded, lease_wait::PollInterval},
};

/// How long to wait before a statement is sent again that other transactions stood in the way of.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(5);
const MAX_RETRY_INTERVAL: Duration = Duration::from_millis(250);

pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A pool of connections to a database. `Display` shows where it is, without secrets.
pub(super) trait Database: fmt::Display + Send + Sync + 'static {
    fn dialect(&self) -> &'static Dialect;

    /// How often a lease is tried.
    fn poll_interval(&self) -> PollInterval;

    /// Listens for what other processes save. `None` if the database has no notifications.
    fn subscribe(&self, _channel: &str, _session: &str) -> Option<watch::Receiver<()>> {
        None
    }

    /// Sends a statement once. Returns the first row of its answer.
    fn send<'a>(
        &'a self,
        statement: &'a Statement,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Option<Stored>, Fault>>;
}

/// A statement with its parameters.
pub(super) struct Statement {
    pub(super) sql: SqlStr,
    pub(super) parameters: Vec<Parameter>,
    /// Sends it in a transaction of its own, without a named prepared statement.
    #[cfg_attr(
        not(feature = "postgres-store"),
        expect(dead_code, reason = "SQLite has no poolers")
    )]
    pub(super) in_transaction: bool,
}

/// A parameter of a statement.
#[derive(Clone)]
pub(super) enum Parameter {
    Text(Arc<str>),
    Number(i64),
    Session(Arc<Encoded>),
}

/// A row of the table, as far as a statement reads it.
pub(super) struct Stored {
    pub(super) version: i64,
    pub(super) session: Option<Encoded>,
}

/// Why a statement has failed, in words of our own: messages of a database quote what was to be stored.
pub(super) struct Fault {
    /// Continues a sentence that begins with the name of the database.
    pub(super) problem: Cow<'static, str>,
    pub(super) remedy: Remedy,
}

/// What may help if a statement has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Something else than sending it again.
    None,
    /// Sending it once more, over another connection.
    Reconnect,
    /// Sending it again a little later. Other transactions stood in its way.
    Wait,
}

impl Fault {
    pub(super) fn new(problem: impl Into<Cow<'static, str>>, remedy: Remedy) -> Self {
        Self {
            problem: problem.into(),
            remedy,
        }
    }
}

/// Sends a statement, and sends it again if that may help, until `limit` is over.
///
/// It runs in a task of its own, so that it ends in order if the caller stops waiting: a connection whose statement was
/// cut off could neither be used again nor given back to the pool without waiting for the answer. `permit` is dropped
/// when it has ended.
pub(super) async fn query(
    database: &Arc<dyn Database>,
    statement: Statement,
    limit: Duration,
    permit: impl Send + 'static,
) -> Result<Option<Stored>, TokenError> {
    let database = Arc::clone(database);
    let task = tokio::spawn(async move {
        let answer = query_until(&*database, &statement, limit).await;
        drop(permit);
        answer.map_err(|fault| {
            let message = format!("{database} {}", fault.problem);
            TokenError::new(TokenErrorKind::Store, message)
        })
    });
    task.await.unwrap_or_else(|error| {
        let message = "the task that used the database panicked, or ended with its runtime";
        Err(TokenError::new(TokenErrorKind::Store, message).with_source(error))
    })
}

async fn query_until(
    database: &dyn Database,
    statement: &Statement,
    limit: Duration,
) -> Result<Option<Stored>, Fault> {
    let deadline = Instant::now() + limit;
    let mut interval = PollInterval::new(MIN_RETRY_INTERVAL, MAX_RETRY_INTERVAL);
    let mut has_reconnected = false;
    let mut obstacle = None;
    loop {
        let fault = match database.send(statement, deadline).await {
            Ok(row) => return Ok(row),
            Err(fault) => fault,
        };
        match fault.remedy {
            Remedy::Reconnect if !has_reconnected => has_reconnected = true,
            Remedy::Wait if timeout_at(deadline, interval.wait()).await.is_ok() => {
                obstacle = Some(fault);
            }
            // What stood in the way until the limit was over says more than that it is over.
            _ if Instant::now() >= deadline => return Err(obstacle.unwrap_or(fault)),
            _ => return Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sqlx::SqlSafeStr;

    use super::*;

    /// Fails with these remedies, one after the other, and then succeeds.
    struct Failing(Mutex<Vec<Remedy>>);

    impl fmt::Display for Failing {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the database")
        }
    }

    const DIALECT: Dialect = Dialect {
        create: "",
        now: "",
        until: "",
        durable: "",
        notify: "",
    };

    impl Database for Failing {
        fn dialect(&self) -> &'static Dialect {
            &DIALECT
        }

        fn poll_interval(&self) -> PollInterval {
            PollInterval::new(Duration::ZERO, Duration::ZERO)
        }

        fn send<'a>(
            &'a self,
            _: &'a Statement,
            _: Instant,
        ) -> BoxFuture<'a, Result<Option<Stored>, Fault>> {
            let remedy = self.0.lock().unwrap().pop();
            Box::pin(async move {
                match remedy {
                    None => Ok(None),
                    Some(remedy) => Err(Fault::new(format!("failed with {remedy:?}"), remedy)),
                }
            })
        }
    }

    async fn outcome(remedies: &[Remedy]) -> Result<(), String> {
        let remedies = remedies.iter().rev().copied().collect();
        let database: Arc<dyn Database> = Arc::new(Failing(Mutex::new(remedies)));
        let statement = Statement {
            sql: "SELECT 1".into_sql_str(),
            parameters: Vec::new(),
            in_transaction: false,
        };
        let answer = query(&database, statement, Duration::from_secs(5), ()).await;
        answer.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_is_sent_again_as_often_as_its_fault_allows() {
        use Remedy::{None, Reconnect, Wait};
        for remedies in [&[][..], &[Reconnect], &[Wait; 20], &[Wait, Reconnect, Wait]] {
            assert_eq!(outcome(remedies).await, Ok(()), "{remedies:?}");
        }
        for (remedies, last) in [
            (&[None][..], "None"),
            (&[Reconnect, Reconnect], "Reconnect"),
            (&[Reconnect, None], "None"),
            (&[Wait, None], "None"),
            // Not for longer than the time limit.
            (&[Wait; 1000], "Wait"),
        ] {
            let error = outcome(remedies).await.unwrap_err();
            assert!(
                error.ends_with(&format!("the database failed with {last}")),
                "{error}"
            );
        }
    }
}
