//! Reads the fields of a token response: a JSON object or a form.

use secrecy::zeroize::Zeroizing;
use serde_json::Value;

use crate::token::ExtraMembers;

/// Stands for bytes that are not UTF-8.
const REPLACED: char = char::REPLACEMENT_CHARACTER;

/// The fields of a JSON object or of a form. The body tells which it is: content types are often wrong.
///
/// `is_whole` says that the end of the body has arrived. A JSON object shows its own end. A form does not, so one without
/// its end is `None`.
pub(super) fn fields(body: &[u8], is_whole: bool) -> Option<ExtraMembers> {
    let body = text(body);
    match body.first()? {
        b'{' => json(body),
        first if is_whole && (first.is_ascii_alphanumeric() || *first == b'_') => form(body),
        _ => None,
    }
}

/// Whether the body looks like a JSON object.
pub(super) fn is_json_object(body: &[u8]) -> bool {
    text(body).first() == Some(&b'{')
}

/// The body without a byte order mark and the white space around it.
fn text(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(body)
        .trim_ascii()
}

/// Whether a character of `token` is not the one that the server meant.
pub(super) fn has_replaced_character(token: &str) -> bool {
    token.contains(REPLACED)
}

fn json(body: &[u8]) -> Option<ExtraMembers> {
    let mut json = Zeroizing::new(lossy(body).into_bytes());
    unescape(&mut json);
    serde_json::from_slice(&json).ok()
}

fn form(body: &[u8]) -> Option<ExtraMembers> {
    let mut fields = ExtraMembers::default();
    let pairs = body.split(|b| *b == b'&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let end = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let (name, value) = (&pair[..end], pair.get(end + 1..).unwrap_or_default());
        fields.insert(decoded(name), Value::String(decoded(value)));
    }
    let is_response = ["access_token", "error"]
        .iter()
        .any(|name| fields.get(name).is_some());
    is_response.then_some(fields)
}

/// Decodes a name or a value of a form. Not by `form_urlencoded`, whose temporaries are not wiped.
fn decoded(mut text: &[u8]) -> String {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    while let Some((first, rest)) = text.split_first() {
        let (byte, length) = match (first, rest) {
            (b'+', _) => (b' ', 1),
            (b'%', [high, low, ..]) => match hex(&[*high, *low]).map(u8::try_from) {
                Some(Ok(byte)) => (byte, 3),
                _ => (b'%', 1),
            },
            _ => (*first, 1),
        };
        bytes.push(byte);
        text = &text[length..];
    }
    lossy(&bytes)
}

/// The text of `bytes`, with a replacement for each part that is not UTF-8. Its buffer never grows.
fn lossy(bytes: &[u8]) -> String {
    let length = |chunk: std::str::Utf8Chunk<'_>| chunk.valid().len() + REPLACED.len_utf8();
    let mut text = String::with_capacity(bytes.utf8_chunks().map(length).sum());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(REPLACED);
        }
    }
    text
}

/// Writes visible characters without their escapes, in place.
///
/// `serde_json` decodes a string with escapes in a buffer that is not wiped. Tokens often have them: PHP escapes each `/`.
fn unescape(json: &mut Vec<u8>) {
    let (mut from, mut to) = (0, 0);
    while let Some(rest) = json.get(from..).filter(|rest| !rest.is_empty()) {
        let plain = match rest {
            [b'\\', b'/', ..] => Some((b'/', 2)),
            [b'\\', b'u', digits @ ..] => digits
                .first_chunk::<4>()
                .and_then(|digits| hex(digits))
                .and_then(|code| u8::try_from(code).ok())
                .filter(|byte| (b' '..=b'~').contains(byte) && !matches!(byte, b'"' | b'\\'))
                .map(|byte| (byte, 6)),
            _ => None,
        };
        if let Some((byte, length)) = plain {
            json[to] = byte;
            from += length;
            to += 1;
        } else {
            // The character after a backslash is no beginning of another escape.
            let length = if rest[0] == b'\\' {
                rest.len().min(2)
            } else {
                1
            };
            json.copy_within(from..from + length, to);
            from += length;
            to += length;
        }
    }
    json.truncate(to);
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |code, digit| {
        Some(code * 16 + char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescaped(json: &str) -> String {
        let mut json = json.as_bytes().to_vec();
        unescape(&mut json);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn only_visible_characters_lose_their_escapes() {
        for (json, expected) in [
            (r#"{"a":"b\/c\u002b\u002Fd"}"#, r#"{"a":"b/c+/d"}"#),
            (r#""\\/ \\u002b \\\/""#, r#""\\/ \\u002b \\/""#),
            (r#""\u0022 \u005c \" \n \u00e9 \u000a \ud83d\ude00""#, ""),
            (r#""\u00"#, ""),
            (r#""\u+02b""#, ""),
            ("\"\\", ""),
        ] {
            let expected = if expected.is_empty() { json } else { expected };
            assert_eq!(unescaped(json), expected);
        }
    }

    #[test]
    fn empty_pairs_of_a_form_are_skipped() {
        let fields = form(b"&error=1&&=a&").unwrap();
        assert_eq!(fields.get("").and_then(Value::as_str), Some("a"));
    }

    proptest! {
        #[test]
        fn escapes_mean_the_same_afterwards(text in r#"[\\u0-9a-f/"n{}+ ]{0,24}"#) {
            let json = format!("\"{text}\"");
            let before: Option<Value> = serde_json::from_str(&json).ok();
            let after: Option<Value> = serde_json::from_str(&unescaped(&json)).ok();
            prop_assert_eq!(before, after);
        }

        #[test]
        fn forms_are_decoded_like_browsers_do(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let body = [&b"error=1&"[..], &body].concat();
            let expected: std::collections::BTreeMap<String, String> =
                form_urlencoded::parse(&body).into_owned().collect();
            let fields = form(&body).unwrap();
            for (name, value) in expected {
                prop_assert_eq!(fields.get(&name).and_then(Value::as_str), Some(&*value));
            }
        }
    }
}
