//! [`BrowserLogin`]: the login of a person at this machine, from the opened browser to the session (RFC 8252).

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{authorization_code::AuthorizationCode, open::Opener, page::Page, prompt::LoginPrompt};

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
/// does. A request head has at most 32 KiB and 10 seconds, and 32 connections are served at a time: another one replaces the
/// oldest that has sent no request. The page at the end has no scripts, and no cache keeps it.
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
    pub(super) login: AuthorizationCode,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) opener: Opener,
    pub(super) prompt: Box<dyn Fn(LoginPrompt<'_>) + Send + Sync>,
    pub(super) pasted: Option<mpsc::Receiver<String>>,
    pub(super) success: Page,
    pub(super) failure: Page,
    pub(super) time_limit: Duration,
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
