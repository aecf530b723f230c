//! One request to an authorization server: send it, wait for the response, read it up to the limit.

use std::fmt;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Full, combinators::UnsyncBoxBody};
use secrecy::SecretString;
use tokio::time::{Instant, error::Elapsed, timeout_at};
use tower::{BoxError, ServiceExt};
use tower_service::Service;

#[cfg(feature = "reqwest")]
use super::reqwest_attempt::WasRedirected;
use super::{
    EndpointUrl, OAuthClient, Parameters, TokenResponse,
    client_auth::AuthTarget,
    credential::Credential,
    error_kind::Rejected,
    parameters::{MadeParameters, MakeParameters},
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
    /// Makes the parameters of a token request, for the server's time as far as it is known.
    pub(crate) async fn make(
        &self,
        clock: &Clock,
        maker: &impl MakeParameters,
    ) -> Result<MadeParameters, TokenError> {
        self.settings.make(clock, maker).await
    }

    /// Sends one token request with fixed parameters.
    pub(crate) async fn request(
        &self,
        clock: &Clock,
        parameters: &Parameters,
    ) -> Result<TokenResponse, TokenError> {
        let made = self.make(clock, parameters).await?;
        self.request_made(clock, made, parameters).await
    }

    /// Sends one token request with `made`, which comes from `maker`.
    pub(crate) async fn request_made(
        &self,
        clock: &Clock,
        made: MadeParameters,
        maker: &impl MakeParameters,
    ) -> Result<TokenResponse, TokenError> {
        let settings = &*self.settings;
        let url = settings.url_for(clock, &made.parameters).await;
        let url = url.map_err(TokenError::unsent)?;
        let target = Target {
            method: "POST",
            url: &url,
            credential: Credential::of(made.parameters.grant_type()),
        };
        let parse = |parameters: &Parameters, sent, response: RawResponse| {
            let (vendor_errors, dead_grants) = (settings.vendor_errors, &settings.dead_grants);
            let response = response.parse(vendor_errors, dead_grants, sent, clock.wall())?;
            match parameters.expected_exchange() {
                Some(expected) => {
                    let server_time = settings.server_clock.time(sent.wall).read();
                    expected.check(response, &url, sent, server_time)
                }
                None => Ok(response),
            }
        };
        settings
            .exchange_authenticated(clock, target, RequestKind::Token, made, maker, parse)
            .await
            .map_err(|error| settings.explain_by_metadata(&url, error))
    }
}

impl Settings {
    /// When a request that begins now has taken too long.
    pub(super) fn deadline(&self) -> Instant {
        later(Instant::now(), self.timeout)
    }

    pub(super) async fn make(
        &self,
        clock: &Clock,
        maker: &impl MakeParameters,
    ) -> Result<MadeParameters, TokenError> {
        let time = self.server_clock.time(clock.wall());
        // The caller may hold the lease of a store.
        let making = timeout_at(self.deadline(), maker.make(&time));
        let parameters = making.await.map_err(|_| too_slow())??;
        Ok(MadeParameters { parameters, time })
    }

    /// Whether the client authenticates with another secret now. One that cannot be read in time has not changed.
    async fn secret_has_changed(&self, sent: Option<&SecretString>) -> bool {
        let has_changed = self.client_auth.has_changed(sent);
        timeout_at(self.deadline(), has_changed)
            .await
            .unwrap_or(false)
    }

    /// Sends a request that the client authenticates. If the server rejects it, and what it has rejected would be made
    /// differently now, because the secret has changed or the clock was wrong, sends it once more.
    pub(super) async fn exchange_authenticated<T>(
        &self,
        clock: &Clock,
        target: Target<'_>,
        kind: RequestKind,
        mut made: MadeParameters,
        maker: &impl MakeParameters,
        parse: impl Fn(&Parameters, Now, RawResponse) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let url = target.url.uri().to_string();
        let audience = self.endpoints.token.identity().1;
        let mut is_first = true;
        loop {
            let auth = AuthTarget {
                url: &url,
                audience: &audience,
                time: self.server_clock.time(clock.wall()),
            };
            let deadline = self.deadline();
            let request = self.authenticated_request(kind, &auth, target.url, &made.parameters);
            // Reading a secret or signing may fail in any way, also as a transport or a server does.
            let (request, what) = match timeout_at(deadline, request).await {
                Ok(built) => built.map_err(|error| error.of_a_dependency().unsent())?,
                Err(elapsed) => return Err(self.timed_out(target, elapsed).unsent()),
            };
            let (sent, response) = self.exchange(clock, target, deadline, request).await?;
            let received = clock.wall();
            if let Some(date) = Times::new(&response.headers, sent, received).date {
                self.server_clock.learn(date, sent.wall, received);
            }
            let error = match parse(&made.parameters, sent, response) {
                Ok(parsed) => return Ok(parsed),
                Err(error) => self.hide_secret(error, &what),
            };
            let is_outdated = self.server_clock.outdates(&made.time);
            let may_help = is_first
                && match Rejected::by(&error) {
                    Some(Rejected::Client) => {
                        self.server_clock.outdates(&auth.time)
                            || self.secret_has_changed(what.secret.as_ref()).await
                    }
                    Some(Rejected::Grant) => is_outdated,
                    None => false,
                };
            if !may_help {
                return Err(error);
            }
            if is_outdated {
                made = match self.make(clock, maker).await {
                    Ok(made) => made,
                    Err(failed) => {
                        tracing::info!(%failed, "the rejected request cannot be made again");
                        return Err(error);
                    }
                };
            }
            tracing::info!(%error, "what the server has rejected is another one now, sending the request again");
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

fn too_slow() -> TokenError {
    let message = "the grant did not make its parameters within the time limit of a request (`OAuthClient::timeout`)";
    TokenError::new(TokenErrorKind::Timeout, message)
}

#[cfg(test)]
mod tests;
