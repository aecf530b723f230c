//! Sessions as the first version of this crate wrote them. They are read, and written in the present format.

use std::time::SystemTime;

use serde::Deserialize;

use super::{
    Format, Identity, StoredSession,
    access::Access,
    encoding::{Secret, count, millis},
};

/// Their format.
pub(in crate::store) const FIRST_FORMAT: u64 = 1;

/// `{"format":1,"session":{…}}`.
#[derive(Deserialize)]
pub(in crate::store) struct FirstFormat {
    session: Session,
}

#[derive(Deserialize)]
struct Session {
    #[serde(deserialize_with = "count")]
    version: u64,
    #[serde(default, deserialize_with = "count")]
    generation: u64,
    seed: Identity,
    #[serde(default)]
    retired: Vec<Identity>,
    access: Option<Access>,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default, with = "millis")]
    refresh_expires_at: Option<SystemTime>,
    #[serde(default, with = "millis")]
    refreshing_since: Option<SystemTime>,
}

impl From<FirstFormat> for StoredSession {
    fn from(FirstFormat { session }: FirstFormat) -> Self {
        Self {
            format: Format::Plain,
            version: session.version,
            generation: session.generation,
            identity: session.seed,
            former_identities: session.retired,
            client: None,
            access: session.access,
            refresh_token: session.refresh_token,
            refresh_expires_at: session.refresh_expires_at,
            refreshing_since: session.refreshing_since,
            refresh_id: None,
            ended: None,
            not_dead: None,
            sealed: None,
            is_news: false,
        }
    }
}
