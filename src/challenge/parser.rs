//! A lenient parser of `WWW-Authenticate` (RFC 9110 §11.6.1) that allocates nothing.
//!
//! The crate `http-auth` (0.1) rejects a whole header for a token68 (`Negotiate abc==, Bearer …`), a character beyond
//! ASCII in a quoted string, two spaces or a tab after a scheme, a missing comma before a parameter, or a URL without
//! quotes (`authorization_uri=https://…`). Each of these is valid or seen in the field, and would hide the challenge
//! that matters. This parser accepts them all, without guessing.

use std::iter;

/// An element of a list of challenges, in the order of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A new challenge begins.
    Scheme(&'a [u8]),
    /// A parameter of the last challenge, which may be in an earlier header line (RFC 9110 §5.3).
    Param(&'a [u8], Value<'a>),
}

/// The raw value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Plain(&'a [u8]),
    /// The text between the quotes, with its quoted pairs (RFC 9110 §5.6.4).
    Quoted(&'a [u8]),
}

/// The rest of the header can't be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Value<'_> {
    /// Whether the value is `text`, which must be in lower case; the case of the value is ignored.
    pub(super) fn is(self, text: &str) -> bool {
        self.bytes()
            .map(|b| b.to_ascii_lowercase())
            .eq(text.bytes())
    }

    /// The value as text. `None` if it is longer than `limit`, or has a character that is not visible ASCII or a space.
    pub(super) fn text(self, limit: usize) -> Option<Box<str>> {
        if self.is_longer_than(limit) {
            return None;
        }
        let is_shown = |b: u8| b.is_ascii_graphic() || b == b' ';
        let chars = self.bytes().map(|b| is_shown(b).then_some(char::from(b)));
        chars
            .collect::<Option<String>>()
            .map(String::into_boxed_str)
    }

    pub(super) fn is_longer_than(self, limit: usize) -> bool {
        let (Self::Plain(raw) | Self::Quoted(raw)) = self;
        raw.len() > limit
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        let (raw, quoted) = match self {
            Self::Plain(raw) => (raw, false),
            Self::Quoted(raw) => (raw, true),
        };
        let mut raw = raw.iter().copied();
        iter::from_fn(move || match raw.next() {
            Some(b'\\') if quoted => raw.next(),
            other => other,
        })
    }
}

/// The challenges of one header line, up to the first part that can't be parsed.
pub(super) fn challenges(line: &[u8]) -> impl Iterator<Item = Result<Part<'_>, Malformed>> {
    let mut parser = Parser { rest: line };
    iter::from_fn(move || {
        let part = parser.next();
        if let Some(Err(Malformed)) = part {
            parser.rest = &[];
        }
        part
    })
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<Result<Part<'a>, Malformed>> {
        self.take_while(|b| is_space(b) || b == b',');
        if self.rest.is_empty() {
            return None;
        }
        let name = self.take_while(is_token);
        let spaces = self.take_while(is_space);
        Some(match self.rest.first() {
            _ if name.is_empty() => Err(Malformed),
            Some(b'=') => {
                self.rest = &self.rest[1..];
                self.take_while(is_space);
                self.value().map(|value| Part::Param(name, value))
            }
            Some(&b) if b != b',' && spaces.is_empty() => Err(Malformed),
            _ => {
                self.skip_token68();
                Ok(Part::Scheme(name))
            }
        })
    }

    fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let Some(b'"') = self.rest.first() else {
            // More characters than in a token, for URLs that should have been quoted.
            let plain = self.take_while(|b| !is_space(b) && !matches!(b, b',' | b'"'));
            return Ok(Value::Plain(plain));
        };
        let inside = &self.rest[1..];
        let mut escaped = false;
        for (at, &b) in inside.iter().enumerate() {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.rest = &inside[at + 1..];
                    return Ok(Value::Quoted(&inside[..at]));
                }
                _ => {}
            }
        }
        Err(Malformed)
    }

    /// Skips a token68 (RFC 9110 §11.2), which is the only part of its challenge: `abc=`, but not `abc=x` or `abc =x`.
    fn skip_token68(&mut self) {
        let start = self.rest;
        self.take_while(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        self.take_while(|b| b == b'=');
        self.take_while(is_space);
        if !matches!(self.rest.first(), None | Some(b',')) {
            self.rest = start;
        }
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&b| !wanted(b));
        let (taken, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// RFC 9110 §5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests;
