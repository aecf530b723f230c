use std::{
    convert::Infallible,
    error::Error,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use http::{
    Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, LOCATION},
};
use http_body::Frame;
use http_body_util::BodyExt;
use tower::service_fn;

use super::*;
use crate::{clock::SimulatedWallClock, error::TokenErrorKind};

const URL: &str = "https://authorize.example.com/oauth/token?tenant=hunter2";
const GRANTED: &str = r#"{"access_token":"granted","expires_in":900}"#;

type Recorded = Arc<Mutex<Vec<Request<Bytes>>>>;

/// A server that records requests, and answers each with `status` and `body`.
fn server(status: StatusCode, body: &'static str) -> (OAuthClient, Recorded) {
    let recorded = Recorded::default();
    let requests = recorded.clone();
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let requests = requests.clone();
        async move {
            let (head, body_sent) = request.into_parts();
            let body_sent = body_sent.collect().await?.to_bytes();
            requests
                .lock()
                .unwrap()
                .push(Request::from_parts(head, body_sent));
            let response = Response::builder().status(status);
            let response = response.header(LOCATION, "https://elsewhere.example/hunter2");
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
        }
    });
    (OAuthClient::with_transport(URL, service).unwrap(), recorded)
}

fn only(recorded: &Recorded) -> Request<Bytes> {
    let mut recorded = recorded.lock().unwrap();
    assert_eq!(recorded.len(), 1);
    recorded.remove(0)
}

#[tokio::test]
async fn a_request_carries_the_grant_the_client_and_the_configured_parameters() {
    let (client, recorded) = server(StatusCode::OK, GRANTED);
    let token = client
        .client_auth(ClientAuth::client_secret_post("app", "s+/="))
        .parameter("scope", "read")
        .parameter("resource", "https://a.example")
        .parameter("resource", "https://b.example")
        .header("X-Tenant", "seven")
        .unwrap()
        .grant(
            "exchange_token",
            &[("code", "7j/N+c=="), ("scope", "write")],
        )
        .await
        .unwrap();
    assert_eq!(token.header(), "Bearer granted");

    let request = only(&recorded);
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), URL);
    assert_eq!(
        request.headers()[CONTENT_TYPE],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(request.headers()[ACCEPT], "application/json");
    assert_eq!(request.headers()["x-tenant"], "seven");
    assert!(request.headers()["x-tenant"].is_sensitive());
    assert_eq!(
        request.body(),
        "grant_type=exchange_token&code=7j%2FN%2Bc%3D%3D&scope=write&client_id=app&client_secret=s%2B%2F%3D\
         &resource=https%3A%2F%2Fa.example&resource=https%3A%2F%2Fb.example"
    );
}

#[tokio::test]
async fn json_bodies_and_basic_authentication_can_be_combined() {
    let (client, recorded) = server(StatusCode::OK, GRANTED);
    client
        .client_auth(ClientAuth::basic_user_only("ann@books.example"))
        .body_format(BodyFormat::Json)
        .header("accept", "application/vnd.example+json")
        .unwrap()
        .grant("refresh_token", &[("refresh_token", "r\"1")])
        .await
        .unwrap();
    let request = only(&recorded);
    assert_eq!(
        request.headers()["authorization"],
        "Basic YW5uQGJvb2tzLmV4YW1wbGU="
    );
    assert!(request.headers()["authorization"].is_sensitive());
    assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(request.headers()[ACCEPT], "application/vnd.example+json");
    assert_eq!(
        request.body(),
        r#"{"grant_type":"refresh_token","refresh_token":"r\"1"}"#
    );
}

#[tokio::test]
async fn a_misconfigured_client_sends_nothing() {
    let (client, recorded) = server(StatusCode::OK, GRANTED);
    let client = client.client_auth(ClientAuth::client_secret_basic("", "s"));
    let error = client.grant("x", &[]).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(recorded.lock().unwrap().is_empty());
}

