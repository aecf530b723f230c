//! One request, sent with the token: what [`AddToken`](crate::AddToken) and [`BearerAuth`](crate::BearerAuth) have in common.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, Entry},
};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

mod held;

pub(super) use self::held::HeldRequest;
#[cfg(feature = "sessions")]
pub(super) use self::held::give_back_readiness;
use super::extensions::WithoutToken;
use crate::{
    cache::{Issued, Lookup, SentToken, TokenCache, Waiter},
    challenge::{Challenge, ClassifyRejection, ResponseHead, StandardRejections, Verdict},
    error::{TokenError, TokenErrorKind},
    origins::{OriginMatch, Origins},
};

/// Which requests get the token, and which responses reject it.
#[derive(Clone, Default)]
pub(super) struct SendSettings {
    /// `None`: those of the cache.
    pub(super) origins: Option<Origins>,
    /// `None` is the default classifier, which is then called directly.
    pub(super) classifier: Option<Arc<dyn ClassifyRejection>>,
}

impl SendSettings {
    /// Where tokens of `cache` may be sent.
    #[inline]
    pub(super) fn origins<'a>(&'a self, cache: &'a TokenCache) -> &'a Origins {
        self.origins.as_ref().unwrap_or_else(|| cache.origins())
    }

    /// Returns what the API has against the token, if anything. If it accepts the token, tells the cache.
    #[inline]
    pub(super) fn check_response<R>(
        &self,
        cache: &TokenCache,
        response: &Response<R>,
        sent: SentToken,
    ) -> Option<Objection> {
        let head = ResponseHead::of(response);
        let verdict = match &self.classifier {
            None => StandardRejections.classify(head),
            Some(classifier) => classifier.classify(head),
        };
        match verdict {
            Verdict::Accepted => {
                if !sent.is_settled() {
                    cache.accept(sent);
                }
                None
            }
            Verdict::Rejected => objection(cache, head, true),
            Verdict::Forbidden | Verdict::Unrelated if cache.step_up().is_some() => {
                objection(cache, head, false)
            }
            Verdict::Forbidden | Verdict::Unrelated => None,
        }
    }

    /// Adds the token of `cache` to a request that may have it. Returns the token that was added.
    #[inline]
    pub(super) fn prepare<B>(
        &self,
        cache: &TokenCache,
        request: &mut Request<B>,
    ) -> Result<Option<SentToken>, NotReady> {
        let origin = if request.extensions().get::<WithoutToken>().is_some() {
            OriginMatch::NotAllowed
        } else {
            self.origins(cache).check(request.uri())
        };
        if origin == OriginMatch::Allowed
            && let Some(sent) = cache.read(|issued| add_token(issued, request))
        {
            cache.request_sent(sent);
            return Ok(Some(sent));
        }
        prepare_without_usable_token(cache, request, origin)
    }
}

/// What an API has against the token of a request.
pub(super) enum Objection {
    /// It rejects the token.
    Rejected(Option<Arc<Challenge>>),
    /// It asks for more, as the cache allows it to.
    NeedsMore {
        challenge: Arc<Challenge>,
        /// It rejects the token as well. If there is no more, another token may help.
        is_rejected: bool,
    },
}

