//! The layer over reqwest: each behaviour through each way in, over real connections.

#[path = "support/certificates.rs"]
mod certificates;
#[path = "../../examples/stacks/support/reqwest_012.rs"]
mod reqwest_012;
#[path = "../support/wire.rs"]
mod support;

use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use ::reqwest::{Body, Certificate, Client, RequestBuilder, Response, redirect::Policy};
use bytes::Bytes;
use http::{Extensions, Request, StatusCode};
use http_body::Frame;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use support::{Frames, Numbered, TestServer, bytes, invalid_token, ok, respond};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tower::{BoxError, Layer, ServiceExt, retry::budget::Budget};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, Origins, RefreshTokenSource, RequestBuilderExt,
    ReqwestTransport, Schedule, SendError, SessionKey, Sessions, Token, TokenCache, TokenError,
    TokenErrorKind, WithoutToken, source_fn,
    testing::{self, AuthorizationServer, Dialect, SimulatedClock},
};

/// A way to send a request of reqwest through the layer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Entrance {
    /// `ReqwestTransport` in a Tower stack.
    Tower,
    /// `RequestBuilder::send_with`.
    SendWith,
    /// The crate `reqwest-middleware`.
    Middleware,
    /// reqwest 0.12 in a Tower stack.
    Reqwest012,
}

const ENTRANCES: [Entrance; 4] = [
    Entrance::Tower,
    Entrance::SendWith,
    Entrance::Middleware,
    Entrance::Reqwest012,
];

impl Entrance {
    /// Sends `request` with `auth` and the client of the request.
    async fn send(self, auth: &BearerAuthLayer, request: RequestBuilder) -> Sent {
        self.send_marked(auth, request, Extensions::new()).await
    }

    /// The same, with `extensions` where this way in takes them.
    async fn send_marked(
        self,
        auth: &BearerAuthLayer,
        request: RequestBuilder,
        mut extensions: Extensions,
    ) -> Sent {
        let (client, request) = request.build_split();
        let request = request?;
        let marked = |request, extensions| -> Result<_, BoxError> {
            let mut request = Request::<Body>::try_from(request)?;
            request.extensions_mut().extend(extensions);
            Ok(request)
        };
        match self {
            Self::Tower => {
                let service = auth.layer(ReqwestTransport::from_client(client));
                Ok(service.oneshot(marked(request, extensions)?).await?.into())
            }
            Self::SendWith => {
                let request = marked(request, extensions)?.try_into()?;
                let request = RequestBuilder::from_parts(client, request);
                Ok(request.send_with(auth).await?)
            }
            Self::Middleware => {
                let client = ClientBuilder::new(client).with(auth.clone()).build();
                let sending = client.execute_with_extensions(request, &mut extensions);
                Ok(sending.await?)
            }
            Self::Reqwest012 => {
                let client = reqwest012::Client::builder().no_proxy().build()?;
                let service = auth.layer(reqwest_012::service(client));
                let response = service.oneshot(marked(request, extensions)?).await?;
                Ok(response.map(Body::wrap).into())
            }
        }
    }
}

type Sent = Result<Response, BoxError>;

fn client() -> Client {
    // Nothing here uses TLS, and loading the certificates of the system takes long.
    let builder = Client::builder().no_proxy().tls_certs_only([]);
    builder.build().unwrap()
}

fn get(server: &TestServer) -> RequestBuilder {
    client().get(server.url("/"))
}

fn post(server: &TestServer, body: impl Into<Body>) -> RequestBuilder {
    client().post(server.url("/")).body(body)
}

/// The `TokenError` of a failed request.
#[track_caller]
fn failure(sent: Sent) -> TokenError {
    let error = sent.expect_err("the request fails");
    find(&*error).expect("a `TokenError`").clone()
}

/// The `TokenError` among an error and its causes.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TokenError> {
    if let Some(reqwest_middleware::Error::Middleware(error)) = error.downcast_ref() {
        return error.downcast_ref();
    }
    error
        .downcast_ref()
        .or_else(|| error.source().and_then(find))
}

/// Why a rejected request was not sent again.
fn reason(response: &Response) -> Option<TokenErrorKind> {
    response
        .extensions()
        .get::<TokenError>()
        .map(TokenError::kind)
}

