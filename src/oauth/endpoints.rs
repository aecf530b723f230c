//! [`Endpoints`]: the URLs of an authorization server.

use std::{borrow::Cow, sync::Arc};

use super::{
    EndpointUrl, Parameters,
    discovery::{Discovery, Metadata},
    settings::Settings,
};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
};

/// The URLs of an authorization server.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    /// The token endpoint (RFC 6749 §3.2).
    pub(super) token: TokenEndpoint,
    /// Where refresh tokens are sent, if not to `token`.
    pub(super) refresh: Option<EndpointUrl>,
    /// The revocation endpoint (RFC 7009), if it is configured.
    pub(super) revocation: Option<EndpointUrl>,
    /// The authorization endpoint (RFC 6749 §3.1), if it is configured.
    #[cfg(feature = "login")]
    pub(super) authorization: Option<EndpointUrl>,
    /// The device authorization endpoint (RFC 8628), if it is configured.
    #[cfg(feature = "login")]
    pub(super) device_authorization: Option<EndpointUrl>,
}

/// The token endpoint, or how to find it.
#[derive(Clone, Debug)]
pub(super) enum TokenEndpoint {
    Configured(EndpointUrl),
    /// Shared by all clones of a client.
    Discovered(Arc<Discovery>),
}

impl TokenEndpoint {
    /// What tells it apart from others, with its kind.
    pub(super) fn identity(&self) -> (&'static str, Cow<'_, str>) {
        match self {
            Self::Configured(url) => ("token_url", url.uri().to_string().into()),
            Self::Discovered(discovery) => ("issuer", discovery.issuer().into()),
        }
    }

    /// The host of the token endpoint, or of the issuer.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Configured(url) => url.host(),
            Self::Discovered(discovery) => discovery.host(),
        }
    }

    fn is_https(&self) -> bool {
        match self {
            Self::Configured(url) => url.is_https(),
            Self::Discovered(discovery) => discovery.is_https(),
        }
    }
}

impl Endpoints {
    pub(super) fn new(token: EndpointUrl) -> Self {
        Self::of(TokenEndpoint::Configured(token))
    }

    pub(super) fn of(token: TokenEndpoint) -> Self {
        Self {
            token,
            refresh: None,
            revocation: None,
            #[cfg(feature = "login")]
            authorization: None,
            #[cfg(feature = "login")]
            device_authorization: None,
        }
    }

    pub(super) fn set_refresh(&mut self, refresh: EndpointUrl) -> Result<(), TokenError> {
        self.check_scheme("refresh URL", &refresh)?;
        self.refresh = Some(refresh);
        Ok(())
    }

    pub(super) fn set_revocation(&mut self, revocation: EndpointUrl) -> Result<(), TokenError> {
        self.check_scheme("revocation URL", &revocation)?;
        self.revocation = Some(revocation);
        Ok(())
    }

    /// One transport serves all endpoints. The default one is built for https, or for this machine without a proxy.
    pub(super) fn check_scheme(&self, what: &str, url: &EndpointUrl) -> Result<(), TokenError> {
        if url.is_https() == self.token.is_https() {
            return Ok(());
        }
        let other = match &self.token {
            TokenEndpoint::Configured(_) => "the token endpoint's URL",
            TokenEndpoint::Discovered(_) => "the issuer",
        };
        Err(TokenError::new(
            TokenErrorKind::Config,
            format!("the {what} and {other} differ in scheme; use https for both"),
        ))
    }

    pub(super) fn discovery(&self) -> Option<&Discovery> {
        match &self.token {
            TokenEndpoint::Configured(_) => None,
            TokenEndpoint::Discovered(discovery) => Some(discovery),
        }
    }
}

impl Settings {
    /// The URL that takes a token request with these parameters.
    pub(super) async fn url_for(
        &self,
        clock: &Clock,
        parameters: &Parameters,
    ) -> Result<EndpointUrl, TokenError> {
        match &self.endpoints.refresh {
            Some(refresh) if parameters.is_refresh() => Ok(refresh.clone()),
            _ => self.token_url(clock).await,
        }
    }

    /// The URL of the token endpoint.
    pub(super) async fn token_url(&self, clock: &Clock) -> Result<EndpointUrl, TokenError> {
        Ok(match &self.endpoints.token {
            TokenEndpoint::Configured(url) => url.clone(),
            TokenEndpoint::Discovered(discovery) => {
                let metadata = discovery.metadata(self, clock).await?;
                metadata.token_endpoint(self.uses_mtls()).clone()
            }
        })
    }

    /// The URL of the revocation endpoint, if there is one.
    pub(super) async fn revocation_url(
        &self,
        clock: &Clock,
    ) -> Result<Option<EndpointUrl>, TokenError> {
        if let Some(url) = &self.endpoints.revocation {
            return Ok(Some(url.clone()));
        }
        let Some(discovery) = self.endpoints.discovery() else {
            return Ok(None);
        };
        let metadata = discovery.metadata(self, clock).await?;
        Ok(metadata.revocation_endpoint(self.uses_mtls()).cloned())
    }

    /// What is known of the server, without reading it.
    pub(super) fn known_metadata(&self) -> Option<Arc<Metadata>> {
        self.endpoints.discovery()?.known()
    }

    pub(super) fn uses_mtls(&self) -> bool {
        self.client_auth.uses_mtls()
    }
}
