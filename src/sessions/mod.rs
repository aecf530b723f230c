//! [`Sessions`]: a token cache for each key, in bounded memory.
//!
//! | File | Contents |
//! |---|---|
//! | `handle.rs` | the public handle |
//! | `builder.rs` | its settings |
//! | `shared.rs` | what all handles share: the map, and the sessions that are being made |
//! | `session.rs` | one session as the map holds it: its cache, when it was used, and whether it may be dropped |
//! | `creation.rs` | making a session, once for all who wait for it |
//! | `idle.rs` | dropping what was not used for a while |

mod builder;
mod creation;
mod handle;
mod idle;
mod session;
mod shared;

pub(crate) use self::session::Session;
pub use self::{builder::SessionsBuilder, handle::Sessions};
