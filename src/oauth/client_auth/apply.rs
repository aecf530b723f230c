//! What each request gets of a [`ClientAuth`].

#[cfg(feature = "jwt")]
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use form_urlencoded::byte_serialize;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

#[cfg(feature = "jwt")]
use super::AssertionFormat;
use super::{ClientAuth, ClientAuthContext, Method};
#[cfg(feature = "jwt")]
use crate::oauth::jwt::{BoxJwtSigner, HmacKey, JwtAssertion};
use crate::{
    error::{TokenError, TokenErrorKind},
    oauth::{Parameters, RequestTime},
    secret_file::read_secret,
    zeroize::zeroized,
};

/// `client_assertion_type` of a JSON Web Token (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What one request is authenticated for.
pub(in crate::oauth) struct AuthTarget<'a> {
    /// Where the request goes.
    pub(in crate::oauth) url: &'a str,
    /// What assertions call the server: its issuer if it is known, or else the URL of its token endpoint, whatever the
    /// request is for. That of another endpoint is accepted by few servers.
    #[cfg_attr(
        not(feature = "jwt"),
        expect(dead_code, reason = "only assertions name it")
    )]
    pub(in crate::oauth) audience: &'a str,
    pub(in crate::oauth) time: RequestTime,
}

impl ClientAuth {
    /// Whether there is another secret now than `sent`, with which the server has rejected a request as
    /// `invalid_client`.
    pub(in crate::oauth) async fn has_changed(&self, sent: Option<&SecretString>) -> bool {
        let secret = match &self.0 {
            Method::Basic(_, secret)
            | Method::BasicUnencoded(_, secret)
            | Method::Post(_, secret) => Some(secret),
            #[cfg(feature = "jwt")]
            Method::SecretJwt(_, secret, _) => Some(secret),
            Method::AssertionFile(_, path) => {
                let now = read_secret(path, ASSERTION).await;
                return sent.is_some_and(|sent| {
                    now.is_ok_and(|now| now.expose_secret() != sent.expose_secret())
                });
            }
            _ => None,
        };
        match (secret, sent) {
            (Some(secret), Some(sent)) => secret.differs_from(sent).await,
            _ => false,
        }
    }

    /// Adds the client authentication to the parameters and headers of one token request. Returns the secret that is sent.
    pub(in crate::oauth) async fn apply(
        &self,
        target: &AuthTarget<'_>,
        parameters: &mut Parameters,
        headers: &mut HeaderMap,
    ) -> Result<Option<SecretString>, TokenError> {
        self.check_id()?;
        match &self.0 {
            Method::Anonymous => Ok(None),
            Method::Basic(id, secret) => {
                let secret = secret.read().await?;
                let (id, encoded) = (form_encode(id), form_encode(secret.expose_secret()));
                insert_basic(headers, &[&id, ":", &encoded])?;
                Ok(Some(secret))
            }
            Method::BasicUnencoded(id, secret) => {
                let secret = secret.read().await?;
                insert_basic(headers, &[id, ":", secret.expose_secret()])?;
                Ok(Some(secret))
            }
            Method::Post(id, secret) => {
                let secret = secret.read().await?;
                parameters.push("client_id", id.as_str().into());
                parameters.push("client_secret", secret.clone());
                Ok(Some(secret))
            }
            Method::None(id) | Method::Tls(id) => {
                parameters.push("client_id", id.as_str().into());
                Ok(None)
            }
            Method::BasicUserOnly(user) => {
                insert_basic(headers, &[user.expose_secret()])?;
                Ok(Some(user.clone()))
            }
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(id, signer, format) => {
                let assertion = sign(id, Arc::clone(signer), format, target).await?;
                push_assertion(parameters, Some(id), assertion.clone());
                Ok(Some(assertion))
            }
            #[cfg(feature = "jwt")]
            Method::SecretJwt(id, secret, format) => {
                let secret = secret.read().await?;
                let signer = Arc::new(HmacKey::new(secret.expose_secret())?);
                let assertion = sign(id, signer, format, target).await?;
                push_assertion(parameters, Some(id), assertion);
                Ok(Some(secret))
            }
            Method::AssertionFile(id, path) => {
                let assertion = read_secret(path, ASSERTION).await?;
                push_assertion(parameters, id.as_deref(), assertion.clone());
                Ok(Some(assertion))
            }
            Method::Custom(make) => {
                let cx = ClientAuthContext::new(target.url.to_owned(), target.time.clone());
                make(cx).await?.add_to(parameters, headers);
                Ok(None)
            }
        }
    }

    fn check_id(&self) -> Result<(), TokenError> {
        let Some(id) = self.id() else {
            return Ok(());
        };
        if id.is_empty() {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                format!(
                    "`ClientAuth::{}` got an empty client id or user name",
                    self.name()
                ),
            ));
        }
        if matches!(self.0, Method::BasicUnencoded(..)) && id.contains(':') {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                "the client id contains a colon, which HTTP Basic cannot carry unencoded (RFC 7617 §2); \
                 use `ClientAuth::client_secret_basic` or `client_secret_post`",
            ));
        }
        Ok(())
    }
}

/// What the file of an assertion is called in errors.
const ASSERTION: &str = "client assertion";

fn push_assertion(parameters: &mut Parameters, id: Option<&str>, assertion: SecretString) {
    if let Some(id) = id {
        parameters.push("client_id", id.into());
    }
    parameters.push("client_assertion_type", JWT_BEARER.into());
    parameters.push("client_assertion", assertion);
}

#[cfg(feature = "jwt")]
async fn sign(
    id: &str,
    signer: BoxJwtSigner,
    format: &AssertionFormat,
    target: &AuthTarget<'_>,
) -> Result<SecretString, TokenError> {
    let mut assertion = JwtAssertion::with_boxed(id.to_owned(), signer);
    if let Some(typ) = &format.typ {
        assertion = assertion.typ(typ);
    }
    let audience = format.audience.as_deref().unwrap_or(target.audience);
    assertion.make_secret(target.time.read(), audience).await
}

fn form_encode(text: &str) -> Zeroizing<String> {
    // Room for each byte percent-encoded: a buffer that grows leaves copies behind that are not wiped.
    let mut encoded = Zeroizing::new(String::with_capacity(3 * text.len()));
    encoded.extend(byte_serialize(text.as_bytes()));
    encoded
}

fn insert_basic(headers: &mut HeaderMap, credentials: &[&str]) -> Result<(), TokenError> {
    const SCHEME: &str = "Basic ";

    let length = credentials.iter().map(|part| part.len()).sum();
    let mut plain = Zeroizing::new(String::with_capacity(length));
    plain.extend(credentials.iter().copied());
    let mut value = Zeroizing::new(String::with_capacity(SCHEME.len() + 4 * length.div_ceil(3)));
    value.push_str(SCHEME);
    STANDARD.encode_string(&*plain, &mut value);
    let value = zeroized(std::mem::take(&mut *value).into_bytes());
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|error| {
        TokenError::new(
            TokenErrorKind::Config,
            "the client's id and secret do not fit into an `Authorization` header",
        )
        .with_source(error)
    })?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(())
}
