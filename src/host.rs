//! [`Host`]: the host of a URL, and whether it is this machine.
//!
//! There is one rule for all URLs: those of token endpoints, allowed origins and requests.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// The host of a URL: a name in ASCII, or an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host<S> {
    Name(S),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl<'a> Host<&'a str> {
    /// Parses a host as it stands in a URL: IPv6 addresses in brackets.
    ///
    /// Stricter than browsers: percent-encoded names are rejected, and so are the other forms of IPv4 addresses, such as
    /// `127.1`, `0x7f000001` or `0177.0.0.1`. Resolvers and URL parsers disagree on them.
    ///
    /// # Errors
    ///
    /// The reason, in words that follow "the URL".
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        if let Some(rest) = text.strip_prefix('[') {
            let address = rest
                .strip_suffix(']')
                .ok_or("is malformed: its IPv6 address has no closing bracket")?;
            return address
                .parse()
                .map(Self::V6)
                .map_err(|_| "is malformed: its IPv6 address is invalid");
        }
        if text.is_empty() {
            return Err("has no host");
        }
        if !text.is_ascii() {
            return Err(
                "has a host with characters outside ASCII; write it in punycode (`xn--...`)",
            );
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::V4(address));
        }
        let labels = text.strip_suffix('.').unwrap_or(text);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if labels.split('.').any(str::is_empty) || !labels.bytes().all(allowed) {
            return Err("is malformed: its host is neither a domain name nor an IP address");
        }
        if labels.rsplit('.').next().is_some_and(is_number) {
            return Err(
                "is malformed: write its IPv4 address as four decimal numbers, like 127.0.0.1",
            );
        }
        Ok(Self::Name(text))
    }

    /// The same host with its name in lower case and owned.
    pub(crate) fn normalized(self) -> Host<Box<str>> {
        match self {
            Self::Name(name) => Host::Name(name.to_ascii_lowercase().into()),
            Self::V4(address) => Host::V4(address),
            Self::V6(address) => Host::V6(address),
        }
    }
}

/// Whether browsers take a last label like this for a part of an IPv4 address.
fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

impl<S: AsRef<str>> Host<S> {
    /// Whether this host is this machine: `localhost`, a name below `localhost` (RFC 6761 §6.3), `127.0.0.0/8` or
    /// `[::1]`.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name
                .as_ref()
                .rsplit('.')
                .next()
                .is_some_and(|last| last.eq_ignore_ascii_case("localhost")),
            Self::V4(address) => address.is_loopback(),
            Self::V6(address) => address.is_loopback(),
        }
    }

    /// Whether `other` is the same host. The case of names does not matter.
    pub(crate) fn is_same<T: AsRef<str>>(&self, other: &Host<T>) -> bool {
        match (self, other) {
            (Self::Name(a), Host::Name(b)) => a.as_ref().eq_ignore_ascii_case(b.as_ref()),
            (Self::V4(a), Host::V4(b)) => a == b,
            (Self::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }
}

impl<S: fmt::Display> fmt::Display for Host<S> {
    /// Writes the host as it stands in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// Splits `host` or `host:port`. An empty port counts as none.
///
/// # Errors
///
/// The reason, in words that follow "the URL".
pub(crate) fn split_port(text: &str) -> Result<(Host<&str>, Option<u16>), &'static str> {
    // Colons within brackets belong to an IPv6 address.
    let name_end = text.rfind(']').map_or(0, |bracket| bracket + 1);
    let end = text[name_end..]
        .find(':')
        .map_or(text.len(), |colon| name_end + colon);
    let (host, port) = text.split_at(end);
    let host = Host::parse(host)?;
    let port = match port.strip_prefix(':').unwrap_or(port) {
        "" => None,
        // `parse` alone would accept a sign.
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| INVALID_PORT)?)
        }
        _ => return Err(INVALID_PORT),
    };
    Ok((host, port))
}

const INVALID_PORT: &str = "is malformed: its port is not a number from 0 to 65535";

/// The port of a URL that names none.
pub(crate) fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for loopback in [
            "localhost",
            "LocalHost",
            "auth.localhost",
            "127.0.0.1",
            "127.9.8.7",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
        ] {
            assert!(Host::parse(loopback).unwrap().is_loopback(), "{loopback}");
        }
        for other in [
            "localhost.",
            "localhost.example",
            "notlocalhost",
            "128.0.0.1",
            "0.0.0.0",
            "127.evil",
            "[::2]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(!Host::parse(other).unwrap().is_loopback(), "{other}");
        }
    }

    #[test]
    fn a_host_that_could_be_read_in_two_ways_is_rejected() {
        for (text, reason) in [
            ("", "no host"),
            ("b\u{fc}cher.example", "punycode"),
            ("127.1", "four decimal numbers"),
            ("0x7f.1", "four decimal numbers"),
            ("0x7f000001", "four decimal numbers"),
            ("0X", "four decimal numbers"),
            ("2130706433", "four decimal numbers"),
            ("0177.0.0.1", "four decimal numbers"),
            ("127.0.0.1.", "four decimal numbers"),
            ("127.0.0.256", "four decimal numbers"),
            ("ex%61mple.com", "neither"),
            ("*.example.com", "neither"),
            ("<a>", "neither"),
            ("a..example", "neither"),
            (".example", "neither"),
            (".", "neither"),
            ("[::1", "bracket"),
            ("[::1]x", "bracket"),
            ("[::1%25lo]", "IPv6"),
            ("[localhost]", "IPv6"),
        ] {
            let error = Host::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_port_is_a_number_or_absent() {
        for (text, port) in [
            ("a.example", None),
            ("a.example:", None),
            ("a.example:0443", Some(443)),
            ("[::1]:9", Some(9)),
            ("[::1]", None),
        ] {
            assert_eq!(split_port(text).unwrap().1, port, "{text}");
        }
        for text in ["a:+1", "a:65536", "a:x", "a:1:2", "[::1]9", "::1"] {
            assert!(split_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_compare_without_case_and_across_spellings() {
        let same = |a, b| Host::parse(a).unwrap().is_same(&Host::parse(b).unwrap());
        assert!(same("A.Example", "a.example"));
        assert!(same("[2001:db8:0::a]", "[2001:DB8::A]"));
        assert!(!same("a.example.", "a.example"));
        assert!(!same("[::ffff:127.0.0.1]", "127.0.0.1"));
    }
}
