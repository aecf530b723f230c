//! [`BrowserLogin`]: the login of a person at this machine, from the opened browser to the session (RFC 8252).

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    authorization_code::AuthorizationCode,
    callback::Refused,
    listener::{Call, Listener},
    open::Opener,
    page::Page,
    pending::PendingLogin,
    prompt::LoginPrompt,
};
use crate::{
    error::{Asked, TokenError, TokenErrorKind},
    race::{First, race},
    store::StoredSession,
};

const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(300);

/// The login of a person at this machine (RFC 8252): [`AuthorizationCode::in_browser`] makes it.
///
/// [`log_in`](Self::log_in) opens a port of `127.0.0.1`, then a browser at the authorization server, and waits until that sends
/// the browser to the port. The server must allow the redirect URI `http://127.0.0.1/callback` with any port (RFC 8252 §7.3),
/// or the fixed one that is [set](Self::port).
///
/// Without a display, or in a terminal over SSH, no browser is opened, and the URL is printed to standard error. The person
/// opens it elsewhere. There, the last redirect leads nowhere, and the person copies the address from the browser into this
/// program: see [`pasted`](Self::pasted). The other way for such machines is a device code.
///
/// The port is safe to be reached by all programs and web pages of the machine: it serves GET requests of the one path and with
/// the literal address as `Host`, refuses requests that do not answer this login without ending it, and answers the first that
/// does. A request head has at most 32 KiB and 10 seconds, and 32 connections are served at a time. The page at the end has no
/// scripts, and no cache keeps it.
///
/// # Examples
///
/// ```no_run
/// use tower_bearer::{
///     ClientAuth, OAuthClient, RefreshTokenSource, TokenCache, TokenError, login::AuthorizationCode,
/// };
///
/// # #[cfg(all(feature = "reqwest", feature = "file-store"))]
/// async fn session(store: tower_bearer::FileStore) -> Result<TokenCache, TokenError> {
///     let client = OAuthClient::discover("https://login.example.com")?.client_auth(ClientAuth::none("my-app"));
///     let cache = TokenCache::new(RefreshTokenSource::stored(client.clone()).store(store));
///     if cache.token().await.is_err_and(|error| error.is_final()) {
///         let login = AuthorizationCode::new(client).scope("openid invoices:read").in_browser();
///         cache.login(login.log_in().await?).await?;
///     }
///     Ok(cache)
/// }
/// ```
#[must_use = "nothing happens before `log_in`"]
pub struct BrowserLogin {
    login: AuthorizationCode,
    address: IpAddr,
    port: u16,
    path: String,
    opener: Opener,
    prompt: Box<dyn Fn(LoginPrompt<'_>) + Send + Sync>,
    pasted: Option<mpsc::Receiver<String>>,
    success: Page,
    failure: Page,
    time_limit: Duration,
}

impl AuthorizationCode {
    /// The same login in a browser on this machine, with everything that it needs: a port, a browser and a last page.
    pub fn in_browser(self) -> BrowserLogin {
        BrowserLogin {
            login: self,
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            path: String::from("/callback"),
            opener: Opener::System,
            prompt: Box::new(|prompt| eprintln!("{prompt}")),
            pasted: None,
            success: Page::new(
                "You are logged in",
                "You can close this page and go back to the program.",
            ),
            failure: Page::new(
                "The login failed",
                "Go back to the program. It says what to do.",
            ),
            time_limit: DEFAULT_TIME_LIMIT,
        }
    }
}

impl BrowserLogin {
    /// Sets the port, for servers that do not allow any port. Default: 0, which is any free one.
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Sets the path of the redirect URI. Default: `/callback`.
    pub fn path(self, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { path, ..self }
    }

    /// Uses `[::1]` instead of `127.0.0.1`.
    pub fn ipv6(self) -> Self {
        let address = Ipv6Addr::LOCALHOST.into();
        Self { address, ..self }
    }

    /// Sets how long the person may take, from the call of [`log_in`](Self::log_in) to the redirect. Default: 5 minutes.
    pub fn time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit, ..self }
    }

    /// Sets how a browser is opened. Default: the default browser of the system, unless the environment says that the person
    /// would not see it.
    ///
    /// `open` runs on a thread of its own, and may block. If it fails, the person is [asked](Self::prompt) to open the URL.
    pub fn open_with(self, open: impl FnOnce(&str) -> io::Result<()> + Send + 'static) -> Self {
        let opener = Opener::Custom(Box::new(open));
        Self { opener, ..self }
    }

    /// Opens no browser: the person is [asked](Self::prompt) to open the URL.
    pub fn without_browser(self) -> Self {
        Self {
            opener: Opener::Never,
            ..self
        }
    }

    /// Sets how the person is told what to do. Default: prints it to standard error.
    pub fn prompt(self, prompt: impl Fn(LoginPrompt<'_>) + Send + Sync + 'static) -> Self {
        let prompt = Box::new(prompt);
        Self { prompt, ..self }
    }

    /// Also takes the URL at which the browser has ended from `pasted`, for a browser on another machine.
    ///
    /// What is not the answer to this login is refused, and more can be sent. The login waits for the browser as well.
    ///
    /// # Examples
    ///
    /// A program that reads lines from a terminal meanwhile:
    ///
    /// ```no_run
    /// # async fn example(login: tower_bearer::login::AuthorizationCode) -> Result<(), tower_bearer::TokenError> {
    /// let (lines, pasted) = tokio::sync::mpsc::channel(1);
    /// std::thread::spawn(move || {
    ///     for line in std::io::stdin().lines().map_while(Result::ok) {
    ///         if lines.blocking_send(line).is_err() {
    ///             break;
    ///         }
    ///     }
    /// });
    /// let session = login.in_browser().pasted(pasted).log_in().await?;
    /// # let _ = session;
    /// # Ok(()) }
    /// ```
    pub fn pasted(self, pasted: mpsc::Receiver<String>) -> Self {
        Self {
            pasted: Some(pasted),
            ..self
        }
    }

    /// Sets the title and the text of the page after a login. They are text, not HTML.
    pub fn success_page(self, title: impl Into<String>, text: impl Into<String>) -> Self {
        let success = Page::new(title, text);
        Self { success, ..self }
    }

    /// Sets the title and the text of the page if a login has failed. They are text, not HTML.
    pub fn failure_page(self, title: impl Into<String>, text: impl Into<String>) -> Self {
        let failure = Page::new(title, text);
        Self { failure, ..self }
    }

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
    /// - [`Timeout`](TokenErrorKind::Timeout): the person has not logged in within the [time limit](Self::time_limit).
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
            return Err(self.too_late());
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

    fn too_late(&self) -> TokenError {
        let message = format!(
            "nobody has logged in within {} seconds; begin again",
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
        Some(line) => crate::zeroize::secret(line),
        None => std::future::pending().await,
    }
}

/// Whether the browser was opened, once. Waits for ever after that.
async fn opened(opening: &mut Option<oneshot::Receiver<bool>>) -> bool {
    let Some(result) = opening else {
        return std::future::pending().await;
    };
    let is_open = result.await.unwrap_or(false);
    *opening = None;
    is_open
}

impl fmt::Debug for BrowserLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrowserLogin")
            .field("login", &self.login)
            .field("address", &self.address)
            .field("port", &self.port)
            .field("path", &self.path)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}
