//! One request of the `http` crate, sent by a service of reqwest's own requests and responses: a client, or a chain of
//! middlewares.

use std::{
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use reqwest::{ResponseBuilderExt, Url};
use tower_service::Service;

use crate::challenge::Verdict;

/// In the extensions of a response that came from another URL than the request was sent to.
#[derive(Clone)]
pub(super) struct WasRedirected;

pin_project! {
    /// The response of reqwest as one of the `http` crate, with what only reqwest knows in its extensions: its URL, and
    /// whether it is an answer to the token.
    #[project = ReqwestAttemptProj]
    pub(crate) enum ReqwestAttempt<F, E> {
        // The request is sent; waiting for the response.
        Sent { url: Url, #[pin] pending: F },
        // reqwest cannot send the request. The first poll takes the error.
        Unsendable { error: Option<E> },
    }
}

impl<F, E> ReqwestAttempt<F, E> {
    pub(crate) fn send<S>(service: &mut S, request: Request<reqwest::Body>) -> Self
    where
        S: Service<reqwest::Request, Error = E, Future = F>,
        E: From<reqwest::Error>,
    {
        match reqwest::Request::try_from(request) {
            Ok(request) => Self::Sent {
                url: request.url().clone(),
                pending: service.call(request),
            },
            Err(error) => Self::Unsendable {
                error: Some(error.into()),
            },
        }
    }
}

impl<F, E> Future for ReqwestAttempt<F, E>
where
    F: Future<Output = Result<reqwest::Response, E>>,
{
    type Output = Result<Response<reqwest::Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ReqwestAttemptProj::Sent { url, pending } => {
                let response = ready!(pending.poll(cx))?;
                Poll::Ready(Ok(into_http(response, url)))
            }
            ReqwestAttemptProj::Unsendable { error } => {
                Poll::Ready(Err(error.take().expect("polled after completion")))
            }
        }
    }
}

/// Turns the response to a request that was sent to `sent_to` into one of the `http` crate.
fn into_http(response: reqwest::Response, sent_to: &Url) -> Response<reqwest::Body> {
    let url = response.url().clone();
    let mut response = Response::from(response);
    let extensions = response.extensions_mut();
    if url != *sent_to {
        extensions.insert(WasRedirected);
        if url.origin() != sent_to.origin() && url != *NO_URL {
            // reqwest removes the token on the way to another origin, so what that origin says is not about the token.
            extensions.insert(Verdict::Unrelated);
        }
    }
    extensions.extend(url_extension(url));
    response
}

/// What [`reqwest::Response::from`] finds the URL in. Only a builder makes it.
fn url_extension(url: Url) -> http::Extensions {
    let carrier = Response::builder().url(url).body(());
    carrier.map_or_else(
        |_| http::Extensions::new(),
        |carrier| carrier.into_parts().0.extensions,
    )
}

/// The URL of a response that was made without one, as mocks do. It does not tell which origin it stands for.
static NO_URL: LazyLock<Url> = LazyLock::new(|| {
    let made_up = reqwest::Response::from(Response::new(reqwest::Body::default()));
    made_up.url().clone()
});
