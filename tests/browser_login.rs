//! Logins in a browser on this machine: the port that it comes back to, and everything that others send there.
#![cfg(all(feature = "login", feature = "testing"))]

mod support;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, StatusCode, header::LOCATION};
use http_body_util::Full;
use serde_json::{Value, json};
use support::send;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::{JoinHandle, JoinSet},
};
use tower::{ServiceExt, service_fn};
use tower_bearer::{
    ClientAuth, OAuthClient, StoredSession, TokenError, TokenErrorKind,
    login::{AuthorizationCode, BrowserLogin, LoginPrompt},
    testing::{AuthorizationServer, Dialect, Fault},
};

const ISSUER: &str = "https://login.example.com";

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .issuer(ISSUER)
        .public_client("my-app")
}

fn browser_login(server: &AuthorizationServer) -> BrowserLogin {
    let client = OAuthClient::discover_with_transport(ISSUER, server.clone()).unwrap();
    let client = client.client_auth(ClientAuth::none("my-app"));
    AuthorizationCode::new(client).in_browser()
}

/// A login that waits for the person.
struct Waiting {
    task: JoinHandle<Result<StoredSession, TokenError>>,
    /// What the person is told next.
    prompts: mpsc::UnboundedReceiver<String>,
    /// Where the person logs in.
    url: String,
}

impl Waiting {
    async fn new(login: BrowserLogin) -> Self {
        let (told, mut prompts) = mpsc::unbounded_channel();
        let login = login.without_browser().prompt(move |prompt| {
            let text = match prompt {
                LoginPrompt::Open { url } => url.to_owned(),
                other => format!("{other:?}"),
            };
            told.send(text).unwrap();
        });
        let task = tokio::spawn(login.log_in());
        let url = prompts.recv().await.expect("the login begins");
        Self { task, prompts, url }
    }

    /// The URL to which the server redirects the browser of a person who agrees.
    async fn answer(&self, server: &AuthorizationServer) -> Callback {
        let request = Request::get(&self.url).body(String::new()).unwrap();
        let response = send(server, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        Callback::new(response.headers()[LOCATION].to_str().unwrap())
    }

    async fn ended(self) -> Result<StoredSession, TokenError> {
        self.task.await.unwrap()
    }
}

/// A URL of the listener.
#[derive(Clone, Debug)]
struct Callback {
    host: String,
    path: String,
    query: String,
}

impl Callback {
    fn new(url: &str) -> Self {
        let rest = url.strip_prefix("http://").expect("http");
        let (host, path) = rest.split_at(rest.find('/').unwrap());
        let (path, query) = path.split_once('?').unwrap();
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        }
    }

    fn with(&self, name: &str, value: &str) -> Self {
        let mut pairs: Vec<(String, String)> = form_urlencoded::parse(self.query.as_bytes())
            .into_owned()
            .filter(|(known, _)| known != name)
            .collect();
        pairs.push((name.to_owned(), value.to_owned()));
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        Self {
            query,
            ..self.clone()
        }
    }

    fn url(&self) -> String {
        format!("http://{}{}?{}", self.host, self.path, self.query)
    }

    /// The head of a browser's request, without the line that ends it.
    fn head(&self) -> String {
        let (host, path, query) = (&self.host, &self.path, &self.query);
        format!("GET {path}?{query} HTTP/1.1\r\nHost: {host}\r\n")
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.host).await.unwrap()
    }

    /// Opens the URL as a browser does. Returns the head and the body of the response.
    async fn open(&self) -> (u16, String, String) {
        self.send(&format!("{}\r\n", self.head())).await
    }

    async fn send(&self, request: &str) -> (u16, String, String) {
        let mut stream = self.connect().await;
        // The listener may have refused the request before all of it is there.
        stream.write_all(request.as_bytes()).await.ok();
        read(stream).await
    }

    async fn is_closed(&self) -> bool {
        TcpStream::connect(&self.host).await.is_err()
    }
}

