//! The service of [`ProtectedApi`]: what it does with a request.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Body;
use tower::{BoxError, Service};

use super::{
    api::{Hook, ProtectedApi, State},
    body::{ResponseBody, ResponseFuture, ResponseResult, Upload},
    recorded::RecordedRequest,
    rejection_response::RejectionResponse,
    rules::Invalid,
};

impl ProtectedApi {
    async fn handle<B>(self, request: Request<B>) -> ResponseResult
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let (check_after, delay, hook) = self.lock().record(&head.headers);
        let mut upload = Upload::new(body);
        upload.read(check_after.unwrap_or(usize::MAX)).await?;
        let request = RecordedRequest::new(head, &upload.data);
        if let Some(hook) = hook {
            hook(&request);
        }
        self.lock().log.push(request.clone());
        if let Some(metadata) = self.metadata(&request).await {
            return metadata;
        }
        self.shared.pause.pass().await;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Err(why) = self.check_token(&request.headers) {
            let rejection = self.reject(why);
            return Ok(self.with_metadata_url(rejection));
        }
        let granted = bearer(&request.headers).map(|token| self.shared.server.granted(token));
        if let Some(response) = self.unmet(&request, &granted.unwrap_or_default()) {
            self.lock().rejected += 1;
            return Ok(self.with_metadata_url(response));
        }
        upload.read(usize::MAX).await?;
        Ok(self.accept(&request, upload.data.into(), upload.trailers))
    }

    /// Checks the token. The error is `None` if there is no token.
    fn check_token(&self, headers: &HeaderMap) -> Result<(), Option<Invalid>> {
        // Checked before the lock is taken: two locks are never held at once.
        let checked = match bearer(headers) {
            Some(token) => self.shared.server.check(token).map_err(Some),
            None => Err(None),
        };
        let mut state = self.lock();
        if state.reject_next > 0 {
            state.reject_next -= 1;
            return Err(Some(Invalid::Revoked));
        }
        if state.reject_all {
            return Err(Some(Invalid::Revoked));
        }
        checked
    }

    fn reject(&self, why: Option<Invalid>) -> Response<ResponseBody> {
        let mut state = self.lock();
        state.rejected += 1;
        state.rejection_response.response(why)
    }

    fn accept(
        &self,
        request: &RecordedRequest,
        body: Bytes,
        mut trailers: Option<HeaderMap>,
    ) -> Response<ResponseBody> {
        let mut state = self.lock();
        state.accepted += 1;
        if state.rejection_response == RejectionResponse::GrpcUnauthenticated {
            let ok = HeaderValue::from_static("0");
            trailers.get_or_insert_default().insert("grpc-status", ok);
        }
        drop(state);
        echo(request, ResponseBody::with_trailers(body, trailers))
    }
}

/// The token, if there is exactly one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok()?.strip_prefix("Bearer "),
        _ => None,
    }
}

impl State {
    fn record(&mut self, headers: &HeaderMap) -> (Option<usize>, Duration, Option<Hook>) {
        self.received += 1;
        if let Some(id) = headers.get("x-request-id") {
            let id = String::from_utf8_lossy(id.as_bytes()).into_owned();
            *self.attempts.entry(id).or_default() += 1;
        }
        (self.check_after, self.delay, self.hook.clone())
    }
}

impl<B> Service<Request<B>> for ProtectedApi
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        ResponseFuture::new(self.clone().handle(request))
    }
}

/// The response to an accepted request, which echoes it.
fn echo(request: &RecordedRequest, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let mut echo = |name, value: &str| {
        // Methods and URIs only contain characters that header values allow.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    echo("x-echo-method", request.method.as_str());
    echo("x-echo-uri", &request.uri.to_string());
    if let Some(value) = request.headers.get(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, value.clone());
    }
    response
}
