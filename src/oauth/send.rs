//! One exchange with a token endpoint: the request, the wait, the answer read up to its limit.

use std::{error::Error, io};

use bytes::{Buf, Bytes};
use http::{Method, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use secrecy::ExposeSecret;
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};
use tower_service::Service;

use super::{
    OAuthClient, TokenResponse,
    token_response::{self, Answer},
};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
};

/// Any HTTP service, its types erased: a token request is too rare to pay for them in every signature.
pub(super) type Transport =
    BoxCloneSyncService<Request<Full<Bytes>>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

pub(super) fn erase<S, B>(service: S) -> Transport
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
    pub(super) fn assemble(
        &self,
        grant_type: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, TokenError> {
        let mut body = vec![("grant_type", grant_type)];
        body.extend(parameters);
        body.extend(self.client_auth.parameters());
        let given = body.len();
        for (name, value) in &self.parameters {
            if !body[..given].iter().any(|(given, _)| given == name) {
                body.push((name, value.expose_secret()));
            }
        }
        let mut request = Request::new(Full::new(self.body_format.encode(&body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(CONTENT_TYPE, self.body_format.content_type());
        self.client_auth.authorize(headers)?;
        Ok(request)
    }

    pub(super) async fn exchange(
        &self,
        clock: &Clock,
        request: Request<Full<Bytes>>,
    ) -> Result<TokenResponse, TokenError> {
        let failed = |error| self.not_reached(error);
        let mut transport = self.transport.clone();
        let transport = transport.ready().await.map_err(failed)?;
        // Lifetimes count from here: what waiting and travelling took is not the token's time to live.
        let sent = clock.now();
        let (head, body) = transport.call(request).await.map_err(failed)?.into_parts();
        let (body, cut_at) = read(body, self.max_response_size)
            .await
            .map_err(|error| failed(error).with_status(head.status))?;
        let answer = Answer {
            endpoint: self.shown(),
            status: head.status,
            headers: head.headers,
            body,
            cut_at,
        };
        token_response::parse(&answer, sent, clock.wall())
    }

    fn not_reached(&self, error: BoxError) -> TokenError {
        let error = match error.downcast::<TokenError>() {
            Ok(error) => return *error,
            Err(error) => error,
        };
        let (kind, what) = if is_timeout(error.as_ref()) {
            (TokenErrorKind::Timeout, "timed out")
        } else {
            (TokenErrorKind::Transport, "failed")
        };
        TokenError::new(kind, format!("POST {} {what}", self.shown())).with_source(error)
    }
}

/// The body, and the limit if the body went beyond it; then the rest stays unread.
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

/// Whether anything in the chain of causes says that time ran out.
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

/// Whether the request surely did not leave, because there was no connection for it.
pub(crate) fn never_left(error: &TokenError) -> bool {
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
