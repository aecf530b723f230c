//! [`Identity`]: tells sessions apart without containing a secret.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identifies the credential that a session began with, without containing it.
///
/// It is stored with the session. A source whose credential has another identity has a new login.
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
        Self(BASE64_STANDARD_NO_PAD.encode(hash.finalize()).into())
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
}
