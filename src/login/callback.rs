//! [`Callback`]: what the browser brings back from the authorization endpoint (RFC 6749 §4.1.2).

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::pending::PendingLogin;
use crate::{
    error::{Asked, TokenError, TokenErrorKind},
    zeroize::secret,
};

/// The parameters of an authorization response, each of which occurs once.
struct Callback {
    state: Option<SecretString>,
    issuer: Option<String>,
    code: Option<SecretString>,
    error: Option<String>,
}

/// Why an authorization response gives no code.
pub(super) enum Refused {
    /// It is not the response to this login: anybody may have made it. The right one may still come.
    Foreign(TokenError),
    /// It is the response to this login.
    Final(TokenError),
}

impl From<Refused> for TokenError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Foreign(error) | Refused::Final(error) => error,
        }
    }
}

/// The code in `text`, which is the URL that the browser was redirected to, or its query alone.
///
/// Nothing of the text gets into an error.
pub(super) fn code_in(text: &str, login: &PendingLogin) -> Result<SecretString, Refused> {
    let callback = Callback::parse(text)?;
    let Some(state) = &callback.state else {
        return Err(Refused::Foreign(invalid(
            "the response has no `state`; pass the whole query of the request",
        )));
    };
    let (state, expected) = (state.expose_secret(), login.state.expose_secret());
    if !bool::from(state.as_bytes().ct_eq(expected.as_bytes())) {
        return Err(Refused::Foreign(invalid(
            "the response is not the one to this login, because its `state` is another one (RFC 6749 §10.12); begin again",
        )));
    }
    callback.check_issuer(login).map_err(Refused::Final)?;
    if let Some(code) = &callback.error {
        return Err(Refused::Final(error_of(code)));
    }
    let code = callback.code.filter(|it| !it.expose_secret().is_empty());
    code.ok_or_else(|| Refused::Final(invalid("the response has neither a `code` nor an `error`")))
}

impl Callback {
    fn parse(text: &str) -> Result<Self, Refused> {
        let text = text.trim();
        let query = text.split_once('?').map_or(text, |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default();
        let mut callback = Self {
            state: None,
            issuer: None,
            code: None,
            error: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let is_repeated = match &*name {
                "state" => callback.state.replace(secret(value)).is_some(),
                "code" => callback.code.replace(secret(value)).is_some(),
                "iss" => callback.issuer.replace(value.into_owned()).is_some(),
                "error" => callback.error.replace(value.into_owned()).is_some(),
                _ => false,
            };
            if is_repeated {
                // The state does not tell whose response it is: it may be one of those that occur twice.
                return Err(Refused::Foreign(invalid(
                    "the response has a parameter twice (RFC 6749 §3.1)",
                )));
            }
        }
        Ok(callback)
    }

    /// Refuses the response of another server than the one that the person was sent to (RFC 9207 §2.4).
    fn check_issuer(&self, login: &PendingLogin) -> Result<(), TokenError> {
        match (&login.issuer, &self.issuer) {
            (Some(expected), Some(issuer)) if expected != issuer => Err(invalid(
                "the response names another `iss` than the server that the person was sent to, so its code may be meant for \
                 another one (RFC 9207 §2.4); begin again, and if it happens again, check the issuer",
            )),
            (Some(_), None) if login.names_issuer => Err(invalid(
                "the response names no `iss`, although this server names it in each response (RFC 9207 §2.4), so it may come \
                 from another one; begin again",
            )),
            _ => Ok(()),
        }
    }
}

/// What the registered error codes mean (RFC 6749 §4.1.2.1, RFC 8707 §2, `OpenID` Connect Core §3.1.2.6).
const ERRORS: &[(&str, TokenErrorKind, &str)] = {
    use TokenErrorKind::{InvalidRequest, LoginDenied, ReauthRequired, Server};

    const REQUEST: &str = "check the parameters of the login";
    const NOT_SILENT: &str = "the login needs the person, so leave out `prompt=none`";
    &[
        (
            "access_denied",
            LoginDenied,
            "the person or the server has denied the access; begin another login only if the person wants that",
        ),
        ("login_required", ReauthRequired, NOT_SILENT),
        ("consent_required", ReauthRequired, NOT_SILENT),
        ("interaction_required", ReauthRequired, NOT_SILENT),
        ("account_selection_required", ReauthRequired, NOT_SILENT),
        (
            "unmet_authentication_requirements",
            ReauthRequired,
            "the person has not authenticated as `acr_values` demands; log in again",
        ),
        (
            "invalid_request",
            InvalidRequest,
            "check the redirect URI, the scope and the other parameters of the login",
        ),
        (
            "unauthorized_client",
            InvalidRequest,
            "register the client for authorization codes",
        ),
        (
            "unsupported_response_type",
            InvalidRequest,
            "the server issues no authorization codes",
        ),
        (
            "invalid_scope",
            InvalidRequest,
            "check the scope of the login",
        ),
        (
            "invalid_target",
            InvalidRequest,
            "check the resource of the login",
        ),
        ("invalid_request_uri", InvalidRequest, REQUEST),
        ("invalid_request_object", InvalidRequest, REQUEST),
        ("request_not_supported", InvalidRequest, REQUEST),
        ("request_uri_not_supported", InvalidRequest, REQUEST),
        ("registration_not_supported", InvalidRequest, REQUEST),
        (
            "server_error",
            Server,
            "the server has a problem of its own; try again later",
        ),
        (
            "temporarily_unavailable",
            Server,
            "the server is busy; try again later",
        ),
    ]
};

/// The error of a response with this code. A code that is not registered is left out: its text may be anything.
fn error_of(code: &str) -> TokenError {
    let known = ERRORS.iter().find(|(known, ..)| *known == code);
    let error = match known {
        Some((code, kind, what)) => TokenError::new(*kind, *what).with_oauth_code(code),
        None => TokenError::new(
            TokenErrorKind::InvalidRequest,
            "the login was refused with an error code that is not registered; the server's log may say why",
        ),
    };
    error.asking(Asked::Authorization)
}

fn invalid(what: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, what).asking(Asked::Authorization)
}
