//! [`TokenErrorKind`]: what kind of failure a [`TokenError`](super::TokenError) is.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Recovery;

/// What kind of failure a [`TokenError`](crate::TokenError) is.
///
/// It is serialized as its [name](TokenErrorKind::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The token endpoint could not be reached, or the connection broke.
    Transport,
    /// The token endpoint, a store or a lease did not answer within its time limit.
    Timeout,
    /// The token endpoint answered with a server error.
    Server,
    /// The token endpoint asks for fewer requests.
    RateLimited,
    /// The response of the token endpoint is not a token response.
    InvalidResponse,
    /// The token endpoint rejected the client authentication (`invalid_client`, RFC 6749 §5.2).
    InvalidClient,
    /// The token endpoint rejected the request, and will reject it again until somebody corrects it.
    InvalidRequest,
    /// The refresh token or the exchange token is no longer valid. A person must log in again or configure a new one.
    ReauthRequired,
    /// A token is empty, or has characters that no header may carry.
    InvalidToken,
    /// The API rejected the token, and there is no other.
    Rejected,
    /// A rejected request was not sent again: its body or its method does not allow it, or the retry budget is empty.
    NotReplayed,
    /// The session could not be loaded from or saved to its store.
    Store,
    /// Another process saved the session while this one believed that it held the lease.
    LeaseLost,
    /// A token would have been sent over plain http.
    InsecureOrigin,
    /// The refresh task ended before it was done: its runtime shut down, or the source panicked.
    Interrupted,
    /// The configuration cannot work: a malformed URL, a missing value, no Tokio runtime.
    Config,
    /// A [`TokenSource`](crate::TokenSource) of the application failed.
    Source,
}

impl TokenErrorKind {
    /// The name of the kind in snake case, such as `reauth_required`. It does not change between versions.
    ///
    /// Use it as a label of metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Timeout => "timeout",
            Self::Server => "server",
            Self::RateLimited => "rate_limited",
            Self::InvalidResponse => "invalid_response",
            Self::InvalidClient => "invalid_client",
            Self::InvalidRequest => "invalid_request",
            Self::ReauthRequired => "reauth_required",
            Self::InvalidToken => "invalid_token",
            Self::Rejected => "rejected",
            Self::NotReplayed => "not_replayed",
            Self::Store => "store",
            Self::LeaseLost => "lease_lost",
            Self::InsecureOrigin => "insecure_origin",
            Self::Interrupted => "interrupted",
            Self::Config => "config",
            Self::Source => "source",
        }
    }

    /// See [`TokenError::is_transient`](super::TokenError::is_transient).
    pub(super) fn is_transient(self) -> bool {
        match self {
            Self::Transport
            | Self::Timeout
            | Self::Server
            | Self::RateLimited
            | Self::InvalidResponse
            | Self::Rejected
            | Self::NotReplayed
            | Self::Store
            | Self::LeaseLost
            | Self::Interrupted
            | Self::Source => true,
            Self::InvalidClient
            | Self::InvalidRequest
            | Self::ReauthRequired
            | Self::InvalidToken
            | Self::InsecureOrigin
            | Self::Config => false,
        }
    }
}

impl TokenErrorKind {
    pub(super) fn recovery(self) -> Recovery {
        match self {
            Self::ReauthRequired => Recovery::Never,
            Self::InvalidResponse => Recovery::Slowly,
            kind if kind.is_transient() => Recovery::Soon,
            _ => Recovery::Slowly,
        }
    }
}

impl fmt::Display for TokenErrorKind {
    /// Describes the kind in a few words, as the message of an error begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transport => "the request to the token endpoint failed",
            Self::Timeout => "no token in time",
            Self::Server => "the token endpoint failed",
            Self::RateLimited => "too many token requests",
            Self::InvalidResponse => "the token endpoint did not answer with a token",
            Self::InvalidClient => "the token endpoint rejected the client authentication",
            Self::InvalidRequest => "the token endpoint rejected the request",
            Self::ReauthRequired => "a person must authorize again",
            Self::InvalidToken => "the token is not valid",
            Self::Rejected => "the API rejected the token",
            Self::NotReplayed => "the rejected request was not sent again",
            Self::Store => "the session store failed",
            Self::LeaseLost => "another process changed the session",
            Self::InsecureOrigin => "a token may not be sent over plain http",
            Self::Interrupted => "the refresh was interrupted",
            Self::Config => "the configuration cannot work",
            Self::Source => "the token source failed",
        })
    }
}

impl Serialize for TokenErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_serialised_as_its_name() {
        let json = serde_json::to_string(&TokenErrorKind::ReauthRequired).unwrap();
        assert_eq!(json, "\"reauth_required\"");
    }
}
