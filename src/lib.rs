//! One Tower layer that keeps a session with an OAuth-style API alive.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
pub mod error;
pub mod token;

pub use clock::Clock;
pub use error::{TokenError, TokenErrorKind};
pub use token::Token;
