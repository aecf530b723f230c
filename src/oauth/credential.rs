//! [`Credential`]: what the server may reject as `invalid_grant`, for messages.

/// What a token request sends to be granted a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) name: &'static str,
    /// What to do if the server does not accept it.
    pub(super) remedy: &'static str,
}

const LOG_IN: &str = "log in again, or configure a new one";

/// The grant types, the names of their credentials, and what to do if the server does not accept them.
const CREDENTIALS: &[(&str, &str, &str)] = {
    const ASSERTION: &str = "check its issuer, subject, audience, times and key";
    &[
        ("refresh_token", "refresh token", LOG_IN),
        ("exchange_token", "exchange token", LOG_IN),
        ("authorization_code", "authorization code", "log in again"),
        (
            "urn:ietf:params:oauth:grant-type:device_code",
            "device code",
            "log in again",
        ),
        (
            "password",
            "user name or the password",
            "configure the right ones",
        ),
        ("client_credentials", "client", "check what it may ask for"),
        (
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion",
            ASSERTION,
        ),
        (
            "urn:ietf:params:oauth:grant-type:saml2-bearer",
            "assertion",
            ASSERTION,
        ),
        (
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject token or the actor token",
            "check their types, their lifetimes, and which client they were issued to",
        ),
    ]
};

impl Credential {
    /// The credential of a grant of this type.
    pub(super) fn of(grant_type: &str) -> Self {
        CREDENTIALS
            .iter()
            .find(|(known, ..)| *known == grant_type)
            .map_or(Self::default(), |(_, name, remedy)| Self { name, remedy })
    }
}

impl Default for Credential {
    /// That of an unknown grant.
    fn default() -> Self {
        Self {
            name: "credential",
            remedy: LOG_IN,
        }
    }
}
