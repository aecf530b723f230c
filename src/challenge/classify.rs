//! Classifies responses by what they say about the token of the request.

use http::{Extensions, HeaderMap, Response, StatusCode, header};

use super::parser::{Malformed, Part, challenges};

/// Decides whether a response rejects the token of its request.
///
/// The default is [`StandardRejections`]. An API that reports a bad token in another way needs a classifier of its own; a
/// closure is enough.
///
/// [`Rejected`](Verdict::Rejected) costs a refresh and a second request, so the first request must have had no effect.
/// If it may have had one, or if a new token would not change the result, return another verdict.
///
/// [`Accepted`](Verdict::Accepted) is believed whatever the status is. It disproves an earlier rejection, while tokens that
/// were never accepted make further refreshes slower. So return [`Unrelated`](Verdict::Unrelated) for responses that prove
/// nothing, such as most errors.
///
/// # Examples
///
/// Netatmo answers 403 when a token has expired. Elsewhere 403 means that no token of this session allows the request:
///
/// ```
/// use http::{Response, StatusCode};
/// use tower_bearer::{StandardRejections, ClassifyRejection, ResponseHead, Verdict};
///
/// let netatmo = |head: ResponseHead<'_>| match head.status {
///     StatusCode::FORBIDDEN => Verdict::Rejected,
///     _ => StandardRejections.classify(head),
/// };
///
/// let response = Response::builder().status(403).body(())?;
/// assert_eq!(netatmo.classify(ResponseHead::of(&response)), Verdict::Rejected);
/// assert_eq!(StandardRejections.classify(ResponseHead::of(&response)), Verdict::Unrelated);
/// # Ok::<(), http::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't tell whether a response rejects the token",
    label = "this doesn't implement `ClassifyRejection`",
    note = "a closure `|head: ResponseHead<'_>| -> Verdict` is one, if it is `Send + Sync + 'static`"
)]
pub trait ClassifyRejection: Send + Sync + 'static {
    /// Returns what the response says about the token. It is called for every response, so it should be cheap.
    fn classify(&self, head: ResponseHead<'_>) -> Verdict;
}

/// The parts of a response that are known before its body is read.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The extensions, where layers below may have left a [`Verdict`].
    pub extensions: &'a Extensions,
}

impl<'a> ResponseHead<'a> {
    /// The head of `response`.
    #[inline]
    pub fn of<B>(response: &'a Response<B>) -> Self {
        Self {
            status: response.status(),
            headers: response.headers(),
            extensions: response.extensions(),
        }
    }
}

/// What a response says about the token of its request.
///
/// A layer below can decide: [`StandardRejections`] returns the verdict that it finds in a response's extensions.
///
/// A service below that follows redirects should do so. If another origin has answered, which usually has not received the
/// token, its 401 is no rejection: insert [`Unrelated`](Verdict::Unrelated). `ReqwestTransport` does that itself. For
/// tower-http's `FollowRedirect`, compare its `RequestUri` with the request's URI. Better still, put the redirects above the
/// layer, which then decides for each request whether the token may go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The API accepted the token.
    Accepted,
    /// The token is no longer valid, but a new one may be. A new one is obtained, and the request is sent again if it
    /// can be.
    Rejected,
    /// The token is known, and does not allow this request. A new token of the same session would not either.
    Forbidden,
    /// The response says nothing about the token: a server error, a missing resource, a gRPC stream that has just
    /// begun.
    Unrelated,
}

