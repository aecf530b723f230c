//! [`OAuthClient`].

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use http_body_util::Full;
use secrecy::SecretString;
use tower::BoxError;
use tower_service::Service;
use url::Url;

use super::{
    BodyFormat, ClientAuth, TokenResponse, endpoint_url,
    send::{self, Transport},
};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
    token::Token,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_ANSWER_LIMIT: usize = 64 * 1024;

/// The endpoint of an authorization server that gives tokens (RFC 6749 §3.2), and how to talk to it.
///
/// Clones share the transport. `Debug` shows no secret, nor the query of the URL.
///
/// # Examples
///
/// A server that takes JSON, and knows its clients by id and secret in the body:
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BodyFormat, ClientAuth, OAuthClient};
///
/// let endpoint = OAuthClient::new("https://authorize.example.com/oauth/token")?
///     .client_auth(ClientAuth::client_secret_post("my-app", "s3cr3t"))
///     .body_format(BodyFormat::Json)
///     .parameter("audience", "https://api.example.com");
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone)]
pub struct OAuthClient {
    url: Url,
    pub(super) uri: Uri,
    pub(super) transport: Transport,
    pub(super) client_auth: ClientAuth,
    pub(super) body_format: BodyFormat,
    pub(super) headers: HeaderMap,
    pub(super) parameters: Vec<(String, SecretString)>,
    refresh_parameter: String,
    timeout: Duration,
    pub(super) max_response_size: usize,
}

impl OAuthClient {
    /// The endpoint at `url`, reached by reqwest over rustls.
    ///
    /// It follows no redirects, connects within 10 seconds, and uses the proxy that the environment names, unless the
    /// endpoint is this machine.
    ///
    /// # Errors
    ///
    /// As [`with_transport`](Self::with_transport); and [`Config`](TokenErrorKind::Config) if the HTTP client can't be
    /// built.
    #[cfg(feature = "reqwest")]
    pub fn new(url: impl AsRef<str>) -> Result<Self, TokenError> {
        let url = endpoint_url::parse(url.as_ref())?;
        let transport = super::ReqwestTransport::for_tokens(&url)?;
        Self::with_transport(url, transport)
    }

