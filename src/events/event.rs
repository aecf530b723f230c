//! [`Event`]: something that happened to a session.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::error::TokenError;

/// Something that happened to the session of a cache. An [`Observer`](super::Observer) gets it.
///
/// It contains no secret. Which fields are set depends on the [kind](Event::kind): the table of the [module](super) says it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// The [name](crate::TokenCacheBuilder::name) of the cache, which may tell users apart.
    pub name: &'a str,
    /// The [group](crate::TokenCacheBuilder::group) of the cache.
    pub group: &'a str,
    /// The [kind of source](crate::TokenSource::grant), such as `refresh_token`.
    pub grant: &'static str,
    /// When it happened, by the clock of the cache.
    pub at: SystemTime,
    /// Why the refresh began.
    pub reason: Option<RefreshReason>,
    /// How the replay ended.
    pub outcome: Option<ReplayOutcome>,
    /// The number of the token. All caches of the process count together. The same secret, issued again, keeps its number.
    pub generation: Option<u64>,
    /// How long it took.
    pub duration: Option<Duration>,
    /// When the token expires.
    pub expires_at: Option<SystemTime>,
    /// When the next refresh is due. After a failure: when it may start.
    pub next_due: Option<SystemTime>,
    /// What went wrong.
    pub error: Option<&'a TokenError>,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A refresh ended: a new token is in use.
    Refreshed,
    /// A refresh ended: a token is in use that another process had stored. No token request was sent.
    Adopted,
    /// A refresh failed. It is tried again by itself. With the reason [`MoreScope`](RefreshReason::MoreScope), the token before
    /// it stays in use, and it is tried again when an API asks again.
    Failed,
    /// A refresh failed for [good](TokenError::is_final): a person must log in again, or configure a new credential.
    ReauthRequired,
    /// A refresh ended after something else had taken its place, such as a login. Its result is not used.
    Superseded,
    /// The API rejected the current token, for the first time.
    Rejected,
    /// A request was rejected, or needed more scope. It was sent again, or it could not be: see [`ReplayOutcome`].
    Replayed,
    /// A token is in use whose session could not be saved. It is tried again in the background.
    NotSaved,
    /// The session that could not be saved is saved now, or another process has saved a newer one.
    SavedLate,
    /// A [login](crate::TokenCache::login) has taken the place of the session.
    LoggedIn,
    /// The session was [revoked](crate::TokenCache::revoke), by this process or another.
    Revoked,
    /// A request was sent with a token. A replay counts as another request. Only for observers that
    /// [want requests](super::Observer::wants_requests).
    RequestSent,
    /// A caller has waited for a token. Only for observers that [want requests](super::Observer::wants_requests).
    Waited,
}

impl EventKind {
    /// The name of the kind in snake case, such as `reauth_required`. It does not change between versions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Adopted => "adopted",
            Self::Failed => "failed",
            Self::ReauthRequired => "reauth_required",
            Self::Superseded => "superseded",
            Self::Rejected => "rejected",
            Self::Replayed => "replayed",
            Self::NotSaved => "not_saved",
            Self::SavedLate => "saved_late",
            Self::LoggedIn => "logged_in",
            Self::Revoked => "revoked",
            Self::RequestSent => "request_sent",
            Self::Waited => "waited",
        }
    }
}

/// Why a refresh began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshReason {
    /// There was no token.
    NoToken,
    /// The token was due.
    Due,
    /// The token had expired.
    Expired,
    /// The API had rejected the token.
    Rejected,
    /// [`TokenCache::refresh`](crate::TokenCache::refresh) was called.
    Requested,
    /// The store had told that another process has changed the session.
    Notified,
    /// An API had asked for more scope than the token has, or for other claims: see
    /// [`TokenCacheBuilder::step_up`](crate::TokenCacheBuilder::step_up).
    MoreScope,
}

impl RefreshReason {
    /// The name of the reason in snake case, such as `no_token`. It does not change between versions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Requested => "requested",
            Self::Notified => "notified",
            Self::MoreScope => "more_scope",
        }
    }
}

/// How the replay of a request ended that was rejected, or needed more scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayOutcome {
    /// The API did not reject the request again.
    Accepted,
    /// The API rejected the new token too.
    Rejected,
    /// The request was sent again, and no response came.
    Failed,
    /// The request was not sent again. The [error](Event::error) says why.
    NotSent,
}

impl ReplayOutcome {
    /// All of them.
    #[cfg(feature = "metrics")]
    pub(super) const ALL: [Self; 4] = [Self::Accepted, Self::Rejected, Self::Failed, Self::NotSent];

    /// The name of the outcome in snake case, such as `not_sent`. It does not change between versions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::NotSent => "not_sent",
        }
    }
}

macro_rules! display_as_str {
    ($($kind:ident),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

display_as_str!(EventKind, RefreshReason, ReplayOutcome);

/// What an [`Event`] says, without the names of the cache.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) kind: EventKind,
    pub(crate) at: SystemTime,
    pub(crate) reason: Option<RefreshReason>,
    pub(crate) outcome: Option<ReplayOutcome>,
    pub(crate) generation: Option<u64>,
    pub(crate) duration: Option<Duration>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) next_due: Option<SystemTime>,
    pub(crate) error: Option<TokenError>,
}

impl Record {
    #[inline]
    pub(crate) fn new(kind: EventKind, at: SystemTime) -> Self {
        Self {
            kind,
            at,
            reason: None,
            outcome: None,
            generation: None,
            duration: None,
            expires_at: None,
            next_due: None,
            error: None,
        }
    }

    #[inline]
    pub(super) fn event<'a>(&'a self, names: &'a Names) -> Event<'a> {
        Event {
            kind: self.kind,
            name: &names.name,
            group: &names.group,
            grant: names.grant,
            at: self.at,
            reason: self.reason,
            outcome: self.outcome,
            generation: self.generation,
            duration: self.duration,
            expires_at: self.expires_at,
            next_due: self.next_due,
            error: self.error.as_ref(),
        }
    }
}

/// What a cache is called in logs and metrics.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) name: Box<str>,
    pub(crate) group: Box<str>,
    pub(crate) grant: &'static str,
}
