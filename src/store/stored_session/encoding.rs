//! How the parts of a [`StoredSession`](super::StoredSession) are serialized.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};

use crate::zeroize::secret;

/// The format of a session that is not encrypted.
const FORMAT: u64 = 3;

/// The format of an encrypted session. A version of the crate that does not know it reports it as newer, and overwrites
/// nothing.
pub(in crate::store) const SEALED_FORMAT: u64 = 4;

/// The format before [`FORMAT`]. It has neither `client` nor `ended`.
const SECOND_FORMAT: u64 = 2;

/// The format of a serialized session, checked when it is deserialized.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    Sealed,
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As an option, because that is how it is read.
        serializer.serialize_some(&match self {
            Self::Plain => FORMAT,
            Self::Sealed => SEALED_FORMAT,
        })
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde gives a missing field to `visit_none`, where the error can say more than "missing field".
        deserializer.deserialize_option(FormatVisitor)
    }
}

struct FormatVisitor;

impl<'de> Visitor<'de> for FormatVisitor {
    type Value = Format;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the format of a session of tower-bearer")
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Format, D::Error> {
        match u64::deserialize(deserializer)? {
            SECOND_FORMAT | FORMAT => Ok(Format::Plain),
            SEALED_FORMAT => Ok(Format::Sealed),
            newer if newer > SEALED_FORMAT => Err(D::Error::custom(format_args!(
                "a session of format {newer}, and this version of tower-bearer reads formats up to {SEALED_FORMAT}: update it"
            ))),
            unknown => Err(D::Error::custom(format_args!(
                "a session of the unknown format {unknown}; this version of tower-bearer reads formats {SECOND_FORMAT} to {SEALED_FORMAT}"
            ))),
        }
    }

    fn visit_none<E: Error>(self) -> Result<Format, E> {
        Err(E::custom(
            "not a session of tower-bearer: it has no `format`",
        ))
    }

    fn visit_unit<E: Error>(self) -> Result<Format, E> {
        self.visit_none()
    }
}

/// A secret that is serialized, because that is what a store is for.
#[derive(Clone)]
pub(super) struct Secret(pub(super) SecretString);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(secret(text)))
    }
}

/// The highest version and the highest generation of a session that is read. No session gets there by counting, and a
/// higher one could not be replaced: each save needs a higher version.
pub(in crate::store) const MAX_COUNT: u64 = u64::MAX / 2;

/// Reads a version or a generation.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let count = u64::deserialize(deserializer)?;
    if count > MAX_COUNT {
        return Err(D::Error::custom(
            "the version or the generation of the session is too high: no save has written it",
        ));
    }
    Ok(count)
}

/// Times as milliseconds since 1970.
#[allow(clippy::ref_option, reason = "serde passes it so")]
pub(super) mod millis {
    use super::{Deserialize, Deserializer, Duration, Serializer, SystemTime};

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            None => serializer.serialize_none(),
            Some(time) => {
                let since = time
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                serializer.serialize_u64(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let millis = Option::<u64>::deserialize(deserializer)?;
        // A time that no clock can show never comes.
        Ok(millis.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))))
    }
}
