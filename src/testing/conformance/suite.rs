//! The clauses of the contract.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use tokio::{
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

use super::{
    clause::{Clause, WATCH},
    sample_session,
};
use crate::store::{StoreLease, TokenStore};

pub(super) struct Suite<F> {
    pub(super) handle: F,
}

impl<S: TokenStore, F: Fn() -> S> Suite<F> {
    pub(super) fn store(&self) -> S {
        (self.handle)()
    }

    pub(super) async fn nothing_is_none(&self) {
        let clause = Clause("load returns nothing if nothing was saved");
        let store = self.store();
        clause.check(
            clause.load(&store).await.is_none(),
            "the store is not empty; the suite needs an empty one",
        );
        clause.lease(&store).await.release().await;
        drop(clause.lease(&store).await);
        let (lease, stored) = clause.lease_and_load(&store).await;
        clause.check(
            stored.is_none(),
            "lease_and_load has returned a session that nobody has saved",
        );
        lease.release().await;
        clause.check(
            clause.load(&store).await.is_none(),
            "a lease without a save has stored something",
        );
    }

    pub(super) async fn nothing_has_version_0(&self) {
        let clause = Clause("an empty store has version 0 and no other");
        let store = self.store();
        let mut lease = clause.lease(&store).await;
        let saved = lease.save(3, &sample_session(4, "early")).await;
        clause.lost("a save that replaces version 3 in an empty store", saved);
        clause.check(
            clause.load(&store).await.is_none(),
            "the failed save has stored something",
        );
        let first = sample_session(1, "first");
        clause.ok("a save into an empty store", lease.save(0, &first).await);
        clause
            .is_stored(&store, &first, "the first session was saved")
            .await;
    }

    pub(super) async fn a_saved_session_is_loaded_by_all(&self) {
        let clause = Clause("load returns what was saved last, and waits for no lease");
        let (ours, theirs) = (self.store(), self.store());
        let mut lease = clause.lease(&ours).await;
        let version = clause.version(&theirs).await;
        let session = sample_session(version + 1, "shared");
        clause.ok("save", lease.save(version, &session).await);
        let what = "a session was saved, and its lease is still held";
        clause.is_stored(&theirs, &session, what).await;
        lease.release().await;
        clause
            .is_stored(&self.store(), &session, "a session was saved")
            .await;

        let mut lease = clause.lease(&theirs).await;
        let answer = sample_session(version + 2, "answer");
        clause.ok(
            "the save by another handle",
            lease.save(version + 1, &answer).await,
        );
        clause
            .is_stored(&ours, &answer, "another handle has saved")
            .await;
    }

    pub(super) async fn a_stale_save_changes_nothing(&self) {
        let clause = Clause("a save that replaces another version than the stored one fails");
        let store = self.store();
        let mut lease = clause.lease(&store).await;
        let version = clause.version(&store).await;
        let session = sample_session(version + 1, "stored");
        clause.ok("save", lease.save(version, &session).await);
        for stale in [0, version, version + 2, u64::MAX] {
            for new in [version + 1, version + 2, stale.saturating_add(1)] {
                let saved = lease.save(stale, &sample_session(new, "stale")).await;
                clause.lost("a stale save", saved);
                clause
                    .is_stored(&store, &session, "a stale save has failed")
                    .await;
            }
        }
        let next = sample_session(version + 2, "stored");
        let saved = lease.save(version + 1, &next).await;
        clause.ok("a save after failed ones", saved);
    }

    pub(super) async fn a_save_can_be_repeated(&self) {
        let clause = Clause("saving what is already stored succeeds");
        let store = self.store();
        let mut lease = clause.lease(&store).await;
        let version = clause.version(&store).await;
        let session = sample_session(version + 1, "repeated");
        for _ in 0..3 {
            clause.ok("the same save", lease.save(version, &session).await);
        }
        let rival = sample_session(version + 1, "rival");
        let saved = lease.save(version, &rival).await;
        clause.lost("saving another session with the stored version", saved);
        clause
            .is_stored(
                &store,
                &session,
                "another session of the same version was rejected",
            )
            .await;
    }

    pub(super) async fn versions_may_skip(&self) {
        let clause = Clause("the version of what is saved becomes the stored one");
        let store = self.store();
        let mut lease = clause.lease(&store).await;
        let version = clause.version(&store).await;
        let session = sample_session(version + 10, "ahead");
        clause.ok("save", lease.save(version, &session).await);
        clause
            .is_stored(&store, &session, "a session ten versions later was saved")
            .await;
        let next = sample_session(version + 11, "ahead");
        clause.ok("the next save", lease.save(version + 10, &next).await);
    }

