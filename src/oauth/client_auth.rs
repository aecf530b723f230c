//! [`ClientAuth`]: how the client authenticates at the token endpoint.

mod apply;
mod custom;
mod secret;

#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret, SecretString};

pub(super) use self::apply::AuthTarget;
use self::custom::{BoxCustom, boxed};
pub use self::{
    custom::{AuthParts, ClientAuthContext},
    secret::ClientSecret,
};
#[cfg(feature = "jwt")]
use super::jwt::{BoxJwtSigner, JwtSigner};
use crate::{error::TokenError, zeroize};

/// How the client authenticates at the token endpoint (RFC 6749 §2.3).
///
/// `Debug` names the method, and shows neither the id nor the secret. Values that cannot be sent, such as an empty id,
/// make the first request fail with a [`Config`](crate::TokenErrorKind::Config) error.
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
    Basic(String, ClientSecret),
    BasicUnencoded(String, ClientSecret),
    Post(String, ClientSecret),
    None(String),
    BasicUserOnly(SecretString),
    /// Only the id is sent. The transport shows the certificate.
    Tls(String),
    #[cfg(feature = "jwt")]
    PrivateKeyJwt(String, BoxJwtSigner, AssertionFormat),
    #[cfg(feature = "jwt")]
    SecretJwt(String, ClientSecret, AssertionFormat),
    AssertionFile(Option<String>, Arc<PathBuf>),
    Custom(BoxCustom),
}

/// What is not the same in the client assertions for all servers.
#[cfg(feature = "jwt")]
#[derive(Clone, Default)]
struct AssertionFormat {
    audience: Option<String>,
    typ: Option<String>,
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
    pub fn client_secret_basic(id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        Self(Method::Basic(id.into(), secret.into()))
    }

    /// HTTP Basic as in RFC 7617, for servers that expect id and secret without the form-encoding of RFC 6749.
    ///
    /// The id cannot contain a colon.
    pub fn client_secret_basic_unencoded(
        id: impl Into<String>,
        secret: impl Into<ClientSecret>,
    ) -> Self {
        Self(Method::BasicUnencoded(id.into(), secret.into()))
    }

    /// `client_id` and `client_secret` in the body (RFC 6749 §2.3.1).
    pub fn client_secret_post(id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        Self(Method::Post(id.into(), secret.into()))
    }

    /// `client_id` in the body, without a secret: a public client (RFC 6749 §3.2.1, RFC 7591 §2).
    pub fn none(id: impl Into<String>) -> Self {
        Self(Method::None(id.into()))
    }

    /// A client assertion that a private key signs (RFC 7523 §2.2, `OpenID` Connect Core §9).
    ///
    /// Each request has a new assertion. Its issuer and subject are the client id. It is valid from 10 seconds before the
    /// server's time until 60 seconds after it. The server's time is learned from the `Date` of its responses: if that shows
    /// that our clock was wrong, a request that failed with `invalid_client` is sent again once.
    ///
    /// The audience is the issuer if it is known from discovery, and otherwise the URL of the token endpoint.
    /// [`assertion_audience`](Self::assertion_audience) sets another one, and [`assertion_typ`](Self::assertion_typ)
    /// another header `typ` than `JWT`.
    #[cfg(feature = "jwt")]
    pub fn private_key_jwt(id: impl Into<String>, signer: impl JwtSigner) -> Self {
        Self(Method::PrivateKeyJwt(
            id.into(),
            Arc::new(signer),
            AssertionFormat::default(),
        ))
    }

    /// A client assertion that the client secret signs with HS256 (`OpenID` Connect Core §9).
    ///
    /// As [`private_key_jwt`](Self::private_key_jwt). The secret must have at least 32 bytes (RFC 7518 §3.2), or each request
    /// fails with a [`Config`](crate::TokenErrorKind::Config) error.
    #[cfg(feature = "jwt")]
    pub fn client_secret_jwt(id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        Self(Method::SecretJwt(
            id.into(),
            secret.into(),
            AssertionFormat::default(),
        ))
    }