async fn read(mut stream: TcpStream) -> (u16, String, String) {
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.ok();
    let response = String::from_utf8(response).unwrap();
    let Some((head, body)) = response.split_once("\r\n\r\n") else {
        return (0, response, String::new());
    };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn a_person_logs_in_and_sees_that_it_has_worked() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let (status, head, body) = login.answer(&server).await.open().await;
    assert_eq!(status, 200);
    assert!(body.contains("<h1>You are logged in</h1>"), "{body}");
    for header in [
        "cache-control: no-store",
        "referrer-policy: no-referrer",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "content-type: text/html; charset=utf-8",
        "connection: close",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    assert!(!body.contains("<script") && body.contains("width=device-width"));
    login.ended().await.unwrap();
    assert_eq!(server.code_grants(), 1);
}

#[tokio::test]
async fn the_browser_is_opened_at_the_server() {
    let server = server();
    let (opened, mut urls) = mpsc::unbounded_channel();
    let (told, mut prompts) = mpsc::unbounded_channel();
    let login = browser_login(&server)
        .open_with(move |url| {
            opened.send(url.to_owned()).unwrap();
            Ok(())
        })
        .prompt(move |prompt| told.send(format!("{prompt:?}")).unwrap());
    let task = tokio::spawn(login.log_in());
    let url = urls.recv().await.unwrap();
    assert!(url.starts_with("https://login.example.com/authorize?"));
    let prompt = prompts.recv().await.unwrap();
    assert!(prompt.starts_with("Opening") && prompt.contains(&url));
    task.abort();
}

#[tokio::test]
async fn a_browser_that_cannot_be_opened_leaves_the_person_to_open_the_url() {
    let server = server();
    let (told, mut prompts) = mpsc::unbounded_channel();
    let login = browser_login(&server)
        .open_with(|_| Err(io::Error::other("no browser")))
        .prompt(move |prompt| told.send(format!("{prompt:?}")).unwrap());
    let task = tokio::spawn(login.log_in());
    assert!(prompts.recv().await.unwrap().starts_with("Opening"));
    assert!(prompts.recv().await.unwrap().starts_with("Open {"));
    assert!(!task.is_finished(), "the login waits");
    task.abort();
}

#[tokio::test]
async fn the_port_is_closed_after_the_login() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    callback.open().await;
    login.ended().await.unwrap();
    assert!(callback.is_closed().await);
}

