use super::*;

#[tokio::test]
async fn the_api_rejects_in_the_way_it_was_told() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    for (rejection, status, name, value) in [
        (
            Rejection::Challenge,
            401,
            "www-authenticate",
            "invalid_token",
        ),
        (Rejection::Bare, 401, "", ""),
        (
            Rejection::InsufficientScope,
            403,
            "www-authenticate",
            "insufficient_scope",
        ),
        (Rejection::Forbidden, 403, "", ""),
        (Rejection::Grpc, 200, "grpc-status", "16"),
        (Rejection::TokenError, 200, "content-type", JSON),
    ] {
        let api = server.api().rejection(rejection);
        let response = api.clone().oneshot(call("at-none")).await.unwrap();
        assert_eq!(response.status(), status, "{rejection:?}");
        let header = response.headers().get(name);
        let header = header.map_or("", |it| it.to_str().unwrap());
        assert!(header.contains(value), "{rejection:?}: {header}");
        assert_eq!(header.is_empty(), value.is_empty(), "{rejection:?}");
        let body = text(response).await;
        assert_eq!(body.is_empty(), rejection != Rejection::TokenError);
    }
}

#[tokio::test]
async fn without_a_token_the_challenge_names_no_error() {
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
async fn grpc_ends_in_its_trailer() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api().rejection(Rejection::Grpc);
    let response = api
        .oneshot(call(&server.issue_access_token()))
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn good_tokens_can_be_rejected_all_the_same() {
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
async fn held_requests_see_what_happens_meanwhile() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let (api, token) = (server.api(), server.issue_access_token());
    api.hold();
    let calls: Vec<_> = (0..100)
        .map(|_| tokio::spawn(api.clone().oneshot(call(&token))))
        .collect();
    api.parked(100).await;
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
async fn a_client_that_leaves_is_parked_no_more() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let api = server.api();
    api.hold();
    let leaving = tokio::spawn(api.clone().oneshot(call("at-none")));
    api.parked(1).await;
    leaving.abort();
    assert!(leaving.await.is_err());
    let two = tokio::time::timeout(Duration::from_millis(1), api.parked(1));
    assert!(two.await.is_err());
}

#[tokio::test]
async fn the_hook_comes_before_the_look_at_the_token() {
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    let hooked = server.clone();
    let paths = Arc::new(Mutex::new(Vec::new()));
    let noted = paths.clone();
    let api = server.api().on_request(move |request| {
        hooked.revoke_access_tokens();
        noted.lock().unwrap().push(request.uri.path().to_owned());
    });
    let token = server.issue_access_token();
    assert_eq!(call_status(&api, &token).await, 401);
    assert_eq!(*paths.lock().unwrap(), ["/things"]);
}

#[tokio::test(start_paused = true)]
async fn the_api_takes_its_time() {
    let server = AuthorizationServer::new(Dialect::Rfc6749).access_lifetime(Duration::from_secs(5));
    let api = server.api().delay(Duration::from_secs(5));
    let token = server.issue_access_token();
    let begun = Instant::now();
    // the token expires while it thinks
    assert_eq!(call_status(&api, &token).await, 401);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn an_early_rejection_leaves_the_rest_of_the_body_unread() {
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

/// A body of the frames that an iterator makes.
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
async fn a_body_that_breaks_breaks_the_answer() {
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
    let shown = format!(
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
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn servers_are_made_outside_a_runtime_and_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let server = AuthorizationServer::new(Dialect::Rfc6749);
    shared(&server);
    shared(&server.api());
    assert!(server.is_live(&server.issue_access_token()));
}
