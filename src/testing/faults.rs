//! [`Fault`]: what can go wrong with a token request.

use std::{collections::VecDeque, io, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use serde_json::{Value, json};
use tower::BoxError;

use super::{
    authorization,
    body::{ResponseBody, ResponseResult},
    rules::Rules,
};

/// A failure of one request to an [`AuthorizationServer`](super::AuthorizationServer).
///
/// Most faults replace the response of the server: it never sees the request, and no token changes. With
/// [`Delay`](Fault::Delay), [`DropReplyAfterCommit`](Fault::DropReplyAfterCommit),
/// [`AlreadyExpired`](Fault::AlreadyExpired), [`SameToken`](Fault::SameToken) and [`Member`](Fault::Member) the server
/// does process the request, and a refresh token may be used up.
///
/// Faults that last are settings of the server: a clock that is [wrong](super::AuthorizationServer::skew), a
/// [secret](super::AuthorizationServer::client) that is rotated, endpoints that
/// [move](super::AuthorizationServer::path_prefix), metadata with [wrong](super::AuthorizationServer::metadata_member)
/// members.
///
/// # Examples
///
/// ```
/// use http::{Request, StatusCode};
/// use tower::ServiceExt;
/// use tower_bearer::testing::{AuthorizationServer, Dialect, Fault};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let server = AuthorizationServer::new(Dialect::TwoBa);
/// server.fault(Fault::Html(StatusCode::BAD_GATEWAY));
/// server.fault(Fault::DropBeforeCommit);
///
/// let request = || Request::post("/OAuth/Token").body(String::new()).unwrap();
/// assert_eq!(server.clone().oneshot(request()).await?.status(), 502);
/// assert!(server.clone().oneshot(request()).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The server processes the request, and sends the response after this time on Tokio's clock. A client that gives
    /// up in the meantime loses the response.
    Delay(Duration),
    /// The connection breaks before the server sees the request.
    DropBeforeCommit,
    /// The server processes the request, and the connection breaks before the response is sent.
    DropReplyAfterCommit,
    /// The request never reaches the server, and no response ever arrives.
    NeverAnswers,
    /// This status without a body. With 200, it is a gateway that answers nothing at all.
    Status(StatusCode),
    /// 429 with `Retry-After` in whole seconds, rounded up.
    TooManyRequests {
        /// The time to wait.
        retry_after: Duration,
    },
    /// An HTML page of a gateway, with this status.
    Html(StatusCode),
    /// 200 with the content type of JSON, and this number of bytes of white space, which are generated as they are
    /// read. The length is not announced.
    HugeBody(u64),
    /// 200 with the content type of JSON at once, and then an endless body: one byte of white space each time this
    /// duration has passed on Tokio's clock.
    SlowBody(Duration),
    /// This status, for example 307, and a `Location` header.
    Redirect {
        /// The status.
        status: StatusCode,
        /// The target of the redirect.
        location: Uri,
    },
    /// The access token has already expired when it is issued: `expires_in` is 0.
    AlreadyExpired,
    /// The last access token is issued again, with the rest of its lifetime.
    SameToken,
    /// The usual response, a JSON object, in which this member has this value. `null` removes it. [`Fault::member`]
    /// creates it. Of a redirect, it is a parameter of the URL.
    Member(String, Value),
    /// 503 with `Retry-After` in whole seconds, rounded up.
    Unavailable {
        /// The time to wait.
        retry_after: Duration,
    },
    /// Exactly this response. [`Fault::raw`] creates the common case.
    Raw(Response<Bytes>),
}

/// The faults of the requests to one endpoint.
#[derive(Debug, Default)]
pub(super) struct FaultQueue {
    pub(super) next: VecDeque<Fault>,
    pub(super) always: Option<Fault>,
}

impl FaultQueue {
    /// The fault of the next request.
    pub(super) fn take(&mut self) -> Option<Fault> {
        self.next.pop_front().or_else(|| self.always.clone())
    }
}

impl Fault {
    /// Creates a fault that responds with this status, content type and body.
    ///
    /// A content type that is no valid header value is left out.
    pub fn raw(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::Raw(typed(status, content_type, body.into()))
    }

