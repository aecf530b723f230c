//! [`OAuthClient`]: a client of an authorization server.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::BoxError;
use tower_service::Service;

use super::{
    BodyFormat, ClientAuth, DeadGrant, EndpointUrl, Parameters, VendorErrors,
    endpoints::Endpoints,
    header::sensitive_header,
    settings::Settings,
    transport::{Transport, erase},
};
#[cfg(doc)]
use crate::error::TokenErrorKind;
use crate::{clock::Clock, error::TokenError, token::Token, zeroize::secret};

/// A client of an authorization server: the URLs of the server, and how to send requests to them.
///
/// Clones are cheap and share the transport. `Debug` shows no secret, and no query of a URL.
///
/// # Examples
///
/// A server that takes JSON, and client id and secret in the body:
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BodyFormat, ClientAuth, OAuthClient};
///
/// let client = OAuthClient::new("https://authorize.example.com/oauth/token")?
///     .client_auth(ClientAuth::client_secret_post("my-app", "s3cr3t"))
///     .body_format(BodyFormat::Json)
///     .parameter("audience", "https://api.example.com");
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct OAuthClient {
    pub(super) settings: Arc<Settings>,
}

impl OAuthClient {
    /// A client of the server whose token endpoint is at `token_url`, reached by reqwest over rustls.
    ///
    /// It follows no redirects and connects within 10 seconds. It uses the proxy that the environment names, except to
    /// reach this machine.
    ///
    /// # Errors
    ///
    /// The errors of [`with_transport`](Self::with_transport), and [`Config`](TokenErrorKind::Config) if the HTTP client
    /// cannot be built.
    #[cfg(feature = "reqwest")]
    pub fn new(token_url: impl AsRef<str>) -> Result<Self, TokenError> {
        Self::with_reqwest(EndpointUrl::parse(token_url.as_ref())?)
    }

