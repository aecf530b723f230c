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
//!   Shared ── Sender: 2                              how many handles have started
//!          └─ Mutex ── State
//!                        frames: [data][data]        yielded so far, up to the limit
//!                        ahead: data                 the next one, if it was read already
//!                        source: Available(body)     the rest, not yet read
//!                        waker                       of the handle that sends
//! ```
//!
//! A poll of a handle works in these steps:
//!
//! 1. A handle that is polled for the first time gets the next generation.
//! 2. Try to lock. A handle of an older generation fails. A newer one wakes the handle that it has superseded.
//! 3. If the frames hold the one at the handle's position, it is returned.
//! 4. Otherwise poll the body, append a copy of its frame for later replays, and return it. A handle that was superseded
//!    during the poll leaves the frame to the newer one.
//!
//! The lock is held while the body is polled, and whatever else a poll runs: wakers, and the drop of data and bodies. Their
//! code may use handles of the same body. So no handle waits for the lock: if it is taken, the handle is woken and polled
//! again. That happens only while another handle is replaced.
//!
//! A takeover needs no lock. [`Sender`](sender::Sender) counts the generations, and says in the same word whether the body
//! can still be sent from its start. When a body exceeds the limit, the handle that sends first rules out that another one
//! starts. Then it takes the body, and goes on without the lock.
//!
//! # Reading ahead
//!
//! A transport asks [`is_end_stream`](http_body::Body::is_end_stream) after each frame. If that is true, hyper writes the
//! end together with the data. If not, it polls once more, and writes the end by itself: over HTTP/2 that is another `DATA`
//! frame. Many bodies do not know their end before they are polled, those of tonic's clients among them.
//!
//! So the second frame is polled for together with the first. If it is not there yet, the first one is returned all the
//! same. Later frames are not read ahead: one more write does not matter to a longer body, and backpressure does.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;
use tower::BoxError;

mod body;
mod error;
mod frames;
mod reader;
mod sender;
mod shared;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use self::snapshot::BodySnapshot;
pub use self::{body::ReplayBody, error::ReplayError};

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;
