//! Bytes that are wiped from memory when the last handle is dropped.

use std::io;

use bytes::Bytes;
use secrecy::{
    SecretString,
    zeroize::{Zeroize, Zeroizing},
};
use serde::Serialize;

/// Makes `bytes` sharable, and wipes them when the last clone of the result is dropped.
///
/// Only this buffer is wiped. A `Vec` that has grown has left copies behind: allocate its full capacity first.
pub(crate) fn zeroized(bytes: impl Into<Zeroizing<Vec<u8>>>) -> Bytes {
    Bytes::from_owner(bytes.into())
}

/// Appends to a buffer. If it must grow, the old one is wiped.
pub(crate) fn extend(buffer: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    let length = buffer.len() + bytes.len();
    if length > buffer.capacity() {
        let mut larger = Vec::with_capacity(length.max(2 * buffer.len()));
        larger.extend_from_slice(buffer);
        *buffer = Zeroizing::new(larger);
    }
    buffer.extend_from_slice(bytes);
}

/// Writes `value` as JSON. `room` is a guess of its length: if the buffer must grow, the old one is wiped.
pub(crate) fn to_json(
    value: &impl Serialize,
    room: usize,
) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let mut json = Writer(Zeroizing::new(Vec::with_capacity(room)));
    serde_json::to_writer(&mut json, value)?;
    Ok(json.0)
}

struct Writer(Zeroizing<Vec<u8>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        extend(&mut self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a secret of `text`. A `String` with spare room is copied and wiped: shrinking it could leave a copy behind.
pub(crate) fn secret(text: impl Into<String>) -> SecretString {
    let mut text = text.into();
    if text.len() == text.capacity() {
        return text.into();
    }
    let secret = SecretString::from(text.as_str());
    text.zeroize();
    secret
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_bytes_stay_the_same() {
        let bytes = zeroized(b"hunter2".to_vec());
        assert_eq!(bytes.clone(), bytes);
        assert_eq!(bytes, "hunter2");
    }
    #[test]
    fn a_buffer_grows_by_its_pieces() {
        let mut buffer = Zeroizing::default();
        for piece in [&b"hun"[..], b"", b"t", b"er2"] {
            extend(&mut buffer, piece);
        }
        assert_eq!(*buffer, b"hunter2");
    }

    #[test]
    fn json_is_the_same_in_a_buffer_that_grows() {
        let value = serde_json::json!({"a": ["hunter2", 1], "b": "x".repeat(100)});
        for room in [0, 8, 1000] {
            let json = to_json(&value, room).unwrap();
            assert_eq!(*json, serde_json::to_vec(&value).unwrap());
        }
    }

    #[test]
    fn a_secret_is_the_same_text_with_and_without_spare_room() {
        let mut roomy = String::with_capacity(64);
        roomy.push_str("hunter2");
        for text in [roomy, "hunter2".to_owned()] {
            assert_eq!(secret(text).expose_secret(), "hunter2");
        }
    }
}
