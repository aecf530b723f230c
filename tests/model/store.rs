//! The store: the contract in `src/store/token_store.rs`, as `RedisStore` keeps it.
//!
//! A lease may end while its holder lives, a save does not need it, and the last write may be lost. A `FileStore` and a
//! `MemoryStore` do none of this, so all that they can do is among what is explored here.

use crate::session::Session;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Store {
    pub(crate) session: Option<Session>,
    /// The process that has the lease. A dead process has none: waiting for its lease to end changes nothing.
    pub(crate) lease: Option<u8>,
    pub(crate) undo: Undo,
}

/// What a failover does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Undo {
    /// Nothing, as there is none any more.
    #[default]
    Impossible,
    /// It brings back what the last write has replaced.
    To(Option<Session>),
}

/// How a save ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Saved {
    Yes,
    /// An error of kind `Store`. Nothing was written.
    No,
    /// An error of kind `Store`, and the session was written.
    Unknown,
    /// The same, and the lease was released with it, which its holder does not know.
    Released,
}

/// Why a save has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SaveError {
    LeaseLost,
    Store,
}

impl Store {
    pub(crate) fn version(&self) -> u8 {
        self.session.map_or(0, |session| session.version)
    }

    /// Whether a save that replaces the version `replaces` is let through.
    pub(crate) fn accepts(&self, replaces: u8, session: &Session) -> bool {
        self.session.as_ref() == Some(session) || self.version() == replaces
    }
}
