use super::*;

#[tokio::test]
async fn the_api_rejects_with_the_chosen_response() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    for (rejection_response, status, name, value) in [
        (
            RejectionResponse::InvalidToken,
            401,
            "www-authenticate",
            "invalid_token",
        ),
        (RejectionResponse::Unauthorized, 401, "", ""),
        (
            RejectionResponse::InsufficientScope,
            403,
            "www-authenticate",
            "insufficient_scope",
        ),
        (RejectionResponse::Forbidden, 403, "", ""),
        (
            RejectionResponse::GrpcUnauthenticated,
            200,
            "grpc-status",
            "16",
        ),
        (
            RejectionResponse::XoxodayTokenError,
            200,
            "content-type",
            JSON,
        ),
    ] {
        let api = server.api().rejection_response(rejection_response);
        let response = api.clone().oneshot(call("at-none")).await.unwrap();
        assert_eq!(response.status(), status, "{rejection_response:?}");
        let header = response.headers().get(name);
        let header = header.map_or("", |it| it.to_str().unwrap());
        assert!(header.contains(value), "{rejection_response:?}: {header}");
        assert_eq!(
            header.is_empty(),
            value.is_empty(),
            "{rejection_response:?}"
        );
        let body = text(response).await;
        assert_eq!(
            body.is_empty(),
            rejection_response != RejectionResponse::XoxodayTokenError
        );
    }
}

#[tokio::test]
async fn without_a_token_the_challenge_has_no_error() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let token = server.issue_access_token();
    let bare = |value: Option<&str>| {
        let mut request = call("x");
        request.headers_mut().remove(header::AUTHORIZATION);
        value.into_iter().fold(request, with_authorization)
    };
    for value in [None, Some("Basic eA=="), Some(&*format!("bearer {token}"))] {
        let response = server.api().oneshot(bare(value)).await.unwrap();
        assert_eq!(response.status(), 401, "{value:?}");
        let challenge = &response.headers()[header::WWW_AUTHENTICATE];
        assert_eq!(challenge, r#"Bearer realm="api""#);
    }
    let mut twice = call(&token);
    let value = format!("Bearer {token}").parse().unwrap();
    twice.headers_mut().append(header::AUTHORIZATION, value);
    assert_eq!(server.api().oneshot(twice).await.unwrap().status(), 401);
}

#[tokio::test]
async fn an_accepted_grpc_request_ends_with_a_trailer() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server
        .api()
        .rejection_response(RejectionResponse::GrpcUnauthenticated);
    let response = api
        .oneshot(call(&server.issue_access_token()))
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn valid_tokens_can_be_rejected() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let (api, token) = (server.api(), server.issue_access_token());
    api.reject_next(2);
    for expected in [401, 401, 200] {
        assert_eq!(call_status(&api, &token).await, expected);
    }
    api.reject_all(true);
    assert_eq!(call_status(&api, &token).await, 401);
    api.reject_all(false);
    assert_eq!(call_status(&api, &token).await, 200);
    assert_eq!((api.received(), api.accepted(), api.rejected()), (5, 2, 3));
}

#[tokio::test]
async fn a_held_request_is_checked_after_its_release() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let (api, token) = (server.api(), server.issue_access_token());
    api.hold();
    let calls: Vec<_> = (0..100)
        .map(|_| tokio::spawn(api.clone().oneshot(call(&token))))
        .collect();
    api.wait_for_held(100).await;
    assert_eq!(
        (api.received(), api.accepted(), api.rejected()),
        (100, 0, 0)
    );
    server.revoke_access_tokens();
    api.release();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 401);
    }
    assert_eq!(call_status(&api, &server.issue_access_token()).await, 200);
}

#[tokio::test]
async fn a_dropped_request_is_no_longer_held() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    api.hold();
    let dropped = tokio::spawn(api.clone().oneshot(call("at-none")));
    api.wait_for_held(1).await;
    dropped.abort();
    assert!(dropped.await.is_err());
    let two = tokio::time::timeout(Duration::from_millis(1), api.wait_for_held(1));
    assert!(two.await.is_err());
}

#[tokio::test]
async fn the_hook_runs_before_the_token_check() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let hook_server = server.clone();
    let paths = Arc::new(Mutex::new(Vec::new()));
    let hook_paths = paths.clone();
    let api = server.api().on_request(move |request| {
        hook_server.revoke_access_tokens();
        hook_paths
            .lock()
            .unwrap()
            .push(request.uri.path().to_owned());
    });
    let token = server.issue_access_token();
    assert_eq!(call_status(&api, &token).await, 401);
    assert_eq!(*paths.lock().unwrap(), ["/things"]);
}

#[tokio::test(start_paused = true)]
async fn the_delay_comes_before_the_token_check() {
    let server = AuthorizationServer::new(Dialect::Rfc6749).access_lifetime(Duration::from_secs(5));
    let api = server.api().delay(Duration::from_secs(5));
    let token = server.issue_access_token();
    let start = Instant::now();
    // The token expires during the delay.
    assert_eq!(call_status(&api, &token).await, 401);
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn an_early_rejection_does_not_read_the_rest_of_the_body() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api().reject_early(1_000);
    let upload = |token: &str| {
        let read = Arc::new(Mutex::new(0));
        let counted = read.clone();
        let frames = (0..100).map(move |_| {
            *counted.lock().unwrap() += 1;
            Ok(Frame::data(Bytes::from_static(&[b'x'; 100])))
        });
        (call(token).map(|_| Frames(frames)), read)
    };
    let (request, read) = upload("at-none");
    let response = api.clone().oneshot(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), *read.lock().unwrap()),
        (401, 10)
    );

    let (request, _) = upload(&server.issue_access_token());
    let response = api.oneshot(request).await.unwrap();
    assert_eq!(text(response).await, "x".repeat(10_000));
}

/// A body of the frames of an iterator.
struct Frames<I>(I);

impl<I> Body for Frames<I>
where
    I: Iterator<Item = std::io::Result<Frame<Bytes>>> + Unpin,
{
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.get_mut().0.next())
    }
}

#[tokio::test]
async fn an_error_of_the_request_body_is_an_error_of_the_service() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let broken = || {
        let cut = Err(std::io::Error::other("cut"));
        Frames(std::iter::once(cut))
    };
    assert!(
        server
            .clone()
            .oneshot(call("x").map(|_| broken()))
            .await
            .is_err()
    );
    assert!(
        server
            .api()
            .oneshot(call("x").map(|_| broken()))
            .await
            .is_err()
    );
    assert_eq!(server.token_requests(), 0);
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let server = AuthorizationServer::new(Dialect::Winbooks);
    let token = server.issue_refresh_token();
    send(&server, refresh(Dialect::Winbooks, &token)).await;
    let api = server.api();
    call_status(&api, &token).await;
    let debug = format!(
        "{server:?} {api:?} {:?} {:?}",
        server.requests(),
        api.requests()
    );
    for secret in [
        &token,
        "rt-1",
        &basic(AuthorizationServer::EMAIL)[6..],
        "Bearer ",
    ] {
        assert!(!debug.contains(secret), "{debug}");
    }
}

#[test]
fn servers_work_without_a_runtime_and_on_many_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    shared(&server);
    shared(&server.api());
    assert!(server.is_live(&server.issue_access_token()));
}
