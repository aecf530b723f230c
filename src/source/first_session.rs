//! The session that a login begins.

use secrecy::ExposeSecret;

use crate::{
    error::TokenError,
    oauth::{OAuthClient, TokenResponse},
    store::{Identity, StoredSession},
};

/// The session that begins with `response`, the answer to the token request of a login at `client`.
///
/// It is recorded as one of `client`: a source of this client takes it, and one of another client does not. What a login asks
/// for is no part of that, so the next login may ask for another scope.
pub(crate) fn first_session(
    client: &OAuthClient,
    response: TokenResponse,
) -> Result<StoredSession, TokenError> {
    let token = response.token.as_ref().map_err(Clone::clone)?;
    let identity = match &response.refresh_token {
        Some(refresh_token) => Identity::of_refresh_token(refresh_token.expose_secret()),
        None => Identity::new("access", token.expose_secret()),
    };
    if response.refresh_token.is_none() {
        tracing::warn!(
            "the login has given no refresh token, so it lasts as long as its access token"
        );
    }
    Ok(StoredSession::new(identity)
        .at(0)
        .of_client(client.identity(&[]))
        .merged(response.into()))
}
