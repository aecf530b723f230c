use super::*;

async fn faulty(
    fault: Fault,
) -> (
    AuthorizationServer,
    Result<Response<ResponseBody>, tower::BoxError>,
) {
    let server = AuthorizationServer::new(Dialect::TwoBa);
    let token = server.issue_refresh_token();
    server.fault(fault);
    let reply = server
        .clone()
        .oneshot(refresh(Dialect::TwoBa, &token))
        .await;
    (server, reply)
}

#[tokio::test(start_paused = true)]
async fn faults_that_replace_the_response_change_no_token() {
    let elsewhere = Uri::from_static("https://evil.example/token");
    let cases = [
        (Fault::Status(StatusCode::OK), 200, "", ""),
        (Fault::Status(StatusCode::BAD_GATEWAY), 502, "", ""),
        (
            Fault::TooManyRequests {
                retry_after: Duration::from_millis(1_500),
            },
            429,
            "retry-after",
            "2",
        ),
        (
            Fault::Unavailable {
                retry_after: Duration::from_secs(2),
            },
            503,
            "retry-after",
            "2",
        ),
        (Fault::error("invalid_client"), 401, "", ""),
        (
            Fault::error("unsupported_token_type"),
            400,
            "content-type",
            JSON,
        ),
        (
            Fault::Html(StatusCode::OK),
            200,
            "content-type",
            "text/html; charset=utf-8",
        ),
        (
            Fault::Redirect {
                status: StatusCode::TEMPORARY_REDIRECT,
                location: elsewhere,
            },
            307,
            "location",
            "https://evil.example/token",
        ),
        (
            Fault::raw(StatusCode::OK, "text/plain", r#"{"error":"bad"}"#),
            200,
            "content-type",
            "text/plain",
        ),
    ];
    for (fault, status, name, value) in cases {
        let debug = format!("{fault:?}");
        let (server, reply) = faulty(fault).await;
        let response = reply.unwrap();
        assert_eq!(response.status(), status, "{debug}");
        let header = response.headers().get(name);
        assert_eq!(
            header.map_or("", |it| it.to_str().unwrap()),
            value,
            "{debug}"
        );
        assert_eq!((server.token_requests(), server.refreshes()), (1, 0));
    }

    let (server, reply) = faulty(Fault::DropBeforeCommit).await;
    assert!(reply.is_err());
    assert_eq!((server.requests().len(), server.refreshes()), (1, 0));
}

#[tokio::test]
async fn a_reply_dropped_after_the_commit_uses_up_the_refresh_token() {
    let (server, reply) = faulty(Fault::DropReplyAfterCommit).await;
    let error = reply.unwrap_err();
    assert_eq!(
        error.downcast::<std::io::Error>().unwrap().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert_eq!(server.refreshes(), 1);
    let recorded = &server.requests()[0];
    let again = refresh(Dialect::TwoBa, recorded.param("refresh_token").unwrap());
    assert_eq!(status(&server, again).await, 400);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_reply_is_late_but_the_request_is_processed_at_once() {
    let server = AuthorizationServer::new(Dialect::TwoBa);
    let token = server.issue_refresh_token();
    server.fault(Fault::Delay(Duration::from_secs(10)));
    let start = Instant::now();
    let reply = tokio::spawn(server.clone().oneshot(refresh(Dialect::TwoBa, &token)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.refreshes(), 1);
    assert_eq!(reply.await.unwrap().unwrap().status(), 200);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn never_answers_means_never() {
    let hour = Duration::from_secs(3_600);
    let reply = tokio::time::timeout(hour, faulty(Fault::NeverAnswers)).await;
    assert!(reply.is_err());
}

#[tokio::test]
async fn a_huge_body_has_the_given_length_and_does_not_announce_it() {
    let (_, reply) = faulty(Fault::HugeBody(100_000)).await;
    let body = reply.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), None);
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 100_000);

    let (_, reply) = faulty(Fault::HugeBody(u64::MAX)).await;
    let body = http_body_util::Limited::new(reply.unwrap().into_body(), 65_536);
    assert!(body.collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_never_ends() {
    let (_, reply) = faulty(Fault::SlowBody(Duration::from_secs(5))).await;
    let mut body = reply.unwrap().into_body();
    let start = Instant::now();
    for _ in 0..3 {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().len(), 1);
    }
    assert_eq!(start.elapsed(), Duration::from_secs(15));

    let (_, reply) = faulty(Fault::SlowBody(Duration::MAX)).await;
    let mut body = reply.unwrap().into_body();
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, body.frame()).await.is_err());
}

#[tokio::test]
async fn a_fault_can_expire_repeat_or_change_what_is_issued() {
    let server = AuthorizationServer::new(Dialect::TwoBa);
    let token = server.issue_refresh_token();
    let (token, first) = refresh_tokens(&server, Dialect::TwoBa, &token).await;

    server.fault(Fault::SameToken);
    let (token, same) = refresh_tokens(&server, Dialect::TwoBa, &token).await;
    assert_eq!(same, first);

    server.fault(Fault::AlreadyExpired);
    let expired = answer(&server, refresh(Dialect::TwoBa, &token)).await;
    assert_eq!(expired["expires_in"], 0);
    assert!(!server.is_live(expired["access_token"].as_str().unwrap()));

    server.fault(Fault::member("access_token", Value::Null));
    let token = expired["refresh_token"].as_str().unwrap();
    let none = answer(&server, refresh(Dialect::TwoBa, token)).await;
    assert_eq!(none.get("access_token"), None);

    server.fault(Fault::member("token_type", "N_A"));
    let token = none["refresh_token"].as_str().unwrap();
    let n_a = answer(&server, refresh(Dialect::TwoBa, token)).await;
    assert_eq!(
        (&n_a["token_type"], &n_a["expires_in"]),
        (&"N_A".into(), &900.into())
    );
    assert_eq!(server.refreshes(), 5);
}

#[tokio::test]
async fn queued_faults_come_first_in_their_order_and_then_the_permanent_one() {
    let server = AuthorizationServer::new(Dialect::TwoBa);
    server.fault_always(Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    server.fault(Fault::Status(StatusCode::IM_A_TEAPOT));
    server.fault_next(2, &Fault::Status(StatusCode::BAD_GATEWAY));
    let request = || refresh(Dialect::TwoBa, "rt-none");
    for expected in [418, 502, 502, 503, 503] {
        assert_eq!(status(&server, request()).await, expected);
    }
    server.fault_always(None);
    assert_eq!(status(&server, request()).await, 400);
    assert_eq!((server.token_requests(), server.rejected()), (6, 1));
}
