//! The servers, the browsers and the checks of the example `web_login`.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, Origins,
    testing::{self, AuthorizationServer, Dialect, Fault, ProtectedApi, Served},
};

use crate::{
    App, PAGE_START, sessions,
    support::{Arguments, Options, check},
};

const SERVE: &str = "serve";

pub(crate) const OPTIONS: Options = Options {
    switches: &[(SERVE, "go on until Ctrl-C, for a browser of yours")],
    endless: Some(SERVE),
    ..Options::new(
        "-p stack-examples --example web_login",
        "Runs an axum application in which people log in with their browsers, each with a session of their own.",
    )
};

pub(crate) async fn example(arguments: Arguments) -> Result<(), BoxError> {
    let server = AuthorizationServer::new(Dialect::Rfc6749).detect_reuse(true);
    let login_page = serve(server.clone()).await?;
    let api = server.api();
    let orders_api = serve_api(api.clone()).await?;
    let issuer = login_page.url();
    let server = server
        .issuer(&issuer)
        .metadata_member("authorization_endpoint", format!("{issuer}/consent"));
    let oauth = OAuthClient::discover(&issuer)?.client_auth(ClientAuth::client_secret_basic(
        AuthorizationServer::CLIENT_ID,
        AuthorizationServer::CLIENT_SECRET,
    ));

    let folder = tempfile::tempdir()?;
    let origins = Origins::only([orders_api.url()])?;
    let sessions = sessions(folder.path().to_owned(), oauth.clone(), origins);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = App {
        browsers: <_>::default(),
        oauth,
        redirect_uri: format!("{url}/callback"),
        client: ServiceBuilder::new()
            .layer(BearerAuthLayer::keyed(sessions.clone()))
            .service(Client::builder(TokioExecutor::new()).build_http()),
        sessions: sessions.clone(),
        orders: format!("{}/orders", orders_api.url()),
    };
    let running = tokio::spawn(axum::serve(listener, app.router()).into_future());
    if arguments.is_on(SERVE) {
        println!("{url}/ is the application. Ctrl-C ends it.");
        tokio::signal::ctrl_c().await?;
    } else {
        use_the_application(&url, &server, &api).await?;
    }
    running.abort();
    // Nothing is lost: a running refresh ends, and what could not be saved is saved.
    sessions.close().await?;
    Ok(())
}

/// The authorization server, and in front of it a page on which a person agrees or not.
async fn serve(server: AuthorizationServer) -> Result<Served, BoxError> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let server = server.clone();
        async move {
            let query = request.uri().query().unwrap_or_default();
            match request.uri().path() {
                "/consent" => {
                    let mut response = Response::new(Full::from(consent_page(query)).boxed());
                    let html = HeaderValue::from_static("text/html; charset=utf-8");
                    response.headers_mut().insert(header::CONTENT_TYPE, html);
                    return Ok(response);
                }
                "/deny" => {
                    server.authorization_fault(Fault::member("error", "access_denied"));
                    *request.uri_mut() = format!("/authorize?{query}").parse()?;
                }
                _ => {}
            }
            let response = server.oneshot(request).await?;
            Ok::<_, BoxError>(response.map(BodyExt::boxed))
        }
    });
    Ok(testing::serve(service).await?)
}

fn consent_page(query: &str) -> String {
    let query = query.replace('&', "&amp;");
    format!(
        "{PAGE_START}<title>Orders Inc.</title><h1>Orders Inc.</h1><p>The example <em>web_login</em> asks to read your \
         orders.</p><p><a id=allow href=\"/authorize?{query}\">Allow</a><p><a id=deny href=\"/deny?{query}\">Deny</a>"
    )
}

