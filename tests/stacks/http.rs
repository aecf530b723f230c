//! Rejections over real connections, with HTTP/1.1 and HTTP/2: which are recognized, replayed, or returned unchanged.

#[path = "../support/wire.rs"]
mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use support::{
    Frames, Numbered, TestResponse, TestServer, Upload, VERSIONS, bytes, client, invalid_token, ok,
    reason, respond, text,
};
use tokio::{sync::Notify, time::timeout};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_bearer::{
    BearerAuthLayer, OAuthClient, Origins, RefreshTokenSource, RejectOnTrailersLayer, ReplayBody,
    TokenCache, TokenError, TokenErrorKind,
    provider::Xoxoday,
    testing::{AuthorizationServer, Dialect, Fault, RejectionResponse, serve},
};
use tower_http::follow_redirect::FollowRedirectLayer;

fn full(text: &'static str) -> Full<Bytes> {
    Full::from(text)
}

fn get(url: String) -> Request<Full<Bytes>> {
    Request::get(url).body(full("")).unwrap()
}

fn post(url: String, text: &'static str) -> Request<Full<Bytes>> {
    Request::post(url).body(full(text)).unwrap()
}

#[tokio::test]
async fn a_replay_is_the_same_request_over_the_same_connection() {
    for http2 in VERSIONS {
        let upstream = TestServer::rejecting_token_1().await;
        let service = BearerAuthLayer::new(Numbered::default()).layer(client(http2));
        let request = Request::put(upstream.url("/orders?id=1"))
            .header("x-many", "one")
            .header("x-many", "two")
            .body(full("a bicycle"));
        let response = service.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(reason(&response), None);
        assert_eq!(text(response).await, "a bicycle");

        assert_eq!(upstream.tokens(), ["token-1", "token-2"]);
        for seen in upstream.seen() {
            assert_eq!(seen.method, Method::PUT);
            assert_eq!(seen.version == Version::HTTP_2, http2);
            assert_eq!(seen.headers["content-length"], "9");
            assert!(!seen.headers.contains_key("transfer-encoding"));
            let many: Vec<_> = seen.headers.get_all("x-many").iter().collect();
            assert_eq!(many, ["one", "two"]);
            assert_eq!(seen.headers.get_all("authorization").iter().count(), 1);
            assert_eq!(seen.body, "a bicycle");
        }
        assert_eq!(upstream.served.connections(), 1, "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn a_rejection_with_a_body_does_not_close_the_connection() {
    // 32 KiB in pieces: more than what arrives together with the head.
    let upstream = TestServer::new(|seen| match seen.token() {
        Some("token-1") => {
            let pieces = (0..8).map(|_| Frame::data(bytes(4096)));
            let mut answer = Response::new(Frames(pieces.collect()).boxed_unsync());
            *answer.status_mut() = http::StatusCode::UNAUTHORIZED;
            answer
        }
        _ => ok("served"),
    })
    .await;
    let service = BearerAuthLayer::new(Numbered::default()).layer(client(false));
    let response = service.oneshot(get(upstream.url("/"))).await.unwrap();
    assert_eq!(text(response).await, "served");
    assert_eq!(upstream.served.connections(), 1);
}

/// A server that checks the token after 10 KiB, and does not read the rest of a rejected upload.
struct Early {
    uploads: Mutex<Vec<Bytes>>,
    lengths: Mutex<Vec<Option<HeaderValue>>>,
}

impl Early {
    async fn take(
        &self,
        request: Request<hyper::body::Incoming>,
    ) -> Result<TestResponse, BoxError> {
        let (head, mut body) = request.into_parts();
        let length = head.headers.get("content-length").cloned();
        self.lengths.lock().unwrap().push(length);
        let mut data = Vec::new();
        while data.len() < 10 * 1024
            && let Some(frame) = body.frame().await
        {
            data.extend_from_slice(frame?.data_ref().unwrap());
        }
        if head.headers["authorization"] == "Bearer token-1" {
            return Ok(invalid_token());
        }
        data.extend_from_slice(&body.collect().await?.to_bytes());
        self.uploads.lock().unwrap().push(data.into());
        Ok(ok("stored"))
    }
}

#[tokio::test]
async fn an_upload_that_is_rejected_halfway_arrives_whole_and_once() {
    for (http2, size) in [
        (false, None),
        (false, Some(30 * 1024)),
        (true, None),
        (true, Some(30 * 1024)),
    ] {
        let early = Arc::new(Early {
            uploads: Mutex::default(),
            lengths: Mutex::default(),
        });
        let api = early.clone();
        let served = serve(service_fn(move |request| {
            let api = api.clone();
            async move { api.take(request).await }
        }))
        .await
        .unwrap();

        let whole = bytes(30 * 1024);
        let (sender, upload) = Upload::new(size);
        let rejected = Arc::new(Notify::new());
        let (resume, data) = (rejected.clone(), whole.clone());
        tokio::spawn(async move {
            for at in (0..10 * 1024).step_by(1024) {
                sender.send(data.slice(at..at + 1024)).unwrap();
            }
            // The rest is sent only after the rejection has arrived. Bytes in transit to a server that has
            // closed its side could break an HTTP/1.1 connection before the rejection is read.
            resume.notified().await;
            for at in (10 * 1024..30 * 1024).step_by(1024) {
                sender.send(data.slice(at..at + 1024)).unwrap();
            }
        });
        let transport = client(http2).map_response(move |response| {
            rejected.notify_one();
            response
        });
        let service = BearerAuthLayer::new(Numbered::default()).layer(transport);
        let request = Request::post(served.url()).body(upload).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(text(response).await, "stored");
        assert_eq!(
            *early.uploads.lock().unwrap(),
            [whole],
            "HTTP/2: {http2}, {size:?}"
        );
        let length = size.map(HeaderValue::from);
        assert_eq!(*early.lengths.lock().unwrap(), [length.clone(), length]);
        if http2 {
            assert_eq!(served.connections(), 1, "only the stream is reset");
        }
    }
}

#[tokio::test]
async fn a_conversation_in_which_each_message_waits_for_the_answer_to_the_last_one_is_replayed() {
    let server = serve(service_fn(|request: Request<Incoming>| async move {
        if request.headers()["authorization"] == "Bearer token-1" {
            return Ok::<_, hyper::Error>(invalid_token());
        }
        let (sender, answers) = Upload::new(None);
        tokio::spawn(async move {
            let mut messages = request.into_body();
            while let Some(Ok(frame)) = messages.frame().await {
                let message = frame.into_data().unwrap();
                if !message.is_empty() {
                    sender.send(message).unwrap();
                }
            }
        });
        Ok(Response::new(answers.boxed_unsync()))
    }))
    .await
    .unwrap();
    // With a limit of 10 bytes, the body is no longer kept from the second message on.
    for limit in [10, 1024] {
        let (sender, upload) = Upload::new(None);
        sender.send(Bytes::from("message 0")).unwrap();
        let layer = BearerAuthLayer::new(Numbered::default()).replay_limit(limit);
        let request = Request::post(server.url()).body(upload).unwrap();
        let answer = layer.layer(client(true)).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut answers = answer.into_body();
        for number in 0..5 {
            let answer = timeout(Duration::from_secs(10), answers.frame()).await;
            let answer = answer.expect("no answer").unwrap().unwrap();
            assert_eq!(
                answer.into_data().unwrap(),
                format!("message {number}").as_bytes()
            );
            sender
                .send(format!("message {}", number + 1).into())
                .unwrap();
        }
        drop(sender);
        let rest = timeout(Duration::from_secs(10), answers.collect()).await;
        assert_eq!(rest.expect("no end").unwrap().to_bytes(), "message 5");
    }
}

#[tokio::test]
async fn a_body_of_one_frame_that_does_not_know_its_end_is_sent_with_its_end_over_http2() {
    let frames = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&frames);
    let server = serve(service_fn(move |mut request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(frame) = request.body_mut().frame().await {
                let data = frame?.into_data().unwrap_or_default();
                seen.lock().unwrap().push(data);
            }
            Ok::<_, hyper::Error>(Response::new(full("")))
        }
    }))
    .await
    .unwrap();
    let frame = Ok::<_, Infallible>(Frame::data(Bytes::from("some data")));
    let body = StreamBody::new(tokio_stream::iter([frame]));
    let request = Request::post(server.url()).body(body).unwrap();
    let service = BearerAuthLayer::new(Numbered::default()).layer(client(true));
    service.oneshot(request).await.unwrap();
    // The end alone would be another frame, without data.
    assert_eq!(*frames.lock().unwrap(), ["some data"]);
}

