//! The Tower layers of this crate, their services, and the retry policy.
//!
//! | File or folder | Contents |
//! |---|---|
//! | `bearer/` | [`BearerAuthLayer`]: adds the token, and sends a rejected request again with a new one |
//! | `add_token/` | [`AddTokenLayer`]: adds the token, and never sends a request again |
//! | `sending.rs` | what both have in common: one request, sent with the token |
//! | `retry.rs`, `drain.rs` | [`RefreshOnReject`], the policy for `tower::retry::Retry` |
//! | `extensions.rs` | what users and layers say in the extensions of requests and responses |
//! | `inspect_body/`, `reject_on_trailers/` | layers that find rejections in bodies and trailers |
//! | `reqwest/` | [`BearerAuthLayer`] without Tower: over reqwest, and as a middleware of `reqwest-middleware` |
//!
//! Which of them may use which is written down in `tests/rooms.rs`.

mod add_token;
mod bearer;
mod drain;
mod extensions;
mod inspect_body;
mod reject_on_trailers;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retry;
mod sending;

#[cfg(feature = "reqwest")]
pub use self::reqwest::{RequestBuilderExt, SendError};
pub use self::{
    add_token::{AddToken, AddTokenFuture, AddTokenLayer},
    bearer::{BearerAuth, BearerAuthFuture, BearerAuthLayer},
    extensions::{TokenRejected, WithoutToken},
    inspect_body::{InspectBody, InspectBodyFuture, InspectBodyLayer, InspectFn},
    reject_on_trailers::{
        RejectOnTrailers, RejectOnTrailersBody, RejectOnTrailersFuture, RejectOnTrailersLayer,
    },
    retry::{RefreshOnReject, RefreshOnRejectFuture},
};
#[cfg(feature = "sessions")]
pub use self::{
    bearer::{KeyedBearerAuthFuture, KeyedSessions},
    extensions::SessionKey,
};
