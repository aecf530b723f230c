//! [`Clause`]: the checks of one clause, and the panic message if it is broken.

use std::{fmt::Display, time::Duration};

use tokio::time::timeout;

use crate::{
    error::{TokenError, TokenErrorKind},
    store::{StoredSession, TokenStore},
};

/// How long the suite waits for something that must not happen. Correct stores pass however slow they are.
pub(super) const WATCH: Duration = Duration::from_millis(50);

/// A clause of the contract, as text for the panic message.
#[derive(Clone, Copy)]
pub(super) struct Clause(pub(super) &'static str);

impl Clause {
    pub(super) fn broken(self, what: impl Display) -> ! {
        panic!(
            "the store breaks the contract of TokenStore, clause \"{}\": {what}",
            self.0
        )
    }

    pub(super) fn check(self, holds: bool, what: &str) {
        if !holds {
            self.broken(what);
        }
    }

    pub(super) fn ok<T>(self, doing: &str, outcome: Result<T, TokenError>) -> T {
        outcome.unwrap_or_else(|error| self.broken(format_args!("{doing} failed: {error}")))
    }

    pub(super) fn lost(self, doing: &str, outcome: Result<(), TokenError>) {
        match outcome {
            Err(error) if error.kind() == TokenErrorKind::LeaseLost => {}
            Err(error) => self.broken(format_args!(
                "{doing} must fail with LeaseLost, but failed with: {error}"
            )),
            Ok(()) => self.broken(format_args!(
                "{doing} must fail with LeaseLost, but succeeded"
            )),
        }
    }

    pub(super) async fn lease<S: TokenStore>(self, store: &S) -> S::Lease {
        self.ok("lease", store.lease().await)
    }

    pub(super) async fn lease_and_load<S: TokenStore>(
        self,
        store: &S,
    ) -> (S::Lease, Option<StoredSession>) {
        self.ok("lease_and_load", store.lease_and_load().await)
    }

    pub(super) async fn load<S: TokenStore>(self, store: &S) -> Option<StoredSession> {
        self.ok("load", store.load().await)
    }

    /// The stored version, which the next save must replace.
    pub(super) async fn version<S: TokenStore>(self, store: &S) -> u64 {
        self.load(store)
            .await
            .as_ref()
            .map_or(0, StoredSession::version)
    }

    pub(super) async fn is_stored<S: TokenStore>(
        self,
        store: &S,
        expected: &StoredSession,
        what: &str,
    ) {
        match self.load(store).await {
            None => self.broken(format_args!("{what}, but load returned nothing")),
            Some(loaded) if !loaded.is_written_like(expected) => self.broken(format_args!(
                "{what}: load must return version {}, but returned version {} or another session",
                expected.version(),
                loaded.version()
            )),
            Some(_) => {}
        }
    }

    /// Checks that no lease is given while the suite waits.
    pub(super) async fn must_wait<S: TokenStore>(self, store: &S, why: &str) {
        match timeout(WATCH, store.lease()).await {
            Err(_) => {}
            Ok(Ok(_)) => self.broken(format_args!("a second lease was given {why}")),
            Ok(Err(error)) if error.kind() == TokenErrorKind::Timeout => {}
            Ok(Err(error)) => {
                self.broken(format_args!("waiting for a lease failed {why}: {error}"))
            }
        }
    }
}
