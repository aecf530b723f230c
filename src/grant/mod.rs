//! [`Grant`]: how a session obtains its first tokens.

mod context;
mod exchange_token;
mod grant_trait;
mod refresh_token;

pub(crate) use self::refresh_token::refresh_token_identity;
pub use self::{
    context::GrantContext, exchange_token::ExchangeTokenGrant, grant_trait::Grant,
    refresh_token::RefreshTokenGrant,
};
