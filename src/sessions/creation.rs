//! Making a session, once for all who wait for it.
//!
//! The factory is called in a task, so that a request that is dropped meanwhile does not make the others begin again. All
//! who wait get the same result, also if it is an error. The next request after an error calls the factory again.

use std::{
    hash::Hash,
    sync::{Arc, atomic::Ordering},
};

use tokio::{runtime::Handle, sync::watch, time::timeout};

use super::{idle, session::Session, shared::Shared};
use crate::error::{TokenError, TokenErrorKind};

type CreationResult = Result<Arc<Session>, TokenError>;

/// A session that is being made.
pub(super) struct Creation {
    id: u64,
    result: watch::Receiver<Option<CreationResult>>,
}

/// Returns the session of `key`. Makes it if it is not there, and if nobody is making it.
pub(super) async fn get_or_create<K>(shared: Arc<Shared<K>>, key: K) -> CreationResult
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    let runtime = Handle::try_current().map_err(|error| {
        let message =
            "a session is made in a task, but there is no Tokio runtime here; call from within one";
        TokenError::new(TokenErrorKind::Config, message).with_source(error)
    })?;
    let (id, mut result) = {
        let mut creations = shared.creations();
        // It may have been made in the meantime. Under the lock: it gets into the map before its creation ends.
        if let Some(session) = shared.get(&key) {
            return Ok(session);
        }
        if let Some(creation) = creations.running.get(&key) {
            (creation.id, creation.result.clone())
        } else {
            creations.last_id += 1;
            let id = creations.last_id;
            let (sender, result) = watch::channel(None);
            let creation = Creation {
                id,
                result: result.clone(),
            };
            creations.running.insert(key.clone(), creation);
            let task = CreationTask {
                shared: Arc::clone(&shared),
                key: key.clone(),
                id,
            };
            runtime.spawn(task.run(sender));
            (id, result)
        }
    };
    idle::start(&shared, &runtime);
    let limit = shared.settings.creation_timeout;
    let waited = timeout(limit, result.wait_for(Option::is_some)).await;
    match waited {
        Ok(Ok(result)) => result.clone().expect("waited for"),
        Ok(Err(_closed)) => {
            let message =
                "the task that was making the session panicked, or ended with its runtime";
            Err(TokenError::new(TokenErrorKind::Interrupted, message))
        }
        Err(_elapsed) => {
            // Its runtime is not polled, or it would have reached its own limit by now. The next caller begins anew.
            end_creation(&shared, &key, id);
            Err(took_too_long(&shared))
        }
    }
}

/// Calls the factory.
struct CreationTask<K: Eq + Hash> {
    shared: Arc<Shared<K>>,
    key: K,
    id: u64,
}

impl<K> CreationTask<K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    async fn run(self, sender: watch::Sender<Option<CreationResult>>) {
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
        // Into the map first, so that there is no moment in which the key has neither a session nor a creation. Not if
        // it was removed meanwhile.
        let mut evicted = Vec::new();
        if let Ok(session) = &result {
            let creations = self.shared.creations();
            if creations.is_running(&self.key, self.id) {
                let (key, session) = (self.key.clone(), Arc::clone(session));
                self.shared
                    .map
                    .insert_with_lifecycle(key, session, &mut evicted);
            }
        }
        drop(evicted);
        drop(self);
        sender.send_replace(Some(result));
    }
}

impl<K: Eq + Hash> Drop for CreationTask<K> {
    fn drop(&mut self) {
        end_creation(&self.shared, &self.key, self.id);
    }
}

/// Removes the creation, unless it is a later one.
pub(super) fn end_creation<K: Eq + Hash>(shared: &Shared<K>, key: &K, id: u64) {
    let mut creations = shared.creations();
    if creations.is_running(key, id) {
        creations.running.remove(key);
    }
}

impl<K: Eq + Hash> super::shared::Creations<K> {
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
