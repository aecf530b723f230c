//! Each preset against its vendor's dialect: the requests to the token endpoint, and the handling of the responses.
//! Only the public API is used.

mod support;

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use serde_json::{Value, json};
use support::{assert_hides, first_error, get, reason, status, two_tokens};
use tower::Layer;
use tower_bearer::{
    BearerAuthLayer, BodyFormat, ExchangeTokenSource, MemoryStore, Origins, RefreshTokenSource,
    ReplayBody, Schedule, TokenCache, TokenContext, TokenError, TokenErrorKind, TokenSource,
    provider::{TwoBa, Winbooks, Xoxoday},
    testing::{AuthorizationServer, Dialect, Fault, RecordedRequest, SimulatedClock},
};

const ID: &str = AuthorizationServer::CLIENT_ID;
const SECRET: &str = AuthorizationServer::CLIENT_SECRET;
const EMAIL: &str = AuthorizationServer::EMAIL;
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
const WINBOOKS: &str = "https://rapi.winbooksonweb.be";

fn form(params: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(params)
        .finish()
}

/// The value of a header, which must be there exactly once.
#[track_caller]
fn header<'a>(request: &'a RecordedRequest, name: &str) -> &'a str {
    let values: Vec<_> = request.headers.get_all(name).iter().collect();
    assert_eq!(values.len(), 1, "{name}");
    values[0].to_str().unwrap()
}

/// Checks method, URL, content type and authorization of a token request.
#[track_caller]
fn assert_request(request: &RecordedRequest, uri: &str, format: &str, authorization: Option<&str>) {
    assert_eq!(request.method, "POST");
    assert_eq!(request.uri, uri);
    assert_eq!(header(request, "content-type"), format);
    assert_eq!(header(request, "accept"), JSON);
    let sent = request
        .headers
        .get(AUTHORIZATION)
        .map(|value| value.to_str().unwrap());
    assert_eq!(sent, authorization);
    // There are no other headers that could identify the client.
    let mut names: Vec<_> = request
        .headers
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    names.sort_unstable();
    let authorization = authorization.map(|_| "authorization");
    let expected: Vec<_> = [Some("accept"), authorization, Some("content-type")]
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(names, expected);
}

// ---------------------------------------------------------------------------------------------------------------------
// Winbooks.

fn winbooks() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Winbooks)
}

fn winbooks_session(server: &AuthorizationServer) -> Winbooks {
    Winbooks::new(WINBOOKS, EMAIL, server.issue_exchange_token())
}

