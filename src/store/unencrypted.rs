//! [`Unencrypted`]: the store of a source, which needs sessions that it can read.

use tokio::sync::watch;

use super::{StoreLease, StoredSession, TokenStore};
use crate::error::{TokenError, TokenErrorKind};

/// A store that returns no encrypted session, but an error that says what to do. A source that gets an error instead of a
/// session overwrites nothing.
///
/// A store itself cannot do this: the one inside an `EncryptedStore` must return encrypted sessions.
pub(crate) struct Unencrypted<S>(S);

impl<S> Unencrypted<S> {
    pub(crate) fn new(store: S) -> Self {
        Self(store)
    }
}

impl<S: TokenStore> TokenStore for Unencrypted<S> {
    type Lease = S::Lease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        check(self.0.load().await?)
    }

    async fn lease(&self) -> Result<S::Lease, TokenError> {
        self.0.lease().await
    }

    async fn lease_and_load(&self) -> Result<(S::Lease, Option<StoredSession>), TokenError> {
        let (lease, stored) = self.0.lease_and_load().await?;
        match check(stored) {
            Ok(stored) => Ok((lease, stored)),
            Err(error) => {
                lease.release().await;
                Err(error)
            }
        }
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        self.0.changes()
    }

    fn is_durable(&self) -> bool {
        self.0.is_durable()
    }
}

/// Fails if the session is encrypted.
fn check(stored: Option<StoredSession>) -> Result<Option<StoredSession>, TokenError> {
    match stored.as_ref().and_then(StoredSession::as_sealed) {
        None => Ok(stored),
        Some(sealed) => Err(is_encrypted(&sealed.key)),
    }
}

fn is_encrypted(key: &str) -> TokenError {
    let message = format!(
        "the stored session is encrypted with the key {key:?}, so it is neither used nor overwritten; put an `EncryptedStore` \
         (feature `encrypted-store`) with its key around the store"
    );
    TokenError::new(TokenErrorKind::Config, message)
}
