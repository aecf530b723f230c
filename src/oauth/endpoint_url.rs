//! Where secrets may be posted.

use url::{Host, Url};

use crate::error::{TokenError, TokenErrorKind};

const WANTED: &str = "wanted: an absolute URL such as https://authorize.example.com/oauth/token";

/// The address of a token endpoint, if secrets may be posted there.
///
/// No message repeats the text: it may be a secret pasted into the wrong place.
pub(crate) fn parse(text: &str) -> Result<Url, TokenError> {
    let text = text.trim();
    let reject = |why: &str| {
        TokenError::new(
            TokenErrorKind::Config,
            format!("the token endpoint's URL {why}; {WANTED}"),
        )
    };
    // The URL standard reads these leniently: `https:///token` would post the secrets to a host called "token".
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(reject(
            "has white space, a control character or a backslash",
        ));
    }
    match text.split_once("://") {
        None => return Err(reject("has no scheme")),
        Some((_, rest)) if rest.starts_with('/') => return Err(reject("has no host")),
        Some(_) => {}
    }
    let url = Url::parse(text).map_err(|error| reject(&format!("is malformed: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(reject("has a scheme other than https"));
    }
    let Some(host) = url.host() else {
        return Err(reject("has no host"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(reject(
            "has a user name or password; say who the client is by `client_auth`",
        ));
    }
    if url.fragment().is_some() {
        return Err(reject(
            "has a fragment, which no server sees (RFC 6749 §3.2)",
        ));
    }
    if url.scheme() == "http" && !is_loopback(&host) {
        return Err(TokenError::new(
            TokenErrorKind::InsecureOrigin,
            format!(
                "the token endpoint at http://{host} would get its secrets in clear; use https"
            ),
        ));
    }
    Ok(url)
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// `path` below `base`, whose own path is kept whether or not it ends with a slash.
pub(crate) fn join(base: &str, path: &str) -> Result<Url, TokenError> {
    let mut url = parse(base)?;
    if url.query().is_some() {
        return Err(TokenError::new(
            TokenErrorKind::Config,
            "the base URL of the token endpoint has a query; wanted: scheme, host and path only",
        ));
    }
    let kept: String = [url.path(), path]
        .iter()
        .flat_map(|path| path.split('/'))
        .filter(|segment| !segment.is_empty())
        .flat_map(|segment| ["/", segment])
        .collect();
    url.set_path(&kept);
    Ok(url)
}

/// The address without its query, which may hold a secret.
pub(super) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_posted_over_https_or_to_this_machine() {
        for good in [
            "https://authorize.example.com/OAuth/Token",
            "  https://authorize.example.com/OAuth/Token\n",
            "HTTPS://AddToken.Example.com",
            "https://10.0.0.1:8443/token?tenant=7",
            "http://localhost:8080/token",
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
    fn what_is_no_address_is_rejected_with_the_reason() {
        for (bad, reason) in [
            ("", "no scheme"),
            ("authorize.example.com/token", "no scheme"),
            ("/token", "no scheme"),
            ("https:authorize.example.com", "no scheme"),
            ("https://", "empty host"),
            ("https:///token", "no host"),
            ("https://[::1/token", "IPv6"),
            ("https://exa mple.com/token", "white space"),
            ("https://exa\nmple.com/token", "white space"),
            ("https://a.example\\@b.example/token", "backslash"),
            ("https://a.example:99999/token", "port"),
            ("https://a b/token", "white space"),
            ("https://<a>/token", "malformed"),
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
        ] {
            assert_eq!(join(base, path).unwrap().as_str(), joined);
        }
        let error = join("https://a.example/?key=hunter2", "t").unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn the_query_is_not_shown() {
        let url = parse("https://a.example:444/t?key=hunter2").unwrap();
        assert_eq!(shown(&url), "https://a.example:444/t");
    }
}
