//! What is particular to Postgres.

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{
    Connection, Error, PgConnection, PgPool, Postgres,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::watch;

use super::{
    SqlStore,
    database::{BoxFuture, Fault, Remedy, Statement, Stored},
    pool::{Driver, LazyPool, fetch},
    postgres_listener,
    statements::Dialect,
};
use crate::error::{TokenError, TokenErrorKind};

impl SqlStore<Postgres> {
    /// Makes a store for the session `name`, in the Postgres at `url`. It connects when it is first used.
    ///
    /// The URL is `postgres://[user][:password@]host[:port][/database][?sslmode=verify-full]`, with the parameters that
    /// [`PgConnectOptions`] describes. What it leaves out is read from variables such as `PGPASSWORD`, as `psql` does.
    /// The store has a pool of at most 5 connections, which are closed when they were not used for 10 minutes.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if the URL is malformed, or if `name` is empty, has more than 255 bytes or
    /// control characters. The error does not show the URL.
    pub fn new(url: &str, name: impl Into<String>) -> Result<Self, TokenError> {
        let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
        let options = is_url
            .then(|| url.parse::<PgConnectOptions>().ok())
            .flatten();
        let options = options.ok_or_else(|| {
            // The library's own message may quote the URL, and with it the password.
            let message = "the URL of Postgres cannot be used: write it as postgres://user:password@host:5432/database";
            TokenError::new(TokenErrorKind::Config, message)
        })?;
        // Poolers reject this parameter, and no statement of the store reads a number with a fraction.
        let options = options.extra_float_digits(None);
        let pool = LazyPool::<Postgres>::new(PgPoolOptions::new().max_connections(5), options);
        Self::on(Arc::new(pool), name.into())
    }

    /// Makes a store for the session `name`, in the database of `pool`.
    ///
    /// `PgPool` is from version 0.9 of the crate `sqlx`. The store takes a connection for each statement, and holds
    /// none in between.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `name` is empty, has more than 255 bytes or control characters.
    pub fn with_pool(pool: PgPool, name: impl Into<String>) -> Result<Self, TokenError> {
        let pool = LazyPool::<Postgres>::of_application(pool);
        Self::on(Arc::new(pool), name.into())
    }

    /// Sets whether the store works through a pooler in transaction mode that does not know prepared statements, such
    /// as PgBouncer before 1.21, or with `max_prepared_statements = 0`. Default: no.
    ///
    /// Each statement is then sent in a transaction of its own and without a name, which takes four round trips instead
    /// of one. Without this setting, such a pooler runs the statement that another client has prepared under the same
    /// name. A PgBouncer that knows prepared statements does not need it.
    #[must_use]
    pub fn transaction_pooling(self, is_used: bool) -> Self {
        self.edit(|row| row.in_transactions = is_used)
    }

    /// Sets whether the caches over this store listen for logins and revocations of other processes. Default: yes, but not
    /// with [`transaction_pooling`](SqlStore::<Postgres>::transaction_pooling).
    ///
    /// It costs one connection for each pool, beside those of the pool. It is made when the first cache is used, and
    /// `LISTEN`s for all sessions. Without it, a process notices the login of another one when it reads the store next:
    /// with its next refresh, after a rejection, or within 10 seconds if its own session is dead and a caller wants a token.
    /// Saves notify others in any case, which costs nothing.
    #[must_use]
    pub fn notifications(self, are_used: bool) -> Self {
        self.edit(|row| row.listens = are_used)
    }
}

impl Driver for Postgres {
    const DIALECT: Dialect = Dialect {
        create: include_str!("postgres_table.sql"),
        // Not `now()`, which is the time at which the transaction began: a statement may have waited for another one.
        now: "clock_timestamp()",
        until: "clock_timestamp() + $3 * interval '1 millisecond'",
        // As `SET LOCAL` would, until the end of the transaction. Stricter settings stay.
        durable: "(SELECT CASE current_setting('synchronous_commit') WHEN 'off' \
                  THEN set_config('synchronous_commit', 'on', true) ELSE '' END) IS NOT NULL",
        // `pg_notify` returns nothing, as a text of length 0.
        notify: "version + length(CAST(pg_notify('{channel}', $1) AS text))",
    };

    const POLL_INTERVALS: (Duration, Duration) =
        (Duration::from_millis(20), Duration::from_millis(250));

    fn fmt_address(options: &PgConnectOptions, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres at ")?;
        match options.get_socket() {
            Some(socket) => write!(f, "{}", socket.display())?,
            None => write!(f, "{}:{}", options.get_host(), options.get_port())?,
        }
        match options.get_database() {
            Some(database) => write!(f, "/{database}"),
            None => Ok(()),
        }
    }

    fn subscribe(pool: &PgPool, channel: &str, session: &str) -> Option<watch::Receiver<()>> {
        postgres_listener::subscribe(pool, channel, session)
    }

    fn execute<'a>(
        connection: &'a mut PgConnection,
        statement: &'a Statement,
    ) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(async move {
            if !statement.in_transaction {
                return fetch::<Self>(connection, statement, true).await;
            }
            let mut transaction = connection.begin().await?;
            let row = fetch::<Self>(&mut transaction, statement, false).await?;
            transaction.commit().await?;
            Ok(row)
        })
    }

    fn describe(error: &dyn DatabaseError) -> Fault {
        let code = error.code().unwrap_or_default();
        let (problem, remedy) = match &*code {
            "28P01" | "28000" => (
                "rejected the user or the password of the store",
                Remedy::None,
            ),
            "3D000" => ("has no database of this name", Remedy::None),
            "42P01" => (
                "does not have the table: call `create_table`, or make it with the documented SQL",
                Remedy::None,
            ),
            "3F000" => ("does not have the schema of the table", Remedy::None),
            "42501" => (
                "does not permit this statement: its user needs SELECT, INSERT and UPDATE on the table",
                Remedy::None,
            ),
            "42703" | "42804" | "42883" | "42P10" | "22P05" | "23502" | "23514" => (
                "has a table that does not match the documented one",
                Remedy::None,
            ),
            // After a failover, the address may lead to the new primary.
            "25006" => (
                "accepts no writes: it is a replica, or its transactions are read-only; give the store the \
                 address of the primary",
                Remedy::Reconnect,
            ),
            "40001" | "40P01" | "55P03" => (
                "did not finish the statement in time, because of other transactions",
                Remedy::Wait,
            ),
            // Another process makes the table at the same time.
            "23505" | "42710" | "42P07" => {
                ("has made the table twice at the same time", Remedy::Wait)
            }
            "53100" => ("has no disk space left", Remedy::None),
            "53200" => ("has no memory left", Remedy::None),
            "53300" => ("has no connection left", Remedy::None),
            "57014" => (
                "cancelled the statement: its `statement_timeout` was over, or an administrator has done it",
                Remedy::None,
            ),
            "57P01" | "57P02" | "57P03" | "57P05" | "08000" | "08003" | "08006" => (
                "is starting or shutting down, or closed the connection",
                Remedy::Reconnect,
            ),
            "26000" | "42P05" => (
                "was asked through a pooler that does not know prepared statements: set `transaction_pooling`, or let \
                 PgBouncer know them with `max_prepared_statements`",
                Remedy::None,
            ),
            code if is_sqlstate(code) => {
                return Fault::new(format!("answered with the error {code}"), Remedy::None);
            }
            _ => ("answered with an error", Remedy::None),
        };
        Fault::new(problem, remedy)
    }
}

