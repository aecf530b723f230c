//! Xoxoday.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{Said, preset, required};
use crate::{
    authorize::Origins,
    cache::Schedule,
    endpoint::{BodyFormat, ClientAuth, TokenEndpoint, join, parse},
    error::TokenError,
    source::RefreshTokenSource,
};

const HOST: &str = "https://accounts.xoxoday.com";
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// "Unusual number of requests on Refresh Token API" has the tokens invalidated; a penalty that was seen is 60 seconds.
const FLOOR: Duration = Duration::from_secs(60);

/// The Xoxoday (Plum) API: a refresh token in JSON, rotated, and not to be used too often.
///
/// What Xoxoday's documentation says:
/// - each answer has a new refresh token, and the old one is invalid at once;
/// - access tokens live 15 days; refreshing every 7 days is recommended, by a schedule that needs no person;
/// - a dead refresh token is replaced in the dashboard only;
/// - too many refreshes invalidate the token.
///
/// So this preset renews at half of the lifetime, after 7 days at the latest, also without traffic; and leaves at least
/// 60 seconds between attempts ([`schedule`](Xoxoday::schedule)).
///
/// Their advice to fetch new tokens "for every 4xx" is not followed: 400, 404, 409 and 422 are answers to the order, not
/// to the token, and refreshing for each would trip the limit above.
///
/// Learned from the field, and so to be overridden: the addresses under `https://accounts.xoxoday.com`
/// ([`token_url`](Xoxoday::token_url), [`company`](Xoxoday::company), [`origins`](Xoxoday::origins)) and that the body
/// is JSON ([`body_format`](Xoxoday::body_format)).
///
/// A restart needs a durable [`store`](Xoxoday::store): the refresh token given here is spent with the first refresh.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BearerAuthLayer, provider::Xoxoday};
///
/// let source = Xoxoday::new("my-client", "my-secret", "the-refresh-token").company().build()?;
/// let layer = BearerAuthLayer::new(source);
/// # let _ = layer;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Xoxoday {
    client_id: String,
    client_secret: SecretString,
    refresh_token: SecretString,
    path: &'static str,
    body_format: BodyFormat,
    said: Said,
}

preset!(Xoxoday builds RefreshTokenSource);

impl Xoxoday {
    /// For a user's token, with what the dashboard gave.
    pub fn new(
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
        refresh_token: impl Into<SecretString>,
    ) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: client_secret.into(),
            refresh_token: refresh_token.into(),
            path: "chef/v1/oauth/token/user",
            body_format: BodyFormat::Json,
            said: Said::default(),
        }
    }

    /// For a company's token instead of a user's.
    pub fn company(mut self) -> Self {
        self.path = "chef/v1/oauth/token/company";
        self
    }

    /// How the parameters are written. Default: [`BodyFormat::Json`].
    pub fn body_format(mut self, body_format: BodyFormat) -> Self {
        self.body_format = body_format;
        self
    }

    /// The schedule of this preset, to change some of it.
    pub fn default_schedule() -> Schedule {
        Schedule::default()
            .refresh_ahead(0.5, Duration::MAX)
            .refresh_after(WEEK)
            .min_interval(FLOOR)
            .keep_warm(true)
    }

    fn checked_url(&self) -> Result<Url, TokenError> {
        let values = [
            ("a client id", self.client_id.as_str()),
            ("a client secret", self.client_secret.expose_secret()),
            ("a refresh token", self.refresh_token.expose_secret()),
        ];
        required("Xoxoday", &values)?;
        match &self.said.token_url {
            Some(url) => parse(url),
            None => join(HOST, self.path),
        }
    }

    fn assemble(self, endpoint: TokenEndpoint) -> Result<RefreshTokenSource, TokenError> {
        let endpoint = endpoint
            .client_auth(ClientAuth::post(self.client_id, self.client_secret))
            .body_format(self.body_format);
        let origins = match self.said.origins {
            Some(origins) => origins,
            None => Origins::only([HOST])?,
        };
        let source = RefreshTokenSource::new(endpoint, self.refresh_token)
            .origins(origins)
            .schedule(self.said.schedule.unwrap_or_else(Self::default_schedule))
            .advice("Xoxoday no longer takes the refresh token: a new one must be generated in its dashboard");
        Ok(match self.said.store {
            Some(store) => source.shared_store(store),
            None => source,
        })
    }
}

impl fmt::Debug for Xoxoday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xoxoday")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
