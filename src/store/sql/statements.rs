//! The statements of a SQL store, which are the same for all databases but for the clock and the durability of a save.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::error::{TokenError, TokenErrorKind};

/// The table that the documented SQL makes.
pub(super) const DEFAULT_TABLE: &str = "tower_bearer_sessions";

/// Releases the lease of the owner `$4`, as a part of a save. The lease of another owner stays.
const RELEASE: &str = "\
lease_owner = CASE WHEN stored.lease_owner = $4 THEN NULL ELSE stored.lease_owner END, \
lease_until = CASE WHEN stored.lease_owner = $4 THEN NULL ELSE stored.lease_until END";

/// What databases write in different ways.
pub(super) struct Dialect {
    /// The statement that makes the default table.
    pub(super) create: &'static str,
    /// The current time, by the clock of the database.
    pub(super) now: &'static str,
    /// The time that is `$3` milliseconds later.
    pub(super) until: &'static str,
    /// A condition that is always true. Evaluating it makes the transaction durable.
    pub(super) durable: &'static str,
    /// Returns `version`, and notifies other processes of the session `$1`.
    pub(super) notify: &'static str,
}

/// The statements for one table. They return the columns `version` and, if they read it, `session`.
///
/// Each has the same effect when it is repeated, because a broken connection may have lost its answer.
pub(super) struct Statements {
    pub(super) create: SqlStr,
    pub(super) load: SqlStr,
    /// Saves a session where none is stored. Releases the lease if the owner `$4` has it. An empty owner has none.
    pub(super) save_first: SqlStr,
    /// Replaces the session of the version `$5`. Releases the lease as well.
    pub(super) save: SqlStr,
    /// The same two, which notify other processes as well.
    pub(super) save_first_and_notify: SqlStr,
    pub(super) save_and_notify: SqlStr,
    /// Takes a lease that is free, and reads the session. Succeeds if this owner has it already.
    ///
    /// While another owner has it, nothing is written, and no row is locked: those that wait ask often.
    pub(super) take_lease: SqlStr,
    /// Extends a lease. Succeeds also if it has ended, as after an outage, but not if another owner has had it since.
    pub(super) extend_lease: SqlStr,
    pub(super) holds_lease: SqlStr,
    pub(super) release_lease: SqlStr,
}

impl Statements {
    pub(super) fn new(dialect: &Dialect, table: &Table) -> Arc<Self> {
        let quoted = table.quoted();
        let sql = |template: &str| {
            let sql = template
                .replace("{release}", RELEASE)
                .replace("{table}", &quoted)
                .replace("{now}", dialect.now)
                .replace("{until}", dialect.until)
                .replace("{durable}", dialect.durable);
            AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str()
        };
        let save_first = "\
INSERT INTO {table} AS stored (name, version, session, updated_at) SELECT $1, $2, $3, {now} WHERE {durable} \
ON CONFLICT (name) DO UPDATE \
SET version = excluded.version, session = excluded.session, updated_at = excluded.updated_at, {release} \
WHERE stored.version = 0 RETURNING ";
        let save = "\
UPDATE {table} AS stored SET version = $2, session = $3, updated_at = {now}, {release} \
WHERE name = $1 AND version = $5 AND {durable} RETURNING ";
        let notify = dialect.notify.replace("{channel}", table.channel());
        Arc::new(Self {
            create: sql(&dialect.create.replace(DEFAULT_TABLE, &quoted)),
            load: sql("SELECT version, session FROM {table} WHERE name = $1"),
            save_first: sql(&format!("{save_first}version")),
            save: sql(&format!("{save}version")),
            save_first_and_notify: sql(&format!("{save_first}{notify}")),
            save_and_notify: sql(&format!("{save}{notify}")),
            take_lease: sql("\
INSERT INTO {table} AS stored (name, version, lease_owner, lease_until, updated_at) SELECT $1, 0, $2, {until}, {now} \
WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE name = $1 AND lease_until > {now} AND lease_owner <> $2) \
ON CONFLICT (name) DO UPDATE SET lease_owner = excluded.lease_owner, lease_until = {until} \
WHERE stored.lease_until IS NULL OR stored.lease_until <= {now} OR stored.lease_owner = excluded.lease_owner \
RETURNING version, session"),
            extend_lease: sql("\
UPDATE {table} SET lease_until = {until} WHERE name = $1 AND lease_owner = $2 RETURNING version"),
            holds_lease: sql("\
SELECT version FROM {table} WHERE name = $1 AND lease_owner = $2 AND lease_until > {now}"),
            release_lease: sql("\
UPDATE {table} SET lease_owner = NULL, lease_until = NULL WHERE name = $1 AND lease_owner = $2 RETURNING version"),
        })
    }
}

/// The name of a table, with or without its schema.
#[derive(Clone)]
pub(super) struct Table(Arc<str>);

impl Table {
    /// A name cannot be a parameter of a statement, so it is made of characters that have no meaning in SQL.
    pub(super) fn new(name: &str) -> Result<Self, TokenError> {
        let is_identifier = |part: &str| {
            (1..=63).contains(&part.len())
                && part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if name.split('.').count() <= 2 && name.split('.').all(is_identifier) {
            return Ok(Self(name.into()));
        }
        let message = format!(
            "{name:?} cannot be the name of a table: write it as `table` or `schema.table`, of lower-case letters, \
             digits and `_`, at most 63 in each part"
        );
        Err(TokenError::new(TokenErrorKind::Config, message))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// The channel that notifies of sessions in the table. Its name is as long as Postgres permits. If two tables share it,
    /// processes look once more than needed.
    pub(super) fn channel(&self) -> &str {
        &self.0[..self.0.len().min(63)]
    }

    /// In quotes, because a name may be a keyword.
    fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('.', "\".\""))
    }
}

impl Default for Table {
    fn default() -> Self {
        Self(DEFAULT_TABLE.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_by_plain_identifiers_only() {
        let longest = "x".repeat(63);
        for name in ["sessions", "_s1", "auth.sessions", "select", &longest] {
            assert_eq!(Table::new(name).unwrap().name(), name);
        }
        let too_long = "x".repeat(64);
        for name in [
            "", ".", "a.", ".a", "a.b.c", "1a", "A", "a b", "a-b", "a\"", "a;", "a'", "ä", "a\0",
            "a$1", "{now}", &too_long,
        ] {
            let error = Table::new(name).err().expect(name);
            assert_eq!(error.kind(), TokenErrorKind::Config, "{name:?}");
        }
    }

    #[test]
    fn the_channel_is_the_name_of_the_table_as_far_as_it_fits() {
        let channel = |name: &str| Table::new(name).unwrap().channel().to_owned();
        assert_eq!(channel("sessions"), "sessions");
        let longest = format!("auth.{}", "x".repeat(63));
        assert_eq!(channel(&longest), longest[..63]);
    }

    #[test]
    fn all_parts_of_a_name_are_quoted() {
        assert_eq!(Table::default().quoted(), "\"tower_bearer_sessions\"");
        assert_eq!(Table::new("a.select").unwrap().quoted(), "\"a\".\"select\"");
    }
}
