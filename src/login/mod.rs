//! First logins: how a session of a person begins.

mod authorization_code;
mod browser_login;
mod callback;
mod listener;
mod open;
mod page;
mod pending;
mod prompt;
mod random;
mod scope;

pub use self::{
    authorization_code::AuthorizationCode, browser_login::BrowserLogin, pending::PendingLogin,
    prompt::LoginPrompt,
};
