//! Unpredictable values, and the code challenge (RFC 7636).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{
    SecretString,
    zeroize::{Zeroize, Zeroizing},
};
use sha2::{Digest, Sha256};

use crate::error::{TokenError, TokenErrorKind};

/// 256 random bits, as RFC 7636 §7.1 recommends for a verifier.
const LENGTH: usize = 32;

/// A new value that nobody can guess: 43 characters that no URL has to encode.
pub(super) fn unpredictable() -> Result<SecretString, TokenError> {
    let mut bytes = Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut *bytes).map_err(|error| {
        let message = "the operating system has no random numbers for a login";
        TokenError::new(TokenErrorKind::Config, message).with_source(error)
    })?;
    let mut text = BASE64_URL_SAFE_NO_PAD.encode(*bytes);
    let secret = SecretString::from(text.as_str());
    text.zeroize();
    Ok(secret)
}

/// Whether `text` has the form of an [`unpredictable`] value.
pub(super) fn has_form(text: &str) -> bool {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    text.len() == (LENGTH * 4).div_ceil(3) && text.bytes().all(is_unreserved)
}

/// The code challenge of `verifier`, by the method `S256` (RFC 7636 §4.2).
pub(super) fn challenge(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let expected = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(challenge(verifier), expected);
    }

    #[test]
    fn values_are_new_each_time_and_need_no_encoding() {
        let mut seen = HashSet::new();
        for _ in 0..100 {
            let value = unpredictable().unwrap().expose_secret().to_owned();
            assert!(value.len() == 43 && has_form(&value), "{value}");
            assert!(seen.insert(value));
        }
    }
}
