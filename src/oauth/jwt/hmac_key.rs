//! [`HmacKey`]: a client secret as a key.

use aws_lc_rs::hmac;

use super::JwtSigner;
use crate::error::{TokenError, TokenErrorKind};

/// A client secret that signs: HS256.
pub(in crate::oauth) struct HmacKey(hmac::Key);

impl HmacKey {
    /// # Errors
    ///
    /// `Config` if the secret is shorter than the hash (RFC 7518 §3.2).
    pub(in crate::oauth) fn new(secret: &str) -> Result<Self, TokenError> {
        const LEAST_BYTES: usize = 32;

        if secret.len() < LEAST_BYTES {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                format!(
                    "`client_secret_jwt` needs a secret of at least {LEAST_BYTES} bytes (RFC 7518 §3.2)"
                ),
            ));
        }
        Ok(Self::of_bytes(secret.as_bytes()))
    }

    fn of_bytes(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl JwtSigner for HmacKey {
    fn algorithm(&self) -> &'static str {
        "HS256"
    }

    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, TokenError> {
        Ok(hmac::sign(&self.0, signing_input).as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    #[tokio::test]
    async fn hs256_signs_as_in_rfc_7515() {
        // RFC 7515 appendix A.1.
        let key = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
        let input = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let key = HmacKey::of_bytes(&key);
        let signature = key.sign(input.as_bytes()).await.unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(signature),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
    }

    #[test]
    fn a_secret_that_is_too_short_for_hs256_is_rejected() {
        HmacKey::new(&"x".repeat(32)).map(drop).unwrap();
        let error = HmacKey::new("hunter2").map(drop).unwrap_err();
        assert!(error.to_string().contains("at least 32 bytes"), "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}
