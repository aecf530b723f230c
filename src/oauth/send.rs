//! One request to an authorization server: send it, wait for the response, read it up to the limit.

use std::{fmt, time::SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Full, combinators::UnsyncBoxBody};
use tokio::time::{Instant, error::Elapsed, timeout_at};
use tower::{BoxError, ServiceExt};
use tower_service::Service;

#[cfg(feature = "reqwest")]
use super::reqwest_transport::WasRedirected;
use super::{
    EndpointUrl, OAuthClient, Parameters, TokenResponse,
    client_auth::AuthTarget,
    credential::Credential,
    response_body::{ReadError, ResponseBody},
    settings::Settings,
    token_request::{RequestKind, Sent},
    token_response::RawResponse,
    transport::transport_error,
    values::Times,
};
use crate::{
    clock::{Clock, Now, later},
    error::{TokenError, TokenErrorKind},
};

/// Where a request goes, and what it sends, for messages.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) method: &'static str,
    pub(super) url: &'a EndpointUrl,
    pub(super) credential: Credential,
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

impl OAuthClient {
    /// Sends one token request.
    pub(crate) async fn request(
        &self,
        clock: &Clock,
        parameters: &Parameters,
    ) -> Result<TokenResponse, TokenError> {
        let settings = &*self.settings;
        let url = settings.url_for(clock, parameters).await;
        let url = url.map_err(TokenError::unsent)?;
        let target = Target {
            method: "POST",
            url: &url,
            credential: Credential::of(parameters.grant_type()),
        };
        let parse = |sent, response: RawResponse| {
            let (vendor_errors, dead_grants) = (settings.vendor_errors, &settings.dead_grants);
            let response = response.parse(vendor_errors, dead_grants, sent, clock.wall())?;
            match parameters.expected_exchange() {
                Some(expected) => {
                    let server_time = settings.server_clock.time(sent.wall);
                    expected.check(response, &url, sent, server_time)
                }
                None => Ok(response),
            }
        };
        settings
            .exchange_authenticated(clock, target, parameters, RequestKind::Token, parse)
            .await
            .map_err(|error| settings.explain_by_metadata(&url, error))
    }

    /// When what a request needs has taken too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.settings.deadline()
    }

    /// The time of the server, as far as it is known.
    pub(crate) fn server_time(&self, clock: &Clock) -> SystemTime {
        self.settings.server_clock.time(clock.wall())
    }
}

impl Settings {
    /// When a request that begins now has taken too long.
    pub(super) fn deadline(&self) -> Instant {
        later(Instant::now(), self.timeout)
    }

    /// Sends a request that the client authenticates. If the server does not accept the authentication, and another one can be
    /// made now, because the secret has changed or the clock was wrong, sends it once more.
    pub(super) async fn exchange_authenticated<T>(
        &self,
        clock: &Clock,
        target: Target<'_>,
        parameters: &Parameters,
        kind: RequestKind,
        parse: impl Fn(Now, RawResponse) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let url = target.url.uri().to_string();
        let (_, audience) = self.endpoints.token.identity();
        let mut is_first = true;
        loop {
            let ahead = self.server_clock.ahead();
            let auth = AuthTarget {
                url: &url,
                audience: &audience,
                issuer: self.endpoints.issuer(),
                now: ahead.add_to(clock.wall()),
            };
            let deadline = self.deadline();
            let made = self.authenticated_request(kind, &auth, target.url, parameters);
            // Reading a secret or signing may fail in any way, also as a transport or a server does.
            let (request, what) = match timeout_at(deadline, made).await {
                Ok(made) => made.map_err(|error| error.of_a_dependency().unsent())?,
                Err(elapsed) => return Err(self.timed_out(target, elapsed).unsent()),
            };
            let (sent, response) = self.exchange(clock, target, deadline, request).await?;
            let received = clock.wall();
            if let Some(date) = Times::new(&response.headers, sent, received).date {
                self.server_clock.learn(date, sent.wall, received);
            }
            // Another request may have learned it meanwhile.
            let clock_has_changed = self.server_clock.ahead().differs_from(ahead);
            let error = match parse(sent, response) {
                Ok(parsed) => return Ok(parsed),
                Err(error) => self.hide_secret(error, &what),
            };
            // Without a code the response may be that of a gateway, which hides a rotation.
            let is_decided =
                error.kind() == TokenErrorKind::InvalidClient && error.oauth_code().is_some();
            if !is_first || !is_decided {
                return Err(error);
            }
            let secret = what.secret.as_ref();
            let has_changed = self.client_auth.has_changed(secret, clock_has_changed);
            // A secret that cannot be read in time has not changed.
            if !timeout_at(self.deadline(), has_changed)
                .await
                .unwrap_or(false)
            {
                return Err(error);
            }
            tracing::info!(%error, "the client's authentication has changed, sending the request again");
            is_first = false;
        }
    }

