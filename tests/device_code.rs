//! Logins with a device code: begin, show the codes, poll until the end.
#![cfg(all(feature = "login", feature = "testing"))]

mod support;

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use serde_json::{Value, json};
use support::{FullRequest, assert_hides};
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{ServiceExt, service_fn};
use tower_bearer::{
    ClientAuth, MemoryStore, OAuthClient, RefreshTokenSource, StoreLease, TokenCache, TokenError,
    TokenErrorKind, TokenStore,
    login::{DeviceCode, PendingDeviceLogin},
    testing::{AuthorizationServer, Dialect, Fault, SimulatedClock},
};

const ISSUER: &str = "https://login.example.com";

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .issuer(ISSUER)
        .public_client("my-tv")
}

fn client(server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::discover_with_transport(ISSUER, server.clone())
        .unwrap()
        .client_auth(ClientAuth::none("my-tv"))
}

/// When the token endpoint was asked, in seconds since the beginning.
#[derive(Clone)]
struct Polls {
    start: Instant,
    seconds: Arc<Mutex<Vec<u64>>>,
}

impl Polls {
    /// A client of `server`, and when it asks.
    fn of(server: &AuthorizationServer) -> (OAuthClient, Self) {
        let polls = Self {
            start: Instant::now(),
            seconds: Arc::default(),
        };
        let (server, log) = (server.clone(), polls.clone());
        let transport = service_fn(move |request: FullRequest| {
            if request.uri().path() == "/token" {
                let at = log.start.elapsed();
                assert_eq!(at, Duration::from_secs(at.as_secs()), "not a whole second");
                log.seconds.lock().unwrap().push(at.as_secs());
            }
            server.clone().oneshot(request)
        });
        let client = OAuthClient::discover_with_transport(ISSUER, transport)
            .unwrap()
            .client_auth(ClientAuth::none("my-tv"));
        (client, polls)
    }

    fn seconds(&self) -> Vec<u64> {
        self.seconds.lock().unwrap().clone()
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_secs()
    }
}

/// Nothing of the login may be shown.
fn assert_hides_codes(error: &TokenError, server: &AuthorizationServer) {
    let requests = server.requests();
    let sent = requests.iter().filter_map(|it| it.param("device_code"));
    let mut secrets: Vec<_> = sent.collect();
    secrets.push("hunter2");
    assert_hides(error, &secrets);
}

fn answer(status: u16, code: &str) -> Fault {
    let body = json!({ "error": code }).to_string();
    Fault::raw(
        StatusCode::from_u16(status).unwrap(),
        "application/json",
        body,
    )
}

fn pending() -> Fault {
    Fault::error("authorization_pending")
}

