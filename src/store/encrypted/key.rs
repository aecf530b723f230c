//! [`EncryptionKey`]: a key, or where it is read.

use std::{fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use tokio::{sync::Mutex, time::timeout};

use super::cipher::{Cipher, KEY_LEN};
use crate::{
    error::{TokenError, TokenErrorKind},
    secret_file::read_secret,
    zeroize::secret,
};

/// How long reading a key may take. A store must answer at some time.
const MAX_READ: Duration = Duration::from_secs(10);

/// The key of an [`EncryptedStore`](super::EncryptedStore): 32 random bytes.
///
/// Make one with `openssl rand -base64 32`. A password is no key, however long it is.
///
/// A key in a file, or one that a closure fetches, is read when it is first used, and then kept in memory. It is read again
/// only if a stored session is encrypted with a key that is not known yet. So a process takes part in a
/// [rotation](super::EncryptedStore#rotation) without a restart. Clones share what was read: with one key for a thousand
/// sessions, a key management service is asked once.
///
/// `Debug` does not show the key. Its memory is zeroized.
///
/// # Examples
///
/// ```no_run
/// use tower_bearer::{EncryptionKey, TokenError};
/// # async fn ask_kms(_: &str) -> Result<Vec<u8>, std::io::Error> { unimplemented!() }
///
/// let mounted = EncryptionKey::from_file("/run/secrets/session-key");
/// let configured = EncryptionKey::from_env("SESSION_KEY")?;
///
/// // A data key that a key management service decrypts. Its ciphertext is configuration, and not secret.
/// let managed = EncryptionKey::from_fn(|| async {
///     let plaintext = ask_kms("AQIDAHg…").await.map_err(TokenError::other)?;
///     EncryptionKey::from_bytes(&plaintext)
/// });
/// # let _ = (mounted, configured, managed);
/// # Ok::<(), TokenError>(())
/// ```
#[derive(Clone)]
pub struct EncryptionKey(Source);

#[derive(Clone)]
enum Source {
    Fixed(Arc<Cipher>),
    Read(Arc<Reader>),
}

/// A key that is read when it is needed.
struct Reader {
    from: From,
    /// What was read last. Locked while it is read, so that many sessions with one key read it once.
    cipher: Mutex<Option<Arc<Cipher>>>,
}

enum From {
    File(PathBuf),
    Function(Box<Function>),
}

type Function = dyn Fn() -> Pin<Box<dyn Future<Output = Result<EncryptionKey, TokenError>> + Send>>
    + Send
    + Sync;

impl EncryptionKey {
    /// A key of 32 bytes.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if there are more or fewer bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenError> {
        let key = bytes.try_into().map_err(|_| {
            config(format!(
                "an encryption key has {KEY_LEN} bytes, and this one has {}: make one with `openssl rand -base64 32`",
                bytes.len()
            ))
        })?;
        let cipher = Cipher::new(key).ok_or_else(|| {
            TokenError::new(TokenErrorKind::Store, "no memory for the encryption key")
        })?;
        Ok(Self(Source::Fixed(Arc::new(cipher))))
    }

    /// A key as text: base64 or base64url of 32 bytes, with or without padding, or 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if it is neither.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        Self::parse(text, "the text")
    }

    /// The key in an environment variable, as [text](Self::from_text), without the white space around it.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if the variable is not set, or is not a key.
    pub fn from_env(variable: &str) -> Result<Self, TokenError> {
        let place = format!("the environment variable {variable}");
        let text = std::env::var(variable).map_err(|error| {
            let problem = match error {
                std::env::VarError::NotPresent => "is not set",
                // Not the error itself, which shows the value.
                std::env::VarError::NotUnicode(_) => "is not UTF-8",
            };
            config(format!("{place} with the encryption key {problem}"))
        })?;
        Self::parse(secret(text).expose_secret().trim(), &place)
    }

    /// The key in a file, as [text](Self::from_text), without the white space around it.
    ///
    /// A file that cannot be read is an error of the store, of kind [`Store`](TokenErrorKind::Store), and one that has no
    /// key is of kind [`Config`](TokenErrorKind::Config). Both are read again for the next call of the store.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self::read_from(From::File(path.into()))
    }

    /// The key that an async closure returns, for a key management service or a vault.
    ///
    /// It has 10 seconds. If it fails, or takes longer, that is an error of the store, of kind
    /// [`Store`](TokenErrorKind::Store), with the error of the closure as its [`source`](std::error::Error::source). It is
    /// called again for the next call of the store.
    pub fn from_fn<F, Fut>(read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Self, TokenError>> + Send + 'static,
    {
        Self::read_from(From::Function(Box::new(move || Box::pin(read()))))
    }

    fn read_from(from: From) -> Self {
        Self(Source::Read(Arc::new(Reader {
            from,
            cipher: Mutex::default(),
        })))
    }

    fn parse(text: &str, place: &str) -> Result<Self, TokenError> {
        decode(text).map_or_else(
            || {
                Err(config(format!(
                    "{place} is not an encryption key: it is neither base64 of {KEY_LEN} bytes nor {} hexadecimal digits; \
                     make one with `openssl rand -base64 32`",
                    2 * KEY_LEN
                )))
            },
            |key| Self::from_bytes(&*key),
        )
    }

    /// The key, which is read if that was not done yet.
    pub(super) async fn cipher(&self) -> Result<Arc<Cipher>, TokenError> {
        match &self.0 {
            Source::Fixed(cipher) => Ok(Arc::clone(cipher)),
            Source::Read(reader) => reader.cipher(None).await,
        }
    }

    /// The key, which is read again if it can be another one than `known` by now.
    pub(super) async fn changed(&self, known: &Arc<Cipher>) -> Result<Arc<Cipher>, TokenError> {
        match &self.0 {
            Source::Fixed(cipher) => Ok(Arc::clone(cipher)),
            Source::Read(reader) => reader.cipher(Some(known)).await,
        }
    }
}

