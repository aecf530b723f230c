//! What a server means when it gives no token.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use super::{
    token_response::Answer,
    values::{Times, penalty},
};
use crate::error::{TokenError, TokenErrorKind};

/// What the codes mean that servers give, standard (RFC 6749 §5.2, RFC 6750 §3.1, RFC 8628 §3.5) and seen in the wild.
const CODES: &[(&str, TokenErrorKind)] = {
    use TokenErrorKind::{InvalidClient, InvalidRequest, RateLimited, ReauthRequired, Server};
    &[
        ("invalid_grant", ReauthRequired),
        ("invalid_token", ReauthRequired),
        ("auth.token_error", ReauthRequired),
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
        ("auth.request_limit_exceeded", RateLimited),
        ("temporarily_unavailable", Server),
        ("server_error", Server),
        ("internal_failure", Server),
    ]
};

/// Where an error is told, when it isn't in `error` itself.
const CODE_FIELDS: [&str; 5] = ["code", "status", "error", "type", "error_message_id"];

/// An error that the server told, whatever the status it came with.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rejection {
    code: Option<String>,
    penalty: Option<Duration>,
}

fn kind_of(code: &str) -> Option<TokenErrorKind> {
    CODES
        .iter()
        .find(|known| known.0.eq_ignore_ascii_case(code))
        .map(|known| known.1)
}

/// Whether a field says something, and not just that there is nothing to say.
fn tells(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(told) => *told,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => items.iter().any(tells),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// All that may be a code in what `error` or one of `errors` holds.
fn codes(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned())
            .filter(|code| is_code(code))
            .into_iter()
            .collect(),
        // A number below 600 is the status once more, which says no more than the status.
        Value::Number(number) if number.as_u64().is_some_and(|number| number < 600) => vec![],
        Value::Number(number) => vec![number.to_string()],
        Value::Array(items) => items
            .iter()
            .filter(|item| !item.is_array())
            .flat_map(codes)
            .collect(),
        Value::Object(fields) => CODE_FIELDS
            .iter()
            .filter_map(|name| fields.get(*name))
            .filter(|value| tells(value) && !value.is_object() && !value.is_array())
            .chain(known_message(fields))
            .flat_map(codes)
            .collect(),
        Value::Null | Value::Bool(_) => vec![],
    }
}

/// Whether this is an identifier, and not prose such as "Bad Request".
fn is_code(text: &str) -> bool {
    TokenError::new(TokenErrorKind::Server, "")
        .with_oauth_code(text)
        .oauth_code()
        .is_some()
}

/// A message is prose, unless it is a code we know.
fn known_message(fields: &Map<String, Value>) -> Option<&Value> {
    fields.get("message").filter(|message| {
        message
            .as_str()
            .is_some_and(|message| kind_of(message).is_some())
    })
}

fn penalties(value: &Value) -> Option<Duration> {
    match value {
        Value::Array(items) => items.iter().filter_map(penalties).max(),
        Value::Object(fields) => fields.get("penaltySeconds").and_then(penalty),
        _ => None,
    }
}

impl Rejection {
    /// The error told in these fields, if one is.
    pub(super) fn told(fields: &Map<String, Value>) -> Option<Self> {
        let told: Vec<&Value> = ["error", "error_message_id", "errors"]
            .iter()
            .filter_map(|name| fields.get(*name))
            .filter(|value| tells(value))
            .collect();
        let message = known_message(fields);
        if told.is_empty() && message.is_none() {
            return None;
        }
        let codes: Vec<String> = told
            .iter()
            .copied()
            .chain(message)
            .flat_map(codes)
            .collect();
        let known = codes
            .iter()
            .position(|code| kind_of(code).is_some())
            .unwrap_or(0);
        let whole = fields.get("penaltySeconds").and_then(penalty);
        Some(Self {
            code: codes.into_iter().nth(known),
            penalty: told
                .iter()
                .filter_map(|value| penalties(value))
                .chain(whole)
                .max(),
        })
    }

    /// The error named in an answer with no fields that could be read: Xoxoday prints what is no JSON.
    pub(super) fn named_in(body: &[u8]) -> Option<Self> {
        ["auth.request_limit_exceeded", "auth.token_error"]
            .into_iter()
            .find(|code| {
                body.windows(code.len())
                    .any(|window| window == code.as_bytes())
            })
            .map(|code| Self {
                code: Some(code.to_owned()),
                penalty: None,
            })
    }

    /// The error for our caller. The status rules where it says "not now"; else the code rules, if we know it; else
    /// again the status.
    pub(super) fn into_error(self, answer: &Answer, times: &Times) -> TokenError {
        let code = self.code.as_deref();
        let told = code.and_then(kind_of);
        let kind = judge(answer, code, told);
        let mut error = TokenError::new(kind, explain(kind, answer, code, told))
            .with_answer(answer.describe())
            .with_status(answer.status);
        if let Some(code) = code {
            error = error.with_oauth_code(code);
        }
        match self.penalty.max(times.retry_after(&answer.headers)) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}

fn judge(answer: &Answer, code: Option<&str>, told: Option<TokenErrorKind>) -> TokenErrorKind {
    let status = answer.status;
    match (status, told) {
        (StatusCode::TOO_MANY_REQUESTS, _) => TokenErrorKind::RateLimited,
        (StatusCode::REQUEST_TIMEOUT, _) => TokenErrorKind::Timeout,
        (StatusCode::TOO_EARLY, _) => TokenErrorKind::Server,
        // A server in trouble may blame any request; a grant or client it names is believed all the same.
        (_, Some(TokenErrorKind::InvalidRequest)) if status.is_server_error() => {
            TokenErrorKind::Server
        }
        (_, Some(kind)) => kind,
        (_, None) if status.is_server_error() => TokenErrorKind::Server,
        (_, None) if !status.is_client_error() && code.is_none() => TokenErrorKind::InvalidResponse,
        (StatusCode::UNAUTHORIZED, None) => TokenErrorKind::InvalidClient,
        (StatusCode::BAD_REQUEST, None) if code.is_none() => TokenErrorKind::ReauthRequired,
        // A page, where the server itself would have told a code: a firewall, which may think otherwise later.
        (StatusCode::FORBIDDEN, None) if code.is_none() && answer.is_page() => {
            TokenErrorKind::Server
        }
        (_, None) => TokenErrorKind::InvalidRequest,
    }
}

fn explain(
    kind: TokenErrorKind,
    answer: &Answer,
    code: Option<&str>,
    told: Option<TokenErrorKind>,
) -> &'static str {
    match kind {
        TokenErrorKind::ReauthRequired if told.is_none() => {
            "the server rejected the grant without saying why; most likely the refresh or exchange token is no longer \
             good: log in again, or bring a new one"
        }
        TokenErrorKind::ReauthRequired => {
            "the refresh or exchange token is no longer good: log in again, or bring a new one"
        }
        TokenErrorKind::InvalidClient => {
            "check client id, client secret, and the way they are sent (`ClientAuth`)"
        }
        TokenErrorKind::RateLimited => "wait before asking again",
        TokenErrorKind::Timeout => "the server gave up on the request",
        TokenErrorKind::Server if answer.status == StatusCode::FORBIDDEN => {
            "something before the server, such as a firewall, rejected the request"
        }
        TokenErrorKind::Server => "the server has trouble of its own",
        TokenErrorKind::InvalidResponse => "the server told an error, and not which",
        _ if matches!(
            answer.status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        ) && code.is_none() =>
        {
            "check the token endpoint's URL"
        }
        _ => "check the grant, its parameters and the body format",
    }
}
