//! The lenient parser of token responses (RFC 6749 §5): a pure function of bytes and clock readings.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{
    credential::Credential,
    dead_grant::DeadGrant,
    error_response::{ErrorResponse, VendorErrors},
    fields::{fields, has_replaced_character, is_json_object},
    values::{Times, seconds, time},
};
use crate::{
    clock::Now,
    error::{Recovery, TokenError, TokenErrorKind},
    store::NewTokens,
    token::{Expiry, ExtraMembers, Token, TokenDetails},
};

const RELATIVE: &[&str] = &["expires_in", "expires"];
const ABSOLUTE: &[&str] = &["expires_on", "expires_at", "access_token_expiry", "expires"];
const REFRESH_RELATIVE: &[&str] = &[
    "refresh_token_expires_in",
    "refresh_expires_in",
    "x_refresh_token_expires_in",
];
const REFRESH_ABSOLUTE: &[&str] = &["refresh_token_expiry", "refresh_token_expires_at"];

/// A longer lifetime is taken for a mistake of the server if the response also has an absolute time.
const IMPLAUSIBLE_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The response of a token endpoint, its body read up to a limit.
pub(super) struct RawResponse {
    /// The URL of the endpoint, for messages.
    pub(super) endpoint: String,
    /// What was sent to it, for messages.
    pub(super) credential: Credential,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The limit, if the body was longer and is incomplete.
    pub(super) cut_at: Option<usize>,
    /// Why the end of the body did not arrive.
    pub(super) broken: Option<TokenError>,
}

/// A successful token response.
#[derive(Debug)]
pub(crate) struct TokenResponse {
    /// The access token, or why it cannot be used. Its lifetime counts from when the request was sent.
    ///
    /// An error here still leaves a refresh token: the session would be lost without it.
    pub(crate) token: Result<Token, TokenError>,
    /// The new refresh token. `None` means that the old one stays valid.
    pub(crate) refresh_token: Option<SecretString>,
    /// The lifetime of the access token, counted from when the request was sent.
    pub(crate) lifetime: Option<Duration>,
    /// When the access token expires, by our wall clock.
    pub(crate) expires_at: Option<SystemTime>,
    /// When the refresh token expires, by our wall clock.
    pub(crate) refresh_expires_at: Option<SystemTime>,
}

impl From<TokenResponse> for NewTokens {
    fn from(response: TokenResponse) -> Self {
        Self {
            token: response.token.ok(),
            expires_at: response.expires_at,
            lifetime: response.lifetime,
            refresh_token: response.refresh_token,
            refresh_expires_at: response.refresh_expires_at,
        }
    }
}

impl RawResponse {
    /// Finds the token, or the reason why there is none.
    ///
    /// `sent` was read right before the request was sent, `received` when the response was complete.
    pub(super) fn parse(
        &self,
        vendor: &VendorErrors,
        dead_grants: &[DeadGrant],
        sent: Now,
        received: SystemTime,
    ) -> Result<TokenResponse, TokenError> {
        let times = Times::new(&self.headers, sent, received);
        if self.status.is_redirection() {
            return Err(self.error(
                TokenErrorKind::InvalidResponse,
                "a redirect, which is never followed because it would post the secrets again; if the token endpoint \
                 has moved, set its final URL",
            ));
        }
        let fields = self.fields();
        if fields.is_none() {
            if let Some(broken) = &self.broken {
                return Err(broken.clone());
            }
            if let Some(encoded) = self.encoded(&times) {
                return Err(encoded);
            }
        }
        let error = match &fields {
            Some(fields) => ErrorResponse::in_fields(fields.as_map(), vendor),
            None => ErrorResponse::in_text(&self.body, vendor),
        };
        if let Some(error) = error {
            return Err(error.into_error(self, vendor, dead_grants, &times));
        }
        if !self.status.is_success() {
            return Err(ErrorResponse::default().into_error(self, vendor, dead_grants, &times));
        }
        if let Some(limit) = self.cut_at {
            return Err(self.error(
                TokenErrorKind::InvalidResponse,
                format!("a response longer than the limit of {limit} bytes; if it is genuine, raise `max_response_size`"),
            ));
        }
        let Some(fields) = fields else {
            return Err(self.error(
                TokenErrorKind::InvalidResponse,
                "success, with a body that is neither a JSON object nor a form",
            ));
        };
        self.token_response(fields.as_map(), &times)
    }

