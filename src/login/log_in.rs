//! [`BrowserLogin::log_in`]: opens the browser, waits for its answer, and shows the last page.

use std::future::pending;

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

#[cfg(doc)]
use super::authorization_code::AuthorizationCode;
use super::{
    browser_login::BrowserLogin,
    callback::Refused,
    listener::{Call, Listener},
    open::Opener,
    pending::PendingLogin,
    prompt::LoginPrompt,
};
use crate::{
    error::{Asked, TokenError, TokenErrorKind},
    race::{First, race},
    store::StoredSession,
    zeroize::secret,
};

impl BrowserLogin {
    /// Logs a person in, and returns the session.
    ///
    /// Hand it to [`TokenCache::login`](crate::TokenCache::login), or save it in an empty [store](crate::TokenStore): see
    /// [`AuthorizationCode::finish`].
    ///
    /// Dropping the returned future closes the port, and leaves nothing but the browser's window.
    ///
    /// # Errors
    ///
    /// - [`Config`](TokenErrorKind::Config): the port cannot be opened, or the path is none.
    /// - [`LoginDenied`](TokenErrorKind::LoginDenied): the person or the server has denied the access. Show a message that says
    ///   so and has a way to try again, and do not begin another login by yourself.
    /// - [`Timeout`](TokenErrorKind::Timeout): the person has not logged in within the [time limit](Self::time_limit). If the
    ///   browser shows an error of the server, it does not know the client id, or the redirect URI, which the error names, is not
    ///   registered. A server tells the program nothing of either (RFC 6749 §4.1.2.1).
    /// - The errors of [`AuthorizationCode::begin`] and [`AuthorizationCode::finish`]. A response with another `state` is none of
    ///   them: it is refused, and the login goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "testing", feature = "reqwest"))] {
    /// use tower_bearer::{
    ///     ClientAuth, OAuthClient, RefreshTokenSource, TokenCache,
    ///     login::AuthorizationCode,
    ///     testing::{AuthorizationServer, Dialect},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("my-app");
    /// let served = tower_bearer::testing::serve(server.clone()).await?;
    /// let server = server.issuer(served.url());
    ///
    /// let client = OAuthClient::discover(served.url())?.client_auth(ClientAuth::none("my-app"));
    /// let login = AuthorizationCode::new(client.clone()).scope("invoices:read").in_browser();
    /// # let (lines, pasted) = tokio::sync::mpsc::channel(1);
    /// # let runtime = tokio::runtime::Handle::current();
    /// # let browser = server.clone();
    /// # let login = login.pasted(pasted).open_with(move |url| {
    /// #     let request = http::Request::get(url).body(String::new()).unwrap();
    /// #     let visit = tower::ServiceExt::oneshot(browser, request);
    /// #     runtime.spawn(async move {
    /// #         let redirect = visit.await.unwrap();
    /// #         lines.send(redirect.headers()["location"].to_str().unwrap().to_owned()).await.unwrap();
    /// #     });
    /// #     Ok(())
    /// # });
    /// let session = login.log_in().await?;
    ///
    /// let cache = TokenCache::new(RefreshTokenSource::stored(client));
    /// cache.login(session).await?;
    /// assert!(server.is_live(cache.token().await?.expose_secret()));
    /// # Ok(()) }
    /// # main().unwrap();
    /// # }
    /// ```
    pub async fn log_in(mut self) -> Result<StoredSession, TokenError> {
        let mut listener = Listener::bind(self.address, self.port, &self.path).await?;
        let time_limit = self.time_limit;
        let Ok(answered) = timeout(time_limit, self.wait(&mut listener)).await else {
            return Err(self.too_late(&listener.redirect_uri()));
        };
        let Answered {
            pending,
            code,
            call,
        } = answered?;
        let exchange = async { self.login.exchange(pending, code?).await };
        let result = listener
            .refusing_while(exchange, || self.failure.failure())
            .await;
        if let Some(call) = call {
            let page = match &result {
                Ok(_) => self.success.success(),
                Err(_) => self.failure.failure(),
            };
            listener.close_after(call.answer(page)).await;
        }
        result
    }

    /// Begins the login, and waits for its answer.
    async fn wait(&mut self, listener: &mut Listener) -> Result<Answered, TokenError> {
        let (url, pending) = self.login.begin(listener.redirect_uri()).await?;
        let opener = std::mem::replace(&mut self.opener, Opener::Never);
        let mut opening = opener.open(&url);
        (self.prompt)(match opening {
            Some(_) => LoginPrompt::Opening { url: &url },
            None => LoginPrompt::Open { url: &url },
        });
        loop {
            let others = race(next_pasted(&mut self.pasted), opened(&mut opening));
            let (response, call) = match race(listener.next(), others).await {
                First::Left(call) => (call.response.clone(), Some(call)),
                First::Right(First::Left(pasted)) => (pasted, None),
                First::Right(First::Right(true)) => continue,
                First::Right(First::Right(false)) => {
                    (self.prompt)(LoginPrompt::Open { url: &url });
                    continue;
                }
            };
            let code = match self.login.code_in(&pending, response.expose_secret()) {
                Ok(code) => Ok(code),
                Err(Refused::Final(error)) => Err(error),
                Err(Refused::Foreign(error)) => {
                    tracing::info!(%error, "a response to a login was refused, the login still waits");
                    match call {
                        Some(call) => drop(call.answer(self.failure.failure())),
                        None => (self.prompt)(LoginPrompt::WrongPaste),
                    }
                    continue;
                }
            };
            return Ok(Answered {
                pending,
                code,
                call,
            });
        }
    }

    fn too_late(&self, redirect_uri: &str) -> TokenError {
        let message = format!(
            "nobody has logged in within {} seconds; begin again; if the browser shows an error of the server, the client id is \
             unknown there, or the redirect URI `{redirect_uri}` is not registered (for a fixed port: `BrowserLogin::port`)",
            self.time_limit.as_secs()
        );
        TokenError::new(TokenErrorKind::Timeout, message).asking(Asked::Authorization)
    }
}

/// The answer to the login.
struct Answered {
    pending: PendingLogin,
    code: Result<SecretString, TokenError>,
    /// The browser that has brought it, and waits for a page.
    call: Option<Call>,
}

/// The next line that was pasted. Waits for ever if there can be none.
async fn next_pasted(pasted: &mut Option<mpsc::Receiver<String>>) -> SecretString {
    let next = match pasted {
        Some(lines) => lines.recv().await,
        None => None,
    };
    match next {
        Some(line) => secret(line),
        None => pending().await,
    }
}

/// Whether the browser was opened, once. Waits for ever after that.
async fn opened(opening: &mut Option<oneshot::Receiver<bool>>) -> bool {
    let Some(result) = opening else {
        return pending().await;
    };
    let is_open = result.await.unwrap_or(false);
    *opening = None;
    is_open
}
