//! Responses of a token endpoint that carry no token: what they mean.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use super::{
    token_response::RawResponse,
    values::{Times, wait},
};
use crate::error::{TokenError, TokenErrorKind};

/// The standard codes (RFC 6749 §5.2, RFC 6750 §3.1, RFC 8628 §3.5), and codes that several servers use.
const CODES: &[(&str, TokenErrorKind)] = {
    use TokenErrorKind::{InvalidClient, InvalidRequest, RateLimited, ReauthRequired, Server};
    &[
        ("invalid_grant", ReauthRequired),
        ("invalid_token", ReauthRequired),
        ("expired_token", ReauthRequired),
        ("token_expired", ReauthRequired),
        ("token_revoked", ReauthRequired),
        ("bad_refresh_token", ReauthRequired),
        ("invalid_refresh_token", ReauthRequired),
        ("interaction_required", ReauthRequired),
        ("login_required", ReauthRequired),
        ("consent_required", ReauthRequired),
        ("invalid_client", InvalidClient),
        ("invalid_client_id", InvalidClient),
        ("bad_client_secret", InvalidClient),
        ("incorrect_client_credentials", InvalidClient),
        ("unauthorized_client", InvalidRequest),
        ("unsupported_grant_type", InvalidRequest),
        ("invalid_scope", InvalidRequest),
        ("invalid_request", InvalidRequest),
        ("slow_down", RateLimited),
        ("rate_limited", RateLimited),
        ("rate_limit_exceeded", RateLimited),
        ("too_many_requests", RateLimited),
        ("temporarily_unavailable", Server),
        ("server_error", Server),
        ("internal_failure", Server),
    ]
};

/// Top-level fields that hold an error.
const ERROR_FIELDS: [&str; 2] = ["error", "errors"];

/// Fields that hold the code of an error that is an object.
const CODE_FIELDS: [&str; 4] = ["code", "status", "error", "type"];

/// What the error responses of a vendor have beside the standard ones. Presets give it to
/// [`OAuthClient::vendor_errors`](super::OAuthClient::vendor_errors).
#[derive(Debug)]
pub(crate) struct VendorErrors {
    /// Codes and what they mean.
    pub(crate) codes: &'static [(&'static str, TokenErrorKind)],
    /// Fields that hold a code, at the top or in an error object.
    pub(crate) code_fields: &'static [&'static str],
    /// Fields that hold a number of seconds to wait, at the top or in an error object.
    pub(crate) wait_fields: &'static [&'static str],
    /// Whether a body that is neither JSON nor a form is searched for the codes.
    pub(crate) search_text: bool,
}

impl VendorErrors {
    /// The standard codes only.
    pub(crate) const NONE: Self = Self {
        codes: &[],
        code_fields: &[],
        wait_fields: &[],
        search_text: false,
    };

    pub(super) fn kind_of(&self, code: &str) -> Option<TokenErrorKind> {
        CODES
            .iter()
            .chain(self.codes)
            .find(|(known, _)| known.eq_ignore_ascii_case(code))
            .map(|(_, kind)| *kind)
    }

    /// All codes in the value of an error field.
    fn codes_in(&self, value: &Value) -> Vec<String> {
        match value {
            Value::String(text) => Some(text.trim().to_owned())
                .filter(|code| is_code(code))
                .into_iter()
                .collect(),
            // A number below 600 repeats the HTTP status.
            Value::Number(number) if number.as_u64().is_some_and(|number| number < 600) => vec![],
            Value::Number(number) => vec![number.to_string()],
            Value::Array(items) => items
                .iter()
                .filter(|item| !item.is_array())
                .flat_map(|item| self.codes_in(item))
                .collect(),
            Value::Object(fields) => CODE_FIELDS
                .iter()
                .chain(self.code_fields)
                .filter_map(|name| fields.get(*name))
                .filter(|value| is_present(value) && !value.is_object() && !value.is_array())
                .chain(self.code_in_message(fields))
                .flat_map(|value| self.codes_in(value))
                .collect(),
            Value::Null | Value::Bool(_) => vec![],
        }
    }

    /// `message`, if it is a known code. Usually it is prose.
    fn code_in_message<'a>(&self, fields: &'a Map<String, Value>) -> Option<&'a Value> {
        fields.get("message").filter(|message| {
            message
                .as_str()
                .is_some_and(|message| self.kind_of(message).is_some())
        })
    }

    /// The longest wait in the value of an error field.
    fn wait_in(&self, value: &Value) -> Option<Duration> {
        match value {
            Value::Array(items) => items.iter().filter_map(|item| self.wait_in(item)).max(),
            Value::Object(fields) => self.wait_at(fields),
            _ => None,
        }
    }

    fn wait_at(&self, fields: &Map<String, Value>) -> Option<Duration> {
        self.wait_fields
            .iter()
            .filter_map(|name| fields.get(*name).and_then(wait))
            .max()
    }
}

