//! Making a session, once for all who wait for it.
//!
//! The factory is called in a task, so that a request that is dropped meanwhile does not make the others begin again. All
//! who wait get the same result, also if it is an error. The next request after an error calls the factory again.
//!
//! | Event                                         | those who wait         |
//! |-----------------------------------------------|------------------------|
//! | the factory returns, panics or takes too long | get its result         |
//! | the key is removed                            | begin another creation |
//! | the task is lost with its runtime             | begin another creation |
//!
//! A [`Creation`] ends when it is removed from the map of creations. So a task that comes too late has no effect.

use std::{
    hash::Hash,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::timeout};

use super::{
    idle,
    session::Session,
    shared::{Creations, Shared},
};
use crate::error::{TokenError, TokenErrorKind};

type CreationResult = Result<Arc<Session>, TokenError>;

/// How many creations a caller waits for, if one after the other is removed, or lost with its runtime.
const MAX_LOST: u32 = 3;

/// How much longer than the task a caller waits. So the task reaches the limit first, and the factory's future is gone
/// before another creation can begin.
const GRACE: Duration = Duration::from_secs(1);

/// A session that is being made.
pub(super) struct Creation {
    id: u64,
    /// Dropped without a result, if those who wait are to begin another creation.
    result: watch::Sender<Option<CreationResult>>,
}

/// What there is of a session.
enum Joined {
    Made(Arc<Session>),
    Making {
        id: u64,
        result: watch::Receiver<Option<CreationResult>>,
    },
}

/// Returns the session of `key`. Makes it if it is not there, and not being made.
pub(super) async fn get_or_create<K>(shared: Arc<Shared<K>>, key: K) -> CreationResult
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    let runtime = Handle::try_current().map_err(|error| {
        let message =
            "a session is made in a task, but there is no Tokio runtime here; call from within one";
        TokenError::new(TokenErrorKind::Config, message).with_source(error)
    })?;
    for _ in 0..MAX_LOST {
        let (id, mut result) = match shared.join_or_begin(&key, &runtime) {
            Joined::Made(session) => return Ok(session),
            Joined::Making { id, result } => (id, result),
        };
        idle::start(&shared, &runtime);
        let limit = shared.settings.creation_timeout.saturating_add(GRACE);
        match timeout(limit, result.wait_for(Option::is_some)).await {
            Ok(Ok(result)) => return result.clone().expect("waited for"),
            Ok(Err(_removed_or_lost)) => {}
            Err(_elapsed) => {
                // Its runtime is not polled. The next caller begins anew.
                let error = took_too_long(&shared);
                shared.end_creation(&key, id, Some(Err(error.clone())));
                return Err(error);
            }
        }
    }
    let message = "the session was removed again and again while it was being made, or the runtime is shutting down";
    Err(TokenError::new(TokenErrorKind::Interrupted, message))
}

impl<K> Shared<K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    fn join_or_begin(self: &Arc<Self>, key: &K, runtime: &Handle) -> Joined {
        let task_key = key.clone();
        let (id, result) = {
            let mut creations = self.creations();
            // It may have been made in the meantime. Under the lock: it gets into the map when its creation ends.
            if let Some(session) = self.get(key) {
                return Joined::Made(session);
            }
            if let Some(creation) = creations.running.get(key) {
                return Joined::Making {
                    id: creation.id,
                    result: creation.result.subscribe(),
                };
            }
            creations.last_id += 1;
            let id = creations.last_id;
            let (sender, result) = watch::channel(None);
            let creation = Creation { id, result: sender };
            creations.running.insert(key.clone(), creation);
            (id, result)
        };
        let task = CreationTask {
            shared: Arc::clone(self),
            key: task_key,
            id,
        };
        // Without the lock: a runtime that has ended drops the task at once, and that takes the lock.
        runtime.spawn(task.run());
        Joined::Making { id, result }
    }
}

/// Calls the factory.
struct CreationTask<K: Clone + Eq + Hash> {
    shared: Arc<Shared<K>>,
    key: K,
    id: u64,
}

impl<K> CreationTask<K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    async fn run(self) {
        if !self.shared.creations().is_running(&self.key, self.id) {
            // Removed before it began, or its runtime was not polled for too long.
            return;
        }
        let limit = self.shared.settings.creation_timeout;
        let made = (self.shared.factory)(self.key.clone());
        let result = match timeout(limit, made).await {
            Ok(Ok(cache)) if !cache.is_durable() && !self.shared.settings.memory_stores_allowed => {
                Err(would_be_lost())
            }
            Ok(Ok(cache)) => {
                let round = self.shared.round.load(Ordering::Relaxed);
                Ok(Arc::new(Session::new(cache, round)))
            }
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(took_too_long(&self.shared)),
        };
        self.shared.end_creation(&self.key, self.id, Some(result));
    }
}

impl<K: Clone + Eq + Hash> Drop for CreationTask<K> {
    fn drop(&mut self) {
        let result = thread::panicking().then(|| {
            let message = "the factory panicked while it was making the session";
            Err(TokenError::new(TokenErrorKind::Interrupted, message))
        });
        self.shared.end_creation(&self.key, self.id, result);
    }
}

impl<K: Clone + Eq + Hash> Shared<K> {
    /// Ends a creation, and keeps its session. Those who wait get the result, or begin another creation if there is none.
    /// Does nothing if it has ended already.
    fn end_creation(&self, key: &K, id: u64, result: Option<CreationResult>) {
        let mut evicted = Vec::new();
        let ended = {
            let mut creations = self.creations();
            if !creations.is_running(key, id) {
                return;
            }
            if let Some(Ok(session)) = &result {
                let session = Arc::clone(session);
                self.map
                    .insert_with_lifecycle(key.clone(), session, &mut evicted);
            }
            creations.running.remove_entry(key)
        };
        if let (Some((_, creation)), Some(result)) = (ended, result) {
            creation.result.send_replace(Some(result));
        }
        // Last: what a source does when it is dropped is not known.
        drop(evicted);
    }

    /// The session of `key`. If it is being made, it is made again, for those who wait too.
    pub(super) fn begin_anew(&self, key: &K) -> Option<Arc<Session>> {
        let (_superseded, session) = {
            // Both under the lock, or it could get into the map in between.
            let mut creations = self.creations();
            (creations.running.remove_entry(key), self.map.peek(key))
        };
        session
    }
}

impl<K: Eq + Hash> Creations<K> {
    fn is_running(&self, key: &K, id: u64) -> bool {
        self.running.get(key).is_some_and(|it| it.id == id)
    }
}

fn took_too_long<K>(shared: &Shared<K>) -> TokenError {
    let limit = shared.settings.creation_timeout;
    let message = format!("the session was not made within {limit:?} (`creation_timeout`)");
    TokenError::new(TokenErrorKind::Timeout, message)
}

fn would_be_lost() -> TokenError {
    TokenError::new(
        TokenErrorKind::Config,
        "the session has a refresh token that is kept in memory only, and would be lost when the session is dropped to make \
         room; give its source a durable store, or call `allow_memory_stores` if that loss is acceptable",
    )
}
