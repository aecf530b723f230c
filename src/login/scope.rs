//! The scope that a login asks for.

use crate::{clock::Clock, error::TokenError, oauth::OAuthClient};

const OFFLINE_ACCESS: &str = "offline_access";

/// The scope of a login that asks for `wanted`: with `offline_access` if the server's metadata name it, because then no refresh
/// token comes without.
///
/// If nothing is wanted, the server decides, and it stays so.
pub(super) async fn with_offline_access(
    client: &OAuthClient,
    clock: &Clock,
    wanted: Option<String>,
) -> Result<Option<String>, TokenError> {
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
