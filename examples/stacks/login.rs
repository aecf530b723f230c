//! A command-line program: a person logs in once with a browser, and later starts of the program need no login.
//!
//! `cargo run -p stack-examples --example login` runs it with a browser that is a part of the example, checks what it does,
//! and ends. With `-- --browser` your own browser is opened. The session is a file in a temporary folder, or in the one given
//! by `--folder`.
//!
//! [`orders`] and [`session`] are what a program of yours would contain. The rest is servers on this machine, a browser, and
//! checks.

#[path = "../support/mod.rs"]
mod support;

use std::{path::Path, process::ExitCode};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use support::{Arguments, Options, check};
use tokio::runtime::Handle;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, FileStore, OAuthClient, Origins, RefreshTokenSource, TokenCache,
    TokenError,
    login::{AuthorizationCode, BrowserLogin},
    testing::{self, AuthorizationServer, Dialect, Served},
};

/// The session in `folder`.
fn session(oauth: &OAuthClient, folder: &Path, api: &str) -> Result<TokenCache, TokenError> {
    let source = RefreshTokenSource::stored(oauth.clone())
        // The authorization server of this example has another port each time. One that stays needs no name.
        .session_name("orders")
        .store(FileStore::new(folder.join("session.json"))?)
        .origins(Origins::only([api])?);
    Ok(TokenCache::new(source))
}

/// What the program is for. If nobody is logged in, or not any more, somebody must do that first.
async fn orders(
    cache: &TokenCache,
    api: &str,
    login: impl FnOnce() -> BrowserLogin,
) -> Result<String, BoxError> {
    match ask(cache, api).await {
        Err(error) if needs_login(&error) => {
            println!("  {error}");
            cache.login(login().log_in().await?).await?;
            println!("  logged in");
            ask(cache, api).await
        }
        result => result,
    }
}

/// Asks the API for the orders.
async fn ask(cache: &TokenCache, api: &str) -> Result<String, BoxError> {
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache.clone()))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let request = Request::get(format!("{api}/orders")).body(Full::<Bytes>::default())?;
    let result = client.oneshot(request).await;
    // There is no token, or the API has rejected it and there is no other.
    if let Some(error) = TokenError::of(&result) {
        return Err(error.clone().into());
    }
    let response = result?;
    if response.status() != StatusCode::OK {
        return Err(format!("the API answers {}", response.status()).into());
    }
    let orders = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(orders.into())?)
}

fn needs_login(error: &BoxError) -> bool {
    let error = error.downcast_ref::<TokenError>();
    error.is_some_and(TokenError::is_final)
}

// ---------------------------------------------------------------------------------------------------------------------
// Servers on this machine, a browser, and checks.

const OPTIONS: Options = Options {
    optional: &[(
        "folder",
        "the folder of the session; default: a temporary one",
    )],
    switches: &[("browser", "opens your browser")],
    endless: Some("browser"),
    ..Options::new(
        "-p stack-examples --example login",
        "A program in which a person logs in once, with a browser.",
    )
};

/// The page on which a person agrees, in front of the server, which agrees to everything.
fn consent_page(query: &str) -> String {
    let query = query.replace('&', "&amp;");
    format!(
        "<!doctype html><meta name=viewport content='width=device-width,initial-scale=1'><title>Orders Inc.</title>\
         <body style='font:1.1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:24rem;padding:0 1.5rem'>\
         <h1>Orders Inc.</h1><p>The example <em>login</em> asks to read your orders.</p>\
         <p><a id=allow href=\"/authorize?{query}\" style='display:inline-block;padding:.6rem 1.4rem;border-radius:.4rem;\
         background:#1f5fbf;color:#fff;text-decoration:none'>Allow</a>"
    )
}

async fn serve(server: AuthorizationServer) -> Result<Served, BoxError> {
    let service = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        async move {
            if request.uri().path() != "/consent" {
                let response = server.oneshot(request).await?;
                return Ok(response.map(BodyExt::boxed));
            }
            let page = consent_page(request.uri().query().unwrap_or_default());
            let mut response = Response::new(Full::from(page).boxed());
            let html = header::HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, html);
            Ok::<_, BoxError>(response)
        }
    });
    Ok(testing::serve(service).await?)
}