    /// Sends a request, and reads the response up to the limit. Returns when it was sent, too.
    pub(super) async fn exchange(
        &self,
        clock: &Clock,
        target: Target<'_>,
        deadline: Instant,
        request: Request<Full<Bytes>>,
    ) -> Result<(Now, RawResponse), TokenError> {
        let answered = self.send(clock, target, request);
        let (sent, response) = match timeout_at(deadline, answered).await {
            Ok(result) => result?,
            Err(elapsed) => return Err(self.timed_out(target, elapsed)),
        };
        let (mut head, body) = response.into_parts();
        #[cfg(feature = "reqwest")]
        if head.extensions.get::<WasRedirected>().is_some() {
            return Err(TokenError::new(
                TokenErrorKind::InvalidResponse,
                format!(
                    "the HTTP client followed a redirect from {}, and the response came from another URL; \
                     build the client with `redirect::Policy::none()`",
                    target.url
                ),
            )
            .with_status(head.status));
        }
        let mut received = ResponseBody::new(self.max_response_size);
        // What has arrived before a failure may be complete, and hold the only refresh token that works.
        let broken = match timeout_at(deadline, received.read(body)).await {
            Ok(Ok(())) => None,
            Ok(Err(ReadError::Transport(error))) => Some(transport_error(target, error)),
            Ok(Err(ReadError::TooManyFrames)) => Some(TokenError::new(
                TokenErrorKind::InvalidResponse,
                format!(
                    "the response of {} has too many frames without data",
                    target.url
                ),
            )),
            Err(elapsed) => Some(self.timed_out(target, elapsed)),
        };
        let (body, cut_at) = received.decode(&mut head.headers);
        let response = RawResponse {
            endpoint: target.url.to_string(),
            credential: target.credential,
            status: head.status,
            headers: head.headers,
            body,
            cut_at,
            broken: broken.map(|error| error.with_status(head.status)),
        };
        Ok((sent, response))
    }

    /// Returns when the request was sent, and the response.
    async fn send(
        &self,
        clock: &Clock,
        target: Target<'_>,
        request: Request<Full<Bytes>>,
    ) -> Result<(Now, Response<UnsyncBoxBody<Bytes, BoxError>>), TokenError> {
        let failed = |error| transport_error(target, error);
        let mut transport = self.transport.clone();
        let transport = transport.ready().await.map_err(failed)?;
        // Read the clock after waiting for the transport: lifetimes count from when the request is sent.
        let sent = clock.now();
        let response = transport.call(request).await.map_err(failed)?;
        Ok((sent, response))
    }

    /// Removes an unknown error code that repeats what was sent.
    fn hide_secret(&self, error: TokenError, sent: &Sent) -> TokenError {
        let is_secret = error.oauth_code().is_some_and(|code| {
            self.vendor_errors.kind_of(code).is_none() && sent.is_shown_by(code)
        });
        if is_secret {
            error.without_oauth_code()
        } else {
            error
        }
    }

    fn timed_out(&self, target: Target<'_>, elapsed: Elapsed) -> TokenError {
        TokenError::new(
            TokenErrorKind::Timeout,
            format!("{target} took longer than {:?}", self.timeout),
        )
        .with_source(elapsed)
    }
}

#[cfg(test)]
mod tests;
