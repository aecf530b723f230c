//! [`HttpUrl`]: an absolute URL from a configuration, split into its parts.

use std::fmt::Write;

use crate::host::{Host, default_port, split_port};

/// An absolute URL from a configuration, split into its parts.
///
/// Stricter than the URL standard of browsers: text that could be read in two ways is an error, because secrets go where
/// the URL points. For example, browsers read `https:///token` as the host `token`.
#[derive(Debug)]
pub(crate) struct HttpUrl<'a> {
    /// In lower case.
    pub(crate) scheme: String,
    pub(crate) has_user: bool,
    pub(crate) host: Host<Box<str>>,
    /// `None` if the URL names no port, or the default one of its scheme.
    pub(crate) port: Option<u16>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) has_fragment: bool,
}

impl<'a> HttpUrl<'a> {
    /// Parses `text`. White space around it is ignored.
    ///
    /// # Errors
    ///
    /// The reason, in words that follow "the URL". It repeats nothing of `text`, which may be a secret pasted into the
    /// wrong field.
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err("has white space, a control character or a backslash");
        }
        let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
        let mut letters = scheme.bytes();
        if !letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            || !letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        {
            return Err("has no scheme");
        }
        let scheme = scheme.to_ascii_lowercase();
        let (rest, has_fragment) = match rest.split_once('#') {
            Some((rest, _)) => (rest, true),
            None => (rest, false),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (has_user, host_port) = match authority.rsplit_once('@') {
            Some((_, host_port)) => (true, host_port),
            None => (false, authority),
        };
        let (host, port) = split_port(host_port)?;
        let default = match &*scheme {
            "https" => Some(default_port(true)),
            "http" => Some(default_port(false)),
            _ => None,
        };
        Ok(Self {
            scheme,
            has_user,
            host: host.normalized(),
            port: port.filter(|port| Some(*port) != default),
            path,
            query,
            has_fragment,
        })
    }

    /// Host and port in their usual form: the name in lower case, no default port.
    pub(crate) fn authority(&self) -> String {
        let mut authority = self.host.to_string();
        if let Some(port) = self.port {
            let _ = write!(authority, ":{port}");
        }
        authority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_and_normalized() {
        let url = HttpUrl::parse(" HTTPS://API.Example.com:443/a//b?c=d/e?f#g\n").unwrap();
        assert_eq!(url.scheme, "https");
        assert_eq!(url.authority(), "api.example.com");
        assert_eq!((url.path, url.query), ("/a//b", Some("c=d/e?f")));
        assert!(url.has_fragment && !url.has_user);

        let url = HttpUrl::parse("http://a:b@[0:0::1]:8080?x").unwrap();
        assert_eq!(url.authority(), "[::1]:8080");
        assert_eq!((url.path, url.query), ("", Some("x")));
        assert!(url.has_user && !url.has_fragment);
    }

    #[test]
    fn an_ambiguous_url_is_rejected() {
        for (text, reason) in [
            ("", "no scheme"),
            ("a.example", "no scheme"),
            ("https:a.example", "no scheme"),
            ("://a.example", "no scheme"),
            ("1s://a.example", "no scheme"),
            ("https://", "no host"),
            ("https:///a", "no host"),
            ("https://?a", "no host"),
            ("https://#a", "no host"),
            ("https://:443", "no host"),
            ("https://a.example\\@b.example", "backslash"),
            ("https://a\texample", "white space"),
            ("https://b\u{fc}cher.example", "punycode"),
        ] {
            let error = HttpUrl::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
