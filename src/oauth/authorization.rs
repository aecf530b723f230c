//! The endpoints at which people log in: the authorization endpoint (RFC 6749 §3.1) and the device authorization endpoint
//! (RFC 8628 §3.1).

use std::sync::Arc;

use super::{EndpointUrl, OAuthClient, discovery::Metadata};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
};

/// The authorization endpoint, and what is known of it.
pub(crate) struct AuthorizationEndpoint {
    pub(crate) url: EndpointUrl,
    /// The issuer that its server must be, if the endpoints were discovered.
    pub(crate) issuer: Option<String>,
    /// Each of its responses has an `iss` (RFC 9207 §3).
    pub(crate) names_issuer: bool,
    /// It may support `S256` (RFC 7636 §4.2).
    pub(crate) may_support_s256: bool,
}

impl OAuthClient {
    /// Sets the URL of the authorization endpoint (RFC 6749 §3.1), where a person logs in with a browser.
    ///
    /// Default: the one in the metadata if the client [discovers](Self::discover_with_transport) its endpoints, otherwise
    /// none.
    ///
    /// # Errors
    ///
    /// The errors of [`with_transport`](Self::with_transport).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")] {
    /// use tower_bearer::OAuthClient;
    ///
    /// let client = OAuthClient::new("https://login.example.com/token")?
    ///     .authorization_url("https://login.example.com/authorize")?;
    /// # let _ = client;
    /// # }
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "login")))]
    pub fn authorization_url(self, url: impl AsRef<str>) -> Result<Self, TokenError> {
        let url = EndpointUrl::parse_as("authorization endpoint", url.as_ref())?;
        Ok(self.edit(|settings| settings.endpoints.authorization = Some(url)))
    }

    /// Sets the URL of the device authorization endpoint (RFC 8628 §3.1), for people who log in with another device.
    ///
    /// Default: the one in the metadata if the client [discovers](Self::discover_with_transport) its endpoints, otherwise
    /// none.
    ///
    /// # Errors
    ///
    /// The errors of [`with_transport`](Self::with_transport), and [`Config`](TokenErrorKind::Config) if this URL is https
    /// and that of the token endpoint is http, or the other way round.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")] {
    /// use tower_bearer::OAuthClient;
    ///
    /// let client = OAuthClient::new("https://login.example.com/token")?
    ///     .device_authorization_url("https://login.example.com/device")?;
    /// # let _ = client;
    /// # }
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "login")))]
    pub fn device_authorization_url(self, url: impl AsRef<str>) -> Result<Self, TokenError> {
        let what = "device authorization endpoint";
        let url = EndpointUrl::parse_as(what, url.as_ref())?;
        let endpoints = &self.settings.endpoints;
        endpoints.check_scheme("device authorization URL", &url)?;
        Ok(self.edit(|settings| settings.endpoints.device_authorization = Some(url)))
    }

    /// The authorization endpoint.
    pub(crate) async fn authorization_endpoint(
        &self,
        clock: &Clock,
    ) -> Result<AuthorizationEndpoint, TokenError> {
        let metadata = self.login_metadata(clock).await?;
        let login = metadata.as_deref().map(Metadata::login);
        let configured = self.settings.endpoints.authorization.clone();
        let discovered = || login?.authorization_endpoint();
        let url = configured.map(Ok).or_else(discovered);
        let discovery = self.settings.endpoints.discovery();
        Ok(AuthorizationEndpoint {
            url: url.unwrap_or_else(|| Err(self.unknown("authorization_url")))?,
            issuer: discovery.map(|discovery| discovery.issuer().to_owned()),
            names_issuer: login.is_some_and(|login| login.names_issuer),
            may_support_s256: login.is_none_or(super::discovery::LoginMetadata::may_support_s256),
        })
    }

    /// The URL of the device authorization endpoint.
    pub(super) async fn device_authorization_endpoint(
        &self,
        clock: &Clock,
    ) -> Result<EndpointUrl, TokenError> {
        if let Some(url) = &self.settings.endpoints.device_authorization {
            return Ok(url.clone());
        }
        let metadata = self.login_metadata(clock).await?;
        let url = metadata.and_then(|metadata| {
            let with_mtls = self.settings.uses_mtls();
            metadata.login().device_authorization_endpoint(with_mtls)
        });
        url.unwrap_or_else(|| Err(self.unknown("device_authorization_url")))
    }

    /// Whether the metadata of the server name this scope.
    pub(crate) async fn supports_scope(
        &self,
        clock: &Clock,
        scope: &str,
    ) -> Result<bool, TokenError> {
        let metadata = self.login_metadata(clock).await?;
        Ok(metadata.is_some_and(|metadata| metadata.login().supports_scope(scope)))
    }

    async fn login_metadata(&self, clock: &Clock) -> Result<Option<Arc<Metadata>>, TokenError> {
        let settings = &*self.settings;
        match settings.endpoints.discovery() {
            None => Ok(None),
            Some(discovery) => discovery.metadata(settings, clock).await.map(Some),
        }
    }

    fn unknown(&self, setter: &str) -> TokenError {
        let what = match setter {
            "authorization_url" => "authorization endpoint",
            _ => "device authorization endpoint",
        };
        let message = if self.settings.endpoints.discovery().is_some() {
            format!(
                "the server's metadata name no {what}, so nobody can log in there; if it has one, set it with \
                 `OAuthClient::{setter}`"
            )
        } else {
            format!("nobody can log in without the {what}; set it with `OAuthClient::{setter}`")
        };
        TokenError::new(TokenErrorKind::Config, message)
    }
}
