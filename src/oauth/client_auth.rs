//! [`ClientAuth`]: how the client authenticates at the token endpoint.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use form_urlencoded::byte_serialize;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use super::Parameters;
use crate::{
    error::{TokenError, TokenErrorKind},
    zeroize::{self, zeroized},
};

/// How the client authenticates at the token endpoint (RFC 6749 §2.3).
///
/// `Debug` names the method, and shows neither the id nor the secret. Values that cannot be sent, such as an empty id,
/// make the first request fail with a [`Config`](TokenErrorKind::Config) error.
///
/// # Examples
///
/// ```
/// use tower_bearer::ClientAuth;
///
/// let auth = ClientAuth::client_secret_basic("my-app", "s3cr3t");
/// assert_eq!(format!("{auth:?}"), "ClientAuth(client_secret_basic)");
/// ```
#[derive(Clone, Default)]
pub struct ClientAuth(Method);

#[derive(Clone, Default)]
enum Method {
    #[default]
    Anonymous,
    Basic(String, SecretString),
    BasicUnencoded(String, SecretString),
    Post(String, SecretString),
    None(String),
    BasicUserOnly(SecretString),
}

impl ClientAuth {
    /// No client authentication and no client id: the grant alone is enough. The default.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// HTTP Basic with form-encoded id and secret, as RFC 6749 §2.3.1 requires.
    ///
    /// Many servers expect id and secret without the form-encoding. If one rejects a secret that contains `+ / = : %`,
    /// try [`client_secret_basic_unencoded`](Self::client_secret_basic_unencoded). For letters and digits both are the
    /// same.
    pub fn client_secret_basic(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Method::Basic(id.into(), zeroize::secret(secret)))
    }

    /// HTTP Basic as in RFC 7617, for servers that expect id and secret without the form-encoding of RFC 6749.
    ///
    /// The id cannot contain a colon.
    pub fn client_secret_basic_unencoded(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Method::BasicUnencoded(id.into(), zeroize::secret(secret)))
    }

    /// `client_id` and `client_secret` in the body (RFC 6749 §2.3.1).
    pub fn client_secret_post(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Method::Post(id.into(), zeroize::secret(secret)))
    }

    /// `client_id` in the body, without a secret: a public client (RFC 6749 §3.2.1, RFC 7591 §2).
    pub fn none(id: impl Into<String>) -> Self {
        Self(Method::None(id.into()))
    }

    /// HTTP Basic with a user name alone: no colon, no password. Winbooks expects the user's e-mail address like that.
    pub(crate) fn basic_user_only(user: impl Into<String>) -> Self {
        Self(Method::BasicUserOnly(zeroize::secret(user)))
    }

    /// The id of the client, or the user name in its place.
    pub(super) fn id(&self) -> Option<&str> {
        match &self.0 {
            Method::Basic(id, _)
            | Method::BasicUnencoded(id, _)
            | Method::Post(id, _)
            | Method::None(id) => Some(id),
            Method::BasicUserOnly(user) => Some(user.expose_secret()),
            Method::Anonymous => None,
        }
    }

    /// The secret that identifies the client.
    pub(super) fn secret(&self) -> Option<&str> {
        match &self.0 {
            Method::Basic(_, secret)
            | Method::BasicUnencoded(_, secret)
            | Method::Post(_, secret)
            | Method::BasicUserOnly(secret) => Some(secret.expose_secret()),
            Method::Anonymous | Method::None(_) => None,
        }
    }

    /// Whether the client shows a certificate (RFC 8705 §2), so that the server's mTLS endpoints are used.
    pub(super) fn uses_mtls(&self) -> bool {
        self.name().ends_with("tls_client_auth")
    }

    /// The name of the method, as in `token_endpoint_auth_methods_supported` (RFC 8414 §2) if it is a registered one.
    pub(super) fn name(&self) -> &'static str {
        match self.0 {
            Method::Anonymous => "anonymous",
            Method::Basic(..) => "client_secret_basic",
            Method::BasicUnencoded(..) => "client_secret_basic_unencoded",
            Method::Post(..) => "client_secret_post",
            Method::None(_) => "none",
            Method::BasicUserOnly(_) => "basic_user_only",
        }
    }

    /// Adds the client authentication to the parameters and headers of one token request.
    #[expect(
        clippy::unused_async,
        reason = "methods that sign, read a file or call a key service wait here"
    )]
    pub(super) async fn apply(
        &self,
        parameters: &mut Parameters,
        headers: &mut HeaderMap,
    ) -> Result<(), TokenError> {
        self.check_id()?;
        match &self.0 {
            Method::Anonymous => {}
            Method::Basic(id, secret) => {
                let id = form_encode(id);
                let secret = form_encode(secret.expose_secret());
                insert_basic(headers, &[&id, ":", &secret])?;
            }
            Method::BasicUnencoded(id, secret) => {
                insert_basic(headers, &[id, ":", secret.expose_secret()])?;
            }
            Method::Post(id, secret) => {
                parameters.push("client_id", id.as_str().into());
                parameters.push("client_secret", secret.clone());
            }
            Method::None(id) => parameters.push("client_id", id.as_str().into()),
            Method::BasicUserOnly(user) => insert_basic(headers, &[user.expose_secret()])?,
        }
        Ok(())
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

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientAuth({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn applied(auth: &ClientAuth) -> Result<(Parameters, HeaderMap), TokenError> {
        let (mut parameters, mut headers) = (Parameters::new("x"), HeaderMap::new());
        auth.apply(&mut parameters, &mut headers).await?;
        Ok((parameters, headers))
    }

    /// The decoded `Authorization` header, and the parameters.
    async fn sent(auth: ClientAuth) -> (Option<String>, Vec<(String, String)>) {
        let (parameters, headers) = applied(&auth).await.unwrap();
        let credentials = headers.get(AUTHORIZATION).map(|header| {
            assert!(header.is_sensitive());
            let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
            String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
        });
        let pairs = parameters.pairs().into_iter().skip(1);
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (credentials, pairs.collect())
    }

    #[tokio::test]
    async fn each_method_authenticates_in_its_own_way() {
        for (auth, credentials) in [
            (
                ClientAuth::client_secret_basic("a b:c", "p+/=%ü"),
                "a+b%3Ac:p%2B%2F%3D%25%C3%BC",
            ),
            (
                ClientAuth::client_secret_basic_unencoded("a b", "p+/=:%ü"),
                "a b:p+/=:%ü",
            ),
            (ClientAuth::client_secret_basic("app", ""), "app:"),
            (
                ClientAuth::basic_user_only("ann@books.example"),
                "ann@books.example",
            ),
        ] {
            assert_eq!(sent(auth).await, (Some(credentials.to_owned()), vec![]));
        }
        for (auth, expected) in [
            (ClientAuth::anonymous(), &[][..]),
            (
                ClientAuth::client_secret_post("app", "p+/="),
                &[("client_id", "app"), ("client_secret", "p+/=")],
            ),
            (ClientAuth::none("app"), &[("client_id", "app")]),
        ] {
            let (credentials, pairs) = sent(auth).await;
            assert_eq!(credentials, None);
            let expected = expected.iter().map(|(a, b)| ((*a).into(), (*b).into()));
            assert_eq!(pairs, expected.collect::<Vec<(String, String)>>());
        }
    }

    #[tokio::test]
    async fn an_id_that_cannot_be_sent_is_a_configuration_error() {
        for auth in [
            ClientAuth::client_secret_basic("", "hunter2"),
            ClientAuth::client_secret_basic_unencoded("", "hunter2"),
            ClientAuth::client_secret_basic_unencoded("a:b", "hunter2"),
            ClientAuth::client_secret_post("", "hunter2"),
            ClientAuth::none(""),
            ClientAuth::basic_user_only(""),
        ] {
            let error = applied(&auth).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{auth:?}");
            assert!(!format!("{error}{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn debug_shows_neither_id_nor_secret() {
        for auth in [
            ClientAuth::client_secret_basic("hunter1", "hunter2"),
            ClientAuth::client_secret_basic_unencoded("hunter1", "hunter2"),
            ClientAuth::client_secret_post("hunter1", "hunter2"),
            ClientAuth::none("hunter1"),
            ClientAuth::basic_user_only("hunter1"),
        ] {
            assert!(!format!("{auth:?}{auth:#?}").contains("hunter"));
        }
    }
}
