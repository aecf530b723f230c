//! Tests that the suite finds each flaw of a store.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
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

/// The flaw of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    NotEmpty,
    AnySaveReplacesNothing,
    EachHandleHasItsOwnSession,
    LoadWaitsForTheLease,
    StaleSavesSucceed,
    StaleSavesFailAfterSaving,
    StaleSavesAreStoreErrors,
    OnlyOlderVersionsAreStale,
    RepeatedSavesFail,
    VersionsMustBeConsecutive,
    LongSessionsAreCut,
    NewMembersAreDropped,
    OnlyTokensAreCompared,
    LeasesAreShared,
    WaitingFails,
    ReleaseDoesNothing,
    DropDoesNotRelease,
    DroppedWaitsKeepTheLease,
    DroppedSavesTakeEffectLater,
    LoadsBeforeTheLease,
    LoadsWithoutTheLease,
    DroppedLoadsKeepTheLease,
    LastSavesOnlyRelease,
    RepeatedLastSavesKeepTheLease,
    FailedLastSavesRelease,
    LastSavesReleaseTwice,
    DroppedLastSavesReleaseLater,
}

/// A store over a mutex, with one flaw. The `permits` are its leases.
struct Store {
    flaw: Flaw,
    stored: Arc<Mutex<Option<StoredSession>>>,
    permits: Arc<Semaphore>,
}

struct Lease {
    flaw: Flaw,
    stored: Arc<Mutex<Option<StoredSession>>>,
    permits: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    /// A save has released it.
    is_released: bool,
}

fn lost() -> TokenError {
    TokenError::new(TokenErrorKind::LeaseLost, "another version is stored")
}

impl TokenStore for Store {
    type Lease = Lease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        if self.flaw == Flaw::LoadWaitsForTheLease && self.permits.available_permits() == 0 {
            return Err(TokenError::new(TokenErrorKind::Timeout, "a lease is held"));
        }
        Ok(self.stored.lock().unwrap().clone())
    }

    async fn lease(&self) -> Result<Lease, TokenError> {
        if self.flaw == Flaw::WaitingFails && self.permits.available_permits() == 0 {
            return Err(TokenError::new(
                TokenErrorKind::Store,
                "another lease is held",
            ));
        }
        let permits = Arc::clone(&self.permits);
        let taken: JoinHandle<_> = tokio::spawn(async move {
            let permit = permits.acquire_owned().await.unwrap();
            yield_now().await;
            permit
        });
        let permit = if self.flaw == Flaw::DroppedWaitsKeepTheLease {
            // If this future is dropped, the permit of the task is never released.
            let (give, get) = tokio::sync::oneshot::channel();
            tokio::spawn(async move { give.send(taken.await.unwrap()).map_err(std::mem::forget) });
            get.await.unwrap()
        } else {
            let permit = abort_on_drop(taken);
            permit.await
        };
        let shared = self.flaw == Flaw::LeasesAreShared;
        Ok(Lease {
            flaw: self.flaw,
            stored: Arc::clone(&self.stored),
            permits: Arc::clone(&self.permits),
            permit: (!shared).then_some(permit),
            is_released: false,
        })
    }

    async fn lease_and_load(&self) -> Result<(Lease, Option<StoredSession>), TokenError> {
        let before = self.load().await?;
        if self.flaw == Flaw::LoadsWithoutTheLease {
            let lease = Lease {
                flaw: self.flaw,
                stored: Arc::clone(&self.stored),
                permits: Arc::clone(&self.permits),
                permit: None,
                is_released: false,
            };
            return Ok((lease, before));
        }
        if self.flaw == Flaw::DroppedLoadsKeepTheLease {
            let permits = Arc::clone(&self.permits);
            let taken = tokio::spawn(async move { permits.acquire_owned().await.unwrap() });
            let (give, get) = tokio::sync::oneshot::channel();
            tokio::spawn(async move { give.send(taken.await.unwrap()).map_err(std::mem::forget) });
            drop(get.await.unwrap());
        }
        let lease = self.lease().await?;
        let stored = if self.flaw == Flaw::LoadsBeforeTheLease {
            before
        } else {
            self.stored.lock().unwrap().clone()
        };
        Ok((lease, stored))
    }
}

/// Waits for the task, and aborts it if this future is dropped.
async fn abort_on_drop<T>(task: JoinHandle<T>) -> T {
    struct AbortOnDrop(tokio::task::AbortHandle);
    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let _abort = AbortOnDrop(task.abort_handle());
    task.await.unwrap()
}

impl StoreLease for Lease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        if self.flaw == Flaw::DroppedSavesTakeEffectLater {
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

