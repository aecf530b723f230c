//! [`AuthorizationCode`]: the login of a person in a browser, by a code (RFC 6749 §4.1) that is bound to the program that
//! asked for it (RFC 7636).

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{
    callback::{self, Refused},
    pending::PendingLogin,
    random::{challenge, unpredictable},
    scope::scope_to_ask_for,
};
use crate::{
    clock::Clock,
    error::{TokenError, TokenErrorKind},
    grant::Requested,
    oauth::{EndpointUrl, OAuthClient, Parameters},
    source::first_session,
    store::StoredSession,
};

/// The parameters that the login itself makes.
const RESERVED: [&str; 11] = [
    "response_type",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "request",
    "request_uri",
];

/// What of the client's own parameters describes the login. The others are for token requests, and may be secrets.
const OF_CLIENT: [&str; 2] = ["resource", "audience"];

/// The login of a person in a browser, by an authorization code with PKCE (RFC 6749 §4.1, RFC 7636).
///
/// A web application [begins](Self::begin) a login, sends the browser to the server, and [finishes](Self::finish) the login in
/// the route that the browser comes back to.
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
/// /// `kept` is removed from the session of the browser, and `query` is that of the request.
/// async fn callback(client: &OAuthClient, kept: PendingLogin, query: &str) -> Result<StoredSession, TokenError> {
///     AuthorizationCode::new(client.clone()).finish(kept, query).await
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct AuthorizationCode {
    pub(super) client: OAuthClient,
    requested: Requested,
    issuer: Option<String>,
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

    /// Begins a login: returns the URL to send the person to, and what [`finish`](Self::finish) needs later.
    ///
    /// `redirect_uri` is where the server sends the browser after that, and must be registered there. It is https, http to this
    /// machine, or of a scheme that belongs to the program.
    ///
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): the client id or the authorization endpoint is unknown; the server does not
    ///   support `S256`; a [`parameter`](Self::parameter) is one that the login makes itself; or `redirect_uri` is no URI, or
    ///   has a fragment.
    /// - [`InsecureOrigin`](TokenErrorKind::InsecureOrigin): `redirect_uri` is http, and not to this machine.
    /// - The errors of [discovery](OAuthClient::discover_with_transport).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tower_bearer::{
    ///     ClientAuth, OAuthClient,
    ///     login::AuthorizationCode,
    ///     testing::{AuthorizationServer, Dialect},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let server = AuthorizationServer::new(Dialect::Rfc6749)
    ///     .issuer("https://login.example.com")
    ///     .public_client("my-app");
    /// let client = OAuthClient::discover_with_transport("https://login.example.com", server)?
    ///     .client_auth(ClientAuth::none("my-app"));
    /// let login = AuthorizationCode::new(client).scope("invoices:read");
    ///
    /// let (url, pending) = login.begin("https://app.example.com/callback").await?;
    /// assert!(url.starts_with("https://login.example.com/authorize?response_type=code&client_id=my-app&"));
    ///
    /// // For the session of the browser.
    /// let kept = serde_json::to_string(&pending)?;
    /// # let _ = kept;
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    pub async fn begin(
        &self,
        redirect_uri: impl AsRef<str>,
    ) -> Result<(String, PendingLogin), TokenError> {
        let redirect_uri = checked_redirect_uri(redirect_uri.as_ref())?;
        let Some(client_id) = self.client.client_id() else {
            return Err(config(
                "nobody can log in without the client id; set it with `OAuthClient::client_auth`, or as the parameter \
                 `client_id`",
            ));
        };
        let is_reserved = |(name, _): &(&str, &str)| RESERVED.contains(name);
        if let Some((name, _)) = self.requested.others().find(is_reserved) {
            return Err(config(format!(
                "the login makes the parameter `{name}` itself, so it cannot be set"
            )));
        }
        let clock = Clock::System;
        self.client.prepare(&clock).await?;
        let endpoint = self.client.authorization_endpoint(&clock).await?;
        if !endpoint.may_support_s256 {
            return Err(config(
                "the server's metadata list no `S256` in `code_challenge_methods_supported`, so codes cannot be protected \
                 from theft (RFC 7636 §4.2)",
            ));
        }
        let pending = PendingLogin {
            client: self.client.identity(&[]),
            names_issuer: endpoint.names_issuer || self.issuer.is_some(),
            issuer: self.issuer.clone().or(endpoint.issuer),
            redirect_uri,
            state: unpredictable()?,
            verifier: unpredictable()?,
        };
        let scope = scope_to_ask_for(&self.client, &clock, &self.requested).await?;

        let mut url = endpoint.url.uri().to_string();
        url.push(if url.contains('?') { '&' } else { '?' });
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", &pending.redirect_uri)
            .append_pair("state", pending.state.expose_secret())
            .append_pair(
                "code_challenge",
                &challenge(pending.verifier.expose_secret()),
            )
            .append_pair("code_challenge_method", "S256");
        if let Some(scope) = &scope {
            query.append_pair("scope", scope);
        }
        query.extend_pairs(self.requested.others());
        for name in OF_CLIENT {
            if self.requested.values(name).next().is_none() {
                query.extend_pairs(self.client.own_parameters(name).map(|it| (name, it)));
            }
        }
        url.push_str(&query.finish());
        Ok((url, pending))
    }

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
    /// The login has failed, and the person must begin again:
    ///
    /// - [`InvalidResponse`](TokenErrorKind::InvalidResponse): the response is not the one to this login, or comes from another
    ///   server.
    /// - [`ReauthRequired`](TokenErrorKind::ReauthRequired): the person or the server has denied the access, or the code is no
    ///   longer valid.
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

impl fmt::Debug for AuthorizationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationCode")
            .field("client", &self.client)
            .field("requested", &self.requested)
            .field("issuer", &self.issuer)
            .finish()
    }
}

/// The redirect URI as it is sent: exactly as it was given, because the server compares it so.
fn checked_redirect_uri(uri: &str) -> Result<String, TokenError> {
    let uri = uri.trim();
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_http = ["http", "https"]
        .iter()
        .any(|it| scheme.eq_ignore_ascii_case(it));
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if is_http {
        EndpointUrl::parse_as("redirect URI", uri)?;
    } else if !is_scheme || uri.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#')
    {
        return Err(config(
            "the redirect URI is no absolute URI without a fragment (RFC 6749 §3.1.2)",
        ));
    }
    Ok(uri.to_owned())
}

fn config(message: impl Into<std::borrow::Cow<'static, str>>) -> TokenError {
    TokenError::new(TokenErrorKind::Config, message)
}
