//! What is explored: the server, the grant, what may go wrong and how often, and the fault that is built in.

use crate::server::Reuse;

/// One exploration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) processes: usize,
    pub(crate) reuse: Reuse,
    /// The grant is an exchange token, which works again and again. Otherwise it is a refresh token.
    pub(crate) grant_can_repeat: bool,
    /// How often each of these happens, at most.
    pub(crate) limits: Limits,
    pub(crate) fault: Option<Fault>,
}

impl Setup {
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

/// How often each of these may happen, in all processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Limits {
    /// Refreshes begin.
    pub(crate) refreshes: u8,
    /// A process dies, and one that knows nothing takes its place.
    pub(crate) crashes: u8,
    /// A request does not arrive, or its answer does not.
    pub(crate) losses: u8,
    /// A request arrives after its sender has died or has given up.
    pub(crate) late_requests: u8,
    /// A gateway answers with 4xx and no OAuth code, in place of the server's own answer or without asking it.
    pub(crate) pages: u8,
    /// A save fails three times in a row.
    pub(crate) failed_saves: u8,
    /// A lease ends although its holder lives.
    pub(crate) ended_leases: u8,
    /// The store loses its last write.
    pub(crate) failovers: u8,
    /// A person logs in again. The new credential is configured in some processes, and they start again.
    pub(crate) logins: u8,
    /// A person logs in again. A running process is given the new refresh token.
    pub(crate) process_logins: u8,
    /// A person logs in again. The new refresh token is put into the store.
    pub(crate) imports: u8,
    /// The session is revoked.
    pub(crate) revocations: u8,
    /// All access tokens expire.
    pub(crate) expiries: u8,
    /// The server's grace period ends.
    pub(crate) grace_ends: u8,
    /// The server ends the family of the stored refresh token.
    pub(crate) ended_families: u8,
    /// The server ends the login of the stored session. An exchange token is dead then.
    pub(crate) ended_logins: u8,
}

impl Limits {
    /// Nothing happens.
    pub(crate) const NONE: Self = Self {
        refreshes: 0,
        crashes: 0,
        losses: 0,
        late_requests: 0,
        pages: 0,
        failed_saves: 0,
        ended_leases: 0,
        failovers: 0,
        logins: 0,
        process_logins: 0,
        imports: 0,
        revocations: 0,
        expiries: 0,
        grace_ends: 0,
        ended_families: 0,
        ended_logins: 0,
    };
}

/// A fault that the model can have, to show that its properties notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// No mark is saved before the request.
    NoMark,
    /// The mark of a session that is marked already is the same.
    MarksLikeTheOneBefore,
    /// If the mark cannot be saved, the store is not read before the request is sent.
    SendsUnmarkedUnchecked,
    /// A stored session is adopted and refreshed whatever this process has.
    AdoptsWithoutComparing,
    /// A session that could not be saved is not refreshed from memory: the stored one is.
    ForgetsUnsaved,
    /// The token is used before its session is saved.
    PublishesBeforeSaving,
    /// Saves do not compare versions.
    SavesWithoutVersion,
    /// The store is not read before a refresh token is sent again.
    SendsAgainUnchecked,
    /// The lease is released although a session is not saved.
    ReleasesWhileUnsaved,
    /// A session does not keep the identities of those before it.
    ForgetsFormerIdentities,
    /// A revocation is kept in memory only.
    RevokesInMemoryOnly,
    /// The grant begins the session anew after any 4xx.
    BeginsAnewOnAnyPage,
    /// The store is not compared before the grant begins the session anew.
    BeginsAnewUnchecked,
    /// A page of a gateway ends the session.
    EndsOnAnyPage,
    /// What the server has declared dead is not saved.
    ForgetsDeadCredentials,
    /// A token response makes the store forget which credentials are dead.
    ForgetsDeadLogins,
    /// A lease that was taken after another one was lost is not kept while a session is not saved.
    KeepsNoSecondLease,
    /// The lease is released although a session is not saved, because another process has saved without the lease.
    ReleasesWhenOvertaken,
    /// Of two sessions, the one with the higher generation is later, also if the other one is of a later login.
    ComparesGenerationsOnly,
    /// After an unexplained 400, an earlier refresh token in the store is sent.
    SendsEarlierAfterPage,
    /// A login that could not be saved does not go on from memory.
    ForgetsUnsavedLogin,
    /// A login does not know the sessions before it.
    LoginForgetsFormerIdentities,
    /// A session in the background is saved over any stored one.
    SavesInBackgroundOverAnything,
    /// After a mark, the request is sent without asking for the lease.
    SendsAfterMarkWithoutLease,
    /// A refresh token is sent again without asking for the lease.
    SendsAgainWithoutLease,
    /// The grant begins the session anew without asking for the lease.
    BeginsAnewWithoutLease,
    /// The grant begins the session anew although the server has declared it dead.
    SendsDeadGrant,
}
