//! [`RequestBuilderExt`]: requests of reqwest, sent with a token.

use std::future::Future;

use http::Request;

use super::{
    SendError,
    send::{Failed, send},
};
use crate::middleware::bearer::BearerAuthLayer;

/// Sends requests of reqwest with the token of a session: `send_with` in the place of reqwest's `send`.
///
/// Nothing of Tower is needed, although a [`BearerAuthLayer`] is a layer of it. Make one for each session, and keep it:
/// it obtains the first token when it is needed, refreshes it before it expires, and sends a request again if the API
/// rejects its token.
///
/// # Examples
///
/// ```
/// # use tower_bearer::testing::{self, AuthorizationServer, Dialect};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// # let server = AuthorizationServer::new(Dialect::Rfc6749);
/// # let api = server.api();
/// # let (served, served_api) = (testing::serve(server.clone()).await?, testing::serve(api.clone()).await?);
/// # let token_url = format!("{}{}", served.url(), server.token_path());
/// # let orders_url = format!("{}/orders", served_api.url());
/// # let (id, secret) = (AuthorizationServer::CLIENT_ID, AuthorizationServer::CLIENT_SECRET);
/// use tower_bearer::{BearerAuthLayer, ClientAuth, ClientCredentialsSource, OAuthClient, RequestBuilderExt};
///
/// let oauth = OAuthClient::new(token_url)?.client_auth(ClientAuth::client_secret_basic(id, secret));
/// let auth = BearerAuthLayer::new(ClientCredentialsSource::new(oauth));
/// let http = reqwest::Client::new();
/// # let http = reqwest::Client::builder().no_proxy().build()?;
/// # http.get(&orders_url).send_with(&auth).await?.error_for_status()?;
/// # server.revoke_access_tokens();
///
/// let order = http.post(orders_url).body("one of each");
/// let response = order.send_with(&auth).await?.error_for_status()?;
/// assert_eq!(response.text().await?, "one of each");
/// # assert_eq!((api.accepted(), api.rejected(), server.token_requests()), (2, 1, 2));
/// # Ok(()) }
/// ```
///
/// If a rejected request cannot be sent again, the response is the API's own, and its extensions have the reason:
///
/// ```no_run
/// # use tower_bearer::{BearerAuthLayer, RequestBuilderExt, SendError, TokenError};
/// # async fn run(http: reqwest::Client, auth: BearerAuthLayer) -> Result<(), SendError> {
/// let response = http.get("https://api.example.com/orders").send_with(&auth).await?;
/// if let Some(reason) = response.extensions().get::<TokenError>() {
///     println!("{}, because {reason}", response.status());
/// }
/// # Ok(()) }
/// ```
///
/// # What of reqwest stays as it is
///
/// - The client of the request sends it: its connections, proxies, default headers and limits apply. A default
///   `Authorization` of the client is not seen, and is not sent if the request gets a token.
/// - Redirects are followed if the client follows them. reqwest removes the token on the way to another origin, and
///   what that origin answers rejects nothing. After a redirect to another origin and back, a 401 counts as a
///   rejection, although the token was removed.
/// - A [timeout](reqwest::RequestBuilder::timeout) limits each attempt by itself. The wait for a token is limited by
///   [`max_wait`](crate::TokenCacheBuilder::max_wait).
/// - A body that is a stream is kept while it is sent, like any other, up to the
///   [limit](BearerAuthLayer::replay_limit). A larger one is sent, and not sent again.
pub trait RequestBuilderExt: Sealed {
    /// Sends the request with a token of `auth`.
    ///
    /// A request that has its own `Authorization`, such as that of [`basic_auth`](reqwest::RequestBuilder::basic_auth),
    /// is sent as it is. So is one to an origin that tokens may not [go to](BearerAuthLayer::origins).
    ///
    /// # Errors
    ///
    /// [`SendError::Token`] if there is no token, or if it would be sent over plain http to another machine.
    /// [`SendError::Reqwest`] if reqwest fails. A response with an error status is no error.
    fn send_with(
        self,
        auth: &BearerAuthLayer,
    ) -> impl Future<Output = Result<reqwest::Response, SendError>> + Send + use<Self>;
}

impl RequestBuilderExt for reqwest::RequestBuilder {
    fn send_with(
        self,
        auth: &BearerAuthLayer,
    ) -> impl Future<Output = Result<reqwest::Response, SendError>> + Send + use<> {
        let auth = auth.clone();
        async move {
            let (client, request) = self.build_split();
            let request = Request::try_from(request?)?;
            match send(auth, client, request).await {
                Ok(response) => Ok(response),
                Err(Failed::NoToken(error)) => Err(SendError::Token(error)),
                Err(Failed::Sending(error)) => Err(SendError::Reqwest(error)),
            }
        }
    }
}

/// Only reqwest's builder has [`RequestBuilderExt`].
pub trait Sealed {}

impl Sealed for reqwest::RequestBuilder {}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_example_has_at_most_12_lines() {
        let docs = include_str!("request_builder.rs");
        let example = docs.split("```").nth(1).unwrap();
        let lines = example
            .lines()
            .map(|line| line.trim_start_matches("///").trim());
        let shown: Vec<_> = lines
            .filter(|line| !line.is_empty() && !line.starts_with("# "))
            .collect();
        assert!(
            shown.iter().any(|line| line.contains("send_with")),
            "{shown:#?}"
        );
        assert!(shown.len() <= 12, "{shown:#?}");
    }
}
