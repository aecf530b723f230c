//! [`ClientSecret`]: a fixed secret, or one that is read anew.

use std::{fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc};

use secrecy::{ExposeSecret, SecretString};

use crate::{error::TokenError, secret_file::read_secret, zeroize::secret};

/// The secret of a client.
///
/// A `&str` or a `String` is a fixed one. A secret that is rotated while the process runs comes from a file or from a closure.
/// It is read for each token request. If the server answers `invalid_client`, it is read once more, and if it has changed, the
/// request is sent again at once.
///
/// # Examples
///
/// ```
/// use tower_bearer::{ClientAuth, ClientSecret};
///
/// let fixed = ClientAuth::client_secret_basic("my-app", "s3cr3t");
/// let mounted = ClientAuth::client_secret_basic("my-app", ClientSecret::file("/run/secrets/my-app"));
/// let fetched = ClientAuth::client_secret_post(
///     "my-app",
///     ClientSecret::from_fn(|| async { Ok(String::from("from a vault")) }),
/// );
/// # let _ = (fixed, mounted, fetched);
/// ```
#[derive(Clone)]
pub struct ClientSecret(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(SecretString),
    File(Arc<PathBuf>),
    Function(Arc<Function>),
}

type Function = dyn Fn() -> Pin<Box<dyn Future<Output = Result<SecretString, TokenError>> + Send>>
    + Send
    + Sync;

impl ClientSecret {
    /// The content of a file, without the white space around it.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(Arc::new(path.into())))
    }

    /// What an async closure returns.
    ///
    /// Its error fails the token request. It is tried again as [`TokenError::is_transient`] says.
    pub fn from_fn<F, Fut>(read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self(Kind::Function(Arc::new(move || {
            let text = read();
            Box::pin(async { Ok(secret(text.await?)) })
        })))
    }

    pub(super) async fn read(&self) -> Result<SecretString, TokenError> {
        match &self.0 {
            Kind::Fixed(secret) => Ok(secret.clone()),
            Kind::File(path) => read_secret(path, "client secret").await,
            Kind::Function(read) => read().await,
        }
    }

    /// Whether another secret than `sent` is there now.
    pub(super) async fn differs_from(&self, sent: &SecretString) -> bool {
        match &self.0 {
            Kind::Fixed(_) => false,
            Kind::File(_) | Kind::Function(_) => self
                .read()
                .await
                .is_ok_and(|now| now.expose_secret() != sent.expose_secret()),
        }
    }
}

impl From<String> for ClientSecret {
    fn from(text: String) -> Self {
        Self(Kind::Fixed(secret(text)))
    }
}

impl From<&str> for ClientSecret {
    fn from(text: &str) -> Self {
        Self(Kind::Fixed(secret(text)))
    }
}

impl From<&String> for ClientSecret {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Fixed(_) => "ClientSecret(fixed)",
            Kind::File(_) => "ClientSecret(file)",
            Kind::Function(_) => "ClientSecret(function)",
        })
    }
}
