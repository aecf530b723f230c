//! Reads the fields of a token response: a JSON object or a form.

use secrecy::zeroize::Zeroizing;
use serde_json::Value;

use super::json;
use crate::token::ExtraMembers;

/// Stands for bytes that are not UTF-8, and for half a character in JSON.
pub(super) const REPLACED: char = char::REPLACEMENT_CHARACTER;

/// The fields of a JSON object or of a form. The body tells which it is: content types are often wrong.
///
/// `is_whole` says that the end of the body has arrived. A JSON object shows its own end. A form does not, so one without
/// its end is `None`.
pub(super) fn fields(body: &[u8], is_whole: bool) -> Option<ExtraMembers> {
    let body = text(body);
    match body.first()? {
        b'{' => json::object(&Zeroizing::new(lossy(body))),
        first if is_whole && (first.is_ascii_alphanumeric() || *first == b'_') => form(body),
        _ => None,
    }
}

/// Whether the body looks like a JSON object.
pub(super) fn is_json_object(body: &[u8]) -> bool {
    text(body).first() == Some(&b'{')
}

/// The body without a byte order mark and the white space around it.
pub(super) fn text(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(body)
        .trim_ascii()
}

/// Whether a character of `token` is not the one that the server meant.
pub(super) fn has_replaced_character(token: &str) -> bool {
    token.contains(REPLACED)
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

/// The number that hexadecimal digits write.
pub(super) fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |code, digit| {
        Some(code * 16 + char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_pairs_of_a_form_are_skipped() {
        let fields = form(b"&error=1&&=a&").unwrap();
        assert_eq!(fields.get("").and_then(Value::as_str), Some("a"));
    }

    proptest! {
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
