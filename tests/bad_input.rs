//! Invalid input and failures: each is an error of the right kind, with a message that says what to do and no secret.

mod support;

use std::{future::Future, net::TcpListener, time::Duration};

use http::{Request, Response, StatusCode};
use serde_json::Value;
use support::{API, TOKEN_URL, assert_hides, failure, first_error, get, send, source};
use tokio::time::Instant;
use tower::{Layer, Service};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, Origins, RefreshTokenSource, Token, TokenCache,
    TokenError, TokenErrorKind, source_fn,
    testing::{AuthorizationServer, Dialect, Fault},
};

const SECRET: &str = "hunter2";

/// A source whose every secret is `hunter2`.
fn source_with_secrets(endpoint: OAuthClient) -> RefreshTokenSource {
    RefreshTokenSource::new(
        endpoint.client_auth(ClientAuth::client_secret_post("id", SECRET)),
        SECRET,
    )
}

fn rfc6749_server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}

/// The error of a source whose server has `fault`.
async fn error_for(fault: Fault) -> TokenError {
    let server = rfc6749_server();
    server.fault_always(fault);
    let endpoint = OAuthClient::with_transport(TOKEN_URL, server).unwrap();
    first_error(source_with_secrets(endpoint)).await
}

#[track_caller]
fn assert_error(error: &TokenError, kind: TokenErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert_hides(error, &[SECRET]);
}

// ---------------------------------------------------------------------------------------------------------------------
// URLs.

#[test]
fn a_malformed_url_is_an_error_that_says_what_is_wrong_and_expected() {
    for (url, problem) in [
        ("", "has no scheme"),
        ("login.example.com/token", "has no scheme"),
        ("https://", "host"),
        ("https:///token", "has no host"),
        ("https://[::1/token", "malformed"),
        ("https://login.example.com:99999/", "malformed"),
        ("https://login example.com/", "white space"),
        (
            "https://id:hunter2@login.example.com/",
            "user name or password",
        ),
        ("https://login.example.com/#hunter2", "fragment"),
        ("hunter2", "has no scheme"),
        ("hunter2://login.example.com", "scheme other than https"),
    ] {
        for outcome in [
            OAuthClient::new(url),
            OAuthClient::with_transport(url, rfc6749_server()),
        ] {
            let error = outcome.expect_err(url);
            let wanted = "wanted: an absolute URL such as https://";
            assert_error(&error, TokenErrorKind::Config, &[problem, wanted]);
        }
    }
}

#[test]
fn plain_http_is_allowed_for_loopback_only() {
    for host in [
        "login.example.com",
        "10.0.0.1",
        "0.0.0.0",
        "localhost.example.com",
    ] {
        let url = format!("http://{host}/token?key=hunter2");
        let error = OAuthClient::new(&url).expect_err(&url);
        assert_error(&error, TokenErrorKind::InsecureOrigin, &[host, "use https"]);

        let error = Origins::only([format!("http://{host}")]).unwrap_err();
        assert_error(
            &error,
            TokenErrorKind::InsecureOrigin,
            &[host, "neither https"],
        );
    }
    for host in ["localhost:8080", "127.0.0.1", "[::1]:1"] {
        let _ = OAuthClient::new(format!("http://{host}/token")).expect(host);
        let _ = Origins::only([format!("http://{host}")]).expect(host);
    }
}

#[test]
fn a_host_that_could_be_read_in_two_ways_is_rejected_in_every_url() {
    for (host, wanted) in [
        ("b\u{fc}cher.example", "punycode (`xn--...`)"),
        ("127.1", "four decimal numbers"),
        ("0x7f.1", "four decimal numbers"),
        ("2130706433", "four decimal numbers"),
        ("ex%61mple.com", "malformed"),
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}");
            let error = OAuthClient::new(&url).expect_err(&url);
            assert_error(&error, TokenErrorKind::Config, &[wanted]);
            let error = Origins::only([&url]).expect_err(&url);
            assert_error(&error, TokenErrorKind::Config, &[wanted]);
        }
    }
    // In a request over plain http they are not taken for this machine.
    for host in ["127.1", "0x7f.1", "2130706433"] {
        let uri = format!("http://{host}/").parse().unwrap();
        assert!(!Origins::any_https().allows(&uri), "{host}");
    }
}

