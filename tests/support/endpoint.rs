//! A token endpoint that issues tokens to every credential, and responds otherwise when told to.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::service_fn;
use tower_bearer::{OAuthClient, StoredSession, Token, TokenContext, TokenError, TokenSource};

pub const DEAD: (u16, &str) = (400, r#"{"error":"invalid_grant"}"#);
pub const DOWN: (u16, &str) = (503, "down");

/// Clones are the same endpoint, whatever the URL is.
#[derive(Clone, Default)]
pub struct TokenEndpoint {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    responses: VecDeque<(u16, &'static str)>,
    sent: Vec<String>,
    issued: u32,
}

impl TokenEndpoint {
    pub fn client(&self, url: &str) -> OAuthClient {
        let endpoint = self.clone();
        let transport = service_fn(move |request: Request<Full<Bytes>>| {
            let endpoint = endpoint.clone();
            async move {
                let (head, body) = request.into_parts();
                let Ok(body) = body.collect().await;
                let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
                Ok::<_, Infallible>(endpoint.respond(format!("{} {body}", head.uri.path())))
            }
        });
        OAuthClient::with_transport(url, transport).unwrap()
    }

    fn respond(&self, request: String) -> Response<Full<Bytes>> {
        let mut inner = self.inner.lock().unwrap();
        inner.sent.push(request);
        let planned = inner.responses.pop_front();
        let (status, body) = if let Some((status, body)) = planned {
            (status, body.to_owned())
        } else {
            inner.issued += 1;
            let n = inner.issued;
            let body =
                format!(r#"{{"access_token":"at-{n}","refresh_token":"rt-{n}","expires_in":900}}"#);
            (200, body)
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status.try_into().unwrap();
        response
    }

    /// The next requests get these responses.
    pub fn respond_next(&self, responses: impl IntoIterator<Item = (u16, &'static str)>) {
        self.inner.lock().unwrap().responses.extend(responses);
    }

    /// The path and the body of each request since the last call.
    pub fn sent(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().unwrap().sent)
    }
}

pub async fn first(source: &impl TokenSource) -> Result<Token, TokenError> {
    source.token(TokenContext::new()).await
}

pub async fn next(source: &impl TokenSource, token: &Token) -> Result<Token, TokenError> {
    source
        .token(TokenContext::new().replacing(token.clone()))
        .await
}

/// The session as a store writes it.
pub fn json(session: &StoredSession) -> serde_json::Value {
    serde_json::to_value(session).unwrap()
}
