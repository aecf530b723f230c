//! One request on its way, and what is kept of it in case it must go again.

use std::{fmt, sync::Arc};

use bytes::{Buf, Bytes};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
};

use super::policy::not_kept;
use crate::{authorize::Scope, body::ReplayBody, cache::{Generation, Issued}, error::TokenError};

/// A request on its way to the service: as the caller sent it, or from the snapshot.
pub(crate) struct Attempt<B> {
    head: Head,
    body: ReplayBody<B>,
    pub(crate) scope: Scope,
    /// The token that a replay was held for.
    by: Option<Arc<Issued>>,
}

enum Head {
    Original(http::request::Parts),
    Snapshot(Snapshot),
}

impl<B> Attempt<B> {
    #[inline]
    pub(crate) fn new(request: Request<ReplayBody<B>>, scope: Scope) -> Self {
        let (head, body) = request.into_parts();
        Self {
            head: Head::Original(head),
            body,
            scope,
            by: None,
        }
    }

    /// What is needed to send it again; nothing for a request that has no token, or has been sent again already.
    #[inline]
    pub(crate) fn snapshot(&self) -> Option<Self> {
        match &self.head {
            Head::Original(head) if self.scope == Scope::Inside => Some(Self {
                head: Head::Snapshot(Snapshot::of(head)),
                body: self.body.clone(),
                scope: self.scope,
                by: None,
            }),
            _ => None,
        }
    }

    /// From here on there is no way back to the refused response. So the body must be ours before that is let go of: the
    /// first attempt may still be sending it, and exceed the limit a moment later. And the token that came goes with
    /// it, so that the replay needs none that could fail to come.
    pub(crate) fn begin_replay(&mut self, by: Arc<Issued>) -> Result<(), TokenError> {
        if !self.body.take_over() {
            return Err(not_kept());
        }
        self.by = Some(by);
        Ok(())
    }

    pub(crate) fn token(&self) -> Option<&Arc<Issued>> {
        self.by.as_ref()
    }

    pub(crate) fn is_replay(&self) -> bool {
        matches!(self.head, Head::Snapshot(_))
    }

    pub(crate) fn body(&self) -> &ReplayBody<B> {
        &self.body
    }

    #[inline]
    pub(crate) fn method(&self) -> &Method {
        match &self.head {
            Head::Original(head) => &head.method,
            Head::Snapshot(snapshot) => &snapshot.method,
        }
    }

    #[inline]
    pub(crate) fn into_request(self) -> Request<ReplayBody<B>> {
        match self.head {
            Head::Original(head) => Request::from_parts(head, self.body),
            Head::Snapshot(snapshot) => snapshot.restore(self.body),
        }
    }
}

impl<B> fmt::Debug for Attempt<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("is_replay", &self.is_replay())
            .finish_non_exhaustive()
    }
}

/// The head of a request, its headers in one buffer.
///
/// Almost no request is refused, so what is taken from each must cost little: a `HeaderMap` would be cloned header by
/// header. It is only put together again for a replay.
struct Snapshot {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    headers: Flat,
}

impl Snapshot {
    #[inline]
    fn of(head: &http::request::Parts) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            extensions: head.extensions.clone(),
            headers: Flat::of(&head.headers),
        }
    }

    fn restore<B>(self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions;
        *request.headers_mut() = self.headers.restore();
        request
    }
}

/// Headers one after the other: the length of the name, that of the value, then both.
struct Flat {
    bytes: Vec<u8>,
    count: usize,
}

/// What precedes a header: two lengths.
const PREFIX: usize = 8;
/// Set in the length of a value that must not be shown.
const SENSITIVE: u32 = 1 << 31;

impl Flat {
    #[inline]
    fn of(headers: &HeaderMap) -> Self {
        let size = headers
            .iter()
            .map(|(name, value)| PREFIX + name.as_str().len() + value.len())
            .sum();
        let mut bytes = Vec::with_capacity(size);
        for (name, value) in headers {
            let name = name.as_str().as_bytes();
            let sensitive = if value.is_sensitive() { SENSITIVE } else { 0 };
            bytes.extend_from_slice(&length(name).to_ne_bytes());
            bytes.extend_from_slice(&(length(value.as_bytes()) | sensitive).to_ne_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value.as_bytes());
        }
        Self {
            bytes,
            count: headers.len(),
        }
    }

    fn restore(self) -> HeaderMap {
        let mut rest = Bytes::from(self.bytes);
        let mut headers = HeaderMap::with_capacity(self.count);
        while rest.len() >= PREFIX {
            let name_len = rest.get_u32_ne() as usize;
            let value_len = rest.get_u32_ne();
            let name = HeaderName::from_bytes(&rest.split_to(name_len));
            let value = rest.split_to((value_len & !SENSITIVE) as usize);
            // Both were a name and a value before.
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_maybe_shared(value)) {
                value.set_sensitive(value_len & SENSITIVE != 0);
                headers.append(name, value);
            }
        }
        headers
    }
}

/// `http` keeps names within 64 KiB, and no server takes a head of 2 GiB.
#[allow(clippy::cast_possible_truncation)]
fn length(bytes: &[u8]) -> u32 {
    debug_assert!(bytes.len() < SENSITIVE as usize);
    bytes.len() as u32
}

/// Marks a response that was refused for its token, on its way from `Authorize` to the policy.
#[derive(Clone, Debug)]
pub(crate) struct Refused(pub(crate) Generation);

/// What came of an attempt.
pub(crate) enum Answer<R> {
    /// The caller's.
    Final(Response<R>),
    /// Refused for its token, and another token is there: to be sent again if that can be.
    Healed {
        response: Option<Response<R>>,
        by: Arc<Issued>,
    },
}

impl<R> Answer<R> {
    pub(crate) fn into_response(self) -> Response<R> {
        match self {
            Self::Final(response) => response,
            // Only the policy takes it, and then sends again.
            Self::Healed { response, .. } => response.expect("taken only to be replayed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Marker(u8);

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
            .body(ReplayBody::new(String::from("body"), 0))
            .unwrap();
        let original = request.headers().clone();
        let attempt = Attempt::new(request, Scope::Inside);
        let replay = attempt.snapshot().unwrap().into_request();

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
    fn what_was_sent_again_is_not_kept_once_more() {
        let request = Request::new(ReplayBody::new(String::new(), 0));
        let attempt = Attempt::new(request, Scope::Inside);
        let replay = attempt.snapshot().unwrap();
        assert!(replay.is_replay());
        assert!(replay.snapshot().is_none());
    }

    #[test]
    fn what_has_no_token_is_not_kept() {
        let request = Request::new(ReplayBody::new(String::new(), 0));
        assert!(Attempt::new(request, Scope::Outside).snapshot().is_none());
    }

    proptest! {
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
            let restored = Flat::of(&headers).restore();
            prop_assert_eq!(&restored, &headers);
            for (name, value) in &headers {
                let same = restored.get_all(name).iter().any(|v| v.is_sensitive() == value.is_sensitive());
                prop_assert!(same);
            }
        }
    }
}
