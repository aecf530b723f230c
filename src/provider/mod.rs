//! Presets for real systems: token endpoint, client authentication, body format, quirks, origins and schedule.
//!
//! A preset takes your credentials and knows the rest. It builds one of the sources of this crate. Values that were
//! learned from the field, instead of the vendor's documentation, can be overridden.
//!
//! | Preset | Begins with | Refreshes with | Tokens go to |
//! |---|---|---|---|
//! | [`Winbooks`] | an exchange token | the refresh token, in `code` | the host it was given |
//! | [`TwoBa`] | a refresh token | the refresh token, rotated | `https://api.2ba.nl` |
//! | [`Xoxoday`] | a refresh token | the refresh token, rotated, in JSON, also without traffic | `https://accounts.xoxoday.com` |

mod preset;
mod two_ba;
mod winbooks;
mod xoxoday;

pub use self::{two_ba::TwoBa, winbooks::Winbooks, xoxoday::Xoxoday};