    /// Sets the audience of [`private_key_jwt`](Self::private_key_jwt) and [`client_secret_jwt`](Self::client_secret_jwt),
    /// for servers that expect another one. The other methods have none.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn assertion_audience(self, audience: impl Into<String>) -> Self {
        self.assertion_format(|format| format.audience = Some(audience.into()))
    }

    /// Sets the header `typ` of the assertions of [`private_key_jwt`](Self::private_key_jwt) and
    /// [`client_secret_jwt`](Self::client_secret_jwt). Default: `JWT`.
    ///
    /// The revision of RFC 7523 (draft-ietf-oauth-rfc7523bis) wants `client-authentication+jwt`, and some servers
    /// already reject everything else. `JWT` is the default all the same: most servers do not look, and some that do,
    /// such as Microsoft Entra ID, document only `JWT`.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn assertion_typ(self, typ: impl Into<String>) -> Self {
        self.assertion_format(|format| format.typ = Some(typ.into()))
    }

    #[cfg(feature = "jwt")]
    fn assertion_format(mut self, change: impl FnOnce(&mut AssertionFormat)) -> Self {
        if let Method::PrivateKeyJwt(_, _, format) | Method::SecretJwt(_, _, format) = &mut self.0 {
            change(format);
        }
        self
    }

    /// A client assertion from a file that others replace, as Kubernetes and clouds issue them for workloads (RFC 7523 §2.2).
    ///
    /// The file is read for each request. `id` is sent as `client_id` if there is one: some servers take it from the assertion.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::ClientAuth;
    ///
    /// let auth = ClientAuth::assertion_file("my-app", "/var/run/secrets/tokens/my-app");
    /// # let _ = auth;
    /// ```
    pub fn assertion_file<'a>(id: impl Into<Option<&'a str>>, path: impl Into<PathBuf>) -> Self {
        let id = id.into().map(str::to_owned);
        Self(Method::AssertionFile(id, Arc::new(path.into())))
    }

    /// A certificate in the TLS handshake (RFC 8705 §2), `tls_client_auth` or `self_signed_tls_client_auth`.
    ///
    /// Only `client_id` is sent. The transport shows the certificate: build it with one, and pass it to
    /// [`OAuthClient::with_transport`](crate::OAuthClient::with_transport). If the server publishes endpoints of their own for
    /// certificates (`mtls_endpoint_aliases`, §5), the requests go there.
    pub fn tls_client_auth(id: impl Into<String>) -> Self {
        Self(Method::Tls(id.into()))
    }

    /// What an async closure returns for each request: parameters and headers to add.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{AuthParts, ClientAuth};
    ///
    /// let auth = ClientAuth::custom(|_cx| async {
    ///     AuthParts::new()
    ///         .parameter("client_id", "my-app")
    ///         .header("x-api-key", "a-made-up-key")
    /// });
    /// # let _ = auth;
    /// ```
    pub fn custom<F, Fut>(make: F) -> Self
    where
        F: Fn(ClientAuthContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<AuthParts, TokenError>> + Send + 'static,
    {
        Self(Method::Custom(boxed(make)))
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
            | Method::None(id)
            | Method::Tls(id) => Some(id),
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(id, ..) | Method::SecretJwt(id, ..) => Some(id),
            Method::BasicUserOnly(user) => Some(user.expose_secret()),
            Method::AssertionFile(id, _) => id.as_deref(),
            Method::Anonymous | Method::Custom(_) => None,
        }
    }

    /// Whether the client shows a certificate (RFC 8705 §2), so that the server's mTLS endpoints are used.
    pub(super) fn uses_mtls(&self) -> bool {
        matches!(self.0, Method::Tls(_))
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
            Method::Tls(_) => "tls_client_auth",
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt(..) => "private_key_jwt",
            #[cfg(feature = "jwt")]
            Method::SecretJwt(..) => "client_secret_jwt",
            Method::AssertionFile(..) => "assertion_file",
            Method::Custom(_) => "custom",
        }
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientAuth({})", self.name())
    }
}
