//! Winbooks.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{Said, preset, required};
use crate::{
    error::TokenError,
    oauth::{ClientAuth, OAuthClient, join, parse},
    origins::Origins,
    source::ExchangeTokenSource,
};

/// The Winbooks API: an exchange token once, refresh tokens afterwards.
///
/// What Winbooks' documentation says:
/// - `POST {host}/OAuth20/Token`, with `Authorization: Basic` of the e-mail alone, and `Accept: application/json`;
/// - the exchange is `grant_type=exchange_token`, with the token in `code`;
/// - access tokens live a day, or what `expires_in` (a string there) says; refresh tokens do not expire.
///
/// Learned from the field, and so to be overridden: a refresh carries its token in `code` too
/// ([`refresh_parameter`](Winbooks::refresh_parameter)). Not known: whether the old refresh token dies with a refresh, and
/// whether an exchange token works twice. Each new refresh token is taken over, and if the refresh token is rejected, the
/// exchange token is tried once more.
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
    said: Said,
}

preset!(Winbooks builds ExchangeTokenSource);

impl Winbooks {
    /// The API at `host`, which may carry a path (`https://rapi.winbooksonweb.be`, or
    /// `https://prd.winbooksapis.be/wow/v2/`), for the person with this e-mail.
    pub fn new(
        host: impl Into<String>,
        email: impl Into<String>,
        exchange_token: impl Into<SecretString>,
    ) -> Self {
        Self {
            host: host.into(),
            email: email.into(),
            exchange_token: exchange_token.into(),
            refresh_parameter: "code".into(),
            said: Said::default(),
        }
    }

    /// The parameter that carries the refresh token. Default: `code`.
    pub fn refresh_parameter(mut self, name: impl Into<String>) -> Self {
        self.refresh_parameter = name.into();
        self
    }

    fn checked_url(&self) -> Result<Url, TokenError> {
        let exchange_token = self.exchange_token.expose_secret();
        required(
            "Winbooks",
            &[
                ("an e-mail", &self.email),
                ("an exchange token", exchange_token),
            ],
        )?;
        match &self.said.token_url {
            Some(url) => parse(url),
            None => join(&self.host, "OAuth20/Token"),
        }
    }

    fn assemble(self, endpoint: OAuthClient) -> Result<ExchangeTokenSource, TokenError> {
        let endpoint = endpoint
            .client_auth(ClientAuth::basic_user_only(self.email))
            .refresh_parameter(self.refresh_parameter);
        let origins = match self.said.origins {
            Some(origins) => origins,
            None => Origins::only([join(&self.host, "")?.origin().ascii_serialization()])?,
        };
        let mut source = ExchangeTokenSource::new(endpoint, self.exchange_token)
            .origins(origins)
            .reauth_hint("Winbooks takes neither the refresh token nor the exchange token: get a new exchange token");
        if let Some(schedule) = self.said.schedule {
            source = source.schedule(schedule);
        }
        Ok(match self.said.store {
            Some(store) => source.store(store),
            None => source,
        })
    }
}

impl fmt::Debug for Winbooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Winbooks")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
