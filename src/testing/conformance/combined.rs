//! The clauses on calls that do two things in one operation.

use tokio::time::{sleep, timeout};

use super::{
    clause::{Clause, WATCH},
    sample_session,
    suite::{Suite, abandon},
};
use crate::store::{StoreLease, StoredSession, TokenStore};

impl<S: TokenStore, F: Fn() -> S> Suite<F> {
    pub(super) async fn a_lease_comes_with_what_is_stored_under_it(&self) {
        let clause = Clause("lease_and_load returns what is stored when the lease is taken");
        let (ours, theirs) = (self.store(), self.store());
        let (mut lease, stored) = clause.lease_and_load(&ours).await;
        let version = stored.as_ref().map_or(0, StoredSession::version);
        clause.check(
            version == clause.version(&theirs).await,
            "lease_and_load and load return different versions",
        );
        clause
            .must_wait(&theirs, "while lease_and_load had given one")
            .await;
        clause.check(
            lease.is_held().await.is_ok_and(|is_held| is_held),
            "is_held is not true although lease_and_load has given the lease",
        );
        let early = sample_session(version + 1, "early");
        clause.ok("save", lease.save(version, &early).await);
        let mut waiting = Box::pin(theirs.lease_and_load());
        let given = timeout(WATCH, &mut waiting).await;
        clause.check(given.is_err(), "a second lease was given by lease_and_load");
        let late = sample_session(version + 2, "late");
        clause.ok("save", lease.save(version + 1, &late).await);
        lease.release().await;
        let (mut lease, stored) = clause.ok("the wait for a lease", waiting.await);
        clause.check(
            stored.is_some_and(|stored| stored.is_written_like(&late)),
            "what was saved before the lease was taken was not loaded with it",
        );
        let next = sample_session(version + 3, "next");
        clause.ok("save", lease.save(version + 2, &next).await);
        drop(lease);
        clause.lease(&ours).await.release().await;
    }

    pub(super) async fn a_dropped_wait_with_a_load_holds_no_lease(&self) {
        let clause = Clause("a lease_and_load that is dropped leaves no lease behind");
        let (ours, theirs) = (self.store(), self.store());
        for polls in 1..=6 {
            let lease = clause.lease(&ours).await;
            let early = abandon(polls, theirs.lease_and_load()).await;
            clause.check(!matches!(early, Some(Ok(_))), "a second lease was given");
            lease.release().await;
            drop(abandon(polls, theirs.lease_and_load()).await);
            clause.lease(&ours).await.release().await;
        }
    }

    pub(super) async fn the_last_save_releases_the_lease(&self) {
        let clause = Clause("save_and_release saves, and releases its own lease only");
        let (ours, theirs) = (self.store(), self.store());
        for is_dropped in [false, true] {
            for is_repeated in [false, true] {
                let (mut lease, stored) = clause.lease_and_load(&ours).await;
                let version = stored.as_ref().map_or(0, StoredSession::version);
                let session = sample_session(version + 1, "last");
                if is_repeated {
                    clause.ok("save", lease.save(version, &session).await);
                }
                let saved = lease.save_and_release(version, &session).await;
                clause.ok("save_and_release", saved);
                clause
                    .is_stored(
                        &theirs,
                        &session,
                        "a session was saved and its lease released",
                    )
                    .await;
                // The lease is released with the save, or by its holder.
                let early = timeout(WATCH, theirs.lease()).await.ok();
                if is_dropped {
                    drop(lease);
                } else {
                    lease.release().await;
                }
                let next = match early {
                    Some(next) => clause.ok("a lease after save_and_release", next),
                    None => clause.lease(&theirs).await,
                };
                let why = "after save_and_release, while the next one was held";
                clause.must_wait(&ours, why).await;
                next.release().await;
            }
        }
    }

    pub(super) async fn a_last_save_that_fails_keeps_the_lease(&self) {
        let clause = Clause("a save_and_release that fails changes nothing and keeps the lease");
        let (ours, theirs) = (self.store(), self.store());
        let mut lease = clause.lease(&ours).await;
        let version = clause.version(&ours).await;
        let session = sample_session(version + 1, "stored");
        clause.ok("save", lease.save(version, &session).await);
        let stale = sample_session(version + 2, "stale");
        let saved = lease.save_and_release(version, &stale).await;
        clause.lost("a stale save_and_release", saved);
        let what = "a stale save_and_release has failed";
        clause.is_stored(&theirs, &session, what).await;
        clause
            .must_wait(&theirs, "after a save_and_release that failed")
            .await;
        clause.check(
            lease.is_held().await.is_ok_and(|is_held| is_held),
            "is_held is not true after a save_and_release that failed",
        );
        let next = sample_session(version + 2, "next");
        let saved = lease.save_and_release(version + 1, &next).await;
        clause.ok("a save_and_release after one that failed", saved);
        lease.release().await;
        clause.lease(&theirs).await.release().await;
    }

    pub(super) async fn a_dropped_last_save_is_done_or_not(&self) {
        let clause = Clause("a dropped save_and_release leaves the old session or the new one");
        let store = self.store();
        for polls in 1..=6 {
            let (mut lease, stored) = clause.lease_and_load(&store).await;
            let version = stored.as_ref().map_or(0, StoredSession::version);
            let new = sample_session(version + 1, "dropped");
            let done = abandon(polls, lease.save_and_release(version, &new)).await;
            drop(lease);

            let (mut lease, found) = clause.lease_and_load(&store).await;
            let found = found.as_ref().map_or(0, StoredSession::version);
            match done {
                Some(saved) => clause.ok("save_and_release", saved),
                None => clause.check(
                    found == version || found == version + 1,
                    "lease_and_load returns neither the old nor the new version",
                ),
            }
            // It must take effect no later: the next holder has the lease, and replaces what it has loaded.
            sleep(WATCH).await;
            let why = "after a dropped save_and_release, while the next one was held";
            clause.must_wait(&self.store(), why).await;
            let next = sample_session(version + 2, "next");
            clause.ok("the next save", lease.save(found, &next).await);
            clause
                .is_stored(&store, &next, "the next holder has saved")
                .await;
        }
    }
}
