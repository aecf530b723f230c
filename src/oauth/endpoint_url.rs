//! [`EndpointUrl`]: a URL that secrets may be posted to.

use std::fmt;

use http::Uri;

use crate::{
    error::{TokenError, TokenErrorKind},
    http_url::HttpUrl,
};

/// What errors call a URL without another name.
const TOKEN_ENDPOINT: &str = "token endpoint";

const WANTED: &str = "wanted: an absolute URL such as https://authorize.example.com/oauth/token";

/// A URL that secrets may be posted to: https, or http to this machine.
///
/// `Display` and `Debug` leave out the query, which may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EndpointUrl {
    uri: Uri,
}

impl EndpointUrl {
    /// Parses the URL of the token endpoint. No error repeats it: it may be a secret pasted into the wrong field.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        Self::parse_as(TOKEN_ENDPOINT, text)
    }

    /// Parses the URL of `what`, which errors name.
    pub(crate) fn parse_as(what: &str, text: &str) -> Result<Self, TokenError> {
        let url = HttpUrl::parse(text).map_err(|reason| reject(what, reason))?;
        Self::new(what, &url, url.path)
    }

    /// `path` below `base`. The path of `base` is kept, with or without a slash at its end.
    pub(crate) fn join(base: &str, path: &str) -> Result<Self, TokenError> {
        let url = HttpUrl::parse(base).map_err(|reason| reject(TOKEN_ENDPOINT, reason))?;
        if url.query.is_some() {
            return Err(TokenError::new(
                TokenErrorKind::Config,
                "the base URL of the token endpoint has a query; wanted: scheme, host and path only",
            ));
        }
        let joined: String = [url.path, path]
            .iter()
            .flat_map(|path| path.split('/'))
            .filter(|segment| !segment.is_empty())
            .flat_map(|segment| ["/", segment])
            .collect();
        Self::new(TOKEN_ENDPOINT, &url, &joined)
    }

    fn new(what: &str, url: &HttpUrl<'_>, path: &str) -> Result<Self, TokenError> {
        if !matches!(&*url.scheme, "https" | "http") {
            return Err(reject(what, "has a scheme other than https"));
        }
        if url.has_user {
            return Err(reject(
                what,
                "has a user name or password; identify the client by `client_auth`",
            ));
        }
        if url.has_fragment {
            return Err(reject(
                what,
                "has a fragment, which is never sent to a server (RFC 6749 §3.2)",
            ));
        }
        if url.scheme == "http" && !url.host.is_loopback() {
            return Err(TokenError::new(
                TokenErrorKind::InsecureOrigin,
                format!(
                    "the {what} at http://{} would receive the secrets unencrypted; use https",
                    url.host
                ),
            ));
        }
        let path = if path.is_empty() { "/" } else { path };
        let query = url.query.map_or(String::new(), |query| format!("?{query}"));
        if !path.is_ascii() || !query.is_ascii() {
            return Err(reject(
                what,
                "has characters outside ASCII in its path or query; percent-encode them",
            ));
        }
        format!("{}://{}{path}{query}", url.scheme, url.authority())
            .parse()
            .map(|uri| Self { uri })
            .map_err(|error: http::uri::InvalidUri| {
                reject(
                    what,
                    "fits no HTTP request: it is too long, or its path or query is malformed",
                )
                .with_source(error)
            })
    }

    /// The URL with another path, and without a query.
    pub(super) fn with_path(&self, path: &str) -> Self {
        let mut parts = self.uri.clone().into_parts();
        // Made of the path of a URL and of constants, so this does not fail.
        parts.path_and_query = path.parse().ok();
        Self {
            uri: Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone()),
        }
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Scheme, host and port: what [`Origins::only`](crate::Origins::only) takes.
    pub(crate) fn origin(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.uri.authority().map_or("", |it| it.as_str());
        format!("{scheme}://{authority}")
    }
}

