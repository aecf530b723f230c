//! [`LazyPool`]: a pool of the application, or one that is made when it is first used.

use std::{
    fmt,
    io::ErrorKind,
    sync::{Arc, OnceLock},
    time::Duration,
};

use secrecy::zeroize::Zeroizing;
use sqlx::{
    ColumnIndex, Connection, Decode, Encode, Error, Executor, IntoArguments, Pool, Row as _, Type,
    database::HasStatementCache, error::DatabaseError, pool::PoolOptions,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    database::{BoxFuture, Database, Fault, Parameter, Remedy, Statement, Stored},
    statements::Dialect,
};
use crate::store::lease_wait::PollInterval;

/// What is different between the databases of `sqlx`.
pub(super) trait Driver: sqlx::Database {
    const DIALECT: Dialect;

    /// How often a lease is tried: at first, and when it is held for long.
    const POLL_INTERVALS: (Duration, Duration);

    /// Shows the address of the database, without secrets.
    fn fmt_address(options: &ConnectOptions<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Is called once, before the first connection of a pool that we make.
    fn prepare(_options: &ConnectOptions<Self>) {}

    fn execute<'a>(
        connection: &'a mut Self::Connection,
        statement: &'a Statement,
    ) -> BoxFuture<'a, Result<Option<Stored>, Error>>;

    /// Listens for what other processes save. `None` if the database has no notifications.
    fn subscribe(
        _pool: &Pool<Self>,
        _channel: &str,
        _session: &str,
    ) -> Option<watch::Receiver<()>> {
        None
    }

    /// Describes an error that the database has reported.
    fn describe(error: &dyn DatabaseError) -> Fault;
}

/// Settings of connections to `DB`.
pub(super) type ConnectOptions<DB> = <<DB as sqlx::Database>::Connection as Connection>::Options;

/// A pool of the application, or one that is made when it is first used: making it needs a Tokio runtime, which a
/// constructor may not have.
pub(super) struct LazyPool<DB: Driver> {
    pool: OnceLock<Pool<DB>>,
    pool_options: PoolOptions<DB>,
    connect_options: Arc<ConnectOptions<DB>>,
}

impl<DB: Driver> LazyPool<DB> {
    pub(super) fn new(pool_options: PoolOptions<DB>, connect_options: ConnectOptions<DB>) -> Self {
        Self {
            pool: OnceLock::new(),
            pool_options,
            connect_options: Arc::new(connect_options),
        }
    }

    pub(super) fn of_application(pool: Pool<DB>) -> Self {
        Self {
            pool_options: pool.options().clone(),
            connect_options: pool.connect_options(),
            pool: OnceLock::from(pool),
        }
    }

    fn get(&self) -> &Pool<DB> {
        self.pool.get_or_init(|| {
            DB::prepare(&self.connect_options);
            let connect_options = ConnectOptions::<DB>::clone(&self.connect_options);
            self.pool_options.clone().connect_lazy_with(connect_options)
        })
    }

    /// Why the pool had no connection in time.
    fn without_connection(&self) -> Fault {
        let pool = self.get();
        let max = self.pool_options.get_max_connections();
        if pool.size() >= max && pool.num_idle() == 0 {
            let problem = format!(
                "was not asked in time: all {max} connections of the pool are in use, or hang"
            );
            return Fault::new(problem, Remedy::None);
        }
        let problem =
            "was not reached in time: nothing accepts connections there, or it is starting";
        Fault::new(problem, Remedy::None)
    }
}

impl<DB: Driver> Database for LazyPool<DB> {
    fn dialect(&self) -> &'static Dialect {
        &DB::DIALECT
    }

    fn poll_interval(&self) -> PollInterval {
        let (min, max) = DB::POLL_INTERVALS;
        PollInterval::new(min, max)
    }

    fn subscribe(&self, channel: &str, session: &str) -> Option<watch::Receiver<()>> {
        DB::subscribe(self.get(), channel, session)
    }

    fn send<'a>(
        &'a self,
        statement: &'a Statement,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Option<Stored>, Fault>> {
        Box::pin(async move {
            let connection = timeout_at(deadline, self.get().acquire()).await;
            let mut connection = match connection {
                Ok(Ok(connection)) => connection,
                Ok(Err(Error::PoolTimedOut)) | Err(_) => return Err(self.without_connection()),
                Ok(Err(error)) => return Err(fault::<DB>(&error)),
            };
            let answer = timeout_at(deadline, DB::execute(&mut connection, statement)).await;
            let fault = match answer {
                Ok(Ok(row)) => return Ok(row),
                Ok(Err(error)) => fault::<DB>(&error),
                Err(_) => {
                    drop(connection.detach());
                    return Err(Fault::new("did not answer in time", Remedy::None));
                }
            };
            if fault.remedy == Remedy::Reconnect {
                // It may be broken, or lead to a server that is no longer the primary.
                drop(connection.detach());
            }
            Err(fault)
        })
    }
}

impl<DB: Driver> fmt::Display for LazyPool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        DB::fmt_address(&self.connect_options, f)
    }
}

