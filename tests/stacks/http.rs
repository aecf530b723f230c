//! Rejections over real connections, HTTP/1.1 and HTTP/2: recognised, replayed, or handed back as they came.

#[path = "../support/wire.rs"]
mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use support::{
    Answer, Frames, Numbered, Site, Upload, VERSIONS, answer, bytes, client, invalid_token, ok,
    reason, text,
};
use tokio::sync::Notify;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_bearer::{
    BearerAuthLayer, OAuthClient, Origins, RefreshTokenSource, RejectOnTrailersLayer, ReplayBody,
    TokenCache, TokenError, TokenErrorKind,
    provider::Xoxoday,
    testing::{AuthorizationServer, Dialect, Fault, Rejection, serve},
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
async fn a_rejected_request_is_sent_again_as_it_was_over_the_same_connection() {
    for http2 in VERSIONS {
        let site = Site::rejecting_the_first().await;
        let service = BearerAuthLayer::new(Numbered::default()).layer(client(http2));
        let request = Request::put(site.url("/orders?id=1"))
            .header("x-many", "one")
            .header("x-many", "two")
            .body(full("a bicycle"));
        let response = service.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(reason(&response), None);
        assert_eq!(text(response).await, "a bicycle");

        assert_eq!(site.tokens(), ["token-1", "token-2"]);
        for seen in site.seen() {
            assert_eq!(seen.method, Method::PUT);
            assert_eq!(seen.version == Version::HTTP_2, http2);
            assert_eq!(seen.headers["content-length"], "9");
            assert!(!seen.headers.contains_key("transfer-encoding"));
            let many: Vec<_> = seen.headers.get_all("x-many").iter().collect();
            assert_eq!(many, ["one", "two"]);
            assert_eq!(seen.headers.get_all("authorization").iter().count(), 1);
            assert_eq!(seen.body, "a bicycle");
        }
        assert_eq!(site.served.connections(), 1, "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn a_rejection_with_a_body_leaves_the_connection_in_use() {
    // 32 KiB in pieces, more than what comes with the head.
    let site = Site::answering(|seen| match seen.token() {
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
    let response = service.oneshot(get(site.url("/"))).await.unwrap();
    assert_eq!(text(response).await, "served");
    assert_eq!(site.served.connections(), 1);
}

/// A server that looks at the token after 10 KiB, and reads no more of what it rejects.
struct Early {
    uploads: Mutex<Vec<Bytes>>,
    lengths: Mutex<Vec<Option<HeaderValue>>>,
}

impl Early {
    async fn take(&self, request: Request<hyper::body::Incoming>) -> Result<Answer, BoxError> {
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
async fn an_upload_rejected_in_its_middle_arrives_whole_and_once() {
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
        let (go_on, data) = (rejected.clone(), whole.clone());
        tokio::spawn(async move {
            for at in (0..10 * 1024).step_by(1024) {
                sender.send(data.slice(at..at + 1024)).unwrap();
            }
            // The rest comes into being only once the rejection is here. Bytes that are on their way to a server that has
            // closed its end could break an HTTP/1.1 connection before the rejection is read.
            go_on.notified().await;
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
async fn trailers_of_a_request_are_sent_again() {
    for http2 in VERSIONS {
        let site = Site::rejecting_the_first().await;
        let trailers =
            HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("42"))]);
        let frames = [
            Frame::data(Bytes::from("some ")),
            Frame::data(Bytes::from("data")),
            Frame::trailers(trailers.clone()),
        ];
        let request = Request::post(site.url("/"))
            .header("trailer", "x-sum")
            .body(Frames(VecDeque::from(frames)))
            .unwrap();
        let service = BearerAuthLayer::new(Numbered::default()).layer(client(http2));
        assert_eq!(
            text(service.oneshot(request).await.unwrap()).await,
            "some data"
        );
        let seen = site.seen();
        assert_eq!(seen.len(), 2);
        for seen in seen {
            assert_eq!(seen.body, "some data");
            assert_eq!(seen.trailers.as_ref(), Some(&trailers), "HTTP/2: {http2}");
        }
    }
}

#[tokio::test]
async fn if_no_token_can_be_had_after_a_rejection_the_caller_gets_the_rejection() {
    for http2 in VERSIONS {
        let site = Site::rejecting_the_first().await;
        let source = Numbered::default();
        // The first token comes, and then no other.
        let cache = TokenCache::new(source.clone());
        cache.token().await.unwrap();
        source.fail(true);
        let service = BearerAuthLayer::from(cache).layer(client(http2));
        let request = post(site.url("/"), "an order");
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["x-why"], "expired");
        let error = response.extensions().get::<TokenError>().unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Server);
        assert!(error.to_string().contains("as ordered"), "{error}");
        assert_eq!(text(response).await, "rejected");
        assert_eq!(site.tokens(), ["token-1"]);
    }
}

#[tokio::test]
async fn what_was_rejected_for_something_else_is_not_sent_again() {
    let rows: [(u16, &[(&'static str, &'static str)]); 12] = [
        (401, &[("www-authenticate", "Basic realm=\"x\"")]),
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
        let site = Site::answering(move |_| answer(status, headers, "no")).await;
        let source = Numbered::default();
        let service = BearerAuthLayer::new(source.clone()).layer(client(false));
        for _ in 0..2 {
            let response = service
                .clone()
                .oneshot(post(site.url("/"), "an order"))
                .await
                .unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(reason(&response), None);
            assert_eq!(text(response).await, "no");
        }
        assert_eq!(
            site.tokens(),
            ["token-1", "token-1"],
            "{status} {headers:?}"
        );
        assert_eq!(source.calls(), 1, "{status} {headers:?}");
    }
}

#[tokio::test]
async fn a_bare_401_is_tried_once() {
    for http2 in VERSIONS {
        let site = Site::answering(|_| answer(401, &[], "no")).await;
        let service = BearerAuthLayer::new(Numbered::default()).layer(client(http2));
        let response = service.oneshot(get(site.url("/"))).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(reason(&response), Some(TokenErrorKind::Rejected));
        assert_eq!(text(response).await, "no");
        assert_eq!(site.tokens(), ["token-1", "token-2"]);
    }
}

#[tokio::test]
async fn a_challenge_among_others_over_several_lines_is_found() {
    let site = Site::answering(|seen| match seen.token() {
        Some("token-1") => {
            let lines = [
                (
                    "www-authenticate",
                    "Negotiate abc==, Basic realm=\"a, Bearer\"",
                ),
                ("www-authenticate", "Bearer realm=\"b\""),
                ("www-authenticate", "error=\"invalid_token\""),
            ];
            answer(401, &lines, "")
        }
        _ => ok("served"),
    })
    .await;
    let service = BearerAuthLayer::new(Numbered::default()).layer(client(false));
    assert_eq!(
        text(service.oneshot(get(site.url("/"))).await.unwrap()).await,
        "served"
    );
    assert_eq!(site.tokens(), ["token-1", "token-2"]);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_rejected_and_the_next_request_has_a_new_token() {
    for (http2, limit, size) in [
        (false, None, 64 * 1024 + 1),
        (true, None, 64 * 1024 + 1),
        (false, Some(0), 1),
    ] {
        let site = Site::rejecting_the_first().await;
        let mut layer = BearerAuthLayer::new(Numbered::default());
        if let Some(limit) = limit {
            layer = layer.replay_limit(limit);
        }
        let service = layer.layer(client(http2));
        let whole = bytes(size);
        let request = || {
            Request::post(site.url("/"))
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
        assert_eq!(site.tokens(), ["token-1", "token-2"]);
        assert!(site.seen().iter().all(|seen| seen.body == whole));
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_sent_again() {
    let site = Site::rejecting_the_first().await;
    let service = BearerAuthLayer::new(Numbered::default()).layer(client(true));
    let request = Request::post(site.url("/"))
        .body(Full::new(bytes(64 * 1024)))
        .unwrap();
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(site.tokens(), ["token-1", "token-2"]);
}

#[tokio::test]
async fn a_limit_of_nothing_still_heals_requests_without_a_body() {
    let site = Site::rejecting_the_first().await;
    let layer = BearerAuthLayer::new(Numbered::default()).replay_limit(0);
    let response = layer
        .layer(client(false))
        .oneshot(get(site.url("/")))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn if_told_so_only_idempotent_methods_are_sent_again() {
    for (method, healed) in [
        (Method::GET, true),
        (Method::HEAD, true),
        (Method::PUT, true),
        (Method::DELETE, true),
        (Method::POST, false),
        (Method::PATCH, false),
    ] {
        let site = Site::rejecting_the_first().await;
        let layer = BearerAuthLayer::new(Numbered::default()).replay_only_idempotent(true);
        let service = layer.layer(client(false));
        let request = || {
            Request::builder()
                .method(&method)
                .uri(site.url("/"))
                .body(full(""))
                .unwrap()
        };
        let response = service.clone().oneshot(request()).await.unwrap();
        let expected = if healed {
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
        assert_eq!(response.status(), 200, "the next has a new token: {method}");
    }
}

#[tokio::test]
async fn an_authorization_of_the_caller_stays_and_is_never_replaced() {
    let site = Site::answering(|_| invalid_token()).await;
    let source = Numbered::default();
    let service = BearerAuthLayer::new(source.clone()).layer(client(false));
    for own in ["Basic bWU6aHVzaA==", "Bearer my-own", ""] {
        let mut request = get(site.url("/"));
        request
            .headers_mut()
            .insert("authorization", HeaderValue::from_static(own));
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(reason(&response), None);
        assert_eq!(site.seen().last().unwrap().headers["authorization"], own);
    }
    assert_eq!((site.seen().len(), source.calls()), (3, 0));
}

#[tokio::test]
async fn what_goes_elsewhere_has_no_token_and_is_never_sent_again() {
    let (ours, other) = (
        Site::rejecting_the_first().await,
        Site::rejecting_the_first().await,
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
async fn a_redirect_to_another_origin_takes_no_token_along() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Site::answering(|_| ok("here")).await;
        let location = elsewhere.url("/landing");
        let ours = Site::answering(move |seen| {
            if seen.token() == Some("token-1") {
                return invalid_token();
            }
            let mut response = answer(status, &[], "");
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
async fn a_redirect_of_the_token_endpoint_re_posts_nothing() {
    for status in [302, 307, 308] {
        let elsewhere = Site::answering(|_| ok(r#"{"access_token":"stolen"}"#)).await;
        let server = AuthorizationServer::new(Dialect::TwoBa).public_client("app");
        server.fault_always(Fault::Redirect {
            status: status.try_into().unwrap(),
            location: elsewhere.url("/token").parse().unwrap(),
        });
        let tokens = serve(server.clone()).await.unwrap();
        let endpoint = OAuthClient::new(tokens.url() + "/OAuth/Token").unwrap();
        let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
        let api = Site::answering(|_| ok("served")).await;
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
async fn xoxoday_rejects_with_200_and_is_understood() {
    for http2 in VERSIONS {
        let server = AuthorizationServer::new(Dialect::Xoxoday);
        let api = server.api().rejection(Rejection::TokenError);
        let site = serve(api.clone()).await.unwrap();
        let source = Xoxoday::new(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
            server.issue_refresh_token(),
        )
        .origins(Origins::only([site.url()]).unwrap())
        .schedule(Xoxoday::default_schedule().min_interval(std::time::Duration::ZERO))
        .build_with(server.clone())
        .unwrap();
        let service = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source))
            .layer(Xoxoday::inspect())
            .service(client(http2));
        let order = || {
            Request::post(site.url() + "/placeOrder")
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
        assert_eq!(site.connections(), 1);
    }
}

#[tokio::test]
async fn business_answers_and_limits_of_xoxoday_refresh_nothing() {
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
        let site =
            Site::answering(move |_| answer(status, &[("content-type", "application/json")], body))
                .await;
        let source = Numbered::default();
        let service = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source.clone()))
            .layer(Xoxoday::inspect())
            .service(client(false));
        let response = service
            .oneshot(post(site.url("/placeOrder"), "an order"))
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), reason(&response)),
            (status, None)
        );
        assert_eq!(text(response).await, body);
        assert_eq!(
            (site.seen().len(), source.calls()),
            (1, 1),
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn a_long_answer_passes_the_inspection_unharmed() {
    let site = Site::answering(|_| {
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
    let response = service.oneshot(get(site.url("/"))).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-end"], "yes");
    assert_eq!(body.to_bytes(), bytes(1000).repeat(64));
}

#[tokio::test]
async fn grpc_rejects_in_the_headers_and_is_healed() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api().rejection(Rejection::Grpc);
    let site = serve(api.clone()).await.unwrap();
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
    let request = Request::post(site.url() + "/prices.Prices/Get")
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
async fn a_grpc_stream_rejected_at_its_end_gives_the_next_call_a_new_token() {
    let site = Site::answering(|seen| {
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
    // Two streams under way with the first token: the second is told late.
    let early = service.clone().oneshot(get(site.url("/"))).await.unwrap();
    let late = service.clone().oneshot(get(site.url("/"))).await.unwrap();
    let mut read =
        async |response: Response<tower_bearer::RejectOnTrailersBody<hyper::body::Incoming>>| {
            let body = response.into_body().collect().await.unwrap();
            codes.push(body.trailers().unwrap()["grpc-status"].clone());
            assert_eq!(
                body.to_bytes(),
                "a message",
                "what was streamed is the caller's"
            );
        };
    read(early).await;
    read(service.clone().oneshot(get(site.url("/"))).await.unwrap()).await;
    read(late).await;
    read(service.oneshot(get(site.url("/"))).await.unwrap()).await;
    assert_eq!(codes, ["16", "0", "16", "0"]);
    assert_eq!(site.tokens(), ["token-1", "token-1", "token-2", "token-2"]);
    assert_eq!((source.calls(), cache.status().rejected), (2, 1));
}

#[tokio::test]
async fn an_upload_that_outgrows_the_limit_while_it_is_rejected_is_handed_back() {
    // The server rejects after 10 KiB but reads on, so that the first attempt goes beyond what is kept.
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
async fn an_error_of_the_connection_is_the_callers_and_nothing_is_sent_again() {
    let served = serve(service_fn(|_: Request<hyper::body::Incoming>| async {
        Err::<Response<Full<Bytes>>, BoxError>("broken, as ordered".into())
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
async fn relative_uris_get_the_token() {
    // As gRPC clients do it: the connection knows where it goes, the request only the path.
    let site = Site::rejecting_the_first().await;
    let origin = site.url("");
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
    assert_eq!(site.tokens(), ["token-1", "token-2"]);
}

#[tokio::test]
async fn plain_http_to_another_machine_is_an_error_and_sends_nothing() {
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
