//! One request on its way, and what is kept of it in case it must go again.

use std::{fmt, iter, sync::Arc};

use bytes::{Buf, Bytes};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    uri::{self, Authority, PathAndQuery, Scheme},
};

use crate::middleware::retry::not_kept;
use crate::{
    body::ReplayBody,
    cache::{Generation, Issued},
    error::TokenError,
    origins::OriginMatch,
};

/// A request on its way to the service.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Attempt<B> {
    /// As the caller sent it.
    First {
        request: Request<ReplayBody<B>>,
        scope: OriginMatch,
    },
    /// From the snapshot that was taken of it.
    Again(Snapshot<B>),
}

impl<B> Attempt<B> {
    /// What is needed to send it again; nothing for a request that has no token, or has been sent again already.
    #[inline]
    pub(crate) fn snapshot(&self) -> Option<Self> {
        match self {
            Self::First {
                request,
                scope: OriginMatch::Allowed,
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

/// What is kept of a request until its answer is there: the strings of its head in one buffer, and the body.
///
/// Almost no request is rejected, so what is taken from each must cost little: a `HeaderMap` would be cloned header by
/// header. It is only put together again for a replay.
pub(crate) struct Snapshot<B> {
    method: Method,
    version: Version,
    scheme: Option<Scheme>,
    /// The authority and the path, then the headers.
    strings: Pairs,
    extensions: Extensions,
    body: ReplayBody<B>,
    /// The token that a replay was held for.
    by: Option<Arc<Issued>>,
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
            strings: Pairs::of(authority, path, request.headers()),
            extensions: request.extensions().clone(),
            body: request.body().clone(),
            by: None,
        }
    }

    /// From here on there is no way back to the rejected response. So the body must be ours before that is let go of: the
    /// first attempt may still be sending it, and exceed the limit a moment later. And the token that came goes with
    /// it, so that the replay needs none that could fail to come.
    pub(crate) fn begin_replay(&mut self, by: Arc<Issued>) -> Result<(), TokenError> {
        if !self.body.take_over() {
            return Err(not_kept());
        }
        self.by = Some(by);
        Ok(())
    }

    /// The request as it was, and the token to send it with.
    pub(crate) fn restore(self) -> (Request<ReplayBody<B>>, Option<Arc<Issued>>) {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions;
        let mut strings = self.strings.into_iter();
        let mut uri = uri::Parts::default();
        uri.scheme = self.scheme;
        if let Some((authority, path, _)) = strings.next() {
            uri.authority = Authority::from_maybe_shared(authority).ok();
            uri.path_and_query = PathAndQuery::from_maybe_shared(path).ok();
        }
        // They were parts of one before.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        let headers = request.headers_mut();
        for (name, value, sensitive) in strings {
            // Both were a name and a value before.
            if let (Ok(name), Ok(mut value)) = (
                HeaderName::from_bytes(&name),
                HeaderValue::from_maybe_shared(value),
            ) {
                value.set_sensitive(sensitive);
                headers.append(name, value);
            }
        }
        (request, self.by)
    }
}

/// Pairs of strings one after the other: both lengths, then both.
struct Pairs(Vec<u8>);

/// What precedes a pair: two lengths.
const PREFIX: usize = 8;
/// Set in the second length for a value that must not be shown.
const SENSITIVE: u32 = 1 << 31;

impl Pairs {
    #[inline]
    fn of(authority: &str, path: &str, headers: &HeaderMap) -> Self {
        let mut size = PREFIX + authority.len() + path.len();
        for (name, value) in headers {
            size += PREFIX + name.as_str().len() + value.len();
        }
        // Zeroed, and then filled slice by slice: that costs less than to ask at each string whether there is room. And not by
        // `vec!`: an allocator keeps small blocks at hand, but not zeroed ones.
        #[allow(clippy::slow_vector_initialization)]
        let mut bytes = {
            let mut bytes = Vec::with_capacity(size);
            bytes.resize(size, 0);
            bytes
        };
        let mut room = put_pair(&mut bytes, authority.as_bytes(), path.as_bytes(), false);
        for (name, value) in headers {
            let name = name.as_str().as_bytes();
            room = put_pair(room, name, value.as_bytes(), value.is_sensitive());
        }
        debug_assert!(room.is_empty());
        Self(bytes)
    }

    fn into_iter(self) -> impl Iterator<Item = (Bytes, Bytes, bool)> {
        let mut rest = Bytes::from(self.0);
        iter::from_fn(move || {
            let (a, b) = (rest.try_get_u32_ne().ok()?, rest.try_get_u32_ne().ok()?);
            let a = rest.split_to(a as usize);
            let sensitive = b & SENSITIVE != 0;
            Some((a, rest.split_to((b & !SENSITIVE) as usize), sensitive))
        })
    }
}

/// Writes a pair at the beginning of the room, and gives back the rest of it.
#[inline]
fn put_pair<'a>(room: &'a mut [u8], a: &[u8], b: &[u8], sensitive: bool) -> &'a mut [u8] {
    let mark = if sensitive { SENSITIVE } else { 0 };
    let room = put(room, &length(a).to_ne_bytes());
    let room = put(room, &(length(b) | mark).to_ne_bytes());
    put(put(room, a), b)
}

