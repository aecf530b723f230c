//! Where a process is in a refresh or a revocation: `src/source/attempt.rs` has the attempt.

use crate::session::{Credential, Credentials, Mark, Session};

/// Where a process is, between two operations on the store or the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    Idle,
    /// Its refresh waits for the lease.
    WantsLease,
    /// About to save the mark.
    Marking {
        session: Session,
        replaces: u8,
        /// What the stored session sends.
        stored: Option<Credential>,
        is_second: bool,
    },
    /// About to send a token request.
    Sending(Attempt),
    /// The request is on its way, or its answer.
    Waiting(Attempt, Answer),
    /// The answer is read. About to save.
    Saving {
        session: Session,
        replaces: u8,
        /// What the stored session sends.
        stored: Option<Credential>,
    },
    /// The refresh has failed. About to save what that says of the session.
    Recording {
        outcome: Session,
        replaces: u8,
        is_final: bool,
    },
    /// About to release the lease, or to keep it.
    Releasing(End),
    /// It is given a login, and waits for the lease.
    LoginWantsLease(Credential),
    /// About to save the session of a login.
    SavingLogin {
        session: Session,
        replaces: u8,
        /// What the stored session sends.
        stored: Option<Credential>,
    },
    /// Its revocation waits for the lease.
    RevocationWantsLease,
    /// About to ask the server to revoke these tokens.
    Revoking {
        session: Session,
        replaces: u8,
        /// What the stored session sends.
        stored: Option<Credential>,
        tokens: Credentials,
    },
    /// About to save that the session was revoked.
    SavingRevoked {
        session: Session,
        replaces: u8,
    },
}

/// How a refresh or a revocation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    /// With a token.
    Token(Credential),
    /// With an error.
    Failed {
        is_final: bool,
    },
    /// With a lost lease: the refresh begins again.
    Again,
    /// With the session of a login, and its token.
    LoggedIn(Credential),
    /// With a lost lease: the login is taken again.
    LoginAgain(Credential),
    Revoked,
    /// The revocation has failed, or could not be saved.
    NotRevoked,
    /// With a lost lease: the revocation begins again.
    RevokeAgain,
}

/// A refresh whose session is marked: `src/source/attempt.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) session: Session,
    pub(crate) replaces: u8,
    /// What the stored session sends, when its login is no new one any more.
    pub(crate) stored: Option<Credential>,
    /// `unknown_since`.
    pub(crate) unknown: Option<Mark>,
    pub(crate) was_resent: bool,
    pub(crate) was_sent: bool,
    pub(crate) dead: Credentials,
    pub(crate) sends: Sends,
    pub(crate) stage: Stage,
}

/// What a refresh sends: `Credential` in `src/source/session_state.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Sends {
    RefreshToken(Credential),
    Grant,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    First,
    /// The store had another credential after the first one was rejected.
    Second,
    /// The grant begins the session anew.
    Anew,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// The server has not handled the request.
    Pending,
    New(Credential),
    Dead,
}

impl Attempt {
    /// Its mark is in the store.
    pub(crate) fn is_marked(&self) -> bool {
        self.replaces == self.session.version
    }
}
