//! Whether the suite finds what is wrong with a store.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, yield_now},
    time::sleep,
};

use crate::{
    error::{TokenError, TokenErrorKind},
    store::{StoreLease, StoredSession, TokenStore},
    testing::{sample_session, store_conformance},
};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    NotEmpty,
    AnythingReplacesNothing,
    EachHandleHasItsOwn,
    LoadWaitsForTheLease,
    StaleSavesSucceed,
    StaleSavesFailAfterSaving,
    StaleSavesAreStoreErrors,
    NewerVersionsAreSaved,
    RepeatedSavesFail,
    VersionsMustFollow,
    LongSessionsAreCut,
    LeasesAreShared,
    WaitingFails,
    ReleaseIsForgotten,
    DropIsForgotten,
    LeavingTheQueueIsForgotten,
    DroppedSavesComeLate,
}

/// A store over a mutex, with one flaw; `permits` are its leases.
struct Store {
    flaw: Flaw,
    stored: Arc<Mutex<Option<StoredSession>>>,
    permits: Arc<Semaphore>,
}

struct Lease {
    flaw: Flaw,
    stored: Arc<Mutex<Option<StoredSession>>>,
    permit: Option<OwnedSemaphorePermit>,
}

fn lost() -> TokenError {
    TokenError::new(TokenErrorKind::LeaseLost, "another version is stored")
}

impl TokenStore for Store {
    type Lease = Lease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        if self.flaw == Flaw::LoadWaitsForTheLease && self.permits.available_permits() == 0 {
            return Err(TokenError::new(TokenErrorKind::Timeout, "somebody saves"));
        }
        Ok(self.stored.lock().unwrap().clone())
    }

    async fn lease(&self) -> Result<Lease, TokenError> {
        if self.flaw == Flaw::WaitingFails && self.permits.available_permits() == 0 {
            return Err(TokenError::new(
                TokenErrorKind::Store,
                "somebody else has it",
            ));
        }
        let permits = Arc::clone(&self.permits);
        let taken: JoinHandle<_> = tokio::spawn(async move {
            let permit = permits.acquire_owned().await.unwrap();
            yield_now().await;
            permit
        });
        let permit = if self.flaw == Flaw::LeavingTheQueueIsForgotten {
            // What the task holds is released by nobody if this future is dropped.
            let (give, get) = tokio::sync::oneshot::channel();
            tokio::spawn(async move { give.send(taken.await.unwrap()).map_err(std::mem::forget) });
            get.await.unwrap()
        } else {
            let waiting = ended_with_its_waiter(taken);
            waiting.await
        };
        let shared = self.flaw == Flaw::LeasesAreShared;
        Ok(Lease {
            flaw: self.flaw,
            stored: Arc::clone(&self.stored),
            permit: (!shared).then_some(permit),
        })
    }
}

/// Ends the task with whoever waits for it.
async fn ended_with_its_waiter<T>(task: JoinHandle<T>) -> T {
    struct Ended(tokio::task::AbortHandle);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let _ended = Ended(task.abort_handle());
    task.await.unwrap()
}

impl StoreLease for Lease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        if self.flaw == Flaw::DroppedSavesComeLate {
            let (stored, late) = (Arc::clone(&self.stored), session.clone());
            let task = tokio::spawn(async move {
                sleep(Duration::from_millis(20)).await;
                *stored.lock().unwrap() = Some(late);
            });
            yield_now().await;
            task.abort();
        }
        yield_now().await;
        self.save_now(replaces, session)
    }

    async fn release(mut self) {
        if self.flaw == Flaw::ReleaseIsForgotten {
            std::mem::forget(self.permit.take());
        }
        self.permit.take();
    }
}

