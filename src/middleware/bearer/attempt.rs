//! One request on its way through `Retry`: the attempts, the snapshot in between, and what came of each.

use std::{fmt, iter, sync::Arc};

use bytes::{Buf, Bytes};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    header::AUTHORIZATION,
    uri::{self, Authority, PathAndQuery, Scheme},
};
use http_body::Body;
use tower::{BoxError, retry::Policy};

use crate::{
    body::ReplayBody,
    cache::{Issued, SentToken, TokenCache},
    middleware::{drain::Drain, sending::add_current_or},
    zeroize::zeroized,
};

/// One attempt to send a request.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Attempt<B> {
    /// The caller's request, with the token.
    First {
        request: Request<ReplayBody<B>>,
        /// `None`: without a token of ours.
        sent: Option<Sent>,
    },
    /// The same request again, from its snapshot.
    Again(Snapshot<B>),
}

/// The token that a request was sent with, and the cache that it is from.
pub(crate) struct Sent {
    pub(super) token: SentToken,
    pub(super) cache: TokenCache,
}

impl Sent {
    #[inline]
    pub(super) fn new(token: Option<SentToken>, cache: &TokenCache) -> Option<Self> {
        token.map(|token| Self {
            token,
            cache: cache.clone(),
        })
    }
}

/// What came of an attempt.
pub(crate) enum Outcome<B, R> {
    /// The response is for the caller.
    Answered(Response<R>),
    /// The API rejected the token, and everything is there to send the request again. Boxed, because it is rare and would
    /// make every outcome larger. The policy takes it.
    SendAgain(Option<Box<SendAgain<B, R>>>),
}

/// A rejected attempt, and what the next one needs.
pub(crate) struct SendAgain<B, R> {
    pub(super) response: Response<R>,
    pub(super) replay: Box<Replay<B>>,
}

/// What a replay needs beside the snapshot.
pub(crate) struct Replay<B> {
    pub(super) token: NewToken,
    /// The body, which this replay sends from its start: the first attempt no longer can.
    pub(super) body: ReplayBody<B>,
}

/// A newer token, and the cache that it is from. With it, a replay neither waits nor fails for want of one.
pub(crate) struct NewToken {
    pub(super) issued: Arc<Issued>,
    pub(super) cache: TokenCache,
}

impl NewToken {
    /// Adds it to the replay, or the current one, which may be newer still.
    pub(super) fn add_to<B>(self, request: &mut Request<B>) -> Option<Sent> {
        let token = add_current_or(&self.cache, request, &self.issued)?;
        let cache = self.cache;
        Some(Sent { token, cache })
    }
}

/// The policy inside of [`BearerAuth`](crate::BearerAuth), where the service below has decided everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendAgainIfDecided;

impl<B, R> Policy<Attempt<B>, Outcome<B, R>, BoxError> for SendAgainIfDecided
where
    R: Body,
{
    type Future = Drain<R>;

    fn retry(
        &mut self,
        attempt: &mut Attempt<B>,
        result: &mut Result<Outcome<B, R>, BoxError>,
    ) -> Option<Drain<R>> {
        let Ok(Outcome::SendAgain(rejected)) = result else {
            return None;
        };
        let Attempt::Again(snapshot) = attempt else {
            return None;
        };
        let SendAgain { response, replay } = *rejected.take()?;
        snapshot.replay = Some(replay);
        Some(Drain::new(response.into_body()))
    }

    #[inline]
    fn clone_request(&mut self, attempt: &Attempt<B>) -> Option<Attempt<B>> {
        attempt.snapshot()
    }
}

impl<B> Attempt<B> {
    /// What is needed to send the request again. `None` for a request without a token, and for a replay.
    #[inline]
    fn snapshot(&self) -> Option<Self> {
        match self {
            Self::First {
                request,
                sent: Some(_),
            } => Some(Self::Again(Snapshot::of(request))),
            _ => None,
        }
    }
}

impl<B> fmt::Debug for Attempt<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First { .. } => "Attempt::First",
            Self::Again(_) => "Attempt::Again",
        })
    }
}

/// What is kept of a request's head until its response is there, except for the token: its strings, in one buffer.
///
/// Almost no request is rejected, so a snapshot must be cheap to take. Cloning a `HeaderMap` copies header by header. The
/// head is only put together again for a replay.
pub(crate) struct Snapshot<B> {
    method: Method,
    version: Version,
    scheme: Option<Scheme>,
    /// The authority and the path, then the headers.
    strings: StringPairs,
    extensions: Extensions,
    /// Set before the request is sent again.
    replay: Option<Box<Replay<B>>>,
}

impl<B> Snapshot<B> {
    #[inline]
    fn of(request: &Request<ReplayBody<B>>) -> Self {
        let uri = request.uri();
        let authority = uri.authority().map_or("", Authority::as_str);
        let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
        Self {
            method: request.method().clone(),
            version: request.version(),
            scheme: uri.scheme().cloned(),
            strings: StringPairs::of(authority, path, request.headers()),
            extensions: request.extensions().clone(),
            replay: None,
        }
    }

