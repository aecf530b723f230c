//! The end of a login: the code, and the session that it is exchanged for (RFC 6749 §4.1.3).

use secrecy::SecretString;

use super::{
    authorization_code::AuthorizationCode,
    callback::{self, Refused},
    checks::config,
    pending::PendingLogin,
};
#[cfg(doc)]
use crate::error::TokenErrorKind;
use crate::{
    clock::Clock, error::TokenError, oauth::Parameters, source::first_session, store::StoredSession,
};

impl AuthorizationCode {
    /// Finishes a login: checks the response, and exchanges its code for a session.
    ///
    /// `response` is the URL that the browser was redirected to, with its query, or the query alone. With the parameter
    /// `response_mode=form_post`, it is the body of the request.
    ///
    /// Hand the session to [`TokenCache::login`](crate::TokenCache::login), or save it in an empty
    /// [store](crate::TokenStore). A [`RefreshTokenSource::stored`](crate::RefreshTokenSource::stored) of this client goes on
    /// with it. It has a refresh token only if the server gives one. An ID token is kept with the access token, and is not
    /// verified.
    ///
    /// # Errors
    ///
    /// The login has failed. Show the person a page that says so, with a link to begin another one. A route that begins another
    /// one by itself may get the same answer again and again, also if the error [is final](TokenError::is_final).
    ///
    /// - [`InvalidResponse`](TokenErrorKind::InvalidResponse): the response is not the one to this login, or comes from another
    ///   server.
    /// - [`LoginDenied`](TokenErrorKind::LoginDenied): the person or the server has denied the access.
    /// - [`ReauthRequired`](TokenErrorKind::ReauthRequired): the code is no longer valid, or a silent login (`prompt=none`) needs
    ///   the person.
    /// - [`InvalidRequest`](TokenErrorKind::InvalidRequest), [`Server`](TokenErrorKind::Server): the server has answered with
    ///   another error.
    /// - [`Config`](TokenErrorKind::Config): another client has begun the login.
    /// - The errors of a token request.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use http::Request;
    /// use tower::ServiceExt;
    /// use tower_bearer::{
    ///     ClientAuth, OAuthClient, RefreshTokenSource, TokenCache,
    ///     login::AuthorizationCode,
    ///     testing::{AuthorizationServer, Dialect},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// # let server = AuthorizationServer::new(Dialect::Rfc6749)
    /// #     .issuer("https://login.example.com")
    /// #     .public_client("my-app");
    /// # let client = OAuthClient::discover_with_transport("https://login.example.com", server.clone())?
    /// #     .client_auth(ClientAuth::none("my-app"));
    /// let cache = TokenCache::new(RefreshTokenSource::stored(client.clone()));
    ///
    /// let login = AuthorizationCode::new(client).scope("invoices:read");
    /// let (url, pending) = login.begin("https://app.example.com/callback").await?;
    ///
    /// // The browser of a person who agrees.
    /// let redirect = server.clone().oneshot(Request::get(url).body(String::new())?).await?;
    /// let response = redirect.headers()["location"].to_str()?;
    ///
    /// cache.login(login.finish(pending, response).await?).await?;
    /// assert!(cache.token().await.is_ok());
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    pub async fn finish(
        &self,
        pending: PendingLogin,
        response: impl AsRef<str>,
    ) -> Result<StoredSession, TokenError> {
        let code = self.code_in(&pending, response.as_ref())?;
        self.exchange(pending, code).await
    }

    /// The code in a response to `pending`.
    pub(super) fn code_in(
        &self,
        pending: &PendingLogin,
        response: &str,
    ) -> Result<SecretString, Refused> {
        if pending.client != self.client.identity(&[]) {
            return Err(Refused::Final(config(
                "another client has begun this login, so its code may be meant for another server; finish it with that client",
            )));
        }
        callback::code_in(response, pending)
    }

    /// Exchanges the code of `pending` for a session (RFC 6749 §4.1.3). It is sent once.
    pub(super) async fn exchange(
        &self,
        pending: PendingLogin,
        code: SecretString,
    ) -> Result<StoredSession, TokenError> {
        let clock = Clock::System;
        self.client.prepare(&clock).await?;
        let mut parameters = Parameters::new("authorization_code")
            .with_secret("code", code)
            .with("redirect_uri", &pending.redirect_uri)
            .with_secret("code_verifier", pending.verifier);
        for resource in self.requested.values("resource") {
            parameters = parameters.with("resource", resource);
        }
        let response = self.client.request(&clock, &parameters).await?;
        let session = first_session(&self.client, response)?;
        tracing::info!("a person has logged in");
        Ok(session)
    }
}
