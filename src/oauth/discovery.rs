//! Discovery: the endpoints of an authorization server, from the document that it publishes (RFC 8414).

mod issuer;
mod metadata;
mod read;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower::BoxError;
use tower_service::Service;

use self::issuer::Issuer;
pub(super) use self::metadata::Metadata;
use super::{
    EndpointUrl, OAuthClient,
    endpoints::{Endpoints, TokenEndpoint},
    send::{erase, was_not_sent},
    settings::Settings,
};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
};

/// The least time between two reads of a document whose endpoint has disappeared.
const REREAD_INTERVAL: Duration = Duration::from_secs(60);

impl OAuthClient {
    /// A client of the authorization server `issuer`, which publishes its endpoints (RFC 8414), reached by reqwest over
    /// rustls.
    ///
    /// No request is sent yet. The document is read when the first token is needed, so a server that is down delays only
    /// that token: the refresh fails with a transient error and is tried again with backoff. Many callers share one read.
    /// For the issuer `https://login.example.com/tenant`, these URLs are tried in this order:
    ///
    /// 1. `https://login.example.com/.well-known/oauth-authorization-server/tenant` (RFC 8414 §3.1)
    /// 2. `https://login.example.com/.well-known/openid-configuration/tenant` (RFC 8414 §5)
    /// 3. `https://login.example.com/tenant/.well-known/openid-configuration` (OpenID Connect Discovery 1.0 §4)
    ///
    /// For an issuer without a path, the last two are the same. The next one is tried only after 404, 405 or 410.
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
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): `issuer` is not an absolute http or https URL, or has a user name, a password,
    ///   a query or a fragment (RFC 8414 §2); or the HTTP client cannot be built.
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): `issuer` is http, and not to this machine.
    ///
    /// Errors of discovery are those of a token request.
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
        let transport = super::ReqwestTransport::for_tokens(issuer.url().is_https())?;
        Ok(Self::of_issuer(issuer, erase(transport)))
    }

    /// A client of the authorization server `issuer`, which publishes its endpoints (RFC 8414), reached by any service that
    /// speaks HTTP.
    ///
    /// As [`discover`](Self::discover) says. The service gets the GET requests of discovery as well. It must follow no
    /// redirects.
    ///
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): `issuer` is not an absolute http or https URL, or has a user name, a password,
    ///   a query or a fragment (RFC 8414 §2).
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): `issuer` is http, and not to this machine.
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

    fn of_issuer(issuer: Issuer, transport: super::send::Transport) -> Self {
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

/// The metadata of an issuer, as far as they are known.
pub(super) struct Discovery {
    issuer: Issuer,
    known: Mutex<Known>,
    /// Held by the one that reads the document.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    metadata: Option<Arc<Metadata>>,
    /// An endpoint has disappeared since they were read.
    is_stale: bool,
    /// How often the document was read, successfully or not.
    reads: u64,
    last_read: Option<Instant>,
    /// Why the last read failed.
    error: Option<TokenError>,
}

impl Discovery {
    fn new(issuer: Issuer) -> Self {
        Self {
            issuer,
            known: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn issuer(&self) -> &str {
        self.issuer.as_str()
    }

    pub(super) fn is_https(&self) -> bool {
        self.issuer.url().is_https()
    }

    pub(super) fn known(&self) -> Option<Arc<Metadata>> {
        self.lock().metadata.clone()
    }

    /// The metadata. Reads the document if it was never read.
    pub(super) async fn metadata(
        &self,
        settings: &Settings,
        clock: &Clock,
    ) -> Result<Arc<Metadata>, TokenError> {
        match self.known() {
            Some(metadata) => Ok(metadata),
            None => self.refreshed(settings, clock).await,
        }
    }

    /// The metadata. Reads the document if it was never read, or if an endpoint has disappeared since.
    async fn refreshed(
        &self,
        settings: &Settings,
        clock: &Clock,
    ) -> Result<Arc<Metadata>, TokenError> {
        let before = match self.lock().current() {
            Ok(metadata) => return Ok(metadata),
            Err(reads) => reads,
        };
        let _reading = self.reading.lock().await;
        if let Some(result) = self.lock().read_since(before) {
            return result;
        }
        let read = read::document(&self.issuer, settings, clock).await;
        self.lock().record(read)
    }

    /// Remembers that the endpoint at `url` has disappeared, if `error` says so.
    fn note(&self, url: &EndpointUrl, error: &TokenError) {
        let mut known = self.lock();
        if has_disappeared(error)
            && known
                .metadata
                .as_ref()
                .is_some_and(|metadata| metadata.has_endpoint(url))
        {
            known.is_stale = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The metadata if they need not be read, or else how often they were read.
    fn current(&self) -> Result<Arc<Metadata>, u64> {
        let is_due = |last: Instant| last + REREAD_INTERVAL <= Instant::now();
        match &self.metadata {
            Some(metadata) if !self.is_stale || !self.last_read.is_some_and(is_due) => {
                Ok(Arc::clone(metadata))
            }
            _ => Err(self.reads),
        }
    }

    /// The result of a read that ended after there had been `before` of them.
    fn read_since(&self, before: u64) -> Option<Result<Arc<Metadata>, TokenError>> {
        (self.reads != before).then(|| self.result())?
    }

    fn result(&self) -> Option<Result<Arc<Metadata>, TokenError>> {
        let known = self.metadata.clone().map(Ok);
        known.or_else(|| self.error.clone().map(Err))
    }

    fn record(&mut self, read: Result<Metadata, TokenError>) -> Result<Arc<Metadata>, TokenError> {
        self.reads += 1;
        self.last_read = Some(Instant::now());
        match read {
            Ok(metadata) => {
                self.is_stale = false;
                self.error = None;
                Ok(Arc::clone(self.metadata.insert(Arc::new(metadata))))
            }
            Err(error) => {
                self.error = Some(error.clone());
                let Some(metadata) = &self.metadata else {
                    return Err(error);
                };
                tracing::warn!(%error, "the server's metadata were not read again, the known endpoints stay in use");
                Ok(Arc::clone(metadata))
            }
        }
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("issuer", self.issuer.url())
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Compares the failure of a request to `url` with the metadata: has the endpoint moved, is the method of the client
    /// authentication a supported one?
    pub(super) fn explain_by_metadata(&self, url: &EndpointUrl, error: TokenError) -> TokenError {
        let Some(discovery) = self.endpoints.discovery() else {
            return error;
        };
        discovery.note(url, &error);
        let supported = self
            .known_metadata()
            .filter(|_| error.kind() == TokenErrorKind::InvalidClient)
            .and_then(|metadata| metadata.other_methods_than(self.client_auth.name()));
        match supported {
            Some(methods) => error.with_more(&format!(
                "the client sent `{}`, and the server's metadata name {methods}",
                self.client_auth.name()
            )),
            None => error,
        }
    }
}

/// Whether an endpoint is no longer where it was: it is not found, redirects, or its host takes no connection.
fn has_disappeared(error: &TokenError) -> bool {
    let is_gone = |status: StatusCode| {
        status.is_redirection()
            || matches!(
                status,
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE
            )
    };
    match error.status() {
        Some(status) => is_gone(status) && error.oauth_code().is_none(),
        None => error.kind() == TokenErrorKind::Transport && was_not_sent(error),
    }
}
