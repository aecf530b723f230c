//! Which members of a session are written, and what must be there when it is read.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{
    Access, Ended, Format, Identity, Sealed, Secret, StoredSession,
    encoding::{count, millis},
};

/// The members of a session that is not encrypted, as they are written. When it is read, those of an encrypted one, too: a
/// database may have put the members into another order, so only the end tells which one it is.
#[derive(Serialize, Deserialize)]
#[serde(remote = "StoredSession")]
struct Members {
    format: Format,
    #[serde(deserialize_with = "count")]
    version: u64,
    #[serde(default, deserialize_with = "count")]
    generation: u64,
    #[serde(default = "Identity::unknown")]
    identity: Identity,
    #[serde(default)]
    former_identities: Vec<Identity>,
    #[serde(default)]
    client: Option<Identity>,
    #[serde(default)]
    access: Option<Access>,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default, with = "millis")]
    refresh_expires_at: Option<SystemTime>,
    #[serde(default, with = "millis")]
    refreshing_since: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_id: Option<u32>,
    #[serde(default)]
    ended: Option<Ended>,
    #[serde(skip)]
    not_dead: Option<Identity>,
    #[serde(default, skip_serializing)]
    sealed: Option<Box<Sealed>>,
    #[serde(skip)]
    is_news: bool,
}

/// The members of an encrypted session.
#[derive(Serialize)]
struct SealedMembers<'a> {
    format: Format,
    version: u64,
    sealed: &'a Sealed,
}

impl Serialize for StoredSession {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.sealed {
            None => Members::serialize(self, serializer),
            Some(sealed) => SealedMembers {
                format: Format::Sealed,
                version: self.version,
                sealed,
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StoredSession {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut read = Members::deserialize(deserializer)?;
        match (read.format, read.sealed.take()) {
            (Format::Plain, _) if read.identity == Identity::unknown() => {
                Err(D::Error::missing_field("identity"))
            }
            (Format::Plain, _) => Ok(read),
            (Format::Sealed, Some(sealed)) => Ok(read.sealed(*sealed)),
            (Format::Sealed, None) => Err(D::Error::missing_field("sealed")),
        }
    }
}
