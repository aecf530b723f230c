//! [`RecordedRequest`]: what a server was asked, for tests to look at.

use std::{collections::VecDeque, fmt};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header, request};

/// How many requests a server remembers.
const KEPT: usize = 10_000;

/// How much of a body it remembers.
const KEPT_BODY: usize = 64 * 1024;

/// A request as a server of this module got it.
///
/// A server remembers the last 10,000, and of each body the first 64 KiB.
///
/// `Debug` shows neither the values of headers nor the body: made-up secrets or not, failing tests end up in logs.
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
    /// Its method.
    pub method: Method,
    /// Its target, as it came: over a connection usually no more than path and query.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// What was read of its body.
    pub body: Bytes,
    /// The parameters in its body, form or JSON by its content type, decoded and in their order.
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
            body: Bytes::copy_from_slice(&body[..body.len().min(KEPT_BODY)]),
            params,
        }
    }

    /// The first parameter of this name in the body.
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

/// One of the two content types a token request can have.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next()?.trim();
    [FORM, JSON]
        .into_iter()
        .find(|known| essence.eq_ignore_ascii_case(known))
}

/// The members of a JSON object, all of which must be strings.
pub(super) fn json_params(body: &[u8]) -> Option<Vec<(String, String)>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    let text = |(name, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(value) => Some((name, value)),
        _ => None,
    };
    object.into_iter().map(text).collect()
}

/// The last requests.
#[derive(Debug, Default)]
pub(super) struct Log(VecDeque<RecordedRequest>);

impl Log {
    pub(super) fn push(&mut self, request: RecordedRequest) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(request);
    }

    pub(super) fn to_vec(&self) -> Vec<RecordedRequest> {
        self.0.iter().cloned().collect()
    }
}
