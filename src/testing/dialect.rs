//! [`Dialect`]: how each server wants to be asked. Strict, so that a client that speaks another dialect fails.

use std::{collections::HashSet, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method, header};

use super::{
    recorded::{FORM, JSON, RecordedRequest, json_params, media_type},
    rules::{Dead, Rules},
    settings::{Printed, Settings},
};

/// Which server's token endpoint an [`AuthorizationServer`](super::AuthorizationServer) plays: path, credentials, body
/// and answers.
///
/// | | `Rfc6749` | `Winbooks` | `TwoBa` | `Xoxoday` |
/// |---|---|---|---|---|
/// | Path | `/token` | `/OAuth20/Token` | `/OAuth/Token`, `/connect/token` | `/chef/v1/oauth/token/user`, `…/company` |
/// | Client | Basic or body | Basic of the e-mail alone, no colon | body | body |
/// | Body | form | form | form | JSON |
/// | Grants | refresh token, exchange token, client credentials | exchange token, refresh token; both in `code` | refresh token | refresh token |
/// | `expires_in` | number | string | number | string |
/// | Access token | 900 s | 900 s | 900 s | 15 days; a refresh ends the older ones |
/// | Refresh token | rotates, reuse ends the session | stays | rotates | rotates, 30 days |
///
/// Every default can be changed on the server. What is asked in another way than this is rejected, also unencoded
/// or doubled parameters, parameters in the wrong place, and credentials given in two ways; parameters nobody knows are
/// ignored (RFC 6749 §3.2).
///
/// # Examples
///
/// ```
/// use tower_bearer::testing::{AuthorizationServer, Dialect};
///
/// let server = AuthorizationServer::new(Dialect::Winbooks).prefix("/wow/v2");
/// assert_eq!(server.token_path(), "/wow/v2/OAuth20/Token");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// The standard, with the exchange-token grant beside it.
    Rfc6749,
    /// Winbooks on Web.
    Winbooks,
    /// 2BA.
    TwoBa,
    /// Xoxoday Plum.
    Xoxoday,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Exchange(String),
    Refresh(String),
    ClientCredentials,
}

/// Why there is no token in the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    NoSuchPath,
    NotPost,
    NotAcceptable,
    WrongMediaType,
    Malformed(&'static str),
    UnknownGrant,
    WrongClient,
    Dead(Dead),
}

/// The parameters that have a place; in another one they are rejected.
const PLACED: [&str; 5] = [
    "code",
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

    pub(super) fn expires_in(self) -> Printed {
        match self {
            Self::Rfc6749 | Self::TwoBa => Printed::Number,
            Self::Winbooks | Self::Xoxoday => Printed::Text,
        }
    }
}

/// What `request` asks for, if it asks as it should.
pub(super) fn read(settings: &Settings, request: &RecordedRequest) -> Result<Grant, Rejected> {
    let path = request.uri.path().strip_prefix(settings.prefix.as_str());
    if !path.is_some_and(|path| settings.dialect.paths().contains(&path)) {
        return Err(Rejected::NoSuchPath);
    }
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
    identify(settings, &request.headers, &params)?;
    grant(settings.dialect, &params)
}

fn grant(dialect: Dialect, params: &Params) -> Result<Grant, Rejected> {
    let any = dialect == Dialect::Rfc6749;
    let winbooks = dialect == Dialect::Winbooks;
    let (place, grant): (_, fn(String) -> Grant) = match params.required("grant_type")? {
        "exchange_token" if any || winbooks => (Some("code"), Grant::Exchange),
        "refresh_token" if winbooks => (Some("code"), Grant::Refresh),
        "refresh_token" => (Some("refresh_token"), Grant::Refresh),
        "client_credentials" if any => (None, |_| Grant::ClientCredentials),
        _ => return Err(Rejected::UnknownGrant),
    };
    let mut places = Vec::from_iter(place);
    if !winbooks {
        places.extend(["client_id", "client_secret"]);
    }
    if any {
        places.push("scope");
    }
    if params.any(|name| PLACED.contains(&name) && !places.contains(&name)) {
        return Err(Rejected::Malformed("a parameter that has no place here"));
    }
    let token = place.map_or(Ok(""), |place| params.required(place))?;
    Ok(grant(token.to_owned()))
}

/// Checks that the client says who it is, in the dialect's way and in that way alone.
fn identify(settings: &Settings, headers: &HeaderMap, params: &Params) -> Result<(), Rejected> {
    let basic = headers.get(header::AUTHORIZATION);
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(Rejected::Malformed("more than one Authorization"));
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
                return Err(Rejected::Malformed("credentials given in two ways"));
            }
            basic.is_some_and(|basic| settings.knows_basic(&basic))
        }
        (_, Some(_)) => return Err(Rejected::Malformed("credentials belong in the body")),
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
        let decode = |text: &str| encoded(text.as_bytes()).then(|| decode(text));
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

/// A form whose names and values are percent-encoded as they should be, not merely readable.
fn form_params(body: &[u8]) -> Result<Vec<(String, String)>, Rejected> {
    let text = std::str::from_utf8(body).map_err(|_| Rejected::Malformed("not a form"))?;
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        (encoded(name.as_bytes()) && encoded(value.as_bytes()))
            .then(|| (decode(name), decode(value)))
    };
    let pairs: Option<_> = pairs.map(pair).collect();
    pairs.ok_or(Rejected::Malformed("unencoded characters in the form"))
}

/// Whether only unreserved characters, `+` for the space, and whole escapes are in `text`.
fn encoded(mut text: &[u8]) -> bool {
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

/// Parameters, none of them twice.
struct Params(Vec<(String, String)>);

impl Params {
    fn new(params: Vec<(String, String)>) -> Result<Self, Rejected> {
        let names: HashSet<_> = params.iter().map(|(name, _)| name).collect();
        if names.len() < params.len() {
            // RFC 6749 §3.2
            return Err(Rejected::Malformed("a parameter comes twice"));
        }
        Ok(Self(params))
    }

    /// A parameter without a value is none (RFC 6749 §3.2).
    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(key, _)| key == name);
        found
            .next()
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    fn required(&self, name: &'static str) -> Result<&str, Rejected> {
        self.get(name)
            .ok_or(Rejected::Malformed("a parameter is missing"))
    }

    fn any(&self, mut test: impl FnMut(&str) -> bool) -> bool {
        self.0.iter().any(|(name, _)| test(name))
    }
}