#[tokio::test]
async fn a_wrong_state_does_not_end_the_login() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    for wrong in [
        callback.with("state", "x"),
        callback.with("state", ""),
        Callback {
            query: String::new(),
            ..callback.clone()
        },
        Callback {
            query: format!("{}&state=x", callback.query),
            ..callback.clone()
        },
    ] {
        let (status, _, body) = wrong.open().await;
        assert_eq!(status, 400);
        assert!(body.contains("<h1>The login failed</h1>"), "{body}");
    }
    assert_eq!(server.token_requests(), 0);
    assert_eq!(callback.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn an_error_response_with_a_wrong_state_does_not_end_the_login() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    let wrong = callback.with("error", "access_denied").with("state", "x");
    assert_eq!(wrong.open().await.0, 400);
    assert_eq!(callback.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn an_error_response_ends_the_login() {
    let server = server();
    server.authorization_fault(Fault::member("error", "access_denied"));
    server.authorization_fault(Fault::member("code", Value::Null));
    let html = "<script>hunter2</script>";
    server.authorization_fault(Fault::member("error_description", html));
    let login = Waiting::new(browser_login(&server)).await;
    let (status, _, body) = login.answer(&server).await.open().await;
    assert_eq!(status, 400);
    assert!(body.contains("<h1>The login failed</h1>"), "{body}");
    assert!(!body.contains("hunter2"), "{body}");
    let error = login.ended().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LoginDenied);
    assert!(!error.is_final());
    assert_eq!(error.oauth_code(), Some("access_denied"));
}

#[tokio::test]
async fn a_response_of_another_server_ends_the_login_without_a_token_request() {
    let server = server();
    server.authorization_fault(Fault::member("iss", "https://evil.example.com"));
    let login = Waiting::new(browser_login(&server)).await;
    assert_eq!(login.answer(&server).await.open().await.0, 400);
    let error = login.ended().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert_eq!(server.token_requests(), 0);
}

#[tokio::test]
async fn a_code_that_the_server_rejects_ends_the_login_with_a_page_that_says_so() {
    let server = server();
    server.fault(Fault::error("invalid_grant"));
    let login = Waiting::new(browser_login(&server)).await;
    assert_eq!(login.answer(&server).await.open().await.0, 400);
    let error = login.ended().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
}

#[tokio::test]
async fn two_logins_at_the_same_time_have_ports_and_states_of_their_own() {
    let server = server();
    let first = Waiting::new(browser_login(&server)).await;
    let second = Waiting::new(browser_login(&server)).await;
    let (to_first, to_second) = (first.answer(&server).await, second.answer(&server).await);
    assert_ne!(to_first.host, to_second.host);
    // The answer to one login is none to the other.
    let crossed = Callback {
        host: to_first.host.clone(),
        ..to_second.clone()
    };
    assert_eq!(crossed.open().await.0, 400);
    assert_eq!(to_second.open().await.0, 200);
    assert_eq!(to_first.open().await.0, 200);
    first.ended().await.unwrap();
    second.ended().await.unwrap();
    assert_eq!(server.code_grants(), 2);
}

#[tokio::test]
async fn a_second_callback_is_refused() {
    let server = server();
    let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let token_request = (server.clone(), Arc::clone(&arrived), Arc::clone(&goes_on));
    // Its token endpoint answers later.
    let slow = service_fn(move |request: Request<Full<bytes::Bytes>>| {
        let (server, arrived, goes_on) = token_request.clone();
        async move {
            if request.uri().path() == "/token" {
                arrived.notify_one();
                goes_on.notified().await;
            }
            server.oneshot(request).await
        }
    });
    let client = OAuthClient::discover_with_transport(ISSUER, slow).unwrap();
    let client = client.client_auth(ClientAuth::none("my-app"));
    let login = Waiting::new(AuthorizationCode::new(client).in_browser()).await;
    let callback = login.answer(&server).await;
    let first = callback.clone();
    let first = tokio::spawn(async move { first.open().await });
    arrived.notified().await;
    for _ in 0..3 {
        assert_eq!(callback.open().await.0, 400);
    }
    assert!(!first.is_finished());
    goes_on.notify_one();
    assert_eq!(first.await.unwrap().0, 200);
    login.ended().await.unwrap();
    assert_eq!(server.token_requests(), 1);
}

#[tokio::test]
async fn a_foreign_host_is_refused() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    let (path, query) = (&callback.path, &callback.query);
    let port = callback.host.rsplit_once(':').unwrap().1;
    let target = format!("{path}?{query}");
    for head in [
        format!("GET {target} HTTP/1.1\r\nHost: evil.example.com\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: evil.example.com:{port}\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
        format!("GET {target} HTTP/1.1\r\n"),
        format!("GET {target} HTTP/1.0\r\n"),
        format!("{}Host: evil.example.com\r\n", callback.head()),
        format!(
            "GET http://evil.example.com{target} HTTP/1.1\r\nHost: {}\r\n",
            callback.host
        ),
    ] {
        let (status, _, body) = callback.send(&format!("{head}\r\n")).await;
        assert_eq!((status, &*body), (421, ""), "{head}");
    }
    assert_eq!(server.token_requests(), 0);
    assert_eq!(callback.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn other_paths_and_methods_are_harmless() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    let (host, path, query) = (&callback.host, &callback.path, &callback.query);
    for (line, expected) in [
        (String::from("GET /favicon.ico"), 404),
        (format!("GET /?{query}"), 404),
        (format!("GET {path}/x?{query}"), 404),
        (format!("HEAD {path}?{query}"), 405),
        (format!("POST {path}?{query}"), 405),
        (format!("OPTIONS {path}?{query}"), 405),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        let (status, head, _) = callback.send(&request).await;
        assert_eq!(status, expected, "{line}");
        assert_eq!(head.contains("allow: get"), status == 405, "{head}");
    }
    assert_eq!(server.token_requests(), 0);
    assert_eq!(callback.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn a_huge_request_is_refused() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    let huge = "x".repeat(100_000);
    let head = callback.head();
    for request in [
        format!("{head}x-huge: {huge}\r\n\r\n"),
        format!("GET {}?{huge} HTTP/1.1\r\n", callback.path),
        format!("{head}{}\r\n", "x-many: x\r\n".repeat(1000)),
        format!("\0\0\0{huge}"),
    ] {
        let (status, ..) = callback.send(&request).await;
        // Or the connection was reset before the response was read.
        assert!([0, 400, 414, 431].contains(&status), "{status}");
    }
    // A code of some thousand bytes is none.
    let long = callback.with("session_state", &"x".repeat(20_000));
    assert_eq!(long.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_end_is_cut_off() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    for begun in ["", "GET /call", &callback.head()] {
        let mut stream = callback.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        // Returns when the listener closes the connection.
        let (status, ..) = read(stream).await;
        assert!([0, 408].contains(&status), "{status}");
    }
    assert_eq!(callback.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_answer() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(callback.connect().await);
    }
    assert_eq!(callback.with("state", "x").open().await.0, 400);
    // It waited for none of the last ones. The first ones had to make room.
    let mut byte = [0];
    let error = idle[90].try_read(&mut byte).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let (status, ..) = read(idle.remove(0)).await;
    assert_eq!(status, 0);
    assert_eq!(callback.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn programs_that_guess_answers_do_not_disturb_the_login() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    let mut guesses = JoinSet::new();
    for n in 0..100 {
        let guess = callback.with("state", &format!("guess-{n}"));
        guesses.spawn(async move { guess.open().await.0 });
    }
    let answer = tokio::spawn(async move { callback.open().await.0 });
    assert_eq!(answer.await.unwrap(), 200);
    login.ended().await.unwrap();
    assert_eq!(server.token_requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_has_a_time_limit() {
    let server = server();
    let login = browser_login(&server).time_limit(Duration::from_secs(60));
    let login = Waiting::new(login).await;
    let callback = login.answer(&server).await;
    let error = login.ended().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    let text = error.to_string();
    assert!(text.contains("60 seconds"), "{text}");
    let redirect_uri = format!("`http://{}/callback`", callback.host);
    for cause in [
        "the client id is unknown",
        &redirect_uri,
        "`BrowserLogin::port`",
    ] {
        assert!(text.contains(cause), "{cause}: {text}");
    }
    assert!(callback.is_closed().await);
}

#[tokio::test]
async fn dropping_the_login_closes_everything() {
    let server = server();
    let login = Waiting::new(browser_login(&server)).await;
    let callback = login.answer(&server).await;
    let mut begun = callback.connect().await;
    begun.write_all(callback.head().as_bytes()).await.unwrap();
    // The connection is served before this one is answered.
    callback.with("state", "x").open().await;

    login.task.abort();
    assert!(login.task.await.unwrap_err().is_cancelled());
    assert!(callback.is_closed().await);
    let (status, ..) = read(begun).await;
    assert_eq!(status, 0, "no response");
    assert_eq!(server.token_requests(), 0);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    let login = browser_login(&server()).without_browser().port(port);
    let error = login.log_in().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn the_port_and_the_path_can_be_fixed() {
    let server = server();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let login = Waiting::new(browser_login(&server).port(port).path("/")).await;
    let callback = login.answer(&server).await;
    assert_eq!(callback.host, format!("127.0.0.1:{port}"));
    assert_eq!(callback.path, "/");
    assert_eq!(callback.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn a_path_that_is_none_is_an_error() {
    for path in ["", "callback", "/a?b", "/a#b", "/a b"] {
        let login = browser_login(&server()).without_browser().path(path);
        let error = login.log_in().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{path}");
    }
}

#[tokio::test]
async fn the_browser_can_come_back_over_ipv6() {
    if TcpListener::bind("[::1]:0").await.is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    let server = server();
    let login = Waiting::new(browser_login(&server).ipv6()).await;
    let callback = login.answer(&server).await;
    assert!(callback.host.starts_with("[::1]:"), "{}", callback.host);
    assert_eq!(callback.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn a_pasted_url_is_an_answer() {
    let server = server();
    let (lines, pasted) = mpsc::channel(1);
    let mut login = Waiting::new(browser_login(&server).pasted(pasted)).await;
    let callback = login.answer(&server).await;
    for wrong in ["", "hello", &callback.with("state", "x").url()] {
        lines.send(wrong.to_owned()).await.unwrap();
        assert_eq!(login.prompts.recv().await.unwrap(), "WrongPaste");
    }
    lines.send(format!("  {}\n", callback.url())).await.unwrap();
    login.ended().await.unwrap();
    assert!(callback.is_closed().await);
}

#[tokio::test]
async fn a_login_goes_on_when_nothing_more_can_be_pasted() {
    let server = server();
    let (lines, pasted) = mpsc::channel(1);
    let login = Waiting::new(browser_login(&server).pasted(pasted)).await;
    drop(lines);
    assert_eq!(login.answer(&server).await.open().await.0, 200);
    login.ended().await.unwrap();
}

#[tokio::test]
async fn the_texts_of_the_pages_can_be_replaced() {
    let server = server();
    let login = browser_login(&server)
        .success_page("Angemeldet", "Zur\u{fc}ck zu <Orders>")
        .failure_page("Fehlgeschlagen", "Bitte noch einmal");
    let login = Waiting::new(login).await;
    let callback = login.answer(&server).await;
    let (_, _, body) = callback.with("state", "x").open().await;
    assert!(body.contains("Fehlgeschlagen") && body.contains("Bitte noch einmal"));
    let (_, _, body) = callback.open().await;
    assert!(body.contains("Angemeldet") && body.contains("Zur\u{fc}ck zu &lt;Orders&gt;"));
    login.ended().await.unwrap();
}

#[tokio::test]
async fn a_login_that_cannot_begin_closes_the_port() {
    let server = server().metadata_member("code_challenge_methods_supported", json!(["plain"]));
    let told = Arc::new(Mutex::new(0));
    let counts = Arc::clone(&told);
    let login = browser_login(&server)
        .without_browser()
        .prompt(move |_| *counts.lock().unwrap() += 1);
    let error = login.log_in().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert_eq!(*told.lock().unwrap(), 0, "nobody is sent away");
}
