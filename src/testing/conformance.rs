//! What every store must do, as a suite that any implementation can run against itself.

mod clause;
mod suite;

use self::suite::Suite;
use crate::store::{self, StoredSession, TokenStore};

/// A made-up session of this `version`, counted from 1, to save in tests of a store.
///
/// `label` tells it from others of the same version. It is part of what is stored, may be long, and may hold any
/// characters.
///
/// # Examples
///
/// ```
/// use tower_bearer::testing::sample_session;
///
/// assert_eq!(sample_session(7, "mine").version(), 7);
/// ```
#[must_use]
pub fn sample_session(version: u64, label: &str) -> StoredSession {
    store::sample(version.max(1), label)
}

/// Runs a store against the contract of [`TokenStore`].
///
/// `handle` gives another handle to one and the same session, as another part of the program, another process or another
/// host would get it: a new connection, if the store has one. Nothing may be stored when the suite begins; it leaves a
/// made-up session behind.
///
/// Give the store a limit for waiting of some seconds, and if its leases end by themselves, let them last longer than
/// that: then a lease that is left behind shows.
///
/// The suite knows nothing of processes, crashes and disks. That a save is durable when it returns, and atomic, is for
/// tests of your own.
///
/// # Panics
///
/// If a clause of the contract is broken; the message names it.
///
/// # Examples
///
/// ```
/// use tower_bearer::{MemoryStore, testing::store_conformance};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let store = MemoryStore::new();
/// store_conformance(|| store.clone()).await;
/// # }
/// ```
pub async fn store_conformance<S: TokenStore>(handle: impl Fn() -> S) {
    let suite = Suite { handle };
    // The first clauses find an empty store, all others one session or another.
    suite.nothing_is_none().await;
    suite.nothing_has_version_0().await;
    suite.a_saved_session_is_loaded_by_all().await;
    suite.a_stale_save_changes_nothing().await;
    suite.a_save_can_be_repeated().await;
    suite.versions_may_skip().await;
    suite.sessions_come_back_whole().await;
    suite.one_holder_at_a_time().await;
    suite.who_stops_waiting_holds_nothing().await;
    suite.a_dropped_save_is_done_or_not().await;
    suite.turns_lose_nothing().await;
}
