//! [`TokenStore`]: where a session survives, and how those who share it take turns.
//!
//! A server that rotates refresh tokens accepts each once; some revoke the whole session when an old one comes back. So
//! whoever refreshes must be alone, must begin from the newest session, and must have saved what he got before anybody
//! uses it. The contract of a store gives exactly that:
//!
//! ```text
//!   load ──► newer than what I have? use it
//!   lease ──► load again ──► newer by now? use it, release
//!                │
//!                └─► POST ──► save, if nobody else has saved since ──► release
//! ```

mod erased;
mod memory;
mod session;

use std::future::Future;

pub(crate) use self::erased::{DynLease, DynStore};
pub(crate) use self::session::{Fingerprint, NewTokens};
pub use self::{
    memory::{MemoryLease, MemoryStore},
    session::Session,
};
use crate::error::TokenError;

/// Keeps one [`Session`], for one process or for many.
///
/// # What an implementation must do
///
/// - [`load`](TokenStore::load) gives what was saved last, whole, or nothing if nothing was saved. What can't be read is
///   an error, never "nothing": a session taken for missing would be overwritten.
/// - [`lease`](TokenStore::lease) waits until nobody else holds a lease on the same session, and no longer than the store
///   has set itself as a limit. A lease ends when its holder releases or drops it, and a while after its holder has died.
/// - [`StoreLease::save`] is durable when it returns, and atomic: a crash at any instant leaves the old session or the new
///   one. It is also fenced: it must fail with
///   [`LeaseLost`](crate::TokenErrorKind::LeaseLost), and change nothing, if what is stored is no longer the version that
///   the new one replaces.
///
/// Other errors are of kind [`Store`](crate::TokenErrorKind::Store). All sessions are secrets: they must not reach logs.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no store of sessions",
    label = "this keeps no sessions",
    note = "the module `store` has some, and says what one of your own must do"
)]
pub trait TokenStore: Send + Sync + 'static {
    /// The right to save, for as long as it lasts.
    type Lease: StoreLease;

    /// What was saved last.
    ///
    /// # Errors
    ///
    /// The store can't be reached, or holds what is no session.
    fn load(&self) -> impl Future<Output = Result<Option<Session>, TokenError>> + Send;

    /// Waits for the right to save, for which only one holder has at a time.
    ///
    /// # Errors
    ///
    /// The store can't be reached, or the lease could not be had in time.
    fn lease(&self) -> impl Future<Output = Result<Self::Lease, TokenError>> + Send;
}

/// The right to save a session; ends when dropped.
pub trait StoreLease: Send + Sync + 'static {
    /// Saves `session`, if version `replaces` is still the one that is stored; 0 stands for "nothing is stored".
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::TokenErrorKind::LeaseLost) if another version is stored by now;
    /// [`Store`](crate::TokenErrorKind::Store) if the session could not be saved, or nobody can tell whether it was.
    fn save(
        &mut self,
        replaces: u64,
        session: &Session,
    ) -> impl Future<Output = Result<(), TokenError>> + Send;

    /// Gives the lease back, so that others need not wait for its end.
    fn release(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        drop(self);
        std::future::ready(())
    }
}
