//! [`Recovery`]: when a refresh that failed is tried again.

/// When a refresh that failed with an error is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Within seconds, at most a minute apart: the network, a server error, a rate limit.
    Soon,
    /// After 30 seconds, later up to 15 minutes apart: a configuration that somebody may correct, an unexplained error.
    Slowly,
    /// As `Slowly`, but only when a token is needed. A response that is not from the authorization server may hide a
    /// rotation, and the same refresh token sent again may end the session.
    SlowlyWhenNeeded,
    /// Not until something has changed: the server has declared the grant dead.
    Never,
}
