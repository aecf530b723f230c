//! [`BearerAuthLayer::keyed`]: each request with the token of its key.

use std::{
    fmt,
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::{
    BearerAuth, BearerAuthFuture, BearerAuthLayer,
    attempt::Attempt,
    service::{RetrySend, send_at_once, start},
};
use crate::{
    body::ReplayBody,
    error::{TokenError, TokenErrorKind},
    middleware::{
        extensions::{SessionKey, WithoutToken},
        sending::{give_back_readiness, has_authorization},
    },
    sessions::{Session, Sessions},
};

/// The sessions of a [`BearerAuthLayer`], and where it finds the key of a request. Made by [`BearerAuthLayer::keyed`].
pub struct KeyedSessions<K> {
    sessions: Sessions<K>,
    key_of: KeyOf<K>,
}

enum KeyOf<K> {
    Extension,
    Function(Arc<KeyFn<K>>),
}

type KeyFn<K> = dyn Fn(&Parts) -> Option<K> + Send + Sync;

impl BearerAuthLayer {
    /// Sends each request with the token of its key: that in the [`SessionKey`] of its extensions, which the program sets.
    ///
    /// A request without a key is an error of kind [`Config`](TokenErrorKind::Config), never a default session, unless it
    /// needs no token: it is marked [`WithoutToken`], or has its own `Authorization`.
    ///
    /// A request whose session is not in memory waits until it is made. It gives the readiness of the inner service back
    /// meanwhile. Its error is that of [`Sessions::get`].
    ///
    /// Tokens go to the [origins](crate::TokenCache::origins) of each session, unless the layer has
    /// [others](BearerAuthLayer::origins). All sessions share the [budget](BearerAuthLayer::replay_budget) for replays.
    ///
    /// # Examples
    ///
    /// See [`Sessions`].
    pub fn keyed<K>(sessions: Sessions<K>) -> BearerAuthLayer<KeyedSessions<K>> {
        BearerAuthLayer::with_tokens(KeyedSessions {
            sessions,
            key_of: KeyOf::Extension,
        })
    }

    /// The same, with the key that `key_of` finds in the head of a request.
    ///
    /// Take the key from what your own program has put there. What a client of your service can set, such as a header that
    /// is passed on, would let it choose whose token is used.
    ///
    /// # Examples
    ///
    /// A session for each host:
    ///
    /// ```
    /// use tower_bearer::{BearerAuthLayer, Sessions, Token, TokenCache, source_fn};
    ///
    /// let sessions = Sessions::new(|host: String| async move {
    ///     Ok(TokenCache::new(source_fn(move |_| {
    ///         let token = format!("for-{host}");
    ///         async move { Token::new(token) }
    ///     })))
    /// });
    /// let layer = BearerAuthLayer::keyed_by(sessions, |request| {
    ///     request.uri.host().map(str::to_owned)
    /// });
    /// # let _ = layer;
    /// ```
    pub fn keyed_by<K, F>(sessions: Sessions<K>, key_of: F) -> BearerAuthLayer<KeyedSessions<K>>
    where
        F: Fn(&Parts) -> Option<K> + Send + Sync + 'static,
    {
        BearerAuthLayer::with_tokens(KeyedSessions {
            sessions,
            key_of: KeyOf::Function(Arc::new(key_of)),
        })
    }
}

impl<S, B, R, K> Service<Request<B>> for BearerAuth<S, KeyedSessions<K>>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    R: Body,
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = KeyedBearerAuthFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::<Attempt<B>>::poll_ready(&mut self.retry, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let sessions = &self.tokens.sessions;
        let (request, key) = match &self.tokens.key_of {
            KeyOf::Extension => {
                let key = request.extensions().get::<SessionKey<K>>();
                if let Some(SessionKey(key)) = key
                    && let Some(session) = sessions.made(key)
                {
                    return KeyedBearerAuthFuture {
                        state: State::Sending {
                            future: start(&mut self.retry, session.cache(), request),
                        },
                    };
                }
                let key = key.map(|SessionKey(key)| key.clone());
                (request, key)
            }
            KeyOf::Function(key_of) => {
                let (parts, body) = request.into_parts();
                let key = key_of(&parts);
                (Request::from_parts(parts, body), key)
            }
        };
        self.call_with(request, key)
    }
}

