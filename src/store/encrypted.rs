//! [`EncryptedStore`]: an envelope around a store, which sees sessions only encrypted.
//!
//! | File | What |
//! |---|---|
//! | `envelope.rs` | which key encrypts and decrypts a session, and which errors there are |
//! | `key.rs` | where keys come from, and when they are read |
//! | `cipher.rs` | AES-256-GCM |

mod cipher;
mod envelope;
mod key;

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use self::envelope::Envelope;
pub use self::key::EncryptionKey;
use super::{StoreLease, StoredSession, TokenStore};
use crate::error::TokenError;

#[doc = include_str!("encrypted/guide.md")]
#[derive(Clone)]
pub struct EncryptedStore<S> {
    inner: S,
    envelope: Arc<Envelope>,
}

impl<S: TokenStore> EncryptedStore<S> {
    /// Encrypts the session in `inner` with `key`.
    ///
    /// `name` is authenticated: give each session a name of its own, and always the same. What was encrypted under another
    /// name is refused.
    #[must_use]
    pub fn new(inner: S, name: impl Into<String>, key: EncryptionKey) -> Self {
        Self {
            inner,
            envelope: Arc::new(Envelope::new(name.into(), key)),
        }
    }

    /// Adds a key that can decrypt, and never encrypts: an earlier one, or the next one. See
    /// [Rotation](EncryptedStore#rotation).
    #[must_use]
    pub fn decryption_key(self, key: EncryptionKey) -> Self {
        self.edit(|envelope| envelope.add_key(key))
    }

    /// Reads a session that is not encrypted as well. Its next save encrypts it. Default: it is an error.
    ///
    /// It is for the time in which sessions are migrated. While it is set, someone who can write to the store can put a
    /// session of their own there.
    #[must_use]
    pub fn accept_unencrypted(self) -> Self {
        self.edit(Envelope::accept_unencrypted)
    }

    async fn open(
        &self,
        sealed: Option<StoredSession>,
    ) -> Result<Option<StoredSession>, TokenError> {
        match sealed {
            None => Ok(None),
            Some(sealed) => self.envelope.open(sealed).await.map(Some),
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut Envelope)) -> Self {
        change(Arc::make_mut(&mut self.envelope));
        self
    }

    /// The store inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The store inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the store inside.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: TokenStore> TokenStore for EncryptedStore<S> {
    type Lease = EncryptedLease<S::Lease>;

    /// # Errors
    ///
    /// Those of the store inside, and:
    ///
    /// - [`Config`](crate::TokenErrorKind::Config) if the session is encrypted with another key, or not encrypted, or if a key
    ///   is not a key.
    /// - [`Store`](crate::TokenErrorKind::Store) if the key cannot be read, even if nothing is stored: no refresh token may be
    ///   sent whose successor could not be saved. Also if the session was changed, or belongs to another name or version.
    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.envelope.check_can_seal().await?;
        self.open(self.inner.load().await?).await
    }

    async fn lease(&self) -> Result<Self::Lease, TokenError> {
        Ok(EncryptedLease {
            inner: self.inner.lease().await?,
            envelope: Arc::clone(&self.envelope),
        })
    }

    /// # Errors
    ///
    /// Those of the store inside and of [`load`](Self::load).
    async fn lease_and_load(&self) -> Result<(Self::Lease, Option<StoredSession>), TokenError> {
        // Before the lease is taken: reading a key may take long, or fail.
        self.envelope.check_can_seal().await?;
        let (inner, sealed) = self.inner.lease_and_load().await?;
        let lease = EncryptedLease {
            inner,
            envelope: Arc::clone(&self.envelope),
        };
        match self.open(sealed).await {
            Ok(stored) => Ok((lease, stored)),
            Err(error) => {
                lease.release().await;
                Err(error)
            }
        }
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        self.inner.changes()
    }

    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }
}

/// The lease of an [`EncryptedStore`].
pub struct EncryptedLease<L> {
    inner: L,
    envelope: Arc<Envelope>,
}

impl<L: StoreLease> StoreLease for EncryptedLease<L> {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let sealed = self.envelope.seal(session).await?;
        self.inner.save(replaces, &sealed).await
    }

    async fn save_and_release(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> Result<(), TokenError> {
        let sealed = self.envelope.seal(session).await?;
        self.inner.save_and_release(replaces, &sealed).await
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.inner.is_held().await
    }

    async fn release(self) {
        self.inner.release().await;
    }
}

impl<S: fmt::Debug> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore")
            .field("inner", &self.inner)
            .field("envelope", &self.envelope)
            .finish()
    }
}

impl<L: fmt::Debug> fmt::Debug for EncryptedLease<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedLease")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