fn reject(what: &str, reason: &str) -> TokenError {
    TokenError::new(
        TokenErrorKind::Config,
        format!("the {what}'s URL {reason}; {WANTED}"),
    )
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.uri.path())
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EndpointUrl, TokenError> {
        EndpointUrl::parse(text)
    }

    #[test]
    fn secrets_are_posted_over_https_or_to_this_machine() {
        for good in [
            "https://authorize.example.com/OAuth/Token",
            "  https://authorize.example.com/OAuth/Token\n",
            "HTTPS://Authorize.Example.com",
            "https://10.0.0.1:8443/token?tenant=7",
            "https://xn--bcher-kva.example/token",
            "http://localhost:8080/token",
            "http://LOCALHOST/token",
            "http://auth.localhost/token",
            "http://127.0.0.1/token",
            "http://127.9.8.7:1/token",
            "http://[::1]:9000/token",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for bad in [
            "http://authorize.example.com/token",
            "http://localhost.example.com/token",
            "http://notlocalhost/token",
            "http://localhost./token",
            "http://128.0.0.1/token",
            "http://[::2]/token",
            "http://0.0.0.0/token",
        ] {
            assert_eq!(
                parse(bad).unwrap_err().kind(),
                TokenErrorKind::InsecureOrigin,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_malformed_url_is_rejected_with_the_reason() {
        for (bad, reason) in [
            ("", "no scheme"),
            ("authorize.example.com/token", "no scheme"),
            ("/token", "no scheme"),
            ("https:authorize.example.com", "no scheme"),
            ("https://", "no host"),
            ("https:///token", "no host"),
            ("https://:443/token", "no host"),
            ("https://[::1/token", "IPv6"),
            ("https://exa mple.com/token", "white space"),
            ("https://exa\nmple.com/token", "white space"),
            ("https://a.example\\@b.example/token", "backslash"),
            ("https://a.example:99999/token", "port"),
            ("https://a b/token", "white space"),
            ("https://<a>/token", "malformed"),
            ("https://%61.example/token", "malformed"),
            ("https://*.example/token", "malformed"),
            ("https://b\u{fc}cher.example/token", "punycode (`xn--...`)"),
            ("https://a.example/\u{fc}", "percent-encode"),
            ("https://a.example/<token>", "fits no HTTP request"),
            ("https://127.1/token", "four decimal numbers"),
            ("http://0x7f.1/token", "four decimal numbers"),
            ("http://2130706433/token", "four decimal numbers"),
            ("https://hunter2@a.example/token", "user name"),
            ("https://id:hunter2@a.example/token", "user name"),
            ("https://:hunter2@a.example/token", "user name"),
            ("https://a.example/token#hunter2", "fragment"),
            ("https://a.example/token?key=hunter2#x", "fragment"),
            ("ftp://a.example/token?key=hunter2", "scheme other"),
            ("javascript://a.example/%0ahunter2", "scheme other"),
        ] {
            let error = parse(bad).unwrap_err();
            let message = error.to_string();
            assert_eq!(error.kind(), TokenErrorKind::Config, "{bad}");
            assert!(message.contains(reason), "{bad}: {message}");
            assert!(
                message.contains("wanted: an absolute URL"),
                "{bad}: {message}"
            );
            assert!(
                !format!("{message}{error:?}").contains("hunter2"),
                "{message}"
            );
        }
        let message = parse("http://u:hunter2@a.example/?hunter2").unwrap_err();
        assert!(!format!("{message}{message:?}").contains("hunter2"));
    }

    #[test]
    fn joining_keeps_the_prefix_and_doubles_no_slash() {
        for (base, path, joined) in [
            (
                "https://a.example",
                "OAuth20/Token",
                "https://a.example/OAuth20/Token",
            ),
            (
                "https://a.example/",
                "/OAuth20/Token",
                "https://a.example/OAuth20/Token",
            ),
            (
                "https://a.example/wow/v2/",
                "OAuth20/Token",
                "https://a.example/wow/v2/OAuth20/Token",
            ),
            (
                "https://a.example/wow/v2",
                "OAuth20/Token",
                "https://a.example/wow/v2/OAuth20/Token",
            ),
            (
                "https://a.example//wow//v2//",
                "//t",
                "https://a.example/wow/v2/t",
            ),
            ("https://a.example/a%20b", "t", "https://a.example/a%20b/t"),
            ("http://localhost:8080", "t", "http://localhost:8080/t"),
            ("https://A.example:443", "", "https://a.example/"),
        ] {
            let url = EndpointUrl::join(base, path).unwrap();
            assert_eq!(url.uri().to_string(), joined);
        }
        let error = EndpointUrl::join("https://a.example/?key=hunter2", "t").unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn the_query_is_sent_and_not_shown() {
        let url = parse("https://a.example:444/t?key=hunter2").unwrap();
        assert_eq!(url.to_string(), "https://a.example:444/t");
        assert_eq!(format!("{url:?}"), "https://a.example:444/t");
        assert_eq!(url.uri(), "https://a.example:444/t?key=hunter2");
        assert_eq!(url.origin(), "https://a.example:444");
    }
}