impl<S, K> BearerAuth<S, KeyedSessions<K>> {
    /// Sends a request whose session may not be there yet.
    #[cold]
    fn call_with<B, R>(
        &mut self,
        request: Request<B>,
        key: Option<K>,
    ) -> KeyedBearerAuthFuture<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Body + Unpin,
        R: Body,
        K: Clone + Eq + Hash + Send + Sync + 'static,
    {
        let needs_no_token = request.extensions().get::<WithoutToken>().is_some()
            || has_authorization(request.headers());
        let sessions = &self.tokens.sessions;
        let state = match key {
            _ if needs_no_token => State::Sending {
                future: send_at_once(&mut self.retry, request, None),
            },
            Some(key) => match sessions.made(&key) {
                Some(session) => State::Sending {
                    future: start(&mut self.retry, session.cache(), request),
                },
                None => State::Awaiting {
                    awaiting: Box::new(AwaitingSession {
                        retry: give_back_readiness(&mut self.retry),
                        request: Some(request),
                        session: SessionState::Creating(Box::pin(sessions.create(key))),
                    }),
                },
            },
            None => State::Awaiting {
                awaiting: Box::new(AwaitingSession {
                    retry: give_back_readiness(&mut self.retry),
                    request: Some(request),
                    session: SessionState::NoKey(no_key::<K>()),
                }),
            },
        };
        KeyedBearerAuthFuture { state }
    }
}

/// A request whose session is being made. It holds no readiness of the service.
struct AwaitingSession<S, B> {
    retry: RetrySend<S>,
    request: Option<Request<B>>,
    session: SessionState,
}

enum SessionState {
    Creating(Pin<Box<dyn Future<Output = Result<Arc<Session>, TokenError>> + Send>>),
    /// It is there. The service must become ready again.
    Readying(Arc<Session>),
    NoKey(TokenError),
}

impl<S, B> AwaitingSession<S, B> {
    /// Waits for the session, and for the service, and starts the request.
    fn poll_start<R>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BearerAuthFuture<S, B, R>, BoxError>>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Body + Unpin,
        R: Body,
    {
        loop {
            match &mut self.session {
                SessionState::Creating(creating) => {
                    let session = ready!(creating.as_mut().poll(cx))?;
                    self.session = SessionState::Readying(session);
                }
                SessionState::Readying(session) => {
                    ready!(Service::<Attempt<B>>::poll_ready(&mut self.retry, cx))?;
                    let request = self.request.take().expect("polled after completion");
                    let future = start(&mut self.retry, session.cache(), request);
                    return Poll::Ready(Ok(future));
                }
                SessionState::NoKey(error) => return Poll::Ready(Err(error.clone().into())),
            }
        }
    }
}

#[cold]
fn no_key<K>() -> TokenError {
    let key = std::any::type_name::<K>();
    let message = format!(
        "the request has no key that says whose session it is sent with; insert a `SessionKey<{key}>`, of exactly this type, into \
         its extensions, or send it `WithoutToken`"
    );
    TokenError::new(TokenErrorKind::Config, message)
}

pin_project! {
    /// Response future of a [`BearerAuth`] with [`KeyedSessions`].
    #[must_use = "futures do nothing unless polled"]
    pub struct KeyedBearerAuthFuture<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
        S: Clone,
        S::Error: Into<BoxError>,
        R: Body,
    {
        #[pin]
        state: State<S, B, BearerAuthFuture<S, B, R>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        // The session is there.
        Sending {
            #[pin]
            future: F,
        },
        // Boxed, because it is rare and would make every future larger.
        Awaiting {
            awaiting: Box<AwaitingSession<S, B>>,
        },
    }
}

impl<S, B, R> Future for KeyedBearerAuthFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Sending { future } => return future.poll(cx),
                StateProj::Awaiting { awaiting } => {
                    let future = ready!(awaiting.poll_start(cx))?;
                    state.set(State::Sending { future });
                }
            }
        }
    }
}

impl<K> Clone for KeyedSessions<K> {
    fn clone(&self) -> Self {
        Self {
            sessions: self.sessions.clone(),
            key_of: match &self.key_of {
                KeyOf::Extension => KeyOf::Extension,
                KeyOf::Function(key_of) => KeyOf::Function(Arc::clone(key_of)),
            },
        }
    }
}

impl<K> fmt::Debug for KeyedSessions<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedSessions")
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

impl<S, B, R> fmt::Debug for KeyedBearerAuthFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBearerAuthFuture")
            .finish_non_exhaustive()
    }
}
