//! Bytes that are wiped from memory when the last handle is dropped.

use bytes::Bytes;
use secrecy::zeroize::Zeroizing;

/// Makes `bytes` sharable, and wipes them when the last clone of the result is dropped.
///
/// Only this buffer is wiped. A `Vec` that has grown has left copies behind: allocate its full capacity first.
pub(crate) fn zeroized(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_stay_the_same() {
        let bytes = zeroized(b"hunter2".to_vec());
        assert_eq!(bytes.clone(), bytes);
        assert_eq!(bytes, "hunter2");
    }
}