    fn token_response(
        &self,
        fields: &Map<String, Value>,
        times: &Times,
    ) -> Result<TokenResponse, TokenError> {
        let lifetime = lifetime(fields, times);
        let refresh_token = non_empty(fields, "refresh_token")
            .filter(|refresh_token| {
                let is_usable = !has_replaced_character(refresh_token);
                if !is_usable {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        "the new refresh token is not valid UTF-8, keeping the old one"
                    );
                }
                is_usable
            })
            .map(SecretString::from);
        let token = match self.access_token(fields, lifetime, times) {
            Err(error) if refresh_token.is_none() => return Err(error),
            token => token,
        };
        Ok(TokenResponse {
            token,
            refresh_token,
            lifetime,
            expires_at: lifetime.map(|lifetime| times.sent.wall + lifetime),
            refresh_expires_at: refresh_lifetime(fields, times)
                .map(|lifetime| times.sent.wall + lifetime),
        })
    }

    fn access_token(
        &self,
        fields: &Map<String, Value>,
        lifetime: Option<Duration>,
        times: &Times,
    ) -> Result<Token, TokenError> {
        let access_token = non_empty(fields, "access_token")
            .map(without_scheme)
            .filter(|token| !token.is_empty());
        let Some(access_token) = access_token else {
            return Err(self.error(
                TokenErrorKind::InvalidResponse,
                "success, without an `access_token`",
            ));
        };
        if let Some(scheme) = non_empty(fields, "token_type").and_then(unsupported) {
            return Err(self.error(
                TokenErrorKind::Config,
                format!(
                    "the token is of type {scheme}, and only bearer tokens are supported; \
                     register the client for bearer tokens"
                ),
            ));
        }
        let mut token = Token::new(access_token).map_err(|error| {
            error
                .with_status(self.status)
                .with_recovery(Recovery::SlowlyWhenNeeded)
        })?;
        if let Some(lifetime) = lifetime {
            let from = times.sent;
            token = token.expiry(Expiry::Counted { from, lifetime });
        }
        Ok(token.with_details(details(fields)))
    }

    /// The members, if the body is a JSON object.
    pub(super) fn json_object(&self) -> Option<ExtraMembers> {
        self.fields().filter(|_| is_json_object(&self.body))
    }

    /// Whether the text speaks of a refresh token. It may be prose, in whatever member.
    pub(super) fn mentions_refresh_token(&self) -> bool {
        let is_letter = |(b, wanted): (&u8, &u8)| match wanted {
            b' ' => matches!(b, b' ' | b'_' | b'-'),
            _ => b.eq_ignore_ascii_case(wanted),
        };
        let mention = b"refresh token";
        let is_mention = |text: &[u8]| text.iter().zip(mention).all(is_letter);
        self.json_object().is_some() && self.body.windows(mention.len()).any(is_mention)
    }

    /// The fields of the body, if all of them have arrived.
    fn fields(&self) -> Option<ExtraMembers> {
        match self.cut_at {
            Some(_) => None,
            None => fields(&self.body, self.broken.is_none()),
        }
    }

    /// The encoding of a body that could not be decoded.
    fn encoding(&self) -> Option<&'static str> {
        let encodings = self.headers.get(CONTENT_ENCODING)?.to_str().ok()?;
        let last = encodings.rsplit(',').next()?.trim();
        let known = [
            ("identity", None),
            ("", None),
            ("gzip", Some("`gzip`")),
            ("x-gzip", Some("`gzip`")),
            ("br", Some("`br`")),
            ("zstd", Some("`zstd`")),
            ("deflate", Some("`deflate`")),
            ("compress", Some("`compress`")),
        ];
        known
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(last))
            .map_or(Some("of an unknown name"), |(_, shown)| *shown)
    }

    /// The error of a body that is encoded in a way that was not asked for, unless the status alone says enough.
    fn encoded(&self, times: &Times) -> Option<TokenError> {
        let encoding = self.encoding()?;
        let says_enough = self.status.is_server_error()
            || matches!(
                self.status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
        if says_enough || self.cut_at.is_some() || self.body.is_empty() {
            return None;
        }
        let error = self.error(
            TokenErrorKind::InvalidResponse,
            format!(
                "its body has a content encoding {encoding} that was not asked for and cannot be decoded; \
                 turn off compression for the token endpoint, or decode it in the transport"
            ),
        );
        Some(match times.retry_after(&self.headers) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        })
    }

    /// Whether this is a web page, and so not from an OAuth endpoint.
    pub(super) fn is_web_page(&self) -> bool {
        self.media_type()
            .is_some_and(|media_type| media_type.contains("html"))
            || self.is_markup()
    }

    pub(super) fn is_markup(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    fn media_type(&self) -> Option<String> {
        let value = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let media_type = value.split(';').next()?.trim().to_ascii_lowercase();
        let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+' | b'-' | b'.');
        (media_type.len() <= 64 && media_type.bytes().all(token)).then_some(media_type)
    }

    /// Describes the response without its text, which may hold secrets.
    pub(super) fn describe(&self) -> String {
        let media_type = self
            .media_type()
            .filter(|media_type| !media_type.is_empty());
        let media_type = media_type.as_deref().unwrap_or("no content type");
        let endpoint = &self.endpoint;
        match (self.cut_at, self.body.len()) {
            (Some(limit), _) => {
                format!("{endpoint} answered {media_type}, more than {limit} bytes")
            }
            (None, 0) => format!("{endpoint} answered {media_type}, empty"),
            (None, length) => format!("{endpoint} answered {media_type}, {length} bytes"),
        }
    }

    fn error(&self, kind: TokenErrorKind, what: impl Into<Cow<'static, str>>) -> TokenError {
        TokenError::new(kind, what)
            .with_response(self.describe())
            .with_status(self.status)
            .with_recovery(Recovery::SlowlyWhenNeeded)
    }
}

