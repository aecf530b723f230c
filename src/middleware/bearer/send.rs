//! What stands between `Retry` and `AddToken`: it holds a rejected response until another token is there.
//!
//! A retry policy must say at once whether to try again, and what it has let go of is gone. So the wait for the token
//! comes first: a caller whose request can't be healed gets the server's own answer, unread.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::attempt::{Attempt, Healed};
use crate::{
    body::{Kept, ReplayBody},
    cache::{Generation, Replacement, Sent, Wait},
    error::{TokenError, TokenErrorKind},
    middleware::add_token::{AddToken, Authorizing, Guard},
    middleware::retry::Replays,
    origins::OriginMatch,
};

#[derive(Clone, Debug)]
pub(super) struct Renew<S> {
    authorize: AddToken<S>,
}

impl<S> Renew<S> {
    pub(super) fn new(authorize: AddToken<S>) -> Self {
        Self { authorize }
    }

    #[inline]
    pub(super) fn judge<B>(&self, request: &Request<B>) -> OriginMatch {
        self.authorize.guard().judge(request)
    }

    pub(super) fn get_ref(&self) -> &S {
        self.authorize.get_ref()
    }

    pub(super) fn get_mut(&mut self) -> &mut S {
        self.authorize.get_mut()
    }

    pub(super) fn into_inner(self) -> S {
        self.authorize.into_inner()
    }
}

impl<S, B, R> Service<Attempt<B>> for Renew<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Renewing<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.authorize.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, attempt: Attempt<B>) -> Self::Future {
        let guard = Arc::clone(self.authorize.guard());
        let (sending, replay) = match attempt {
            Attempt::First { mut request, scope } => {
                let replay = Replay::Possible {
                    method: guard.replays.allow_method(request.method()),
                    body: request.body().kept(),
                };
                let sending = match self.authorize.prepare(&mut request, scope) {
                    Ok(sent) => Authorizing::sent(self.get_mut().call(request), sent),
                    Err(not_yet) => self.authorize.hold(request, not_yet),
                };
                (sending, replay)
            }
            Attempt::Again(snapshot) => {
                let (mut request, by) = snapshot.restore();
                let sent = by.and_then(|by| self.authorize.prepare_again(&mut request, &by));
                let sending = Authorizing::sent(self.get_mut().call(request), sent);
                (sending, Replay::This)
            }
        };
        Renewing {
            state: State::Sending { sending, replay },
            guard,
        }
    }
}

/// Whether an attempt can be followed by another.
enum Replay<B> {
    /// It is one.
    This,
    /// If its method and body allow it.
    Possible { method: bool, body: Kept<B> },
}

pin_project! {
    pub(super) struct Renewing<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: State<S, B, R>,
        guard: Arc<Guard>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        // On its way, or waiting for its first token.
        Sending {
            #[pin]
            sending: Authorizing<S, ReplayBody<B>>,
            replay: Replay<B>,
        },
        // Rejected: the response is kept while the token is replaced. Boxed, since it is rare and large.
        Rejected {
            kept: Option<Box<(Response<R>, Generation)>>,
            wait: Wait,
        },
    }
}

impl<S, B, R> Future for Renewing<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Sending {
                    mut sending,
                    replay,
                } => {
                    let guard = &**this.guard;
                    let polled = sending.as_mut().poll(cx);
                    let Poll::Ready(Ok(response)) = &polled else {
                        return polled;
                    };
                    let rejection = |sent: &Sent| guard.rejects(response, *sent);
                    let Some(sent) = sending.sent_with().filter(rejection) else {
                        answered(replay, guard);
                        return polled;
                    };
                    let response = ready!(polled)?;
                    let wait = match rejected(sent.generation, replay, guard) {
                        Ok(Replacement::Coming(wait)) => wait,
                        Ok(Replacement::Here(by)) => {
                            return Poll::Ready(Ok(with(response, Healed(by))));
                        }
                        Err(reason) => return Poll::Ready(Ok(with(response, reason))),
                    };
                    this.state.set(State::Rejected {
                        kept: Some(Box::new((response, sent.generation))),
                        wait,
                    });
                }
                StateProj::Rejected { kept, wait } => {
                    let outcome = ready!(Pin::new(wait).poll(cx));
                    let (response, rejected) = *kept.take().expect("polled after completion");
                    let outcome = outcome.and_then(|new| new.replaces(rejected).map(|()| new));
                    return Poll::Ready(Ok(match outcome {
                        Ok(by) => with(response, Healed(by)),
                        Err(reason) => with(response, reason),
                    }));
                }
            }
        }
    }
}

#[inline]
fn answered<B>(replay: &Replay<B>, guard: &Guard) {
    if let Replay::This = replay {
        guard.cache.replay_accepted();
        guard.replays.deposit();
    }
}

/// The token that the request can be sent again with, or what to wait for; or why it won't be.
#[cold]
fn rejected<B>(
    generation: Generation,
    replay: &Replay<B>,
    guard: &Guard,
) -> Result<Replacement, TokenError> {
    match replay {
        Replay::This => {
            guard.cache.replay_rejected(generation);
            let reason = "the token that replaced a rejected one was rejected as well";
            Err(TokenError::new(TokenErrorKind::Rejected, reason))
        }
        Replay::Possible { method, body } => {
            // The token is replaced also for those who come after, whether or not this one can be healed.
            let replacement = guard.cache.replacement(generation);
            Replays::allow(*method, body.can_replay())?;
            replacement
        }
    }
}

#[cold]
fn with<R, T>(mut response: Response<R>, note: T) -> Response<R>
where
    T: Clone + Send + Sync + 'static,
{
    response.extensions_mut().insert(note);
    response
}