    async fn save_and_release(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> Result<(), TokenError> {
        if self.flaw == Flaw::DroppedLastSavesReleaseLater {
            let (stored, late) = (Arc::clone(&self.stored), session.clone());
            let permits = Arc::clone(&self.permits);
            let task = tokio::spawn(async move {
                sleep(Duration::from_millis(20)).await;
                *stored.lock().unwrap() = Some(late);
                permits.add_permits(1);
            });
            yield_now().await;
            task.abort();
        }
        yield_now().await;
        let is_repeated = {
            let stored = self.stored.lock().unwrap();
            stored
                .as_ref()
                .is_some_and(|it| it.is_written_like(session))
        };
        let saved = match self.flaw {
            Flaw::LastSavesOnlyRelease => Ok(()),
            _ => self.save_now(replaces, session),
        };
        if saved.is_ok() && is_repeated && self.flaw == Flaw::RepeatedLastSavesKeepTheLease {
            std::mem::forget(self.permit.take());
        }
        if saved.is_ok() || self.flaw == Flaw::FailedLastSavesRelease {
            self.permit.take();
            self.is_released = true;
        }
        saved
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        Ok(true)
    }

    async fn release(mut self) {
        if self.flaw == Flaw::ReleaseDoesNothing {
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
            Flaw::AnySaveReplacesNothing if version == 0 => false,
            Flaw::StaleSavesSucceed => false,
            Flaw::OnlyOlderVersionsAreStale => session.version() <= version,
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
        if stale || self.flaw == Flaw::VersionsMustBeConsecutive && session.version() != version + 1
        {
            return Err(lost());
        }
        let mut json = serde_json::to_value(session).unwrap();
        if self.flaw == Flaw::NewMembersAreDropped {
            // As a table does that has a column for each member of an older format.
            json["client"] = Value::Null;
            json["ended"] = Value::Null;
            *stored = Some(serde_json::from_value(json).unwrap());
            return Ok(());
        }
        let tokens = |json: &Value| (json["access"].clone(), json["refresh_token"].clone());
        if self.flaw == Flaw::OnlyTokensAreCompared {
            let mut before = serde_json::to_value(&*stored).unwrap();
            if tokens(&before) == tokens(&json) {
                before["version"] = session.version().into();
                *stored = serde_json::from_value(before).unwrap();
                return Ok(());
            }
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
        if self.flaw == Flaw::DropDoesNotRelease {
            std::mem::forget(self.permit.take());
        }
        if self.flaw == Flaw::LastSavesReleaseTwice && self.is_released {
            self.permits.add_permits(1);
        }
    }
}

/// What the suite reports about a store with `flaw`, if anything. A suite that never ends is reported, too.
async fn report(flaw: Flaw) -> Option<String> {
    let session = (flaw == Flaw::NotEmpty).then(|| sample_session(1, "left"));
    let stored = Arc::new(Mutex::new(session));
    let permits = Arc::new(Semaphore::new(1));
    let handles = AtomicUsize::new(0);
    let suite = store_conformance(|| {
        handles.fetch_add(1, Ordering::SeqCst);
        let own = flaw == Flaw::EachHandleHasItsOwnSession;
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
    match catch_panic(limited).await {
        Err(panic) => Some(panic),
        Ok(Err(_)) => Some("the suite never ends".into()),
        Ok(Ok(())) => {
            assert!(
                handles.into_inner() > 10,
                "the suite must use more than one handle"
            );
            None
        }
    }
}

/// Runs `future`, and returns the message if it panics.
async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
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
    assert_eq!(report(Flaw::None).await, None);
}

#[tokio::test(start_paused = true)]
async fn each_flaw_is_found_and_the_message_names_the_clause() {
    let cases = [
        (Flaw::NotEmpty, "load returns nothing if nothing was saved"),
        (
            Flaw::AnySaveReplacesNothing,
            "an empty store has version 0 and no other",
        ),
        (
            Flaw::EachHandleHasItsOwnSession,
            "load returns what was saved last",
        ),
        (Flaw::LoadWaitsForTheLease, "load failed"),
        (
            Flaw::StaleSavesSucceed,
            "must fail with LeaseLost, but succeeded",
        ),
        (
            Flaw::StaleSavesFailAfterSaving,
            "the failed save has stored something",
        ),
        (
            Flaw::StaleSavesAreStoreErrors,
            "must fail with LeaseLost, but failed with",
        ),
        (Flaw::OnlyOlderVersionsAreStale, "must fail with LeaseLost"),
        (
            Flaw::RepeatedSavesFail,
            "saving what is already stored succeeds",
        ),
        (Flaw::VersionsMustBeConsecutive, "becomes the stored one"),
        (Flaw::LongSessionsAreCut, "load returns the whole session"),
        (
            Flaw::NewMembersAreDropped,
            "load must return version 1, but returned version 1 or another session",
        ),
        (
            Flaw::OnlyTokensAreCompared,
            "a save that changes no token is a save",
        ),
        (
            Flaw::LeasesAreShared,
            "lease waits until no other lease is held",
        ),
        (Flaw::WaitingFails, "waiting for a lease failed"),
        (Flaw::ReleaseDoesNothing, "the suite never ends"),
        (Flaw::DropDoesNotRelease, "the suite never ends"),
        (Flaw::DroppedWaitsKeepTheLease, "the suite never ends"),
        (Flaw::DroppedSavesTakeEffectLater, "a dropped save"),
        (
            Flaw::LoadsBeforeTheLease,
            "what was saved before the lease was taken was not loaded with it",
        ),
        (
            Flaw::LoadsWithoutTheLease,
            "a second lease was given while lease_and_load had given one",
        ),
        (Flaw::DroppedLoadsKeepTheLease, "the suite never ends"),
        (
            Flaw::LastSavesOnlyRelease,
            "a session was saved and its lease released",
        ),
        (Flaw::RepeatedLastSavesKeepTheLease, "the suite never ends"),
        (
            Flaw::FailedLastSavesRelease,
            "a second lease was given after a save_and_release that failed",
        ),
        (
            Flaw::LastSavesReleaseTwice,
            "a second lease was given after save_and_release, while the next one was held",
        ),
        (
            Flaw::DroppedLastSavesReleaseLater,
            "after a dropped save_and_release, while the next one was held",
        ),
    ];
    for (flaw, expected) in cases {
        let report = report(flaw).await;
        let report = report.unwrap_or_else(|| panic!("{flaw:?} was not found"));
        assert!(report.contains(expected), "{flaw:?}: {report}");
    }
}