fn non_empty<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields
        .get(name)?
        .as_str()
        .filter(|text| !text.trim().is_empty())
}

/// Some servers write `Bearer` before the token, as the header does.
fn without_scheme(access_token: &str) -> &str {
    match access_token.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => access_token,
    }
}

/// Token types that are not bearer tokens. Any other name is treated as Bearer: servers leave the type out or invent one.
fn unsupported(token_type: &str) -> Option<&'static str> {
    ["DPoP", "mac", "pop"]
        .into_iter()
        .find(|scheme| scheme.eq_ignore_ascii_case(token_type.trim()))
}

fn first<T>(
    fields: &Map<String, Value>,
    names: &[&str],
    read: impl Fn(&Value) -> Option<T>,
) -> Option<T> {
    names
        .iter()
        .find_map(|name| fields.get(*name).and_then(&read))
}

/// A relative lifetime is preferred, because it depends on no clock.
fn lifetime(fields: &Map<String, Value>, times: &Times) -> Option<Duration> {
    let absolute = first(fields, ABSOLUTE, time).map(|end| times.until(end));
    match first(fields, RELATIVE, seconds) {
        Some(relative) if relative <= IMPLAUSIBLE_LIFETIME => Some(relative),
        relative => absolute.or(relative),
    }
}

/// Zero means that the refresh token does not expire: Keycloak writes it so.
fn refresh_lifetime(fields: &Map<String, Value>, times: &Times) -> Option<Duration> {
    first(fields, REFRESH_RELATIVE, seconds)
        .filter(|lifetime| !lifetime.is_zero())
        .or_else(|| first(fields, REFRESH_ABSOLUTE, time).map(|end| times.until(end)))
}

/// A string (RFC 6749 §3.3), or an array of strings.
fn scope(fields: &Map<String, Value>) -> Option<String> {
    let scope = match fields.get("scope")? {
        Value::String(scope) => scope.trim().to_owned(),
        Value::Array(parts) => {
            let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
            parts.join(" ")
        }
        _ => return None,
    };
    (!scope.is_empty()).then_some(scope)
}

/// The members that stay with the token. Others are its secret, belong to the session, or are times of expiry.
fn details(fields: &Map<String, Value>) -> TokenDetails {
    let is_interpreted = |name: &str| {
        let own = [
            "access_token",
            "refresh_token",
            "token_type",
            "scope",
            "id_token",
        ];
        [
            &own[..],
            RELATIVE,
            ABSOLUTE,
            REFRESH_RELATIVE,
            REFRESH_ABSOLUTE,
        ]
        .iter()
        .any(|names| names.contains(&name))
    };
    let mut details = TokenDetails {
        token_type: non_empty(fields, "token_type").map(|it| it.trim().into()),
        scope: scope(fields).map(Into::into),
        id_token: non_empty(fields, "id_token").map(Into::into),
        ..TokenDetails::default()
    };
    for (name, value) in fields {
        if !is_interpreted(name) {
            details.extra.insert(name.clone(), value.clone());
        }
    }
    details
}

#[cfg(test)]
mod tests;
