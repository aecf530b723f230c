//! The scope that a login asks for.

use crate::{clock::Clock, error::TokenError, grant::Requested, oauth::OAuthClient};

const OFFLINE_ACCESS: &str = "offline_access";

/// The scope of a login that asks for `requested`, or else for that of the client: with `offline_access` if the server's
/// metadata name it, because then no refresh token comes without.
///
/// If none is asked for, the server decides, and it stays so.
pub(super) async fn scope_to_ask_for(
    client: &OAuthClient,
    clock: &Clock,
    requested: &Requested,
) -> Result<Option<String>, TokenError> {
    let own = requested.scope().map(str::to_owned);
    let wanted = own.or_else(|| {
        let of_client: Vec<_> = client.own_parameters("scope").collect();
        (!of_client.is_empty()).then(|| of_client.join(" "))
    });
    let Some(mut scope) = wanted else {
        return Ok(None);
    };
    let is_wanted = scope
        .split_ascii_whitespace()
        .any(|it| it == OFFLINE_ACCESS);
    if !is_wanted && client.supports_scope(clock, OFFLINE_ACCESS).await? {
        scope.push(' ');
        scope.push_str(OFFLINE_ACCESS);
    }
    Ok(Some(scope))
}
