//! [`Origins`]: where a token may go.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
    sync::Arc,
};

use http::{Uri, uri};

use crate::{
    error::{TokenError, TokenErrorKind},
    host::{Host, default_port, split_port},
    http_url::HttpUrl,
};

/// Where a token may go: to a list of origins (RFC 6454 §4), or to any origin over https.
///
/// A request to another origin is sent without the token, and its response refreshes nothing. A request without an
/// authority, as gRPC clients make them, goes where the service below is connected to, and gets the token.
///
/// Scheme, host and port are compared, never the path. The case of a host does not matter, and a default port may be
/// written or left out. `example.com.` with a dot at its end is another host than `example.com`, and
/// `[::ffff:127.0.0.1]` another than `127.0.0.1`.
///
/// Write internationalized names in punycode (`xn--...`), the only form that an [`http::Uri`] can hold.
///
/// Clones share one list.
///
/// # Examples
///
/// ```
/// use tower_bearer::Origins;
///
/// let origins = Origins::only(["https://api.example.com", "https://xn--bcher-kva.example:8443"])?;
///
/// assert!(origins.allows(&"https://API.example.com:443/v1/orders".parse()?));
/// assert!(origins.allows(&"https://xn--bcher-kva.example:8443/".parse()?));
/// assert!(!origins.allows(&"https://api.example.com@evil.example/".parse()?));
/// assert!(!origins.allows(&"http://api.example.com/".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Origins {
    /// `None` allows any origin over https.
    allowed: Option<Arc<[Origin]>>,
    /// The only origin, if there is just one.
    single: Option<OriginHash>,
}

/// How the URI of a request matches the allowed origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginMatch {
    /// The request gets the token.
    Allowed,
    /// The request is sent without the token.
    NotAllowed,
    /// The request would get the token, but over plain http.
    Insecure,
}

#[derive(PartialEq, Eq)]
struct Origin {
    is_https: bool,
    host: Host<Box<str>>,
    port: u16,
    /// Host and port in their usual form. Most requests match it byte by byte, without being parsed.
    authority: Box<str>,
}

impl Origins {
    /// Any host over https, and this machine (`localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`) also over plain http.
    ///
    /// A request over plain http to another host fails.
    ///
    /// Dangerous where others choose URLs: if a client sends requests to addresses from its input, or a layer outside
    /// this one follows redirects, any server can ask for the token. Use [`only`](Origins::only) there.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::Origins;
    ///
    /// let origins = Origins::any_https();
    ///
    /// assert!(origins.allows(&"https://anything.example/".parse()?));
    /// assert!(origins.allows(&"http://localhost:8080/".parse()?));
    /// assert!(!origins.allows(&"http://anything.example/".parse()?));
    /// # Ok::<(), http::uri::InvalidUri>(())
    /// ```
    pub fn any_https() -> Self {
        Self {
            allowed: None,
            single: None,
        }
    }

    /// Only these origins. Each is a URL without user, path and query: `https://api.example.com`.
    ///
    /// # Errors
    ///
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): a scheme other than https, except http to this machine.
    /// - [`Config`](TokenErrorKind::Config): not an origin, a wildcard, a host outside ASCII, or an empty
    ///   list.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{Origins, TokenErrorKind};
    ///
    /// let error = Origins::only(["http://api.example.com"]).unwrap_err();
    /// assert_eq!(error.kind(), TokenErrorKind::InsecureOrigin);
    ///
    /// let error = Origins::only(["https://api.example.com/v1"]).unwrap_err();
    /// assert_eq!(error.kind(), TokenErrorKind::Config);
    /// ```
    pub fn only<I>(origins: I) -> Result<Self, TokenError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let allowed = origins
            .into_iter()
            .map(|origin| Origin::parse(origin.as_ref()))
            .collect::<Result<Arc<[_]>, _>>()?;
        if allowed.is_empty() {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                "the list of origins that may receive the token is empty",
            ));
        }
        let single = match &*allowed {
            [origin] => Some(OriginHash::new(origin.is_https, &origin.host, origin.port)),
            _ => None,
        };
        Ok(Self {
            allowed: Some(allowed),
            single,
        })
    }

    /// Returns whether a request to `uri` gets the token.
    #[inline]
    pub fn allows(&self, uri: &Uri) -> bool {
        self.check(uri) == OriginMatch::Allowed
    }

    /// The origin that all requests with the token go to, if there is just one.
    pub(crate) fn single(&self) -> Option<OriginHash> {
        self.single
    }

    #[inline]
    pub(crate) fn check(&self, uri: &Uri) -> OriginMatch {
        if self.allowed.is_none() && uri.scheme_str() == Some("https") {
            return OriginMatch::Allowed;
        }
        self.check_authority(uri)
    }

    fn check_authority(&self, uri: &Uri) -> OriginMatch {
        let Some(authority) = uri.authority() else {
            return OriginMatch::Allowed;
        };
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == uri::Scheme::HTTPS => true,
            Some(scheme) if *scheme == uri::Scheme::HTTP => false,
            // An authority without a scheme is a tunnel (`CONNECT`). The proxy reads its headers.
            _ => return OriginMatch::NotAllowed,
        };
        let Some(allowed) = &self.allowed else {
            let text = authority.as_str();
            let is_allowed = is_https
                || is_usual_loopback(text)
                || request_host(text).is_some_and(|(host, _)| host.is_loopback());
            return if is_allowed {
                OriginMatch::Allowed
            } else {
                OriginMatch::Insecure
            };
        };
        let same_text = |origin: &Origin| {
            origin.is_https == is_https && *origin.authority == *authority.as_str()
        };
        let is_allowed = allowed.iter().any(same_text)
            || request_host(authority.as_str()).is_some_and(|(host, port)| {
                let port = port.unwrap_or(default_port(is_https));
                allowed
                    .iter()
                    .any(|origin| origin.is(is_https, &host, port))
            });
        if is_allowed {
            OriginMatch::Allowed
        } else {
            OriginMatch::NotAllowed
        }
    }
}