#[test]
fn headers_that_cannot_be_sent_are_rejected_without_their_value() {
    for (name, value) in [
        ("bad name", "hunter2"),
        ("x", "hunter2\r\nX-Evil: 1"),
        ("Content-Type", "hunter2"),
        ("content-length", "hunter2"),
        ("transfer-encoding", "hunter2"),
    ] {
        let error = server(StatusCode::OK, "")
            .0
            .header(name, value)
            .unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(
            !format!("{error}{error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let (client, recorded) = server(StatusCode::from_u16(status).unwrap(), GRANTED);
        let error = client
            .grant("refresh_token", &[("refresh_token", "hunter2")])
            .await
            .unwrap_err();
        only(&recorded);
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("never followed"), "{error}");
        assert!(
            !format!("{error}{error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn no_error_shows_the_request_or_the_response() {
    for (status, body) in [
        (200, "hunter2"),
        (200, r#"{"access_token":"hunter2 hunter2"}"#),
        (200, r#"{"access_token":"hunter2","token_type":"mac"}"#),
        (
            400,
            r#"{"error":"invalid_grant","error_description":"hunter2","message":"hunter2"}"#,
        ),
        (
            400,
            r#"{"error":{"message":"hunter2"},"errors":[{"message":"hunter2"}]}"#,
        ),
        (401, "hunter2"),
        (502, "<p>hunter2</p>"),
    ] {
        let (client, _) = server(StatusCode::from_u16(status).unwrap(), body);
        let client = client
            .client_auth(ClientAuth::client_secret_post("app", "hunter2"))
            .parameter("assertion", "hunter2")
            .header("x-key", "hunter2")
            .unwrap();
        let error = client
            .grant("x", &[("refresh_token", "hunter2")])
            .await
            .unwrap_err();
        let shown = format!("{error} {error:?} {error:#?} {client:?} {client:#?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(
            shown.contains("https://authorize.example.com/oauth/token"),
            "{shown}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_response_times_out() {
    #[derive(Clone)]
    struct NeverReady;
    impl Service<Request<Full<Bytes>>> for NeverReady {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Pending
        }
        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            panic!("called without being ready")
        }
    }
    struct NeverEnds;
    impl http_body::Body for NeverEnds {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }
    let silent = service_fn(|_: Request<Full<Bytes>>| {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    let endless = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(NeverEnds))
    });
    for client in [
        OAuthClient::with_transport(URL, NeverReady).unwrap(),
        OAuthClient::with_transport(URL, silent).unwrap(),
        OAuthClient::with_transport(URL, endless).unwrap(),
    ] {
        for (client, seconds) in [
            (client.clone(), 30),
            (client.timeout(Duration::from_secs(3)), 3),
        ] {
            let start = tokio::time::Instant::now();
            let error = client.grant("x", &[]).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Timeout);
            assert!(
                error.to_string().contains(&format!("{seconds}s")),
                "{error}"
            );
            let took = start.elapsed();
            let expected = Duration::from_secs(seconds);
            assert!(
                took >= expected && took < expected + Duration::from_millis(10),
                "{took:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lifetimes_count_from_when_the_transport_is_called() {
    #[derive(Clone)]
    struct Slow(Option<Arc<Mutex<Pin<Box<tokio::time::Sleep>>>>>);
    impl Service<Request<Full<Bytes>>> for Slow {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            let sleep = self.0.get_or_insert_with(|| {
                Arc::new(Mutex::new(Box::pin(tokio::time::sleep(
                    Duration::from_secs(5),
                ))))
            });
            sleep.lock().unwrap().as_mut().poll(cx).map(Ok)
        }
        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(7)).await;
                Ok(Response::new(Full::from(GRANTED)))
            })
        }
    }
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let clock = Clock::Simulated(Arc::new(SimulatedWallClock::new(start)));
    let client = OAuthClient::with_transport(URL, Slow(None)).unwrap();
    let response = client.request(&clock, &Parameters::new("x")).await.unwrap();
    assert_eq!(clock.wall(), start + Duration::from_secs(12));
    let off = response
        .expires_at
        .unwrap()
        .duration_since(start + Duration::from_secs(5 + 900));
    assert!(off.unwrap() < Duration::from_millis(10));
}

/// A gigabyte in chunks of 16 KiB. Counts the bytes that were read.
struct Gigabyte(Arc<AtomicUsize>);

const CHUNK: usize = 16 * 1024;

impl http_body::Body for Gigabyte {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let taken = self.0.fetch_add(CHUNK, Ordering::SeqCst);
        if taken >= 1 << 30 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'{'; CHUNK])))))
    }
    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(1 << 30)
    }
}

