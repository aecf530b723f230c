//! [`Sessions`].

use std::{fmt, future::Future, hash::Hash, sync::Arc};

use tokio::task::JoinSet;

use super::{builder::SessionsBuilder, creation::get_or_create, session::Session, shared::Shared};
use crate::{
    cache::TokenCache,
    error::{TokenError, TokenErrorKind},
};

/// How many sessions are closed at the same time.
const CLOSED_AT_ONCE: usize = 64;

/// How often a session is closed before it is removed, if requests begin another refresh each time.
const MAX_CLOSED: u32 = 10;

/// A [`TokenCache`] for each key, such as a user or a tenant: made when it is first needed, dropped when it was not used
/// for a while.
///
/// With [`BearerAuthLayer::keyed`](crate::BearerAuthLayer::keyed), a stack sends each request with the token of its key.
/// The token of one key's cache never goes out with the request of another key.
///
/// - *A store for each key*: the factory gives each key a file, a row or a name of its own. Two keys with the same one share a
///   session, and so its tokens. If the factory gives each source its key as
///   [`session_name`](crate::GrantSource::session_name), that mistake is a [`Config`](TokenErrorKind::Config) error.
/// - *One creation*: however many requests of a key come first, the factory is called once, in a task that no caller can
///   cancel. All of them get its result. After an error, the next request calls it again.
/// - *One cache for a key*: a session that is in use is not dropped, unless it is [removed](Sessions::remove). So a running
///   refresh finishes, and what could not be saved so far is saved first.
/// - *Bounded*: by [`capacity`](SessionsBuilder::capacity) and by [`idle_timeout`](SessionsBuilder::idle_timeout).
/// - *Nothing lost*: a session that is dropped is made again by the next request, and goes on from its store. So a source
///   with a refresh token needs a durable store, unless [`allow_memory_stores`](SessionsBuilder::allow_memory_stores) says
///   otherwise.
///
/// In logs and metrics, all sessions should have one [group](crate::TokenCacheBuilder::group), and each the name of its key:
/// the factory sets both. By default they all have the group and the name of their source.
///
/// Each session refreshes at times of its own: see [`Schedule`](crate::Schedule) for the jitter that spreads those of
/// tokens that were issued at the same time.
///
/// Clones share the sessions. Dropping the last one drops all sessions that are not in use; call
/// [`close`](Sessions::close) before the process exits.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_bearer::{BearerAuthLayer, ReplayBody, SessionKey, Sessions, Token, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// // In your program: a `RefreshTokenSource` with a store of its own for each user.
/// let sessions = Sessions::new(|user: u64| async move {
///     let source = source_fn(move |_| async move { Token::new(format!("token-of-{user}")) });
///     Ok(TokenCache::new(source))
/// });
///
/// let mut client = ServiceBuilder::new()
///     .layer(BearerAuthLayer::keyed(sessions.clone()))
///     .service(service_fn(|request: Request<ReplayBody<String>>| async move {
///         let token = request.headers()["authorization"].to_str().unwrap().to_owned();
///         Ok::<_, std::convert::Infallible>(Response::new(token))
///     }));
///
/// for user in [7_u64, 8] {
///     let request = Request::get("https://api.example.com/")
///         .extension(SessionKey(user))
///         .body(String::new())?;
///     let response = client.ready().await?.call(request).await?;
///     assert_eq!(*response.body(), format!("Bearer token-of-{user}"));
/// }
/// assert_eq!(sessions.len(), 2);
/// # Ok(()) }
/// ```
pub struct Sessions<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Sessions<K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    /// Sessions that `factory` makes, with the default settings of [`SessionsBuilder`].
    ///
    /// The factory may read a database, and may fail: all requests that wait for the session get its error. The kind of the
    /// error says what to do about it, as for [`TokenSource`](crate::TokenSource). The cache that it returns must be a new
    /// one for each key, and the factory must not keep a clone: it would never be dropped.
    pub fn new<F, Fut>(factory: F) -> Self
    where
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<TokenCache, TokenError>> + Send + 'static,
    {
        Self::builder(factory).build()
    }

    /// Sessions that `factory` makes, with other settings.
    pub fn builder<F, Fut>(factory: F) -> SessionsBuilder<K>
    where
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<TokenCache, TokenError>> + Send + 'static,
    {
        SessionsBuilder::new(factory)
    }

    pub(super) fn from_shared(shared: Shared<K>) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns the session of `key`, and makes it if it is not there. For example to ask for its status, or to
    /// [revoke](TokenCache::revoke) it.
    ///
    /// As long as the returned cache or a clone of it exists, the session is in use and is not dropped.
    ///
    /// # Errors
    ///
    /// - The error of the factory.
    /// - [`Timeout`](TokenErrorKind::Timeout) if it took longer than
    ///   [`creation_timeout`](SessionsBuilder::creation_timeout).
    /// - [`Config`](TokenErrorKind::Config) if its session would be lost when it is dropped: see
    ///   [`allow_memory_stores`](SessionsBuilder::allow_memory_stores).
    /// - [`Interrupted`](TokenErrorKind::Interrupted) if the factory panicked, or if the runtime is shutting down.
    pub async fn get(&self, key: &K) -> Result<TokenCache, TokenError> {
        let session = match self.made(key) {
            Some(session) => session,
            None => self.create(key.clone()).await?,
        };
        Ok(session.cache().clone())
    }

    /// Returns the session of `key` if it is there. It does not count as used.
    pub fn peek(&self, key: &K) -> Option<TokenCache> {
        Some(self.shared.map.peek(key)?.cache().clone())
    }

    /// Drops the session of `key`, after a running refresh has ended and everything is saved. The next request makes
    /// another one. For example after a user has logged in again, or has left.
    ///
    /// Requests that are on their way finish with the old one. Those that wait until it is made wait for another one: it may
    /// have been begun with data that has changed since. To end the session itself, [revoke](TokenCache::revoke) it first.
    ///
    /// # Errors
    ///
    /// The session could not be saved. It stays here, and is being saved in the background.
    pub async fn remove(&self, key: &K) -> Result<(), TokenError> {
        let Some(session) = self.shared.begin_anew(key) else {
            return Ok(());
        };
        for _ in 0..MAX_CLOSED {
            session.cache().close().await?;
            // Under the lock of the map: a request that is on its way may have started another refresh by now.
            let mut is_unsaved = false;
            let may_remove = |it: &Arc<Session>| {
                let is_same = Arc::ptr_eq(it, &session);
                is_unsaved = is_same && it.has_unsaved();
                is_same && !is_unsaved
            };
            drop(self.shared.map.remove_if(key, may_remove));
            if !is_unsaved {
                return Ok(());
            }
        }
        let message = "the session still has something to save, however often it was saved";
        Err(TokenError::new(TokenErrorKind::Store, message))
    }

    /// The keys and sessions that are in memory, in no order. They do not count as used.
    ///
    /// Each item is a handle: the session is not dropped as long as it exists.
    pub fn iter(&self) -> impl Iterator<Item = (K, TokenCache)> {
        let sessions = self.shared.map.iter();
        sessions.map(|(key, session)| (key, session.cache().clone()))
    }

    /// How many sessions are in memory.
    pub fn len(&self) -> usize {
        self.shared.map.len()
    }

    /// Whether no session is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until no refresh runs, and saves what could not be saved so far: [`TokenCache::close`] of each session.
    ///
    /// Call it before the process exits, when no more requests are sent.
    ///
    /// # Errors
    ///
    /// The error of the first session that could not be saved. The others were closed nevertheless.
    pub async fn close(&self) -> Result<(), TokenError> {
        let mut closing = JoinSet::new();
        let mut result = Ok(());
        for (_, cache) in self.iter() {
            if closing.len() == CLOSED_AT_ONCE {
                result = result.and(next_closed(&mut closing).await);
            }
            closing.spawn(async move { cache.close().await });
        }
        while !closing.is_empty() {
            result = result.and(next_closed(&mut closing).await);
        }
        result
    }

    /// The session of `key`, if it was made. It counts as used.
    #[inline]
    pub(crate) fn made(&self, key: &K) -> Option<Arc<Session>> {
        self.shared.get(key)
    }

    /// The session of `key`, after it was made.
    pub(crate) fn create(
        &self,
        key: K,
    ) -> impl Future<Output = Result<Arc<Session>, TokenError>> + Send + use<K> {
        get_or_create(Arc::clone(&self.shared), key)
    }
}

async fn next_closed(closing: &mut JoinSet<Result<(), TokenError>>) -> Result<(), TokenError> {
    match closing.join_next().await {
        Some(Ok(closed)) => closed,
        Some(Err(error)) => {
            let message = "the task that was closing a session ended early";
            Err(TokenError::new(TokenErrorKind::Interrupted, message).with_source(error))
        }
        None => Ok(()),
    }
}

impl<K> Clone for Sessions<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K> fmt::Debug for Sessions<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
