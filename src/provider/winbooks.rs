//! Winbooks.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::preset::{Defaults, Settings, check_not_empty, common_methods};
use crate::{
    error::TokenError,
    grant::ExchangeTokenGrant,
    oauth::{ClientAuth, EndpointUrl, OAuthClient},
    schedule::Schedule,
    source::ExchangeTokenSource,
    zeroize::secret,
};

const TOKEN_PATH: &str = "OAuth20/Token";
const REAUTH_HINT: &str =
    "Winbooks accepts neither the refresh token nor the exchange token: get a new exchange token";

/// The Winbooks API: an exchange token once, refresh tokens afterwards.
///
/// From the documentation of Winbooks:
/// - A token request is `POST {host}/OAuth20/Token`, with `Authorization: Basic` of the e-mail address alone, and
///   `Accept: application/json`.
/// - The exchange is `grant_type=exchange_token`, with the token in `code`.
/// - Access tokens live for a day, or for the seconds in `expires_in`, a string. Refresh tokens do not expire.
///
/// From the field, and so to be overridden: a refresh carries its token in `code` too
/// ([`refresh_parameter`](Winbooks::refresh_parameter)).
///
/// Unknown: whether a refresh invalidates the old refresh token, and whether an exchange token works twice. So each new
/// refresh token replaces the old one, and when the refresh token is rejected, the exchange token is tried once more.
///
/// The tokens go to the host only.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BearerAuthLayer, provider::Winbooks};
///
/// let source = Winbooks::new("https://rapi.winbooksonweb.be", "me@example.com", "exchange+token/==")
///     .build()?;
/// let layer = BearerAuthLayer::new(source);
/// # let _ = layer;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Winbooks {
    host: String,
    email: String,
    exchange_token: SecretString,
    refresh_parameter: String,
    settings: Settings,
}

common_methods!(Winbooks builds ExchangeTokenSource);

impl Winbooks {
    /// A preset for the API at `host` and the user with this e-mail address.
    ///
    /// `host` is a URL and may have a path: `https://rapi.winbooksonweb.be`, `https://prd.winbooksapis.be/wow/v2/`.
    pub fn new(
        host: impl Into<String>,
        email: impl Into<String>,
        exchange_token: impl Into<String>,
    ) -> Self {
        Self {
            host: host.into(),
            email: email.into(),
            exchange_token: secret(exchange_token),
            refresh_parameter: "code".into(),
            settings: Settings::default(),
        }
    }

    /// Sets the parameter that carries the refresh token. Default: `code`.
    pub fn refresh_parameter(mut self, name: impl Into<String>) -> Self {
        self.refresh_parameter = name.into();
        self
    }

    fn endpoint(&self) -> Result<EndpointUrl, TokenError> {
        let values = [
            ("an e-mail", self.email.as_str()),
            ("an exchange token", self.exchange_token.expose_secret()),
        ];
        check_not_empty("Winbooks", &values)?;
        self.settings
            .token_url_or(|| EndpointUrl::join(&self.host, TOKEN_PATH))
    }

    fn source(self, client: OAuthClient) -> Result<ExchangeTokenSource, TokenError> {
        let host = EndpointUrl::join(&self.host, "")?;
        self.settings.source(
            client
                .client_auth(ClientAuth::basic_user_only(self.email))
                .refresh_parameter(self.refresh_parameter),
            ExchangeTokenGrant::new(self.exchange_token.expose_secret()),
            Defaults {
                origin: &host.origin(),
                schedule: Schedule::default(),
                reauth_hint: REAUTH_HINT,
            },
        )
    }
}

impl fmt::Debug for Winbooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Winbooks")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