#[tokio::test]
async fn the_trailers_of_a_request_are_replayed() {
    for http2 in VERSIONS {
        let upstream = TestServer::rejecting_token_1().await;
        let trailers =
            HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("42"))]);
        let frames = [
            Frame::data(Bytes::from("some ")),
            Frame::data(Bytes::from("data")),
            Frame::trailers(trailers.clone()),
        ];
        let request = Request::post(upstream.url("/"))
            .header("trailer", "x-sum")
            .body(Frames(VecDeque::from(frames)))
            .unwrap();
        let service = BearerAuthLayer::new(Numbered::default()).layer(client(http2));
        assert_eq!(
            text(service.oneshot(request).await.unwrap()).await,
            "some data"
        );
        let seen = upstream.seen();
        assert_eq!(seen.len(), 2);
        for seen in seen {
            assert_eq!(seen.body, "some data");
            assert_eq!(seen.trailers.as_ref(), Some(&trailers), "HTTP/2: {http2}");
        }
    }
}

#[tokio::test]
async fn if_the_refresh_fails_the_caller_gets_the_rejection() {
    for http2 in VERSIONS {
        let upstream = TestServer::rejecting_token_1().await;
        let source = Numbered::default();
        // The source yields the first token only.
        let cache = TokenCache::new(source.clone());
        cache.token().await.unwrap();
        source.fail(true);
        let service = BearerAuthLayer::from(cache).layer(client(http2));
        let request = post(upstream.url("/"), "an order");
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["x-why"], "expired");
        let error = response.extensions().get::<TokenError>().unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Server);
        assert!(error.to_string().contains("was set to fail"), "{error}");
        assert_eq!(text(response).await, "rejected");
        assert_eq!(upstream.tokens(), ["token-1"]);
    }
}