#[inline]
fn put<'a>(room: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (here, rest) = room.split_at_mut(bytes.len());
    here.copy_from_slice(bytes);
    rest
}

/// `http` keeps names and URIs within 64 KiB, and no server takes a head of 2 GiB.
#[allow(clippy::cast_possible_truncation)]
fn length(bytes: &[u8]) -> u32 {
    debug_assert!(bytes.len() < SENSITIVE as usize);
    bytes.len() as u32
}

/// Marks a response that was rejected for its token, on its way from `AddToken` to the policy.
#[derive(Clone, Debug)]
pub(crate) struct Rejected(pub(crate) Generation);

/// Marks a rejected response for which another token is there: the request is to be sent again, if that can be.
#[derive(Clone, Debug)]
pub(crate) struct Healed(pub(crate) Arc<Issued>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Marker(u8);

    fn snapshot(
        request: Request<ReplayBody<String>>,
        scope: OriginMatch,
    ) -> Option<Snapshot<String>> {
        match (Attempt::First { request, scope }).snapshot()? {
            Attempt::Again(snapshot) => Some(snapshot),
            Attempt::First { .. } => panic!("a snapshot is not the original"),
        }
    }

    fn again(request: Request<ReplayBody<String>>) -> Request<ReplayBody<String>> {
        snapshot(request, OriginMatch::Allowed).unwrap().restore().0
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
        let replay = again(request);

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
    fn the_snapshot_is_of_any_uri() {
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
            let replay = again(request);
            assert_eq!(replay.uri(), &uri);
            assert_eq!(replay.uri().to_string(), uri.to_string());
            assert_eq!(replay.uri().scheme(), uri.scheme());
            assert_eq!(replay.uri().authority(), uri.authority());
            assert_eq!(replay.uri().path_and_query(), uri.path_and_query());
        }
    }

    #[test]
    fn what_was_sent_again_is_not_kept_once_more() {
        let snapshot = snapshot(
            Request::new(ReplayBody::new(String::new(), 0)),
            OriginMatch::Allowed,
        )
        .unwrap();
        assert!(Attempt::Again(snapshot).snapshot().is_none());
    }

    #[test]
    fn what_has_no_token_is_not_kept() {
        for scope in [OriginMatch::NotAllowed, OriginMatch::Insecure] {
            assert!(snapshot(Request::new(ReplayBody::new(String::new(), 0)), scope).is_none());
        }
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
            prop_assert_eq!(again(request).uri().to_string(), uri.to_string());
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
            let replay = again(request);
            let restored = replay.headers();
            prop_assert_eq!(restored, &headers);
            for (name, value) in &headers {
                let same = restored.get_all(name).iter().any(|v| v.is_sensitive() == value.is_sensitive());
                prop_assert!(same);
            }
        }
    }
}
