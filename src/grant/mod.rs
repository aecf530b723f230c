//! [`Grant`]: how a session obtains its first tokens.

mod client_credentials;
mod context;
mod exchange_token;
mod grant_trait;
mod refresh_token;
mod requested;

pub use self::{
    client_credentials::ClientCredentials, context::GrantContext,
    exchange_token::ExchangeTokenGrant, grant_trait::Grant, refresh_token::RefreshTokenGrant,
};
pub(crate) use self::{
    refresh_token::refresh_token_identity,
    requested::{Requested, Requests},
};