/// Sends a statement, and reads its answer to the end: an error may come after the first row.
pub(super) async fn fetch<DB>(
    connection: &mut DB::Connection,
    statement: &Statement,
    is_named: bool,
) -> Result<Option<Stored>, Error>
where
    DB: sqlx::Database + HasStatementCache,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'v> &'v str: Encode<'v, DB> + Decode<'v, DB> + Type<DB>,
    for<'v> i64: Encode<'v, DB> + Decode<'v, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let mut query = sqlx::query(statement.sql.clone()).persistent(is_named);
    for parameter in &statement.parameters {
        query = match parameter {
            Parameter::Text(text) => query.bind(&**text),
            Parameter::Number(number) => query.bind(*number),
            Parameter::Session(json) => {
                query.bind(std::str::from_utf8(json).map_err(|error| Error::Encode(error.into()))?)
            }
        };
    }
    let rows = query.fetch_all(connection).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let session = if row.len() > 1 {
        row.try_get::<Option<&str>, _>(1)?
    } else {
        None
    };
    Ok(Some(Stored {
        version: row.try_get(0)?,
        session: session.map(|text| Zeroizing::new(text.as_bytes().to_vec())),
    }))
}

fn fault<DB: Driver>(error: &Error) -> Fault {
    const CLOSED: (&str, Remedy) = (
        "was not reached, or closed the connection",
        Remedy::Reconnect,
    );
    const TLS: &str = "did not agree on TLS: look at `sslmode` and `sslrootcert` of the URL, and at the certificate";
    let (problem, remedy) = match error {
        Error::Database(error) => return DB::describe(&**error),
        Error::Io(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => (
                "was not reached: its socket, or a certificate or key of the URL, is not there or may not be used",
                Remedy::None,
            ),
            // A handshake that failed.
            ErrorKind::InvalidData => (TLS, Remedy::None),
            _ => CLOSED,
        },
        Error::Tls(_) => (TLS, Remedy::None),
        Error::Protocol(_) | Error::WorkerCrashed | Error::BeginFailed => CLOSED,
        Error::Configuration(_) => ("cannot be reached with these settings", Remedy::None),
        Error::PoolClosed => ("was not asked: the pool was closed", Remedy::None),
        Error::ColumnDecode { .. }
        | Error::Decode(_)
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::TypeNotFound { .. } => (
            "has a table with columns of other types than the documented ones",
            Remedy::None,
        ),
        _ => ("sent an unexpected answer", Remedy::None),
    };
    Fault::new(problem, remedy)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{borrow::Cow, error::Error as StdError};

    use sqlx::error::ErrorKind as Kind;

    use super::*;

    /// An error that a database reports with this code and this message.
    #[derive(Debug)]
    struct Reported(&'static str, &'static str);

    impl fmt::Display for Reported {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }

    impl StdError for Reported {}

    impl DatabaseError for Reported {
        fn message(&self) -> &str {
            self.1
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> Kind {
            Kind::Other
        }
    }

    /// Checks what an error says, and that it does not show the message of the database.
    #[track_caller]
    fn assert_fault<DB: Driver>(error: &Error, expected: &str, remedy: Remedy) {
        let fault = fault::<DB>(error);
        assert!(
            fault.problem.contains(expected),
            "{error:?}: {}",
            fault.problem
        );
        assert!(!fault.problem.contains("s3cret"), "{}", fault.problem);
        assert_eq!(fault.remedy, remedy, "{error:?}");
    }

    #[track_caller]
    pub(in super::super) fn assert_described<DB: Driver>(
        code: &'static str,
        expected: &str,
        remedy: Remedy,
    ) {
        assert_fault::<DB>(&reported(code), expected, remedy);
    }

    pub(in super::super) fn reported(code: &'static str) -> Error {
        Error::Database(Box::new(Reported(code, "s3cret")))
    }

    #[cfg(feature = "sqlite-store")]
    #[test]
    fn each_error_of_the_pool_is_explained() {
        let io = |kind: ErrorKind| Error::Io(kind.into());
        for (error, expected, remedy) in [
            (io(ErrorKind::NotFound), "is not there", Remedy::None),
            (
                io(ErrorKind::PermissionDenied),
                "may not be used",
                Remedy::None,
            ),
            (io(ErrorKind::InvalidData), "TLS", Remedy::None),
            (Error::Tls("s3cret".into()), "TLS", Remedy::None),
            (
                io(ErrorKind::ConnectionReset),
                "closed the connection",
                Remedy::Reconnect,
            ),
            (
                Error::Protocol("s3cret".into()),
                "closed the connection",
                Remedy::Reconnect,
            ),
            (
                Error::WorkerCrashed,
                "closed the connection",
                Remedy::Reconnect,
            ),
            (
                Error::BeginFailed,
                "closed the connection",
                Remedy::Reconnect,
            ),
            (
                Error::Configuration("s3cret".into()),
                "with these settings",
                Remedy::None,
            ),
            (Error::PoolClosed, "the pool was closed", Remedy::None),
            (
                Error::Decode("s3cret".into()),
                "columns of other types",
                Remedy::None,
            ),
            (
                Error::Encode("s3cret".into()),
                "an unexpected answer",
                Remedy::None,
            ),
        ] {
            assert_fault::<sqlx::Sqlite>(&error, expected, remedy);
        }
    }
}
