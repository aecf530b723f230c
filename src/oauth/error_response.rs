//! Responses of a token endpoint that carry no token: what they mean.

use std::{borrow::Cow, time::Duration};

use serde_json::{Map, Value};

use super::{
    dead_grant::DeadGrant,
    error_kind::{is_about_the_request, kind, what_to_do},
    token_response::RawResponse,
    values::{Times, wait},
};
use crate::error::{Recovery, TokenError, TokenErrorKind, is_oauth_code};

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

/// The codes of `CODES` that declare the grant dead.
const DEAD_GRANT_CODES: [&str; 7] = [
    "invalid_grant",
    "invalid_token",
    "expired_token",
    "token_expired",
    "token_revoked",
    "bad_refresh_token",
    "invalid_refresh_token",
];

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
    /// Whether 400 means that the grant is dead, unless a known code says otherwise.
    pub(crate) reauth_on_400: bool,
}

impl VendorErrors {
    /// The standard codes only.
    pub(crate) const NONE: Self = Self {
        codes: &[],
        code_fields: &[],
        wait_fields: &[],
        search_text: false,
        reauth_on_400: false,
    };

    fn is_dead_grant(&self, code: &str) -> bool {
        let vendor = self
            .codes
            .iter()
            .filter(|(_, kind)| *kind == TokenErrorKind::ReauthRequired);
        let mut dead = DEAD_GRANT_CODES.iter().chain(vendor.map(|(code, _)| code));
        dead.any(|known| known.eq_ignore_ascii_case(code))
    }

    pub(super) fn kind_of(&self, code: &str) -> Option<TokenErrorKind> {
        CODES
            .iter()
            .chain(self.codes)
            .find(|(known, _)| known.eq_ignore_ascii_case(code))
            .map(|(_, kind)| *kind)
    }

    /// All codes in the value of an error field.
    fn codes_in<'a>(&self, value: &'a Value) -> Vec<Cow<'a, str>> {
        match value {
            Value::String(text) => Some(text.trim())
                .filter(|code| is_oauth_code(code))
                .map(Cow::Borrowed)
                .into_iter()
                .collect(),
            // A number below 600 repeats the HTTP status.
            Value::Number(number) if number.as_u64().is_some_and(|number| number < 600) => vec![],
            Value::Number(number) => vec![number.to_string().into()],
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

/// The error in a response, whatever its status.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ErrorResponse<'a> {
    /// Not a copy: it may be a secret that the server repeats.
    code: Option<Cow<'a, str>>,
    wait: Option<Duration>,
}

impl<'a> ErrorResponse<'a> {
    /// The error in these fields, if there is one.
    pub(super) fn in_fields(fields: &'a Map<String, Value>, vendor: &VendorErrors) -> Option<Self> {
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
        let codes: Vec<Cow<'_, str>> = errors
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
            code: Some(Cow::Borrowed(code)),
            wait: None,
        })
    }

    pub(super) fn into_error(
        self,
        response: &RawResponse,
        vendor: &VendorErrors,
        dead_grants: &[DeadGrant],
        times: &Times,
    ) -> TokenError {
        let code = self.code.as_deref();
        let known = code.and_then(|code| vendor.kind_of(code));
        let is_dead = is_about_the_request(response.status)
            && (code.is_some_and(|code| vendor.is_dead_grant(code))
                || dead_grants.iter().any(|dead| dead.matches(response)));
        let kind = if is_dead {
            TokenErrorKind::ReauthRequired
        } else {
            kind(response, code, known, vendor)
        };
        let recovery = match kind {
            _ if is_dead => Recovery::Never,
            _ if !is_about_the_request(response.status) => Recovery::Soon,
            TokenErrorKind::RateLimited => Recovery::Soon,
            // From the authorization server, so it has certainly issued no token.
            _ if code.is_some() => Recovery::Slowly,
            _ => Recovery::SlowlyWhenNeeded,
        };
        let mut error = TokenError::new(kind, what_to_do(kind, response, code, known))
            .with_response(response.describe())
            .with_status(response.status)
            .with_recovery(recovery);
        if let Some(code) = code {
            error = error.with_oauth_code(code);
        }
        match self.wait.max(times.retry_after(&response.headers)) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}
