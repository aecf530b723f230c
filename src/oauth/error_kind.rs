//! What kind of error a response of the token endpoint is, and what to do about it.

use std::borrow::Cow;

use http::StatusCode;

use super::{credential::Credential, error_response::VendorErrors, token_response::RawResponse};
use crate::error::{TokenError, TokenErrorKind};

/// Whether the status says something about the request. Otherwise it says "not now".
pub(super) fn is_about_the_request(status: StatusCode) -> bool {
    !status.is_server_error()
        && !matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY
        )
}

/// The status decides if it says "not now". Otherwise a known code decides, and without one again the status.
pub(super) fn kind(
    response: &RawResponse,
    code: Option<&str>,
    known: Option<TokenErrorKind>,
    vendor: &VendorErrors,
) -> TokenErrorKind {
    match (response.status, known) {
        (StatusCode::TOO_MANY_REQUESTS, _) => TokenErrorKind::RateLimited,
        (StatusCode::REQUEST_TIMEOUT, _) => TokenErrorKind::Timeout,
        (status, Some(TokenErrorKind::RateLimited)) if status.is_server_error() => {
            TokenErrorKind::RateLimited
        }
        (status, _) if !is_about_the_request(status) => TokenErrorKind::Server,
        (_, Some(kind)) => kind,
        (StatusCode::BAD_REQUEST, None) if vendor.reauth_on_400 => TokenErrorKind::ReauthRequired,
        (StatusCode::UNAUTHORIZED, None) if code.is_some() || !response.is_web_page() => {
            TokenErrorKind::InvalidClient
        }
        (_, None) if code.is_some() => TokenErrorKind::InvalidRequest,
        (StatusCode::BAD_REQUEST, None) if response.mentions_refresh_token() => {
            TokenErrorKind::ReauthRequired
        }
        (StatusCode::BAD_REQUEST, None) if response.json_object().is_some() => {
            TokenErrorKind::InvalidRequest
        }
        // A page is from something in front of the server, such as a firewall.
        (StatusCode::FORBIDDEN, None) if response.is_web_page() => TokenErrorKind::Server,
        (_, None) => TokenErrorKind::InvalidResponse,
    }
}

pub(super) fn what_to_do(
    kind: TokenErrorKind,
    response: &RawResponse,
    code: Option<&str>,
    known: Option<TokenErrorKind>,
) -> Cow<'static, str> {
    let fixed = match kind {
        TokenErrorKind::ReauthRequired => {
            let Credential { name, remedy } = response.credential;
            return if known.is_some() {
                format!("the server does not accept the {name}: {remedy}").into()
            } else {
                format!(
                    "the server rejected the grant without saying why; most likely it does not accept the {name}: {remedy}"
                )
                .into()
            };
        }
        TokenErrorKind::InvalidClient => {
            "check client id, client secret, and how they are sent (`ClientAuth`)"
        }
        TokenErrorKind::RateLimited => "wait before the next request",
        TokenErrorKind::Timeout => "the server gave up on the request",
        TokenErrorKind::Server if response.status == StatusCode::FORBIDDEN => {
            "something in front of the server, such as a firewall, rejected the request"
        }
        TokenErrorKind::Server => "the server has a problem of its own",
        TokenErrorKind::InvalidResponse
            if matches!(
                response.status,
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
            ) && code.is_none() =>
        {
            "check the token endpoint's URL"
        }
        TokenErrorKind::InvalidResponse => {
            "the response has no error code; is the URL that of the token endpoint?"
        }
        _ if code == Some("invalid_scope") => {
            "check the scope: one is unknown, or not allowed for this client"
        }
        _ => "check the grant, its parameters and the body format",
    };
    fixed.into()
}

/// What the server has rejected in a request.
pub(super) enum Rejected {
    /// The client's authentication.
    Client,
    /// What the grant has sent.
    Grant,
}

impl Rejected {
    /// Without a code the response may be that of a gateway, which hides a rotation.
    pub(super) fn by(error: &TokenError) -> Option<Self> {
        let code = error.oauth_code()?;
        match error.kind() {
            TokenErrorKind::InvalidClient => Some(Self::Client),
            TokenErrorKind::ReauthRequired => Some(Self::Grant),
            // For the tokens of a token exchange (RFC 8693 §2.2.2).
            _ if code == "invalid_request" => Some(Self::Grant),
            _ => None,
        }
    }
}
