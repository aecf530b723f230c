use super::*;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749).public_client("tv")
}

/// The device code and the user code.
async fn begin(server: &AuthorizationServer) -> (String, String) {
    let request = post("/device_authorization", FORM, form(&[("client_id", "tv")]));
    let codes = answer(server, request).await;
    let text = |name: &str| codes[name].as_str().unwrap().to_owned();
    (text("device_code"), text("user_code"))
}

/// The error code, or an empty text if there is a token.
async fn ask(server: &AuthorizationServer, device_code: &str) -> String {
    let body = [
        ("grant_type", GRANT_TYPE),
        ("device_code", device_code),
        ("client_id", "tv"),
    ];
    let answer = answer(server, post("/token", FORM, form(&body))).await;
    answer["error"].as_str().unwrap_or_default().to_owned()
}

async fn wait(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_asks_too_fast_is_slowed_down_for_good() {
    let server = server();
    let (device_code, user_code) = begin(&server).await;
    assert_eq!(ask(&server, &device_code).await, "authorization_pending");
    for (seconds, expected) in [
        (5, "authorization_pending"),
        (4, "slow_down"),
        (9, "slow_down"),
        (14, "slow_down"),
        (20, "authorization_pending"),
        (20, "authorization_pending"),
    ] {
        wait(seconds).await;
        assert_eq!(ask(&server, &device_code).await, expected, "{seconds}");
    }
    assert!(server.approve_device(&user_code));
    assert_eq!(ask(&server, &device_code).await, "slow_down");
    wait(25).await;
    assert_eq!(ask(&server, &device_code).await, "");
    assert_eq!(server.device_grants(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_device_code_is_decided_about_once_and_used_once() {
    let server = server();
    let (first, user_code) = begin(&server).await;
    let (second, other) = begin(&server).await;
    assert_ne!(user_code, other);
    assert!(server.deny_device(&other) && !server.approve_device(&other));
    assert!(server.approve_device(&user_code) && !server.deny_device(&user_code));
    assert_eq!(ask(&server, &second).await, "access_denied");
    assert_eq!(ask(&server, &first).await, "");
    wait(5).await;
    assert_eq!(ask(&server, &first).await, "invalid_grant");
    assert_eq!(ask(&server, "dc-unknown").await, "invalid_grant");
    assert!(!server.approve_device("BCDF-GHJK"));
}

#[tokio::test(start_paused = true)]
async fn a_device_code_expires() {
    let server = server().device_lifetime(Duration::from_secs(30));
    let (device_code, user_code) = begin(&server).await;
    wait(30).await;
    assert!(!server.approve_device(&user_code));
    assert_eq!(ask(&server, &device_code).await, "expired_token");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_user_codes_are_different() {
    let server = server();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1000 {
        assert!(seen.insert(begin(&server).await.1));
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_device_authorization_request_of_the_client_begins_a_login() {
    let server = server();
    let wrong = [
        post(
            "/device_authorization",
            FORM,
            form(&[("client_id", "other")]),
        ),
        post(
            "/device_authorization",
            FORM,
            form(&[("client_id", "tv"), ("grant_type", GRANT_TYPE)]),
        ),
        post(
            "/device_authorization",
            JSON,
            json_object(&[("client_id", "tv")]),
        ),
    ];
    for request in wrong {
        let status = status(&server, request).await;
        assert!((400..500).contains(&status), "{status}");
    }
    let counts = (
        server.device_authorization_requests(),
        server.device_authorizations(),
    );
    assert_eq!((counts, server.rejected()), ((3, 0), 3));
    let other = AuthorizationServer::new(Dialect::TwoBa).public_client("tv");
    let request = post("/device_authorization", FORM, form(&[("client_id", "tv")]));
    assert_eq!(status(&other, request).await, 404);
}

#[tokio::test(start_paused = true)]
async fn a_device_login_has_the_scope_that_it_has_begun_with() {
    let server = server().grant_scopes(["read", "write"]);
    let asks_for = |scope| {
        let body = form(&[("client_id", "tv"), ("scope", scope)]);
        post("/device_authorization", FORM, body)
    };
    let refused = answer(&server, asks_for("read admin")).await;
    assert_eq!(refused["error"], "invalid_scope");

    let codes = answer(&server, asks_for("read")).await;
    assert!(server.approve_device(codes["user_code"].as_str().unwrap()));
    let body = [
        ("grant_type", GRANT_TYPE),
        ("device_code", codes["device_code"].as_str().unwrap()),
        ("client_id", "tv"),
    ];
    let tokens = answer(&server, post("/token", FORM, form(&body))).await;
    assert_eq!(tokens["scope"], "read");

    let body = [
        ("grant_type", "refresh_token"),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
        ("scope", "read write"),
        ("client_id", "tv"),
    ];
    let refused = answer(&server, post("/token", FORM, form(&body))).await;
    assert_eq!(refused["error"], "invalid_scope");
}
