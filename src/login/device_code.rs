//! [`DeviceCode`]: the login of a person on another device (RFC 8628).

use std::fmt;

use tokio::task::JoinHandle;

use super::{
    checks::{client_id, config, nothing_reserved},
    pending_device::PendingDeviceLogin,
    scope::scope_to_ask_for,
};
#[cfg(doc)]
use crate::error::TokenErrorKind;
use crate::{
    clock::Clock,
    error::TokenError,
    grant::Requested,
    oauth::{OAuthClient, Parameters, TokenResponse},
    source::first_session,
    store::StoredSession,
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The parameters that the login itself makes.
const RESERVED: [&str; 5] = [
    "client_id",
    "client_secret",
    "device_code",
    "grant_type",
    "scope",
];

/// The login of a person on another device, by a device code (RFC 8628).
///
/// It is for programs on machines without a browser, such as a television, or a server that is reached by SSH. The program
/// [begins](Self::begin) a login, shows an address and a code, and [waits](Self::finish) until the person has opened the
/// address elsewhere and entered the code.
///
/// Prefer [`AuthorizationCode`](super::AuthorizationCode) wherever the person has a browser at hand: who enters the code of
/// somebody else gives that somebody access (RFC 8628 §5.4), which no program can prevent.
///
/// The client's [`parameter`](OAuthClient::parameter)s, such as `scope`, `resource` and `audience`, are sent with both kinds of
/// request, unless the login has its own. What a login asks for is no part of what tells clients apart in a store: the next
/// login may ask for more.
///
/// How often the server is asked:
///
/// | The server | Next request |
/// |---|---|
/// | has begun the login, or says `authorization_pending` | after its `interval`, at least 1 second and at most 60; 5 seconds if it names none |
/// | says `slow_down` | after 5 seconds more, this time and from then on |
/// | cannot be reached, answers 5xx or 429, or something else answers in its place | after twice the interval, doubling up to 60 seconds |
/// | sends `Retry-After` | not before that |
/// | says anything else | none: the login has ended |
///
/// The login also ends when the code has expired, by the clocks of this machine.
///
/// # A lost answer
///
/// A server gives the tokens once. If that answer is lost on the way, the device code is spent, and most servers answer
/// `invalid_grant` next. Then the error says so, and the person must log in again. No client can prevent this.
///
/// # Examples
///
/// ```
/// use tower_bearer::{OAuthClient, TokenCache, TokenError, login::DeviceCode};
///
/// async fn log_in(client: OAuthClient, cache: &TokenCache) -> Result<(), TokenError> {
///     let login = DeviceCode::new(client).scope("invoices:read");
///     let mut pending = login.begin().await?;
///     println!("{pending}");
///     cache.login(login.finish(&mut pending).await?).await
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct DeviceCode {
    client: OAuthClient,
    requested: Requested,
    pub(crate) clock: Clock,
}

impl DeviceCode {
    /// A login at the server of `client`.
    ///
    /// A client that [discovers](OAuthClient::discover_with_transport) its endpoints knows the device authorization endpoint.
    /// Another one needs [`OAuthClient::device_authorization_url`].
    pub fn new(client: OAuthClient) -> Self {
        Self {
            client,
            requested: Requested::default(),
            clock: Clock::System,
        }
    }

    /// Adds to the scope (RFC 6749 §3.3): one or more names with spaces between them. Default: none is sent, and the server
    /// decides.
    ///
    /// If a scope is asked for, and the server's metadata name `offline_access` among the supported ones, that is asked for as
    /// well: without it, such a server gives no refresh token.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.requested.add_scope(scope);
        self
    }

    /// Adds a resource (RFC 8707 §2), the absolute URI of an API. It is sent with the device code, too. It may be set several
    /// times. Default: none.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.requested.add("resource", resource);
        self
    }

    /// Adds any other parameter to the device authorization request, such as `audience` or `acr_values`. It may be set several
    /// times. Default: none.
    ///
    /// The parameters that the login makes itself are an error when it begins.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.requested.add(name, value);
        self
    }

    /// Begins a login: returns what to show the person, and what [`finish`](Self::finish) needs.
    ///
    /// The request is sent once. If the server is busy, call it again later.
    ///
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): the client id or the device authorization endpoint is unknown, or a
    ///   [`parameter`](Self::parameter) is one that the login makes itself.
    /// - [`InvalidResponse`](TokenErrorKind::InvalidResponse): a code or an address is missing, or is not
    ///   [harmless](PendingDeviceLogin) to show.
    /// - [`InvalidRequest`](TokenErrorKind::InvalidRequest): the client is not registered for such logins, or may not ask for
    ///   this scope.
    /// - The errors of a token request, and of [discovery](OAuthClient::discover_with_transport).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tower_bearer::{
    ///     ClientAuth, OAuthClient,
    ///     login::DeviceCode,
    ///     testing::{AuthorizationServer, Dialect},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// # let server = AuthorizationServer::new(Dialect::Rfc6749)
    /// #     .issuer("https://login.example.com")
    /// #     .public_client("my-tv");
    /// let client = OAuthClient::discover_with_transport("https://login.example.com", server)?
    ///     .client_auth(ClientAuth::none("my-tv"));
    ///
    /// let pending = DeviceCode::new(client).scope("invoices:read").begin().await?;
    /// println!("Open {} and enter {}", pending.verification_uri(), pending.user_code());
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    pub async fn begin(&self) -> Result<PendingDeviceLogin, TokenError> {
        client_id(&self.client)?;
        nothing_reserved(&self.requested, &RESERVED)?;
        self.client.prepare(&self.clock).await?;
        let mut parameters = Parameters::new(GRANT_TYPE);
        let scope = scope_to_ask_for(&self.client, &self.clock, &self.requested).await?;
        if let Some(scope) = scope {
            parameters = parameters.with("scope", scope);
        }
        for (name, value) in self.requested.others() {
            parameters = parameters.with(name, value);
        }
        let authorization = self.client.authorize_device(&self.clock, &parameters);
        PendingDeviceLogin::new(self.client.identity(&[]), authorization.await?)
    }

    /// Waits until the person has logged in, and returns the session.
    ///
    /// Dropping the returned future loses nothing: call this again with the same value. A request that was on its way goes on,
    /// and its answer is taken then. A process that goes on with a value from [a store](PendingDeviceLogin) waits for one
    /// interval first. Two processes should not do so at the same time: only one of them gets the session.
    ///
    /// Hand the session to [`TokenCache::login`](crate::TokenCache::login), or save it in an empty
    /// [store](crate::TokenStore). A [`RefreshTokenSource::stored`](crate::RefreshTokenSource::stored) of this client goes on
    /// with it. It has a refresh token only if the server gives one. An ID token is kept with the access token, and is not
    /// verified.
    ///
    /// # Errors
    ///
    /// The login has ended, and another one must begin. Failures that may pass are none of these: the server is asked again.
    ///
    /// - [`Timeout`](TokenErrorKind::Timeout): nobody has logged in before the code expired. If asking has failed last, the
    ///   error's source says why.
    /// - [`LoginDenied`](TokenErrorKind::LoginDenied): the person or the server has denied the access. Show a message that says
    ///   so and has a way to try again, and do not begin another login by yourself.
    /// - [`ReauthRequired`](TokenErrorKind::ReauthRequired): the server does not accept the device code, perhaps because an
    ///   [answer was lost](Self#a-lost-answer).
    /// - [`Config`](TokenErrorKind::Config): another client has begun the login.
    /// - [`InvalidClient`](TokenErrorKind::InvalidClient), [`InvalidRequest`](TokenErrorKind::InvalidRequest): the server rejects
    ///   the client or the request.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tower_bearer::{
    ///     ClientAuth, OAuthClient, RefreshTokenSource, TokenCache,
    ///     login::DeviceCode,
    ///     testing::{AuthorizationServer, Dialect},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
    /// # let server = AuthorizationServer::new(Dialect::Rfc6749)
    /// #     .issuer("https://login.example.com")
    /// #     .public_client("my-tv");
    /// # let client = OAuthClient::discover_with_transport("https://login.example.com", server.clone())?
    /// #     .client_auth(ClientAuth::none("my-tv"));
    /// let cache = TokenCache::new(RefreshTokenSource::stored(client.clone()));
    ///
    /// let login = DeviceCode::new(client);
    /// let mut pending = login.begin().await?;
    ///
    /// // The person, on another device.
    /// assert!(server.approve_device(pending.user_code()));
    ///
    /// cache.login(login.finish(&mut pending).await?).await?;
    /// assert!(cache.token().await.is_ok());
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    pub async fn finish(
        &self,
        pending: &mut PendingDeviceLogin,
    ) -> Result<StoredSession, TokenError> {
        if pending.client != self.client.identity(&[]) {
            let message = "another client has begun this login, so its code may be meant for another server; finish it with \
                           that client";
            return Err(config(message));
        }
        loop {
            if !pending.has_request() {
                pending.wait(&self.clock).await?;
                pending.requested(self.request(pending));
            }
            match pending.answer().await {
                Ok(response) => {
                    let session = first_session(&self.client, response)?;
                    tracing::info!("a person has logged in");
                    return Ok(session);
                }
                Err(error) => pending.refused(error)?,
            }
        }
    }

    /// Asks the server for the tokens (RFC 8628 §3.4). It is a task, because a future that is dropped would lose them.
    fn request(
        &self,
        pending: &PendingDeviceLogin,
    ) -> JoinHandle<Result<TokenResponse, TokenError>> {
        let device_code = pending.device_code.clone();
        let mut parameters = Parameters::new(GRANT_TYPE).with_secret("device_code", device_code);
        for resource in self.requested.values("resource") {
            parameters = parameters.with("resource", resource);
        }
        let (client, clock) = (self.client.clone(), self.clock.clone());
        tokio::spawn(async move {
            client.prepare(&clock).await.map_err(TokenError::unsent)?;
            client.request(&clock, &parameters).await
        })
    }
}

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCode")
            .field("client", &self.client)
            .field("requested", &self.requested)
            .finish_non_exhaustive()
    }
}
