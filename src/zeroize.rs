//! Bytes that are wiped from memory when the last handle is dropped.

use bytes::Bytes;
use secrecy::{
    SecretString,
    zeroize::{Zeroize, Zeroizing},
};

/// Makes `bytes` sharable, and wipes them when the last clone of the result is dropped.
///
/// Only this buffer is wiped. A `Vec` that has grown has left copies behind: allocate its full capacity first.
pub(crate) fn zeroized(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
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
    fn a_secret_is_the_same_text_with_and_without_spare_room() {
        let mut roomy = String::with_capacity(64);
        roomy.push_str("hunter2");
        for text in [roomy, "hunter2".to_owned()] {
            assert_eq!(secret(text).expose_secret(), "hunter2");
        }
    }
}
