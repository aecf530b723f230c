//! 2BA.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{Said, preset, required};
use crate::{
    error::TokenError,
    oauth::{ClientAuth, OAuthClient, parse},
    origins::Origins,
    source::RefreshTokenSource,
};

/// The 2BA API: a refresh token, with client id and secret.
///
/// What 2BA's documentation says:
/// - `POST {authorize server}/OAuth/Token`, a form with `grant_type=refresh_token`, `refresh_token`, `client_id` and
///   `client_secret`;
/// - each answer has a new refresh token, which replaces the old one;
/// - a dead refresh token is answered with HTTP 400, and the user has to log in again.
///
/// Learned from the field, and so to be overridden: the address `https://authorize.2ba.nl/OAuth/Token`, with a newer one
/// ending in `/connect/token` ([`token_url`](TwoBa::token_url)); clients without a secret
/// ([`public_client`](TwoBa::public_client)); the API at `https://api.2ba.nl` ([`origins`](TwoBa::origins)). Also: 401
/// is said of services that a client is not authorised for. No new token heals that: such requests are sent twice at
/// most, and get the vendor's answer.
///
/// A restart needs a durable [`store`](TwoBa::store): the refresh token given here is spent with the first refresh.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BearerAuthLayer, provider::TwoBa};
///
/// let source = TwoBa::new("my-client", "my-secret", "the-refresh-token").build()?;
/// let layer = BearerAuthLayer::new(source);
/// # let _ = layer;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct TwoBa {
    client_id: String,
    client_secret: Option<SecretString>,
    refresh_token: SecretString,
    said: Said,
}

preset!(TwoBa builds RefreshTokenSource);

impl TwoBa {
    /// For a client with a secret.
    pub fn new(
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
        refresh_token: impl Into<SecretString>,
    ) -> Self {
        Self {
            client_secret: Some(client_secret.into()),
            ..Self::public_client(client_id, refresh_token)
        }
    }

    /// For a client without a secret (RFC 6749 §2.1).
    pub fn public_client(
        client_id: impl Into<String>,
        refresh_token: impl Into<SecretString>,
    ) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: None,
            refresh_token: refresh_token.into(),
            said: Said::default(),
        }
    }

    fn checked_url(&self) -> Result<Url, TokenError> {
        let secret = self
            .client_secret
            .as_ref()
            .map_or("none", |secret| secret.expose_secret());
        let values = [
            ("a client id", self.client_id.as_str()),
            ("a client secret", secret),
            ("a refresh token", self.refresh_token.expose_secret()),
        ];
        required("2BA", &values)?;
        parse(
            self.said
                .token_url
                .as_deref()
                .unwrap_or("https://authorize.2ba.nl/OAuth/Token"),
        )
    }

    fn assemble(self, endpoint: OAuthClient) -> Result<RefreshTokenSource, TokenError> {
        let client_auth = match self.client_secret {
            Some(secret) => ClientAuth::client_secret_post(self.client_id, secret),
            None => ClientAuth::none(self.client_id),
        };
        let origins = match self.said.origins {
            Some(origins) => origins,
            None => Origins::only(["https://api.2ba.nl"])?,
        };
        let source = RefreshTokenSource::new(endpoint.client_auth(client_auth), self.refresh_token)
            .origins(origins)
            .schedule(self.said.schedule.unwrap_or_default())
            .reauth_hint(
                "2BA no longer takes the refresh token: the user must log in at 2BA again",
            );
        Ok(match self.said.store {
            Some(store) => source.store(store),
            None => source,
        })
    }
}

impl fmt::Debug for TwoBa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwoBa")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
