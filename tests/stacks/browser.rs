//! A login in a real browser, Chromium without a window, at a real authorization server, npm's `oidc-provider`, which shows
//! its own pages to log in and to consent.
//!
//! Needs `chromium`, Node.js, and `OIDC_PROVIDER_HOME`: a folder where `npm install oidc-provider@9.13.3` has been run.

#[path = "support/chromium.rs"]
mod chromium;
#[path = "support/oidc_provider.rs"]
mod oidc_provider;

use std::{io, path::Path};

use bytes::Bytes;
use chromium::Chromium;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use oidc_provider::OidcProvider;
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinHandle};
use tower::{Layer, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, FileStore, OAuthClient, RefreshTokenSource, StoredSession,
    TokenCache, TokenError, TokenErrorKind, login::AuthorizationCode,
};

/// Where the pictures of our pages are put, to be looked at.
const PICTURES: &str = env!("CARGO_TARGET_TMPDIR");

fn client(provider: &OidcProvider) -> OAuthClient {
    let client = OAuthClient::discover(&provider.url).unwrap();
    client.client_auth(ClientAuth::none("native-app"))
}

/// Begins a login. Returns the URL that the browser is opened at.
async fn begin(client: OAuthClient) -> (JoinHandle<Result<StoredSession, TokenError>>, String) {
    let (opened, mut urls) = mpsc::unbounded_channel();
    let login = AuthorizationCode::new(client)
        .scope("openid")
        // This server gives a refresh token only if the person is asked for consent (OpenID Connect Core §11).
        .parameter("prompt", "consent")
        .in_browser()
        .prompt(|_| {})
        .open_with(move |url| opened.send(url.to_owned()).map_err(io::Error::other));
    let task = tokio::spawn(login.log_in());
    (task, urls.recv().await.expect("a browser is opened"))
}

/// Calls the API of the server that says who has logged in.
async fn who_am_i(cache: &TokenCache, provider: &OidcProvider) -> Value {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let client = BearerAuthLayer::from(cache.clone()).layer(client);
    let request = Request::get(format!("{}/me", provider.url));
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// Our page keeps to its Content-Security-Policy, which allows its style, and fits in windows of all sizes.
async fn look_at(browser: &mut Chromium, name: &str) {
    browser
        .until("getComputedStyle(document.querySelector('main')).maxWidth === '480px'")
        .await;
    for (device, width, height) in [("desktop", 1280, 800), ("phone", 390, 844)] {
        browser.resize(width, height).await;
        browser
            .until("document.documentElement.scrollWidth <= innerWidth")
            .await;
        let picture = Path::new(PICTURES).join(format!("{name}-{device}.png"));
        browser.screenshot(&picture).await;
    }
}

#[tokio::test]
#[ignore = "needs Chromium, and npm oidc-provider: a folder with it in `OIDC_PROVIDER_HOME`"]
async fn a_person_logs_in_with_a_browser_and_the_session_goes_on() {
    let provider = OidcProvider::start().await;
    let mut browser = Chromium::start().await;
    let folder = tempfile::tempdir().unwrap();
    let session = || {
        let store = FileStore::new(folder.path().join("session.json")).unwrap();
        TokenCache::new(RefreshTokenSource::stored(client(&provider)).store(store))
    };

    let (login, url) = begin(client(&provider)).await;
    browser.open(&url).await;
    browser
        .until("document.querySelector('input[name=login]') !== null")
        .await;
    browser
        .evaluate(
            "document.querySelector('input[name=login]').value = 'somebody';
             document.querySelector('input[name=password]').value = 'a password';
             document.querySelector('form').submit()",
        )
        .await;
    browser
        .until("document.querySelector('input[name=prompt][value=consent]') !== null")
        .await;
    browser
        .evaluate("document.querySelector('form').submit()")
        .await;
    browser
        .until("document.querySelector('h1')?.textContent === 'You are logged in'")
        .await;
    look_at(&mut browser, "logged-in").await;

    let cache = session();
    cache.login(login.await.unwrap().unwrap()).await.unwrap();
    assert_eq!(who_am_i(&cache, &provider).await["sub"], "somebody");
    // `offline_access` was asked for, because the server's metadata name it.
    let first = cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    assert_ne!(cache.token().await.unwrap().header(), first.header());
    drop(cache);

    // The program starts again.
    assert_eq!(who_am_i(&session(), &provider).await["sub"], "somebody");
}

#[tokio::test]
#[ignore = "needs Chromium, and npm oidc-provider: a folder with it in `OIDC_PROVIDER_HOME`"]
async fn a_person_who_cancels_sees_that_the_login_has_failed() {
    let provider = OidcProvider::start().await;
    let mut browser = Chromium::start().await;
    let (login, url) = begin(client(&provider)).await;
    browser.open(&url).await;
    browser
        .until("document.querySelector('a[href$=\"/abort\"]') !== null")
        .await;
    browser
        .evaluate("document.querySelector('a[href$=\"/abort\"]').click()")
        .await;
    browser
        .until("document.querySelector('h1')?.textContent === 'The login failed'")
        .await;
    look_at(&mut browser, "failed").await;
    let error = login.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LoginDenied);
    assert_eq!(error.oauth_code(), Some("access_denied"));
}
