//! The trait [`JwtSigner`].

use std::{future::Future, pin::Pin, sync::Arc};

use crate::error::TokenError;

/// Signs JSON Web Tokens (RFC 7515).
///
/// [`SigningKey`](crate::SigningKey) has its key in memory. Implement the trait for a key that does not leave a key management
/// service or a hardware module.
///
/// # Examples
///
/// ```
/// use tower_bearer::{ClientAuth, JwtSigner, TokenError};
///
/// struct KeyService;
///
/// impl JwtSigner for KeyService {
///     fn algorithm(&self) -> &str {
///         "ES256"
///     }
///
///     fn key_id(&self) -> Option<&str> {
///         Some("2026-11")
///     }
///
///     async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, TokenError> {
///         // For ES256, r and s one after the other, 32 bytes each (RFC 7518 §3.4).
///         Ok(ask_the_service(signing_input).await)
///     }
/// }
/// # async fn ask_the_service(_: &[u8]) -> Vec<u8> { vec![0; 64] }
///
/// let auth = ClientAuth::private_key_jwt("my-app", KeyService);
/// # let _ = auth;
/// ```
pub trait JwtSigner: Send + Sync + 'static {
    /// The name of the algorithm, for the header `alg` (RFC 7518 §3.1), such as `ES256`.
    fn algorithm(&self) -> &str;

    /// The id of the key, for the header `kid`. Default: none.
    fn key_id(&self) -> Option<&str> {
        None
    }

    /// The SHA-256 hash of the key's certificate in DER, for the header `x5t#S256` (RFC 7515 §4.1.8). Default: none.
    fn certificate_thumbprint(&self) -> Option<[u8; 32]> {
        None
    }

    /// Signs the header and the claims of a token, which are ASCII.
    ///
    /// # Errors
    ///
    /// Any error fails the token request. It is tried again as [`TokenError::is_transient`] says.
    fn sign(
        &self,
        signing_input: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, TokenError>> + Send;
}

/// Any signer, its type erased. Token requests are rare, so the box costs nothing that matters.
pub(in crate::oauth) type BoxJwtSigner = Arc<dyn DynJwtSigner>;

type Signing<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, TokenError>> + Send + 'a>>;

pub(in crate::oauth) trait DynJwtSigner: Send + Sync + 'static {
    fn algorithm(&self) -> &str;
    fn key_id(&self) -> Option<&str>;
    fn certificate_thumbprint(&self) -> Option<[u8; 32]>;
    fn sign<'a>(&'a self, signing_input: &'a [u8]) -> Signing<'a>;
}

impl<S: JwtSigner> DynJwtSigner for S {
    fn algorithm(&self) -> &str {
        JwtSigner::algorithm(self)
    }

    fn key_id(&self) -> Option<&str> {
        JwtSigner::key_id(self)
    }

    fn certificate_thumbprint(&self) -> Option<[u8; 32]> {
        JwtSigner::certificate_thumbprint(self)
    }

    fn sign<'a>(&'a self, signing_input: &'a [u8]) -> Signing<'a> {
        Box::pin(JwtSigner::sign(self, signing_input))
    }
}