async fn serve_api(api: ProtectedApi) -> Result<Served, BoxError> {
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

/// A browser: it follows redirects, and keeps a cookie for each origin.
struct Browser {
    http: Client<HttpConnector, Full<Bytes>>,
    app: String,
    cookies: HashMap<String, String>,
}

impl Browser {
    fn new(app: &str) -> Self {
        Self {
            http: Client::builder(TokioExecutor::new()).build_http(),
            app: app.to_owned(),
            cookies: HashMap::new(),
        }
    }

    /// The cookie of the application.
    fn cookie(&self) -> String {
        self.cookies.get(&self.app).cloned().unwrap_or_default()
    }

    /// Opens a page, or sends a form.
    async fn send(&mut self, mut method: Method, url: &str) -> Result<Page, BoxError> {
        let mut url = url.to_owned();
        for _redirect in 0..5 {
            let origin_end = url.match_indices('/').nth(2).ok_or("no path")?.0;
            let origin = url[..origin_end].to_owned();
            let mut request = Request::builder().method(method).uri(&url);
            if let Some(cookie) = self.cookies.get(&origin) {
                request = request.header(header::COOKIE, cookie);
            }
            let response = self.http.request(request.body(Full::default())?).await?;
            if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
                let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
                self.cookies.insert(origin.clone(), pair.to_owned());
            }
            let Some(to) = response.headers().get(header::LOCATION) else {
                let body = response.into_body().collect().await?.to_bytes();
                let html = String::from_utf8(body.into())?;
                return Ok(Page { origin, html });
            };
            let to = to.to_str()?;
            url = match to.strip_prefix('/') {
                Some(path) => format!("{origin}/{path}"),
                None => to.to_owned(),
            };
            method = Method::GET;
        }
        Err("too many redirects".into())
    }

    /// Opens a page of the application.
    async fn open(&mut self, path: &str) -> Result<Page, BoxError> {
        let url = format!("{}{path}", self.app);
        self.send(Method::GET, &url).await
    }

    /// Answers the question of the authorization server with the link `id`.
    async fn answer(&mut self, question: &Page, id: &str) -> Result<Page, BoxError> {
        let link = between(&question.html, &format!("id={id} href=\""), "\"")?;
        let url = format!("{}{}", question.origin, link.replace("&amp;", "&"));
        self.send(Method::GET, &url).await
    }

    async fn log_out(&mut self) -> Result<Page, BoxError> {
        let url = format!("{}/logout", self.app);
        self.send(Method::POST, &url).await
    }
}

struct Page {
    origin: String,
    html: String,
}

impl Page {
    /// Prints what `who` reads, and fails if it is not `text`.
    fn expect(&self, who: &str, text: &str) -> Result<(), BoxError> {
        let shown = between(&self.html, "<p>", "</p>")?;
        println!("  {who} reads: {shown}");
        check(&format!("{who} reads: {text}"), shown == text)
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Result<&'a str, BoxError> {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    Ok(found.ok_or_else(|| format!("no {before} in the page"))?.0)
}

const ORDERS: &str = "Your orders: 3 bicycles, 1 bell.";
const LOG_IN: &str = "Log in to see your orders.";
const ENDED: &str = "Your login has ended.";

async fn use_the_application(
    app: &str,
    server: &AuthorizationServer,
    api: &ProtectedApi,
) -> Result<(), BoxError> {
    let [mut ann, mut bob, mut cy] = [Browser::new(app), Browser::new(app), Browser::new(app)];

    println!("Two people log in:");
    ann.open("/orders").await?.expect("Ann", LOG_IN)?;
    let questions = [ann.open("/login").await?, bob.open("/login").await?];
    let before = ann.cookie();
    bob.answer(&questions[1], "allow")
        .await?
        .expect("Bob", ORDERS)?;
    ann.answer(&questions[0], "allow")
        .await?
        .expect("Ann", ORDERS)?;
    check("a session for each", server.live_sessions() == 2)?;
    let tokens: HashSet<_> = api
        .requests()
        .iter()
        .map(|it| it.headers[header::AUTHORIZATION].clone())
        .collect();
    check("a token for each", tokens.len() == 2)?;

    let mut attacker = Browser::new(app);
    attacker.cookies.insert(app.to_owned(), before.clone());
    attacker
        .open("/orders")
        .await?
        .expect("who knows Ann's first cookie", LOG_IN)?;
    check(
        "the cookie is another one since the login",
        ann.cookie() != before,
    )?;

    println!("A link from somebody else, and a person who says no:");
    let foreign = "This browser has not begun this login.";
    ann.open("/callback?code=1&state=2")
        .await?
        .expect("Ann", foreign)?;
    let question = cy.open("/login").await?;
    let denied = "You have not given access to your orders.";
    cy.answer(&question, "deny").await?.expect("Cy", denied)?;
    cy.open("/orders").await?.expect("Cy", LOG_IN)?;

    println!("Two tabs, and the first is finished last:");
    let tabs = [cy.open("/login").await?, cy.open("/login").await?];
    for tab in tabs.iter().rev() {
        cy.answer(tab, "allow").await?.expect("Cy", ORDERS)?;
    }
    check("each tab has logged in", server.code_grants() == 4)?;

    println!("Ann logs out:");
    let live = server.live_sessions();
    let old = ann.cookie();
    ann.log_out()
        .await?
        .expect("Ann", "You are not logged in.")?;
    check(
        "the server has ended her session",
        server.live_sessions() == live - 1,
    )?;
    attacker.cookies.insert(app.to_owned(), old);
    attacker
        .open("/orders")
        .await?
        .expect("who knows Ann's last cookie", LOG_IN)?;
    bob.open("/orders").await?.expect("Bob", ORDERS)?;

    println!("The server ends all sessions:");
    server.revoke_sessions();
    bob.open("/orders").await?.expect("Bob", ENDED)?;
    let question = bob.open("/login").await?;
    bob.answer(&question, "allow")
        .await?
        .expect("Bob", ORDERS)?;
    check(
        "no refresh token was sent twice",
        server.reuse_detected() == 0,
    )
}
