//! Constructors of [`OAuthClient`] that discover the endpoints.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::BoxError;
use tower_service::Service;

use super::{
    super::{
        OAuthClient,
        endpoints::{Endpoints, TokenEndpoint},
        transport::{Transport, erase},
    },
    Discovery,
    issuer::Issuer,
};
#[cfg(doc)]
use crate::error::TokenErrorKind;
use crate::{clock::Clock, error::TokenError};

impl OAuthClient {
    /// A client of the authorization server `issuer`, which publishes its endpoints (RFC 8414), reached by reqwest over
    /// rustls.
    ///
    /// No request is sent yet: the endpoints are discovered when the first token is needed, as
    /// [`discover_with_transport`](Self::discover_with_transport) says. The HTTP client follows no redirects and connects
    /// within 10 seconds. It uses the proxy that the environment names, except to reach this machine.
    ///
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): `issuer` is not an absolute http or https URL, or has a user name, a password,
    ///   a query or a fragment (RFC 8414 §2); or the HTTP client cannot be built.
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): `issuer` is http, and not to this machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{ClientAuth, OAuthClient, RefreshTokenSource};
    ///
    /// let client = OAuthClient::discover("https://login.example.com")?
    ///     .client_auth(ClientAuth::none("my-app"));
    /// let source = RefreshTokenSource::new(client, "the-refresh-token");
    /// # let _ = source;
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn discover(issuer: impl AsRef<str>) -> Result<Self, TokenError> {
        let issuer = Issuer::parse(issuer.as_ref())?;
        let transport = crate::oauth::ReqwestTransport::for_tokens(issuer.url().is_https())?;
        Ok(Self::of_issuer(issuer, erase(transport)))
    }

    /// A client of the authorization server `issuer`, which publishes its endpoints (RFC 8414), reached by any service that
    /// speaks HTTP.
    ///
    /// No request is sent yet. The document is read when the first token is needed, so a server that is down delays only
    /// that token: the refresh fails with a transient error and is tried again with backoff. Many callers share one read.
    /// For the issuer `https://login.example.com/tenant`, these URLs are tried in this order:
    ///
    /// 1. `https://login.example.com/.well-known/oauth-authorization-server/tenant` (RFC 8414 §3.1)
    /// 2. `https://login.example.com/.well-known/openid-configuration/tenant` (RFC 8414 §5)
    /// 3. `https://login.example.com/tenant/.well-known/openid-configuration` (`OpenID` Connect Discovery 1.0 §4)
    ///
    /// For an issuer without a path, the last two are the same. The next one is tried after a status from 400 to
    /// 499, except 408, 425 and 429, and after a web page.
    ///
    /// - The `issuer` in the document must be exactly `issuer`, a slash at the end included (RFC 8414 §3.3).
    /// - `issuer` is https, or http to this machine, and the endpoints in the document are of the same scheme.
    /// - Redirects are not followed. The whole of discovery takes no longer than [`timeout`](Self::timeout), and a document
    ///   is no longer than [`max_response_size`](Self::max_response_size).
    /// - The request carries neither a [`header`](Self::header), nor a [`parameter`](Self::parameter), nor the client
    ///   authentication.
    ///
    /// The document is kept as long as the client and its clones. It is read again before the next refresh if the token
    /// endpoint has answered 404, 405, 410 or with a redirect, or if no connection to it could be made, but not within 60
    /// seconds of the last time. If that fails, the endpoints stay.
    ///
    /// A stored session belongs to the issuer, so it goes on when the endpoints move.
    ///
    /// The service gets the GET requests of discovery as well. It must follow no redirects.
    ///
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): `issuer` is not an absolute http or https URL, or has a user name, a password,
    ///   a query or a fragment (RFC 8414 §2).
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): `issuer` is http, and not to this machine.
    ///
    /// Later, errors of discovery are those of the token that is wanted:
    ///
    /// - [`InvalidResponse`](TokenErrorKind::InvalidResponse): there is no document, it is none of this issuer, or an
    ///   endpoint in it cannot be used.
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): an endpoint in it is http although the issuer is https.
    /// - Others as in a token request.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower::{BoxError, service_fn};
    /// use tower_bearer::OAuthClient;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let server = service_fn(|request: Request<Full<_>>| async move {
    ///     let response = match request.uri().path() {
    ///         "/.well-known/oauth-authorization-server/tenant" => {
    ///             r#"{"issuer":"https://login.example.com/tenant","token_endpoint":"https://login.example.com/t/7"}"#
    ///         }
    ///         "/t/7" => r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"bearer"}"#,
    ///         _ => "",
    ///     };
    ///     Ok::<_, BoxError>(Response::new(Full::<&[u8]>::new(response.as_bytes())))
    /// });
    /// let client = OAuthClient::discover_with_transport("https://login.example.com/tenant", server)?;
    ///
    /// let token = client.grant("client_credentials", &[]).await?;
    /// assert_eq!(token.header(), "Bearer 2YotnFZFEjr1zCsicMWpAA");
    /// # Ok(()) }
    /// ```
    pub fn discover_with_transport<S, B>(
        issuer: impl AsRef<str>,
        service: S,
    ) -> Result<Self, TokenError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let issuer = Issuer::parse(issuer.as_ref())?;
        Ok(Self::of_issuer(issuer, erase(service)))
    }

    fn of_issuer(issuer: Issuer, transport: Transport) -> Self {
        let discovery = Arc::new(Discovery::new(issuer));
        Self::with_endpoints(
            Endpoints::of(TokenEndpoint::Discovered(discovery)),
            transport,
        )
    }

    /// The `aud` of an assertion (RFC 7523 §3): the issuer if the endpoints are discovered, else the URL of the token
    /// endpoint, with its query. Known without a request.
    pub(crate) fn audience(&self) -> String {
        self.settings.endpoints.token.identity().1.into_owned()
    }

    /// Reads the metadata of the server if they are needed and not known, or if an endpoint has disappeared since.
    ///
    /// After this, token requests need no discovery. A source calls it before it marks a session as being refreshed: a
    /// failed discovery has sent no credential.
    pub(crate) async fn prepare(&self, clock: &Clock) -> Result<(), TokenError> {
        let settings = &*self.settings;
        match settings.endpoints.discovery() {
            None => Ok(()),
            Some(discovery) => discovery.refreshed(settings, clock).await.map(drop),
        }
    }
}