    /// The endpoint at `url`, reached by any service that speaks HTTP.
    ///
    /// The service is cloned for each request, and waited for until it is ready. It must follow no redirects: it would
    /// post the secrets once more, elsewhere. What logs whole requests there logs the secrets in their bodies.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if `url` is no absolute http or https URL, or has a user name, a password or
    /// a fragment; [`InsecureOrigin`](TokenErrorKind::InsecureOrigin) if it is http, and not of this machine
    /// (`localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`).
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
    ///     let answer = r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"bearer"}"#;
    ///     Ok::<_, BoxError>(Response::new(Full::<&[u8]>::new(answer.as_bytes())))
    /// });
    /// let token = OAuthClient::with_transport("https://authorize.example.com/token", server)?
    ///     .client_auth(ClientAuth::client_secret_basic("my-app", "s3cr3t"))
    ///     .grant("client_credentials", &[("scope", "invoices:read")])
    ///     .await?;
    ///
    /// assert_eq!(token.header(), "Bearer 2YotnFZFEjr1zCsicMWpAA");
    /// # Ok(()) }
    /// ```
    pub fn with_transport<S, B>(url: impl AsRef<str>, service: S) -> Result<Self, TokenError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let url = endpoint_url::parse(url.as_ref())?;
        let uri = url
            .as_str()
            .parse()
            .map_err(|error: http::uri::InvalidUri| {
                TokenError::new(
                    TokenErrorKind::Config,
                    "the token endpoint's URL fits no HTTP request",
                )
                .with_source(error)
            })?;
        Ok(Self {
            url,
            uri,
            transport: send::erase(service),
            client_auth: ClientAuth::anonymous(),
            body_format: BodyFormat::Form,
            headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]),
            parameters: Vec::new(),
            refresh_parameter: "refresh_token".to_owned(),
            timeout: DEFAULT_TIMEOUT,
            max_response_size: DEFAULT_ANSWER_LIMIT,
        })
    }

    /// How the client says who it is. Default: [`ClientAuth::anonymous`].
    #[must_use]
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// How the parameters are written. Default: [`BodyFormat::Form`].
    #[must_use]
    pub fn body_format(mut self, body_format: BodyFormat) -> Self {
        self.body_format = body_format;
        self
    }

    /// A header to send along, in place of one of that name; the value is marked sensitive. Default:
    /// `Accept: application/json`.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config) if name or value can't be sent, or if the header describes the body, which
    /// [`body_format`](Self::body_format) does.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, TokenError> {
        let config = |what| TokenError::new(TokenErrorKind::Config, what);
        let name = HeaderName::try_from(name)
            .map_err(|error| config("not a header's name".to_owned()).with_source(error))?;
        if [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
            return Err(config(format!(
                "`{name}` follows from the body; see `body_format`"
            )));
        }
        let mut value = HeaderValue::from_str(value).map_err(|error| {
            config(format!("the value of the header `{name}` can't be sent")).with_source(error)
        })?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// A parameter to send with every request, such as `scope`, `audience` or `resource` (RFC 8707); may be given
    /// several times, also by the same name.
    ///
    /// What the grant or the client's identification itself brings by that name goes before it.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The name of the parameter that carries the refresh token. Default: `refresh_token` (RFC 6749 §6); Winbooks wants
    /// it in `code`.
    #[must_use]
    pub fn refresh_parameter(mut self, name: impl Into<String>) -> Self {
        self.refresh_parameter = name.into();
        self
    }

    /// How long a whole exchange may take: until the transport is ready, has sent the request, and the answer is read.
    /// Default: 30 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many bytes of an answer are read; a longer one is an error. Default: 64 KiB.
    #[must_use]
    pub fn max_response_size(mut self, bytes: usize) -> Self {
        self.max_response_size = bytes;
        self
    }

    /// Asks for a token by any grant: for a source of your own, such as one of client credentials (RFC 6749 §4.4) or of
    /// a signed assertion (RFC 7523).
    ///
    /// `grant_type`, the client's identification and the endpoint's own parameters are sent along. A refresh token in
    /// the answer is dropped; sessions that have one are kept by the sources of this crate.
    ///
    /// # Errors
    ///
    /// Whatever a [`TokenErrorKind`] tells of the endpoint; see there which of them are worth another try.
    pub async fn grant(
        &self,
        grant_type: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Token, TokenError> {
        let response = self.request(&Clock::System, grant_type, parameters).await?;
        response.token
    }

    /// Asks for a token, and for all else that the answer tells.
    pub(crate) async fn request(
        &self,
        clock: &Clock,
        grant_type: &str,
        parameters: &[(&str, &str)],
    ) -> Result<TokenResponse, TokenError> {
        let request = self.assemble(grant_type, parameters)?;
        match tokio::time::timeout(self.timeout, self.exchange(clock, request)).await {
            Ok(result) => result,
            Err(elapsed) => Err(TokenError::new(
                TokenErrorKind::Timeout,
                format!("POST {} took longer than {:?}", self.shown(), self.timeout),
            )
            .with_source(elapsed)),
        }
    }

    /// The name of the parameter that carries the refresh token.
    pub(crate) fn refresh_parameter_name(&self) -> &str {
        &self.refresh_parameter
    }

    /// The address, for messages: without its query.
    pub(crate) fn shown(&self) -> String {
        endpoint_url::shown(&self.url)
    }
}

impl fmt::Debug for OAuthClient {
    /// Names headers and parameters, and shows none of their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<&str> = self
            .parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        f.debug_struct("OAuthClient")
            .field("url", &self.shown())
            .field("client_auth", &self.client_auth)
            .field("body_format", &self.body_format)
            .field("headers", &self.headers)
            .field("parameters", &parameters)
            .field("refresh_parameter", &self.refresh_parameter)
            .field("timeout", &self.timeout)
            .field("max_response_size", &self.max_response_size)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
