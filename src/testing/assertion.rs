//! The checks of signed assertions (RFC 7523 §3), as a strict server makes them.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::{JwtAlgorithm, JwtSigner, SigningKey};

/// An assertion that expires later than this is rejected, so that not every `jti` has to be remembered for ever.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3_600);

/// What verifies the signature of an assertion. It fixes the algorithm: what the assertion says must agree.
#[derive(Clone, Debug)]
pub(super) struct VerifyingKey {
    algorithm: String,
    kind: Kind,
    key_id: Option<String>,
    /// The value of `x5t#S256`.
    thumbprint: Option<String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Public(&'static dyn VerificationAlgorithm, Vec<u8>),
    /// HS256.
    Secret(String),
}

impl From<&SigningKey> for VerifyingKey {
    fn from(key: &SigningKey) -> Self {
        let verification: &'static dyn VerificationAlgorithm = match key.jwt_algorithm() {
            JwtAlgorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            JwtAlgorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
            JwtAlgorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            JwtAlgorithm::EdDsa => &ED25519,
        };
        let thumbprint = key.certificate_thumbprint();
        Self {
            algorithm: key.algorithm().to_owned(),
            kind: Kind::Public(verification, key.public_key().to_vec()),
            key_id: key.key_id().map(str::to_owned),
            thumbprint: thumbprint.map(|hash| BASE64_URL_SAFE_NO_PAD.encode(hash)),
        }
    }
}

impl VerifyingKey {
    /// The client secret as a key of HS256.
    pub(super) fn of_secret(secret: &str) -> Result<Self, &'static str> {
        if secret.len() < 32 {
            return Err("the client secret is too short for HS256");
        }
        Ok(Self {
            algorithm: "HS256".to_owned(),
            kind: Kind::Secret(secret.to_owned()),
            key_id: None,
            thumbprint: None,
        })
    }

    pub(super) fn algorithm(&self) -> &str {
        &self.algorithm
    }

    fn verifies(&self, input: &str, signature: &[u8]) -> bool {
        match &self.kind {
            Kind::Public(algorithm, key) => UnparsedPublicKey::new(*algorithm, key)
                .verify(input.as_bytes(), signature)
                .is_ok(),
            Kind::Secret(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                hmac::verify(&key, input.as_bytes(), signature).is_ok()
            }
        }
    }
}

/// What an assertion is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    ClientAuthentication,
    AuthorizationGrant,
}

impl Purpose {
    fn allows_typ(self, typ: &str) -> bool {
        let own = match self {
            Self::ClientAuthentication => "client-authentication+jwt",
            Self::AuthorizationGrant => "authorization-grant+jwt",
        };
        ["JWT", own]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(typ))
    }
}

/// The `jti` of each assertion that was accepted, with its issuer and the time when it expires.
#[derive(Debug, Default)]
pub(super) struct SeenIds(HashMap<(String, String), f64>);

/// An assertion that has three parts. Nothing else is checked yet.
pub(super) struct Assertion<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl<'a> Assertion<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let object = |part: &str| serde_json::from_slice(&decoded(part)?).ok();
        let (signed, signature) = text.rsplit_once('.').unwrap_or_default();
        let (header, claims) = signed.split_once('.').unwrap_or_default();
        match (decoded(signature), object(header), object(claims)) {
            (Some(signature), Some(header), Some(claims)) => Ok(Self {
                signed,
                signature,
                header,
                claims,
            }),
            _ => Err("the assertion is not a signed JWT"),
        }
    }

    /// The issuer, which is not to be trusted before the signature is verified.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.text("iss")
    }

    pub(super) fn subject(&self) -> Option<&str> {
        self.text("sub").filter(|subject| !subject.is_empty())
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// Checks the header and the signature.
    pub(super) fn verify(&self, key: &VerifyingKey, purpose: Purpose) -> Result<(), &'static str> {
        let text = |name: &str| self.header.get(name).map(|value| value.as_str());
        if text("alg") != Some(Some(&key.algorithm)) {
            return Err("`alg` is not the registered algorithm");
        }
        if text("typ").is_some_and(|typ| !typ.is_some_and(|typ| purpose.allows_typ(typ))) {
            return Err("`typ` is that of another kind of token");
        }
        if self.header.contains_key("crit") {
            return Err("`crit` names headers that the server does not know");
        }
        if text("kid").is_some_and(|key_id| key_id != key.key_id.as_deref()) {
            return Err("`kid` is not the id of the registered key");
        }
        let thumbprint = key.thumbprint.as_deref();
        if thumbprint.is_some() && text("x5t#S256") != Some(thumbprint) {
            return Err("`x5t#S256` does not name the registered certificate");
        }
        if !key.verifies(self.signed, &self.signature) {
            return Err("the signature is not that of the registered key");
        }
        Ok(())
    }

    /// Checks the claims that are the same for each purpose, at `now` by the server's clock.
    pub(super) fn check_claims(
        &self,
        audiences: &[String],
        purpose: Purpose,
        now: SystemTime,
        seen: &mut SeenIds,
    ) -> Result<(), &'static str> {
        // An array could name another server as well.
        let is_for_us = |audience: &str| audiences.iter().any(|ours| ours.as_str() == audience);
        if !self.text("aud").is_some_and(is_for_us) {
            return Err("`aud` is not the issuer or the token endpoint as one string");
        }
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let number = |claim: &str| match self.claims.get(claim) {
            Some(value) => value.as_f64().map(Some).ok_or("a time is not a number"),
            None => Ok(None),
        };
        let expires = number("exp")?.ok_or("`exp` is missing")?;
        if expires <= now {
            return Err("the assertion has expired");
        }
        if expires > now + LONGEST_LIFETIME.as_secs_f64() {
            return Err("`exp` is more than an hour away");
        }
        if number("iat")?.is_some_and(|issued| issued > now) {
            return Err("the assertion was issued in the future");
        }
        if number("nbf")?.is_some_and(|begins| begins > now) {
            return Err("the assertion is not valid yet");
        }
        // OpenID Connect Core §9 requires it of clients.
        match (self.text("jti"), purpose) {
            (Some(id), _) => seen.note(self.issuer().unwrap_or_default(), id, expires, now),
            (None, Purpose::AuthorizationGrant) if !self.claims.contains_key("jti") => Ok(()),
            (None, _) => Err("`jti` is missing"),
        }
    }
}

impl SeenIds {
    fn note(&mut self, issuer: &str, id: &str, expires: f64, now: f64) -> Result<(), &'static str> {
        self.0.retain(|_, expires| *expires > now);
        let id = (issuer.to_owned(), id.to_owned());
        match self.0.insert(id, expires) {
            Some(_) => Err("the `jti` was used before"),
            None => Ok(()),
        }
    }
}