    /// The request again, and the token to send it with.
    pub(super) fn restore(self) -> (Request<ReplayBody<B>>, Option<NewToken>) {
        let (token, body) = match self.replay.map(|replay| *replay) {
            Some(Replay { token, body }) => (Some(token), body),
            None => (None, ReplayBody::default()),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions;
        let mut pairs = self.strings.into_iter();
        let mut uri = uri::Parts::default();
        uri.scheme = self.scheme;
        if let Some((authority, path, _)) = pairs.next() {
            uri.authority = Authority::from_maybe_shared(authority).ok();
            uri.path_and_query = PathAndQuery::from_maybe_shared(path).ok();
        }
        // None of these conversions fails: the strings are from a valid head.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        let headers = request.headers_mut();
        for (name, value, is_sensitive) in pairs {
            if let (Ok(name), Ok(mut value)) = (
                HeaderName::from_bytes(&name),
                HeaderValue::from_maybe_shared(value),
            ) {
                value.set_sensitive(is_sensitive);
                headers.append(name, value);
            }
        }
        (request, token)
    }
}

/// Pairs of strings in one buffer, each as: two lengths, then both strings. The buffer is wiped when it is dropped, if one of
/// the values is sensitive.
struct StringPairs(Bytes);

/// The two lengths before a pair.
const PREFIX: usize = 8;
/// A bit of the second length: the header value is sensitive.
const SENSITIVE: u32 = 1 << 31;

impl StringPairs {
    /// Without `Authorization`: that is the token, and a replay gets another.
    #[inline]
    fn of(authority: &str, path: &str, headers: &HeaderMap) -> Self {
        let mut size = PREFIX + authority.len() + path.len();
        let mut any_sensitive = false;
        for (name, value) in headers {
            if *name == AUTHORIZATION {
                continue;
            }
            size += PREFIX + name.as_str().len() + value.len();
            any_sensitive |= value.is_sensitive();
        }
        // Zeroed first and then filled slice by slice: cheaper than to check the capacity for each string. `vec![0; size]`
        // would ask the allocator for zeroed memory, which it has to fetch anew for small blocks.
        #[allow(clippy::slow_vector_initialization)]
        let mut bytes = {
            let mut bytes = Vec::with_capacity(size);
            bytes.resize(size, 0);
            bytes
        };
        let mut rest = put_pair(&mut bytes, authority.as_bytes(), path.as_bytes(), false);
        for (name, value) in headers {
            if *name == AUTHORIZATION {
                continue;
            }
            let name = name.as_str().as_bytes();
            rest = put_pair(rest, name, value.as_bytes(), value.is_sensitive());
        }
        debug_assert!(rest.is_empty());
        Self(if any_sensitive {
            zeroized(bytes)
        } else {
            Bytes::from(bytes)
        })
    }

    fn into_iter(self) -> impl Iterator<Item = (Bytes, Bytes, bool)> {
        let mut rest = self.0;
        iter::from_fn(move || {
            let (a, b) = (rest.try_get_u32_ne().ok()?, rest.try_get_u32_ne().ok()?);
            let a = rest.split_to(a as usize);
            let is_sensitive = b & SENSITIVE != 0;
            Some((a, rest.split_to((b & !SENSITIVE) as usize), is_sensitive))
        })
    }
}

/// Writes a pair to the start of `buffer`, and returns the rest of it.
#[inline]
fn put_pair<'a>(buffer: &'a mut [u8], a: &[u8], b: &[u8], is_sensitive: bool) -> &'a mut [u8] {
    let flag = if is_sensitive { SENSITIVE } else { 0 };
    let (prefix, rest) = buffer.split_at_mut(PREFIX);
    let (first, second) = prefix.split_at_mut(PREFIX / 2);
    first.copy_from_slice(&length(a).to_ne_bytes());
    second.copy_from_slice(&(length(b) | flag).to_ne_bytes());
    let (start, rest) = rest.split_at_mut(a.len() + b.len());
    let (first, second) = start.split_at_mut(a.len());
    first.copy_from_slice(a);
    second.copy_from_slice(b);
    rest
}

