//! [`Origins`]: where a token may go.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use http::{Uri, uri};
use url::Url;

use crate::error::{TokenError, TokenErrorKind};

/// Where a token may go: to these origins (RFC 6454 §4), or to any that is secure.
///
/// A request to another origin passes without the token, and whatever is answered there refreshes nothing. A request
/// without an authority, as gRPC clients make them, goes where the service below is connected to, and gets the token.
///
/// Compared are scheme, host and port; the path never matters. Case doesn't either, nor whether a default port is
/// written; internationalised names are known by their ASCII form (`xn--…`), which is all an [`http::Uri`] can hold.
/// `example.com.` with a dot at its end is another host than `example.com`, and `[::ffff:127.0.0.1]` another than
/// `127.0.0.1`.
///
/// Clones share one list.
///
/// # Examples
///
/// ```
/// use tower_bearer::Origins;
///
/// let origins = Origins::only(["https://api.example.com", "https://bücher.example:8443"])?;
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
    /// `None`: any that is secure.
    allowed: Option<Arc<[Origin]>>,
}

/// What a request's URI means for its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginMatch {
    /// The token goes with it.
    Allowed,
    /// It is none of our business.
    NotAllowed,
    /// The token was meant to go with it, in plain text.
    Insecure,
}

#[derive(PartialEq, Eq)]
struct Origin {
    secure: bool,
    host: Host<Box<str>>,
    port: u16,
    /// Host and port as they are most often written, for a comparison without a look inside.
    authority: Box<str>,
}

#[derive(Debug, PartialEq, Eq)]
enum Host<S> {
    Name(S),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Origins {
    /// Any host over https, and the loopback (`localhost`, `127.0.0.0/8`, `[::1]`) also over plain http. Plain http to
    /// another host is an error.
    ///
    /// Dangerous where somebody else decides on URLs: a client that sends requests to addresses from its input, or a
    /// layer outside this one that follows redirects, takes the token to whoever asks. Then use
    /// [`only`](Origins::only).
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
        Self { allowed: None }
    }

    /// These origins, and no other. Each is a URL without path, query and user: `https://api.example.com`.
    ///
    /// # Errors
    ///
    /// [`InsecureOrigin`](TokenErrorKind::InsecureOrigin) for a scheme other than https, but for http to the loopback;
    /// [`Config`](TokenErrorKind::Config) for what is no origin, and if there is none at all.
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
        Ok(Self {
            allowed: Some(allowed),
        })
    }

    /// Whether a request for `uri` gets the token.
    #[inline]
    pub fn allows(&self, uri: &Uri) -> bool {
        self.check(uri) == OriginMatch::Allowed
    }

    #[inline]
    pub(crate) fn check(&self, uri: &Uri) -> OriginMatch {
        if self.allowed.is_none() && uri.scheme_str() == Some("https") {
            return OriginMatch::Allowed;
        }
        self.look_closer(uri)
    }

    fn look_closer(&self, uri: &Uri) -> OriginMatch {
        let Some(authority) = uri.authority() else {
            return OriginMatch::Allowed;
        };
        // An authority without a scheme is a tunnel (`CONNECT`), whose headers are for the proxy.
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == uri::Scheme::HTTPS => true,
            Some(scheme) if *scheme == uri::Scheme::HTTP => false,
            _ => return OriginMatch::NotAllowed,
        };
        let inside = match &self.allowed {
            None if secure => true,
            None => match split(authority, secure) {
                Some((host, _)) if host.is_loopback() => true,
                _ => return OriginMatch::Insecure,
            },
            Some(allowed) => {
                let written = |origin: &Origin| {
                    origin.secure == secure && *origin.authority == *authority.as_str()
                };
                allowed.iter().any(written)
                    || split(authority, secure).is_some_and(|(host, port)| {
                        let meant = |origin: &Origin| origin.is(secure, &host, port);
                        allowed.iter().any(meant)
                    })
            }
        };
        if inside {
            OriginMatch::Allowed
        } else {
            OriginMatch::NotAllowed
        }
    }
}

/// Host and port of an authority, of which neither the user nor a port that is no number may make another.
fn split(authority: &uri::Authority, secure: bool) -> Option<(Host<&str>, u16)> {
    let all = authority.as_str();
    let host_port = all.rsplit_once('@').map_or(all, |(_user, rest)| rest);
    let (host, port) = if let Some(v6) = host_port.strip_prefix('[') {
        let (v6, port) = v6.split_once(']')?;
        (Host::V6(v6.parse().ok()?), port)
    } else {
        let end = host_port.find(':').unwrap_or(host_port.len());
        let (name, port) = host_port.split_at(end);
        (name.parse().map_or(Host::Name(name), Host::V4), port)
    };
    let port = match port.strip_prefix(':').unwrap_or(port) {
        "" => default_port(secure),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    Some((host, port))
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl<S: AsRef<str>> Host<S> {
    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name.as_ref().eq_ignore_ascii_case("localhost"),
            Self::V4(address) => address.is_loopback(),
            Self::V6(address) => address.is_loopback(),
        }
    }
}

impl Origin {
    fn parse(text: &str) -> Result<Self, TokenError> {
        // Never with the text: it may hold a password.
        let malformed = |what| TokenError::new(TokenErrorKind::Config, what);
        let url = Url::parse(text).map_err(|error| {
            malformed("an origin is not a URL like `https://api.example.com`").with_source(error)
        })?;
        let host = match url.host() {
            Some(url::Host::Domain(name)) => Host::Name(Box::from(name)),
            Some(url::Host::Ipv4(address)) => Host::V4(address),
            Some(url::Host::Ipv6(address)) => Host::V6(address),
            None => return Err(malformed("an origin has no host")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(malformed("an origin has no user and no password"));
        }
        if url.path() != "/" && !url.path().is_empty() {
            return Err(malformed(
                "an origin has no path; the token goes to all paths of it",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(malformed("an origin has no query and no fragment"));
        }
        let secure = match url.scheme() {
            "https" => true,
            "http" if host.is_loopback() => false,
            scheme => {
                return Err(TokenError::new(
                    TokenErrorKind::InsecureOrigin,
                    format!(
                        "`{scheme}://{}` is neither https nor http to the loopback",
                        url.authority()
                    ),
                ));
            }
        };
        Ok(Self {
            secure,
            host,
            port: url.port().unwrap_or(default_port(secure)),
            authority: url.authority().into(),
        })
    }

    fn is(&self, secure: bool, host: &Host<&str>, port: u16) -> bool {
        let same_host = match (&self.host, host) {
            (Host::Name(ours), Host::Name(theirs)) => ours.eq_ignore_ascii_case(theirs),
            (Host::V4(ours), Host::V4(theirs)) => ours == theirs,
            (Host::V6(ours), Host::V6(theirs)) => ours == theirs,
            _ => false,
        };
        self.secure == secure && self.port == port && same_host
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.allowed {
            None => f.write_str("Origins(any secure)"),
            Some(allowed) => {
                f.write_str("Origins")?;
                f.debug_list().entries(allowed.iter()).finish()
            }
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests;