#[tokio::test]
async fn a_response_that_does_not_reject_the_token_is_not_replayed() {
    let rows: [(u16, &[(&'static str, &'static str)]); 12] = [
        (401, &[("www-authenticate", "DPoP algs=\"ES256\"")]),
        (
            401,
            &[("www-authenticate", "Negotiate, Digest realm=\"x\"")],
        ),
        (
            401,
            &[("www-authenticate", "Bearer error=\"insufficient_scope\"")],
        ),
        (
            401,
            &[
                ("www-authenticate", "Basic"),
                ("www-authenticate", "Bearer error=insufficient_scope"),
            ],
        ),
        (
            403,
            &[("www-authenticate", "Bearer error=\"insufficient_scope\"")],
        ),
        (403, &[]),
        (400, &[]),
        (404, &[]),
        (409, &[]),
        (
            422,
            &[("www-authenticate", "Bearer error=\"invalid_token\"")],
        ),
        (429, &[]),
        (500, &[]),
    ];
    for (status, headers) in rows {
        let upstream = TestServer::new(move |_| respond(status, headers, "no")).await;
        let source = Numbered::default();
        let service = BearerAuthLayer::new(source.clone()).layer(client(false));
        for _ in 0..2 {
            let response = service
                .clone()
                .oneshot(post(upstream.url("/"), "an order"))
                .await
                .unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(reason(&response), None);
            assert_eq!(text(response).await, "no");
        }
        assert_eq!(
            upstream.tokens(),
            ["token-1", "token-1"],
            "{status} {headers:?}"
        );
        assert_eq!(source.calls(), 1, "{status} {headers:?}");
    }
}

#[tokio::test]
async fn a_401_without_a_bearer_challenge_is_replayed_once() {
    let rows: [&[(&'static str, &'static str)]; 4] = [
        &[],
        &[("www-authenticate", "Basic realm=\"x\"")],
        &[("www-authenticate", "Token")],
        &[("www-authenticate", "JWT realm=\"api\"")],
    ];
    for (http2, headers) in VERSIONS.into_iter().flat_map(|v| rows.map(|row| (v, row))) {
        let upstream = TestServer::new(move |_| respond(401, headers, "no")).await;
        let service = BearerAuthLayer::new(Numbered::default()).layer(client(http2));
        for _ in 0..5 {
            let request = get(upstream.url("/"));
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 401);
            assert_eq!(reason(&response), Some(TokenErrorKind::Rejected));
            assert_eq!(text(response).await, "no");
        }
        // Two tokens were rejected at once, so the next refresh is held back.
        let tokens = upstream.tokens();
        let first = ["token-1", "token-2"];
        assert_eq!(tokens[..2], first, "{headers:?}");
        assert!(!tokens.contains(&"token-4".to_owned()), "{tokens:?}");
    }
}