impl Reader {
    /// The key. It is read if it was not yet, or if it is still `outdated`.
    async fn cipher(&self, outdated: Option<&Arc<Cipher>>) -> Result<Arc<Cipher>, TokenError> {
        let read = async {
            let mut cipher = self.cipher.lock().await;
            match &*cipher {
                Some(read) if outdated.is_none_or(|outdated| !Arc::ptr_eq(read, outdated)) => {
                    Ok(Arc::clone(read))
                }
                _ => {
                    let read = self.from.read().await?;
                    tracing::debug!(key = read.id(), from = %self.from, "encryption key read");
                    Ok(Arc::clone(cipher.insert(read)))
                }
            }
        };
        timeout(MAX_READ, read).await.unwrap_or_else(|_| {
            let message = format!(
                "{} did not return the encryption key within {MAX_READ:?}",
                self.from
            );
            Err(TokenError::new(TokenErrorKind::Store, message))
        })
    }
}

impl From {
    async fn read(&self) -> Result<Arc<Cipher>, TokenError> {
        let key = match self {
            Self::File(path) => {
                let text: SecretString = read_secret(path, "encryption key")
                    .await
                    .map_err(|error| self.failed(error))?;
                EncryptionKey::parse(text.expose_secret(), &self.to_string())?
            }
            Self::Function(read) => read().await.map_err(|error| self.failed(error))?,
        };
        // A closure may return a key that is itself read from elsewhere.
        Box::pin(key.cipher()).await
    }

    /// The error of a key that could not be read. It may be there later, unless it has to be corrected.
    fn failed(&self, error: TokenError) -> TokenError {
        let kind = match error.kind() {
            TokenErrorKind::Config => TokenErrorKind::Config,
            _ => TokenErrorKind::Store,
        };
        let message = format!("{self} did not return the encryption key");
        TokenError::new(kind, message).with_source(error)
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Function(_) => f.write_str("the function for the encryption key"),
        }
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Fixed(cipher) => write!(f, "EncryptionKey({})", cipher.id()),
            Source::Read(reader) => write!(f, "EncryptionKey({})", reader.from),
        }
    }
}

fn config(message: String) -> TokenError {
    TokenError::new(TokenErrorKind::Config, message)
}

/// Decodes a key. `None` if it has another length, or characters that are no part of it.
fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

    let mut key = Zeroizing::new([0; KEY_LEN]);
    if text.len() == 2 * KEY_LEN {
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(16 * digit(digits[0])? + digit(digits[1])?).ok()?;
        }
        return Some(key);
    }
    let is_url_safe = text.contains(['-', '_']);
    let engine = if is_url_safe { URL_SAFE } else { STANDARD };
    // With room for what the engine takes the length of a padded text for. A buffer on the stack: one on the heap would not
    // be wiped if there is an error after some bytes.
    let mut decoded = Zeroizing::new([0; KEY_LEN + 3]);
    let length = engine.decode_slice(text, &mut *decoded).ok()?;
    key.copy_from_slice(&decoded[..KEY_LEN]);
    (length == KEY_LEN).then_some(key)
}

#[cfg(test)]
mod tests;
