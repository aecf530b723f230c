//! How a pending login keeps its secrets, for `#[serde(with)]`.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::zeroize::secret;

pub(super) fn serialize<S: Serializer>(
    text: &SecretString,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text.expose_secret())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SecretString, D::Error> {
    let text = secret(String::deserialize(deserializer)?);
    if text.expose_secret().is_empty() {
        return Err(D::Error::custom("a secret of the login is empty"));
    }
    Ok(text)
}
