//! First logins: how a session of a person begins.

mod authorization_code;
mod callback;
mod pending;
mod random;
mod scope;

pub use self::{authorization_code::AuthorizationCode, pending::PendingLogin};
