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
//!
//! # The way of a request
//!
//! The files of `src` that a request passes. Each is named where the request first reaches it. Derived
//! code is left out.
//!
//! A fresh token:
//!
//! | File | What happens |
//! |---|---|
//! | `middleware/bearer/service.rs` | `BearerAuth::call`: has the caller set an `Authorization`, or opted out? |
//! | `origins.rs` | may the token go to this origin? |
//! | `body/replay/body.rs` | the body becomes replayable; one that is not empty also in `body/replay/shared.rs` |
//! | `middleware/bearer/attempt.rs` | `Retry` asks the policy for a snapshot of the head |
//! | `middleware/bearer/send.rs` | `SendWithToken::call` |
//! | `middleware/sending.rs` | adds the token and calls the inner service |
//! | `cache/requests.rs` | reads the published token without a lock |
//! | `cache/issued.rs` | its deadlines, and the header value of this thread |
//! | `freshness.rs`, `clock.rs` | fresh, due or expired? |
//! | `challenge/classify.rs` | does the response reject the token? |
//!
//! An expired token, from `cache/requests.rs` on:
//!
//! | File | What happens |
//! |---|---|
//! | `cache/shared.rs`, `cache/effects.rs` | takes the lock, makes one transition, and does afterwards what it leaves to be done |
//! | `cache/events.rs`, `events/delivery.rs` | among that: logs what has happened, and tells observers |
//! | `cache/state.rs`, `cache/state/refresh.rs` | starts a refresh, or joins the running one |
//! | `cache/throttle.rs` | may it start? |
//! | `cache/lookup.rs`, `cache/waiter.rs` | the request waits |
//! | `cache/refresh_task.rs`, `token_source/boxed.rs` | meanwhile, a task calls the source |
//! | `middleware/sending.rs` | adds the new token and calls the inner service |
//!
//! A rejected token, from `challenge/classify.rs` on, which uses `challenge/parser.rs`:
//!
//! | File | What happens |
//! |---|---|
//! | `challenge/received.rs` | what does the API ask for? |
//! | `middleware/bearer/send.rs` | holds the response, and reports the rejection to the cache: as above, from `cache/shared.rs` on, but with `cache/state/rejected.rs` |
//! | `challenge/wanted.rs`, `cache/state/step_up.rs`, `cache/step_ups.rs` | if the API asks for more than the token has: is it allowed, and may a step-up start? |
//! | `middleware/bearer/replay.rs`, `middleware/retry.rs` | can the request be sent again? |
//! | `cache/waiter.rs` | waits for the new token |
//! | `middleware/bearer/attempt.rs` | the policy puts token and body into the snapshot, and takes the response |
//! | `middleware/drain.rs` | reads the rest of the response |
//! | `middleware/bearer/send.rs` | `Retry` sends the snapshot, once more, as in the first table |

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
