//! One request to a token endpoint: send it, wait for the response, read it up to the limit.

use std::{any::Any, error::Error, io, iter, mem};

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use secrecy::ExposeSecret;
use tokio::time::{Instant, error::Elapsed, timeout_at};
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};
use tower_service::Service;

#[cfg(feature = "reqwest")]
use super::reqwest_transport::WasRedirected;
use super::{
    EndpointUrl, OAuthClient, Parameters, TokenResponse,
    parameters::shows,
    response_body::{ReadError, ResponseBody},
    settings::Settings,
    token_response::RawResponse,
};
use crate::{
    clock::{Clock, Now, later},
    error::{TokenError, TokenErrorKind},
    zeroize::zeroized,
};

/// Any HTTP service, its types erased. Token requests are rare, so the boxes cost nothing that matters.
pub(crate) type Transport =
    BoxCloneSyncService<Request<Full<Bytes>>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

pub(crate) fn erase<S, B>(service: S) -> Transport
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let service = service.map_err(Into::into).map_response(|response| {
        response.map(|body: B| {
            body.map_frame(|frame| frame.map_data(to_bytes))
                .map_err(Into::into)
                .boxed_unsync()
        })
    });
    BoxCloneSyncService::new(service)
}

/// Copies nothing if `data` is `Bytes` already. A copy is wiped when dropped.
fn to_bytes<D: Buf + 'static>(mut data: D) -> Bytes {
    if let Some(bytes) = (&mut data as &mut dyn Any).downcast_mut::<Bytes>() {
        return mem::take(bytes);
    }
    let mut copy = Vec::with_capacity(data.remaining());
    copy.put(data);
    zeroized(copy)
}

impl OAuthClient {
    /// Sends one token request.
    pub(crate) async fn request(
        &self,
        clock: &Clock,
        parameters: &Parameters,
    ) -> Result<TokenResponse, TokenError> {
        let settings = &*self.settings;
        let url = settings.endpoints.url_for(parameters);
        let deadline = later(Instant::now(), settings.timeout);
        let answered = async {
            let request = settings.token_request(parameters).await?;
            settings.send(clock, url, request).await
        };
        let (sent, response) = match timeout_at(deadline, answered).await {
            Ok(result) => result?,
            Err(elapsed) => return Err(settings.timed_out(url, elapsed)),
        };
        let (mut head, body) = response.into_parts();
        #[cfg(feature = "reqwest")]
        if head.extensions.get::<WasRedirected>().is_some() {
            return Err(TokenError::new(
                TokenErrorKind::InvalidResponse,
                format!(
                    "the HTTP client followed a redirect from {url}, and the response came from another URL; \
                     build the client with `redirect::Policy::none()`"
                ),
            )
            .with_status(head.status));
        }
        let mut received = ResponseBody::new(settings.max_response_size);
        // What has arrived before a failure may be complete, and hold the only refresh token that works.
        let broken = match timeout_at(deadline, received.read(body)).await {
            Ok(Ok(())) => None,
            Ok(Err(ReadError::Transport(error))) => Some(transport_error(url, error)),
            Ok(Err(ReadError::TooManyFrames)) => Some(TokenError::new(
                TokenErrorKind::InvalidResponse,
                format!("the response of {url} has too many frames without data"),
            )),
            Err(elapsed) => Some(settings.timed_out(url, elapsed)),
        };
        let (body, cut_at) = received.decode(&mut head.headers);
        let response = RawResponse {
            endpoint: url.to_string(),
            status: head.status,
            headers: head.headers,
            body,
            cut_at,
            broken: broken.map(|error| error.with_status(head.status)),
        }
        .parse(
            settings.vendor_errors,
            &settings.dead_grants,
            sent,
            clock.wall(),
        )
        .map_err(|error| settings.hide_secret(error, parameters))?;
        match parameters.expected_exchange() {
            Some(expected) => expected.check(response, url, sent),
            None => Ok(response),
        }
    }
}

impl Settings {
    /// Returns when the request was sent, and the response.
    async fn send(
        &self,
        clock: &Clock,
        url: &EndpointUrl,
        request: Request<Full<Bytes>>,
    ) -> Result<(Now, Response<UnsyncBoxBody<Bytes, BoxError>>), TokenError> {
        let failed = |error| transport_error(url, error);
        let mut transport = self.transport.clone();
        let transport = transport.ready().await.map_err(failed)?;
        // Read the clock after waiting for the transport: lifetimes count from when the request is sent.
        let sent = clock.now();
        let response = transport.call(request).await.map_err(failed)?;
        Ok((sent, response))
    }

    /// Removes an unknown error code that repeats what was sent.
    fn hide_secret(&self, error: TokenError, parameters: &Parameters) -> TokenError {
        let is_secret = error.oauth_code().is_some_and(|code| {
            self.vendor_errors.kind_of(code).is_none()
                && (parameters.shows_a_value(code)
                    || self.client_auth.secret().is_some_and(|it| shows(code, it))
                    || self
                        .parameters
                        .iter()
                        .any(|(_, value)| shows(code, value.expose_secret())))
        });
        if is_secret {
            error.without_oauth_code()
        } else {
            error
        }
    }

    fn timed_out(&self, url: &EndpointUrl, elapsed: Elapsed) -> TokenError {
        TokenError::new(
            TokenErrorKind::Timeout,
            format!("POST {url} took longer than {:?}", self.timeout),
        )
        .with_source(elapsed)
    }
}

fn transport_error(url: &EndpointUrl, error: BoxError) -> TokenError {
    let error = match error.downcast::<TokenError>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    let (kind, what) = if is_unsendable(error.as_ref()) {
        (
            TokenErrorKind::Config,
            "was not sent, because the HTTP client does not accept it; is the host a valid name?",
        )
    } else if is_timeout(error.as_ref()) {
        (TokenErrorKind::Timeout, "timed out")
    } else {
        (TokenErrorKind::Transport, "failed")
    };
    TokenError::new(kind, format!("POST {url} {what}")).with_source(error)
}

/// Whether the HTTP client could not make a request of its own from ours. It never will.
fn is_unsendable(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "reqwest")]
    let is_builder = |error: &(dyn Error + 'static)| {
        error
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_builder)
    };
    #[cfg(not(feature = "reqwest"))]
    let is_builder = |_: &(dyn Error + 'static)| false;
    iter::successors(Some(error), |&error| error.source()).any(is_builder)
}

/// Whether any error in the chain of sources is a timeout.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        #[cfg(feature = "reqwest")]
        if error
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_timeout)
        {
            return true;
        }
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
            || error.is::<tokio::time::error::Elapsed>()
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the request was certainly not sent, because no connection could be made.
pub(crate) fn was_not_sent(error: &TokenError) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
    };

    let mut cause = error.source();
    while let Some(error) = cause {
        #[cfg(feature = "reqwest")]
        if error
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_connect)
        {
            return true;
        }
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(
                AddrNotAvailable
                    | ConnectionRefused
                    | HostUnreachable
                    | NetworkDown
                    | NetworkUnreachable
            )
        ) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
