//! [`TokenCache`]: the token of one session, and everything that happens to it.
//!
//! | File | Contents |
//! |---|---|
//! | `token_cache.rs` | the public handle |
//! | `requests.rs` | what the layers do for each request: the read without a lock, rejections |
//! | `builder.rs`, `status.rs` | the other public types |
//! | `shared.rs` | what all handles share: the published token, and the lock around the state |
//! | `revoke.rs`, `login.rs` | the end of a session, and the next one |
//! | `lookup.rs` | the answer to "is there a token?" |
//! | `state.rs`, `state/` | the state behind the lock, and every change of it |
//! | `current_token.rs`, `running_refresh.rs` | two parts of the state: its token, and its refresh |
//! | `events.rs` | the events that changes of the state leave |
//! | `effects.rs` | what a change of the state gets as input, and what it leaves to be done after it |
//! | `throttle.rs` | when the next refresh may start |
//! | `step_ups.rs` | which step-ups wait, and when the next one may start |
//! | `refresh_task.rs` | one call of the source, in a task of its own |
//! | `waiter.rs` | how the result of a refresh reaches the callers that wait for it |
//! | `background.rs` | refreshing without traffic |
//! | `listener.rs` | looking at the store when it says that another process has changed the session |
//! | `issued.rs` | a token as the cache holds it |

mod background;
mod builder;
mod current_token;
mod effects;
mod events;
mod issued;
mod listener;
mod login;
mod lookup;
mod refresh_task;
mod rejection;
mod requests;
mod revoke;
mod running_refresh;
mod shared;
mod state;
mod status;
mod step_ups;
mod throttle;
mod token_cache;
mod waiter;

pub use self::{
    builder::TokenCacheBuilder,
    status::{CacheStatus, TokenState},
    token_cache::TokenCache,
};
pub(crate) use self::{issued::Issued, lookup::Lookup, rejection::SentToken, waiter::Waiter};
