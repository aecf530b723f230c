//! A web application in which several people log in with their browsers. Each has a session of their own.
//!
//! `cargo run -p stack-examples --example web_login` runs it with browsers that are a part of the example, checks what it does,
//! and ends. With `-- --serve` it goes on until Ctrl-C, for a browser of yours.
//!
//! [`sessions`], [`App`] and its handlers are what a program of yours would contain. The rest is servers on this machine,
//! browsers, and checks.

#[path = "support/web_login.rs"]
mod machine;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::{Query, RawQuery, State},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use tower::{BoxError, ServiceExt};
use tower_bearer::{
    BearerAuth, FileStore, KeyedSessions, OAuthClient, Origins, RefreshTokenSource, ReplayBody,
    SessionKey, Sessions, TokenCache, TokenError, TokenErrorKind,
    login::{AuthorizationCode, PendingLogin},
};

/// Names the session of a person. Here it is random, and made at the first login of a browser. An application with accounts
/// takes the account's id. It is the name of a file, too.
type User = String;

/// The sessions of all users, in a folder.
fn sessions(folder: PathBuf, oauth: OAuthClient, origins: Origins) -> Sessions<User> {
    Sessions::new(move |user: User| {
        let (folder, oauth, origins) = (folder.clone(), oauth.clone(), origins.clone());
        async move {
            let source = RefreshTokenSource::stored(oauth)
                // The authorization server of this example has another port each time. One that stays needs no name.
                .session_name(&user)
                .store(FileStore::new(folder.join(format!("{user}.json")))?)
                .origins(origins);
            Ok(TokenCache::new(source))
        }
    })
}

/// What the application knows of a browser, which has a cookie with a random name for it.
#[derive(Default)]
struct Browser {
    user: Option<User>,
    /// Logins that have begun and have not come back, by their `state`: each tab may have one.
    logins: HashMap<String, PendingLogin>,
}

#[derive(Clone)]
struct App {
    /// A program of yours keeps them where its web sessions are, such as in Redis, and lets them expire.
    browsers: Arc<Mutex<HashMap<String, Browser>>>,
    oauth: OAuthClient,
    redirect_uri: String,
    sessions: Sessions<User>,
    client: BearerAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>, KeyedSessions<User>>,
    orders: String,
}

impl App {
    fn router(self) -> Router {
        Router::new()
            .route("/", get(home))
            .route("/login", get(login))
            .route("/callback", get(callback))
            .route("/orders", get(orders))
            .route("/logout", post(logout))
            .with_state(self)
    }

    fn browsers(&self) -> MutexGuard<'_, HashMap<String, Browser>> {
        self.browsers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who uses this browser.
    fn user(&self, headers: &HeaderMap) -> Option<User> {
        self.browsers().get(cookie(headers)?)?.user.clone()
    }

    /// The same in `login` and in `callback`. The scope may be another one in the next release.
    fn authorization(&self) -> AuthorizationCode {
        AuthorizationCode::new(self.oauth.clone()).scope("orders:read")
    }
}

async fn home(State(app): State<App>, headers: HeaderMap) -> Response {
    match app.user(&headers) {
        Some(_) => page("You are logged in.", &[ORDERS, LOG_OUT]),
        None => page("You are not logged in.", &[LOG_IN]),
    }
}

/// Sends the browser to the authorization server.
async fn login(State(app): State<App>, headers: HeaderMap) -> Result<Response, Failure> {
    let (url, pending) = app.authorization().begin(&app.redirect_uri).await?;
    let mut browsers = app.browsers();
    let known = cookie(&headers).filter(|it| browsers.contains_key(*it));
    let id = known.map_or_else(random, |it| Ok(it.to_owned()))?;
    let browser = browsers.entry(id.clone()).or_default();
    browser.logins.insert(pending.state().to_owned(), pending);
    Ok((set_cookie(&id), Redirect::to(&url)).into_response())
}

/// The browser comes back.
async fn callback(
    State(app): State<App>,
    headers: HeaderMap,
    Query(parameters): Query<HashMap<String, String>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let pending = (|| {
        let mut browsers = app.browsers();
        let browser = browsers.get_mut(cookie(&headers)?)?;
        browser.logins.remove(parameters.get("state")?)
    })();
    // Not sent to /login: it may be a link of somebody else.
    let Some(pending) = pending else {
        return Ok(page("This browser has not begun this login.", &[LOG_IN]));
    };
    let login = app.authorization();
    let session = match login.finish(pending, query.unwrap_or_default()).await {
        // Not sent to /login either: the person has just said no.
        Err(error) if error.kind() == TokenErrorKind::LoginDenied => {
            return Ok(page("You have not given access to your orders.", &[LOG_IN]));
        }
        result => result?,
    };
    let user = app.user(&headers).map_or_else(random, Ok)?;
    app.sessions.get(&user).await?.login(session).await?;

    // Somebody else may have put the old cookie into this browser, so what it names ends here.
    let id = random()?;
    let mut browsers = app.browsers();
    let old = cookie(&headers).and_then(|it| browsers.remove(it));
    let logins = old.unwrap_or_default().logins;
    let user = Some(user);
    browsers.insert(id.clone(), Browser { user, logins });
    Ok((set_cookie(&id), Redirect::to("/orders")).into_response())
}

