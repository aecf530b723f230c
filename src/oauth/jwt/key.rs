//! [`SigningKey`]: a key in memory.

use std::fmt;

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaEncoding,
    },
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::JwtSigner;
use crate::error::{TokenError, TokenErrorKind};

/// How a [`SigningKey`] signs (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JwtAlgorithm {
    /// RSA of at least 2,048 bits, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// RSA of at least 2,048 bits, PSS, SHA-256.
    Ps256,
    /// ECDSA over P-256, SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A private key that signs JSON Web Tokens.
///
/// `Debug` shows the algorithm and the key's id.
pub struct SigningKey {
    algorithm: JwtAlgorithm,
    pair: Pair,
    key_id: Option<String>,
    certificate_thumbprint: Option<[u8; 32]>,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Reads a key from PEM: PKCS #8 (`PRIVATE KEY`) for each algorithm, and for RSA and ECDSA also `RSA PRIVATE KEY`
    /// and `EC PRIVATE KEY`.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `pem` is no private key without a password, or one that does not fit `algorithm`.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{ClientAuth, JwtAlgorithm, SigningKey};
    ///
    /// // An example from RFC 8410 §10.3.
    /// let pem = "-----BEGIN PRIVATE KEY-----
    /// MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
    /// -----END PRIVATE KEY-----";
    /// let key = SigningKey::from_pem(JwtAlgorithm::EdDsa, pem)?.key_id("2026-11");
    /// let auth = ClientAuth::private_key_jwt("my-app", key);
    ///
    /// assert!(SigningKey::from_pem(JwtAlgorithm::Es256, pem).is_err());
    /// # let _ = auth;
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    pub fn from_pem(algorithm: JwtAlgorithm, pem: &str) -> Result<Self, TokenError> {
        // Causes are left out: they could quote the text.
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
            config(
                "the signing key is not a private key in PEM; a key with a password must be decrypted first"
                    .into(),
            )
        })?;
        let pair = match algorithm {
            JwtAlgorithm::Rs256 | JwtAlgorithm::Ps256 => rsa(&der).map(Pair::Rsa),
            JwtAlgorithm::Es256 => ecdsa(&der).map(Pair::Ecdsa),
            JwtAlgorithm::EdDsa => ed25519(&der).map(Pair::Ed25519),
        };
        let pair = pair.ok_or_else(|| {
            let needed = match algorithm {
                JwtAlgorithm::Rs256 | JwtAlgorithm::Ps256 => "an RSA key of at least 2,048 bits",
                JwtAlgorithm::Es256 => "an elliptic curve key over P-256",
                JwtAlgorithm::EdDsa => "an Ed25519 key",
            };
            config(format!(
                "the signing key does not fit {}, which needs {needed}",
                algorithm.as_str()
            ))
        })?;
        Ok(Self {
            algorithm,
            pair,
            key_id: None,
            certificate_thumbprint: None,
        })
    }

    /// Sets the id of the key, which the header `kid` carries. Default: none.
    #[must_use]
    pub fn key_id(self, key_id: impl Into<String>) -> Self {
        Self {
            key_id: Some(key_id.into()),
            ..self
        }
    }

    /// Names the key by its certificate: the header `x5t#S256` carries the SHA-256 hash of it (RFC 7515 §4.1.8).
    /// Default: no such header.
    ///
    /// Microsoft Entra ID identifies a client's key like that. `pem` is the certificate (`CERTIFICATE`), or a chain
    /// that begins with it. Only the hash is kept.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `pem` is no certificate, or that of another key.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{ClientAuth, JwtAlgorithm, SigningKey};
    ///
    /// # let pem = "-----BEGIN PRIVATE KEY-----
    /// # MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPOSYhxJNZpo85wZ2
    /// # kEUlvPoE6Oify2f6VzmdN4xqceKhRANCAATRQdOR3SSW29k00bRqdLkDyuB9uUnH
    /// # OSYBBqtph4PneeMMxJErAbJb5kDZoCLvL2+VelCJwfT+CuAdCwwYQQWc
    /// # -----END PRIVATE KEY-----";
    /// # let certificate = "-----BEGIN CERTIFICATE-----
    /// # MIIBeTCCAR+gAwIBAgIUK/jdHlls6GoV8FIP6wk13+6DrGIwCgYIKoZIzj0EAwIw
    /// # ETEPMA0GA1UEAwwGbXktYXBwMCAXDTI2MTEzMDE2MTYzMFoYDzIxMjYxMTA2MTYx
    /// # NjMwWjARMQ8wDQYDVQQDDAZteS1hcHAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
    /// # AATRQdOR3SSW29k00bRqdLkDyuB9uUnHOSYBBqtph4PneeMMxJErAbJb5kDZoCLv
    /// # L2+VelCJwfT+CuAdCwwYQQWco1MwUTAdBgNVHQ4EFgQUQnlIqLfFNonphZR3BPGt
    /// # WefZvUQwHwYDVR0jBBgwFoAUQnlIqLfFNonphZR3BPGtWefZvUQwDwYDVR0TAQH/
    /// # BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBcWURYLQzmfq4wiesDFkehXkNq+Qca
    /// # 9vrQlB424X7XmAIhAKgvOwAmoyT3q1iauIZm8du2J9YcRxB0UTYgDs8qGQLN
    /// # -----END CERTIFICATE-----";
    /// let key = SigningKey::from_pem(JwtAlgorithm::Es256, pem)?.certificate(certificate)?;
    /// let auth = ClientAuth::private_key_jwt("the-application-id", key);
    /// # let _ = auth;
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    pub fn certificate(self, pem: &str) -> Result<Self, TokenError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| config("the certificate of the signing key is none in PEM".into()))?;
        // A certificate contains the public key in the very form that we have it in (RFC 5280 §4.1.2.7).
        let public = self.public_key();
        if !der.windows(public.len()).any(|part| part == public) {
            return Err(config(
                "the certificate is not that of the signing key: it certifies another public key"
                    .into(),
            ));
        }
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest::digest(&digest::SHA256, &der).as_ref());
        Ok(Self {
            certificate_thumbprint: Some(thumbprint),
            ..self
        })
    }

    #[cfg(feature = "testing")]
    pub(crate) fn jwt_algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    /// The public key: an RSA public key in DER, a point on the curve, or the 32 bytes of Ed25519.
    pub(crate) fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    fn signature(&self, input: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match self.algorithm {
                    JwtAlgorithm::Ps256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, input, &mut signature).ok()?;
                Some(signature)
            }
            Pair::Ecdsa(pair) => Some(pair.sign(&random, input).ok()?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Some(pair.try_sign(input).ok()?.as_ref().to_vec()),
        }
    }
}

