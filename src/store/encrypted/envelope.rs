//! [`Envelope`]: encrypts and decrypts one session.

use std::sync::Arc;

use super::{EncryptionKey, cipher::Cipher};
use crate::{
    error::{TokenError, TokenErrorKind},
    store::{StoredSession, format, stored_session::Sealed},
};

/// The keys of one session, and its name.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    name: String,
    key: EncryptionKey,
    /// Keys that can decrypt as well.
    other_keys: Vec<EncryptionKey>,
    accepts_unencrypted: bool,
}

impl Envelope {
    pub(super) fn new(name: String, key: EncryptionKey) -> Self {
        Self {
            name,
            key,
            other_keys: Vec::new(),
            accepts_unencrypted: false,
        }
    }

    pub(super) fn add_key(&mut self, key: EncryptionKey) {
        self.other_keys.push(key);
    }

    pub(super) fn accept_unencrypted(&mut self) {
        self.accepts_unencrypted = true;
    }

    /// Fails if a session could not be encrypted now. From then on it can be, because the key stays in memory.
    pub(super) async fn check_can_seal(&self) -> Result<(), TokenError> {
        self.key.cipher().await.map(drop)
    }

    /// Encrypts a session.
    pub(super) async fn seal(&self, session: &StoredSession) -> Result<StoredSession, TokenError> {
        let cipher = self.key.cipher().await?;
        let plain = format::encode(session)?;
        let version = session.version();
        let data = cipher.seal(&self.name, version, &plain).ok_or_else(|| {
            let message = format!("the session {:?} could not be encrypted", self.name);
            TokenError::new(TokenErrorKind::Store, message)
        })?;
        let key = cipher.id().into();
        Ok(session.sealed(Sealed { key, data }))
    }

    /// Decrypts a session.
    pub(super) async fn open(&self, stored: StoredSession) -> Result<StoredSession, TokenError> {
        let Some(sealed) = stored.as_sealed() else {
            return if self.accepts_unencrypted {
                Ok(stored)
            } else {
                Err(self.is_not_encrypted())
            };
        };
        let cipher = self.cipher(&sealed.key).await?;
        let version = stored.version();
        let plain = cipher.open(&self.name, version, &sealed.data);
        let plain = plain.ok_or_else(|| self.was_changed(version))?;
        let session = format::decode(&plain, &self)?;
        // It is authenticated, but a program could have encrypted something else.
        if session.version() != version {
            return Err(self.was_changed(version));
        }
        Ok(session)
    }

    /// The configured key that `id` identifies.
    async fn cipher(&self, id: &str) -> Result<Arc<Cipher>, TokenError> {
        let keys = || std::iter::once(&self.key).chain(&self.other_keys);
        let mut known = Vec::new();
        let mut failed = None;
        for key in keys() {
            match key.cipher().await {
                Ok(cipher) if cipher.id() == id => return Ok(cipher),
                Ok(cipher) => known.push((key, cipher)),
                Err(error) => failed = Some(error),
            }
        }
        // Another process has a new key. It may be here by now.
        for (key, known) in &mut known {
            match key.changed(known).await {
                Ok(cipher) if cipher.id() == id => return Ok(cipher),
                Ok(cipher) => *known = cipher,
                Err(error) => failed = Some(error),
            }
        }
        // A key that could not be read may be the one.
        Err(failed.unwrap_or_else(|| {
            let known: Vec<_> = known.iter().map(|(_, cipher)| cipher.id()).collect();
            self.has_another_key(id, &known.join(", "))
        }))
    }

    fn has_another_key(&self, id: &str, known: &str) -> TokenError {
        let message = format!(
            "{self} is encrypted with the key {id:?}, which is none of the configured keys ({known}), so it is neither used \
             nor overwritten; configure its key, as `decryption_key` if sessions are to be encrypted with another one"
        );
        TokenError::new(TokenErrorKind::Config, message)
    }

    fn was_changed(&self, version: u64) -> TokenError {
        let message = format!(
            "{self} cannot be decrypted: it was changed, or belongs to another name or version than {version}, so it is \
             neither used nor overwritten; restore it, or remove it to begin a new session"
        );
        TokenError::new(TokenErrorKind::Store, message)
    }

    fn is_not_encrypted(&self) -> TokenError {
        let message = format!(
            "{self} is stored without encryption, so it is neither used nor overwritten; to encrypt it with its next save, \
             set `accept_unencrypted` until that is done"
        );
        TokenError::new(TokenErrorKind::Config, message)
    }
}

impl std::fmt::Display for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the session {:?}", self.name)
    }
}
