//! [`Grant`]: how a session obtains its first tokens.

mod client_credentials;
mod context;
mod exchange_token;
mod grant_trait;
mod jwt_bearer;
mod legacy_password;
mod refresh_token;
mod requested;
mod security_token;
mod token_exchange;

pub(crate) use self::requested::{Requested, Requests};
pub use self::{
    client_credentials::ClientCredentials, context::GrantContext,
    exchange_token::ExchangeTokenGrant, grant_trait::Grant, jwt_bearer::JwtBearer,
    legacy_password::LegacyPassword, refresh_token::RefreshTokenGrant,
    security_token::SecurityToken, token_exchange::TokenExchange,
};
