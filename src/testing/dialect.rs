//! [`Dialect`]: the requests that each server accepts. It is strict, so that a client that uses another dialect fails.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method, header};

use super::{
    grants::{Exchange, JWT_BEARER, TOKEN_EXCHANGE},
    params::Params,
    recorded::{FORM, JSON, RecordedRequest, json_params, media_type},
    rules::{Invalid, Rules},
    settings::{NumberFormat, Settings},
};

/// The vendor whose token endpoint an [`AuthorizationServer`](super::AuthorizationServer) imitates: its path, client
/// credentials, body format and responses.
///
/// | | `Rfc6749` | `Winbooks` | `TwoBa` | `Xoxoday` |
/// |---|---|---|---|---|
/// | Path | `/token` | `/OAuth20/Token` | `/OAuth/Token`, `/connect/token` | `/chef/v1/oauth/token/user`, `…/company` |
/// | Client | Basic or body | Basic of the e-mail alone, no colon | body | body |
/// | Body | form | form | form | JSON |
/// | Grants | refresh token, exchange token, client credentials, JWT bearer, token exchange | exchange token, refresh token; both in `code` | refresh token | refresh token |
/// | `expires_in` | number | string | number | string |
/// | Access token | 900 s | 900 s | 900 s | 15 days; a refresh ends the older ones |
/// | Refresh token | rotates, reuse ends the session | stays | rotates | rotates, 30 days |
///
/// Every default can be changed on the server. Any other request is rejected, also one with unencoded or repeated
/// parameters, with parameters that belong to another grant, or with client credentials sent in two ways. Unknown
/// parameters are ignored (RFC 6749 §3.2), and `resource` and `audience` may be repeated (RFC 8707, RFC 8693).
///
/// # Examples
///
/// ```
/// use tower_bearer::testing::{AuthorizationServer, Dialect};
///
/// let server = AuthorizationServer::new(Dialect::Winbooks).path_prefix("/wow/v2");
/// assert_eq!(server.token_path(), "/wow/v2/OAuth20/Token");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// The standard, and the exchange-token grant.
    Rfc6749,
    /// Winbooks on Web.
    Winbooks,
    /// 2BA.
    TwoBa,
    /// Xoxoday Plum.
    Xoxoday,
}

/// The grant that is requested.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Exchange(String),
    Refresh(String),
    ClientCredentials,
    /// With the assertion.
    JwtBearer(String),
    TokenExchange(Exchange),
}

/// Why a request gets no token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    NoSuchPath,
    NotPost,
    NotAcceptable,
    WrongMediaType,
    Malformed(&'static str),
    UnknownGrant,
    WrongClient,
    Invalid(Invalid),
}

/// The parameters that are rejected in a request of another grant or dialect.
const GRANT_PARAMS: [&str; 9] = [
    "code",
    "assertion",
    "subject_token",
    "actor_token",
    "requested_token_type",
    "refresh_token",
    "client_id",
    "client_secret",
    "scope",
];

const DAY: Duration = Duration::from_secs(86_400);

impl Dialect {
    pub(super) fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Rfc6749 => &["/token"],
            Self::Winbooks => &["/OAuth20/Token"],
            Self::TwoBa => &["/OAuth/Token", "/connect/token"],
            Self::Xoxoday => &["/chef/v1/oauth/token/user", "/chef/v1/oauth/token/company"],
        }
    }

    pub(super) fn rules(self) -> Rules {
        let xoxoday = self == Self::Xoxoday;
        Rules {
            access_lifetime: if xoxoday {
                15 * DAY
            } else {
                Duration::from_secs(900)
            },
            refresh_lifetime: xoxoday.then_some(30 * DAY),
            give_refresh_token: true,
            rotate: self != Self::Winbooks,
            grace: Duration::ZERO,
            detect_reuse: self == Self::Rfc6749,
            exchange_once: false,
            one_access_token: xoxoday,
            repeat_access: false,
            limit: None,
        }
    }

    pub(super) fn expires_in_format(self) -> NumberFormat {
        match self {
            Self::Rfc6749 | Self::TwoBa => NumberFormat::Number,
            Self::Winbooks | Self::Xoxoday => NumberFormat::String,
        }
    }
}

/// Reads the grant from `request`, if the request is one of this dialect.
pub(super) fn read(settings: &Settings, request: &RecordedRequest) -> Result<Grant, Rejected> {
    let path = request.uri.path().strip_prefix(settings.prefix.as_str());
    if !path.is_some_and(|path| settings.dialect.paths().contains(&path)) {
        return Err(Rejected::NoSuchPath);
    }
    let params = client_params(settings, request)?;
    grant(settings.dialect, &params)
}