#[test]
fn a_value_that_is_no_origin_is_an_error() {
    for (origin, problem) in [
        ("api.example.com", "not a URL"),
        ("https://api.example.com/v1", "no path"),
        ("https://api.example.com/?key=hunter2", "no query"),
        ("https://me:hunter2@api.example.com", "no password"),
    ] {
        let error = Origins::only([origin]).expect_err(origin);
        assert_error(&error, TokenErrorKind::Config, &[problem]);
    }
    let none = Origins::only::<[&str; 0]>([]).unwrap_err();
    assert_error(&none, TokenErrorKind::Config, &["empty"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Tokens.

#[test]
fn a_token_with_characters_invalid_in_headers_is_an_error() {
    let error = Token::new("").unwrap_err();
    assert_error(&error, TokenErrorKind::InvalidToken, &["empty"]);
    for (token, offset) in [
        ("hunter2\n", "offset 7"),
        ("hunter2\r\nx-evil: 1", "offset 7"),
        ("\0hunter2", "offset 0"),
        (" hunter2", "offset 0"),
        ("hunter2\u{7f}", "offset 7"),
        ("hunter2é", "offset 7"),
    ] {
        let error = Token::new(token).expect_err(token);
        assert_error(
            &error,
            TokenErrorKind::InvalidToken,
            &[offset, "no header may carry"],
        );
    }
    let error = Token::new("Bearer hunter2").unwrap_err();
    let parts = ["begins with the scheme `Bearer`", "pass the token alone"];
    assert_error(&error, TokenErrorKind::InvalidToken, &parts);
}

#[tokio::test(start_paused = true)]
async fn a_server_or_source_with_such_a_token_is_an_error() {
    for (answer, kind, part) in [
        (
            r#"{"access_token":"hunter2\nx-evil: 1"}"#,
            TokenErrorKind::InvalidToken,
            "offset 7",
        ),
        (
            r#"{"access_token":"hunter2 again"}"#,
            TokenErrorKind::InvalidToken,
            "offset 7",
        ),
        (
            r#"{"access_token":""}"#,
            TokenErrorKind::InvalidResponse,
            "access_token",
        ),
        (
            r#"{"access_token":null}"#,
            TokenErrorKind::InvalidResponse,
            "access_token",
        ),
        (
            r#"{"access_token":["hunter2"]}"#,
            TokenErrorKind::InvalidResponse,
            "access_token",
        ),
    ] {
        let error = error_for(Fault::raw(StatusCode::OK, "application/json", answer)).await;
        assert_error(&error, kind, &[part]);
    }
    let client = BearerAuthLayer::new(source_fn(|_| async { Token::new("hunter2\n") }));
    let error = failure(send(&client.layer(rfc6749_server().api()), get(API)).await);
    assert_error(&error, TokenErrorKind::InvalidToken, &["offset 7"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Token endpoints.

#[tokio::test]
async fn the_error_names_an_unreachable_endpoint_without_its_query() {
    // A port that was free just before.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint = OAuthClient::new(format!("http://{address}/token?key=hunter2")).unwrap();
    let client = BearerAuthLayer::new(source_with_secrets(endpoint)).layer(rfc6749_server().api());

    let error = failure(send(&client, get(API)).await);
    let parts = [
        &*format!("POST http://{address}/token failed"),
        "the request to the token endpoint failed",
    ];
    assert_error(&error, TokenErrorKind::Transport, &parts);
    assert!(error.is_transient());
    assert!(
        std::error::Error::source(&error).is_some(),
        "the error has a source"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_a_transport_error() {
    for fault in [Fault::DropBeforeCommit, Fault::DropReplyAfterCommit] {
        let error = error_for(fault).await;
        let parts = ["POST https://login.example.com/token failed"];
        assert_error(&error, TokenErrorKind::Transport, &parts);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_never_answers_times_out() {
    for fault in [
        Fault::NeverAnswers,
        Fault::SlowBody(Duration::from_secs(1)),
        Fault::SlowBody(Duration::MAX),
        Fault::Delay(Duration::from_secs(3_600)),
    ] {
        let since = Instant::now();
        let server = rfc6749_server();
        // It times out, is sent again, and times out again.
        server.fault_next(2, &fault);
        let error = first_error(source(&server)).await;
        assert_eq!(since.elapsed().as_secs(), 60);
        let parts = ["POST https://login.example.com/token took longer than 30s"];
        assert_error(&error, TokenErrorKind::Timeout, &parts);
        assert!(error.is_transient());
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_max_wait() {
    let server = rfc6749_server();
    server.fault_always(Fault::NeverAnswers);
    let cache = TokenCache::builder(source(&server))
        .max_wait(Duration::from_secs(3))
        .build();
    let client = BearerAuthLayer::from(cache).layer(server.api());
    let since = Instant::now();
    let error = failure(send(&client, get(API)).await);
    assert_eq!(since.elapsed().as_secs(), 3);
    assert_error(
        &error,
        TokenErrorKind::Timeout,
        &["no token came within 3s"],
    );
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_response_without_a_token_says_what_came_instead() {
    let html = "text/html; charset=utf-8";
    for (status, content_type, body, kind, parts) in [
        (
            200,
            "application/json",
            r#"{"token_type":"bearer"}"#,
            TokenErrorKind::InvalidResponse,
            &["access_token", "application/json, 23 bytes", "HTTP 200"][..],
        ),
        (
            200,
            "application/json",
            "",
            TokenErrorKind::InvalidResponse,
            &["empty", "HTTP 200"],
        ),
        (
            200,
            "application/json",
            "[]",
            TokenErrorKind::InvalidResponse,
            &["2 bytes"],
        ),
        (
            200,
            "application/json",
            r#"{"access_token":"hunter2""#,
            TokenErrorKind::InvalidResponse,
            &["25 bytes"],
        ),
        (
            200,
            html,
            "<p>hunter2",
            TokenErrorKind::InvalidResponse,
            &["text/html, 10 bytes"],
        ),
        (
            502,
            html,
            "<p>hunter2",
            TokenErrorKind::Server,
            &["text/html, 10 bytes", "HTTP 502"],
        ),
        (
            200,
            "application/json",
            r#"{"error":"bad_refresh_token"}"#,
            TokenErrorKind::ReauthRequired,
            &["bad_refresh_token", "authorize again"],
        ),
        (
            400,
            "application/json",
            r#"{"error":"invalid_grant","error_description":"hunter2"}"#,
            TokenErrorKind::ReauthRequired,
            &["invalid_grant", "authorize again"],
        ),
        (
            401,
            "application/json",
            r#"{"error":"invalid_client"}"#,
            TokenErrorKind::InvalidClient,
            &["check client id", "HTTP 401, invalid_client"],
        ),
        (
            404,
            html,
            "<p>hunter2",
            TokenErrorKind::InvalidResponse,
            &["check the token endpoint's URL"],
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let error = error_for(Fault::raw(status, content_type, body)).await;
        assert_error(&error, kind, parts);
        assert_eq!(error.status(), Some(status));
    }
    let error = error_for(Fault::member("access_token", Value::Null)).await;
    assert_eq!(
        error.kind(),
        TokenErrorKind::InvalidClient,
        "the client credentials are checked first: {error}"
    );
    let server = rfc6749_server();
    server.fault(Fault::member("access_token", Value::Null));
    let error = first_error(source(&server)).await;
    assert_error(&error, TokenErrorKind::InvalidResponse, &["access_token"]);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_of_the_token_endpoint_is_not_followed() {
    for code in [301, 302, 303, 307, 308] {
        let server = rfc6749_server();
        let fault = Fault::Redirect {
            status: StatusCode::from_u16(code).unwrap(),
            location: "https://evil.example/token?key=hunter2".parse().unwrap(),
        };
        server.fault(fault);
        let endpoint = OAuthClient::with_transport(TOKEN_URL, server.clone()).unwrap();
        let error = first_error(source_with_secrets(endpoint)).await;
        let status = format!("HTTP {code}");
        assert_error(&error, TokenErrorKind::InvalidResponse, &[&status]);
        assert_hides(&error, &["evil.example"]);
        assert_eq!(server.token_requests(), 1);
    }
}

/// Runs on this thread, so that the allocations are counted.
fn on_this_thread<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_response_of_1_gib_is_an_error_after_64_kib() {
    let mut error = None;
    let used = allocation_counter::measure(|| {
        error = Some(on_this_thread(error_for(Fault::HugeBody(1 << 30))));
    });
    let parts = ["more than 65536 bytes", "application/json", "HTTP 200"];
    assert_error(&error.unwrap(), TokenErrorKind::InvalidResponse, &parts);
    assert!(used.bytes_max < 1 << 20, "{} bytes at once", used.bytes_max);
    assert!(
        used.bytes_total < 4 << 20,
        "{} bytes in all",
        used.bytes_total
    );
}

#[test]
fn a_response_of_1_gib_is_an_error_through_the_layer_too() {
    let mut error = None;
    let used = allocation_counter::measure(|| {
        error = Some(on_this_thread(async {
            let server = rfc6749_server();
            server.fault(Fault::HugeBody(1 << 30));
            let client = BearerAuthLayer::new(source(&server)).layer(server.api());
            failure(send(&client, get(API)).await)
        }));
    });
    let parts = ["more than 65536 bytes"];
    assert_error(&error.unwrap(), TokenErrorKind::InvalidResponse, &parts);
    assert!(used.bytes_max < 1 << 20, "{} bytes at once", used.bytes_max);
}

// ---------------------------------------------------------------------------------------------------------------------
// Runtimes and sources.

#[test]
fn without_a_runtime_the_error_says_what_is_missing() {
    let client = BearerAuthLayer::new(source_fn(|_| async { Token::new("t") }));
    let mut client = client.layer(tower::service_fn(
        |_: Request<tower_bearer::ReplayBody<String>>| async {
            Ok::<_, tower::BoxError>(Response::new(String::new()))
        },
    ));
    let mut sending = tokio_test::task::spawn(client.call(Request::new(String::new())));
    let std::task::Poll::Ready(outcome) = sending.poll() else {
        panic!("the error must be returned at once")
    };
    let error = failure(outcome);
    assert_error(&error, TokenErrorKind::Config, &["Tokio runtime"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_source_is_an_error_and_the_next_caller_starts_another_refresh() {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            assert!(call > 0, "the source panics: {SECRET}");
            Token::new("good")
        }
    });
    let cache = TokenCache::new(source);
    let error = cache.token().await.unwrap_err();
    assert_error(&error, TokenErrorKind::Interrupted, &["panicked"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cache.token().await.unwrap().header(), "Bearer good");
}
