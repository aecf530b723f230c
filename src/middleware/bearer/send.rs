//! [`SendWithToken`]: the service that `Retry` calls for each attempt.
//!
//! ```text
//!   send ──► response ──► is the token rejected, or ───────── no ──► Answered
//!                         is more needed than it has?
//!                             │ yes: report it; a refresh or a step-up starts or runs
//!                             ▼
//!                    can the request be sent again? ───────── no ──► Answered
//!                             │ yes
//!                             ▼
//!                    wait for the new token, and hold the
//!                    response unread ───────────────────── failed ──► Answered
//!                             │ a newer token
//!                             ▼
//!                    is the budget left, and the body kept? ─ no ──► Answered
//!                             │ yes
//!                             ▼
//!                         SendAgain
//! ```
//!
//! If more is needed and the token is rejected as well, both are reported: the wait is for the step-up, and for a refresh if
//! that fails.
//!
//! After a rejection, `Answered` carries the reason in the response's extensions. After `SendAgain`, the policy drains the
//! rejected response, and `Retry` calls this service again.
//!
//! The wait is here because the response must be held meanwhile, and `Retry` drops it before it polls the policy's future.

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

use super::{
    attempt::{Attempt, NewToken, Outcome, Replay, SendAgain, Sent},
    replay::CanReplay,
};
use crate::{
    body::{REPLAY_LIMIT, ReplayBody},
    cache::{Issued, Lookup, SentToken, TokenCache, Waiter},
    challenge::Challenge,
    error::TokenError,
    middleware::{
        retry::{ReplaySettings, more_needed_again, rejected_again},
        sending::{Objection, SendSettings},
    },
};

/// What a layer sets for all its sessions.
#[derive(Clone, Debug)]
pub(super) struct BearerSettings {
    pub(super) send: SendSettings,
    pub(super) replays: ReplaySettings,
    pub(super) replay_limit: usize,
}

impl Default for BearerSettings {
    fn default() -> Self {
        Self {
            send: SendSettings::default(),
            replays: ReplaySettings::default(),
            replay_limit: REPLAY_LIMIT,
        }
    }
}

/// Sends one attempt. If the API rejects its token, holds the response until the refresh has ended or `max_wait` has passed.
#[derive(Clone, Debug)]
pub(crate) struct SendWithToken<S> {
    pub(super) inner: S,
    pub(super) settings: Arc<BearerSettings>,
}

impl<S, B, R> Service<Attempt<B>> for SendWithToken<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Outcome<B, R>;
    type Error = BoxError;
    type Future = SendWithTokenFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, attempt: Attempt<B>) -> Self::Future {
        let settings = Arc::clone(&self.settings);
        let (request, sent, can_replay) = match attempt {
            Attempt::First { request, sent } => {
                let can_replay = CanReplay::Once {
                    method_allowed: settings.replays.allow_method(request.method()),
                    body: request.body().snapshot(),
                };
                (request, sent, can_replay)
            }
            Attempt::Again(snapshot) => {
                let (mut request, token) = snapshot.restore();
                let sent = token.and_then(|token| token.add_to(&mut request));
                (request, sent, CanReplay::Never)
            }
        };
        SendWithTokenFuture {
            state: State::Sent {
                future: self.inner.call(request),
                sent,
                can_replay: Some(can_replay),
            },
            settings,
        }
    }
}

pin_project! {
    pub(crate) struct SendWithTokenFuture<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: State<S::Future, B, R>,
        settings: Arc<BearerSettings>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B, R> {
        // The inner service has the request.
        Sent {
            #[pin]
            future: F,
            // `None`: without a token of ours.
            sent: Option<Sent>,
            can_replay: Option<CanReplay<B>>,
        },
        // Rejected: the response is held, unread, while the token is replaced.
        AwaitingToken {
            held: Option<Box<HeldResponse<B, R>>>,
            waiter: Waiter,
        },
    }
}

/// A rejected attempt. Boxed, because it is rare and would make every future larger.
struct HeldResponse<B, R> {
    response: Response<R>,
    rejected: SentToken,
    cache: TokenCache,
    can_replay: CanReplay<B>,
}

