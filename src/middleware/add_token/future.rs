//! The future of [`AddToken`](super::AddToken).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::service::AddTokenSettings;
use crate::{
    cache::Lookup,
    middleware::{
        extensions::TokenRejected,
        sending::{Objection, Sending},
    },
};

pin_project! {
    /// Response future of [`AddToken`](crate::AddToken).
    #[must_use = "futures do nothing unless polled"]
    pub struct AddTokenFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        sending: Sending<S, B>,
        settings: Arc<AddTokenSettings>,
    }
}

impl<S, B> AddTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn new(sending: Sending<S, B>, settings: Arc<AddTokenSettings>) -> Self {
        Self { sending, settings }
    }
}

impl<S, B, R> Future for AddTokenFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let AddTokenSettings { cache, send } = &**this.settings;
        let mut polled = this.sending.as_mut().poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Some(sent) = this.sending.sent_token()
            && let Some(objection) = send.check_response(cache, response, sent)
        {
            let sent = sent.or_to(send.origins(cache).single());
            match objection {
                Objection::Rejected(challenge) => {
                    // Reported at once, so that the next request and a policy above find the refresh running.
                    cache.reject_sent(sent, challenge);
                    response.extensions_mut().insert(TokenRejected::new(sent));
                }
                Objection::NeedsMore {
                    challenge,
                    is_rejected,
                } => {
                    let more = cache.more(sent, &challenge);
                    if is_rejected {
                        cache.reject_sent(sent, Some(challenge));
                        response.extensions_mut().insert(TokenRejected::new(sent));
                    } else if let Lookup::Failed(reason) = more {
                        response.extensions_mut().insert(reason);
                    }
                }
            }
        }
        polled
    }
}

impl<S, B> fmt::Debug for AddTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddTokenFuture").finish_non_exhaustive()
    }
}
