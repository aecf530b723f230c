//! Revocation: tells the authorization server that a token is no longer needed (RFC 7009).

use http::StatusCode;
use secrecy::SecretString;

use super::{
    EndpointUrl, OAuthClient, Parameters, credential::Credential, error_response::ErrorResponse,
    send::Target, settings::Settings, token_request::RequestKind, token_response::RawResponse,
    values::Times,
};
use crate::{
    clock::{Clock, Now},
    error::{Asked, TokenError, TokenErrorKind},
};

/// The kind of a token (RFC 7009 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenTypeHint {
    RefreshToken,
    AccessToken,
}

impl TokenTypeHint {
    fn as_str(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::AccessToken => "access_token",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::RefreshToken => "the refresh token",
            Self::AccessToken => "the access token",
        }
    }
}

impl OAuthClient {
    /// Sets the URL of the revocation endpoint (RFC 7009), which [`TokenCache::revoke`](crate::TokenCache::revoke) uses.
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
    ///     .revocation_url("https://login.example.com/revoke")?;
    /// # let _ = client;
    /// # }
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    pub fn revocation_url(self, url: impl AsRef<str>) -> Result<Self, TokenError> {
        let url = EndpointUrl::parse_as("revocation endpoint", url.as_ref())?;
        let mut result = Ok(());
        let client = self.edit(|settings| result = settings.endpoints.set_revocation(url));
        result.map(|()| client)
    }

    /// Fails if no revocation endpoint is known.
    pub(crate) async fn check_can_revoke(&self, clock: &Clock) -> Result<(), TokenError> {
        self.settings.require_revocation_url(clock).await.map(drop)
    }

    /// Asks the server to revoke one token. A token that it does not know is revoked already (RFC 7009 §2.2).
    pub(crate) async fn revoke(
        &self,
        clock: &Clock,
        token: &SecretString,
        hint: TokenTypeHint,
    ) -> Result<(), TokenError> {
        let settings = &*self.settings;
        let url = settings.require_revocation_url(clock).await?;
        let target = Target {
            method: "POST",
            url: &url,
            credential: Credential::default(),
        };
        let mut parameters = Parameters::new("");
        parameters.push("token", token.clone());
        parameters.push("token_type_hint", hint.as_str().into());
        let made = settings.make(clock, &parameters).await?;
        let parse = |_: &Parameters, sent, response: RawResponse| {
            settings.revoked(&response, hint, sent, clock)
        };
        settings
            .exchange_authenticated(
                clock,
                target,
                RequestKind::Revocation,
                made,
                &parameters,
                parse,
            )
            .await
            .map_err(|error| settings.explain_by_metadata(&url, error))
            .map_err(|error| error.asking(Asked::Revocation))
    }
}

impl Settings {
    async fn require_revocation_url(&self, clock: &Clock) -> Result<EndpointUrl, TokenError> {
        self.revocation_url(clock).await?.ok_or_else(|| {
            let message = if self.endpoints.discovery().is_some() {
                "the server's metadata name no revocation endpoint, so the session cannot be revoked; if it has one, set it \
                 with `OAuthClient::revocation_url`"
            } else {
                "the session cannot be revoked without a revocation endpoint; set it with `OAuthClient::revocation_url`"
            };
            TokenError::new(TokenErrorKind::Config, message)
        })
    }

    fn revoked(
        &self,
        response: &RawResponse,
        hint: TokenTypeHint,
        sent: Now,
        clock: &Clock,
    ) -> Result<(), TokenError> {
        let object = response.json_object();
        let error = object
            .as_ref()
            .and_then(|fields| ErrorResponse::in_fields(fields.as_map(), self.vendor_errors));
        // The body means nothing (RFC 7009 §2.2), but a page is from something else than the endpoint.
        if error.is_none() && response.status.is_success() && !response.is_markup() {
            return Ok(());
        }
        let times = Times::new(&response.headers, sent, clock.wall());
        let error = error
            .unwrap_or_default()
            .into_error(response, self.vendor_errors, &[], &times);
        // Google says so of a token that it does not know.
        if error.oauth_code() == Some("invalid_token") {
            return Ok(());
        }
        Err(explained(response, &error, hint))
    }
}

/// The same error in words about a revocation.
fn explained(response: &RawResponse, error: &TokenError, hint: TokenTypeHint) -> TokenError {
    let token = hint.in_words();
    let code = error.oauth_code();
    let (kind, what) = match (error.kind(), code) {
        (_, Some("unsupported_token_type")) => (
            TokenErrorKind::InvalidRequest,
            format!("{token} is of a type that the server does not revoke (RFC 7009 §2.2.1)"),
        ),
        _ if response.status.is_redirection() => (
            TokenErrorKind::InvalidResponse,
            format!(
                "{token} was not revoked: the revocation endpoint redirects, and redirects are not followed; set its final URL"
            ),
        ),
        (
            kind @ (TokenErrorKind::Server | TokenErrorKind::RateLimited | TokenErrorKind::Timeout),
            _,
        ) => (
            kind,
            format!("{token} is still valid (RFC 7009 §2.2.1), so revoke it again later"),
        ),
        (TokenErrorKind::InvalidClient, _) => (
            TokenErrorKind::InvalidClient,
            format!(
                "{token} was not revoked: check client id, client secret, and how they are sent (`ClientAuth`)"
            ),
        ),
        (_, None)
            if matches!(
                response.status,
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
            ) =>
        {
            (
                TokenErrorKind::InvalidResponse,
                format!("{token} was not revoked: check the URL of the revocation endpoint"),
            )
        }
        (_, None) if response.status.is_success() => (
            TokenErrorKind::InvalidResponse,
            format!(
                "{token} was not revoked: a web page came; check the URL of the revocation endpoint"
            ),
        ),
        (TokenErrorKind::ReauthRequired, _) => (
            TokenErrorKind::InvalidRequest,
            format!("{token} was not revoked: was it issued to this client?"),
        ),
        (kind, _) => (
            kind,
            format!("{token} was not revoked: check the client and its parameters"),
        ),
    };
    let mut explained = TokenError::new(kind, what)
        .with_response(response.describe())
        .with_status(response.status);
    if let Some(code) = code {
        explained = explained.with_oauth_code(code);
    }
    match error.retry_after() {
        Some(wait) => explained.with_retry_after(wait),
        None => explained,
    }
}