    /// A client of the server whose token endpoint is at `token_url`, reached by any service that speaks HTTP.
    ///
    /// The service is cloned for each request. It must follow no redirects, because that would post the secrets once
    /// more to another place. A service that logs request bodies logs secrets.
    ///
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): `token_url` is not an absolute http or https URL, has a user name, a
    ///   password or a fragment, or has a host outside ASCII, which must be written in punycode (`xn--...`).
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): `token_url` is http, and not to this machine (`localhost`,
    ///   `*.localhost`, `127.0.0.0/8`, `[::1]`).
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower::{BoxError, service_fn};
    /// use tower_bearer::{ClientAuth, OAuthClient};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let server = service_fn(|_request: Request<Full<_>>| async {
    ///     let response = r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"bearer"}"#;
    ///     Ok::<_, BoxError>(Response::new(Full::<&[u8]>::new(response.as_bytes())))
    /// });
    /// let token = OAuthClient::with_transport("https://authorize.example.com/token", server)?
    ///     .client_auth(ClientAuth::client_secret_basic("my-app", "s3cr3t"))
    ///     .grant("client_credentials", &[("scope", "invoices:read")])
    ///     .await?;
    ///
    /// assert_eq!(token.header(), "Bearer 2YotnFZFEjr1zCsicMWpAA");
    /// # Ok(()) }
    /// ```
    pub fn with_transport<S, B>(token_url: impl AsRef<str>, service: S) -> Result<Self, TokenError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let token_url = EndpointUrl::parse(token_url.as_ref())?;
        Ok(Self::from_parts(token_url, erase(service)))
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn with_reqwest(token_url: EndpointUrl) -> Result<Self, TokenError> {
        let transport = super::ReqwestTransport::for_tokens(token_url.is_https())?;
        Ok(Self::from_parts(token_url, erase(transport)))
    }

    pub(crate) fn from_parts(token_url: EndpointUrl, transport: Transport) -> Self {
        Self::with_endpoints(Endpoints::new(token_url), transport)
    }

    /// The host of the token endpoint, or of the issuer.
    pub(crate) fn host(&self) -> &str {
        self.settings.endpoints.token.host()
    }

    pub(super) fn with_endpoints(endpoints: Endpoints, transport: Transport) -> Self {
        Self {
            settings: Arc::new(Settings::new(endpoints, transport)),
        }
    }

    pub(super) fn edit(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Sets how the client authenticates. Default: [`ClientAuth::anonymous`].
    pub fn client_auth(self, client_auth: ClientAuth) -> Self {
        self.edit(|settings| settings.client_auth = client_auth)
    }

    /// Sets the format of request bodies. Default: [`BodyFormat::Form`].
    pub fn body_format(self, body_format: BodyFormat) -> Self {
        self.edit(|settings| settings.body_format = body_format)
    }

    /// Sets another URL for refresh tokens. Default: the token endpoint.
    ///
    /// # Errors
    ///
    /// The errors of [`with_transport`](Self::with_transport), and [`Config`](TokenErrorKind::Config) if one of both URLs
    /// is https and the other one http.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")] {
    /// use tower_bearer::OAuthClient;
    ///
    /// let client = OAuthClient::new("https://login.example.com/token")?
    ///     .refresh_url("https://login.example.com/refresh")?;
    /// # let _ = client;
    /// # }
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    pub fn refresh_url(mut self, url: impl AsRef<str>) -> Result<Self, TokenError> {
        let url = EndpointUrl::parse(url.as_ref())?;
        Arc::make_mut(&mut self.settings)
            .endpoints
            .set_refresh(url)?;
        Ok(self)
    }

    /// Adds a header to every request, or replaces the one of that name. The value is marked sensitive.
    ///
    /// Default: `Accept: application/json`.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if no request can carry `name` or `value`, or if the header describes the
    /// body, which [`body_format`](Self::body_format) does.
    pub fn header(self, name: &str, value: &str) -> Result<Self, TokenError> {
        let (name, value) = sensitive_header(name, value)?;
        Ok(self.edit(|settings| {
            settings.headers.insert(name, value);
        }))
    }

    /// Adds a parameter to every request, such as `scope`, `audience` or `resource` (RFC 8707). A name may be added
    /// several times.
    ///
    /// A parameter of the same name from the grant or from the client authentication replaces it.
    pub fn parameter(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let parameter = (name.into(), secret(value));
        self.edit(|settings| settings.parameters.push(parameter))
    }

    /// Sets the name of the parameter that carries the refresh token. Default: `refresh_token` (RFC 6749 §6).
    pub(crate) fn refresh_parameter(self, name: impl Into<String>) -> Self {
        self.edit(|settings| settings.refresh_parameter = Some(name.into()))
    }

    /// Adds an error response by which this server declares a grant dead. Default: none but the standard codes, such as
    /// `invalid_grant`.
    pub fn dead_grant(self, dead_grant: DeadGrant) -> Self {
        self.edit(|settings| settings.dead_grants.push(dead_grant))
    }

    /// Adds the error codes of a vendor to the standard ones.
    pub(crate) fn vendor_errors(self, errors: &'static VendorErrors) -> Self {
        self.edit(|settings| settings.vendor_errors = errors)
    }

    /// Sets how long one request may take: until the transport is ready, has sent the request, and the response is read.
    /// Default: 30 seconds.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.edit(|settings| settings.timeout = timeout)
    }

    /// Sets how many bytes of a response are read. A longer response is an error. Default: 64 KiB.
    pub fn max_response_size(self, bytes: usize) -> Self {
        self.edit(|settings| settings.max_response_size = bytes)
    }

    /// Requests a token by any grant, once.
    ///
    /// The grant type, the client authentication and the client's own parameters are added. A refresh token in the
    /// response is dropped: use a [`GrantSource`](crate::GrantSource) to keep a session.
    ///
    /// # Errors
    ///
    /// See [`TokenErrorKind`], and [`TokenError::is_transient`] for the errors that are worth a retry.
    pub async fn grant(
        &self,
        grant_type: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Token, TokenError> {
        let parameters = parameters
            .iter()
            .fold(Parameters::new(grant_type), |all, (name, value)| {
                all.with(*name, *value)
            });
        self.prepare(&Clock::System).await?;
        self.request(&Clock::System, &parameters).await?.token
    }
}

impl fmt::Debug for OAuthClient {
    /// Names headers and parameters, and shows none of their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

#[cfg(test)]
mod tests;
