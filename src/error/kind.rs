//! [`TokenErrorKind`]: what kind of failure a [`TokenError`](super::TokenError) is.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{Asked, Recovery};

/// What kind of failure a [`TokenError`](crate::TokenError) is.
///
/// It is serialized as its [name](TokenErrorKind::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The token endpoint could not be reached, or the connection broke.
    Transport,
    /// The token endpoint, a store or a lease did not answer within its time limit; or there is no token yet, and
    /// [`try_token`](crate::TokenCache::try_token) does not wait for it.
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
    /// The server does not accept the credential of the grant, such as the refresh token. A person must log in again or configure
    /// a new one.
    ReauthRequired,
    /// A person was asked to log in, and has denied the access, or the server has for them. Show it with a way to try again. Do
    /// not begin another login by yourself: the person would be asked over and over. It is not
    /// [final](crate::TokenError::is_final), because it says nothing of a session.
    LoginDenied,
    /// A token is empty, or has characters that no header may carry.
    InvalidToken,
    /// The API rejected the token, and there is no other.
    Rejected,
    /// The API asks for more permission than the token has, and more cannot be had: a person must log in, it is not on the
    /// list of [`StepUp`](crate::StepUp), or the authorization server does not grant it.
    InsufficientScope,
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
            Self::LoginDenied => "login_denied",
            Self::InvalidToken => "invalid_token",
            Self::Rejected => "rejected",
            Self::InsufficientScope => "insufficient_scope",
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
            | Self::LoginDenied
            | Self::InvalidToken
            | Self::InsufficientScope
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

impl TokenErrorKind {
    /// Describes the kind in a few words, as the message of an error about `asked` begins.
    pub(super) fn describe(self, asked: Asked, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (endpoint, wanted) = (asked.endpoint(), asked.wanted());
        match self {
            Self::Transport => write!(f, "the request to {endpoint} failed"),
            Self::Timeout => write!(f, "no {wanted} in time"),
            Self::Server => write!(f, "{endpoint} failed"),
            Self::RateLimited => write!(f, "too many {wanted} requests"),
            Self::InvalidResponse => write!(f, "{endpoint} did not answer with {}", asked.answer()),
            Self::InvalidClient => write!(f, "{endpoint} rejected the client authentication"),
            Self::InvalidRequest => write!(f, "{endpoint} rejected the request"),
            Self::ReauthRequired => f.write_str("a person must authorize again"),
            Self::LoginDenied => f.write_str("the login was denied"),
            Self::InvalidToken => f.write_str("the token is not valid"),
            Self::Rejected => f.write_str("the API rejected the token"),
            Self::InsufficientScope => f.write_str("the API asks for more permission"),
            Self::NotReplayed => f.write_str("the rejected request was not sent again"),
            Self::Store => f.write_str("the session store failed"),
            Self::LeaseLost => f.write_str("another process changed the session"),
            Self::InsecureOrigin => f.write_str("a token may not be sent over plain http"),
            Self::Interrupted => f.write_str("the refresh was interrupted"),
            Self::Config => f.write_str("the configuration cannot work"),
            Self::Source => f.write_str("the token source failed"),
        }
    }
}

impl fmt::Display for TokenErrorKind {
    /// Describes the kind in a few words, as the message of an error about a token request begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(Asked::Token, f)
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
