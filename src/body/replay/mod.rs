//! [`ReplayBody`]: any body made replayable, up to a limit.
//!
//! All clones of a [`ReplayBody`] are handles of one body. The body and the frames that were read from it are behind a
//! lock; each handle has its own read position.
//!
//! ```text
//!   ReplayBody (handle)        ReplayBody (handle)
//!     Reader                     Reader
//!       generation: 1              generation: 2     the newest one sends
//!       position: 2                position: 1       the next frame to yield
//!            │                          │
//!            └────────────┬─────────────┘
//!                         ▼
//!   Shared ── Mutex ── State
//!                        generation: 2               how many handles have started
//!                        frames: [data][data]        read so far, up to the limit
//!                        source: Available(body)     the rest, not yet read
//!                        waker                       of the handle that sends
//! ```
//!
//! A poll of a handle works in these steps:
//!
//! 1. Lock. A handle that is polled for the first time gets the next generation, and the one before is woken to fail.
//!    If the frames hold the one at the handle's position, it is returned.
//! 2. Otherwise take the body out (the source is now `Polling`), unlock, and poll the body.
//! 3. Lock again. Put the body back, and append a copy of the new frame for later replays.
//!
//! A handle that starts while another one polls the body finds `Polling` and waits. Step 3 of the other handle wakes
//! it, and it finds the frame among the kept ones.
//!
//! The lock is only held for this bookkeeping. Wakers, bodies and frames that are no longer needed are collected in
//! [`Deferred`](deferred::Deferred) and dropped or woken after unlocking: their code may use the same body again.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;
use tower::BoxError;

mod body;
mod deferred;
mod error;
mod frames;
mod reader;
mod shared;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use self::snapshot::BodySnapshot;
pub use self::{body::ReplayBody, error::ReplayError};

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;
