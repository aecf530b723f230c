//! [`store_conformance`]: the contract of a token store, as a suite of checks for any implementation.

mod clause;
mod combined;
mod contents;
mod suite;

use self::suite::Suite;
use crate::store::{self, StoredSession, TokenStore};

/// Creates a session to save in tests of a store.
///
/// `version` counts from 1. `label` makes the session differ from others of the same version. It is part of what is
/// stored, may be long, and may contain any characters.
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

/// Checks a store against the contract of [`TokenStore`].
///
/// `handle` returns a new handle to the same session, as another process or host would get it: with a connection of its
/// own, if the store has connections. The store must be empty when the suite begins. A sample session is left behind.
///
/// Set the store to wait for a lease for some seconds, and let leases expire later than that. Otherwise a lease that is
/// not released may go unnoticed.
///
/// The suite does not test processes, crashes and disks. Test on your own that a save is atomic, and durable when it
/// returns.
///
/// # Panics
///
/// Panics if the store breaks a clause of the contract. The message names the clause.
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
    // The first two clauses need an empty store. The others work with any session in it.
    suite.nothing_is_none().await;
    suite.nothing_has_version_0().await;
    suite.a_saved_session_is_loaded_by_all().await;
    suite.a_stale_save_changes_nothing().await;
    suite.a_save_can_be_repeated().await;
    suite.versions_may_skip().await;
    suite.sessions_come_back_whole().await;
    suite.marks_are_saved().await;
    suite.one_holder_at_a_time().await;
    suite.a_dropped_wait_holds_no_lease().await;
    suite.a_dropped_save_is_done_or_not().await;
    suite.a_lease_comes_with_what_is_stored_under_it().await;
    suite.a_dropped_wait_with_a_load_holds_no_lease().await;
    suite.the_last_save_releases_the_lease().await;
    suite.a_last_save_that_fails_keeps_the_lease().await;
    suite.a_dropped_last_save_is_done_or_not().await;
    suite.concurrent_saves_lose_nothing().await;
}
