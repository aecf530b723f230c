//! [`ClientCredentialsSource`].

use super::GrantSource;
use crate::{grant::ClientCredentials, oauth::OAuthClient};

/// Obtains tokens for a program itself, without a user: machine to machine (RFC 6749 §4.4).
///
/// The client proves who it is with its [`ClientAuth`](crate::ClientAuth), for each token. A refresh token in a response is
/// ignored (§4.4.3). No store is needed. With one, processes share their tokens, and if it fails, each requests its own.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use tower_bearer::{BearerAuthLayer, ClientAuth, ClientCredentialsSource, OAuthClient, Origins};
///
/// let client = OAuthClient::new("https://login.example.com/token")?
///     .client_auth(ClientAuth::client_secret_basic("my-service", "my-secret"));
/// let source = ClientCredentialsSource::new(client)
///     .scope("invoices:read")
///     .origins(Origins::only(["https://api.example.com"])?);
/// let layer = BearerAuthLayer::new(source);
/// # let _ = layer;
/// # }
/// # Ok::<(), tower_bearer::TokenError>(())
/// ```
pub type ClientCredentialsSource = GrantSource<ClientCredentials>;

impl GrantSource<ClientCredentials> {
    /// A source of tokens for `client`, which keeps its token in memory.
    pub fn new(client: OAuthClient) -> Self {
        Self::with_grant(client, ClientCredentials::new())
    }
}