    /// Creates a fault that responds with this error code (RFC 6749 §5.2), such as `invalid_client`, which has the
    /// status 401. Other codes have 400.
    pub fn error(code: &str) -> Self {
        let status = if code == "invalid_client" {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::BAD_REQUEST
        };
        Self::raw(
            status,
            super::recorded::JSON,
            json!({ "error": code }).to_string(),
        )
    }

    /// Creates a fault that changes a member of the usual response, or removes it if `value` is `null`.
    ///
    /// # Examples
    ///
    /// ```
    /// use serde_json::Value;
    /// use tower_bearer::testing::{AuthorizationServer, Dialect, Fault};
    ///
    /// let server = AuthorizationServer::new(Dialect::Rfc6749);
    /// server.fault(Fault::member("token_type", "N_A"));
    /// server.fault(Fault::member("expires_in", Value::Null));
    /// server.metadata_fault(Fault::member("issuer", "https://other.example"));
    /// ```
    pub fn member(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::Member(name.into(), value.into())
    }

    /// The response that replaces that of the server, if the server never sees the request.
    pub(super) async fn replacement(&self) -> Option<ResponseResult> {
        let response = match self {
            Self::Delay(_)
            | Self::DropReplyAfterCommit
            | Self::AlreadyExpired
            | Self::SameToken
            | Self::Member(..) => return None,
            Self::DropBeforeCommit => return Some(Err(broken())),
            Self::NeverAnswers => std::future::pending().await,
            Self::Status(status) => with_status(*status, ResponseBody::empty()),
            Self::TooManyRequests { retry_after } => wait(
                *retry_after,
                with_status(StatusCode::TOO_MANY_REQUESTS, ResponseBody::empty()),
            ),
            Self::Unavailable { retry_after } => wait(
                *retry_after,
                with_status(StatusCode::SERVICE_UNAVAILABLE, ResponseBody::empty()),
            ),
            Self::Html(status) => {
                let page: &[u8] =
                    b"<!doctype html><title>Gateway</title><p>Please try again later.";
                typed(
                    *status,
                    "text/html; charset=utf-8",
                    Bytes::from_static(page).into(),
                )
            }
            Self::HugeBody(bytes) => json_body(StatusCode::OK, ResponseBody::huge(*bytes)),
            Self::SlowBody(every) => json_body(StatusCode::OK, ResponseBody::slow(*every)),
            Self::Redirect { status, location } => {
                let mut response = with_status(*status, ResponseBody::empty());
                if let Ok(location) = HeaderValue::try_from(location.to_string()) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                response
            }
            Self::Raw(response) => response.clone().map(ResponseBody::from),
        };
        Some(Ok(response))
    }

    /// Changes the rules for this one request.
    pub(super) fn adjust_rules(&self, rules: &mut Rules) {
        match self {
            Self::AlreadyExpired => rules.access_lifetime = Duration::ZERO,
            Self::SameToken => rules.repeat_access = true,
            _ => {}
        }
    }

    /// Delivers the response of the server, changes it or loses it.
    pub(super) async fn deliver(&self, response: Response<ResponseBody>) -> ResponseResult {
        match self {
            Self::Delay(time) => tokio::time::sleep(*time).await,
            Self::DropReplyAfterCommit => return Err(broken()),
            Self::Member(name, value) => {
                let response = authorization::with_parameter(response, name, value);
                return Ok(response.map(|body| body.with_member(name, value)));
            }
            _ => {}
        }
        Ok(response)
    }
}

fn broken() -> BoxError {
    let error = io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the connection was broken by a `Fault`",
    );
    error.into()
}

pub(super) fn with_status<B>(status: StatusCode, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

pub(super) fn json_body(status: StatusCode, body: ResponseBody) -> Response<ResponseBody> {
    typed(status, super::recorded::JSON, body)
}

/// Adds `Retry-After`.
pub(super) fn wait(wait: Duration, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds.into());
    response
}

fn typed<B>(status: StatusCode, content_type: &str, body: B) -> Response<B> {
    let mut response = with_status(status, body);
    if let Ok(value) = HeaderValue::try_from(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}
