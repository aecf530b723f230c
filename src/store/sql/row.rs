//! [`SessionRow`]: the row that a session and its lease are in.

use std::{sync::Arc, time::Duration};

use sqlx::SqlStr;
use tokio::sync::watch;

use super::{
    database::{self, Database, Parameter, Statement, Stored},
    statements::{Statements, Table},
};
use crate::{
    error::{TokenError, TokenErrorKind},
    store::{
        StoredSession,
        format::{self, Encoded},
        version_mismatch,
    },
};

/// The longest duration of a lease that a database can add to the time: a hundred years.
const MAX_LEASE_MILLIS: i64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// The row that a session and its lease are in.
#[derive(Clone)]
pub(super) struct SessionRow {
    pub(super) database: Arc<dyn Database>,
    pub(super) statements: Arc<Statements>,
    pub(super) table: Table,
    pub(super) name: Arc<str>,
    pub(super) command_timeout: Duration,
    pub(super) lease_duration: Duration,
    /// Whether each statement is sent in a transaction of its own.
    pub(super) in_transactions: bool,
    /// Whether to listen for what other processes save.
    pub(super) listens: bool,
}

impl SessionRow {
    pub(super) fn new(database: Arc<dyn Database>, name: String) -> Result<Self, TokenError> {
        let table = Table::default();
        Ok(Self {
            statements: Statements::new(database.dialect(), &table),
            database,
            table,
            name: checked_name(name)?,
            command_timeout: Duration::from_secs(5),
            lease_duration: Duration::from_secs(15),
            in_transactions: false,
            listens: true,
        })
    }

    pub(super) fn with_table(self, table: Table) -> Self {
        Self {
            statements: Statements::new(self.database.dialect(), &table),
            table,
            ..self
        }
    }

    pub(super) fn with_name(self, name: String) -> Result<Self, TokenError> {
        let name = checked_name(name)?;
        Ok(Self { name, ..self })
    }

    /// Where the session is stored, for errors.
    pub(super) fn location(&self) -> String {
        format!(
            "{:?} in table {} of {}",
            self.name,
            self.table.name(),
            self.database
        )
    }

    pub(super) fn lease_millis(&self) -> i64 {
        i64::try_from(self.lease_duration.as_millis())
            .map_or(MAX_LEASE_MILLIS, |millis| millis.min(MAX_LEASE_MILLIS))
    }

    /// Sends a statement. `permit` is dropped when it has ended, also if this future is dropped before.
    pub(super) async fn query(
        &self,
        sql: &SqlStr,
        parameters: Vec<Parameter>,
        permit: impl Send + 'static,
    ) -> Result<Option<Stored>, TokenError> {
        let statement = Statement {
            sql: sql.clone(),
            parameters,
            in_transaction: self.in_transactions,
        };
        database::query(&self.database, statement, self.command_timeout, permit).await
    }

    /// The name of the session, which is the first parameter of all statements.
    pub(super) fn key(&self) -> Parameter {
        Parameter::Text(Arc::clone(&self.name))
    }

    pub(super) async fn create_table(&self) -> Result<(), TokenError> {
        // A statement that finds the table, so that its users need no right to make one.
        let no_owner = Parameter::Text("".into());
        let exists = self.query(&self.statements.holds_lease, vec![self.key(), no_owner], ());
        if exists.await.is_err() {
            self.query(&self.statements.create, Vec::new(), ()).await?;
        }
        Ok(())
    }

    async fn read(&self) -> Result<Option<Stored>, TokenError> {
        self.query(&self.statements.load, vec![self.key()], ())
            .await
    }

    /// The session in a row of the table.
    pub(super) fn session_in(&self, row: Stored) -> Result<Option<StoredSession>, TokenError> {
        content(row)
            .map(|(version, json)| self.decode(version, &json))
            .transpose()
    }

    fn decode(&self, version: u64, json: &Encoded) -> Result<StoredSession, TokenError> {
        let location = self.location();
        let session = format::decode(json, &location)?;
        if session.version() != version {
            let message = format!(
                "{location} is a session of version {}, and its column `version` says {version}: set the column to the \
                 version of the session; both are left as they are",
                session.version()
            );
            return Err(TokenError::new(TokenErrorKind::Store, message));
        }
        Ok(session)
    }

    pub(super) async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        let row = self.read().await?;
        row.map_or(Ok(None), |row| self.session_in(row))
    }

    /// Listens for what other processes save, unless a pooler may give the connection to others.
    pub(super) fn changes(&self) -> Option<watch::Receiver<()>> {
        if !self.listens || self.in_transactions {
            return None;
        }
        self.database.subscribe(self.table.channel(), &self.name)
    }

    /// Replaces the session of version `replaces`, and notifies other processes if they should look at it. The lease of
    /// the owner `releases`, if that is not empty, is released with it. Returns `false` if this save had been done before; then no lease is
    /// released.
    ///
    /// It does not matter whether the lease is still held. If it is lost and no other process has saved, this session
    /// may have the only refresh token that is still valid. The new holder's own save then fails before it has sent a
    /// refresh token, and it loads this session.
    pub(super) async fn save(
        &self,
        replaces: u64,
        session: &StoredSession,
        releases: Arc<str>,
        permit: impl Send + 'static,
    ) -> Result<bool, TokenError> {
        let new = Arc::new(format::encode(session)?);
        // Versions that are higher than a column can hold are not stored.
        if let (Ok(replaces), Ok(version)) =
            (i64::try_from(replaces), i64::try_from(session.version()))
        {
            let mut parameters = vec![
                self.key(),
                Parameter::Number(version),
                Parameter::Session(Arc::clone(&new)),
                Parameter::Text(releases),
            ];
            let statements = &self.statements;
            let sql = match (replaces, session.should_notify()) {
                (0, false) => &statements.save_first,
                (0, true) => &statements.save_first_and_notify,
                (_, false) => &statements.save,
                (_, true) => &statements.save_and_notify,
            };
            if replaces != 0 {
                parameters.push(Parameter::Number(replaces));
            }
            if self.query(sql, parameters, permit).await?.is_some() {
                return Ok(true);
            }
        }
        self.explain(replaces, &new).await.map(|()| false)
    }

    /// Why a save has changed nothing.
    async fn explain(&self, replaces: u64, new: &Encoded) -> Result<(), TokenError> {
        let stored = self.read().await?.and_then(content);
        let version = match &stored {
            // This save has been done before.
            Some((_, json)) if json == new => return Ok(()),
            Some((version, json)) => self.decode(*version, json)?.version(),
            None => 0,
        };
        if version != replaces {
            return Err(version_mismatch(replaces, version));
        }
        let message = "another session was saved at the same time";
        Err(TokenError::new(TokenErrorKind::LeaseLost, message))
    }
}

/// The version and the session of a row. A row without a session is that of a lease.
fn content(row: Stored) -> Option<(u64, Encoded)> {
    Some((row.version.try_into().unwrap_or_default(), row.session?))
}

fn checked_name(name: String) -> Result<Arc<str>, TokenError> {
    if (1..=255).contains(&name.len()) && !name.contains(char::is_control) {
        return Ok(name.into());
    }
    let message = format!(
        "{name:?} cannot be the name of a session in a database: it is empty, has more than 255 bytes, or has control \
         characters"
    );
    Err(TokenError::new(TokenErrorKind::Config, message))
}