/// Calls the API with the session of the person.
async fn orders(State(app): State<App>, headers: HeaderMap) -> Result<Response, Failure> {
    let Some(user) = app.user(&headers) else {
        return Ok(page("Log in to see your orders.", &[LOG_IN]));
    };
    let request = Request::get(&app.orders)
        // The only place that says whose token the request gets.
        .extension(SessionKey(user))
        .body(Full::default())?;
    let result = app.client.clone().oneshot(request).await;
    if let Some(error) = TokenError::of(&result) {
        return Err(error.clone().into());
    }
    let (head, body) = result?.into_parts();
    if head.status != StatusCode::OK {
        return Err(format!("the API answers {}", head.status).into());
    }
    let text = body.collect().await?.to_bytes();
    let text = format!("Your orders: {}.", String::from_utf8_lossy(&text));
    Ok(page(&text, &[LOG_OUT]))
}

/// Ends the session at the authorization server and in the store, and that of the browser. Other sites cannot send this form
/// with the cookie, because it is `SameSite`.
async fn logout(State(app): State<App>, headers: HeaderMap) -> Result<Redirect, Failure> {
    let browser = cookie(&headers).and_then(|it| app.browsers().remove(it));
    if let Some(user) = browser.and_then(|it| it.user) {
        app.sessions.get(&user).await?.revoke().await?;
    }
    Ok(Redirect::to("/"))
}

/// The page if something fails.
struct Failure(BoxError);

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        // Errors of this crate contain no secrets.
        eprintln!("  log of the application: {}", self.0);
        let error = self.0.downcast_ref::<TokenError>();
        if error.map(TokenError::kind) == Some(TokenErrorKind::ReauthRequired) {
            return page("Your login has ended.", &[LOG_IN]);
        }
        let page = page("That did not work. Try again later.", &[HOME]);
        (StatusCode::BAD_GATEWAY, page).into_response()
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies = cookies.filter_map(|it| it.to_str().ok());
    let mut cookies = cookies.flat_map(|it| it.split("; "));
    cookies.find_map(|it| it.strip_prefix("browser="))
}

/// Add `Secure`, and the prefix `__Host-` to the name, if the application is served over https, as it should be. `Lax` and not
/// `Strict`: the browser comes back from another site.
fn set_cookie(id: &str) -> [(header::HeaderName, String); 1] {
    let cookie = format!("browser={id}; Path=/; HttpOnly; SameSite=Lax");
    [(header::SET_COOKIE, cookie)]
}

/// A random name of 128 bits.
fn random() -> Result<String, BoxError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// What a person can do next: a method, a path, and the text of a button.
type Action = (&'static str, &'static str, &'static str);
const HOME: Action = ("get", "/", "Home");
const LOG_IN: Action = ("get", "/login", "Log in");
const LOG_OUT: Action = ("post", "/logout", "Log out");
const ORDERS: Action = ("get", "/orders", "Show my orders");

fn page(text: &str, actions: &[Action]) -> Response {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let buttons = actions.iter().map(|(method, path, label)| {
        format!("<form method={method} action={path}><button>{label}</button></form>")
    });
    let buttons: String = buttons.collect();
    let page = Html(format!(
        "{PAGE_START}<title>My orders</title><h1>My orders</h1><p>{text}</p>{buttons}"
    ));
    // After a logout, the browser's "back" shows nothing.
    ([(header::CACHE_CONTROL, "no-store")], page).into_response()
}

const PAGE_START: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
     <meta name=viewport content='width=device-width, initial-scale=1'><style>\
     body{font:1.1rem/1.5 system-ui,sans-serif;margin:12vh auto;max-width:24rem;padding:0 1.5rem;color:#222}\
     button{font:inherit;width:100%;margin-top:.8rem;padding:.7rem;border:0;border-radius:.4rem;\
     background:#1f5fbf;color:#fff}</style>";

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&machine::OPTIONS, machine::example).await
}