/// A body in pieces, whose length reqwest does not know.
fn stream(pieces: &[&Bytes]) -> Body {
    let frames = pieces.iter().map(|piece| Frame::data((*piece).clone()));
    Body::wrap(Frames(frames.collect()))
}

#[tokio::test]
async fn a_fresh_token_is_sent() {
    for entrance in ENTRANCES {
        let api = TestServer::new(|_| ok("served")).await;
        let source = Numbered::default();
        let auth = BearerAuthLayer::new(source.clone());
        for _ in 0..2 {
            let response = entrance.send(&auth, get(&api)).await.unwrap();
            assert_eq!(response.text().await.unwrap(), "served", "{entrance:?}");
        }
        assert_eq!(api.tokens(), ["token-1", "token-1"], "{entrance:?}");
        assert_eq!(source.calls(), 1, "{entrance:?}");
    }
}

/// A session whose tokens live for 100 seconds, and what steps its clock.
fn short_lived(source: &Numbered) -> (TokenCache, SimulatedClock) {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let source = source.clone();
    let source = source_fn(move |cx| {
        let source = source.clone();
        async move {
            let token = tower_bearer::TokenSource::token(&source, cx).await?;
            Ok(token.expires_in(Duration::from_secs(100)))
        }
    });
    let cache = TokenCache::builder(source)
        .schedule(Schedule::default().min_interval(Duration::ZERO))
        .clock(clock.clone())
        .build();
    (cache, clock)
}

#[tokio::test]
async fn a_due_token_is_sent_and_refreshed_behind_the_request() {
    for entrance in ENTRANCES {
        let api = TestServer::new(|_| ok("served")).await;
        let source = Numbered::default();
        let (cache, clock) = short_lived(&source);
        let auth = BearerAuthLayer::from(cache.clone());
        for _ in 0..2 {
            entrance.send(&auth, get(&api)).await.unwrap();
            clock.step(94);
        }
        cache.close().await.unwrap();
        assert_eq!(api.tokens(), ["token-1", "token-1"], "{entrance:?}");
        assert_eq!(source.calls(), 2, "{entrance:?}");
    }
}

#[tokio::test]
async fn a_request_waits_for_the_next_token_if_the_current_one_has_expired() {
    for entrance in ENTRANCES {
        let api = TestServer::new(|_| ok("served")).await;
        let (cache, clock) = short_lived(&Numbered::default());
        let auth = BearerAuthLayer::from(cache);
        for _ in 0..2 {
            entrance.send(&auth, get(&api)).await.unwrap();
            clock.step(101);
        }
        assert_eq!(api.tokens(), ["token-1", "token-2"], "{entrance:?}");
    }
}

