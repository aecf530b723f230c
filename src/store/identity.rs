//! [`Identity`]: tells sessions apart without holding a secret.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Tells which credential a session began with, without containing it.
///
/// A store keeps it beside the session, so that a newly configured credential is recognised as a new login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(Box<str>);

impl Identity {
    /// The identity of `credential`, hashed with SHA-256. `kind` tells credentials of different grants apart.
    #[must_use]
    pub fn new(kind: &str, credential: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        hash.update([0]);
        hash.update(credential);
        Self(BASE64_STANDARD_NO_PAD.encode(hash.finalize()).into())
    }
}
