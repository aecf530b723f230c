//! The settings of an [`OAuthClient`](super::OAuthClient).

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, header::ACCEPT};
use secrecy::SecretString;

use super::{
    BodyFormat, ClientAuth, DeadGrant, VendorErrors, endpoints::Endpoints,
    server_clock::ServerClock, transport::Transport,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_MAX_RESPONSE_SIZE: usize = 64 * 1024;

/// What clones of a client share.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) endpoints: Endpoints,
    pub(super) transport: Transport,
    pub(super) client_auth: ClientAuth,
    /// Shared by all clones of a client.
    pub(super) server_clock: Arc<ServerClock>,
    pub(super) body_format: BodyFormat,
    pub(super) headers: HeaderMap,
    /// Sent with every request, unless the grant or the client authentication has a parameter of that name.
    pub(super) parameters: Vec<(String, SecretString)>,
    /// The name of the parameter that carries a refresh token, if not the standard one.
    pub(super) refresh_parameter: Option<String>,
    pub(super) vendor_errors: &'static VendorErrors,
    pub(super) dead_grants: Vec<DeadGrant>,
    pub(super) timeout: Duration,
    pub(super) max_response_size: usize,
}

impl Settings {
    pub(super) fn new(endpoints: Endpoints, transport: Transport) -> Self {
        let accept = (ACCEPT, HeaderValue::from_static("application/json"));
        Self {
            endpoints,
            transport,
            client_auth: ClientAuth::anonymous(),
            server_clock: Arc::default(),
            body_format: BodyFormat::Form,
            headers: HeaderMap::from_iter([accept]),
            parameters: Vec::new(),
            refresh_parameter: None,
            vendor_errors: &VendorErrors::NONE,
            dead_grants: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            max_response_size: DEFAULT_MAX_RESPONSE_SIZE,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<&str> = self
            .parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        f.debug_struct("OAuthClient")
            .field("endpoints", &self.endpoints)
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
