//! [`Sealed`]: an encrypted session.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{Format, Identity, StoredSession};

/// An encrypted session, as a store keeps it.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::store) struct Sealed {
    /// Identifies the key.
    #[serde(deserialize_with = "key_id")]
    pub(in crate::store) key: Box<str>,
    /// Base64.
    pub(in crate::store) data: Box<str>,
}

impl StoredSession {
    /// The session as an encrypted one: all that stays known of it is what is not encrypted.
    pub(in crate::store) fn sealed(&self, sealed: Sealed) -> Self {
        Self {
            format: Format::Sealed,
            version: self.version,
            sealed: Some(Box::new(sealed)),
            is_news: self.is_news,
            ..Self::begin(Identity::unknown(), None)
        }
    }

    /// What is encrypted, if it is.
    pub(in crate::store) fn as_sealed(&self) -> Option<&Sealed> {
        self.sealed.as_deref()
    }
}

/// Reads what identifies a key. It is shown in errors and logs, so it is nothing else.
fn key_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let id = <Box<str>>::deserialize(deserializer)?;
    if (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id);
    }
    Err(D::Error::custom(
        "the key of an encrypted session is not identified by hexadecimal digits",
    ))
}