async fn serve_api(server: &AuthorizationServer) -> Result<Served, BoxError> {
    let api = server.api();
    let service = service_fn(move |request: Request<Incoming>| {
        let api = api.clone();
        async move {
            let mut response = api.oneshot(request).await?.map(BodyExt::boxed);
            if response.status() == StatusCode::OK {
                *response.body_mut() = Full::from("3 bicycles, 1 bell").boxed();
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            Ok::<_, BoxError>(response)
        }
    });
    Ok(testing::serve(service).await?)
}

/// A browser whose person agrees.
struct Person {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Person {
    async fn get(&self, url: &str) -> Result<(Response<()>, String), BoxError> {
        let request = Request::get(url).body(Full::default())?;
        let (head, body) = self.http.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((
            Response::from_parts(head, ()),
            String::from_utf8(body.into())?,
        ))
    }

    async fn log_in(self, url: String) -> Result<(), BoxError> {
        let (_, page) = self.get(&url).await?;
        println!("  the browser shows: {}", between(&page, "<h1>", "</h1>")?);
        let allow = between(&page, "id=allow href=\"", "\"")?.replace("&amp;", "&");
        let origin_end = url.match_indices('/').nth(2).ok_or("no path")?.0;
        let (redirect, _) = self.get(&format!("{}{allow}", &url[..origin_end])).await?;
        let back = redirect.headers().get(header::LOCATION);
        let (_, page) = self.get(back.ok_or("no redirect")?.to_str()?).await?;
        println!("  the browser shows: {}", between(&page, "<h1>", "</h1>")?);
        Ok(())
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Result<&'a str, BoxError> {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    Ok(found.ok_or_else(|| format!("no {before} in the page"))?.0)
}

/// How this example lets the person log in.
fn browser_login(oauth: &OAuthClient, arguments: &Arguments) -> BrowserLogin {
    let login = AuthorizationCode::new(oauth.clone())
        .scope("orders:read")
        .in_browser();
    if arguments.is_on("browser") {
        return login;
    }
    let runtime = Handle::current();
    login.prompt(|_| {}).open_with(move |url| {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let visit = Person { http }.log_in(url.to_owned());
        runtime.spawn(async move {
            if let Err(error) = visit.await {
                eprintln!("the browser failed: {error}");
            }
        });
        Ok(())
    })
}

async fn example(arguments: Arguments) -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("orders-program");
    let login_page = serve(server.clone()).await?;
    let orders_api = serve_api(&server).await?;
    let (issuer, api) = (login_page.url(), orders_api.url());
    let server = server
        .issuer(&issuer)
        .metadata_member("authorization_endpoint", format!("{issuer}/consent"));

    let temporary = tempfile::tempdir()?;
    let folder = arguments.find("folder").map_or(temporary.path(), Path::new);
    // Each start of the program makes these anew.
    let start = || -> Result<_, TokenError> {
        let oauth = OAuthClient::discover(&issuer)?.client_auth(ClientAuth::none("orders-program"));
        Ok((session(&oauth, folder, &api)?, oauth))
    };

    println!("The first start:");
    let (cache, oauth) = start()?;
    let list = orders(&cache, &api, || browser_login(&oauth, &arguments)).await?;
    println!("  orders: {list}");
    check("one login", server.code_grants() == 1)?;

    println!("The second start:");
    let (cache, oauth) = start()?;
    let list = orders(&cache, &api, || browser_login(&oauth, &arguments)).await?;
    println!("  orders: {list}");
    check("no other login", server.code_grants() == 1)?;

    println!("The third start, when the access token has expired:");
    server.expire_access_tokens();
    let (cache, oauth) = start()?;
    let list = orders(&cache, &api, || browser_login(&oauth, &arguments)).await?;
    println!("  orders: {list}");
    check("one refresh", server.refreshes() == 1)?;
    check("no other login", server.code_grants() == 1)?;

    println!("The server ends the session:");
    server.revoke_sessions();
    let list = orders(&cache, &api, || browser_login(&oauth, &arguments)).await?;
    println!("  orders: {list}");
    check("another login", server.code_grants() == 2)?;

    println!("The person logs out:");
    cache.revoke().await?;
    let (cache, _) = start()?;
    let error = cache
        .token()
        .await
        .err()
        .ok_or("a session that was revoked goes on")?;
    println!("  {error}");
    check(
        "the server has ended the session",
        server.live_sessions() == 0,
    )?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    support::run(&OPTIONS, example).await
}
