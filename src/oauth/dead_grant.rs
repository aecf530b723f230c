//! [`DeadGrant`]: how a server says that a grant is dead, if not in the standard way.

use serde_json::{Map, Value};

use super::token_response::RawResponse;

/// An error response by which a server declares a grant dead, if not with a standard code such as `invalid_grant`.
///
/// After such a response the refresh token is not sent again, and the error
/// [is final](crate::TokenError::is_final). Give it to [`OAuthClient::dead_grant`](super::OAuthClient::dead_grant).
///
/// It describes a JSON object: the response itself, its member `error`, or one of its member `errors`.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{DeadGrant, OAuthClient};
///
/// let client = OAuthClient::new("https://www.strava.com/oauth/token")?.dead_grant(DeadGrant::STRAVA);
///
/// // 403 with {"reason":"SESSION_CLOSED"}
/// let closed = DeadGrant::member("reason", "SESSION_CLOSED").with_status(403);
/// let client = OAuthClient::new("https://login.example.com/token")?.dead_grant(closed);
/// # let _ = client;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadGrant {
    status: Option<u16>,
    first: (&'static str, &'static str),
    second: Option<(&'static str, &'static str)>,
}

impl DeadGrant {
    /// Strava: an error of the resource `RefreshToken` with the code `invalid`.
    pub const STRAVA: Self = Self {
        status: None,
        first: ("resource", "RefreshToken"),
        second: Some(("code", "invalid")),
    };

    /// Facebook: the error code 190.
    pub const FACEBOOK: Self = Self::member("code", "190");

    /// Atlassian: 403 with the code `unauthorized_client`.
    pub const ATLASSIAN: Self = Self::member("error", "unauthorized_client").with_status(403);

    /// A response with this member, whose value is a string or a number.
    #[must_use]
    pub const fn member(name: &'static str, value: &'static str) -> Self {
        Self {
            status: None,
            first: (name, value),
            second: None,
        }
    }

    /// Only if the same object has this member as well.
    #[must_use]
    pub const fn and(self, name: &'static str, value: &'static str) -> Self {
        Self {
            second: Some((name, value)),
            ..self
        }
    }

    /// Only with this status. Default: any of 2xx and 4xx, except 408, 425 and 429.
    #[must_use]
    pub const fn with_status(self, status: u16) -> Self {
        Self {
            status: Some(status),
            ..self
        }
    }

    pub(super) fn matches(&self, response: &RawResponse) -> bool {
        let is_status = |status| status == response.status.as_u16();
        if !self.status.is_none_or(is_status) {
            return false;
        }
        let Some(fields) = response.json_object() else {
            return false;
        };
        let fields = fields.as_map();
        let errors = fields.get("errors").and_then(Value::as_array);
        let errors = errors.into_iter().flatten().chain(fields.get("error"));
        self.is_in(fields) || errors.filter_map(Value::as_object).any(|it| self.is_in(it))
    }

    fn is_in(&self, fields: &Map<String, Value>) -> bool {
        let has = |(name, wanted): (&str, &str)| match fields.get(name) {
            Some(Value::String(value)) => value == wanted,
            Some(Value::Number(value)) => value.to_string() == wanted,
            _ => false,
        };
        has(self.first) && self.second.is_none_or(has)
    }
}
