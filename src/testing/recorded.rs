//! [`RecordedRequest`]: a request that a server has received, for tests to inspect.

use std::{collections::VecDeque, fmt};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header, request};

/// How many requests a server keeps.
const MAX_REQUESTS: usize = 10_000;

/// How many bytes of each body it keeps.
const MAX_BODY: usize = 64 * 1024;

/// A request as a server of this module has received it.
///
/// A server keeps the last 10,000 requests, and the first 64 KiB of each body.
///
/// `Debug` shows neither header values nor the body, so that no secret gets into the logs of failing tests.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower::ServiceExt;
/// use tower_bearer::testing::{AuthorizationServer, Dialect};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let server = AuthorizationServer::new(Dialect::TwoBa);
/// let body = String::from("grant_type=refresh_token&refresh_token=lost%2Bfound");
/// let request = Request::post("/OAuth/Token")
///     .header("content-type", "application/x-www-form-urlencoded")
///     .body(body)?;
/// server.clone().oneshot(request).await?;
///
/// let recorded = &server.requests()[0];
/// assert_eq!(recorded.uri.path(), "/OAuth/Token");
/// assert_eq!(recorded.param("refresh_token"), Some("lost+found"));
/// assert!(!format!("{recorded:?}").contains("lost"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// The method.
    pub method: Method,
    /// The request target. Over a real connection it usually has no more than path and query.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The part of the body that was read.
    pub body: Bytes,
    /// The decoded parameters of the body in their order, from a form or JSON according to the content type.
    pub params: Vec<(String, String)>,
}

impl RecordedRequest {
    pub(super) fn new(head: request::Parts, body: &[u8]) -> Self {
        let params = match media_type(&head.headers) {
            Some(FORM) => form_urlencoded::parse(body).into_owned().collect(),
            Some(JSON) => json_params(body).unwrap_or_default(),
            _ => Vec::new(),
        };
        Self {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            body: Bytes::copy_from_slice(&body[..body.len().min(MAX_BODY)]),
            params,
        }
    }

    /// The value of the first parameter with this name in the body.
    pub fn param(&self, name: &str) -> Option<&str> {
        let mut found = self.params.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.params.iter().map(|(name, _)| name).collect();
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_len", &self.body.len())
            .field("params", &names)
            .finish()
    }
}

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
pub(super) const JSON: &str = "application/json";

/// The content type, if it is one of the two that a token request can have.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next()?.trim();
    [FORM, JSON]
        .into_iter()
        .find(|known| essence.eq_ignore_ascii_case(known))
}

/// The members of a JSON object, all of whose values must be strings.
pub(super) fn json_params(body: &[u8]) -> Option<Vec<(String, String)>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    let text = |(name, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(value) => Some((name, value)),
        _ => None,
    };
    object.into_iter().map(text).collect()
}

/// The last requests, at most [`MAX_REQUESTS`].
#[derive(Debug, Default)]
pub(super) struct Log(VecDeque<RecordedRequest>);

impl Log {
    pub(super) fn push(&mut self, request: RecordedRequest) {
        if self.0.len() == MAX_REQUESTS {
            self.0.pop_front();
        }
        self.0.push_back(request);
    }

    pub(super) fn to_vec(&self) -> Vec<RecordedRequest> {
        self.0.iter().cloned().collect()
    }
}