#[tokio::test]
async fn a_rejected_request_is_sent_again_whole() {
    for entrance in ENTRANCES {
        let api = TestServer::rejecting_token_1().await;
        let auth = BearerAuthLayer::new(Numbered::default());
        let request = client()
            .put(api.url("/orders?id=1"))
            .header("x-many", "one")
            .header("x-many", "two")
            .body("an order");
        let response = entrance.send(&auth, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{entrance:?}");
        assert_eq!(reason(&response), None, "{entrance:?}");
        assert_eq!(response.text().await.unwrap(), "an order", "{entrance:?}");
        assert_eq!(api.tokens(), ["token-1", "token-2"], "{entrance:?}");
        for seen in api.seen() {
            assert_eq!(seen.method, "PUT");
            assert_eq!(seen.body, "an order", "{entrance:?}");
            assert_eq!(seen.headers["content-length"], "8", "{entrance:?}");
            let many: Vec<_> = seen.headers.get_all("x-many").iter().collect();
            assert_eq!(many, ["one", "two"], "{entrance:?}");
            assert_eq!(seen.headers.get_all("authorization").iter().count(), 1);
        }
    }
}

#[tokio::test]
async fn a_streamed_body_is_sent_again_whole_up_to_the_limit() {
    let pieces = [bytes(10_000), bytes(20_000), bytes(10)];
    let whole = pieces.concat();
    for entrance in ENTRANCES {
        for (limit, is_replayed) in [(30_010, true), (30_009, false)] {
            let api = TestServer::rejecting_token_1().await;
            let auth = BearerAuthLayer::new(Numbered::default()).replay_limit(limit);
            let body = stream(&pieces.each_ref());
            let response = entrance.send(&auth, post(&api, body)).await.unwrap();
            let expected = (!is_replayed).then_some(TokenErrorKind::NotReplayed);
            assert_eq!(reason(&response), expected, "{entrance:?}");
            let text = response.bytes().await.unwrap();
            let expected = if is_replayed {
                &whole
            } else {
                &b"rejected"[..]
            };
            assert!(text == expected, "{entrance:?}");
            assert!(
                api.seen().iter().all(|seen| seen.body == whole),
                "{entrance:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_sent_and_its_rejection_is_returned_with_the_reason() {
    let large = bytes(64 * 1024 + 1);
    for entrance in ENTRANCES {
        for body in [Body::from(large.clone()), stream(&[&large])] {
            let api = TestServer::rejecting_token_1().await;
            let auth = BearerAuthLayer::new(Numbered::default());
            let response = entrance.send(&auth, post(&api, body)).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{entrance:?}");
            assert_eq!(
                reason(&response),
                Some(TokenErrorKind::NotReplayed),
                "{entrance:?}"
            );
            assert_eq!(response.headers()["x-why"], "expired", "{entrance:?}");
            assert_eq!(response.text().await.unwrap(), "rejected", "{entrance:?}");
            assert!(api.seen()[0].body == large, "{entrance:?}");

            // The token is replaced all the same.
            let response = entrance.send(&auth, get(&api)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{entrance:?}");
            assert_eq!(api.tokens(), ["token-1", "token-2"], "{entrance:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_rejected_twice_is_returned_with_the_reason() {
    for entrance in ENTRANCES {
        let api = TestServer::new(|_| invalid_token()).await;
        let auth = BearerAuthLayer::new(Numbered::default());
        let response = entrance.send(&auth, post(&api, "an order")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{entrance:?}");
        assert_eq!(
            reason(&response),
            Some(TokenErrorKind::Rejected),
            "{entrance:?}"
        );
        assert_eq!(response.text().await.unwrap(), "rejected", "{entrance:?}");
        assert_eq!(api.tokens(), ["token-1", "token-2"], "{entrance:?}");
    }
}

/// Allows this many replays.
#[derive(Debug)]
struct Replays(AtomicUsize);

impl Budget for Replays {
    fn deposit(&self) {}

    fn withdraw(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let order = Ordering::SeqCst;
        self.0.fetch_update(order, order, less).is_ok()
    }
}

#[tokio::test]
async fn all_requests_of_a_layer_share_its_budget_for_replays() {
    for entrance in ENTRANCES {
        let arrived = AtomicUsize::new(0);
        let api = TestServer::new(move |_| match arrived.fetch_add(1, Ordering::SeqCst) {
            0 | 2 => invalid_token(),
            _ => ok("served"),
        })
        .await;
        let auth =
            BearerAuthLayer::new(Numbered::default()).replay_budget(Replays(AtomicUsize::new(1)));
        for expected in [None, Some(TokenErrorKind::NotReplayed)] {
            let response = entrance.send(&auth, get(&api)).await.unwrap();
            assert_eq!(reason(&response), expected, "{entrance:?}");
        }
        assert_eq!(api.tokens().len(), 3, "{entrance:?}");
    }
}

#[tokio::test]
async fn only_idempotent_requests_are_sent_again_if_that_is_set() {
    for entrance in ENTRANCES {
        let api = TestServer::rejecting_token_1().await;
        let auth = BearerAuthLayer::new(Numbered::default()).replay_only_idempotent(true);
        let response = entrance.send(&auth, post(&api, "an order")).await.unwrap();
        assert_eq!(
            reason(&response),
            Some(TokenErrorKind::NotReplayed),
            "{entrance:?}"
        );
    }
}

#[tokio::test]
async fn if_the_refresh_fails_the_rejection_is_returned_with_the_reason() {
    for entrance in ENTRANCES {
        let api = TestServer::rejecting_token_1().await;
        let source = Numbered::default();
        let cache = TokenCache::new(source.clone());
        cache.token().await.unwrap();
        source.fail(true);
        let auth = BearerAuthLayer::from(cache);
        let response = entrance.send(&auth, get(&api)).await.unwrap();
        assert_eq!(
            reason(&response),
            Some(TokenErrorKind::Server),
            "{entrance:?}"
        );
        assert_eq!(response.text().await.unwrap(), "rejected", "{entrance:?}");
    }
}

#[tokio::test]
async fn a_late_rejection_of_an_old_token_does_not_affect_the_new_one() {
    for entrance in ENTRANCES {
        let source = Numbered::default();
        let cache = TokenCache::new(source.clone());
        let newer = cache.clone();
        // While the first request is on its way, the token is replaced.
        let replaced = Arc::new(Notify::new());
        let received = Arc::new(Notify::new());
        let (wait, tell) = (replaced.clone(), received.clone());
        let served = testing::serve(tower::service_fn(
            move |request: Request<hyper::body::Incoming>| {
                let (wait, tell) = (wait.clone(), tell.clone());
                async move {
                    if request.headers()["authorization"] == "Bearer token-1" {
                        tell.notify_one();
                        wait.notified().await;
                        return Ok::<_, BoxError>(invalid_token());
                    }
                    Ok(ok("served"))
                }
            },
        ))
        .await
        .unwrap();
        let request = client().get(served.url());
        let auth = BearerAuthLayer::from(cache);
        let sending = tokio::spawn(async move { entrance.send(&auth, request).await });
        received.notified().await;
        newer.refresh().await.unwrap();
        replaced.notify_one();
        let response = sending.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "served", "{entrance:?}");
        assert_eq!(source.calls(), 2, "{entrance:?}");
    }
}

#[tokio::test]
async fn another_origin_gets_no_token_and_rejects_none() {
    for entrance in ENTRANCES {
        let elsewhere = TestServer::new(|_| invalid_token()).await;
        let source = Numbered::default();
        let auth = BearerAuthLayer::new(source.clone())
            .origins(Origins::only(["https://api.example.com"]).unwrap());
        let response = entrance.send(&auth, get(&elsewhere)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{entrance:?}");
        assert_eq!(reason(&response), None, "{entrance:?}");
        assert_eq!(elsewhere.tokens(), [""], "{entrance:?}");
        assert_eq!(source.calls(), 0, "{entrance:?}");
    }
}

#[tokio::test]
async fn plain_http_to_another_machine_is_an_error_and_nothing_is_sent() {
    for entrance in ENTRANCES {
        let source = Numbered::default();
        let auth = BearerAuthLayer::new(source.clone());
        let request = client().get("http://api.example.com/");
        let error = failure(entrance.send(&auth, request).await);
        assert_eq!(error.kind(), TokenErrorKind::InsecureOrigin, "{entrance:?}");
        assert_eq!(source.calls(), 0, "{entrance:?}");
    }
}

#[tokio::test]
async fn the_callers_own_authorization_is_kept_and_its_rejection_refreshes_nothing() {
    for entrance in ENTRANCES {
        let api = TestServer::new(|_| invalid_token()).await;
        let source = Numbered::default();
        let auth = BearerAuthLayer::new(source.clone());
        let request = get(&api).bearer_auth("my-own");
        let response = entrance.send(&auth, request).await.unwrap();
        assert_eq!(reason(&response), None, "{entrance:?}");
        assert_eq!(api.tokens(), ["my-own"], "{entrance:?}");
        assert_eq!(source.calls(), 0, "{entrance:?}");
    }
}

#[tokio::test]
async fn a_request_that_opts_out_is_sent_without_a_token() {
    for entrance in ENTRANCES {
        let api = TestServer::new(|_| invalid_token()).await;
        let source = Numbered::default();
        let auth = BearerAuthLayer::new(source.clone());
        let mut extensions = Extensions::new();
        extensions.insert(WithoutToken);
        let sent = entrance.send_marked(&auth, get(&api), extensions).await;
        assert_eq!(reason(&sent.unwrap()), None, "{entrance:?}");
        assert_eq!(api.tokens(), [""], "{entrance:?}");
        assert_eq!(source.calls(), 0, "{entrance:?}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_does_not_carry_the_token_and_its_401_rejects_none() {
    for entrance in ENTRANCES {
        for status in [301, 302, 303, 307, 308] {
            let elsewhere = TestServer::new(|_| invalid_token()).await;
            let location = elsewhere.url("/target");
            let ours = TestServer::new(move |_| {
                let mut response = respond(status, &[], "");
                let location = location.parse().unwrap();
                response.headers_mut().insert("location", location);
                response
            })
            .await;
            let source = Numbered::default();
            let auth = BearerAuthLayer::new(source.clone());
            let response = entrance.send(&auth, get(&ours)).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{entrance:?}");
            assert_eq!(reason(&response), None, "{entrance:?}, {status}");
            assert_eq!(ours.tokens(), ["token-1"], "{entrance:?}, {status}");
            assert_eq!(elsewhere.tokens(), [""], "{entrance:?}, {status}");
            assert_eq!(source.calls(), 1, "{entrance:?}, {status}");
        }
    }
}

/// One port for both: redirects from https to http, and returns the head of the request that comes over http.
async fn redirect_to_plain_http(listener: TcpListener, acceptor: TlsAcceptor) -> String {
    let port = listener.local_addr().unwrap().port();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = [0];
        stream.peek(&mut first).await.unwrap();
        if first.starts_with(b"G") {
            let head = head(&mut stream).await;
            let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(ok.as_bytes()).await.unwrap();
            return head;
        }
        let mut stream = acceptor.accept(stream).await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.contains("authorization: Bearer token-1"), "{head}");
        let found = format!(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(found.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

/// Reads the head of a request.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_redirect_from_https_to_http_at_the_same_port_does_not_carry_the_token() {
    let [authority, certificate, key] = certificates::certificates();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    for entrance in [Entrance::Tower, Entrance::SendWith, Entrance::Middleware] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let received = tokio::spawn(redirect_to_plain_http(listener, acceptor.clone()));
        let authority = Certificate::from_pem(authority.as_bytes()).unwrap();
        let client = Client::builder().no_proxy().tls_certs_only([authority]);
        let auth = BearerAuthLayer::new(Numbered::default());
        let sent = entrance.send(&auth, client.build().unwrap().get(url)).await;
        assert_eq!(sent.unwrap().status(), StatusCode::OK, "{entrance:?}");
        let head = received.await.unwrap();
        assert!(!head.contains("authorization"), "{entrance:?}: {head}");
    }
}

#[tokio::test]
async fn redirects_are_left_to_the_client() {
    for entrance in [Entrance::Tower, Entrance::SendWith, Entrance::Middleware] {
        let api = TestServer::new(|_| respond(302, &[("location", "/elsewhere")], "")).await;
        let auth = BearerAuthLayer::new(Numbered::default());
        let client = Client::builder().no_proxy().redirect(Policy::none());
        let request = client.build().unwrap().get(api.url("/"));
        let response = entrance.send(&auth, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND, "{entrance:?}");
    }
}

#[tokio::test]
async fn a_redirect_that_keeps_the_body_is_followed_as_without_the_layer() {
    for entrance in [Entrance::SendWith, Entrance::Middleware] {
        for status in [307, 308] {
            let is_first = Mutex::new(true);
            let api = TestServer::new(move |seen| {
                if std::mem::take(&mut *is_first.lock().unwrap()) {
                    return respond(status, &[("location", "/elsewhere")], "");
                }
                match seen.token() {
                    Some("token-1") => invalid_token(),
                    _ => ok(seen.body.clone()),
                }
            })
            .await;
            let auth = BearerAuthLayer::new(Numbered::default());
            let response = entrance.send(&auth, post(&api, "an order")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{entrance:?}, {status}");
            assert_eq!(response.text().await.unwrap(), "an order");
            // The redirect, what it leads to, and the replay of the first request.
            assert_eq!(api.tokens(), ["token-1", "token-1", "token-2"]);
        }
    }
}

#[tokio::test]
async fn through_the_transport_a_redirect_that_keeps_the_body_is_returned() {
    let api = TestServer::new(|_| respond(307, &[("location", "/elsewhere")], "")).await;
    let auth = BearerAuthLayer::new(Numbered::default());
    let request = post(&api, "an order");
    let response = Entrance::Tower.send(&auth, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_is_a_token_error() {
    for entrance in ENTRANCES {
        let api = TestServer::new(|_| ok("served")).await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", closed.local_addr().unwrap());
        drop(closed);
        let oauth = OAuthClient::new(url).unwrap();
        let auth = BearerAuthLayer::new(RefreshTokenSource::new(oauth, "hunter2"));
        let error = failure(entrance.send(&auth, get(&api)).await);
        assert_eq!(error.kind(), TokenErrorKind::Transport, "{entrance:?}");
        assert_eq!(api.tokens().len(), 0, "{entrance:?}");
    }
}

#[tokio::test]
async fn a_transport_failure_is_an_error_of_reqwest_and_is_not_replayed() {
    for entrance in ENTRANCES {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", closed.local_addr().unwrap());
        drop(closed);
        let source = Numbered::default();
        let auth = BearerAuthLayer::new(source.clone());
        let error = entrance.send(&auth, client().get(url)).await.unwrap_err();
        let is_connect = match entrance {
            Entrance::Tower => error
                .downcast_ref::<::reqwest::Error>()
                .unwrap()
                .is_connect(),
            Entrance::SendWith => match error.downcast_ref::<SendError>().unwrap() {
                SendError::Reqwest(error) => error.is_connect(),
                SendError::Token(error) => panic!("{error}"),
            },
            Entrance::Middleware => error
                .downcast_ref::<reqwest_middleware::Error>()
                .unwrap()
                .is_connect(),
            Entrance::Reqwest012 => error
                .downcast_ref::<reqwest012::Error>()
                .unwrap()
                .is_connect(),
        };
        assert!(is_connect, "{entrance:?}: {error}");
        assert_eq!(source.calls(), 1, "{entrance:?}");
    }
}

#[tokio::test]
async fn an_error_and_its_causes_are_of_send_with_what_it_says() {
    let auth = BearerAuthLayer::new(source_fn(|_| async {
        Err(TokenError::new(TokenErrorKind::Server, "out of order"))
    }));
    let request = client().get("https://api.example.com");
    let error = request.send_with(&auth).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no token to send the request with"
    );
    let cause = error
        .source()
        .unwrap()
        .downcast_ref::<TokenError>()
        .unwrap();
    assert_eq!(cause.kind(), TokenErrorKind::Server);

    let error = client().get("no URL").send_with(&auth).await.unwrap_err();
    assert_eq!(error.to_string(), "the request got no response");
    let cause = error.source().unwrap().downcast_ref::<::reqwest::Error>();
    assert!(cause.unwrap().is_builder());
}

#[test]
fn the_future_of_send_with_can_be_spawned_and_borrows_nothing() {
    fn can_be_spawned<T: Send + 'static>(_: &T) {}

    let future = {
        let auth = BearerAuthLayer::new(Numbered::default());
        client().get("https://api.example.com").send_with(&auth)
    };
    can_be_spawned(&future);
}

/// A source that answers when it is told to.
#[derive(Clone, Default)]
struct Held {
    started: Arc<Notify>,
    released: Arc<Notify>,
    calls: Arc<AtomicUsize>,
}

impl Held {
    fn cache(&self) -> TokenCache {
        let held = self.clone();
        TokenCache::new(source_fn(move |_| {
            let held = held.clone();
            async move {
                held.calls.fetch_add(1, Ordering::SeqCst);
                held.started.notify_one();
                held.released.notified().await;
                Token::new("abc")
            }
        }))
    }
}

#[tokio::test]
async fn a_dropped_caller_does_not_abort_the_refresh() {
    for entrance in ENTRANCES {
        let api = TestServer::new(|_| ok("served")).await;
        let source = Held::default();
        let auth = BearerAuthLayer::from(source.cache());
        let (sending, request) = (auth.clone(), get(&api));
        let sending = tokio::spawn(async move { entrance.send(&sending, request).await });
        source.started.notified().await;
        sending.abort();
        assert!(sending.await.unwrap_err().is_cancelled());
        source.released.notify_one();
        entrance.send(&auth, get(&api)).await.unwrap();
        assert_eq!(api.tokens(), ["abc"], "{entrance:?}");
        assert_eq!(source.calls.load(Ordering::SeqCst), 1, "{entrance:?}");
    }
}

#[tokio::test]
async fn a_hundred_callers_at_once_cost_one_refresh() {
    for entrance in ENTRANCES {
        let api = TestServer::rejecting_token_1().await;
        let source = Numbered::default();
        let auth = BearerAuthLayer::new(source.clone());
        let mut callers = JoinSet::new();
        let client = client();
        for _ in 0..100 {
            let request = client.post(api.url("/")).body("an order");
            let auth = auth.clone();
            callers.spawn(async move { entrance.send(&auth, request).await.unwrap().status() });
        }
        let statuses = callers.join_all().await;
        assert!(
            statuses.iter().all(|it| *it == StatusCode::OK),
            "{entrance:?}"
        );
        assert_eq!(
            source.calls(),
            2,
            "{entrance:?}: the first one, and one refresh"
        );
    }
}

#[tokio::test]
async fn a_response_keeps_its_url() {
    for entrance in [Entrance::Tower, Entrance::SendWith, Entrance::Middleware] {
        let api = TestServer::rejecting_token_1().await;
        let url = api.url("/orders?id=1");
        let auth = BearerAuthLayer::new(Numbered::default());
        let response = entrance.send(&auth, client().get(&url)).await.unwrap();
        assert_eq!(response.url().as_str(), url, "{entrance:?}");
    }
}

#[tokio::test]
async fn the_timeout_of_a_request_limits_each_attempt() {
    for entrance in [Entrance::Tower, Entrance::SendWith, Entrance::Middleware] {
        let served = testing::serve(tower::service_fn(
            async |request: Request<hyper::body::Incoming>| {
                if request.headers()["authorization"] == "Bearer token-1" {
                    return Ok::<_, BoxError>(invalid_token());
                }
                std::future::pending().await
            },
        ))
        .await
        .unwrap();
        let auth = BearerAuthLayer::new(Numbered::default());
        let request = client()
            .get(served.url())
            .timeout(Duration::from_millis(300));
        let error = entrance.send(&auth, request).await.unwrap_err();
        let mut cause: &(dyn Error + 'static) = &*error;
        let is_timeout = loop {
            if let Some(error) = cause.downcast_ref::<::reqwest::Error>() {
                break error.is_timeout();
            }
            if let Some(error) = cause.downcast_ref::<reqwest_middleware::Error>() {
                break error.is_timeout();
            }
            cause = cause.source().expect("an error of reqwest");
        };
        assert!(is_timeout, "{entrance:?}: {error}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// In a chain of middlewares.

/// Records the tokens of the requests that pass, and counts the requests in the extensions.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<Vec<Passed>>>);

/// How many have been counted before, and the token.
type Passed = (usize, Option<String>);

#[derive(Clone, Copy)]
struct Counted(usize);

impl Middleware for Counts {
    fn handle<'s, 'e, 'n, 'f>(
        &'s self,
        request: ::reqwest::Request,
        extensions: &'e mut Extensions,
        next: Next<'n>,
    ) -> std::pin::Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'f>>
    where
        's: 'f,
        'e: 'f,
        'n: 'f,
    {
        Box::pin(async move {
            let Counted(before) = extensions.get().copied().unwrap_or(Counted(0));
            extensions.insert(Counted(before + 1));
            let token = request.headers().get("authorization");
            let token = token.map(|token| token.to_str().unwrap().to_owned());
            self.0.lock().unwrap().push((before, token));
            next.run(request, extensions).await
        })
    }
}

#[tokio::test]
async fn middlewares_below_see_each_attempt_and_those_above_see_one_request() {
    let api = TestServer::rejecting_token_1().await;
    let (above, below) = (Counts::default(), Counts::default());
    let client = ClientBuilder::new(client())
        .with(above.clone())
        .with(BearerAuthLayer::new(Numbered::default()))
        .with(below.clone())
        .build();
    let mut extensions = Extensions::new();
    let request = client.post(api.url("/")).body("an order").build().unwrap();
    let response = client
        .execute_with_extensions(request, &mut extensions)
        .await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert_eq!(*above.0.lock().unwrap(), [(0, None)]);
    let token = |number| Some(format!("Bearer token-{number}"));
    assert_eq!(*below.0.lock().unwrap(), [(1, token(1)), (2, token(2))]);
    let Counted(last) = extensions.get().copied().unwrap();
    assert_eq!(last, 3, "what a middleware below left reaches the caller");
}

#[tokio::test]
async fn a_dropped_request_leaves_the_extensions_to_the_caller() {
    let api = TestServer::new(|_| ok("served")).await;
    let source = Held::default();
    let client = ClientBuilder::new(client())
        .with(BearerAuthLayer::from(source.cache()))
        .build();
    let mut extensions = Extensions::new();
    extensions.insert(Counted(7));
    let request = client.get(api.url("/")).build().unwrap();
    let sending = client.execute_with_extensions(request, &mut extensions);
    tokio::select! {
        _ = sending => panic!("there is no token yet"),
        () = source.started.notified() => {}
    }
    assert!(extensions.get::<Counted>().is_some());
}

#[tokio::test]
async fn an_opt_out_is_kept_when_a_middleware_above_drops_a_request_and_sends_it_again() {
    let held = Arc::new(Notify::new());
    let entered = Arc::new(Notify::new());
    let (wait, tell) = (held.clone(), entered.clone());
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let log = tokens.clone();
    let served = testing::serve(tower::service_fn(
        move |request: Request<hyper::body::Incoming>| {
            let (wait, tell, log) = (wait.clone(), tell.clone(), log.clone());
            async move {
                let token = request.headers().get("authorization").cloned();
                log.lock().unwrap().push(token);
                tell.notify_one();
                wait.notified().await;
                Ok::<_, BoxError>(ok("served"))
            }
        },
    ))
    .await
    .unwrap();
    let client = ClientBuilder::new(client())
        .with(BearerAuthLayer::new(Numbered::default()))
        .build();
    let mut extensions = Extensions::new();
    extensions.insert(WithoutToken);
    let request = client.get(served.url()).build().unwrap();
    let again = request.try_clone().unwrap();
    tokio::select! {
        _ = client.execute_with_extensions(request, &mut extensions) => panic!("it is held"),
        () = entered.notified() => {}
    }
    held.notify_waiters();
    let sending = client.execute_with_extensions(again, &mut extensions);
    let release = async {
        entered.notified().await;
        held.notify_one();
    };
    let (response, ()) = tokio::join!(sending, release);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert_eq!(*tokens.lock().unwrap(), [None, None]);
}

/// Answers requests without sending them, as mocks do.
struct Mock;

impl Middleware for Mock {
    fn handle<'s, 'e, 'n, 'f>(
        &'s self,
        request: ::reqwest::Request,
        _: &'e mut Extensions,
        _: Next<'n>,
    ) -> std::pin::Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'f>>
    where
        's: 'f,
        'e: 'f,
        'n: 'f,
    {
        let is_new = request.headers()["authorization"] == "Bearer token-2";
        let status = if is_new { 200 } else { 401 };
        let response = http::Response::builder().status(status).body("").unwrap();
        Box::pin(async { Ok(response.into()) })
    }
}

#[tokio::test]
async fn the_response_of_a_mock_without_a_url_rejects_a_token() {
    let client: ClientWithMiddleware = ClientBuilder::new(client())
        .with(BearerAuthLayer::new(Numbered::default()))
        .with(Mock)
        .build();
    let response = client.get("https://api.example.com/").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn each_request_has_the_token_of_its_key() {
    let api = TestServer::rejecting_token_1().await;
    let sessions = Sessions::new(|user: String| async move {
        Ok(TokenCache::new(source_fn(move |_| {
            let token = format!("of-{user}");
            async move { Token::new(token) }
        })))
    });
    let client = ClientBuilder::new(client())
        .with(BearerAuthLayer::keyed(sessions))
        .build();
    for user in ["ada", "grace"] {
        let request = client.get(api.url("/"));
        let request = request.with_extension(SessionKey(user.to_owned()));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(api.tokens(), ["of-ada", "of-grace"]);
    let error = client.get(api.url("/")).send().await.unwrap_err();
    assert_eq!(failure(Err(error.into())).kind(), TokenErrorKind::Config);
}

#[tokio::test]
async fn one_session_serves_all_ways_in() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    let tokens = testing::serve(server.clone()).await.unwrap();
    let served_api = testing::serve(api.clone()).await.unwrap();
    let oauth = OAuthClient::new(tokens.url() + &server.token_path())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    let source = RefreshTokenSource::new(oauth, server.issue_refresh_token());
    let auth = BearerAuthLayer::new(source);
    for entrance in ENTRANCES {
        let request = client().post(served_api.url()).body("an order");
        let response = entrance.send(&auth, request).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "an order", "{entrance:?}");
    }
    assert_eq!((api.accepted(), server.token_requests()), (4, 1));
}
