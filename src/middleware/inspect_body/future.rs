//! The future of `InspectBody`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Response, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::layer::Judge;
use crate::{
    body::PeekBody,
    challenge::{ResponseHead, Verdict},
};

pin_project! {
    /// Response future of [`InspectBody`](super::InspectBody).
    #[must_use = "futures do nothing unless polled"]
    pub struct InspectBodyFuture<F, P, R: Body> {
        #[pin]
        state: State<F, R>,
        // Nobody, if there was no token to be rejected.
        judge: Option<Judge<P>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R: Body> {
        // The inner service has the request.
        Head {
            #[pin]
            future: F,
        },
        // The head is there, and the beginning of the body is read.
        Beginning {
            answer: Option<(Parts, PeekBody<R>)>,
            // Only a body that makes us wait needs a timer.
            patience: Option<Pin<Box<Sleep>>>,
        },
    }
}

impl<F, P, R: Body> InspectBodyFuture<F, P, R> {
    pub(super) fn new(future: F, judge: Option<Judge<P>>) -> Self {
        Self {
            state: State::Head { future },
            judge,
        }
    }
}

impl<F, P, R, E> Future for InspectBodyFuture<F, P, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    P: Fn(ResponseHead<'_>, &[u8]) -> Option<Verdict>,
    R: Body + Unpin,
{
    type Output = Result<Response<PeekBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Head { future } => {
                    let response = ready!(future.poll(cx))?;
                    let limit = match this.judge {
                        Some(judge) if judge.wants(&response) => judge.limit,
                        _ => {
                            *this.judge = None;
                            0
                        }
                    };
                    let (head, body) = response.into_parts();
                    this.state.set(State::Beginning {
                        answer: Some((head, PeekBody::new(body, limit))),
                        patience: None,
                    });
                }
                StateProj::Beginning { answer, patience } => {
                    let (_, body) = answer.as_mut().expect("polled after completion");
                    if let Some(judge) = &this.judge
                        && Pin::new(body).poll_peek(cx).is_pending()
                    {
                        let limit = patience.get_or_insert_with(|| Box::pin(sleep(judge.patience)));
                        ready!(limit.as_mut().poll(cx));
                    }
                    let (head, body) = answer.take().expect("just looked at");
                    let mut response = Response::from_parts(head, body);
                    let verdict = this.judge.as_ref().and_then(|judge| {
                        let beginning = response.body().beginning();
                        (judge.predicate)(ResponseHead::of(&response), &beginning)
                    });
                    if let Some(verdict) = verdict {
                        response.extensions_mut().insert(verdict);
                    }
                    return Poll::Ready(Ok(response));
                }
            }
        }
    }
}

impl<F, P, R: Body> fmt::Debug for InspectBodyFuture<F, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectBodyFuture").finish_non_exhaustive()
    }
}