impl<S, B, R> Future for SendWithTokenFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Outcome<B, R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Sent {
                    future,
                    sent,
                    can_replay,
                } => {
                    let settings = &**this.settings;
                    let response = match ready!(future.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => {
                            if let (Some(CanReplay::Never), Some(Sent { token, cache })) =
                                (can_replay, sent)
                            {
                                cache.replay_failed(Some(*token));
                            }
                            return Poll::Ready(Err(error.into()));
                        }
                    };
                    let check = |Sent { token, cache }: &Sent| {
                        settings.send.check_response(cache, &response, *token)
                    };
                    let Some(objection) = sent.as_ref().and_then(check) else {
                        if let (Some(CanReplay::Never), Some(Sent { token, cache })) =
                            (can_replay, sent)
                        {
                            cache.replay_accepted(Some(*token));
                            settings.replays.deposit();
                        }
                        return Poll::Ready(Ok(Outcome::Answered(response)));
                    };
                    let Sent { token, cache } = sent.take().expect("polled after completion");
                    let held = HeldResponse {
                        response,
                        rejected: token.or_to(settings.send.origins(&cache).single()),
                        cache,
                        can_replay: can_replay.take().expect("polled after completion"),
                    };
                    let looked_up = match objection {
                        Objection::Rejected(challenge) => {
                            held.look_up_replacement(challenge, settings)
                        }
                        Objection::NeedsMore {
                            challenge,
                            is_rejected,
                        } => held.look_up_more(challenge, is_rejected, settings),
                    };
                    match looked_up {
                        Err(outcome) => return Poll::Ready(Ok(outcome)),
                        Ok((held, waiter)) => this.state.set(State::AwaitingToken {
                            held: Some(Box::new(held)),
                            waiter,
                        }),
                    }
                }
                StateProj::AwaitingToken { held, waiter } => {
                    let token = ready!(Pin::new(waiter).poll(cx));
                    let held = held.take().expect("polled after completion");
                    return Poll::Ready(Ok(held.finish(token, this.settings)));
                }
            }
        }
    }
}

impl<B, R> HeldResponse<B, R> {
    /// Reports the rejection, which starts a refresh. Returns the waiter if the request is to wait for it, else the outcome.
    #[cold]
    fn look_up_replacement(
        self,
        challenge: Option<Arc<Challenge>>,
        settings: &BearerSettings,
    ) -> Result<(Self, Waiter), Outcome<B, R>> {
        let cache = &self.cache;
        if matches!(self.can_replay, CanReplay::Never) {
            cache.replay_rejected(self.rejected);
            return Err(answered_with(self.response, rejected_again()));
        }
        // The token is replaced for later requests too, whether or not this one can be sent again.
        let lookup = cache.replacement(self.rejected, challenge);
        if let Err(reason) = self.can_replay.check() {
            return Err(self.not_replayed(reason));
        }
        self.wait_or_finish(lookup, settings)
    }

    /// Reports that the API asks for more, which starts a step-up. Returns the waiter if the request is to wait for it, else the
    /// outcome. If the API rejects the token as well, reports that, too.
    #[cold]
    fn look_up_more(
        self,
        challenge: Arc<Challenge>,
        is_rejected: bool,
        settings: &BearerSettings,
    ) -> Result<(Self, Waiter), Outcome<B, R>> {
        tracing::debug!("more permission needed");
        let cache = &self.cache;
        if matches!(self.can_replay, CanReplay::Never) {
            if is_rejected {
                cache.replay_rejected(self.rejected);
            } else {
                // The token is good, as far as the API says.
                cache.replay_accepted(Some(self.rejected));
                settings.replays.deposit();
            }
            return Err(answered_with(self.response, more_needed_again()));
        }
        let lookup = cache.more(self.rejected, &challenge);
        if is_rejected {
            // It waits for the step-up. If that fails, or was refused, a refresh replaces the token.
            return self.look_up_replacement(Some(challenge), settings);
        }
        if let Err(reason) = self.can_replay.check() {
            return Err(self.not_replayed(reason));
        }
        self.wait_or_finish(lookup, settings)
    }

    fn wait_or_finish(
        self,
        lookup: Lookup,
        settings: &BearerSettings,
    ) -> Result<(Self, Waiter), Outcome<B, R>> {
        match lookup {
            Lookup::Ready(token) => Err(self.finish(Ok(token), settings)),
            Lookup::Wait(waiter) => Ok((self, waiter)),
            Lookup::Failed(reason) => Err(self.not_replayed(reason)),
        }
    }

    /// Answers the request with the reason why it is not sent again.
    fn not_replayed(self, reason: TokenError) -> Outcome<B, R> {
        self.cache.not_replayed(self.rejected, &reason);
        answered_with(self.response, reason)
    }

    /// Sends the request again if a newer token is there, or answers it with the reason.
    #[cold]
    fn finish(
        self,
        token: Result<Arc<Issued>, TokenError>,
        settings: &BearerSettings,
    ) -> Outcome<B, R> {
        let Self {
            response,
            rejected,
            cache,
            can_replay,
        } = self;
        let replay = token.and_then(|issued| {
            issued.check_differs_from(rejected.generation)?;
            let body = can_replay.claim(&settings.replays)?;
            let cache = cache.clone();
            let token = NewToken { issued, cache };
            Ok(Box::new(Replay { token, body }))
        });
        match replay {
            Ok(replay) => Outcome::SendAgain(Some(Box::new(SendAgain { response, replay }))),
            Err(reason) => {
                cache.not_replayed(rejected, &reason);
                answered_with(response, reason)
            }
        }
    }
}

/// The server's own response, with the reason why the request is not sent again.
fn answered_with<B, R>(mut response: Response<R>, reason: TokenError) -> Outcome<B, R> {
    response.extensions_mut().insert(reason);
    Outcome::Answered(response)
}