/// Whether this is a code of five digits and upper-case letters. Anything else may be a quotation.
fn is_sqlstate(code: &str) -> bool {
    code.len() == 5
        && code
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PostgresStore, store::sql::pool::tests::assert_described};

    #[test]
    fn each_error_of_the_database_is_explained_and_repeated_only_if_that_may_help() {
        for (codes, expected, remedy) in [
            (
                &["28P01", "28000"][..],
                "rejected the user or the password",
                Remedy::None,
            ),
            (&["3D000"], "has no database of this name", Remedy::None),
            (&["42P01"], "does not have the table", Remedy::None),
            (&["3F000"], "does not have the schema", Remedy::None),
            (&["42501"], "does not permit this statement", Remedy::None),
            (
                &[
                    "42703", "42804", "42883", "42P10", "22P05", "23502", "23514",
                ],
                "does not match the documented one",
                Remedy::None,
            ),
            (&["25006"], "accepts no writes", Remedy::Reconnect),
            (
                &["40001", "40P01", "55P03"],
                "because of other transactions",
                Remedy::Wait,
            ),
            (
                &["23505", "42710", "42P07"],
                "has made the table twice",
                Remedy::Wait,
            ),
            (&["53100"], "has no disk space left", Remedy::None),
            (&["53200"], "has no memory left", Remedy::None),
            (&["53300"], "has no connection left", Remedy::None),
            (&["57014"], "cancelled the statement", Remedy::None),
            (
                &[
                    "57P01", "57P02", "57P03", "57P05", "08000", "08003", "08006",
                ],
                "is starting or shutting down",
                Remedy::Reconnect,
            ),
            (
                &["26000", "42P05"],
                "set `transaction_pooling`",
                Remedy::None,
            ),
            (&["XX000"], "answered with the error XX000", Remedy::None),
            // Not codes.
            (
                &["", "s3cret", "S3CRET", "s3cre", "XX00", "XX0 0"],
                "answered with an error",
                Remedy::None,
            ),
        ] {
            for code in codes {
                assert_described::<Postgres>(code, expected, remedy);
            }
        }
    }

    #[test]
    fn a_store_is_built_without_a_server_or_a_runtime_and_shows_no_password() {
        let url = "postgres://app:hunter2@localhost:1/db?sslmode=disable";
        let store = PostgresStore::new(url, "vendor").unwrap();
        let shown = format!("{:?}", store.table("auth.tokens").unwrap());
        assert!(shown.contains("localhost:1/db"), "{shown}");
        assert!(
            shown.contains("vendor") && shown.contains("auth.tokens"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_error_of_a_malformed_url_does_not_show_the_password() {
        let urls = [
            "",
            "hunter2",
            "mysql://:hunter2@localhost",
            "postgres://a:hunter2@localhost:x",
            "postgres://a:hunter2@localhost/db?sslmode=hunter2",
            "postgres://a:hunter2@[::1/db",
        ];
        for url in urls {
            let error = PostgresStore::new(url, "vendor").unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{url}");
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_name_that_no_row_can_have_is_rejected() {
        let store = PostgresStore::new("postgres://localhost", "ä".repeat(127)).unwrap();
        for name in ["", "a\0", "a\n", &"ä".repeat(128)] {
            let error = PostgresStore::new("postgres://localhost", name).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{name:?}");
            let error = store.session(name).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{name:?}");
        }
    }
}
