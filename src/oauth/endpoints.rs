//! [`Endpoints`]: the URLs of an authorization server.

use super::{EndpointUrl, Parameters};
use crate::error::{TokenError, TokenErrorKind};

/// The URLs of an authorization server.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    /// The token endpoint (RFC 6749 §3.2).
    pub(super) token: EndpointUrl,
    /// Where refresh tokens are sent, if not to `token`.
    pub(super) refresh: Option<EndpointUrl>,
}

impl Endpoints {
    pub(super) fn new(token: EndpointUrl) -> Self {
        Self {
            token,
            refresh: None,
        }
    }

    pub(super) fn set_refresh(&mut self, refresh: EndpointUrl) -> Result<(), TokenError> {
        // One transport serves all endpoints. The default one is built for https, or for this machine without a proxy.
        if refresh.is_https() != self.token.is_https() {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                "the refresh URL and the token endpoint's URL differ in scheme; use https for both",
            ));
        }
        self.refresh = Some(refresh);
        Ok(())
    }

    /// The URL that takes a token request with these parameters.
    pub(super) fn url_for(&self, parameters: &Parameters) -> &EndpointUrl {
        match &self.refresh {
            Some(refresh) if parameters.is_refresh() => refresh,
            _ => &self.token,
        }
    }
}
