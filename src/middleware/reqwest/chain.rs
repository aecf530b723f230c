//! [`BearerAuthLayer`] in a chain of middlewares of the crate `reqwest-middleware`.

#[cfg(feature = "sessions")]
use std::hash::Hash;
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use http::{Extensions, Request, Response};
use reqwest_middleware::{Error, Middleware, Next};
use tower::BoxError;
use tower_service::Service;

use super::send::{Attempts, Failed, send};
#[cfg(feature = "sessions")]
use crate::middleware::bearer::KeyedSessions;
use crate::middleware::bearer::{BearerAuth, BearerAuthLayer};

/// With the feature `reqwest-middleware`, the layer is a middleware of the crate of that name.
///
/// Middlewares that are added after it see each attempt by itself, with its token. Those added before see one request
/// and its final response. Say [`WithoutToken`](crate::WithoutToken) with `with_extension`.
///
/// A [`TokenError`](crate::TokenError) is in `reqwest_middleware::Error::Middleware`, whose `downcast_ref` finds it. If
/// a rejected request cannot be sent again, the reason is in the extensions of the response. What of reqwest stays as
/// it is, is listed at [`RequestBuilderExt`](crate::RequestBuilderExt).
///
/// Add a middleware that changes the origin of requests before this one: tokens go by the origin that a request names
/// here, and a response of another origin rejects none.
///
/// # Examples
///
/// ```
/// # use tower_bearer::testing::{self, AuthorizationServer, Dialect};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// # let server = AuthorizationServer::new(Dialect::Rfc6749);
/// # let api = server.api();
/// # let (served, served_api) = (testing::serve(server.clone()).await?, testing::serve(api.clone()).await?);
/// # let token_url = format!("{}{}", served.url(), server.token_path());
/// # let orders_url = format!("{}/orders", served_api.url());
/// # let (id, secret) = (AuthorizationServer::CLIENT_ID, AuthorizationServer::CLIENT_SECRET);
/// use reqwest_middleware::ClientBuilder;
/// use tower_bearer::{BearerAuthLayer, ClientAuth, ClientCredentialsSource, OAuthClient};
///
/// let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(id, secret));
/// let auth = BearerAuthLayer::new(ClientCredentialsSource::new(oauth));
/// let http = reqwest::Client::new();
/// # let http = reqwest::Client::builder().no_proxy().build()?;
/// let http = ClientBuilder::new(http).with(auth).build();
/// # http.get(&orders_url).send().await?.error_for_status()?;
/// # server.revoke_access_tokens();
///
/// let order = http.post(orders_url).body("one of each");
/// let response = order.send().await?.error_for_status()?;
/// assert_eq!(response.text().await?, "one of each");
/// # assert_eq!((api.accepted(), api.rejected(), server.token_requests()), (2, 1, 2));
/// # Ok(()) }
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
impl Middleware for BearerAuthLayer {
    fn handle<'s, 'e, 'n, 'f>(
        &'s self,
        request: reqwest::Request,
        extensions: &'e mut Extensions,
        next: Next<'n>,
    ) -> BoxFuture<'f, Result<reqwest::Response, Error>>
    where
        's: 'f,
        'e: 'f,
        'n: 'f,
    {
        Box::pin(run(self.clone(), request, extensions, next))
    }
}

/// The same, with a session for each key. Set the key with `with_extension(SessionKey(key))`.
#[cfg(feature = "sessions")]
#[cfg_attr(
    docsrs,
    doc(cfg(all(feature = "reqwest-middleware", feature = "sessions")))
)]
impl<K> Middleware for BearerAuthLayer<KeyedSessions<K>>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    fn handle<'s, 'e, 'n, 'f>(
        &'s self,
        request: reqwest::Request,
        extensions: &'e mut Extensions,
        next: Next<'n>,
    ) -> BoxFuture<'f, Result<reqwest::Response, Error>>
    where
        's: 'f,
        'e: 'f,
        'n: 'f,
    {
        Box::pin(run(self.clone(), request, extensions, next))
    }
}

async fn run<'n, T>(
    auth: BearerAuthLayer<T>,
    request: reqwest::Request,
    extensions: &mut Extensions,
    next: Next<'n>,
) -> Result<reqwest::Response, Error>
where
    T: Clone,
    BearerAuth<Attempts<Chain<'n>>, T>:
        Service<Request<reqwest::Body>, Response = Response<reqwest::Body>, Error = BoxError>,
{
    let mut request = Request::try_from(request)?;
    // What the layer looks for there: an opt-out, or the key of a session.
    request.extensions_mut().extend(extensions.clone());
    let chain = Chain {
        next,
        extensions: Arc::new(Mutex::new(extensions.clone())),
    };
    let result = send(auth, chain.clone(), request).await;
    *extensions = std::mem::take(&mut *chain.lock());
    result.map_err(|error| match error {
        Failed::NoToken(error) => Error::middleware(error),
        Failed::Sending(error) => error,
    })
}

/// The middlewares below, and the client: sends one attempt.
#[derive(Clone)]
struct Chain<'n> {
    next: Next<'n>,
    /// Those of the caller, with what an earlier attempt has left in them. Copies: if the caller drops the future, its
    /// own must still have the opt-out and the key.
    extensions: Arc<Mutex<Extensions>>,
}

impl Chain<'_> {
    fn lock(&self) -> MutexGuard<'_, Extensions> {
        self.extensions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'n> Service<reqwest::Request> for Chain<'n> {
    type Response = reqwest::Response;
    type Error = Error;
    type Future = BoxFuture<'n, Result<reqwest::Response, Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        let chain = self.clone();
        Box::pin(async move {
            let mut extensions = chain.lock().clone();
            let result = chain.next.clone().run(request, &mut extensions).await;
            *chain.lock() = extensions;
            result
        })
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
