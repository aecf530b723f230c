//! [`InspectBodyFuture`]: the response future.

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

use super::layer::Inspection;
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
        // `None` if the request had no token, or if the response is not inspected.
        inspection: Option<Inspection<P>>,
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
        // The head has arrived, and the beginning of the body is read.
        Beginning {
            response: Option<(Parts, PeekBody<R>)>,
            // Created only if the body is pending.
            timer: Option<Pin<Box<Sleep>>>,
        },
    }
}

impl<F, P, R: Body> InspectBodyFuture<F, P, R> {
    pub(super) fn new(future: F, inspection: Option<Inspection<P>>) -> Self {
        Self {
            state: State::Head { future },
            inspection,
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
                    let limit = match this.inspection {
                        Some(inspection) if inspection.applies_to(&response) => inspection.limit,
                        _ => {
                            *this.inspection = None;
                            0
                        }
                    };
                    let (head, body) = response.into_parts();
                    this.state.set(State::Beginning {
                        response: Some((head, PeekBody::new(body, limit))),
                        timer: None,
                    });
                }
                StateProj::Beginning { response, timer } => {
                    let (_, body) = response
                        .as_mut()
                        .expect("`InspectBodyFuture` polled after completion");
                    if let Some(inspection) = &this.inspection
                        && Pin::new(body).poll_peek(cx).is_pending()
                    {
                        let timer =
                            timer.get_or_insert_with(|| Box::pin(sleep(inspection.timeout)));
                        ready!(timer.as_mut().poll(cx));
                    }
                    let (head, body) = response.take().expect("taken only here");
                    let mut response = Response::from_parts(head, body);
                    let verdict = this.inspection.as_ref().and_then(|inspection| {
                        let beginning = response.body().beginning();
                        (inspection.inspect)(ResponseHead::of(&response), &beginning)
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