/// The parameters of a request, if its form is that of the dialect and the client is known.
pub(super) fn client_params(
    settings: &Settings,
    request: &RecordedRequest,
) -> Result<Params, Rejected> {
    if request.method != Method::POST {
        return Err(Rejected::NotPost);
    }
    if request.uri.query().is_some() {
        // RFC 6749 §2.3.1: parameters must not be in the request URI.
        return Err(Rejected::Malformed("parameters in the URI"));
    }
    let json = settings.dialect == Dialect::Xoxoday;
    if media_type(&request.headers) != Some(if json { JSON } else { FORM }) {
        return Err(Rejected::WrongMediaType);
    }
    if settings.dialect == Dialect::Winbooks && !accepts_json(&request.headers) {
        return Err(Rejected::NotAcceptable);
    }
    let params = if json {
        json_params(&request.body).ok_or(Rejected::Malformed("not a JSON object of strings"))?
    } else {
        form_params(&request.body)?
    };
    let params = Params::new(params)?;
    authenticate(settings, &request.headers, &params)?;
    Ok(params)
}

fn grant(dialect: Dialect, params: &Params) -> Result<Grant, Rejected> {
    let any = dialect == Dialect::Rfc6749;
    if any && params.get("grant_type") == Some(TOKEN_EXCHANGE) {
        return Exchange::read(params).map(Grant::TokenExchange);
    }
    let winbooks = dialect == Dialect::Winbooks;
    let (token_param, grant): (_, fn(String) -> Grant) = match params.required("grant_type")? {
        "exchange_token" if any || winbooks => (Some("code"), Grant::Exchange),
        "refresh_token" if winbooks => (Some("code"), Grant::Refresh),
        "refresh_token" => (Some("refresh_token"), Grant::Refresh),
        "client_credentials" if any => (None, |_| Grant::ClientCredentials),
        JWT_BEARER if any => (Some("assertion"), Grant::JwtBearer),
        _ => return Err(Rejected::UnknownGrant),
    };
    let mut allowed = Vec::from_iter(token_param);
    if !winbooks {
        allowed.extend(["client_id", "client_secret"]);
    }
    if any {
        allowed.push("scope");
    }
    if params.any(|name| GRANT_PARAMS.contains(&name) && !allowed.contains(&name)) {
        return Err(Rejected::Malformed(
            "a parameter that this grant does not have",
        ));
    }
    let token = token_param.map_or(Ok(""), |token_param| params.required(token_param))?;
    Ok(grant(token.to_owned()))
}

/// Checks the client credentials, which must be sent in the dialect's way and in no other.
fn authenticate(settings: &Settings, headers: &HeaderMap, params: &Params) -> Result<(), Rejected> {
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
                // RFC 6749 §2.3: not more than one method in a request.
                return Err(Rejected::Malformed(
                    "client credentials are sent in two ways",
                ));
            }
            basic.is_some_and(|basic| settings.knows_basic(&basic))
        }
        (_, Some(_)) => {
            return Err(Rejected::Malformed(
                "client credentials must be in the body",
            ));
        }
        (_, None) => body == (Some(&settings.client_id), settings.client_secret.as_deref()),
    };
    if known {
        Ok(())
    } else {
        Err(Rejected::WrongClient)
    }
}

impl Settings {
    fn knows_basic(&self, credentials: &str) -> bool {
        let secret = self.client_secret.as_deref().unwrap_or_default();
        if self.raw_basic {
            return credentials == format!("{}:{secret}", self.client_id);
        }
        // RFC 6749 §2.3.1: each half is form-encoded first.
        let decode = |text: &str| is_encoded(text.as_bytes()).then(|| decode(text));
        credentials.split_once(':').is_some_and(|(id, password)| {
            decode(id).as_deref() == Some(&*self.client_id)
                && decode(password).as_deref() == Some(secret)
        })
    }
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    accept.is_some_and(|accept| accept.to_ascii_lowercase().contains(JSON))
}

/// The parameters of a form, whose names and values must be percent-encoded strictly.
fn form_params(body: &[u8]) -> Result<Vec<(String, String)>, Rejected> {
    let text = std::str::from_utf8(body).map_err(|_| Rejected::Malformed("not a form"))?;
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        (is_encoded(name.as_bytes()) && is_encoded(value.as_bytes()))
            .then(|| (decode(name), decode(value)))
    };
    let pairs: Option<_> = pairs.map(pair).collect();
    pairs.ok_or(Rejected::Malformed("unencoded characters in the form"))
}

/// Whether `text` contains only unreserved characters, `+` for a space, and complete percent escapes.
fn is_encoded(mut text: &[u8]) -> bool {
    loop {
        text = match text {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"*-._~+".contains(byte) => rest,
            _ => return false,
        }
    }
}

fn decode(text: &str) -> String {
    let pair = form_urlencoded::parse(text.as_bytes()).next();
    pair.map(|(name, _)| name.into_owned()).unwrap_or_default()
}
