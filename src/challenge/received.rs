//! [`Challenge`]: what an API asks for.

use std::fmt;

use http::{HeaderMap, header};

use super::parser::{Part, Value, challenges};
use crate::error::is_oauth_code;

/// How long the value of a parameter may be. A longer one is left out.
const MAX_VALUE: usize = 4096;
/// How long `claims` may be: they are JSON in base64.
const MAX_CLAIMS: usize = 8192;
/// How many scopes a challenge may name. With more of them, `scope` is left out.
const MAX_SCOPES: usize = 100;
/// How many challenges of one response are read.
const MAX_CHALLENGES: usize = 16;

/// What an API asks for: the challenge of a response that rejects a token, or that demands a better one.
///
/// | Parameter | Where it is defined |
/// |---|---|
/// | `error`, `scope` | RFC 6750 §3 |
/// | `acr_values`, `max_age` | RFC 9470 §3 |
/// | `resource_metadata` | RFC 9728 §5.1 |
/// | `claims` | Microsoft's claims challenge, for continuous access evaluation |
///
/// The API has written all of it, and an attacker may control the API. [`StepUp`](crate::StepUp) says what of it is followed. A
/// value is left out if it has characters that its definition does not allow, or is longer than 4 KiB (`claims`: 8 KiB). So is
/// a scope of more than 100 names.
///
/// `Debug` shows no value but registered error codes.
///
/// # Examples
///
/// ```
/// use http::Response;
/// use tower_bearer::Challenge;
///
/// let response = Response::builder()
///     .status(403)
///     .header("www-authenticate", r#"Bearer error="insufficient_scope", scope="files:read files:write""#)
///     .body(())?;
///
/// let challenge = Challenge::from_headers(response.headers()).unwrap();
/// assert_eq!(challenge.error(), Some("insufficient_scope"));
/// assert_eq!(challenge.scopes().collect::<Vec<_>>(), ["files:read", "files:write"]);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: Scheme,
    error: Option<Box<str>>,
    scope: Option<Box<str>>,
    resource_metadata: Option<Box<str>>,
    claims: Option<Box<str>>,
    acr_values: Option<Box<str>>,
    max_age: Option<u64>,
    /// A value was too long, and is left out.
    is_cut: bool,
}

/// The schemes whose challenges are read. Of several challenges, one of the lower scheme counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scheme {
    Bearer,
    Dpop,
}

impl Challenge {
    /// The challenge in `WWW-Authenticate`. `None` if there is neither one of the scheme `Bearer` nor one of `DPoP`.
    ///
    /// Of several, `Bearer` comes before `DPoP`, then one with an error before one without, then the first.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut all: Vec<Self> = Vec::new();
        let mut is_ours = false;
        let lines = headers.get_all(header::WWW_AUTHENTICATE).iter();
        for part in lines.flat_map(|line| challenges(line.as_bytes())).flatten() {
            match part {
                Part::Scheme(name) => {
                    let scheme = [(&b"Bearer"[..], Scheme::Bearer), (b"DPoP", Scheme::Dpop)];
                    let scheme = scheme
                        .iter()
                        .find(|(known, _)| name.eq_ignore_ascii_case(known));
                    let scheme = scheme.filter(|_| all.len() < MAX_CHALLENGES);
                    is_ours = scheme.is_some();
                    all.extend(scheme.map(|(_, scheme)| Self::new(*scheme)));
                }
                Part::Param(name, value) if is_ours => {
                    if let Some(challenge) = all.last_mut() {
                        challenge.add(name, value);
                    }
                }
                Part::Param(..) => {}
            }
        }
        all.into_iter()
            .min_by_key(|challenge| (challenge.scheme, challenge.error.is_none()))
    }

    fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            error: None,
            scope: None,
            resource_metadata: None,
            claims: None,
            acr_values: None,
            max_age: None,
            is_cut: false,
        }
    }

    /// Adds a parameter. The first valid one of a name counts (RFC 9110 §11.2 allows no second one).
    fn add(&mut self, name: &[u8], value: Value<'_>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let limit = if is("claims") { MAX_CLAIMS } else { MAX_VALUE };
        let slot = if is("error") {
            &mut self.error
        } else if is("scope") {
            &mut self.scope
        } else if is("resource_metadata") {
            &mut self.resource_metadata
        } else if is("claims") {
            &mut self.claims
        } else if is("acr_values") {
            &mut self.acr_values
        } else if is("max_age") {
            let text = value.text(limit);
            self.max_age = self.max_age.or(text.and_then(|text| text.parse().ok()));
            return;
        } else {
            return;
        };
        if slot.is_some() {
            return;
        }
        let Some(text) = value.text(limit) else {
            self.is_cut |= value.is_longer_than(limit);
            return;
        };
        let is_valid = if is("error") {
            is_oauth_code(&text)
        } else if is("scope") {
            self.is_cut |= text.split(' ').count() > MAX_SCOPES;
            !self.is_cut && is_scope(&text)
        } else {
            !text.is_empty()
        };
        *slot = is_valid.then_some(text);
    }

    /// The scheme: `Bearer` or `DPoP`.
    pub fn scheme(&self) -> &str {
        match self.scheme {
            Scheme::Bearer => "Bearer",
            Scheme::Dpop => "DPoP",
        }
    }

    /// The error code, such as `invalid_token` or `insufficient_scope`.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The scope that the request needs: names with spaces between them.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The names in [`scope`](Self::scope).
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let scope = self.scope().unwrap_or_default();
        scope.split(' ').filter(|name| !name.is_empty())
    }

    /// The URL of the metadata of the API: see [`ProtectedResource`](crate::ProtectedResource), which checks it.
    pub fn resource_metadata(&self) -> Option<&str> {
        self.resource_metadata.as_deref()
    }

    /// The claims that the token must have: JSON in base64, as the API wrote it.
    pub fn claims(&self) -> Option<&str> {
        self.claims.as_deref()
    }

    /// The kinds of authentication of which the user must have used one, in the order in which the API prefers them: names with
    /// spaces between them.
    pub fn acr_values(&self) -> Option<&str> {
        self.acr_values.as_deref()
    }

    /// How many seconds ago the user may have authenticated.
    pub fn max_age(&self) -> Option<u64> {
        self.max_age
    }

    /// Whether a value was left out because it is too long.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }
}

/// RFC 6749 §3.3.
fn is_scope(text: &str) -> bool {
    let is_allowed = |b: u8| b == b' ' || (b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
    text.bytes().all(is_allowed) && text.bytes().any(|b| b != b' ')
}

/// The codes that `Debug` shows. Any other text may repeat a secret.
const REGISTERED: [&str; 6] = [
    "invalid_request",
    "invalid_token",
    "insufficient_scope",
    "insufficient_user_authentication",
    "insufficient_claims",
    "use_dpop_nonce",
];

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.error().map(|error| {
            let known = REGISTERED.iter().find(|known| **known == error);
            known.copied().unwrap_or("another")
        });
        f.debug_struct("Challenge")
            .field("scheme", &self.scheme)
            .field("error", &error)
            .field("scopes", &self.scopes().count())
            .field("has_resource_metadata", &self.resource_metadata.is_some())
            .field("has_claims", &self.claims.is_some())
            .field("has_acr_values", &self.acr_values.is_some())
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