fn rsa(der: &PrivateKeyDer<'_>) -> Option<RsaKeyPair> {
    const LEAST_BYTES: usize = 2_048 / 8;

    let pair = match der {
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        _ => return None,
    };
    pair.ok()
        .filter(|pair| pair.public_modulus_len() >= LEAST_BYTES)
}

fn ecdsa(der: &PrivateKeyDer<'_>) -> Option<EcdsaKeyPair> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    match der {
        PrivateKeyDer::Pkcs8(der) => EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der()),
        PrivateKeyDer::Sec1(der) => {
            EcdsaKeyPair::from_private_key_der(algorithm, der.secret_sec1_der())
        }
        _ => return None,
    }
    .ok()
}

fn ed25519(der: &PrivateKeyDer<'_>) -> Option<Ed25519KeyPair> {
    match der {
        // "Unchecked" means that the public key may be missing, as OpenSSL writes these keys.
        PrivateKeyDer::Pkcs8(der) => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok()
        }
        _ => None,
    }
}

impl JwtSigner for SigningKey {
    fn algorithm(&self) -> &str {
        self.algorithm.as_str()
    }

    fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    fn certificate_thumbprint(&self) -> Option<[u8; 32]> {
        self.certificate_thumbprint
    }

    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.signature(signing_input).ok_or_else(|| {
            let message = "the signing key could not sign";
            TokenError::new(TokenErrorKind::Source, message)
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

fn config(message: String) -> TokenError {
    TokenError::new(TokenErrorKind::Config, message)
}

#[cfg(test)]
mod tests;