impl<F> ClassifyRejection for F
where
    F: Fn(ResponseHead<'_>) -> Verdict + Send + Sync + 'static,
{
    #[inline]
    fn classify(&self, head: ResponseHead<'_>) -> Verdict {
        self(head)
    }
}

/// The default [`ClassifyRejection`]: what the standards say.
///
/// | Response | Verdict |
/// |---|---|
/// | any, with a [`Verdict`] in its extensions | that verdict: a layer below knows more, such as [`InspectBodyLayer`](crate::InspectBodyLayer) |
/// | 401, `WWW-Authenticate: Bearer error="invalid_token"` (RFC 6750 §3.1) | `Rejected` |
/// | 401, `Bearer` with `insufficient_scope`, `invalid_request` or `insufficient_user_authentication` (RFC 9470 §3) | `Forbidden`: the same session yields no better token |
/// | 401, `Bearer` without an error, or with one that isn't in the standards | `Rejected`: many servers send no more for an expired token |
/// | 401, `Negotiate` or `NTLM` without `Bearer`, or `DPoP` alone | `Forbidden`: a bearer token does not help |
/// | 401, other schemes without `Bearer`, such as `Basic` or `Token` | `Rejected`: many frameworks name only their first scheme |
/// | 401, without a challenge or with an unreadable one | `Rejected`: against RFC 9110 §15.5.2, but common |
/// | `content-type: application/grpc…` and `grpc-status: 16` in the headers | `Rejected`: `UNAUTHENTICATED`, and nothing was begun |
/// | other responses with `content-type: application/grpc…` | `Unrelated`: the status 200 comes before the result |
/// | other 2xx | `Accepted` |
/// | all others | `Unrelated` |
///
/// If one of several `Bearer` challenges has `invalid_token`, the verdict is `Rejected`.
///
/// A 403 is no rejection: the server knows the caller and forbids the request (RFC 9110 §15.5.4). A new token of the
/// same session would be forbidden too, and each such request would cost a refresh. A token that has more is another matter:
/// see [`TokenCacheBuilder::step_up`](crate::TokenCacheBuilder::step_up). 400, 404, 409 and 422 are about the
/// request, not about the token.
///
/// # Examples
///
/// ```
/// use http::Response;
/// use tower_bearer::{StandardRejections, ClassifyRejection, ResponseHead, Verdict};
///
/// let response = Response::builder()
///     .status(401)
///     .header("www-authenticate", r#"Basic realm="x", Bearer error="insufficient_scope""#)
///     .body(())?;
///
/// assert_eq!(StandardRejections.classify(ResponseHead::of(&response)), Verdict::Forbidden);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StandardRejections;

impl ClassifyRejection for StandardRejections {
    #[inline]
    fn classify(&self, head: ResponseHead<'_>) -> Verdict {
        if let Some(verdict) = head.extensions.get::<Verdict>() {
            *verdict
        } else if head.status == StatusCode::UNAUTHORIZED {
            classify_challenges(head.headers)
        } else if is_grpc(head.headers) {
            if is_unauthenticated(head.headers) {
                Verdict::Rejected
            } else {
                Verdict::Unrelated
            }
        } else if head.status.is_success() {
            Verdict::Accepted
        } else {
            Verdict::Unrelated
        }
    }
}

/// Whether the content type is one of gRPC's.
#[inline]
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..GRPC.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Whether these headers or trailers have gRPC's status `UNAUTHENTICATED`.
pub(crate) fn is_unauthenticated(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|code| code == "16")
}

#[cold]
fn classify_challenges(headers: &HeaderMap) -> Verdict {
    let challenges = read_challenges(headers);
    match (challenges.bearer, challenges.others) {
        (Some(verdict), _) => verdict,
        (None, Others::Connection | Others::Dpop) if challenges.is_readable => Verdict::Forbidden,
        (None, _) => Verdict::Rejected,
    }
}

/// Whether challenges are named, and `Bearer` is not among them.
pub(crate) fn has_only_other_schemes(headers: &HeaderMap) -> bool {
    let challenges = read_challenges(headers);
    challenges.bearer.is_none() && challenges.others != Others::None && challenges.is_readable
}

/// What the challenges of a response say.
struct Challenges {
    is_readable: bool,
    /// The verdict of the `Bearer` challenges, if there are any.
    bearer: Option<Verdict>,
    others: Others,
}

/// The schemes besides `Bearer`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    None,
    /// `Negotiate` or `NTLM` (RFC 4559), perhaps among others. They authenticate a user of a domain.
    Connection,
    /// `DPoP` and no other (RFC 9449 §7.1).
    Dpop,
    /// Others, of which none is a connection scheme.
    Any,
}

impl Others {
    fn and(self, name: &[u8]) -> Self {
        let is = |scheme: &[u8]| name.eq_ignore_ascii_case(scheme);
        if self == Self::Connection || is(b"Negotiate") || is(b"NTLM") {
            Self::Connection
        } else if self != Self::Any && is(b"DPoP") {
            Self::Dpop
        } else {
            Self::Any
        }
    }
}

fn read_challenges(headers: &HeaderMap) -> Challenges {
    let mut found = Challenges {
        is_readable: true,
        bearer: None,
        others: Others::None,
    };
    // Kept across lines: several header lines are one list (RFC 9110 §5.3).
    let mut scheme = None;
    let lines = headers.get_all(header::WWW_AUTHENTICATE).iter();
    for part in lines.flat_map(|line| challenges(line.as_bytes())) {
        match part {
            Ok(Part::Scheme(name)) if name.eq_ignore_ascii_case(b"Bearer") => {
                scheme = Some(Scheme::Bearer);
                found.bearer.get_or_insert(Verdict::Rejected);
            }
            Ok(Part::Scheme(name)) => {
                scheme = Some(Scheme::Other);
                found.others = found.others.and(name);
            }
            Ok(Part::Param(name, value)) => match scheme {
                Some(Scheme::Bearer) if name.eq_ignore_ascii_case(b"error") => {
                    if value.is("invalid_token") {
                        found.bearer = Some(Verdict::Rejected);
                        return found;
                    }
                    if FORBIDDEN_ERRORS
                        .iter()
                        .any(|forbidden_error| value.is(forbidden_error))
                    {
                        found.bearer = Some(Verdict::Forbidden);
                    }
                }
                Some(_) => {}
                None => found.is_readable = false,
            },
            Err(Malformed) => found.is_readable = false,
        }
    }
    found
}

enum Scheme {
    Bearer,
    Other,
}

/// Errors that a new token of the same session would get again.
const FORBIDDEN_ERRORS: [&str; 3] = [
    "insufficient_scope",
    "invalid_request",
    "insufficient_user_authentication",
];

#[cfg(test)]
mod tests;
