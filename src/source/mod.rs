//! Sources that keep an OAuth session: one way of a refresh, whatever the session began with.

mod exchange;
mod refresh;
mod seed;
mod session;

pub use self::{exchange::ExchangeTokenSource, refresh::RefreshTokenSource};
