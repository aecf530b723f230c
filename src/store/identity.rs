//! [`Identity`]: tells sessions apart without containing a secret.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identifies a credential, or a client, without containing it.
///
/// The identity of the credential that a session began with is stored with the session. A source whose credential has
/// another identity has a new login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(Box<str>);

impl Identity {
    /// The SHA-256 hash of `credential` and of `kind`, which tells the credentials of different grants apart.
    #[must_use]
    pub fn new(kind: &str, credential: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        hash.update([0]);
        hash.update(credential);
        Self::from_hash(&mut hash)
    }

    /// Identifies a refresh token, whether it is configured or was issued.
    pub(crate) fn of_refresh_token(refresh_token: &str) -> Self {
        Self::new("refresh", refresh_token)
    }

    /// The SHA-256 hash of several named values, in this order.
    pub(crate) fn of_parts<'a>(
        kind: &str,
        parts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        hash.update([0]);
        for (name, value) in parts {
            for text in [name, value] {
                // With its length, so that no two lists of values are the same bytes.
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text);
            }
        }
        Self::from_hash(&mut hash)
    }

    /// That of a session which is not known, because it is encrypted.
    pub(super) fn unknown() -> Self {
        Self(Box::default())
    }

    /// 18 bits of the hash.
    pub(crate) fn start(&self) -> &str {
        &self.0[..3]
    }

    /// The hash is not moved: that would leave the last bytes of a credential on the stack.
    fn from_hash(hash: &mut Sha256) -> Self {
        Self(BASE64_STANDARD_NO_PAD.encode(hash.finalize_reset()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_tells_credentials_apart_and_contains_none() {
        let a = Identity::new("refresh", "secret-a");
        assert_eq!(a, Identity::new("refresh", "secret-a"));
        assert_ne!(a, Identity::new("refresh", "secret-b"));
        assert_ne!(a, Identity::new("exchange", "secret-a"));
        assert!(!format!("{a:?}").contains("secret-a"));
    }

    #[test]
    fn an_identity_of_parts_depends_on_where_each_ends() {
        let of = |parts: &[(&str, &str)]| Identity::of_parts("client", parts.iter().copied());
        assert_eq!(of(&[("a", "bc")]), of(&[("a", "bc")]));
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        assert_ne!(of(&[("a", "b"), ("c", "d")]), of(&[("a", "bc"), ("", "d")]));
        assert_ne!(of(&[]), of(&[("", "")]));
    }
}
