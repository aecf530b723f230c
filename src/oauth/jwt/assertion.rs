//! [`JwtAssertion`]: the claims of a signed token.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{BoxJwtSigner, JwtSigner};
use crate::{
    error::{TokenError, TokenErrorKind},
    zeroize::secret,
};

/// Servers reject a token that was issued in their future. Clocks differ by some seconds.
const ISSUED_BEFORE: Duration = Duration::from_secs(10);
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// Makes signed assertions (RFC 7523 §3): a new one for each token request, with a new `jti`.
///
/// `iat` is 10 seconds before the server's time, and `exp` 60 seconds after it.
///
/// # Examples
///
/// A service account that acts for a user, with the JWT bearer grant (RFC 7523 §2.1):
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
/// use std::time::{Duration, SystemTime};
/// use tower_bearer::{JwtAlgorithm, JwtAssertion, SigningKey};
///
/// # let pem = "-----BEGIN PRIVATE KEY-----
/// # MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
/// # -----END PRIVATE KEY-----";
/// let assertion = JwtAssertion::new("my-service", SigningKey::from_pem(JwtAlgorithm::EdDsa, pem)?)
///     .subject("ann@example.com")
///     .claim("scope", "invoices:read")
///     .lifetime(Duration::from_secs(300));
/// let text = assertion.make(SystemTime::now(), "https://login.example.com").await?;
/// assert_eq!(text.split('.').count(), 3);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct JwtAssertion {
    signer: BoxJwtSigner,
    typ: String,
    issuer: String,
    subject: String,
    audience: Option<String>,
    claims: Map<String, Value>,
    lifetime: Duration,
}

impl JwtAssertion {
    /// Assertions of `issuer` about itself.
    pub fn new(issuer: impl Into<String>, signer: impl JwtSigner) -> Self {
        Self::with_boxed(issuer.into(), Arc::new(signer))
    }

    pub(in crate::oauth) fn with_boxed(issuer: String, signer: BoxJwtSigner) -> Self {
        Self {
            signer,
            typ: "JWT".to_owned(),
            subject: issuer.clone(),
            issuer,
            audience: None,
            claims: Map::new(),
            lifetime: DEFAULT_LIFETIME,
        }
    }

    /// Sets the subject, `sub`. Default: the issuer.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            ..self
        }
    }

    /// Sets the audience, `aud`. Default: what [`make`](Self::make) is given.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        Self {
            audience: Some(audience.into()),
            ..self
        }
    }

    /// Adds a claim. One of the claims that this type sets itself is not replaced.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Sets how long an assertion is valid. Default: 60 seconds.
    pub fn lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Sets the header `typ` (RFC 7519 §5.1), such as `authorization-grant+jwt`, for servers that want an explicit
    /// type. Default: `JWT`, which servers have always accepted.
    pub fn typ(self, typ: impl Into<String>) -> Self {
        Self {
            typ: typ.into(),
            ..self
        }
    }

    /// Makes an assertion at `now`, the server's time, for `audience` if no other one is set.
    ///
    /// In a [`Grant`](crate::Grant), take both from the [`GrantContext`](crate::GrantContext).
    ///
    /// # Errors
    ///
    /// The error of the signer, and [`Source`](TokenErrorKind::Source) if the system yields no random numbers.
    pub async fn make(&self, now: SystemTime, audience: &str) -> Result<String, TokenError> {
        let mut header = Map::new();
        header.insert("alg".into(), self.signer.algorithm().into());
        header.insert("typ".into(), self.typ.as_str().into());
        if let Some(key_id) = self.signer.key_id() {
            header.insert("kid".into(), key_id.into());
        }
        if let Some(thumbprint) = self.signer.certificate_thumbprint() {
            let thumbprint = URL_SAFE_NO_PAD.encode(thumbprint);
            header.insert("x5t#S256".into(), thumbprint.into());
        }
        let now = unix_secs(now);
        let mut claims = self.claims.clone();
        claims.insert("iss".into(), self.issuer.as_str().into());
        claims.insert("sub".into(), self.subject.as_str().into());
        // One string. Servers reject an array, because it could be meant for another server as well (RFC 7523bis).
        let audience = self.audience.as_deref().unwrap_or(audience);
        claims.insert("aud".into(), audience.into());
        claims.insert("jti".into(), unique_id()?.into());
        claims.insert(
            "iat".into(),
            now.saturating_sub(ISSUED_BEFORE.as_secs()).into(),
        );
        claims.insert(
            "exp".into(),
            now.saturating_add(self.lifetime.as_secs()).into(),
        );

        let mut token = encoded(&header);
        token.push('.');
        token.push_str(&encoded(&claims));
        let signature = self.signer.sign(token.as_bytes()).await?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    pub(in crate::oauth) async fn make_secret(
        &self,
        now: SystemTime,
        audience: &str,
    ) -> Result<SecretString, TokenError> {
        Ok(secret(self.make(now, audience).await?))
    }
}

fn encoded(object: &Map<String, Value>) -> String {
    // Writing a map of strings and numbers cannot fail.
    let json = serde_json::to_vec(object).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json)
}

fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A random id, different for each assertion (RFC 7519 §4.1.7).
fn unique_id() -> Result<String, TokenError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| {
        let message = "the system yields no random numbers for the `jti` of an assertion";
        TokenError::new(TokenErrorKind::Source, message)
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl fmt::Debug for JwtAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAssertion")
            .field("algorithm", &self.signer.algorithm())
            .field("typ", &self.typ)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
