//! The layer over a service of reqwest's own requests and responses, made for one request.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Layer, ServiceExt};
use tower_service::Service;

use crate::{
    body::ReplayBody,
    error::TokenError,
    middleware::bearer::{BearerAuth, BearerAuthLayer},
    oauth::ReqwestAttempt,
};

/// Why there is no response.
pub(super) enum Failed<E> {
    NoToken(TokenError),
    /// The error of the service that sends the attempts.
    Sending(E),
}

/// Sends a request as `auth` says. `service` sends each attempt.
pub(super) async fn send<S, T, E>(
    auth: BearerAuthLayer<T>,
    service: S,
    request: Request<reqwest::Body>,
) -> Result<reqwest::Response, Failed<E>>
where
    S: Service<reqwest::Request, Error = E> + Clone,
    T: Clone,
    E: Error + 'static,
    BearerAuth<Attempts<S>, T>:
        Service<Request<reqwest::Body>, Response = Response<reqwest::Body>, Error = BoxError>,
{
    let (head, body) = request.into_parts();
    let (body, in_memory) = in_memory(body);
    let service = auth.layer(Attempts { service, in_memory });
    match service.oneshot(Request::from_parts(head, body)).await {
        Ok(response) => Ok(response.into()),
        Err(error) => Err(match error.downcast::<E>() {
            Ok(error) => Failed::Sending(*error),
            Err(error) => Failed::NoToken(match error.downcast::<TokenError>() {
                Ok(error) => *error,
                // There are no others.
                Err(error) => TokenError::other(error),
            }),
        }),
    }
}

/// The attempts to send one request.
#[derive(Clone)]
pub(super) struct Attempts<S> {
    service: S,
    /// The whole body, if it was not a stream.
    in_memory: Option<Bytes>,
}

impl<S> Service<Request<ReplayBody<reqwest::Body>>> for Attempts<S>
where
    S: Service<reqwest::Request, Response = reqwest::Response, Error: From<reqwest::Error>>,
{
    type Response = Response<reqwest::Body>;
    type Error = S::Error;
    type Future = ReqwestAttempt<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReplayBody<reqwest::Body>>) -> Self::Future {
        let request = request.map(|body| match &self.in_memory {
            // reqwest follows a redirect with a body, and sends again what a connection refused, only if it is not a
            // stream. The middlewares of others retry on the same condition.
            Some(bytes) => bytes.clone().into(),
            None => reqwest::Body::wrap(body),
        });
        ReqwestAttempt::send(&mut self.service, request)
    }
}

/// The bytes of a body that is not a stream, and that body again.
fn in_memory(mut body: reqwest::Body) -> (reqwest::Body, Option<Bytes>) {
    if body.as_bytes().is_none() {
        return (body, None);
    }
    // Such a body yields all its bytes at once. They are not copied.
    let mut cx = Context::from_waker(Waker::noop());
    let bytes = match Pin::new(&mut body).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        _ => Bytes::new(),
    };
    (bytes.clone().into(), Some(bytes))
}