/// Names and URIs have at most 64 KiB in `http`, and a header value of 2 GiB is not sent.
#[allow(clippy::cast_possible_truncation)]
fn length(bytes: &[u8]) -> u32 {
    debug_assert!(bytes.len() < SENSITIVE as usize);
    bytes.len() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Marker(u8);

    fn restored(request: &Request<ReplayBody<String>>) -> Request<ReplayBody<String>> {
        Snapshot::of(request).restore().0
    }

    #[test]
    fn a_snapshot_restores_the_whole_head() {
        let mut secret = HeaderValue::from_static("hush");
        secret.set_sensitive(true);
        let request = Request::post("https://api.example.com/orders?id=1")
            .version(Version::HTTP_2)
            .header("x-many", "one")
            .header("x-many", "two")
            .header("x-secret", secret)
            .header("x-bytes", HeaderValue::from_bytes(b"\xff\xfe").unwrap())
            .header("x-empty", "")
            .extension(Marker(7))
            .body(ReplayBody::new(String::new(), 0))
            .unwrap();
        let original = request.headers().clone();
        let replay = restored(&request);

        assert_eq!(replay.method(), Method::POST);
        assert_eq!(replay.uri(), "https://api.example.com/orders?id=1");
        assert_eq!(replay.version(), Version::HTTP_2);
        assert_eq!(replay.headers(), &original);
        assert_eq!(replay.headers().get_all("x-many").iter().count(), 2);
        assert!(replay.headers()["x-secret"].is_sensitive());
        assert!(!replay.headers()["x-many"].is_sensitive());
        assert_eq!(replay.extensions().get::<Marker>(), Some(&Marker(7)));
    }

    #[test]
    fn any_form_of_uri_is_restored() {
        for uri in [
            "https://api.example.com",
            "https://api.example.com/",
            "https://api.example.com?page=2",
            "http://user@[::1]:8080/a%20b/?q=%2F&r",
            "/orders?id=1",
            "*",
            "api.example.com:443",
            "redis+tls://cache.example:6379/0",
        ] {
            let uri: Uri = uri.parse().unwrap();
            let mut request = Request::new(ReplayBody::new(String::new(), 0));
            *request.uri_mut() = uri.clone();
            let replay = restored(&request);
            assert_eq!(replay.uri(), &uri);
            assert_eq!(replay.uri().to_string(), uri.to_string());
            assert_eq!(replay.uri().scheme(), uri.scheme());
            assert_eq!(replay.uri().authority(), uri.authority());
            assert_eq!(replay.uri().path_and_query(), uri.path_and_query());
        }
    }

    #[test]
    fn a_snapshot_has_no_copy_of_the_token() {
        for others in 0..4 {
            let mut request = Request::new(ReplayBody::new(String::new(), 0));
            let headers = request.headers_mut();
            for number in 0..others {
                let name = HeaderName::try_from(format!("x-header-{number}")).unwrap();
                headers.insert(name, HeaderValue::from_static("value"));
            }
            let without = headers.clone();
            let mut token = HeaderValue::from_static("Bearer hush");
            token.set_sensitive(true);
            headers.insert(AUTHORIZATION, token);
            let snapshot = Snapshot::of(&request);
            let bytes = &snapshot.strings.0;
            assert!(!bytes.windows(4).any(|part| part == b"hush"));
            assert_eq!(snapshot.restore().0.headers(), &without);
        }
    }

    #[test]
    fn no_snapshot_is_taken_of_a_replay() {
        let request = Request::new(ReplayBody::new(String::new(), 0));
        let snapshot = Snapshot::of(&request);
        assert!(Attempt::Again(snapshot).snapshot().is_none());
    }

    #[test]
    fn no_snapshot_is_taken_of_a_request_without_a_token() {
        let request = Request::new(ReplayBody::new(String::new(), 0));
        let sent = None;
        assert!(Attempt::First { request, sent }.snapshot().is_none());
    }

    proptest! {
        #[test]
        fn any_uri_survives_the_snapshot(
            scheme in "(https?|[a-z][a-z0-9+.-]{0,8})?",
            authority in "([a-z%0-9]{1,6}@)?[a-zA-Z0-9.-]{0,12}(:[0-9]{0,5})?",
            path in "(/[ -~\u{e9}]{0,20})?",
        ) {
            let whole = if scheme.is_empty() { path } else { format!("{scheme}://{authority}{path}") };
            let Ok(uri) = whole.parse::<Uri>() else { return Ok(()) };
            let mut request = Request::new(ReplayBody::new(String::new(), 0));
            *request.uri_mut() = uri.clone();
            prop_assert_eq!(restored(&request).uri().to_string(), uri.to_string());
        }

        #[test]
        fn any_headers_survive_the_snapshot(
            pairs in proptest::collection::vec(("[a-z0-9-]{1,40}", "[ -~\u{80}-\u{ff}]{0,200}", any::<bool>()), 0..30),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value, sensitive) in pairs {
                let name = HeaderName::try_from(name).unwrap();
                let mut value = HeaderValue::try_from(value).unwrap();
                value.set_sensitive(sensitive);
                headers.append(name, value);
            }
            let mut request = Request::new(ReplayBody::new(String::new(), 0));
            *request.headers_mut() = headers.clone();
            let replay = restored(&request);
            let headers_again = replay.headers();
            prop_assert_eq!(headers_again, &headers);
            for (name, value) in &headers {
                let same = headers_again.get_all(name).iter().any(|v| v.is_sensitive() == value.is_sensitive());
                prop_assert!(same);
            }
        }
    }
}