fn pending_for(retry_after: &str) -> Fault {
    let body = Bytes::from_static(br#"{"error":"authorization_pending"}"#);
    let response = Response::builder().status(400);
    let response = response
        .header("content-type", "application/json")
        .header("retry-after", retry_after);
    Fault::Raw(response.body(body).unwrap())
}

fn redirect() -> Fault {
    Fault::Redirect {
        status: StatusCode::TEMPORARY_REDIRECT,
        location: Uri::from_static("https://portal.example.com/"),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn each_answer_decides_when_the_server_is_asked_next() {
    let unavailable = |retry_after| Fault::Unavailable {
        retry_after: seconds(retry_after),
    };
    let limited = |retry_after| Fault::TooManyRequests {
        retry_after: seconds(retry_after),
    };
    let slow_down = || Fault::error("slow_down");
    let html = |status| Fault::Html(StatusCode::from_u16(status).unwrap());
    let status = |status| Fault::Status(StatusCode::from_u16(status).unwrap());
    for (what, answers, expected) in [
        ("nothing", vec![], &[5][..]),
        ("pending", vec![pending(), pending()], &[5, 10, 15]),
        ("slow down", vec![slow_down()], &[5, 15]),
        (
            "for good",
            vec![slow_down(), pending(), pending()],
            &[5, 15, 25, 35],
        ),
        (
            "more",
            vec![slow_down(), slow_down(), pending()],
            &[5, 15, 30, 45],
        ),
        (
            "slow down, 503",
            vec![slow_down(), status(503), pending()],
            &[5, 15, 35, 45],
        ),
        (
            "Google's pending",
            vec![answer(428, "authorization_pending")],
            &[5, 10],
        ),
        (
            "Google's slow down",
            vec![answer(403, "slow_down")],
            &[5, 15],
        ),
        (
            "slow down as 429",
            vec![answer(429, "slow_down"), pending()],
            &[5, 15, 25],
        ),
        (
            "GitHub's pending",
            vec![answer(200, "authorization_pending")],
            &[5, 10],
        ),
        (
            "pending, wait",
            vec![pending_for("20"), pending()],
            &[5, 25, 30],
        ),
        ("pending, a short wait", vec![pending_for("1")], &[5, 10]),
        ("500", vec![status(500)], &[5, 15]),
        ("503 twice", vec![status(503), status(503)], &[5, 15, 35]),
        (
            "503 on and on",
            vec![status(503); 5],
            &[5, 15, 35, 75, 135, 195],
        ),
        (
            "503, pending",
            vec![status(503), pending(), status(503)],
            &[5, 15, 20, 30],
        ),
        ("503, wait", vec![unavailable(30), pending()], &[5, 35, 40]),
        ("503, a short wait", vec![unavailable(2)], &[5, 15]),
        ("429", vec![status(429)], &[5, 15]),
        ("429, wait", vec![limited(45)], &[5, 50]),
        (
            "busy",
            vec![Fault::error("temporarily_unavailable")],
            &[5, 15],
        ),
        ("a gateway's 502", vec![html(502)], &[5, 15]),
        ("a gateway's 403", vec![html(403)], &[5, 15]),
        ("a gateway's 404", vec![html(404)], &[5, 15]),
        ("a gateway's 401", vec![html(401)], &[5, 15]),
        ("a portal's 200", vec![html(200)], &[5, 15]),
        ("a portal's redirect", vec![redirect()], &[5, 15]),
        ("no connection", vec![Fault::DropBeforeCommit], &[5, 15]),
        // 30 seconds until the client gives up.
        ("no answer", vec![Fault::NeverAnswers], &[5, 45]),
    ] {
        let server = server();
        let (client, polls) = Polls::of(&server);
        let login = DeviceCode::new(client);
        let mut pending = login.begin().await.unwrap();
        assert!(server.approve_device(pending.user_code()));
        for answer in answers {
            server.fault(answer);
        }
        let session = login.finish(&mut pending).await;
        assert!(session.is_ok(), "{what}: {:?}", session.err());
        assert_eq!(polls.seconds(), expected, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_interval_is_the_one_of_the_response_within_limits() {
    for (interval, expected) in [
        (json!(7), [7, 14]),
        (json!("7"), [7, 14]),
        (json!(null), [5, 10]),
        (json!("soon"), [5, 10]),
        (json!(0), [1, 2]),
        (json!(-3), [1, 2]),
        (json!(0.5), [1, 2]),
        (json!(5000), [60, 120]),
    ] {
        let server = server().device_interval(Duration::ZERO);
        server.device_authorization_fault(Fault::member("interval", interval.clone()));
        let (client, polls) = Polls::of(&server);
        let login = DeviceCode::new(client);
        let mut login_pending = login.begin().await.unwrap();
        server.approve_device(login_pending.user_code());
        server.fault(pending());
        login.finish(&mut login_pending).await.unwrap();
        assert_eq!(polls.seconds(), expected, "{interval}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_who_takes_their_time_gets_a_session() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client).scope("invoices:read");
    let mut pending = login.begin().await.unwrap();
    assert_eq!(
        pending.verification_uri_complete(),
        Some(&*format!(
            "{ISSUER}/device?user_code={}",
            pending.user_code()
        ))
    );
    let (person, code) = (server.clone(), pending.user_code().to_owned());
    tokio::spawn(async move {
        sleep(Duration::from_millis(12_500)).await;
        assert!(person.approve_device(&code));
    });
    login.finish(&mut pending).await.unwrap();
    assert_eq!(polls.seconds(), [5, 10, 15]);
    assert_eq!(
        (server.device_authorizations(), server.device_grants()),
        (1, 1)
    );
    assert_eq!(server.rejected(), 2, "and never too fast");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_an_expiry_and_a_lost_code_are_told_apart() {
    use TokenErrorKind::{
        Config, InvalidClient, InvalidRequest, LoginDenied, ReauthRequired, Timeout,
    };

    for (fault, kind, code, words) in [
        (
            Fault::error("access_denied"),
            LoginDenied,
            Some("access_denied"),
            "denied the access",
        ),
        (
            Fault::error("authorization_declined"),
            LoginDenied,
            Some("authorization_declined"),
            "denied the access",
        ),
        (
            Fault::error("expired_token"),
            Timeout,
            Some("expired_token"),
            "begin another login",
        ),
        (
            Fault::error("invalid_grant"),
            ReauthRequired,
            Some("invalid_grant"),
            "was used or revoked",
        ),
        (
            Fault::error("invalid_client"),
            InvalidClient,
            Some("invalid_client"),
            "`ClientAuth`",
        ),
        (
            Fault::error("unauthorized_client"),
            InvalidRequest,
            Some("unauthorized_client"),
            "check",
        ),
        (
            Fault::error("unsupported_grant_type"),
            InvalidRequest,
            Some("unsupported_grant_type"),
            "check",
        ),
        (Fault::member("token_type", "DPoP"), Config, None, "DPoP"),
    ] {
        let server = server();
        let (client, polls) = Polls::of(&server);
        let login = DeviceCode::new(client);
        let mut pending = login.begin().await.unwrap();
        server.approve_device(pending.user_code());
        server.fault(fault);
        let error = login.finish(&mut pending).await.unwrap_err();
        assert_eq!((error.kind(), error.oauth_code()), (kind, code), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_hides_codes(&error, &server);
        assert_eq!(polls.seconds(), [5], "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_who_refuses_ends_the_login() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client);
    let mut pending = login.begin().await.unwrap();
    assert!(server.deny_device(pending.user_code()));
    let error = login.finish(&mut pending).await.unwrap_err();
    assert_eq!(error.oauth_code(), Some("access_denied"));
    assert_eq!(error.kind(), TokenErrorKind::LoginDenied);
    assert!(!error.is_final() && !error.is_transient());
    assert_eq!(polls.seconds(), [5]);
}

#[tokio::test(start_paused = true)]
async fn the_code_expires_by_the_clock_of_this_machine() {
    let server = server().device_lifetime(seconds(12));
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client);
    let mut pending = login.begin().await.unwrap();
    let error = login.finish(&mut pending).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert_eq!(error.oauth_code(), None);
    assert!(error.source().is_none());
    assert_eq!((polls.seconds(), polls.now()), (vec![5, 10], 12));
    assert!(login.finish(&mut pending).await.is_err(), "and stays so");
    assert_eq!((polls.seconds(), polls.now()), (vec![5, 10], 12));
}

#[tokio::test(start_paused = true)]
async fn a_code_of_unknown_lifetime_expires_after_ten_minutes() {
    let server = server();
    server.device_authorization_fault(Fault::member("expires_in", Value::Null));
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client);
    let mut login_pending = login.begin().await.unwrap();
    server.fault_always(pending());
    login.finish(&mut login_pending).await.unwrap_err();
    assert_eq!((polls.seconds().len(), polls.now()), (119, 600));
}

#[tokio::test(start_paused = true)]
async fn the_code_expires_while_the_machine_is_suspended() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let clock = SimulatedClock::new(SystemTime::now());
    let login = DeviceCode::new(client).clock(clock.clone());
    let mut pending = login.begin().await.unwrap();
    assert_eq!(pending.expires_at(), clock.now() + seconds(600));
    tokio::spawn(async move {
        sleep(seconds(7)).await;
        clock.step(600);
    });
    let error = login.finish(&mut pending).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert_eq!((polls.seconds(), polls.now()), (vec![5], 10));
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_notices_the_expiry_during_a_long_wait() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let clock = SimulatedClock::new(SystemTime::now());
    let login = DeviceCode::new(client).clock(clock.clone());
    let mut pending = login.begin().await.unwrap();
    server.fault(Fault::Unavailable {
        retry_after: seconds(500),
    });
    tokio::spawn(async move {
        sleep(seconds(70)).await;
        clock.step(600);
    });
    login.finish(&mut pending).await.unwrap_err();
    assert_eq!((polls.seconds(), polls.now()), (vec![5], 125));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_is_the_source_of_the_expiry() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client);
    let mut pending = login.begin().await.unwrap();
    server.fault_always(Fault::Unavailable {
        retry_after: seconds(3600),
    });
    let error = login.finish(&mut pending).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    let source = error.source().unwrap().downcast_ref::<TokenError>();
    assert_eq!(source.unwrap().kind(), TokenErrorKind::Server);
    assert_eq!((polls.seconds(), polls.now()), (vec![5], 600));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_with_the_tokens_is_named_as_the_cause() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client);
    let mut pending = login.begin().await.unwrap();
    server.approve_device(pending.user_code());
    server.fault(Fault::DropReplyAfterCommit);
    let error = login.finish(&mut pending).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
    assert_eq!(error.oauth_code(), Some("invalid_grant"));
    assert!(error.to_string().contains("answer was lost"), "{error}");
    assert!(error.source().is_some());
    assert_hides_codes(&error, &server);
    assert_eq!(polls.seconds(), [5, 15]);
}

#[tokio::test(start_paused = true)]
async fn another_process_goes_on_with_a_stored_login() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client.clone());
    let mut pending = login.begin().await.unwrap();
    server.fault(Fault::error("slow_down"));
    let process = login.finish(&mut pending);
    assert!(timeout(seconds(8), process).await.is_err(), "it ends here");
    let kept = serde_json::to_string(&pending).unwrap();
    drop((login, pending));

    let mut pending: PendingDeviceLogin = serde_json::from_str(&kept).unwrap();
    server.approve_device(pending.user_code());
    DeviceCode::new(client).finish(&mut pending).await.unwrap();
    // An interval after the start, and the longer one.
    assert_eq!(polls.seconds(), [5, 18]);
}

#[tokio::test(start_paused = true)]
async fn a_stored_login_that_was_damaged_is_not_read() {
    let server = server();
    let pending = DeviceCode::new(client(&server)).begin().await.unwrap();
    let kept = serde_json::to_value(&pending).unwrap();
    let duration = |secs: u64| json!({ "secs": secs, "nanos": 0 });
    for (path, value) in [
        ("/pace/interval", duration(0)),
        ("/pace/interval", duration(3601)),
        ("/pace/interval", duration(u64::MAX)),
        ("/lifetime", duration(u64::MAX)),
        ("/expires_at/secs_since_epoch", json!(u64::MAX)),
        ("/device_code", json!("")),
        ("/user_code", json!("hunter2\u{1b}[2J")),
        ("/verification_uri", json!("javascript:hunter2")),
        ("/verification_uri", json!("http://login.example.com/")),
        (
            "/verification_uri",
            json!("https://login.example.com/\u{7}"),
        ),
        ("/verification_uri_complete", json!("file:///hunter2")),
    ] {
        let mut damaged = kept.clone();
        *damaged.pointer_mut(path).unwrap() = value.clone();
        let error = serde_json::from_value::<PendingDeviceLogin>(damaged).unwrap_err();
        let error = error.to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(!error.contains(char::is_control), "{path}: {error:?}");
    }
    drop(serde_json::from_value::<PendingDeviceLogin>(kept).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_stored_login_that_has_expired_sends_nothing() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let clock = SimulatedClock::new(SystemTime::now());
    let login = DeviceCode::new(client).clock(clock.clone());
    let pending = login.begin().await.unwrap();
    let kept = serde_json::to_string(&pending).unwrap();
    let resumed = || serde_json::from_str::<PendingDeviceLogin>(&kept).unwrap();
    advance(seconds(597)).await;
    login.finish(&mut resumed()).await.unwrap_err();
    assert_eq!((polls.seconds(), polls.now()), (vec![], 600));
    login.finish(&mut resumed()).await.unwrap_err();
    assert_eq!((polls.seconds(), polls.now()), (vec![], 600));

    // A clock that was set back gives it no more than its lifetime.
    clock.step(-86_400 * 365);
    server.fault_always(self::pending());
    login.finish(&mut resumed()).await.unwrap_err();
    assert_eq!(polls.now(), 1200);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_between_two_requests_changes_nothing() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client);
    let mut pending = login.begin().await.unwrap();
    server.fault(Fault::error("slow_down"));
    server.fault(self::pending());
    server.approve_device(pending.user_code());
    let session = loop {
        let finish = login.finish(&mut pending);
        if let Ok(session) = timeout(Duration::from_millis(1300), finish).await {
            break session;
        }
    };
    session.unwrap();
    assert_eq!(polls.seconds(), [5, 15, 25]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_during_a_request_loses_no_answer() {
    let server = server();
    let (client, polls) = Polls::of(&server);
    let login = DeviceCode::new(client);
    let mut pending = login.begin().await.unwrap();
    server.approve_device(pending.user_code());
    server.fault(Fault::Delay(seconds(3)));
    assert!(
        timeout(seconds(6), login.finish(&mut pending))
            .await
            .is_err()
    );
    sleep(seconds(60)).await;
    login.finish(&mut pending).await.unwrap();
    assert_eq!((polls.seconds(), server.device_grants()), (vec![5], 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_terminal_obeys_is_not_shown() {
    for (name, value) in [
        ("user_code", "WDJB\u{1b}[2J"),
        ("user_code", "WDJB\u{9b}2J"),
        ("user_code", "WD\nJB"),
        (
            "verification_uri",
            "https://login.example.com/\u{1b}]0;hunter2\u{7}",
        ),
        ("verification_uri", "http://login.example.com/device"),
        ("verification_uri", "javascript:alert(1)"),
        (
            "verification_uri_complete",
            "https://login.example.com/\rhunter2",
        ),
    ] {
        let server = server();
        server.device_authorization_fault(Fault::member(name, value));
        let error = DeviceCode::new(client(&server)).begin().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        let text = error.to_string();
        assert!(text.contains(&format!("`{name}`")), "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
        assert_hides(&error, &["hunter2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_cannot_begin_says_why() {
    use TokenErrorKind::{
        InvalidClient, InvalidRequest, InvalidResponse, RateLimited, Server, Transport,
    };

    let html = |status| Fault::Html(StatusCode::from_u16(status).unwrap());
    for (fault, kind, words) in [
        (html(404), InvalidResponse, "check the URL"),
        (html(200), InvalidResponse, "without `device_code`"),
        (html(502), Server, "begin again later"),
        (
            Fault::Status(StatusCode::TOO_MANY_REQUESTS),
            RateLimited,
            "begin again later",
        ),
        (Fault::DropBeforeCommit, Transport, "device authorization"),
        (
            Fault::member("device_code", Value::Null),
            InvalidResponse,
            "without `device_code`",
        ),
        (
            Fault::member("user_code", ""),
            InvalidResponse,
            "without `device_code`",
        ),
        (
            Fault::member("verification_uri", 1),
            InvalidResponse,
            "without `device_code`",
        ),
        (
            Fault::error("invalid_client"),
            InvalidClient,
            "`ClientAuth`",
        ),
        (
            Fault::error("unauthorized_client"),
            InvalidRequest,
            "register the client",
        ),
        (Fault::error("invalid_scope"), InvalidRequest, "scope"),
        (
            Fault::error("invalid_grant"),
            InvalidRequest,
            "check the client",
        ),
        (
            answer(200, "device_flow_disabled"),
            InvalidRequest,
            "check the client",
        ),
    ] {
        let server = server();
        server.device_authorization_fault(fault.clone());
        let error = DeviceCode::new(client(&server)).begin().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{fault:?}: {error}");
        assert!(!error.to_string().contains("token endpoint"), "{error}");
        assert_eq!(server.device_authorization_requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_endpoint_and_a_reserved_parameter_are_configuration_errors() {
    let server = server().metadata_member("device_authorization_endpoint", Value::Null);
    let login = DeviceCode::new(client(&server));
    let error = login.begin().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(
        error
            .to_string()
            .contains("`OAuthClient::device_authorization_url`"),
        "{error}"
    );

    for name in [
        "client_id",
        "client_secret",
        "device_code",
        "grant_type",
        "scope",
    ] {
        let login = login.clone().parameter(name, "hunter2");
        let error = login.begin().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config);
        assert!(error.to_string().contains(name), "{error}");
        assert_hides(&error, &["hunter2"]);
    }
    assert_eq!(server.device_authorization_requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_login_without_a_client_id_sends_nothing() {
    let server = server();
    let anonymous = OAuthClient::discover_with_transport(ISSUER, server.clone()).unwrap();
    let error = DeviceCode::new(anonymous.clone())
        .begin()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(error.to_string().contains("client id"), "{error}");
    assert_eq!(server.device_authorization_requests(), 0);

    let named = anonymous.parameter("client_id", "my-tv");
    drop(DeviceCode::new(named).begin().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_requests_have_what_the_server_needs() {
    let server = AuthorizationServer::new(Dialect::Rfc6749).client("my-tv", "s3cr3t");
    let client = OAuthClient::with_transport(format!("{ISSUER}/token"), server.clone())
        .unwrap()
        .device_authorization_url(format!("{ISSUER}/device_authorization"))
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic("my-tv", "s3cr3t"))
        .parameter("audience", "https://api.example.com");
    let login = DeviceCode::new(client)
        .scope("invoices:read")
        .scope("invoices:write")
        .resource("https://api.example.com/invoices")
        .parameter("acr_values", "high");
    let mut pending = login.begin().await.unwrap();
    server.approve_device(pending.user_code());
    login.finish(&mut pending).await.unwrap();

    let requests = server.requests();
    let sent = |at: usize| {
        let mut sent = requests[at].params.clone();
        sent.sort();
        sent
    };
    let owned = |pairs: &[(&str, &str)]| -> Vec<_> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    };
    let authorization = owned(&[
        ("acr_values", "high"),
        ("audience", "https://api.example.com"),
        ("resource", "https://api.example.com/invoices"),
        ("scope", "invoices:read invoices:write"),
    ]);
    assert_eq!(sent(0), authorization);
    let grant_type = "urn:ietf:params:oauth:grant-type:device_code";
    assert_eq!(requests[1].param("grant_type"), Some(grant_type));
    assert_eq!(
        requests[1].param("resource"),
        Some("https://api.example.com/invoices")
    );
    assert_eq!(requests[1].param("scope"), None);
    for request in &requests {
        assert!(request.headers.contains_key("authorization"));
    }
}

#[tokio::test(start_paused = true)]
async fn offline_access_is_asked_for_where_the_metadata_name_it() {
    let server = server().metadata_member("scopes_supported", json!(["openid", "offline_access"]));
    let login = DeviceCode::new(client(&server)).scope("openid");
    let _pending = login.begin().await.unwrap();
    let requests = server.requests();
    let scope = requests.last().unwrap().param("scope");
    assert_eq!(scope, Some("openid offline_access"));
}

#[tokio::test(start_paused = true)]
async fn another_client_cannot_finish_the_login() {
    let (server, other) = (server(), server().issuer("https://other.example.com"));
    let mut pending = DeviceCode::new(client(&server)).begin().await.unwrap();
    let client = OAuthClient::discover_with_transport("https://other.example.com", other.clone());
    let client = client.unwrap().client_auth(ClientAuth::none("my-tv"));
    let error = DeviceCode::new(client)
        .finish(&mut pending)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert_eq!(
        other.token_requests(),
        0,
        "the code is not sent to another server"
    );
}

#[tokio::test(start_paused = true)]
async fn debug_shows_no_code() {
    let server = server();
    let login = DeviceCode::new(client(&server)).parameter("login_hint", "hunter2");
    let pending = login.begin().await.unwrap();
    let kept: Value = serde_json::to_value(&pending).unwrap();
    let shown = format!("{pending:?}{pending:#?}{login:?}{login:#?}");
    let device_code = kept["device_code"].as_str().unwrap();
    for secret in [device_code, pending.user_code(), "hunter2"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let text = pending.to_string();
    assert!(text.contains(pending.user_code()) && text.contains(pending.verification_uri()));
    assert!(!text.contains(device_code));
}

#[tokio::test(start_paused = true)]
async fn the_session_is_refreshed_and_survives_in_a_store() {
    let server = server();
    let login = DeviceCode::new(client(&server));
    let mut pending = login.begin().await.unwrap();
    server.approve_device(pending.user_code());
    let session = login.finish(&mut pending).await.unwrap();
    let store = MemoryStore::new();
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &session).await.unwrap();
    lease.release().await;

    for refreshes in 0..3 {
        // A process that is started again.
        let source = RefreshTokenSource::stored(client(&server)).store(store.clone());
        let cache = TokenCache::new(source);
        let token = cache.token().await.unwrap();
        assert_eq!(server.refreshes(), refreshes);
        cache.reject(&token);
        cache.token().await.unwrap();
        cache.close().await.unwrap();
    }
    assert_eq!((server.device_grants(), server.live_sessions()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_login_gives_a_dead_session_of_two_running_processes_new_life() {
    let server = server();
    let store = MemoryStore::new();
    let caches = [(), ()].map(|()| {
        let source = RefreshTokenSource::stored(client(&server)).store(store.clone());
        TokenCache::new(source)
    });
    let login = DeviceCode::new(client(&server));
    for logins in 1..3 {
        for cache in &caches {
            let error = cache.token().await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        }
        let mut pending = login.begin().await.unwrap();
        server.approve_device(pending.user_code());
        let session = login.finish(&mut pending).await.unwrap();
        caches[0].login(session).await.unwrap();
        let token = caches[0].token().await.unwrap();
        // The other process looks at the store at most every 10 seconds.
        sleep(seconds(11)).await;
        caches[1].token().await.ok();
        sleep(seconds(1)).await;
        assert_eq!(caches[1].token().await.unwrap().header(), token.header());
        assert!(server.is_live(token.expose_secret()));
        assert_eq!(server.device_grants(), logins);

        server.revoke_sessions();
        // The access token expires.
        sleep(seconds(900)).await;
    }
}
