//! The clauses on what is in a session.

use std::time::{Duration, SystemTime};

use super::{clause::Clause, sample_session, suite::Suite};
use crate::store::{Identity, StoreLease, TokenStore};

impl<S: TokenStore, F: Fn() -> S> Suite<F> {
    pub(super) async fn sessions_come_back_whole(&self) {
        let clause = Clause("load returns the whole session");
        let store = self.store();
        let mut lease = clause.lease(&store).await;
        // Tokens have up to 64 KiB, and the label is part of two of them.
        let long = "long ".repeat(12_000);
        for label in [
            "",
            "\"\\/\u{0}\r\n\t{}'%00 --",
            "ü€𝄞\u{feff}",
            &long,
            "short again",
        ] {
            let version = clause.version(&store).await;
            let session = sample_session(version + 1, label);
            clause.ok("save", lease.save(version, &session).await);
            let what = format!("a session with {} bytes of label was saved", label.len());
            clause.is_stored(&store, &session, &what).await;
        }
    }

    pub(super) async fn marks_are_saved(&self) {
        let clause = Clause("a save that changes no token is a save");
        let (ours, theirs) = (self.store(), self.store());
        let mut lease = clause.lease(&ours).await;
        let mut version = clause.version(&ours).await;
        let session = sample_session(version + 1, "marked");
        clause.ok("save", lease.save(version, &session).await);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let moved = session.of_client(Identity::new("client", "another"));
        let refreshing = moved.refreshing(now, 1);
        let settled = refreshing.settled(None);
        let dead = [Identity::new("refresh", "a"), Identity::new("refresh", "b")];
        let ended = refreshing.settled(Some(now)).with_dead(&dead, now);
        for (changed, what) in [
            (moved.clone(), "the client was recorded"),
            (refreshing, "a refresh has begun"),
            (settled, "a refresh has ended without new tokens"),
            (ended, "the session was marked as ended"),
            (moved, "the mark of its end was removed"),
        ] {
            version += 1;
            let changed = changed.at(version + 1);
            clause.ok("the save of a mark", lease.save(version, &changed).await);
            clause.is_stored(&theirs, &changed, what).await;
        }
    }
}
