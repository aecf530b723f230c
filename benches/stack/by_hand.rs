//! The middleware that people write themselves.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::sync::RwLock;
use tower::{BoxError, Service, ServiceExt};

use crate::support::work::TOKEN;

const LIFETIME: Duration = Duration::from_secs(3_600);

/// The token behind a lock.
#[derive(Debug)]
pub(crate) struct SharedToken(RwLock<(String, Instant)>);

impl SharedToken {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(RwLock::new(issue())))
    }

    /// The header with the current token, or with a new one.
    pub(crate) async fn header(&self) -> Result<HeaderValue, BoxError> {
        let token = self.0.read().await;
        if Instant::now() < token.1 {
            return bearer(&token.0);
        }
        drop(token);
        self.refresh().await
    }

    pub(crate) async fn refresh(&self) -> Result<HeaderValue, BoxError> {
        let mut token = self.0.write().await;
        *token = issue();
        bearer(&token.0)
    }
}

/// Here a request to the token endpoint would be.
fn issue() -> (String, Instant) {
    (String::from(TOKEN), Instant::now() + LIFETIME)
}

fn bearer(token: &str) -> Result<HeaderValue, BoxError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Buffers the body, clones the head, and sends a rejected request once more with a new token.
#[derive(Clone, Debug)]
pub(crate) struct ByHand<S> {
    inner: S,
    token: Arc<SharedToken>,
}

impl<S> ByHand<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            token: SharedToken::new(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for ByHand<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    R: Send,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let token = Arc::clone(&self.token);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            let mut first = Request::from_parts(head.clone(), Full::new(body.clone()));
            let headers = first.headers_mut();
            headers.insert(AUTHORIZATION, token.header().await?);
            let response = inner.call(first).await.map_err(Into::into)?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            drop(response);
            let mut second = Request::from_parts(head, Full::new(body));
            let headers = second.headers_mut();
            headers.insert(AUTHORIZATION, token.refresh().await?);
            let inner = inner.ready().await.map_err(Into::into)?;
            inner.call(second).await.map_err(Into::into)
        })
    }
}
