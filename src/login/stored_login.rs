//! [`StoredLogin`]: a [`PendingLogin`] as it was stored, before it is checked.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{begin::checked_redirect_uri, pending::PendingLogin, random, secret_text};
use crate::store::Identity;

/// Any response without a `state` would answer a login whose stored one is empty.
#[derive(Deserialize)]
pub(super) struct StoredLogin {
    client: Identity,
    issuer: Option<String>,
    names_issuer: bool,
    redirect_uri: String,
    #[serde(with = "secret_text")]
    state: SecretString,
    #[serde(with = "secret_text")]
    verifier: SecretString,
}

impl TryFrom<StoredLogin> for PendingLogin {
    type Error = String;

    fn try_from(stored: StoredLogin) -> Result<Self, String> {
        let damaged =
            |what: &str| format!("the stored login is damaged: {what}; begin another login");
        for (name, value) in [("state", &stored.state), ("verifier", &stored.verifier)] {
            if !random::has_form(value.expose_secret()) {
                return Err(damaged(&format!("its `{name}` has another form")));
            }
        }
        if stored.names_issuer && stored.issuer.is_none() {
            return Err(damaged("its issuer is missing"));
        }
        Ok(Self {
            client: stored.client,
            issuer: stored.issuer,
            names_issuer: stored.names_issuer,
            redirect_uri: checked_redirect_uri(&stored.redirect_uri)
                .map_err(|error| damaged(&error.to_string()))?,
            state: stored.state,
            verifier: stored.verifier,
        })
    }
}
