//! [`GrantSource`]: keeps an OAuth session, whatever grant it began with.
//!
//! A call for a token runs through these files, in this order:
//!
//! ```text
//! refresh.rs  load ──► is the stored token usable? adopt it
//!                  ──► of another client, or ended? an error
//!             lease ─► load again ─► usable by now? adopt it, release
//!                        │
//! attempt.rs             └─► mark ─► POST ─► once more if no response comes
//!                                     │
//! outcome.rs                          ├─► merge ─► save ─► release ─► return
//!                                     └─► error: keep or clear the mark
//! ```
//!
//! `unsaved.rs` keeps a session that could not be saved, and its lease. `session_state.rs` has what this process knows of the session, and decides which credential comes next.
//! `revoke.rs` revokes a session: lease, load, revoke at the server, save that it was revoked, release.
//! `login.rs` puts the session of a new login in its place: lease, load, save, release.
//! `first_session.rs` makes that session, of the token response to a login.
//! `request_each_time.rs` is the shorter way of a grant that uses no refresh tokens. `step_up.rs` requests more if an API asks for it.
//! `owner.rs` keeps the sessions of other clients out, and `ended.rs` the credentials that the server has declared dead.

mod attempt;
mod client_credentials;
mod ended;
mod exchange_token;
#[cfg(feature = "login")]
mod first_session;
mod grant_source;
mod jwt_bearer;
mod lease;
mod legacy_password;
mod login;
mod outcome;
mod owner;
mod refresh;
mod refresh_token;
mod request_each_time;
mod requested;
mod revoke;
mod session_state;
mod step_up;
mod token_exchange;
mod unsaved;

#[cfg(feature = "login")]
pub(crate) use self::first_session::first_session;
pub use self::{
    client_credentials::ClientCredentialsSource, exchange_token::ExchangeTokenSource,
    grant_source::GrantSource, jwt_bearer::JwtBearerSource, legacy_password::LegacyPasswordSource,
    refresh_token::RefreshTokenSource, token_exchange::TokenExchangeSource,
};
