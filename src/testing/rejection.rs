//! [`Rejection`]: how an API says no.

use http::{HeaderValue, Response, StatusCode, header};

use super::{answers, body::ReplyBody, faults::with_status, rules::Dead};

/// How a [`ProtectedApi`](super::ProtectedApi) rejects a request.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower::ServiceExt;
/// use tower_bearer::testing::{AuthorizationServer, Dialect, Rejection};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let api = AuthorizationServer::new(Dialect::Rfc6749).api().rejection(Rejection::Grpc);
/// let response = api.oneshot(Request::get("/").body(String::new())?).await?;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.headers()["grpc-status"], "16");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// 401 with a challenge: `error="invalid_token"` if there was a token, none if there wasn't (RFC 6750 §3.1).
    #[default]
    Challenge,
    /// 401 and no more.
    Bare,
    /// 403 with the challenge `error="insufficient_scope"`, which no new token heals.
    InsufficientScope,
    /// 403 and no more.
    Forbidden,
    /// gRPC's: status 200, `content-type: application/grpc`, `grpc-status: 16` among the headers, no body. With it,
    /// served requests end in the trailer `grpc-status: 0`.
    Grpc,
    /// Xoxoday's: status 200, and `auth.token_error` in a JSON body.
    TokenError,
}

impl Rejection {
    pub(super) fn answer(self, why: Option<Dead>) -> Response<ReplyBody> {
        let (status, fields): (_, &[_]) = match (self, why) {
            (Self::Challenge, None) => (
                StatusCode::UNAUTHORIZED,
                &[(header::WWW_AUTHENTICATE, r#"Bearer realm="api""#)],
            ),
            (Self::Challenge, Some(why)) => (
                StatusCode::UNAUTHORIZED,
                &[(header::WWW_AUTHENTICATE, challenge(why))],
            ),
            (Self::Bare, _) => (StatusCode::UNAUTHORIZED, &[]),
            (Self::InsufficientScope, _) => (
                StatusCode::FORBIDDEN,
                &[(
                    header::WWW_AUTHENTICATE,
                    r#"Bearer realm="api", error="insufficient_scope", scope="write""#,
                )],
            ),
            (Self::Forbidden, _) => (StatusCode::FORBIDDEN, &[]),
            (Self::Grpc, _) => (
                StatusCode::OK,
                &[
                    (header::CONTENT_TYPE, "application/grpc"),
                    (header::HeaderName::from_static("grpc-status"), "16"),
                ],
            ),
            (Self::TokenError, _) => {
                return answers::object(StatusCode::OK, &answers::token_error());
            }
        };
        let mut response = with_status(status, ReplyBody::empty());
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

fn challenge(why: Dead) -> &'static str {
    match why {
        Dead::Expired => {
            r#"Bearer realm="api", error="invalid_token", error_description="The access token expired""#
        }
        _ => {
            r#"Bearer realm="api", error="invalid_token", error_description="The access token is not good""#
        }
    }
}