#[tokio::test]
async fn a_huge_response_is_read_up_to_the_limit() {
    for (limit, read) in [
        (None, 64 * 1024),
        (Some(1), 1),
        (Some(0), 0),
        (Some(CHUNK), CHUNK),
    ] {
        let read_bytes = Arc::new(AtomicUsize::new(0));
        let counter = read_bytes.clone();
        let service = service_fn(move |_: Request<Full<Bytes>>| {
            let body = Gigabyte(counter.clone());
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let mut client = OAuthClient::with_transport(URL, service).unwrap();
        if let Some(limit) = limit {
            client = client.max_response_size(limit);
        }
        let error = client.grant("x", &[]).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(
            error
                .to_string()
                .contains(&format!("limit of {read} bytes")),
            "{error}"
        );
        let read_bytes = read_bytes.load(Ordering::SeqCst);
        assert!(
            read_bytes <= read + CHUNK,
            "{read_bytes} bytes were read for a limit of {read}"
        );
    }
}

#[tokio::test]
async fn a_response_of_exactly_the_limit_is_read() {
    let (client, _) = server(StatusCode::OK, GRANTED);
    assert!(
        client
            .clone()
            .max_response_size(GRANTED.len())
            .grant("x", &[])
            .await
            .is_ok()
    );
    assert!(
        client
            .max_response_size(GRANTED.len() - 1)
            .grant("x", &[])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_transport_error_keeps_its_source() {
    for (kind, expected) in [
        (io::ErrorKind::ConnectionRefused, TokenErrorKind::Transport),
        (io::ErrorKind::TimedOut, TokenErrorKind::Timeout),
    ] {
        let service = service_fn(move |_: Request<Full<Bytes>>| async move {
            Err::<Response<Full<Bytes>>, _>(io::Error::new(kind, "cause"))
        });
        let client = OAuthClient::with_transport(URL, service).unwrap();
        let error = client.grant("x", &[]).await.unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(error.is_transient());
        assert_eq!(error.source().unwrap().to_string(), "cause");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_token_error_of_the_transport_is_returned_unchanged() {
    let service = service_fn(|_: Request<Full<Bytes>>| async {
        Err::<Response<Full<Bytes>>, _>(TokenError::new(TokenErrorKind::RateLimited, "own quota"))
    });
    let client = OAuthClient::with_transport(URL, service).unwrap();
    assert_eq!(
        client.grant("x", &[]).await.unwrap_err().kind(),
        TokenErrorKind::RateLimited
    );
}

#[tokio::test]
async fn a_refresh_token_is_sent_under_the_configured_name() {
    for (name, expected) in [
        (None, "grant_type=refresh_token&refresh_token=r"),
        (Some("code"), "grant_type=refresh_token&code=r"),
    ] {
        let (mut client, recorded) = server(StatusCode::OK, GRANTED);
        if let Some(name) = name {
            client = client.refresh_parameter(name);
        }
        let parameters = Parameters::refresh_token("r");
        client.request(&Clock::System, &parameters).await.unwrap();
        assert_eq!(only(&recorded).body(), expected);
    }
}

#[tokio::test]
async fn refresh_tokens_go_to_the_refresh_url_and_other_grants_to_the_token_url() {
    const REFRESH_URL: &str = "https://authorize.example.com/oauth/refresh?tenant=hunter2";
    let (client, recorded) = server(StatusCode::OK, GRANTED);
    let client = client.refresh_url(REFRESH_URL).unwrap();
    client.grant("x", &[]).await.unwrap();
    assert_eq!(only(&recorded).uri(), URL);
    let parameters = Parameters::refresh_token("r");
    client.request(&Clock::System, &parameters).await.unwrap();
    assert_eq!(only(&recorded).uri(), REFRESH_URL);
    assert!(!format!("{client:?}").contains("hunter2"), "{client:?}");
}

#[tokio::test]
async fn an_error_names_the_url_that_was_used() {
    let (client, _) = server(StatusCode::BAD_GATEWAY, "");
    let client = client
        .refresh_url("https://authorize.example.com/refresh")
        .unwrap();
    let parameters = Parameters::refresh_token("r");
    let error = client.request(&Clock::System, &parameters).await;
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("example.com/refresh answered"),
        "{message}"
    );
}

#[test]
fn a_refresh_url_follows_the_rules_of_the_token_url() {
    for (url, kind) in [
        ("authorize.example.com", TokenErrorKind::Config),
        ("https://id:hunter2@a.example/", TokenErrorKind::Config),
        ("http://a.example/", TokenErrorKind::InsecureOrigin),
        // Another scheme than the token URL: one transport cannot serve both.
        ("http://localhost/", TokenErrorKind::Config),
    ] {
        let (client, _) = server(StatusCode::OK, "");
        let error = client.refresh_url(url).unwrap_err();
        assert_eq!(error.kind(), kind, "{url}");
        assert!(!format!("{error}{error:?}").contains("hunter2"));
    }
}

#[test]
fn changing_a_clone_leaves_the_original() {
    let (client, _) = server(StatusCode::OK, "");
    let changed = client.clone().timeout(Duration::from_secs(1));
    assert!(format!("{client:?}").contains("timeout: 30s"), "{client:?}");
    assert!(
        format!("{changed:?}").contains("timeout: 1s"),
        "{changed:?}"
    );
}

#[tokio::test]
async fn a_token_can_be_requested_from_another_task() {
    let (client, _) = server(StatusCode::OK, GRANTED);
    let asked = tokio::spawn(async move { client.grant("x", &[]).await });
    assert_eq!(asked.await.unwrap().unwrap().header(), "Bearer granted");
}
