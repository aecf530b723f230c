//! The client id, without which nobody can log in.

use crate::{
    error::{TokenError, TokenErrorKind},
    oauth::OAuthClient,
};

pub(super) fn client_id(client: &OAuthClient) -> Result<&str, TokenError> {
    client.client_id().ok_or_else(|| {
        let message = "nobody can log in without the client id; set it with `OAuthClient::client_auth`, or as the parameter \
                       `client_id`";
        TokenError::new(TokenErrorKind::Config, message)
    })
}