/// Tells the origins of requests apart. Two origins have the same hash by accident once in four billion pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OriginHash(NonZeroU32);

impl OriginHash {
    /// The origin of `uri`. All URIs that name none have the same one: the service below knows where they go.
    pub(crate) fn of(uri: &Uri) -> Self {
        let is_https = uri.scheme() == Some(&uri::Scheme::HTTPS);
        match uri
            .authority()
            .map(|authority| request_host(authority.as_str()))
        {
            Some(Some((host, port))) => {
                Self::new(is_https, &host, port.unwrap_or(default_port(is_https)))
            }
            Some(None) => Self::from(|hasher| uri.authority().hash(hasher)),
            None => Self::from(|_| {}),
        }
    }

    fn new<S: AsRef<str>>(is_https: bool, host: &Host<S>, port: u16) -> Self {
        Self::from(|hasher| {
            (is_https, port).hash(hasher);
            match host {
                Host::Name(name) => {
                    let lower = |b: u8| b.to_ascii_lowercase();
                    name.as_ref()
                        .bytes()
                        .map(lower)
                        .for_each(|b| hasher.write_u8(b));
                }
                Host::V4(address) => address.hash(hasher),
                Host::V6(address) => address.hash(hasher),
            }
        })
    }

    fn from(write: impl FnOnce(&mut DefaultHasher)) -> Self {
        let mut hasher = DefaultHasher::new();
        write(&mut hasher);
        let upper_half = u32::try_from(hasher.finish() >> 32).unwrap_or_default();
        Self(NonZeroU32::new(upper_half).unwrap_or(NonZeroU32::MIN))
    }
}

/// Host and port of a request. `None` if the authority could be read in two ways: it matches no origin.
fn request_host(authority: &str) -> Option<(Host<&str>, Option<u16>)> {
    let host_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_user, rest)| rest);
    split_port(host_port).ok()
}

/// Whether `authority` is this machine in one of its usual forms, which need not be parsed.
fn is_usual_loopback(authority: &str) -> bool {
    let is_port =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|host| {
        authority
            .strip_prefix(host)
            .is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
    })
}

impl Origin {
    fn parse(text: &str) -> Result<Self, TokenError> {
        // No message repeats the text, which may hold a password.
        let config = |message: String| TokenError::new(TokenErrorKind::Config, message);
        if text.contains('*') {
            return Err(config(
                "wildcards in origins are not supported; list each origin, or use `Origins::any_https` if every URL \
                 that requests go to is your own"
                    .into(),
            ));
        }
        let url = HttpUrl::parse(text).map_err(|reason| {
            config(format!(
                "an origin is not a URL like `https://api.example.com`: it {reason}"
            ))
        })?;
        if url.has_user {
            return Err(config("an origin has no user and no password".into()));
        }
        if !matches!(url.path, "" | "/") {
            return Err(config(
                "an origin has no path, because the token goes to all paths of it".into(),
            ));
        }
        if url.query.is_some() || url.has_fragment {
            return Err(config("an origin has no query and no fragment".into()));
        }
        let is_https = match &*url.scheme {
            "https" => true,
            "http" if url.host.is_loopback() => false,
            scheme => {
                return Err(TokenError::new(
                    TokenErrorKind::InsecureOrigin,
                    format!(
                        "`{scheme}://{}` is neither https nor http to this machine",
                        url.authority()
                    ),
                ));
            }
        };
        Ok(Self {
            is_https,
            port: url.port.unwrap_or(default_port(is_https)),
            authority: url.authority().into(),
            host: url.host,
        })
    }

    fn is(&self, is_https: bool, host: &Host<&str>, port: u16) -> bool {
        self.is_https == is_https && self.port == port && self.host.is_same(host)
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.allowed {
            None => f.write_str("Origins(any https)"),
            Some(allowed) => {
                f.write_str("Origins")?;
                f.debug_list().entries(allowed.iter()).finish()
            }
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests;