    pub(super) async fn one_holder_at_a_time(&self) {
        let clause = Clause("lease waits until no other lease is held");
        let (ours, theirs) = (self.store(), self.store());
        let lease = clause.lease(&ours).await;
        clause
            .must_wait(&theirs, "while another handle held one")
            .await;
        clause
            .must_wait(&ours, "while the same handle held one")
            .await;
        clause.check(
            lease.is_held().await.is_ok_and(|is_held| is_held),
            "is_held is not true although the lease is held and the store is reached",
        );
        lease.release().await;
        let lease = clause.lease(&theirs).await;
        clause
            .must_wait(&ours, "after a release, while the next one was held")
            .await;
        // A caller that is already waiting gets the lease, too.
        let mut waiting = Box::pin(ours.lease());
        let early = timeout(WATCH, &mut waiting).await;
        clause.check(early.is_err(), "the wait ended while the lease was held");
        drop(lease);
        drop(clause.ok("the wait for a lease", waiting.await));
        clause.lease(&theirs).await.release().await;
    }

    pub(super) async fn a_dropped_wait_holds_no_lease(&self) {
        let clause = Clause("a wait for a lease that is dropped leaves no lease behind");
        let (ours, theirs) = (self.store(), self.store());
        for polls in 1..=6 {
            let lease = clause.lease(&ours).await;
            let early = abandon(polls, theirs.lease()).await;
            clause.check(!matches!(early, Some(Ok(_))), "a second lease was given");
            lease.release().await;
            let after = clause.ok("a lease after a dropped wait", ours.lease().await);
            after.release().await;
            // No lease was held, so the dropped future may have had one already.
            drop(abandon(polls, theirs.lease()).await);
            let after = clause.ok(
                "a lease after a dropped request for one",
                ours.lease().await,
            );
            after.release().await;
        }
    }

    pub(super) async fn a_dropped_save_is_done_or_not(&self) {
        let clause = Clause("a dropped save leaves the old session or the new one");
        let store = self.store();
        for polls in 1..=6 {
            let mut lease = clause.lease(&store).await;
            let version = clause.version(&store).await;
            let new = sample_session(version + 1, "dropped");
            let done = abandon(polls, lease.save(version, &new)).await;
            drop(lease);

            let mut lease = clause.lease(&store).await;
            let found = clause.version(&store).await;
            match done {
                Some(saved) => clause.ok("save", saved),
                None => clause.check(
                    found == version || found == version + 1,
                    "load returns neither the old nor the new version",
                ),
            }
            // The dropped save must not take effect later: the next holder replaces the version that it has loaded.
            let next = sample_session(version + 2, "next");
            let saved = lease.save(found, &next).await;
            clause.ok("the save of the next holder", saved);
            sleep(WATCH).await;
            clause
                .is_stored(&store, &next, "the next holder has saved")
                .await;
        }
    }

    pub(super) async fn concurrent_saves_lose_nothing(&self) {
        const TASKS: u64 = 8;
        const SAVES: u64 = 5;
        let clause = Clause("one lease is held at a time, and no save is overwritten");
        let before = clause.version(&self.store()).await;
        let holders = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (store, holders) = (self.store(), Arc::clone(&holders));
            tasks.spawn(async move {
                for _ in 0..SAVES {
                    let mut lease = clause.lease(&store).await;
                    let others = holders.fetch_add(1, Ordering::SeqCst);
                    clause.check(others == 0, "two tasks held a lease at the same time");
                    let version = clause.version(&store).await;
                    yield_now().await;
                    let next = sample_session(version + 1, "concurrent");
                    clause.ok(
                        "a save of one of several tasks",
                        lease.save(version, &next).await,
                    );
                    holders.fetch_sub(1, Ordering::SeqCst);
                    lease.release().await;
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            if let Err(error) = task {
                match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(error) => clause.broken(error),
                }
            }
        }
        let after = clause.version(&self.store()).await;
        clause.check(
            after == before + TASKS * SAVES,
            "the version does not match the number of saves, so a save was lost",
        );
    }
}

/// Drops `future` after so many polls, or if it is not woken for [`WATCH`]. Returns its output if it is ready before.
pub(super) async fn abandon<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut remaining = polls;
    let polled = poll_fn(|cx| {
        remaining -= 1;
        let poll = future.as_mut().poll(cx).map(Some);
        if remaining == 0 && poll.is_pending() {
            return Poll::Ready(None);
        }
        poll
    });
    timeout(WATCH, polled).await.unwrap_or(None)
}
