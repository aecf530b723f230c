//! What a [`ProtectedApi`] does with a request.

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
    body::{Reply, ReplyBody, ReplyFuture, Upload},
    recorded::RecordedRequest,
    rejection::Rejection,
    rules::Dead,
};

impl ProtectedApi {
    async fn answer<B>(self, request: Request<B>) -> Reply
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let (look_after, delay, hook) = self.lock().arrive(&head.headers);
        let mut upload = Upload::new(body);
        upload.read(look_after.unwrap_or(usize::MAX)).await?;
        let request = RecordedRequest::new(head, &upload.data);
        if let Some(hook) = hook {
            hook(&request);
        }
        self.lock().log.push(request.clone());
        self.shared.gate.pass().await;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Err(why) = self.look_at(&request.headers) {
            return Ok(self.reject(why));
        }
        upload.read(usize::MAX).await?;
        Ok(self.accept(&request, upload.data.into(), upload.trailers))
    }

    /// What is wrong with the token, if anything; `None` inside if there is no token.
    fn look_at(&self, headers: &HeaderMap) -> Result<(), Option<Dead>> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let token = match (values.next(), values.next()) {
            (Some(value), None) => value
                .to_str()
                .ok()
                .and_then(|it| it.strip_prefix("Bearer ")),
            _ => None,
        };
        // Asked before the lock is taken: two locks are never held at once.
        let verdict = match token {
            Some(token) => self.shared.server.check(token).map_err(Some),
            None => Err(None),
        };
        let mut state = self.lock();
        if state.reject_next > 0 {
            state.reject_next -= 1;
            return Err(Some(Dead::Revoked));
        }
        if state.reject_all {
            return Err(Some(Dead::Revoked));
        }
        verdict
    }

    fn reject(&self, why: Option<Dead>) -> Response<ReplyBody> {
        let mut state = self.lock();
        state.rejected += 1;
        state.rejection.answer(why)
    }

    fn accept(
        &self,
        request: &RecordedRequest,
        body: Bytes,
        mut trailers: Option<HeaderMap>,
    ) -> Response<ReplyBody> {
        let mut state = self.lock();
        state.accepted += 1;
        if state.rejection == Rejection::Grpc {
            let ok = HeaderValue::from_static("0");
            trailers.get_or_insert_default().insert("grpc-status", ok);
        }
        drop(state);
        echo(request, ReplyBody::with_trailers(body, trailers))
    }
}

impl State {
    fn arrive(&mut self, headers: &HeaderMap) -> (Option<usize>, Duration, Option<Hook>) {
        self.received += 1;
        if let Some(id) = headers.get("x-request-id") {
            let id = String::from_utf8_lossy(id.as_bytes()).into_owned();
            *self.seen.entry(id).or_default() += 1;
        }
        (self.look_after, self.delay, self.hook.clone())
    }
}

impl<B> Service<Request<B>> for ProtectedApi
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ReplyBody>;
    type Error = BoxError;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ReplyFuture {
        ReplyFuture::new(self.clone().answer(request))
    }
}

/// The way of saying yes: with what was sent.
fn echo(request: &RecordedRequest, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let mut echo = |name, value: &str| {
        // Methods and URIs are made of what headers can carry.
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
