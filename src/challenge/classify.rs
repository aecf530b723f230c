//! What counts as a rejection of the token.

use http::{Extensions, HeaderMap, Response, StatusCode, header};

use super::parser::{Malformed, Part, challenges};

/// Tells whether an answer rejects the token that was sent.
///
/// The default is [`BearerChallenge`]. Servers that tell it otherwise need one of their own; a closure will do.
///
/// A rejection costs a refresh and a second request, and must mean that the first one had no effect: for what may have
/// been done already, or for a rule of the business that a new token can't bend, the answer is
/// [`Accepted`](Verdict::Accepted).
///
/// # Examples
///
/// Netatmo says 403 when a token has expired, which elsewhere means that nobody with any token may do this:
///
/// ```
/// use http::{Response, StatusCode};
/// use tower_bearer::{BearerChallenge, ClassifyRejection, ResponseHead, Verdict};
///
/// let netatmo = |head: ResponseHead<'_>| match head.status {
///     StatusCode::FORBIDDEN => Verdict::Rejected,
///     _ => BearerChallenge.classify(head),
/// };
///
/// let answer = Response::builder().status(403).body(())?;
/// assert_eq!(netatmo.classify(ResponseHead::of(&answer)), Verdict::Rejected);
/// assert_eq!(BearerChallenge.classify(ResponseHead::of(&answer)), Verdict::Accepted);
/// # Ok::<(), http::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't tell whether a response rejects the token",
    label = "this is no classifier of responses",
    note = "a closure `|head: ResponseHead<'_>| -> Verdict` is one, if it is `Send + Sync + 'static`"
)]
pub trait ClassifyRejection: Send + Sync + 'static {
    /// What the answer says about the token. Called for every answer, so it should decide quickly.
    fn classify(&self, head: ResponseHead<'_>) -> Verdict;
}

/// What is known of an answer before its body is read.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// What layers below have left with the answer.
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

    /// Whether an answer with this verdict shows that the token is good. A gRPC answer begins with 200 whatever comes.
    #[inline]
    pub(crate) fn proves_token(self, verdict: Verdict) -> bool {
        verdict == Verdict::Accepted && self.status.is_success() && !is_grpc(self.headers)
    }
}

/// What an answer says about the token that was sent.
///
/// A layer below can tell: [`BearerChallenge`] obeys a verdict that it finds in a response's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing: the answer is the caller's, whatever it is.
    Accepted,
    /// The token is no longer good, and a new one may be.
    Rejected,
    /// The request is rejected, and a new token of the same kind would be, too: the answer is the caller's.
    Forbidden,
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
/// | The answer | is |
/// |---|---|
/// | any, with a [`Verdict`] in its extensions | that verdict: a layer below knows more, such as [`InspectBodyLayer`](crate::InspectBodyLayer) |
/// | 401, `WWW-Authenticate: Bearer error="invalid_token"` (RFC 6750 §3.1) | `Rejected` |
/// | 401, `Bearer` with `insufficient_scope`, `invalid_request` or `insufficient_user_authentication` (RFC 9470 §3) | `Forbidden`: the same session yields no other token |
/// | 401, `Bearer` without an error, or one that isn't in the standards | `Rejected`: many servers say no more for an expired token |
/// | 401, challenges but none of them `Bearer` | `Forbidden`: the server wants something else than a token |
/// | 401, without a challenge or with one that can't be read | `Rejected`: against RFC 9110 §15.5.2, but common |
/// | `content-type: application/grpc…` and `grpc-status: 16` in the headers | `Rejected`: `UNAUTHENTICATED`, and nothing was begun |
/// | all others | `Accepted` |
///
/// If one of several `Bearer` challenges says `invalid_token`, that decides.
///
/// A 403 is no rejection: the server knows who asks, and forbids it (RFC 9110 §15.5.4); a new token for the same
/// session would be forbidden the same, at the price of a refresh for every such request. Nor are 400, 404, 409 or 422,
/// which are answers of the business.
///
/// # Examples
///
/// ```
/// use http::Response;
/// use tower_bearer::{BearerChallenge, ClassifyRejection, ResponseHead, Verdict};
///
/// let answer = Response::builder()
///     .status(401)
///     .header("www-authenticate", r#"Basic realm="x", Bearer error="insufficient_scope""#)
///     .body(())?;
///
/// assert_eq!(BearerChallenge.classify(ResponseHead::of(&answer)), Verdict::Forbidden);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BearerChallenge;

impl ClassifyRejection for BearerChallenge {
    #[inline]
    fn classify(&self, head: ResponseHead<'_>) -> Verdict {
        if let Some(verdict) = head.extensions.get::<Verdict>() {
            *verdict
        } else if head.status == StatusCode::UNAUTHORIZED {
            judge_challenges(head.headers)
        } else if is_grpc(head.headers) && is_unauthenticated(head.headers) {
            Verdict::Rejected
        } else {
            Verdict::Accepted
        }
    }
}

#[inline]
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..GRPC.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Whether these headers or trailers tell of gRPC's `UNAUTHENTICATED`.
pub(crate) fn is_unauthenticated(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|code| code == "16")
}

#[cold]
fn judge_challenges(headers: &HeaderMap) -> Verdict {
    let mut readable = true;
    let mut others = false;
    let mut bearer = None;
    // Across lines: several are one list (RFC 9110 §5.3).
    let mut scheme = None;
    let lines = headers.get_all(header::WWW_AUTHENTICATE).iter();
    for part in lines.flat_map(|line| challenges(line.as_bytes())) {
        match part {
            Ok(Part::Scheme(name)) if name.eq_ignore_ascii_case(b"Bearer") => {
                scheme = Some(Scheme::Bearer);
                bearer.get_or_insert(Verdict::Rejected);
            }
            Ok(Part::Scheme(_)) => {
                scheme = Some(Scheme::Other);
                others = true;
            }
            Ok(Part::Param(name, value)) => match scheme {
                Some(Scheme::Bearer) if name.eq_ignore_ascii_case(b"error") => {
                    if value.is("invalid_token") {
                        return Verdict::Rejected;
                    }
                    if FORBIDDEN_ERRORS
                        .iter()
                        .any(|forbidden_error| value.is(forbidden_error))
                    {
                        bearer = Some(Verdict::Forbidden);
                    }
                }
                Some(_) => {}
                None => readable = false,
            },
            Err(Malformed) => readable = false,
        }
    }
    match bearer {
        Some(verdict) => verdict,
        None if others && readable => Verdict::Forbidden,
        None => Verdict::Rejected,
    }
}

enum Scheme {
    Bearer,
    Other,
}

/// Errors that a new token of the same session can't heal.
const FORBIDDEN_ERRORS: [&str; 3] = [
    "insufficient_scope",
    "invalid_request",
    "insufficient_user_authentication",
];

#[cfg(test)]
mod tests;
