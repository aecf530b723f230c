//! [`Dialect`]: the requests that each server accepts. It is strict, so that a client that uses another dialect fails.

use std::time::Duration;

use http::{HeaderMap, Method, Uri, header};

use super::{
    authorization::{AUTHORIZATION_CODE, CodeRequest},
    device::{DEVICE_CODE, DeviceRequest},
    grants::{Exchange, JWT_BEARER, Login, TOKEN_EXCHANGE},
    params::Params,
    recorded::{FORM, JSON, RecordedRequest, json_params, media_type},
    rules::{Invalid, Rules},
    server::State,
    settings::{NumberFormat, Settings},
};

/// The vendor whose token endpoint an [`AuthorizationServer`](super::AuthorizationServer) imitates: its path, client
/// credentials, body format and responses.
///
/// | | `Rfc6749` | `Winbooks` | `TwoBa` | `Xoxoday` |
/// |---|---|---|---|---|
/// | Path | `/token` | `/OAuth20/Token` | `/OAuth/Token`, `/connect/token` | `/chef/v1/oauth/token/user`, `…/company` |
/// | Client | Basic or body, or a signed assertion | Basic of the e-mail alone, no colon | body | body |
/// | Body | form | form | form | JSON |
/// | Grants | refresh token, exchange token, client credentials, JWT bearer, token exchange, password, authorization code, device code | exchange token, refresh token; both in `code` | refresh token, password | refresh token |
/// | `expires_in` | number | string | number | string |
/// | Access token | 900 s | 900 s | 900 s | 15 days; a refresh ends the older ones |
/// | Refresh token | rotates, reuse ends the session | stays | rotates | rotates, 30 days |
///
/// Every default can be changed on the server. Any other request is rejected, also one with unencoded or repeated
/// parameters, with parameters that belong to another grant, or with client credentials sent in two ways. Unknown
/// parameters are ignored (RFC 6749 §3.2), and `resource` and `audience` may be repeated (RFC 8707, RFC 8693). Each
/// `resource` must be an absolute URI without a fragment.
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
    Password(Login),
    AuthorizationCode(CodeRequest),
    DeviceCode(DeviceRequest),
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
    /// A resource that cannot be one (RFC 8707 §2).
    InvalidTarget,
    /// A scope that is not granted (RFC 6749 §5.2).
    InvalidScope,
    /// And why.
    WrongClient(&'static str),
    /// The error code about a device code (RFC 8628 §3.5).
    Device(&'static str),
    /// The assertion of a JWT bearer grant, and what is wrong with it.
    WrongAssertion(&'static str),
    Invalid(Invalid),
}

/// The parameters that are rejected in a request of another grant or dialect.
const GRANT_PARAMS: [&str; 11] = [
    "code",
    "assertion",
    "subject_token",
    "actor_token",
    "requested_token_type",
    "refresh_token",
    "username",
    "password",
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

impl State {
    /// Reads the grant from `request`, if the request is one of the dialect.
    pub(super) fn read(&mut self, request: &RecordedRequest) -> Result<Grant, Rejected> {
        let settings = &self.settings;
        let path = request.uri.path().strip_prefix(settings.prefix.as_str());
        if !path.is_some_and(|path| settings.dialect.paths().contains(&path)) {
            return Err(Rejected::NoSuchPath);
        }
        let params = self.client_params(request)?;
        grant(&self.settings, &params)
    }

    /// The parameters of a request, if its form is that of the dialect and the client is known.
    pub(super) fn client_params(&mut self, request: &RecordedRequest) -> Result<Params, Rejected> {
        let params = params(self.settings.dialect, request)?;
        self.authenticate(request, &params)?;
        Ok(params)
    }
}

fn params(dialect: Dialect, request: &RecordedRequest) -> Result<Params, Rejected> {
    if request.method != Method::POST {
        return Err(Rejected::NotPost);
    }
    if request.uri.query().is_some() {
        // RFC 6749 §2.3.1: parameters must not be in the request URI.
        return Err(Rejected::Malformed("parameters in the URI"));
    }
    let json = dialect == Dialect::Xoxoday;
    if media_type(&request.headers) != Some(if json { JSON } else { FORM }) {
        return Err(Rejected::WrongMediaType);
    }
    if dialect == Dialect::Winbooks && !accepts_json(&request.headers) {
        return Err(Rejected::NotAcceptable);
    }
    Params::new(if json {
        json_params(&request.body).ok_or(Rejected::Malformed("not a JSON object of strings"))?
    } else {
        form_params(&request.body)?
    })
}

fn grant(settings: &Settings, params: &Params) -> Result<Grant, Rejected> {
    let dialect = settings.dialect;
    let any = dialect == Dialect::Rfc6749;
    if any && params.all("resource").any(|uri| !is_resource(uri)) {
        return Err(Rejected::InvalidTarget);
    }
    if any && params.get("grant_type") == Some(TOKEN_EXCHANGE) {
        return Exchange::read(params).map(Grant::TokenExchange);
    }
    if any && params.get("grant_type") == Some(AUTHORIZATION_CODE) {
        return CodeRequest::read(params).map(Grant::AuthorizationCode);
    }
    if any && params.get("grant_type") == Some(DEVICE_CODE) {
        return DeviceRequest::read(params).map(Grant::DeviceCode);
    }
    if params.get("grant_type") == Some("password") && settings.user.is_some() {
        return Login::read(dialect, params).map(Grant::Password);
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

pub(super) fn is_resource(uri: &str) -> bool {
    let parsed = uri.parse::<Uri>();
    parsed.is_ok_and(|uri| uri.scheme().is_some()) && !uri.contains('#')
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
pub(super) fn is_encoded(mut text: &[u8]) -> bool {
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

pub(super) fn decode(text: &str) -> String {
    let pair = form_urlencoded::parse(text.as_bytes()).next();
    pair.map(|(name, _)| name.into_owned()).unwrap_or_default()
}
