//! reqwest 0.12 below the layer. The crate itself uses 0.13, whose types are others.

use bytes::Bytes;
use http::{Request, Response};
use reqwest012::{Body, Client, Error};
use tower::{Service, service_fn};
use tower_bearer::{ReplayBody, Verdict};

/// A client of reqwest 0.12 as a service of `http` requests with bodies of any type.
///
/// Best is a client that follows no redirects: 0.12 keeps the token on the way from https to http at the same host and
/// port.
pub(crate) fn service<B>(
    client: Client,
) -> impl Service<Request<ReplayBody<B>>, Response = Response<Body>, Error = Error, Future: Send> + Clone
where
    B: http_body::Body<Data = Bytes> + Send + Sync + Unpin + 'static,
    B::Error: Into<tower::BoxError>,
{
    service_fn(move |request: Request<ReplayBody<B>>| {
        let client = client.clone();
        async move {
            let request = reqwest012::Request::try_from(request.map(Body::wrap))?;
            let origin = request.url().origin();
            let response = client.execute(request).await?;
            let is_other_origin = response.url().origin() != origin;
            let mut response = Response::from(response);
            if is_other_origin {
                // The token was not sent there, so a 401 does not reject it.
                response.extensions_mut().insert(Verdict::Unrelated);
            }
            Ok(response)
        }
    })
}