/// Whether a field says something: neither null, false, zero nor empty.
fn is_present(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => items.iter().any(is_present),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Whether this is an identifier, and not prose such as "Bad Request".
fn is_code(text: &str) -> bool {
    TokenError::new(TokenErrorKind::Server, "")
        .with_oauth_code(text)
        .oauth_code()
        .is_some()
}

/// The error in a response, whatever its status.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ErrorResponse {
    code: Option<String>,
    wait: Option<Duration>,
}

impl ErrorResponse {
    /// The error in these fields, if there is one.
    pub(super) fn in_fields(fields: &Map<String, Value>, vendor: &VendorErrors) -> Option<Self> {
        let errors: Vec<&Value> = ERROR_FIELDS
            .iter()
            .chain(vendor.code_fields)
            .filter_map(|name| fields.get(*name))
            .filter(|value| is_present(value))
            .collect();
        let message = vendor.code_in_message(fields);
        if errors.is_empty() && message.is_none() {
            return None;
        }
        let codes: Vec<String> = errors
            .iter()
            .copied()
            .chain(message)
            .flat_map(|value| vendor.codes_in(value))
            .collect();
        let known = codes
            .iter()
            .position(|code| vendor.kind_of(code).is_some())
            .unwrap_or(0);
        Some(Self {
            code: codes.into_iter().nth(known),
            wait: errors
                .iter()
                .filter_map(|value| vendor.wait_in(value))
                .chain(vendor.wait_at(fields))
                .max(),
        })
    }

    /// The vendor's code in a body that is neither JSON nor a form.
    pub(super) fn in_text(body: &[u8], vendor: &VendorErrors) -> Option<Self> {
        let is_in_body = |code: &str| {
            body.windows(code.len())
                .any(|window| window == code.as_bytes())
        };
        let (code, _) = vendor
            .codes
            .iter()
            .find(|(code, _)| vendor.search_text && is_in_body(code))?;
        Some(Self {
            code: Some((*code).to_owned()),
            wait: None,
        })
    }

    pub(super) fn into_error(
        self,
        response: &RawResponse,
        vendor: &VendorErrors,
        times: &Times,
    ) -> TokenError {
        let code = self.code.as_deref();
        let known = code.and_then(|code| vendor.kind_of(code));
        let kind = kind(response, code, known);
        let mut error = TokenError::new(kind, what_to_do(kind, response, code, known))
            .with_answer(response.describe())
            .with_status(response.status);
        if let Some(code) = code {
            error = error.with_oauth_code(code);
        }
        match self.wait.max(times.retry_after(&response.headers)) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}

/// The status decides if it says "not now". Otherwise a known code decides, and without one again the status.
fn kind(
    response: &RawResponse,
    code: Option<&str>,
    known: Option<TokenErrorKind>,
) -> TokenErrorKind {
    let status = response.status;
    match (status, known) {
        (StatusCode::TOO_MANY_REQUESTS, _) => TokenErrorKind::RateLimited,
        (StatusCode::REQUEST_TIMEOUT, _) => TokenErrorKind::Timeout,
        (StatusCode::TOO_EARLY, _) => TokenErrorKind::Server,
        // A failing server may blame the request. It is still believed about the grant and the client.
        (_, Some(TokenErrorKind::InvalidRequest)) if status.is_server_error() => {
            TokenErrorKind::Server
        }
        (_, Some(kind)) => kind,
        (_, None) if status.is_server_error() => TokenErrorKind::Server,
        (_, None) if !status.is_client_error() && code.is_none() => TokenErrorKind::InvalidResponse,
        (StatusCode::UNAUTHORIZED, None) => TokenErrorKind::InvalidClient,
        (StatusCode::BAD_REQUEST, None) if code.is_none() => TokenErrorKind::ReauthRequired,
        // The server itself would have sent a code. A web page is from a firewall, which may let the next request pass.
        (StatusCode::FORBIDDEN, None) if code.is_none() && response.is_web_page() => {
            TokenErrorKind::Server
        }
        (_, None) => TokenErrorKind::InvalidRequest,
    }
}

fn what_to_do(
    kind: TokenErrorKind,
    response: &RawResponse,
    code: Option<&str>,
    known: Option<TokenErrorKind>,
) -> &'static str {
    match kind {
        TokenErrorKind::ReauthRequired if known.is_none() => {
            "the server rejected the grant without saying why; most likely the refresh or exchange token is no longer \
             valid: log in again, or configure a new one"
        }
        TokenErrorKind::ReauthRequired => {
            "the refresh or exchange token is no longer valid: log in again, or configure a new one"
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
        TokenErrorKind::InvalidResponse => "the server reported an error without a code",
        _ if matches!(
            response.status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        ) && code.is_none() =>
        {
            "check the token endpoint's URL"
        }
        _ => "check the grant, its parameters and the body format",
    }
}
