//! Signed JSON Web Tokens (RFC 7519): what a client proves who it is with, or what it exchanges for a token.
//!
//! [`JwtSigner`] signs, [`SigningKey`] does it with a key in memory, and [`JwtAssertion`] puts a token together.

mod assertion;
mod hmac_key;
mod key;
mod signer;

pub use self::{
    assertion::JwtAssertion,
    key::{JwtAlgorithm, SigningKey},
    signer::JwtSigner,
};
pub(super) use self::{hmac_key::HmacKey, signer::BoxJwtSigner};
