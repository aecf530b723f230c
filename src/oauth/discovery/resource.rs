//! [`ProtectedResource`]: the metadata of an API (RFC 9728).

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde::Deserialize;
use tower::BoxError;
use tower_service::Service;

use super::{
    super::{
        EndpointUrl,
        credential::Credential,
        endpoints::Endpoints,
        fields::text,
        send::Target,
        settings::Settings,
        transport::{Transport, erase},
    },
    issuer::Issuer,
    read::{API, checked, get, is_missing},
};
use crate::{
    challenge::Challenge,
    clock::Clock,
    error::{Asked, TokenError, TokenErrorKind},
};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// How many authorization servers, and how many scopes, a document may name.
const MAX_NAMES: usize = 1000;

/// What an API publishes about itself (RFC 9728): which authorization servers issue its tokens, and which scopes it knows.
///
/// An attacker may control the API and what it publishes. A client that sends its secret or a refresh token to any server that
/// an API names can lose it. So an authorization server is used only if it is [confirmed](Self::confirm_server).
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{BoxError, service_fn};
/// use tower_bearer::{ClientAuth, ClientCredentialsSource, OAuthClient, Origins, ProtectedResource};
///
/// const KNOWN: [&str; 2] = ["https://login.example.com", "https://login.example.org"];
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let http = service_fn(|request: Request<Full<_>>| async move {
///     assert_eq!(request.uri(), "https://api.example.com/.well-known/oauth-protected-resource/v2");
///     let document = r#"{"resource":"https://api.example.com/v2","authorization_servers":["https://login.example.com"]}"#;
///     Ok::<_, BoxError>(Response::new(Full::<&[u8]>::new(document.as_bytes())))
/// });
/// let api = ProtectedResource::discover_with_transport("https://api.example.com/v2", None, http.clone()).await?;
///
/// let issuer = api.confirm_server(|issuer| KNOWN.contains(&issuer))?;
/// let client = OAuthClient::discover_with_transport(issuer, http)?
///     .client_auth(ClientAuth::client_secret_basic("my-service", "a secret"));
/// let source = ClientCredentialsSource::new(client)
///     .resource(api.resource())
///     .origins(Origins::only(["https://api.example.com"])?);
/// # let _ = source;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedResource {
    resource: String,
    authorization_servers: Vec<String>,
    scopes_supported: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    resource: String,
    #[serde(default)]
    authorization_servers: Option<Vec<String>>,
    #[serde(default)]
    scopes_supported: Option<Vec<String>>,
}

impl ProtectedResource {
    /// Reads the metadata of the API at `url`, reached by reqwest over rustls.
    ///
    /// See [`discover_with_transport`](Self::discover_with_transport). The HTTP client is that of
    /// [`OAuthClient::new`](crate::OAuthClient::new).
    ///
    /// # Errors
    ///
    /// Those of [`discover_with_transport`](Self::discover_with_transport), and [`Config`](TokenErrorKind::Config) if the HTTP
    /// client cannot be built.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use tower_bearer::{OAuthClient, ProtectedResource};
    ///
    /// # async fn example() -> Result<(), tower_bearer::TokenError> {
    /// let api = ProtectedResource::discover("https://api.example.com/v2", None).await?;
    /// let issuer = api.confirm_server(|issuer| issuer == "https://login.example.com")?;
    /// let client = OAuthClient::discover(issuer)?;
    /// # let _ = client;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub async fn discover(
        url: impl AsRef<str>,
        challenge: Option<&Challenge>,
    ) -> Result<Self, TokenError> {
        let url = api_url(url.as_ref())?;
        let transport = crate::oauth::ReqwestTransport::for_tokens(url.is_https())?;
        Self::read(&url, challenge, erase(transport)).await
    }

    /// Reads the metadata of the API at `url`, reached by any service that speaks HTTP.
    ///
    /// They are at [`resource_metadata`](Challenge::resource_metadata) of the challenge, if that names a URL. The API answers a
    /// request without a token with 401 and a challenge: see [`Challenge::from_headers`]. Without such a URL, they are at the
    /// well-known one: for `https://api.example.com/v2` that is
    /// `https://api.example.com/.well-known/oauth-protected-resource/v2` (RFC 9728 §3.1).
    ///
    /// - The `resource` in the document must be `url` (§3.3). If the API is a part of a larger one, whose metadata count for it,
    ///   pass the URL of that one.
    /// - The URL in the challenge must be of the same scheme, host and port as `url`.
    /// - `url` is https, or http to this machine. Redirects are not followed, a document is no longer than 64 KiB, and reading it
    ///   takes no longer than 30 seconds.
    /// - The request carries nothing but the URL.
    ///
    /// The service must follow no redirects.
    ///
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): `url` is not an absolute http or https URL, or has a user name, a password or a
    ///   fragment.
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): `url`, or the URL in the challenge, is http, and not to this machine.
    /// - [`InvalidResponse`](TokenErrorKind::InvalidResponse): the URL in the challenge is at another origin; there is no
    ///   document, it is too long, or it is that of another API.
    /// - [`Transport`](TokenErrorKind::Transport), [`Timeout`](TokenErrorKind::Timeout), [`Server`](TokenErrorKind::Server) and
    ///   [`RateLimited`](TokenErrorKind::RateLimited): a later attempt may succeed.
    ///
    /// # Examples
    ///
    /// See [`ProtectedResource`].
    pub async fn discover_with_transport<S, B>(
        url: impl AsRef<str>,
        challenge: Option<&Challenge>,
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
        let url = api_url(url.as_ref())?;
        Self::read(&url, challenge, erase(service)).await
    }

    async fn read(
        url: &EndpointUrl,
        challenge: Option<&Challenge>,
        transport: Transport,
    ) -> Result<Self, TokenError> {
        let read = async {
            let document = document_url(url, challenge.and_then(Challenge::resource_metadata))?;
            let settings = Settings::new(Endpoints::new(document.clone()), transport);
            let target = Target {
                method: "GET",
                url: &document,
                credential: Credential::default(),
            };
            let clock = Clock::System;
            let (sent, response) = settings
                .exchange(&clock, target, settings.deadline(), get(&document))
                .await?;
            if is_missing(&response) {
                let error = invalid(
                    "the API publishes no metadata there; send it a request without a token, and pass the `Challenge` of its 401",
                );
                return Err(error
                    .with_response(response.describe())
                    .with_status(response.status));
            }
            let json = checked(response, sent, &clock, API)?;
            Self::parse(text(&json.body), url).map_err(|error| {
                error
                    .with_response(json.describe())
                    .with_status(json.status)
            })
        };
        read.await.map_err(|error| error.asking(Asked::Metadata))
    }

    /// Reads a document, which must be that of the API at `url`.
    fn parse(json: &[u8], url: &EndpointUrl) -> Result<Self, TokenError> {
        // The error of `serde_json` quotes the document, so it is no source.
        let document: Document = serde_json::from_slice(json).map_err(|_| {
            invalid(
                "the API's metadata document is not a JSON object with `resource` (RFC 9728 §2)",
            )
        })?;
        // Parsed, so that a default port or an empty path makes no difference. The parser ignores white space around a URL.
        let resource = Some(&*document.resource).filter(|it| it.trim() == *it);
        if resource.and_then(|it| api_url(it).ok()).as_ref() != Some(url) {
            return Err(invalid(
                "the API's metadata document is that of another `resource` than the URL that was asked for (RFC 9728 §3.3); if \
                 that is the one that you mean, pass its URL",
            ));
        }
        let names = |names: Option<Vec<String>>| {
            let names = names.unwrap_or_default();
            (names.len() <= MAX_NAMES).then_some(names).ok_or_else(|| {
                invalid("the API's metadata document names more than 1,000 servers or scopes")
            })
        };
        Ok(Self {
            authorization_servers: names(document.authorization_servers)?,
            scopes_supported: names(document.scopes_supported)?,
            resource: document.resource,
        })
    }

    /// The URL of the API, as its document writes it: the parameter `resource` of token requests (RFC 8707 §2).
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The issuers that the API names, none of which is confirmed.
    pub fn authorization_servers(&self) -> &[String] {
        &self.authorization_servers
    }

    /// The scopes that the API knows, as far as it publishes them. None of them is checked: do not request them without a list of
    /// your own.
    pub fn scopes_supported(&self) -> &[String] {
        &self.scopes_supported
    }

    /// The first of the [authorization servers](Self::authorization_servers) for which `is_known` returns `true`: it is on a list,
    /// or a person has agreed. It is not called for one that is not https, or http to this machine.
    ///
    /// Do not compare with a prefix: `https://login.example.com.evil.test` begins with `https://login.example.com`.
    ///
    /// # Errors
    ///
    /// [`Config`](TokenErrorKind::Config): there is none.
    ///
    /// # Examples
    ///
    /// See [`ProtectedResource`].
    pub fn confirm_server(
        &self,
        mut is_known: impl FnMut(&str) -> bool,
    ) -> Result<&str, TokenError> {
        let mut all = self.authorization_servers.iter();
        let known = all.find(|issuer| Issuer::parse(issuer).is_ok() && is_known(issuer));
        known.map(String::as_str).ok_or_else(|| {
            let message = if self.authorization_servers.is_empty() {
                "the API names no authorization server"
            } else {
                "the API names no authorization server that is confirmed, so no secret is sent to any of them; compare with all \
                 of the name, byte by byte, also with a slash at its end"
            };
            TokenError::new(TokenErrorKind::Config, message)
        })
    }
}

fn api_url(text: &str) -> Result<EndpointUrl, TokenError> {
    EndpointUrl::parse_as("API", text)
}

/// Where the metadata are: where the challenge says, or at the well-known URL.
fn document_url(url: &EndpointUrl, named: Option<&str>) -> Result<EndpointUrl, TokenError> {
    let Some(named) = named else {
        let path = url.uri().path();
        let path = path.strip_suffix('/').unwrap_or(path);
        let query = url.uri().query();
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        return Ok(url.with_path(&format!("{WELL_KNOWN}{path}{query}")));
    };
    let named = EndpointUrl::parse_as("API's metadata", named).map_err(|error| {
        let kind = match error.kind() {
            TokenErrorKind::InsecureOrigin => TokenErrorKind::InsecureOrigin,
            _ => TokenErrorKind::InvalidResponse,
        };
        let message = "the `resource_metadata` of the challenge is no URL that can be read";
        TokenError::new(kind, message).with_source(error)
    })?;
    if named.origin() != url.origin() {
        return Err(invalid(
            "the `resource_metadata` of the challenge is at another origin than the API, so it is not read",
        ));
    }
    Ok(named)
}

fn invalid(what: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, what)
}
