//! What a token response says besides the token and its lifetime.

use std::{fmt, mem};

use secrecy::{SecretString, zeroize::Zeroize};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// The members of a token response that came with an access token.
#[derive(Clone, Default)]
pub(crate) struct TokenDetails {
    pub(crate) token_type: Option<Box<str>>,
    pub(crate) scope: Option<Box<str>>,
    pub(crate) id_token: Option<SecretString>,
    /// The scope that the token was requested with beyond what its source asks for on its own, because an API has asked for it.
    /// `None` if that is not known.
    pub(crate) added_scope: Option<Box<str>>,
    pub(crate) extra: ExtraMembers,
}

impl TokenDetails {
    pub(crate) fn is_empty(&self) -> bool {
        self.token_type.is_none()
            && self.scope.is_none()
            && self.id_token.is_none()
            && self.added_scope.is_none()
            && self.extra.is_empty()
    }
}

/// Members that this crate does not interpret. Their names and strings are zeroized when dropped: some of them may be
/// secrets.
#[derive(Clone, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct ExtraMembers(Map<String, Value>);

impl ExtraMembers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(crate) fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(crate) fn insert(&mut self, mut name: String, value: Value) {
        // Inserting a name once more would drop one of both.
        match self.0.get_mut(&name) {
            Some(replaced) => {
                zeroize(replaced);
                name.zeroize();
                *replaced = value;
            }
            None => drop(self.0.insert(name, value)),
        }
    }

    pub(crate) fn into_map(mut self) -> Map<String, Value> {
        mem::take(&mut self.0)
    }
}

/// Not derived: the map of `serde_json` would drop the first of two members of one name without wiping it.
impl<'de> Deserialize<'de> for ExtraMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = ExtraMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExtraMembers, A::Error> {
                let mut members = ExtraMembers::default();
                while let Some((name, value)) = map.next_entry()? {
                    members.insert(name, value);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

impl Drop for ExtraMembers {
    fn drop(&mut self) {
        zeroize_members(&mut self.0);
    }
}

/// Values that are zeroized when dropped, as [`ExtraMembers`] are.
#[derive(Default)]
pub(crate) struct ExtraValues(Vec<Value>);

impl ExtraValues {
    pub(crate) fn push(&mut self, value: Value) {
        self.0.push(value);
    }

    pub(crate) fn into_vec(mut self) -> Vec<Value> {
        mem::take(&mut self.0)
    }
}

impl Drop for ExtraValues {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(zeroize);
    }
}

fn zeroize(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(zeroize),
        Value::Object(members) => zeroize_members(members),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn zeroize_members(members: &mut Map<String, Value>) {
    for (mut name, mut value) in mem::take(members) {
        name.zeroize();
        zeroize(&mut value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zeroising_reaches_every_string_of_a_value() {
        let mut value = json!(["one", ["two", 4, null], {"a": "three"}]);
        zeroize(&mut value);
        assert_eq!(value, json!(["", ["", 4, null], {}]));
    }
}