impl Lease {
    fn save_now(&self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let mut stored = self.stored.lock().unwrap();
        let version = stored.as_ref().map_or(0, StoredSession::version);
        if self.flaw != Flaw::RepeatedSavesFail
            && stored
                .as_ref()
                .is_some_and(|stored| stored.is_written_like(session))
        {
            return Ok(());
        }
        let stale = match self.flaw {
            Flaw::AnythingReplacesNothing if version == 0 => false,
            Flaw::StaleSavesSucceed => false,
            Flaw::NewerVersionsAreSaved => session.version() <= version,
            _ => version != replaces,
        };
        if stale && self.flaw == Flaw::StaleSavesFailAfterSaving {
            *stored = Some(session.clone());
        }
        if stale && self.flaw == Flaw::StaleSavesAreStoreErrors {
            return Err(TokenError::new(
                TokenErrorKind::Store,
                "another version is stored",
            ));
        }
        if stale || self.flaw == Flaw::VersionsMustFollow && session.version() != version + 1 {
            return Err(lost());
        }
        let written = serde_json::to_string(session).unwrap().len();
        *stored = if self.flaw == Flaw::LongSessionsAreCut && written > 65_536 {
            Some(sample_session(session.version(), "cut"))
        } else {
            Some(session.clone())
        };
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.flaw == Flaw::DropIsForgotten {
            std::mem::forget(self.permit.take());
        }
    }
}

/// What the suite says about a store with `flaw`; nothing if it is content. Who waits for ever is told of, too.
async fn verdict(flaw: Flaw) -> Option<String> {
    let session = (flaw == Flaw::NotEmpty).then(|| sample_session(1, "left"));
    let stored = Arc::new(Mutex::new(session));
    let permits = Arc::new(Semaphore::new(1));
    let handles = AtomicUsize::new(0);
    let suite = store_conformance(|| {
        handles.fetch_add(1, Ordering::SeqCst);
        let own = flaw == Flaw::EachHandleHasItsOwn;
        Store {
            flaw,
            stored: if own {
                Arc::default()
            } else {
                Arc::clone(&stored)
            },
            permits: Arc::clone(&permits),
        }
    });
    let limited = tokio::time::timeout(Duration::from_secs(600), suite);
    match caught(limited).await {
        Err(panic) => Some(panic),
        Ok(Err(_)) => Some("the suite waits for ever".into()),
        Ok(Ok(())) => {
            assert!(
                handles.into_inner() > 10,
                "the suite uses more than one handle"
            );
            None
        }
    }
}

/// The message of the panic that polling `future` ends in, if it does.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = Box::pin(future);
    std::future::poll_fn(move |cx| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_default())),
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_store_without_a_flaw_passes() {
    assert_eq!(verdict(Flaw::None).await, None);
}

#[tokio::test(start_paused = true)]
async fn each_flaw_of_a_store_is_found_and_its_clause_named() {
    let cases = [
        (Flaw::NotEmpty, "load gives nothing if nothing was saved"),
        (Flaw::AnythingReplacesNothing, "0 stands for nothing"),
        (Flaw::EachHandleHasItsOwn, "load gives what was saved last"),
        (Flaw::LoadWaitsForTheLease, "load failed"),
        (
            Flaw::StaleSavesSucceed,
            "is to fail with LeaseLost, and succeeded",
        ),
        (Flaw::StaleSavesFailAfterSaving, "it has stored something"),
        (
            Flaw::StaleSavesAreStoreErrors,
            "is to fail with LeaseLost, not",
        ),
        (Flaw::NewerVersionsAreSaved, "is to fail with LeaseLost"),
        (
            Flaw::RepeatedSavesFail,
            "saving what is stored already succeeds",
        ),
        (Flaw::VersionsMustFollow, "becomes the stored one"),
        (Flaw::LongSessionsAreCut, "load gives a session whole"),
        (Flaw::LeasesAreShared, "a lease is waited for"),
        (Flaw::WaitingFails, "waiting for a lease failed"),
        (Flaw::ReleaseIsForgotten, "waits for ever"),
        (Flaw::DropIsForgotten, "waits for ever"),
        (Flaw::LeavingTheQueueIsForgotten, "waits for ever"),
        (Flaw::DroppedSavesComeLate, "a save that is dropped"),
    ];
    for (flaw, told) in cases {
        let verdict = verdict(flaw).await;
        let verdict = verdict.unwrap_or_else(|| panic!("{flaw:?} was not found"));
        assert!(verdict.contains(told), "{flaw:?}: {verdict}");
    }
}
