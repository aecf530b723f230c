//! The transport of requests: any HTTP service, and what its errors mean.

use std::{any::Any, error::Error, io, iter, mem};

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};
use tower_service::Service;

use super::send::Target;
use crate::{
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

/// The error of a request that the transport could not send, or to which no response came.
pub(super) fn transport_error(target: Target<'_>, error: BoxError) -> TokenError {
    let error = match error.downcast::<TokenError>() {
        // For example, that of a session of its own.
        Ok(error) => return error.of_a_dependency(),
        Err(error) => error,
    };
    if is_unsendable(error.as_ref()) {
        let message = format!(
            "{target} was not sent, because the HTTP client does not accept it; is the host a valid name?"
        );
        return TokenError::new(TokenErrorKind::Config, message)
            .with_source(error)
            .unsent();
    }
    let (kind, what) = if is_timeout(error.as_ref()) {
        (TokenErrorKind::Timeout, "timed out")
    } else {
        (TokenErrorKind::Transport, "failed")
    };
    TokenError::new(kind, format!("{target} {what}")).with_source(error)
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
