//! What every login needs before it begins.

use std::borrow::Cow;

use crate::{
    error::{TokenError, TokenErrorKind},
    grant::Requested,
    oauth::OAuthClient,
};

/// The id of `client`. Without one, a server would reject the login, and the browser would show that, not the program.
pub(super) fn client_id(client: &OAuthClient) -> Result<&str, TokenError> {
    client.client_id().ok_or_else(|| {
        config(
            "nobody can log in without the client id; set it with `OAuthClient::client_auth`, or as the parameter `client_id`",
        )
    })
}

/// Fails if one of the `reserved` parameters is asked for: the login makes them itself.
pub(super) fn nothing_reserved(requested: &Requested, reserved: &[&str]) -> Result<(), TokenError> {
    match requested.others().find(|(name, _)| reserved.contains(name)) {
        Some((name, _)) => Err(config(format!(
            "the login makes the parameter `{name}` itself, so it cannot be set"
        ))),
        None => Ok(()),
    }
}

pub(super) fn config(message: impl Into<Cow<'static, str>>) -> TokenError {
    TokenError::new(TokenErrorKind::Config, message)
}
