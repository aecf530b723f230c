//! The beginning of a login: the URL that the person is sent to (RFC 6749 §4.1.1).

use secrecy::ExposeSecret;

use super::{
    authorization_code::AuthorizationCode,
    checks::{client_id, config, nothing_reserved},
    pending::PendingLogin,
    random::{challenge, unpredictable},
    scope::scope_to_ask_for,
};
#[cfg(doc)]
use crate::error::TokenErrorKind;
#[cfg(doc)]
use crate::oauth::OAuthClient;
use crate::{clock::Clock, error::TokenError, oauth::EndpointUrl};

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

impl AuthorizationCode {
    /// Begins a login: returns the URL to send the person to, and what [`finish`](Self::finish) needs later.
    ///
    /// A web application keeps the latter in the session of the browser. Keep several, by their
    /// [`state`](PendingLogin::state), because people open two tabs.
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
    /// let kept = (pending.state().to_owned(), serde_json::to_string(&pending)?);
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
        let client_id = client_id(&self.client)?;
        nothing_reserved(&self.requested, &RESERVED)?;
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
}

/// The redirect URI as it is sent: exactly as it was given, because the server compares it so.
pub(super) fn checked_redirect_uri(uri: &str) -> Result<String, TokenError> {
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