#[tokio::test]
async fn a_bearer_challenge_among_others_in_several_lines_is_found() {
    let upstream = TestServer::new(|seen| match seen.token() {
        Some("token-1") => {
            let lines = [
                (
                    "www-authenticate",
                    "Negotiate abc==, Basic realm=\"a, Bearer\"",
                ),
                ("www-authenticate", "Bearer realm=\"b\""),
                ("www-authenticate", "error=\"invalid_token\""),
            ];
            respond(401, &lines, "")
        }
        _ => ok("served"),
    })
    .await;
    let service = BearerAuthLayer::new(Numbered::default()).layer(client(false));
    assert_eq!(
        text(service.oneshot(get(upstream.url("/"))).await.unwrap()).await,
        "served"
    );
    assert_eq!(upstream.tokens(), ["token-1", "token-2"]);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_replayed_and_the_next_request_has_a_new_token() {
    for (http2, limit, size) in [
        (false, None, 64 * 1024 + 1),
        (true, None, 64 * 1024 + 1),
        (false, Some(0), 1),
    ] {
        let upstream = TestServer::rejecting_token_1().await;
        let mut layer = BearerAuthLayer::new(Numbered::default());
        if let Some(limit) = limit {
            layer = layer.replay_limit(limit);
        }
        let service = layer.layer(client(http2));
        let whole = bytes(size);
        let request = || {
            Request::post(upstream.url("/"))
                .body(Full::new(whole.clone()))
                .unwrap()
        };
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(reason(&response), Some(TokenErrorKind::NotReplayed));
        assert_eq!(response.headers()["x-why"], "expired");
        assert_eq!(text(response).await, "rejected");

        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(upstream.tokens(), ["token-1", "token-2"]);
        assert!(upstream.seen().iter().all(|seen| seen.body == whole));
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_replayed() {
    let upstream = TestServer::rejecting_token_1().await;
    let service = BearerAuthLayer::new(Numbered::default()).layer(client(true));
    let request = Request::post(upstream.url("/"))
        .body(Full::new(bytes(64 * 1024)))
        .unwrap();
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(upstream.tokens(), ["token-1", "token-2"]);
}

#[tokio::test]
async fn with_a_replay_limit_of_0_requests_without_a_body_are_replayed() {
    let upstream = TestServer::rejecting_token_1().await;
    let layer = BearerAuthLayer::new(Numbered::default()).replay_limit(0);
    let response = layer
        .layer(client(false))
        .oneshot(get(upstream.url("/")))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn replay_only_idempotent_replays_only_idempotent_methods() {
    for (method, replayed) in [
        (Method::GET, true),
        (Method::HEAD, true),
        (Method::PUT, true),
        (Method::DELETE, true),
        (Method::POST, false),
        (Method::PATCH, false),
    ] {
        let upstream = TestServer::rejecting_token_1().await;
        let layer = BearerAuthLayer::new(Numbered::default()).replay_only_idempotent(true);
        let service = layer.layer(client(false));
        let request = || {
            Request::builder()
                .method(&method)
                .uri(upstream.url("/"))
                .body(full(""))
                .unwrap()
        };
        let response = service.clone().oneshot(request()).await.unwrap();
        let expected = if replayed {
            (200, None)
        } else {
            (401, Some(TokenErrorKind::NotReplayed))
        };
        assert_eq!(
            (response.status().as_u16(), reason(&response)),
            expected,
            "{method}"
        );
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(
            response.status(),
            200,
            "the next request has a new token: {method}"
        );
    }
}

#[tokio::test]
async fn the_callers_own_authorization_is_never_replaced() {
    let upstream = TestServer::new(|_| invalid_token()).await;
    let source = Numbered::default();
    let service = BearerAuthLayer::new(source.clone()).layer(client(false));
    for own in ["Basic bWU6aHVzaA==", "Bearer my-own", ""] {
        let mut request = get(upstream.url("/"));
        request
            .headers_mut()
            .insert("authorization", HeaderValue::from_static(own));
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(reason(&response), None);
        assert_eq!(
            upstream.seen().last().unwrap().headers["authorization"],
            own
        );
    }
    assert_eq!((upstream.seen().len(), source.calls()), (3, 0));
}

#[tokio::test]
async fn requests_to_other_origins_have_no_token_and_are_not_replayed() {
    let (ours, other) = (
        TestServer::rejecting_token_1().await,
        TestServer::rejecting_token_1().await,
    );
    let source = Numbered::default();
    let layer =
        BearerAuthLayer::new(source.clone()).origins(Origins::only([ours.url("")]).unwrap());
    let service = layer.layer(client(false));
    let response = service
        .clone()
        .oneshot(post(other.url("/"), "an order"))
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), reason(&response)), (401, None));
    assert_eq!((other.tokens(), source.calls()), (vec![String::new()], 0));

    let response = service
        .oneshot(post(ours.url("/"), "an order"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(ours.tokens(), ["token-1", "token-2"]);
}

#[tokio::test]
async fn a_redirect_to_another_origin_has_no_token() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = TestServer::new(|_| ok("here")).await;
        let location = elsewhere.url("/target");
        let ours = TestServer::new(move |seen| {
            if seen.token() == Some("token-1") {
                return invalid_token();
            }
            let mut response = respond(status, &[], "");
            response
                .headers_mut()
                .insert("location", location.parse().unwrap());
            response
        })
        .await;
        let origins = Origins::only([ours.url("")]).unwrap();
        let service = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(BearerAuthLayer::new(Numbered::default()).origins(origins))
            .service(client(false));
        let response = service.oneshot(get(ours.url("/"))).await.unwrap();
        assert_eq!(text(response).await, "here");
        assert_eq!(ours.tokens(), ["token-1", "token-2"]);
        let seen = elsewhere.seen();
        assert_eq!(seen.len(), 1);
        assert!(!seen[0].headers.contains_key("authorization"), "{status}");
    }
}

#[tokio::test]
async fn a_redirect_of_the_token_endpoint_is_not_followed() {
    for status in [302, 307, 308] {
        let elsewhere = TestServer::new(|_| ok(r#"{"access_token":"stolen"}"#)).await;
        let server = AuthorizationServer::new(Dialect::TwoBa).public_client("app");
        server.fault_always(Fault::Redirect {
            status: status.try_into().unwrap(),
            location: elsewhere.url("/token").parse().unwrap(),
        });
        let tokens = serve(server.clone()).await.unwrap();
        let endpoint = OAuthClient::new(tokens.url() + "/OAuth/Token").unwrap();
        let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
        let api = TestServer::new(|_| ok("served")).await;
        let service = BearerAuthLayer::new(source).layer(client(false));
        let error = service.oneshot(get(api.url("/"))).await.unwrap_err();
        let error = error.downcast_ref::<TokenError>().unwrap();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{status}");
        assert_eq!(server.token_requests(), 1);
        assert_eq!(
            (elsewhere.served.connections(), api.served.connections()),
            (0, 0)
        );
    }
}

#[tokio::test]
async fn a_rejection_of_xoxoday_with_status_200_is_replayed() {
    for http2 in VERSIONS {
        let server = AuthorizationServer::new(Dialect::Xoxoday);
        let api = server
            .api()
            .rejection_response(RejectionResponse::XoxodayTokenError);
        let upstream = serve(api.clone()).await.unwrap();
        let source = Xoxoday::new(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
            server.issue_refresh_token(),
        )
        .origins(Origins::only([upstream.url()]).unwrap())
        .schedule(Xoxoday::default_schedule().min_interval(std::time::Duration::ZERO))
        .build_with(server.clone())
        .unwrap();
        let service = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source))
            .layer(Xoxoday::inspect())
            .service(client(http2));
        let order = || {
            Request::post(upstream.url() + "/placeOrder")
                .header("content-type", "application/json")
                .body(full(r#"{"voucher":7}"#))
                .unwrap()
        };
        let response = service.clone().oneshot(order()).await.unwrap();
        assert_eq!(text(response).await, r#"{"voucher":7}"#);
        server.revoke_access_tokens();
        let response = service.clone().oneshot(order()).await.unwrap();
        assert_eq!(text(response).await, r#"{"voucher":7}"#);
        assert_eq!(
            (api.accepted(), api.rejected(), server.refreshes()),
            (2, 1, 2)
        );
        assert_eq!(upstream.connections(), 1);
    }
}

#[tokio::test]
async fn errors_and_rate_limits_of_xoxoday_cause_no_refresh() {
    let rows: [(u16, &'static str); 9] = [
        (400, r#"{"success":0,"error_message_id":"order.invalid"}"#),
        (404, r#"{"success":0,"error_message_id":"voucher.unknown"}"#),
        (409, r#"{"error":"duplicate"}"#),
        (422, r#"{"success":0,"data":{"error":"invalid_token"}}"#),
        (
            200,
            r#"{"success":1,"note":"auth.token_error and invalid_token are codes"}"#,
        ),
        (
            200,
            r#"{"errors":[{"message":"auth.request_limit_exceeded","penaltySeconds":60}]}"#,
        ),
        (401, r#"{"message":"auth.request_limit_exceeded"}"#),
        (401, "{\nmessage:'auth.request_limit_exceeded'\n}"),
        (500, r#"{"error":"invalid_token"}"#),
    ];
    for (status, body) in rows {
        let upstream = TestServer::new(move |_| {
            respond(status, &[("content-type", "application/json")], body)
        })
        .await;
        let source = Numbered::default();
        let service = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source.clone()))
            .layer(Xoxoday::inspect())
            .service(client(false));
        let response = service
            .oneshot(post(upstream.url("/placeOrder"), "an order"))
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), reason(&response)),
            (status, None)
        );
        assert_eq!(text(response).await, body);
        assert_eq!(
            (upstream.seen().len(), source.calls()),
            (1, 1),
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn a_long_body_is_the_same_after_the_inspection() {
    let upstream = TestServer::new(|_| {
        let pieces = (0..64).map(|_| Frame::data(bytes(1000)));
        let trailers =
            HeaderMap::from_iter([("x-end".parse().unwrap(), HeaderValue::from_static("yes"))]);
        let frames = pieces.chain([Frame::trailers(trailers)]);
        let mut response = Response::new(Frames(frames.collect()).boxed_unsync());
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/json"));
        response
    })
    .await;
    let service = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(Numbered::default()))
        .layer(Xoxoday::inspect())
        .service(client(true));
    let response = service.oneshot(get(upstream.url("/"))).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-end"], "yes");
    assert_eq!(body.to_bytes(), bytes(1000).repeat(64));
}

#[tokio::test]
async fn a_grpc_rejection_in_the_headers_is_replayed() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server
        .api()
        .rejection_response(RejectionResponse::GrpcUnauthenticated);
    let upstream = serve(api.clone()).await.unwrap();
    let live = server.issue_access_token();
    let source = tower_bearer::source_fn(move |request| {
        let token = if request.rejected_token().is_some() {
            live.clone()
        } else {
            String::from("stale")
        };
        async move { tower_bearer::Token::new(token) }
    });
    let cache = TokenCache::builder(source)
        .schedule(tower_bearer::Schedule::default().min_interval(std::time::Duration::ZERO))
        .build();
    let service = BearerAuthLayer::from(cache).layer(client(true));
    let request = Request::post(upstream.url() + "/prices.Prices/Get")
        .header("content-type", "application/grpc")
        .body(full("a message"))
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "a message");
    assert_eq!((api.accepted(), api.rejected()), (1, 1));
}

#[tokio::test]
async fn after_a_grpc_rejection_in_the_trailers_the_next_call_has_a_new_token() {
    let upstream = TestServer::new(|seen| {
        let code = if seen.token() == Some("token-1") {
            "16"
        } else {
            "0"
        };
        let trailers = HeaderMap::from_iter([(
            "grpc-status".parse().unwrap(),
            HeaderValue::from_static(code),
        )]);
        let frames = [
            Frame::data(Bytes::from("a message")),
            Frame::trailers(trailers),
        ];
        let mut response = Response::new(Frames(VecDeque::from(frames)).boxed_unsync());
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        response
    })
    .await;
    let source = Numbered::default();
    let cache = TokenCache::new(source.clone());
    let service = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache.clone()))
        .layer(RejectOnTrailersLayer::new(cache.clone()))
        .service(client(true));
    let mut codes = Vec::new();
    // Two streams are open with the first token. The second one is rejected late.
    let early = service
        .clone()
        .oneshot(get(upstream.url("/")))
        .await
        .unwrap();
    let late = service
        .clone()
        .oneshot(get(upstream.url("/")))
        .await
        .unwrap();
    let mut read =
        async |response: Response<tower_bearer::RejectOnTrailersBody<hyper::body::Incoming>>| {
            let body = response.into_body().collect().await.unwrap();
            codes.push(body.trailers().unwrap()["grpc-status"].clone());
            assert_eq!(
                body.to_bytes(),
                "a message",
                "the messages reach the caller"
            );
        };
    read(early).await;
    read(
        service
            .clone()
            .oneshot(get(upstream.url("/")))
            .await
            .unwrap(),
    )
    .await;
    read(late).await;
    read(service.oneshot(get(upstream.url("/"))).await.unwrap()).await;
    assert_eq!(codes, ["16", "0", "16", "0"]);
    assert_eq!(
        upstream.tokens(),
        ["token-1", "token-1", "token-2", "token-2"]
    );
    assert_eq!((source.calls(), cache.status().rejected), (2, 1));
}

#[tokio::test]
async fn an_upload_that_exceeds_the_limit_during_its_rejection_is_not_replayed() {
    // The server rejects after 10 KiB but reads on, so the first attempt exceeds the replay limit.
    let rejected = Arc::new(Notify::new());
    let read = Arc::new(Notify::new());
    let (api_rejected, api_read) = (rejected.clone(), read.clone());
    let served = serve(service_fn(
        move |request: Request<hyper::body::Incoming>| {
            let (rejected, read) = (api_rejected.clone(), api_read.clone());
            async move {
                let mut body = request.into_body();
                let mut size = 0;
                while let Some(frame) = body.frame().await {
                    size += frame?.data_ref().unwrap().len();
                    if size == 10 * 1024 {
                        rejected.notify_one();
                    }
                    if size == 100 * 1024 {
                        read.notify_one();
                        break;
                    }
                }
                Ok::<_, BoxError>(invalid_token())
            }
        },
    ))
    .await
    .unwrap();
    let (sender, upload) = Upload::new(None);
    tokio::spawn(async move {
        sender.send(bytes(10 * 1024)).unwrap();
        rejected.notified().await;
        sender.send(bytes(90 * 1024)).unwrap();
        read.notified().await;
    });
    let service = BearerAuthLayer::new(Numbered::default()).layer(client(true));
    let request = Request::post(served.url()).body(upload).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(reason(&response), Some(TokenErrorKind::NotReplayed));
    assert_eq!(text(response).await, "rejected");
}

#[tokio::test]
async fn a_connection_error_is_returned_and_not_replayed() {
    let served = serve(service_fn(|_: Request<hyper::body::Incoming>| async {
        Err::<Response<Full<Bytes>>, BoxError>("the service fails".into())
    }))
    .await
    .unwrap();
    let source = Numbered::default();
    let service = BearerAuthLayer::new(source.clone()).layer(client(false));
    let error = service
        .oneshot(post(served.url(), "an order"))
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<TokenError>().is_none(), "{error}");
    assert_eq!((served.connections(), source.calls()), (1, 1));
}

#[tokio::test]
async fn requests_with_relative_uris_get_the_token() {
    // This is how gRPC clients work: the connection has the origin, the request only the path.
    let upstream = TestServer::rejecting_token_1().await;
    let origin = upstream.url("");
    let connected = client::<Full<Bytes>>(true).map_request(
        move |mut request: Request<ReplayBody<Full<Bytes>>>| {
            let uri = format!("{origin}{}", request.uri());
            *request.uri_mut() = uri.parse().unwrap();
            request
        },
    );
    let layer = BearerAuthLayer::new(Numbered::default())
        .origins(Origins::only(["https://api.example"]).unwrap());
    let response = layer
        .layer(connected)
        .oneshot(post("/prices.Prices/Get".into(), "x"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(upstream.tokens(), ["token-1", "token-2"]);
}

#[tokio::test]
async fn plain_http_to_another_host_is_an_error_and_sends_nothing() {
    let inner = service_fn(
        async |_: Request<ReplayBody<Full<Bytes>>>| -> Result<Response<Full<Bytes>>, Infallible> {
            panic!("something was sent")
        },
    );
    let source = Numbered::default();
    let service = BearerAuthLayer::new(source.clone()).layer(inner);
    let error = service
        .oneshot(get("http://api.example/".into()))
        .await
        .unwrap_err();
    let error = error.downcast_ref::<TokenError>().unwrap();
    assert_eq!(
        (error.kind(), source.calls()),
        (TokenErrorKind::InsecureOrigin, 0)
    );
}
