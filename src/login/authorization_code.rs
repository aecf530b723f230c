//! [`AuthorizationCode`]: the login of a person in a browser, by a code (RFC 6749 §4.1) that is bound to the program that
//! asked for it (RFC 7636).

use std::fmt;

use crate::{grant::Requested, oauth::OAuthClient};

/// The login of a person in a browser, by an authorization code with PKCE (RFC 6749 §4.1, RFC 7636).
///
/// A web application [begins](Self::begin) a login, sends the browser to the server, and [finishes](Self::finish) the login in
/// the route that the browser comes back to. Keep several [`PendingLogin`](super::PendingLogin)s, by their
/// [`state`](super::PendingLogin::state), because people open two tabs.
///
/// The `scope`, the `resource` and the `audience` that the client has as [`parameter`](OAuthClient::parameter)s are asked for
/// as well, unless the login has its own. Those of the client are also sent when the session is refreshed, so set a `resource`
/// there if the server wants it each time. What a login asks for is no part of what tells clients apart in a store: the next
/// login may ask for more.
///
/// What is checked:
///
/// - The code challenge is `S256`. A server whose metadata list `code_challenge_methods_supported` without it is refused.
/// - The `state`, 256 random bits, is compared in constant time, also if the response is an error.
/// - `iss` must be the issuer, byte by byte (RFC 9207). It may be missing only if the metadata do not say that the server
///   sends it. So a code of another server is refused, and not sent to this one (the mix-up attack).
/// - Errors repeat nothing of the response but registered error codes. No code is ever logged.
///
/// # Examples
///
/// A web application with two routes:
///
/// ```
/// use tower_bearer::{OAuthClient, StoredSession, TokenError, login::{AuthorizationCode, PendingLogin}};
///
/// /// Returns where to send the browser, and what to keep in its session.
/// async fn log_in(client: &OAuthClient) -> Result<(String, PendingLogin), TokenError> {
///     let login = AuthorizationCode::new(client.clone()).scope("openid invoices:read");
///     login.begin("https://app.example.com/callback").await
/// }
///
/// /// `query` is that of the request, and `kept` is removed from the session of the browser: the one with its `state`.
/// async fn callback(client: &OAuthClient, kept: PendingLogin, query: &str) -> Result<StoredSession, TokenError> {
///     AuthorizationCode::new(client.clone()).finish(kept, query).await
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct AuthorizationCode {
    pub(super) client: OAuthClient,
    pub(super) requested: Requested,
    pub(super) issuer: Option<String>,
}

impl AuthorizationCode {
    /// A login at the server of `client`.
    ///
    /// A client that [discovers](OAuthClient::discover_with_transport) its endpoints knows the authorization endpoint and the
    /// issuer. Another one needs [`OAuthClient::authorization_url`], and should get an [`issuer`](Self::issuer).
    pub fn new(client: OAuthClient) -> Self {
        Self {
            client,
            requested: Requested::default(),
            issuer: None,
        }
    }

    /// Adds to the scope (RFC 6749 §3.3): one or more names with spaces between them. Default: none is sent, and the server
    /// decides.
    ///
    /// Set the scope here rather than as a [`parameter`](OAuthClient::parameter) of the client if it may change between
    /// releases. A parameter of the client is a part of what a stored session belongs to: with another one, the session is that
    /// of another client, and an error.
    ///
    /// If a scope is asked for, and the server's metadata name `offline_access` among the supported ones, that is asked for as
    /// well: without it, such a server gives no refresh token. Some also want the [`parameter`](Self::parameter) `prompt` to be
    /// `consent` (`OpenID` Connect Core §11).
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.requested.add_scope(scope);
        self
    }

    /// Adds a resource (RFC 8707 §2), the absolute URI of an API. It is sent with the code, too. It may be set several times.
    /// Default: none.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.requested.add("resource", resource);
        self
    }

    /// Adds any other parameter to the URL that the person is sent to, such as `prompt`, `audience`, `login_hint`, `max_age`,
    /// `acr_values` or `claims`. It may be set several times. Default: none.
    ///
    /// The person, the browser and the server's log see it, so it must not be a secret. The parameters that the login makes
    /// itself are an error when it begins.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.requested.add(name, value);
        self
    }

    /// Sets the issuer that each response must name as `iss` (RFC 9207), for a client that does not discover its endpoints.
    ///
    /// Default: the issuer that was discovered, which must be named if the server's metadata say that it is.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")] {
    /// use tower_bearer::{ClientAuth, OAuthClient, login::AuthorizationCode};
    ///
    /// let client = OAuthClient::new("https://login.example.com/token")?
    ///     .authorization_url("https://login.example.com/authorize")?
    ///     .client_auth(ClientAuth::none("my-app"));
    /// let login = AuthorizationCode::new(client).issuer("https://login.example.com");
    /// # let _ = login;
    /// # }
    /// # Ok::<(), tower_bearer::TokenError>(())
    /// ```
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }
}

impl fmt::Debug for AuthorizationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationCode")
            .field("client", &self.client)
            .field("requested", &self.requested)
            .field("issuer", &self.issuer)
            .finish()
    }
}
