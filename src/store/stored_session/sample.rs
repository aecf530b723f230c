//! Sessions for tests of stores.

use std::time::{Duration, SystemTime};

use super::{Identity, NewTokens, StoredSession};
use crate::token::Token;

/// A session of made-up tokens, for tests of stores.
pub(crate) fn sample(version: u64, label: &str) -> StoredSession {
    // Whole milliseconds, so that a loaded session equals the saved one.
    let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let token = Token::new(format!("sample-access-token-{version}"))
        .unwrap_or_else(|_| unreachable!("a number is visible ASCII"))
        .with_token_type("Bearer")
        .with_scope(label)
        .with_id_token("sample-id-token")
        .with_extra("region", "eu");
    let session = StoredSession::begin(Identity::new("sample", label), None)
        .at(version.saturating_sub(1))
        .merged(NewTokens {
            token: Some(token),
            expires_at: Some(expires_at),
            lifetime: Some(Duration::from_secs(900)),
            refresh_token: Some(format!("sample-refresh-token-{label}-{version}").into()),
            refresh_expires_at: Some(expires_at),
        });
    session
        .of_client(Identity::new("sample-client", label))
        .with_dead(&[Identity::new("sample-credential", label)], expires_at)
}
