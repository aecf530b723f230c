//! 2BA.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::preset::{Defaults, Settings, check_not_empty, common_methods};
use crate::{
    error::TokenError,
    grant::RefreshTokenGrant,
    oauth::{ClientAuth, EndpointUrl, OAuthClient, VendorErrors},
    schedule::Schedule,
    source::RefreshTokenSource,
    zeroize::secret,
};

const TOKEN_URL: &str = "https://authorize.2ba.nl/OAuth/Token";
const ORIGIN: &str = "https://api.2ba.nl";
const REAUTH_HINT: &str =
    "2BA no longer accepts the refresh token: the user must log in at 2BA again";

/// 400 is how the documentation says that the refresh token is no longer valid.
static ERRORS: VendorErrors = VendorErrors {
    reauth_on_400: true,
    ..VendorErrors::NONE
};

/// The 2BA API: a refresh token, with client id and secret.
///
/// From the documentation of 2BA:
/// - A refresh is `POST {authorize server}/OAuth/Token`, a form with `grant_type=refresh_token`, `refresh_token`,
///   `client_id` and `client_secret`.
/// - Each response has a new refresh token, which replaces the old one.
/// - An invalid refresh token is answered with HTTP 400. Then the user has to log in again.
///
/// From the field, and so to be overridden:
/// - The token endpoint is `https://authorize.2ba.nl/OAuth/Token`. A newer one ends in `/connect/token`
///   ([`token_url`](TwoBa::token_url)).
/// - Some clients have no secret ([`public_client`](TwoBa::public_client)).
/// - The API is at `https://api.2ba.nl` ([`origins`](TwoBa::origins)).
/// - A 401 also means that the client is not authorized for a service, which no new token changes. Such requests are
///   sent at most twice, and the caller gets the response of the API.
///
/// The first refresh replaces the refresh token given here: use a durable [`store`](TwoBa::store) to survive a restart.
///
/// # The first login
///
/// From the field: the first refresh token comes from an authorization code or from the user's password, and only with the
/// scope `offline_access`. Where the password is the way, a [`LegacyPasswordSource`](crate::LegacyPasswordSource) takes the
/// place of this preset. It sends the password once, and then refresh tokens as the preset does. With a durable store, a
/// restarted process continues with the refresh token, as long as 2BA accepts it:
///
/// ```
/// # #[cfg(all(feature = "reqwest", feature = "file-store"))] {
/// use tower_bearer::{ClientAuth, FileStore, LegacyPasswordSource, OAuthClient, Origins};
///
/// # fn source(user: &str, password: &str, file: &std::path::Path)
/// # -> Result<LegacyPasswordSource, tower_bearer::TokenError> {
/// let client = OAuthClient::new("https://authorize.2ba.nl/OAuth/Token")?
///     .client_auth(ClientAuth::client_secret_post("my-client", "my-secret"));
/// let source = LegacyPasswordSource::new(client, user, password)
///     .scope("offline_access")
///     .store(FileStore::new(file)?)
///     .origins(Origins::only(["https://api.2ba.nl"])?)
///     .reauth_hint("log in at 2BA again, and configure the password");
/// # Ok(source) }
/// # let folder = tempfile::tempdir().unwrap();
/// # source("somebody", "the-password", &folder.path().join("2ba.json"))?;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
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
    settings: Settings,
}

common_methods!(TwoBa builds RefreshTokenSource);

impl TwoBa {
    /// A preset for a client with a secret.
    pub fn new(
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
        refresh_token: impl Into<String>,
    ) -> Self {
        Self {
            client_secret: Some(secret(client_secret)),
            ..Self::public_client(client_id, refresh_token)
        }
    }

    /// A preset for a client without a secret (RFC 6749 §2.1).
    pub fn public_client(client_id: impl Into<String>, refresh_token: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: None,
            refresh_token: secret(refresh_token),
            settings: Settings::default(),
        }
    }

    fn endpoint(&self) -> Result<EndpointUrl, TokenError> {
        let secret = self.client_secret.as_ref();
        let values = [
            ("a client id", self.client_id.as_str()),
            (
                "a client secret",
                secret.map_or("none", |secret| secret.expose_secret()),
            ),
            ("a refresh token", self.refresh_token.expose_secret()),
        ];
        check_not_empty("2BA", &values)?;
        self.settings.token_url_or(|| EndpointUrl::parse(TOKEN_URL))
    }

    fn source(self, client: OAuthClient) -> Result<RefreshTokenSource, TokenError> {
        let client_auth = match self.client_secret {
            Some(secret) => ClientAuth::client_secret_post(self.client_id, secret.expose_secret()),
            None => ClientAuth::none(self.client_id),
        };
        self.settings.source(
            client.client_auth(client_auth).vendor_errors(&ERRORS),
            RefreshTokenGrant::new(self.refresh_token.expose_secret()),
            Defaults {
                origin: ORIGIN,
                schedule: Schedule::default(),
                reauth_hint: REAUTH_HINT,
            },
        )
    }
}

impl fmt::Debug for TwoBa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwoBa")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
