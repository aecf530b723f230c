//! One request to a token endpoint: send it, wait for the response, read it up to the limit.

use std::{error::Error, io};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};
use tower_service::Service;

use super::{
    EndpointUrl, OAuthClient, Parameters, TokenResponse, settings::Settings,
    token_response::RawResponse,
};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
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
            body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
                .map_err(Into::into)
                .boxed_unsync()
        })
    });
    BoxCloneSyncService::new(service)
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
        let exchange = async {
            let request = settings.token_request(parameters).await?;
            settings.exchange(clock, url, request).await
        };
        match tokio::time::timeout(settings.timeout, exchange).await {
            Ok(result) => result,
            Err(elapsed) => Err(TokenError::new(
                TokenErrorKind::Timeout,
                format!("POST {url} took longer than {:?}", settings.timeout),
            )
            .with_source(elapsed)),
        }
    }
}

impl Settings {
    async fn exchange(
        &self,
        clock: &Clock,
        url: &EndpointUrl,
        request: Request<Full<Bytes>>,
    ) -> Result<TokenResponse, TokenError> {
        let failed = |error| transport_error(url, error);
        let mut transport = self.transport.clone();
        let transport = transport.ready().await.map_err(failed)?;
        // Read the clock after waiting for the transport: lifetimes count from when the request is sent.
        let sent = clock.now();
        let (head, body) = transport.call(request).await.map_err(failed)?.into_parts();
        let (body, cut_at) = read(body, self.max_response_size)
            .await
            .map_err(|error| failed(error).with_status(head.status))?;
        RawResponse {
            endpoint: url.to_string(),
            status: head.status,
            headers: head.headers,
            body,
            cut_at,
        }
        .parse(self.vendor_errors, &self.dead_grants, sent, clock.wall())
    }
}

fn transport_error(url: &EndpointUrl, error: BoxError) -> TokenError {
    let error = match error.downcast::<TokenError>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    let (kind, what) = if is_timeout(error.as_ref()) {
        (TokenErrorKind::Timeout, "timed out")
    } else {
        (TokenErrorKind::Transport, "failed")
    };
    TokenError::new(kind, format!("POST {url} {what}")).with_source(error)
}

/// Reads the body up to `limit` bytes. Also returns the limit if the body is longer: the rest stays unread.
async fn read(
    mut body: UnsyncBoxBody<Bytes, BoxError>,
    limit: usize,
) -> Result<(Bytes, Option<usize>), BoxError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if data.len() > limit - bytes.len() {
            bytes.extend_from_slice(&data[..limit - bytes.len()]);
            return Ok((bytes.into(), Some(limit)));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.into(), None))
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
