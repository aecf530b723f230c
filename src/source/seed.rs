//! What a session begins with: a refresh token, or what is exchanged for one.

use secrecy::{ExposeSecret, SecretString};

use crate::store::Identity;

/// What a session begins with.
#[derive(Clone)]
pub(super) enum Seed {
    Refresh(SecretString),
    Exchange(Exchange),
}

#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) token: SecretString,
    pub(super) grant_type: String,
    pub(super) parameter: String,
    /// It can begin a session anew when the refresh token of the last one is dead.
    pub(super) reusable: bool,
}

impl Exchange {
    pub(super) fn new(token: SecretString) -> Self {
        Self {
            token,
            grant_type: "exchange_token".into(),
            parameter: "code".into(),
            reusable: true,
        }
    }
}

impl Seed {
    pub(super) fn identity(&self) -> Identity {
        let kind = match self {
            Self::Refresh(_) => "refresh",
            Self::Exchange(_) => "exchange",
        };
        Identity::new(kind, self.secret().expose_secret())
    }

    pub(super) fn is_reusable(&self) -> bool {
        matches!(self, Self::Exchange(exchange) if exchange.reusable)
    }

    pub(super) fn secret(&self) -> &SecretString {
        match self {
            Self::Refresh(token) | Self::Exchange(Exchange { token, .. }) => token,
        }
    }
}
