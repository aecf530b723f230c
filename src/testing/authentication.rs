//! How clients of an [`AuthorizationServer`](super::AuthorizationServer) authenticate, and which assertions it accepts.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};

#[cfg(feature = "jwt")]
use super::{assertion::VerifyingKey, verification};
use super::{
    dialect::{Dialect, Rejected, decode, is_encoded},
    params::Params,
    recorded::RecordedRequest,
    server::State,
    settings::Settings,
};

/// `client_assertion_type` of a JSON Web Token (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What the client is registered with.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    /// A public client.
    None,
    Secret(String),
    #[cfg(feature = "jwt")]
    Key(VerifyingKey),
}

impl Credential {
    /// Whether a client that sends this secret is known by it. None is an empty one (RFC 6749 §2.3.1).
    fn is_known_by(&self, secret: &str) -> bool {
        match self {
            Self::None => secret.is_empty(),
            Self::Secret(known) => secret == known,
            #[cfg(feature = "jwt")]
            Self::Key(_) => false,
        }
    }

    /// The names of the methods that it allows (RFC 8414 §2), and of the algorithms of signed assertions.
    pub(super) fn methods(&self) -> (Vec<&str>, Vec<&str>) {
        match self {
            Self::None => (vec!["none"], vec![]),
            #[cfg(not(feature = "jwt"))]
            Self::Secret(_) => (vec!["client_secret_basic", "client_secret_post"], vec![]),
            #[cfg(feature = "jwt")]
            Self::Secret(_) => (
                vec![
                    "client_secret_basic",
                    "client_secret_post",
                    "client_secret_jwt",
                ],
                vec!["HS256"],
            ),
            #[cfg(feature = "jwt")]
            Self::Key(key) => (vec!["private_key_jwt"], vec![key.algorithm()]),
        }
    }
}

const WRONG_SECRET: Rejected = Rejected::WrongClient("the client is unknown, or its secret wrong");

impl State {
    /// Checks how the client authenticates, which must be in the dialect's way and in no other.
    pub(super) fn authenticate(
        &mut self,
        request: &RecordedRequest,
        params: &Params,
    ) -> Result<(), Rejected> {
        let is_standard = self.settings.dialect == Dialect::Rfc6749;
        if !is_standard || !params.any(|name| name.starts_with("client_assertion")) {
            return check_secret(&self.settings, &request.headers, params);
        }
        let has_secret = params.get("client_secret").is_some();
        if has_secret || request.headers.contains_key(header::AUTHORIZATION) {
            return Err(TWO_WAYS);
        }
        let assertion = params.required("client_assertion")?;
        if params.get("client_assertion_type") != Some(JWT_BEARER) {
            return Err(Rejected::WrongClient("unknown `client_assertion_type`"));
        }
        let id = &self.settings.client_id;
        if params.get("client_id").is_some_and(|sent| sent != id) {
            return Err(Rejected::WrongClient("`client_id` is not the subject"));
        }
        if self.settings.client_assertions.contains(assertion) {
            return Ok(());
        }
        verification::verify_client(self, request, assertion).map_err(Rejected::WrongClient)
    }

    /// Checks the assertion of a JWT bearer grant (RFC 7523 §2.1).
    pub(super) fn check_grant(
        &mut self,
        request: &RecordedRequest,
        assertion: &str,
    ) -> Result<(), Rejected> {
        if self.sessions.assertions.contains(assertion) {
            return Ok(());
        }
        verification::verify_grant(self, request, assertion).map_err(Rejected::WrongAssertion)
    }
}

/// Without the feature `jwt`, no assertion is accepted unless its text is known.
#[cfg(not(feature = "jwt"))]
mod verification {
    use super::{RecordedRequest, State};

    const NO_SIGNATURES: &str = "signatures are verified with the feature `jwt` only";

    pub(super) fn verify_client(
        _: &mut State,
        _: &RecordedRequest,
        _: &str,
    ) -> Result<(), &'static str> {
        Err(NO_SIGNATURES)
    }

    pub(super) fn verify_grant(
        _: &mut State,
        _: &RecordedRequest,
        _: &str,
    ) -> Result<(), &'static str> {
        Err(NO_SIGNATURES)
    }
}

/// RFC 6749 §2.3: not more than one method in a request.
const TWO_WAYS: Rejected = Rejected::Malformed("client credentials are sent in two ways");

/// Checks a client that sends a secret, or nothing but its id.
fn check_secret(settings: &Settings, headers: &HeaderMap, params: &Params) -> Result<(), Rejected> {
    let basic = headers.get(header::AUTHORIZATION);
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(Rejected::Malformed("more than one Authorization header"));
    }
    let basic = basic.map(|value| {
        let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
        let credentials = BASE64_STANDARD.decode(credentials).ok()?;
        let credentials = String::from_utf8(credentials).ok()?;
        scheme.eq_ignore_ascii_case("basic").then_some(credentials)
    });
    let body = (params.get("client_id"), params.get("client_secret"));
    let known = match (settings.dialect, basic) {
        (Dialect::Winbooks, basic) => basic.flatten().is_some_and(|it| it == settings.email),
        (Dialect::Rfc6749, Some(basic)) => {
            if body != (None, None) {
                return Err(TWO_WAYS);
            }
            basic.is_some_and(|basic| settings.knows_basic(&basic))
        }
        (_, Some(_)) => {
            return Err(Rejected::Malformed(
                "client credentials must be in the body",
            ));
        }
        (_, None) => settings.knows_body(body),
    };
    if known { Ok(()) } else { Err(WRONG_SECRET) }
}

impl Settings {
    fn knows_body(&self, (id, secret): (Option<&str>, Option<&str>)) -> bool {
        id == Some(&self.client_id) && self.credential.is_known_by(secret.unwrap_or_default())
    }

    fn knows_basic(&self, credentials: &str) -> bool {
        // RFC 6749 §2.3.1: each half is form-encoded first.
        let decode = |text: &str| is_encoded(text.as_bytes()).then(|| decode(text));
        let halves = if self.raw_basic {
            let password = credentials.strip_prefix(&*self.client_id);
            let password = password.and_then(|rest| rest.strip_prefix(':'));
            password.map(|password| (self.client_id.clone(), password.to_owned()))
        } else {
            let halves = credentials.split_once(':');
            halves.and_then(|(id, password)| Some((decode(id)?, decode(password)?)))
        };
        halves.is_some_and(|(id, password)| self.knows_body((Some(&id), Some(&password))))
    }
}
