//! Reads a JSON object into memory that is wiped.
//!
//! `serde_json` finds out whether the text is JSON, and where its parts are. It does not decode strings: it would do that
//! in a buffer that is not wiped, and would drop what it has read before an error.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::fields::{REPLACED, hex};
use crate::token::{ExtraMembers, ExtraValues};

/// The most arrays and objects that are in each other. `serde_json` reads 128 levels, and a stored session has more of them
/// than the response that it comes from.
const MAX_DEPTH: usize = 64;

/// How the names of members begin that have a special meaning to `serde_json`.
const RESERVED: &str = "$serde_json::";

/// The members of a JSON object. Of several members of one name, the last one counts. `None` if it is not JSON.
pub(super) fn object(text: &str) -> Option<ExtraMembers> {
    object_at(text, MAX_DEPTH)
}

fn object_at(text: &str, depth: usize) -> Option<ExtraMembers> {
    let depth = depth.checked_sub(1)?;
    let mut object = ExtraMembers::default();
    for (name, member) in serde_json::from_str::<Members<'_>>(text).ok()?.0 {
        // Its text is JSON, so only its depth can be too much. The tokens beside it are of use all the same.
        let Some(value) = value(member.get(), depth) else {
            continue;
        };
        let name = string(name.get());
        // A stored session with such a name could not be read again.
        if !name.starts_with(RESERVED) {
            object.insert(name, value);
        }
    }
    Some(object)
}

fn array_at(text: &str, depth: usize) -> Option<ExtraValues> {
    let depth = depth.checked_sub(1)?;
    let mut array = ExtraValues::default();
    for item in serde_json::from_str::<Vec<&RawValue>>(text).ok()? {
        array.push(value(item.get(), depth)?);
    }
    Some(array)
}

fn value(text: &str, depth: usize) -> Option<Value> {
    Some(match text.as_bytes().first()? {
        b'{' => Value::Object(object_at(text, depth)?.into_map()),
        b'[' => Value::Array(array_at(text, depth)?.into_vec()),
        b'"' => Value::String(string(text)),
        // A number, `true`, `false` or `null`.
        _ => serde_json::from_str(text).ok()?,
    })
}

/// Decodes a string, which is valid JSON and has its quotes.
///
/// The buffer never grows, because no escape is shorter than what it stands for.
fn string(quoted: &str) -> String {
    let mut rest = quoted
        .get(1..quoted.len().saturating_sub(1))
        .unwrap_or_default();
    let mut text = String::with_capacity(rest.len());
    while let Some((plain, escaped)) = rest.split_once('\\') {
        text.push_str(plain);
        let (character, length) = unescaped(escaped.as_bytes());
        text.push(character);
        rest = escaped.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// The character of an escape (RFC 8259 §7), and how many bytes follow its backslash.
fn unescaped(escaped: &[u8]) -> (char, usize) {
    let simple = match escaped {
        [b'u', ..] => return unescaped_unicode(escaped),
        [b'b', ..] => '\u{8}',
        [b'f', ..] => '\u{c}',
        [b'n', ..] => '\n',
        [b'r', ..] => '\r',
        [b't', ..] => '\t',
        [other, ..] => char::from(*other),
        [] => REPLACED,
    };
    (simple, 1)
}

fn unescaped_unicode(escaped: &[u8]) -> (char, usize) {
    let unit = |at: usize| escaped.get(at..at + 4).and_then(hex);
    let Some(first) = unit(1) else {
        return (REPLACED, escaped.len());
    };
    if let Some(character) = char::from_u32(first) {
        return (character, 5);
    }
    let second = unit(7).filter(|_| escaped[5..].starts_with(b"\\u"));
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, second)
        && let Some(character) =
            char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    {
        return (character, 11);
    }
    (REPLACED, 5)
}

/// Names and values as they are written.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    fn read(text: &str) -> Option<Value> {
        object(text).map(|object| Value::Object(object.into_map()))
    }

    #[test]
    fn an_object_has_all_kinds_of_values() {
        let text =
            r#" {"a\u002fb": [1, -2.5e3, "x", [], {"y": null}], "c": {"d": true, "d": false}} "#;
        let expected = json!({"a/b": [1, -2.5e3, "x", [], {"y": null}], "c": {"d": false}});
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn all_escapes_are_decoded() {
        for (text, expected) in [
            (r"b\/c\u002b\u002Fd", "b/c+/d"),
            (r#"\"\\ \b\f\n\r\t\u0000"#, "\"\\ \u{8}\u{c}\n\r\t\0"),
            (r"\u00e9 \ud83d\ude00\u00E9", "é 😀é"),
            // Half a character costs only itself.
            (r"a\ud83d", "a\u{fffd}"),
            (r"a\ude00b", "a\u{fffd}b"),
            (r"\ud83d\u0041\ud83dx", "\u{fffd}A\u{fffd}x"),
        ] {
            let object = read(&format!("{{\"a\":\"{text}\"}}"));
            assert_eq!(object, Some(json!({"a": expected})), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_object_has_no_members() {
        for text in [
            "",
            "{",
            "[1]",
            "1",
            "\"a\"",
            r#"{"a":"\x"}"#,
            r#"{"a":"\u00"}"#,
            r#"{"a":1,}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":1} x"#,
            "{1:2}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_member_that_is_too_deep_is_left_out() {
        for depth in [2, 63, 64, 65, 126, 127, 128] {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            let text = format!(r#"{{"a":{open}{close},"b":1}}"#);
            let object = read(&text).unwrap();
            assert_eq!(object.get("a").is_some(), depth <= MAX_DEPTH, "{depth}");
            assert_eq!(object["b"], 1);
        }
        // A number that is too large, too.
        assert_eq!(read(r#"{"a":1e999,"b":1}"#), Some(json!({"b": 1})));
    }

    #[test]
    fn a_name_with_a_special_meaning_is_left_out() {
        let object = read(
            r#"{"$serde_json::private::RawValue":"y","a":{"$serde_json::private::Number":"1"}}"#,
        );
        assert_eq!(object, Some(json!({"a": {}})));
    }

    proptest! {
        #[test]
        fn objects_are_read_as_by_serde_json(text in r#"\{("[ab\\u0-9f/"é]{0,6}":([0-9.e-]{1,4}|"[\\u0-9a-f/"é\n]{0,12}"|\[(1|"a"|\{\})?\]|null),?){0,4}\}"#) {
            if let Ok(expected) = serde_json::from_str::<Map<String, Value>>(&text) {
                prop_assert_eq!(read(&text), Some(Value::Object(expected)));
            } else if let Some(object) = read(&text) {
                // Only half a character is no error here.
                prop_assert!(object.to_string().contains(REPLACED));
            }
        }
    }
}