#[tokio::test(start_paused = true)]
async fn winbooks_requests_are_as_documented() {
    let server = winbooks();
    let exchange_token = server.issue_exchange_token();
    let source = Winbooks::new(WINBOOKS, EMAIL, exchange_token.as_str());
    two_tokens(source.build_with(server.clone()).unwrap())
        .await
        .unwrap();

    let [exchange, refresh] = &server.requests()[..] else {
        panic!("an exchange and a refresh: {:?}", server.requests())
    };
    let basic = format!("Basic {}", BASE64_STANDARD.encode("somebody@example.com"));
    for request in [exchange, refresh] {
        let uri = "https://rapi.winbooksonweb.be/OAuth20/Token";
        assert_request(request, uri, FORM, Some(&basic));
    }
    let code = ("code", exchange_token.as_str());
    assert_eq!(
        exchange.body,
        form(&[("grant_type", "exchange_token"), code])
    );
    // The refresh token is sent in `code`, too.
    let names: Vec<_> = refresh
        .params
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["grant_type", "code"]);
    assert_eq!(refresh.param("grant_type"), Some("refresh_token"));
    assert_ne!(refresh.param("code"), Some(exchange_token.as_str()));
    assert_eq!((server.exchanges(), server.refreshes()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn winbooks_requests_have_an_encoded_exchange_token_and_the_e_mail_alone() {
    let server = winbooks();
    server.fault_always(Fault::Status(StatusCode::BAD_GATEWAY));
    let exchange_token = "7jQy/v0HjX+cw+nHtyJs/LfGz==";
    let source = Winbooks::new(WINBOOKS, "tram@example.be", exchange_token);
    let error = first_error(source.build_with(server.clone()).unwrap()).await;
    assert_hides(&error, &[exchange_token, "tram@example.be"]);

    let request = &server.requests()[0];
    assert_eq!(
        request.body,
        "grant_type=exchange_token&code=7jQy%2Fv0HjX%2Bcw%2BnHtyJs%2FLfGz%3D%3D"
    );
    // base64 of "tram@example.be". With a colon at the end the last characters would differ.
    assert_eq!(
        header(request, "authorization"),
        "Basic dHJhbUBleGFtcGxlLmJl"
    );
}

#[tokio::test(start_paused = true)]
async fn the_documented_response_of_winbooks_is_parsed() {
    let server = winbooks();
    // The sample of the vendor's page, with shorter tokens.
    let sample = r#"{"access_token":"gAAAAAA5-ybbpTLnRm6_r8lt1k6-Bs","scope":null,"token_type":"bearer","expires_in":"900",
        "refresh_token":"TGe0!IAAAAE8fYMG6jWY0rbV5Kwz4ApGm-EWAQk"}"#;
    server.fault_next(2, &Fault::raw(StatusCode::OK, JSON, sample));
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let source = winbooks_session(&server)
        .build_with(server.clone())
        .unwrap();
    let cache = TokenCache::builder(source).clock(clock.clone()).build();

    let token = cache.token().await.unwrap();
    assert_eq!(token.header(), "Bearer gAAAAAA5-ybbpTLnRm6_r8lt1k6-Bs");
    assert_eq!(token.scope(), None);
    let lifetime = Duration::from_secs(900);
    assert_eq!(cache.status().expires_at, Some(clock.now() + lifetime));

    tokio::time::advance(lifetime).await;
    cache.token().await.unwrap();
    let refresh = &server.requests()[1];
    assert_eq!(
        refresh.body,
        "grant_type=refresh_token&code=TGe0%21IAAAAE8fYMG6jWY0rbV5Kwz4ApGm-EWAQk"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_of_winbooks_is_replaced_by_the_exchange_token() {
    let server = winbooks();
    let cache = TokenCache::new(
        winbooks_session(&server)
            .build_with(server.clone())
            .unwrap(),
    );
    let first = cache.token().await.unwrap();
    server.revoke_sessions();
    cache.reject(&first);
    cache.token().await.unwrap();
    assert_eq!((server.exchanges(), server.rejected()), (2, 1));

    let second = cache.token().await.unwrap();
    server.revoke_exchange_tokens();
    server.revoke_sessions();
    cache.reject(&second);
    // The rejected token is still returned by `token`, so `refresh` is called to get the error.
    let error = cache.refresh().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
    assert!(
        error.to_string().contains("get a new exchange token"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_winbooks_host_may_have_a_path() {
    for host in [
        "https://prd.winbooksapis.be/wow/v2/",
        "https://prd.winbooksapis.be/wow/v2",
        " https://PRD.winbooksapis.be:443/wow/v2 ",
    ] {
        let server = winbooks().path_prefix("/wow/v2");
        let source = Winbooks::new(host, EMAIL, server.issue_exchange_token());
        let source = source.build_with(server.clone()).unwrap();
        let client = BearerAuthLayer::new(source).layer(server.api());
        // The token is sent to any path of the host.
        let url = "https://prd.winbooksapis.be/wow/v2/app/Customers";
        assert_eq!(status(&client, get(url)).await, 200, "{host}");
        let uri = &server.requests()[0].uri;
        assert_eq!(uri, "https://prd.winbooksapis.be/wow/v2/OAuth20/Token");
    }
}

#[tokio::test(start_paused = true)]
async fn the_refresh_parameter_and_url_of_winbooks_can_be_overridden() {
    let server = winbooks();
    let source = winbooks_session(&server)
        .token_url("https://sandbox.example/login/Token")
        .refresh_parameter("refresh_token")
        .build_with(server.clone())
        .unwrap();
    let answer = r#"{"access_token":"a","refresh_token":"r+1"}"#;
    server.fault_next(2, &Fault::raw(StatusCode::OK, JSON, answer));
    let cache = TokenCache::new(source);
    cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    let [exchange, refresh] = &server.requests()[..] else {
        panic!("{:?}", server.requests())
    };
    assert_eq!(exchange.uri, "https://sandbox.example/login/Token");
    assert_eq!(refresh.body, "grant_type=refresh_token&refresh_token=r%2B1");
}

// ---------------------------------------------------------------------------------------------------------------------
// 2BA.

fn two_ba() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::TwoBa)
}

#[tokio::test(start_paused = true)]
async fn two_ba_requests_are_as_documented_and_use_the_newest_refresh_token() {
    let server = two_ba();
    let first = server.issue_refresh_token();
    let source = TwoBa::new(ID, SECRET, first.as_str());
    two_tokens(source.build_with(server.clone()).unwrap())
        .await
        .unwrap();

    let [once, again] = &server.requests()[..] else {
        panic!("two refreshes: {:?}", server.requests())
    };
    for request in [once, again] {
        assert_request(request, "https://authorize.2ba.nl/OAuth/Token", FORM, None);
        let refresh_token = request.param("refresh_token").unwrap();
        let expected = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", ID),
            ("client_secret", SECRET),
        ]);
        assert_eq!(request.body, expected);
    }
    // The values are encoded, although the vendor's sample does not encode them.
    let body = String::from_utf8(once.body.to_vec()).unwrap();
    assert!(
        body.ends_with("client_id=client%3A1&client_secret=s3cr%2Bt%2F%3D%26%25+%C3%BC"),
        "{body}"
    );
    assert_eq!(once.param("refresh_token"), Some(first.as_str()));
    assert_ne!(again.param("refresh_token"), Some(first.as_str()));
    assert_eq!(server.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn public_clients_of_two_ba_send_only_their_id() {
    let server = two_ba().public_client("app");
    let source = TwoBa::public_client("app", server.issue_refresh_token());
    two_tokens(source.build_with(server.clone()).unwrap())
        .await
        .unwrap();
    for request in server.requests() {
        let names: Vec<_> = request
            .params
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["grant_type", "refresh_token", "client_id"]);
        assert_eq!(request.param("client_id"), Some("app"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_newer_token_url_of_two_ba_works() {
    let server = two_ba();
    let source = TwoBa::new(ID, SECRET, server.issue_refresh_token())
        .token_url("https://authorize.2ba.nl/connect/token")
        .build_with(server.clone())
        .unwrap();
    two_tokens(source).await.unwrap();
    assert_eq!(
        server.requests()[0].uri,
        "https://authorize.2ba.nl/connect/token"
    );
}

#[tokio::test(start_paused = true)]
async fn a_400_of_two_ba_without_a_body_means_that_the_user_must_log_in() {
    let server = two_ba();
    let source = TwoBa::new(ID, SECRET, server.issue_refresh_token());
    let source = source.build_with(server.clone()).unwrap();
    server.fault(Fault::Status(StatusCode::BAD_REQUEST));
    let error = first_error(source).await;
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
    assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
    assert!(
        error.to_string().contains("must log in at 2BA again"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_two_ba_does_not_allow_gets_each_request_at_most_twice() {
    let server = two_ba();
    let source = TwoBa::new(ID, SECRET, server.issue_refresh_token());
    let source = source.build_with(server.clone()).unwrap();
    let api = server.api();
    api.reject_all(true);
    let client = BearerAuthLayer::new(source).layer(api.clone());
    for _ in 0..20 {
        let url = "https://api.2ba.nl/1/json/Product/Details";
        assert_eq!(status(&client, get(url)).await, 401);
    }
    assert!(api.received() <= 40, "{}", api.received());
    assert!(server.token_requests() <= 3, "{}", server.token_requests());
}

// ---------------------------------------------------------------------------------------------------------------------
// Xoxoday.

fn xoxoday() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Xoxoday)
}

/// The schedule of the preset, without its minimum interval of a minute.
fn without_min_interval() -> Schedule {
    Xoxoday::default_schedule().min_interval(Duration::ZERO)
}

#[tokio::test(start_paused = true)]
async fn xoxoday_requests_are_json_and_use_the_newest_refresh_token() {
    let server = xoxoday();
    let first = server.issue_refresh_token();
    let source = Xoxoday::new(ID, SECRET, first.as_str()).schedule(without_min_interval());
    two_tokens(source.build_with(server.clone()).unwrap())
        .await
        .unwrap();

    let [once, again] = &server.requests()[..] else {
        panic!("two refreshes: {:?}", server.requests())
    };
    for request in [once, again] {
        let uri = "https://accounts.xoxoday.com/chef/v1/oauth/token/user";
        assert_request(request, uri, JSON, None);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let expected = json!({
            "grant_type": "refresh_token",
            "refresh_token": request.param("refresh_token"),
            "client_id": ID,
            "client_secret": SECRET,
        });
        assert_eq!(body, expected);
    }
    assert_eq!(once.param("refresh_token"), Some(first.as_str()));
    assert_ne!(again.param("refresh_token"), Some(first.as_str()));
    assert_eq!(server.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_token_url_of_xoxoday_can_be_that_of_companies_or_any_other() {
    let company = |it: Xoxoday| it.company();
    let sandbox = |it: Xoxoday| it.token_url("https://stage.example/chef/v1/oauth/token/company");
    for (change, uri) in [
        (
            company as fn(Xoxoday) -> Xoxoday,
            "https://accounts.xoxoday.com/chef/v1/oauth/token/company",
        ),
        (sandbox, "https://stage.example/chef/v1/oauth/token/company"),
    ] {
        let server = xoxoday();
        let source = change(Xoxoday::new(ID, SECRET, server.issue_refresh_token()));
        let cache = TokenCache::new(source.build_with(server.clone()).unwrap());
        cache.token().await.unwrap();
        assert_eq!(server.requests()[0].uri, uri);
    }
}

#[tokio::test(start_paused = true)]
async fn xoxoday_can_be_switched_to_forms() {
    let server = xoxoday();
    server.fault(Fault::raw(StatusCode::OK, JSON, r#"{"access_token":"a"}"#));
    let source = Xoxoday::new("id", "secret", "r/1").body_format(BodyFormat::Form);
    let source = source.build_with(server.clone()).unwrap();
    source.token(TokenContext::new()).await.unwrap();
    assert_eq!(
        server.requests()[0].body,
        "grant_type=refresh_token&refresh_token=r%2F1&client_id=id&client_secret=secret"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_of_xoxoday_in_a_string_is_parsed() {
    let server = xoxoday();
    let answer =
        r#"{"access_token":"a","refresh_token":"r","token_type":"bearer","expires_in":"1296000"}"#;
    server.fault(Fault::raw(StatusCode::OK, JSON, answer));
    let source = Xoxoday::new(ID, SECRET, "r")
        .build_with(server.clone())
        .unwrap();
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let cache = TokenCache::builder(source).clock(clock.clone()).build();
    cache.token().await.unwrap();
    let days_15 = Duration::from_secs(15 * 86_400);
    assert_eq!(cache.status().expires_at, Some(clock.now() + days_15));
}

#[tokio::test(start_paused = true)]
async fn xoxoday_is_refreshed_every_week_without_traffic() {
    let server = xoxoday();
    let source = Xoxoday::new(ID, SECRET, server.issue_refresh_token());
    let clock = SimulatedClock::new(SystemTime::now());
    let source = source.build_with(server.clone()).unwrap();
    let cache = TokenCache::builder(source).clock(clock).seed(7).build();
    cache.token().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60 * 86_400)).await;
    // Without refreshes, the refresh token would have expired after 30 days.
    let refreshes = server.refreshes();
    assert!((9..=11).contains(&refreshes), "{refreshes} in 60 days");
    assert_eq!(server.rejected(), 0);
    cache.token().await.unwrap();
    assert_eq!(
        server.refreshes(),
        refreshes,
        "no caller waits for a refresh"
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_xoxoday_session_is_an_error_that_names_the_dashboard() {
    for (status, body) in [
        (
            StatusCode::OK,
            r#"{"success": 0, "error_message_id": "auth.token_error"}"#,
        ),
        (
            StatusCode::BAD_REQUEST,
            r#"{"success": 0, "error_message_id": "auth.token_error"}"#,
        ),
        (
            StatusCode::UNAUTHORIZED,
            r#"{"error": "invalid_token", "error_description": "invalid/expired token"}"#,
        ),
    ] {
        let server = xoxoday();
        server.fault_always(Fault::raw(status, JSON, body));
        let source = Xoxoday::new(ID, SECRET, server.issue_refresh_token());
        let error = first_error(source.build_with(server).unwrap()).await;
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{body}");
        assert!(
            error
                .to_string()
                .contains("must be generated in its dashboard"),
            "{error}"
        );
        assert_hides(&error, &[SECRET, "invalid/expired"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_responses_of_xoxoday_are_parsed_in_both_forms() {
    for (body, wait) in [
        ("{\nmessage:'auth.request_limit_exceeded'\n}", None),
        (
            r#"{"errors":[{"message":"auth.request_limit_exceeded","penaltySeconds":60}]}"#,
            Some(Duration::from_secs(60)),
        ),
    ] {
        let server = xoxoday();
        server.fault(Fault::raw(StatusCode::BAD_REQUEST, JSON, body));
        let source = Xoxoday::new(ID, SECRET, server.issue_refresh_token());
        let error = first_error(source.build_with(server).unwrap()).await;
        assert_eq!(error.kind(), TokenErrorKind::RateLimited, "{body}");
        assert_eq!(error.retry_after(), wait, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_xoxoday_api_cause_no_refresh() {
    let server = xoxoday();
    let source = Xoxoday::new(ID, SECRET, server.issue_refresh_token());
    let cache = TokenCache::new(source.build_with(server.clone()).unwrap());
    for code in [400, 403, 404, 409, 422] {
        let orders = tower::service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| async move {
            Response::builder().status(code).body(String::new())
        });
        let client = BearerAuthLayer::from(cache.clone()).layer(orders);
        assert_eq!(
            status(&client, get("https://accounts.xoxoday.com/placeOrder")).await,
            code
        );
    }
    assert_eq!(server.token_requests(), 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// All presets.

type Built<T> = Result<T, TokenError>;

fn build_winbooks(host: &str, email: &str, token: &str) -> Built<ExchangeTokenSource> {
    Winbooks::new(host, email, token).build_with(winbooks())
}

fn built_two_ba(id: &str, secret: &str, token: &str) -> Built<RefreshTokenSource> {
    TwoBa::new(id, secret, token).build_with(two_ba())
}

fn built_xoxoday(id: &str, secret: &str, token: &str) -> Built<RefreshTokenSource> {
    Xoxoday::new(id, secret, token).build_with(xoxoday())
}

#[test]
fn the_error_names_each_empty_parameter() {
    let two_ba_public = TwoBa::public_client("", "t").build_with(two_ba());
    for (outcome, named) in [
        (build_winbooks("", "e", "t").map(drop), "URL"),
        (
            build_winbooks(WINBOOKS, "", "t").map(drop),
            "Winbooks needs an e-mail",
        ),
        (
            build_winbooks(WINBOOKS, " ", "t").map(drop),
            "Winbooks needs an e-mail",
        ),
        (
            build_winbooks(WINBOOKS, "e", "").map(drop),
            "Winbooks needs an exchange token",
        ),
        (
            built_two_ba("", "s", "t").map(drop),
            "2BA needs a client id",
        ),
        (
            built_two_ba("i", "", "t").map(drop),
            "2BA needs a client secret",
        ),
        (
            built_two_ba("i", "s", "\n").map(drop),
            "2BA needs a refresh token",
        ),
        (two_ba_public.map(drop), "2BA needs a client id"),
        (
            built_xoxoday("", "s", "t").map(drop),
            "Xoxoday needs a client id",
        ),
        (
            built_xoxoday("i", "", "t").map(drop),
            "Xoxoday needs a client secret",
        ),
        (
            built_xoxoday("i", "s", "").map(drop),
            "Xoxoday needs a refresh token",
        ),
    ] {
        let error = outcome.expect_err(named);
        assert_eq!(error.kind(), TokenErrorKind::Config, "{named}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn a_bad_host_is_an_error_before_anything_is_sent() {
    for (host, kind) in [
        ("rapi.winbooksonweb.be", TokenErrorKind::Config),
        ("https://", TokenErrorKind::Config),
        ("https:///OAuth20", TokenErrorKind::Config),
        (
            "https://me:hunter2@rapi.winbooksonweb.be",
            TokenErrorKind::Config,
        ),
        (
            "https://rapi.winbooksonweb.be/?key=hunter2",
            TokenErrorKind::Config,
        ),
        ("https://rapi winbooksonweb.be", TokenErrorKind::Config),
        ("ftp://rapi.winbooksonweb.be", TokenErrorKind::Config),
        (
            "http://rapi.winbooksonweb.be",
            TokenErrorKind::InsecureOrigin,
        ),
    ] {
        let error = build_winbooks(host, "e", "hunter3").expect_err(host);
        assert_eq!(error.kind(), kind, "{host}");
        assert_hides(&error, &["hunter2", "hunter3"]);
        // The other vendors have a fixed host. Their custom token URL may have a query.
        if host.contains('?') {
            continue;
        }
        for outcome in [
            TwoBa::new("i", "s", "t")
                .token_url(host)
                .build_with(two_ba()),
            Xoxoday::new("i", "s", "t")
                .token_url(host)
                .build_with(xoxoday()),
        ] {
            assert_eq!(outcome.expect_err(host).kind(), kind, "{host}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_custom_token_url_is_used_unchanged() {
    let url = "https://gateway.example//login/token/?tenant=7";
    let answer = || Fault::raw(StatusCode::OK, JSON, r#"{"access_token":"a"}"#);
    for (vendor, server) in [winbooks(), two_ba(), xoxoday()].into_iter().enumerate() {
        server.fault(answer());
        let transport = server.clone();
        let cache = match vendor {
            0 => TokenCache::new(
                Winbooks::new(WINBOOKS, "e", "t")
                    .token_url(url)
                    .build_with(transport)
                    .unwrap(),
            ),
            1 => TokenCache::new(
                TwoBa::new("i", "s", "t")
                    .token_url(url)
                    .build_with(transport)
                    .unwrap(),
            ),
            _ => TokenCache::new(
                Xoxoday::new("i", "s", "t")
                    .token_url(url)
                    .build_with(transport)
                    .unwrap(),
            ),
        };
        cache.token().await.unwrap();
        assert_eq!(server.requests()[0].uri, url);
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_sent_only_to_their_vendor() {
    let servers = [winbooks(), two_ba(), xoxoday()];
    let [winbooks, two_ba, xoxoday] = &servers;
    let layers = [
        BearerAuthLayer::new(
            winbooks_session(winbooks)
                .build_with(winbooks.clone())
                .unwrap(),
        ),
        BearerAuthLayer::new(
            TwoBa::new(ID, SECRET, two_ba.issue_refresh_token())
                .build_with(two_ba.clone())
                .unwrap(),
        ),
        BearerAuthLayer::new(
            Xoxoday::new(ID, SECRET, xoxoday.issue_refresh_token())
                .build_with(xoxoday.clone())
                .unwrap(),
        ),
    ];
    let homes = [
        "https://rapi.winbooksonweb.be/app/Customers",
        "https://api.2ba.nl/1/json/Product/Details",
        "https://accounts.xoxoday.com/chef/v1/oauth/api",
    ];
    for (vendor, layer) in layers.into_iter().enumerate() {
        let api = servers[vendor].api();
        let client = layer.layer(api.clone());
        for (other, home) in homes.into_iter().enumerate() {
            let expected = if vendor == other { 200 } else { 401 };
            assert_eq!(status(&client, get(home)).await, expected, "{home}");
            let sent = api.requests().pop().unwrap();
            assert_eq!(
                sent.headers.contains_key(AUTHORIZATION),
                vendor == other,
                "{home}"
            );
        }
        assert_eq!(servers[vendor].token_requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn origins_schedule_and_store_can_be_overridden() {
    let server = two_ba();
    let store = MemoryStore::new();
    let preset = TwoBa::new(ID, SECRET, server.issue_refresh_token())
        .origins(Origins::only(["https://proxy.example"]).unwrap())
        .schedule(Schedule::default().max_age(Duration::from_secs(60)))
        .store(store);
    let build = || preset.clone().build_with(server.clone()).unwrap();
    let client = BearerAuthLayer::new(build()).layer(server.api());
    assert_eq!(
        status(&client, get("https://proxy.example/1/json")).await,
        200
    );
    assert_eq!(status(&client, get("https://api.2ba.nl/1/json")).await, 401);

    // Another source with the same store uses the token of the first.
    let cache = TokenCache::new(build());
    cache.token().await.unwrap();
    assert_eq!(server.refreshes(), 1);

    // After a minute it is refreshed, long before its expiry.
    tokio::time::advance(Duration::from_secs(61)).await;
    cache.token().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_is_reported_with_the_apis_own_response() {
    let server = two_ba();
    let source = TwoBa::new(ID, SECRET, server.issue_refresh_token());
    let source = source.build_with(server.clone()).unwrap();
    let client = BearerAuthLayer::new(source).layer(server.api());
    let url = "https://api.2ba.nl/1/json/Product/Details";
    assert_eq!(status(&client, get(url)).await, 200);
    server.revoke_sessions();
    for _ in 0..10 {
        let response = support::send(&client, get(url)).await.unwrap();
        assert_eq!(response.status(), 401);
        let reason = reason(&response);
        assert_eq!(reason.kind(), TokenErrorKind::ReauthRequired);
        assert!(
            reason.to_string().contains("must log in at 2BA again"),
            "{reason}"
        );
    }
    assert_eq!(server.token_requests(), 2, "the failure is remembered");
}

#[test]
fn debug_of_a_preset_shows_no_secret() {
    let winbooks = Winbooks::new(WINBOOKS, "hunter2", "hunter2");
    let two_ba = TwoBa::new("id", "hunter2", "hunter2");
    let xoxoday = Xoxoday::new("id", "hunter2", "hunter2");
    let debug = format!("{winbooks:?}{two_ba:?}{xoxoday:?}");
    let sources = (
        winbooks.build_with(self::winbooks()).unwrap(),
        two_ba.build_with(self::two_ba()).unwrap(),
        xoxoday.build_with(self::xoxoday()).unwrap(),
    );
    let debug = format!("{debug}{sources:?}{sources:#?}");
    assert!(!debug.contains("hunter2"), "{debug}");
}