#[cold]
fn objection(cache: &TokenCache, head: ResponseHead<'_>, is_rejected: bool) -> Option<Objection> {
    let may_ask = matches!(head.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        // A layer below knows that the response says nothing about the token, as after a redirect to another origin.
        && head.extensions.get::<Verdict>() != Some(&Verdict::Unrelated);
    if !may_ask && !is_rejected {
        return None;
    }
    let challenge = Challenge::from_headers(head.headers).map(Arc::new);
    if may_ask
        && let (Some(step_up), Some(challenge)) = (cache.step_up(), &challenge)
        && step_up.concerns(challenge)
    {
        let challenge = Arc::clone(challenge);
        return Some(Objection::NeedsMore {
            challenge,
            is_rejected,
        });
    }
    is_rejected.then_some(Objection::Rejected(challenge))
}

#[cold]
fn prepare_without_usable_token<B>(
    cache: &TokenCache,
    request: &mut Request<B>,
    origin: OriginMatch,
) -> Result<Option<SentToken>, NotReady> {
    if origin == OriginMatch::NotAllowed || has_authorization(request.headers()) {
        return Ok(None);
    }
    if origin == OriginMatch::Insecure {
        let message =
            "the request would send the token over plain http; use https or a loopback address";
        let error = TokenError::new(TokenErrorKind::InsecureOrigin, message);
        return Err(NotReady::Failed(error));
    }
    match cache.lookup() {
        Lookup::Ready(issued) => {
            Ok(add_token(&issued, request).inspect(|sent| cache.request_sent(*sent)))
        }
        Lookup::Wait(waiter) => Err(NotReady::Wait(waiter)),
        Lookup::Failed(error) => Err(NotReady::Failed(error)),
    }
}

/// Adds the current token to a request, or `awaited`, which it has waited for, if the current token does not help. So the
/// request does not wait a second time.
pub(super) fn add_current_or<B>(
    cache: &TokenCache,
    request: &mut Request<B>,
    awaited: &Issued,
) -> Option<SentToken> {
    let sent = cache.read_or(awaited, |issued| add_token(issued, request))?;
    cache.request_sent(sent);
    Some(sent)
}

impl fmt::Debug for SendSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendSettings")
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}

/// Why a request cannot be sent at once: the two answers of a [`Lookup`] that are not a token.
pub(super) enum NotReady {
    Wait(Waiter),
    Failed(TokenError),
}

pin_project! {
    /// Sends one request, once there is a token for it.
    pub(super) struct Sending<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        // The inner service has the request.
        Sent {
            #[pin]
            future: F,
            // `None`: without a token of ours.
            sent: Option<SentToken>,
        },
        // Boxed, because it is rare and would make every future larger.
        Held {
            held: Box<HeldRequest<S, B>>,
        },
    }
}

impl<S, B> Sending<S, B>
where
    S: Service<Request<B>>,
{
    /// The inner service has the request.
    #[inline]
    pub(super) fn sent(future: S::Future, sent: Option<SentToken>) -> Self {
        Self {
            state: State::Sent { future, sent },
        }
    }

    /// The request cannot be sent yet.
    #[cold]
    pub(super) fn held(held: HeldRequest<S, B>) -> Self {
        Self {
            state: State::Held {
                held: Box::new(held),
            },
        }
    }

    /// The token that the request was sent with, if it is one of ours.
    #[inline]
    pub(super) fn sent_token(&self) -> Option<SentToken> {
        match self.state {
            State::Sent { sent, .. } => sent,
            State::Held { .. } => None,
        }
    }
}

impl<S, B, R> Future for Sending<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sent { future, .. } => return future.poll(cx).map_err(Into::into),
                StateProj::Held { held } => {
                    let (inner, request, sent, _) = ready!(held.poll_send::<Request<B>>(cx))?;
                    let future = inner.call(request);
                    state.set(State::Sent { future, sent });
                }
            }
        }
    }
}

/// Whether the caller has set an `Authorization`, which then stays as it is.
#[inline]
pub(super) fn has_authorization(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION)
}

#[inline]
fn add_token<B>(issued: &Issued, request: &mut Request<B>) -> Option<SentToken> {
    let is_added = add_authorization(request.headers_mut(), issued.header());
    is_added.then(|| issued.sent_to(request.uri()))
}

/// Adds `value`, unless the caller has set an `Authorization`. Then it returns `false`.
#[inline]
fn add_authorization(headers: &mut HeaderMap, value: &HeaderValue) -> bool {
    match headers.entry(AUTHORIZATION) {
        Entry::Vacant(entry) => {
            entry.insert(value.clone());
            true
        }
        Entry::Occupied(_) => false,
    }
}

#[cfg(test)]
mod tests;
