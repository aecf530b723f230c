//! [`RejectionResponse`]: how an API rejects a request.

use http::{HeaderValue, Response, StatusCode, header};

use super::{body::ResponseBody, faults::with_status, responses, rules::Invalid};

/// The response of a [`ProtectedApi`](super::ProtectedApi) to a request that it rejects.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower::ServiceExt;
/// use tower_bearer::testing::{AuthorizationServer, Dialect, RejectionResponse};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let server = AuthorizationServer::new(Dialect::Rfc6749);
/// let api = server.api().rejection_response(RejectionResponse::GrpcUnauthenticated);
/// let response = api.oneshot(Request::get("/").body(String::new())?).await?;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.headers()["grpc-status"], "16");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionResponse {
    /// 401 with a `Bearer` challenge. It has `error="invalid_token"` if the request had a token, and no error otherwise
    /// (RFC 6750 §3.1).
    #[default]
    InvalidToken,
    /// 401 without a challenge.
    Unauthorized,
    /// 403 with the challenge `error="insufficient_scope"`. A new token does not help.
    InsufficientScope,
    /// 403 without a challenge.
    Forbidden,
    /// gRPC's `UNAUTHENTICATED`: status 200, `content-type: application/grpc`, `grpc-status: 16` in the headers, no
    /// body. With this setting, the responses to accepted requests end with the trailer `grpc-status: 0`.
    GrpcUnauthenticated,
    /// Xoxoday's way: status 200, and `auth.token_error` in a JSON body.
    XoxodayTokenError,
}

impl RejectionResponse {
    pub(super) fn response(self, why: Option<Invalid>) -> Response<ResponseBody> {
        let (status, fields): (_, &[_]) = match (self, why) {
            (Self::InvalidToken, None) => (
                StatusCode::UNAUTHORIZED,
                &[(header::WWW_AUTHENTICATE, r#"Bearer realm="api""#)],
            ),
            (Self::InvalidToken, Some(why)) => (
                StatusCode::UNAUTHORIZED,
                &[(header::WWW_AUTHENTICATE, challenge(why))],
            ),
            (Self::Unauthorized, _) => (StatusCode::UNAUTHORIZED, &[]),
            (Self::InsufficientScope, _) => (
                StatusCode::FORBIDDEN,
                &[(
                    header::WWW_AUTHENTICATE,
                    r#"Bearer realm="api", error="insufficient_scope", scope="write""#,
                )],
            ),
            (Self::Forbidden, _) => (StatusCode::FORBIDDEN, &[]),
            (Self::GrpcUnauthenticated, _) => (
                StatusCode::OK,
                &[
                    (header::CONTENT_TYPE, "application/grpc"),
                    (header::HeaderName::from_static("grpc-status"), "16"),
                ],
            ),
            (Self::XoxodayTokenError, _) => {
                return responses::object(StatusCode::OK, &responses::token_error());
            }
        };
        let mut response = with_status(status, ResponseBody::empty());
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

fn challenge(why: Invalid) -> &'static str {
    match why {
        Invalid::Expired => {
            r#"Bearer realm="api", error="invalid_token", error_description="The access token expired""#
        }
        _ => {
            r#"Bearer realm="api", error="invalid_token", error_description="The access token is not valid""#
        }
    }
}
