//! [`Fault`]: what can go wrong with a token request, to order.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use tower::BoxError;

use super::{
    body::{Reply, ReplyBody},
    rules::{Issued, Rules},
};

/// What goes wrong with one request to an [`AuthorizationServer`](super::AuthorizationServer).
///
/// Most come in the server's place: it never sees the request, and no token changes. With
/// [`Delay`](Fault::Delay), [`DropReplyAfterCommit`](Fault::DropReplyAfterCommit),
/// [`AlreadyExpired`](Fault::AlreadyExpired), [`SameToken`](Fault::SameToken) and
/// [`NoAccessToken`](Fault::NoAccessToken) the server has done its work, and a refresh token may be spent.
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
/// let ask = || Request::post("/OAuth/Token").body(String::new()).unwrap();
/// assert_eq!(server.clone().oneshot(ask()).await?.status(), 502);
/// assert!(server.clone().oneshot(ask()).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The server does its work, and holds its answer back for so long, by Tokio's time. A client that leaves in the
    /// meantime loses the answer.
    Delay(Duration),
    /// The connection breaks before the server sees the request.
    DropBeforeCommit,
    /// The server does its work, and the connection breaks before it can say so.
    DropReplyAfterCommit,
    /// The request never reaches the server, and nothing ever comes back.
    NeverAnswers,
    /// This status without a body. 200 is the gateway that answers nothing at all.
    Status(StatusCode),
    /// 429 with `Retry-After` in whole seconds, rounded up.
    TooManyRequests {
        /// How long to wait.
        retry_after: Duration,
    },
    /// A gateway's page in HTML, with this status.
    Html(StatusCode),
    /// 200, JSON by its content type, and so many bytes of white space, made as they are read; their number isn't
    /// announced.
    HugeBody(u64),
    /// 200 and JSON by its content type at once, then one byte of white space each time so much of Tokio's time has
    /// passed, for ever.
    SlowBody(Duration),
    /// This status, 307 say, and a `Location`.
    Redirect {
        /// The status.
        status: StatusCode,
        /// Where the client is sent.
        location: Uri,
    },
    /// The access token is as old as it may get when it is issued: `expires_in` is 0.
    AlreadyExpired,
    /// The access token that was issued last comes again, with what is left of its life.
    SameToken,
    /// An answer without `access_token`, as good as it is otherwise.
    NoAccessToken,
    /// This very answer. See [`Fault::raw`] for the common case.
    Raw(Response<Bytes>),
}

impl Fault {
    /// This status, content type and body, in the server's place.
    ///
    /// A content type that no header can carry is left out.
    pub fn raw(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::Raw(typed(status, content_type, body.into()))
    }

    /// What comes in the server's place, if it never sees the request.
    pub(super) async fn instead(&self) -> Option<Reply> {
        let response = match self {
            Self::Delay(_)
            | Self::DropReplyAfterCommit
            | Self::AlreadyExpired
            | Self::SameToken
            | Self::NoAccessToken => return None,
            Self::DropBeforeCommit => return Some(Err(broken())),
            Self::NeverAnswers => std::future::pending().await,
            Self::Status(status) => with_status(*status, ReplyBody::empty()),
            Self::TooManyRequests { retry_after } => too_many(
                *retry_after,
                with_status(StatusCode::OK, ReplyBody::empty()),
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
            Self::HugeBody(bytes) => json(StatusCode::OK, ReplyBody::huge(*bytes)),
            Self::SlowBody(every) => json(StatusCode::OK, ReplyBody::slow(*every)),
            Self::Redirect { status, location } => {
                let mut response = with_status(*status, ReplyBody::empty());
                if let Ok(location) = HeaderValue::try_from(location.to_string()) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                response
            }
            Self::Raw(response) => response.clone().map(ReplyBody::from),
        };
        Some(Ok(response))
    }

    /// The rules under which the server works, changed for this once.
    pub(super) fn bend(&self, rules: &mut Rules) {
        match self {
            Self::AlreadyExpired => rules.access_lifetime = Duration::ZERO,
            Self::SameToken => rules.repeat_access = true,
            _ => {}
        }
    }

    /// What is left of what was issued.
    pub(super) fn rob(&self, issued: &mut Issued) {
        if let Self::NoAccessToken = self {
            issued.access = None;
        }
    }

    /// What becomes of the server's answer on its way.
    pub(super) async fn after(&self, response: Response<ReplyBody>) -> Reply {
        match self {
            Self::Delay(time) => tokio::time::sleep(*time).await,
            Self::DropReplyAfterCommit => return Err(broken()),
            _ => {}
        }
        Ok(response)
    }
}

fn broken() -> BoxError {
    let error = io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the connection broke, as ordered",
    );
    error.into()
}

pub(super) fn with_status<B>(status: StatusCode, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

pub(super) fn json(status: StatusCode, body: ReplyBody) -> Response<ReplyBody> {
    typed(status, super::recorded::JSON, body)
}

/// 429, and when to come back.
pub(super) fn too_many(wait: Duration, mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
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
