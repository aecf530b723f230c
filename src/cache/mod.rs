//! [`TokenCache`]: one session, shared by whoever needs its token.

mod background;
mod boarding;
mod issued;
mod outcome;
mod refresh_task;
mod sharded_header;
mod state;
mod status;
mod throttle;
mod token_cache;
mod verdict;
mod wait;

pub(crate) use self::{
    issued::{Generation, Issued, Lookup, Replacement, Sent},
    wait::Wait,
};
pub use self::{
    status::{CacheStatus, TokenState},
    token_cache::{TokenCache, TokenCacheBuilder},
};
