//! The HTTP side of a client of the Model Context Protocol: requests, and logins when the server asks for them.
//!
//! | File | Contents |
//! |---|---|
//! | `client.rs` | sends messages, with a token once there is one, and logs in when the server asks for that |
//! | `login.rs` | which authorization server, which scope, and the login of a person or of a machine |
//! | `registration.rs` | how the program gets its client id: registered before, by a document of its own, or registered now |

mod client;
mod login;
mod registration;

use serde_json::Value;

pub(crate) use self::client::Client;

/// What the user of the program has decided.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The protocol's version, which is a date.
    pub(crate) protocol: String,
    /// The client as it was registered before, or none: an object with `client_id` and more. See `login.rs`.
    pub(crate) credentials: Value,
    /// The URL of a document that describes the program, for servers that take it as the client id.
    pub(crate) client_id_url: Option<String>,
    /// The authorization servers that may be used. If there are none, a person is asked.
    pub(crate) issuers: Vec<String>,
    /// The scopes that the server may ask a machine for, which has no person to agree. If there are none, `agrees` decides.
    pub(crate) scopes: Vec<String>,
    /// Agrees to everything that a person would be asked. Otherwise a browser is opened.
    pub(crate) agrees: bool,
}
