//! [`Events`]: how events get to the log and to the observers of a cache.
//!
//! A transition of the cache queues its events while the cache is locked, so they are in the order of the transitions. One
//! thread at a time takes them from the queue, without that lock, and calls the observers. A thread that finds another one
//! at it leaves its events to it.
//!
//! The log gets each event at once, from the thread in which it happened: so it is in the span of that thread.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
};

use tracing::Span;

use super::{
    Observer, RefreshReason,
    event::{Names, Record},
    log,
};

/// The events of one cache.
pub(crate) struct Events {
    names: Names,
    observers: Vec<Box<dyn Observer>>,
    /// Those of the observers that want an event for each request.
    of_requests: Vec<usize>,
    queue: Mutex<VecDeque<Record>>,
    /// Held while events of the queue are delivered.
    delivering: Mutex<()>,
}

impl Events {
    pub(crate) fn new(names: Names, observers: Vec<Box<dyn Observer>>) -> Self {
        let wants = |number: &usize| observers[*number].wants_requests();
        Self {
            of_requests: (0..observers.len()).filter(wants).collect(),
            names,
            observers,
            queue: Mutex::default(),
            delivering: Mutex::default(),
        }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Whether an observer wants an event for each request.
    #[inline]
    pub(crate) fn wants_requests(&self) -> bool {
        !self.of_requests.is_empty()
    }

    /// Queues events for the observers. The caller holds the lock of the cache.
    pub(crate) fn queue(&self, records: &[Record]) {
        if !self.observers.is_empty() && !records.is_empty() {
            self.queued().extend(records.iter().cloned());
        }
    }

    /// Logs these events, which were queued, and calls the observers. The caller holds no lock.
    pub(crate) fn deliver(&self, records: &[Record]) {
        for record in records {
            isolated(|| log::event(&record.event(&self.names)));
        }
        while !self.queued().is_empty() {
            // An observer that makes a transition gets here too, and leaves its events to the call around it.
            let _delivering = match self.delivering.try_lock() {
                Ok(delivering) => delivering,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            // Not `while let`: that would hold the queue while observers are called.
            loop {
                let Some(record) = self.queued().pop_front() else {
                    break;
                };
                for observer in &self.observers {
                    isolated(|| observer.on_event(&record.event(&self.names)));
                }
            }
            // An event that came after the last look is seen by the next one: its thread may have found this one at it.
        }
    }

    /// Tells the observers that want requests of one.
    #[cold]
    pub(crate) fn request(&self, record: &Record) {
        for number in &self.of_requests {
            isolated(|| self.observers[*number].on_event(&record.event(&self.names)));
        }
    }

    /// The span of a refresh, which follows from that of the caller that starts it.
    pub(crate) fn refresh_span(&self, reason: RefreshReason) -> Span {
        isolated(|| log::refresh_span(&self.names, reason)).unwrap_or_else(Span::none)
    }

    fn queued(&self) -> MutexGuard<'_, VecDeque<Record>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls foreign code. If it panics, the panic hook has told that, and the cache goes on.
fn isolated<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("names", &self.names)
            .field("observers", &self.observers.len())
            .finish_non_exhaustive()
    }
}
