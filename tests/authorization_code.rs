//! Logins by an authorization code, as a web application does them: begin, redirect, finish.
#![cfg(all(feature = "login", feature = "testing"))]

mod support;

use std::collections::{BTreeMap, HashMap};

use http::{Request, StatusCode, header::LOCATION};
use serde_json::{Value, json};
use support::{assert_hides, send};
use tower_bearer::{
    ClientAuth, MemoryStore, OAuthClient, RefreshTokenSource, StoreLease, StoredSession,
    TokenCache, TokenError, TokenErrorKind, TokenStore,
    login::{AuthorizationCode, PendingLogin},
    testing::{AuthorizationServer, Dialect, Fault},
};

const ISSUER: &str = "https://login.example.com";
const REDIRECT_URI: &str = "https://app.example.com/callback?from=login";

fn server() -> AuthorizationServer {
    server_at(ISSUER)
}

fn server_at(issuer: &str) -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .issuer(issuer)
        .public_client("my-app")
}

fn client(server: &AuthorizationServer) -> OAuthClient {
    client_at(ISSUER, server)
}

fn client_at(issuer: &str, server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::discover_with_transport(issuer, server.clone())
        .unwrap()
        .client_auth(ClientAuth::none("my-app"))
}

/// A client that is told its endpoints.
fn configured_client(server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::with_transport(format!("{ISSUER}/token"), server.clone())
        .unwrap()
        .authorization_url(format!("{ISSUER}/authorize"))
        .unwrap()
        .client_auth(ClientAuth::none("my-app"))
}

/// The URL that the browser of a person who agrees is redirected to.
async fn visit(server: &AuthorizationServer, url: &str) -> String {
    let request = Request::get(url).body(String::new()).unwrap();
    let response = send(server, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    response.headers()[LOCATION].to_str().unwrap().to_owned()
}

async fn log_in(
    server: &AuthorizationServer,
    login: &AuthorizationCode,
) -> Result<StoredSession, TokenError> {
    let (url, pending) = login.begin(REDIRECT_URI).await?;
    let response = visit(server, &url).await;
    login.finish(pending, response).await
}

/// The error of a login whose response is changed by `faults`.
async fn refused(server: &AuthorizationServer, faults: &[(&str, Value)]) -> TokenError {
    let login = AuthorizationCode::new(client(server));
    let (url, pending) = login.begin(REDIRECT_URI).await.unwrap();
    let mut response = visit(server, &url).await;
    for (name, value) in faults {
        response = with_parameter(&response, name, value);
    }
    let requests = server.token_requests();
    let error = login.finish(pending, &response).await.unwrap_err();
    assert_eq!(server.token_requests(), requests, "no code is sent");
    assert_hides(&error, &["ac-1", "hunter2", &parameters(&url)["state"]]);
    error
}

fn with_parameter(url: &str, name: &str, value: &Value) -> String {
    let (base, query) = url.split_once('?').unwrap();
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .filter(|(known, _)| known != name)
        .collect();
    pairs.extend(
        value
            .as_str()
            .map(|value| (name.to_owned(), value.to_owned())),
    );
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    format!("{base}?{query}")
}

/// The parameters of a URL, none of which occurs twice.
fn parameters(url: &str) -> BTreeMap<String, String> {
    let (_, query) = url.split_once('?').unwrap();
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        assert!(parameters.insert(name.clone(), value).is_none(), "{name}");
    }
    parameters
}

#[tokio::test(start_paused = true)]
async fn a_login_begins_a_session_that_a_cache_takes_and_refreshes() {
    let server = server();
    let cache = TokenCache::new(RefreshTokenSource::stored(client(&server)));
    assert_eq!(
        cache.token().await.unwrap_err().kind(),
        TokenErrorKind::ReauthRequired
    );
    let login = AuthorizationCode::new(client(&server)).scope("invoices:read");
    cache
        .login(log_in(&server, &login).await.unwrap())
        .await
        .unwrap();

    let token = cache.token().await.unwrap();
    assert!(server.is_live(token.expose_secret()));
    assert_eq!((server.code_grants(), server.refreshes()), (1, 0));
    cache.reject(&token);
    cache.token().await.unwrap();
    assert_eq!((server.code_grants(), server.refreshes()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_login_can_be_saved_in_an_empty_store() {
    let server = server();
    let login = AuthorizationCode::new(client(&server)).scope("invoices:read");
    let session = log_in(&server, &login).await.unwrap();
    let store = MemoryStore::new();
    let mut lease = store.lease().await.unwrap();
    lease.save(0, &session).await.unwrap();
    lease.release().await;

    let cache = TokenCache::new(RefreshTokenSource::stored(client(&server)).store(store));
    let token = cache.token().await.unwrap();
    assert_eq!(server.refreshes(), 0, "its access token is used");
    cache.reject(&token);
    cache.token().await.unwrap();
    assert_eq!(server.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_with_a_session_name_takes_the_login_of_its_client() {
    let server = server();
    let source = RefreshTokenSource::stored(client(&server)).session_name("the-one");
    let cache = TokenCache::new(source);
    let session = log_in(&server, &AuthorizationCode::new(client(&server))).await;
    cache.login(session.unwrap()).await.unwrap();
    cache.token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cache_of_another_server_does_not_take_the_login() {
    let (server, other) = (server(), server_at("https://other.example.com"));
    let other_client = client_at("https://other.example.com", &other);
    let cache = TokenCache::new(RefreshTokenSource::stored(other_client));
    let session = log_in(&server, &AuthorizationCode::new(client(&server))).await;
    let error = cache.login(session.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_login_can_be_kept_in_the_session_of_a_browser() {
    let server = server();
    let login = AuthorizationCode::new(client(&server));
    let (url, pending) = login.begin(REDIRECT_URI).await.unwrap();
    let kept = serde_json::to_string(&pending).unwrap();

    // Another process, which gets the query only.
    let pending: PendingLogin = serde_json::from_str(&kept).unwrap();
    let response = visit(&server, &url).await;
    let (_, query) = response.split_once('?').unwrap();
    let login = AuthorizationCode::new(client(&server));
    login.finish(pending, query).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stored_login_that_was_damaged_is_not_read() {
    let login = AuthorizationCode::new(client(&server()));
    let (_, pending) = login.begin(REDIRECT_URI).await.unwrap();
    let kept = serde_json::to_value(&pending).unwrap();
    for (name, value) in [
        // Any response with an empty `state` would answer it.
        ("state", json!("")),
        ("state", json!("hunter2")),
        ("verifier", json!("")),
        ("verifier", json!("hunter2&grant_type=x")),
        ("issuer", Value::Null),
        ("redirect_uri", json!("http://hunter2.example.com/")),
        ("redirect_uri", json!("")),
    ] {
        let mut damaged = kept.clone();
        damaged[name] = value.clone();
        let error = serde_json::from_value::<PendingLogin>(damaged).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("begin another login"),
            "{name} {value}: {error}"
        );
    }
    drop(serde_json::from_value::<PendingLogin>(kept).unwrap());
}

#[tokio::test(start_paused = true)]
async fn two_logins_of_one_browser_are_told_apart_by_their_states() {
    let server = server();
    let login = AuthorizationCode::new(client(&server));
    let mut kept = HashMap::new();
    let mut urls = Vec::new();
    for _tab in 0..2 {
        let (url, pending) = login.begin(REDIRECT_URI).await.unwrap();
        assert_eq!(parameters(&url)["state"], pending.state());
        assert!(!format!("{pending:?}").contains(pending.state()));
        kept.insert(pending.state().to_owned(), pending);
        urls.push(url);
    }
    // The one that has begun first is finished last.
    for url in urls.iter().rev() {
        let response = visit(&server, url).await;
        let pending = kept.remove(&parameters(&response)["state"]).unwrap();
        login.finish(pending, response).await.unwrap();
    }
    assert_eq!(server.code_grants(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_url_has_what_the_server_needs() {
    let server = server();
    let client = client(&server)
        .parameter("audience", "https://api.example.com")
        .parameter("x-api-key", "hunter2");
    let login = AuthorizationCode::new(client)
        .scope("invoices:read")
        .scope("invoices:write")
        .resource("https://api.example.com/invoices")
        .parameter("prompt", "consent");
    let (url, pending) = login.begin(REDIRECT_URI).await.unwrap();
    let mut sent = parameters(&url);
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "my-app"),
        ("redirect_uri", REDIRECT_URI),
        ("code_challenge_method", "S256"),
        ("scope", "invoices:read invoices:write"),
        ("resource", "https://api.example.com/invoices"),
        ("audience", "https://api.example.com"),
        ("prompt", "consent"),
    ] {
        assert_eq!(sent.remove(name).as_deref(), Some(value), "{name}");
    }
    for name in ["state", "code_challenge"] {
        assert_eq!(sent.remove(name).unwrap().len(), 43, "{name}");
    }
    assert!(sent.is_empty(), "{sent:?}");

    let response = visit(&server, &url).await;
    login.finish(pending, response).await.unwrap();
    let requests = server.requests();
    let exchange = requests.last().unwrap();
    assert_eq!(
        exchange.param("resource"),
        Some("https://api.example.com/invoices")
    );
    assert_eq!(exchange.param("redirect_uri"), Some(REDIRECT_URI));
}

#[tokio::test(start_paused = true)]
async fn the_query_of_the_authorization_endpoint_is_kept() {
    let url = format!("{ISSUER}/authorize?tenant=7");
    let server = server().metadata_member("authorization_endpoint", url);
    let login = AuthorizationCode::new(client(&server));
    let (url, _) = login.begin(REDIRECT_URI).await.unwrap();
    assert_eq!(parameters(&url)["tenant"], "7");
}

#[tokio::test(start_paused = true)]
async fn the_scope_and_the_resource_of_the_client_are_asked_for() {
    let server = server();
    let client = client(&server)
        .parameter("scope", "invoices:read")
        .parameter("resource", "https://api.example.com/");
    let cache = TokenCache::new(RefreshTokenSource::stored(client.clone()));
    let login = AuthorizationCode::new(client.clone());
    let (url, _) = login.begin(REDIRECT_URI).await.unwrap();
    assert_eq!(parameters(&url)["scope"], "invoices:read");
    assert_eq!(parameters(&url)["resource"], "https://api.example.com/");

    cache
        .login(log_in(&server, &login).await.unwrap())
        .await
        .unwrap();
    cache.token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn offline_access_is_asked_for_only_if_the_server_lists_it() {
    for (supported, wanted, expected) in [
        (Value::Null, "openid", Some("openid")),
        (json!(["openid"]), "openid", Some("openid")),
        (
            json!(["openid", "offline_access"]),
            "openid",
            Some("openid offline_access"),
        ),
        (
            json!(["openid", "offline_access"]),
            "offline_access openid",
            Some("offline_access openid"),
        ),
        (json!(["openid"]), "offline_access", Some("offline_access")),
        // Without a scope, the server decides.
        (json!(["offline_access"]), "", None),
    ] {
        let server = server().metadata_member("scopes_supported", supported.clone());
        let mut login = AuthorizationCode::new(client(&server));
        if !wanted.is_empty() {
            login = login.scope(wanted);
        }
        let (url, _) = login.begin(REDIRECT_URI).await.unwrap();
        let sent = parameters(&url).remove("scope");
        assert_eq!(sent.as_deref(), expected, "{supported} {wanted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_supports_only_plain_challenges_is_refused() {
    let methods = "code_challenge_methods_supported";
    let server = server().metadata_member(methods, json!(["plain"]));
    let login = AuthorizationCode::new(client(&server));
    let error = login.begin(REDIRECT_URI).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(error.to_string().contains("S256"), "{error}");

    // A server that lists nothing may support it.
    let server = server.metadata_member(methods, Value::Null);
    let login = AuthorizationCode::new(client(&server));
    log_in(&server, &login).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_code_works_with_the_verifier_of_its_own_login_only() {
    let server = server();
    let login = AuthorizationCode::new(client(&server));
    let (_, mine) = login.begin(REDIRECT_URI).await.unwrap();
    let (url, theirs) = login.begin(REDIRECT_URI).await.unwrap();
    let stolen = visit(&server, &url).await;

    // The thief knows the state of the other login.
    let mut mine = serde_json::to_value(mine).unwrap();
    mine["state"] = serde_json::to_value(theirs).unwrap()["state"].take();
    let mine: PendingLogin = serde_json::from_value(mine).unwrap();
    let error = login.finish(mine, stolen).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
    assert_eq!(server.code_grants(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_state_is_refused() {
    for state in [json!("hunter2"), json!(""), Value::Null] {
        let error = refused(&server(), &[("state", state)]).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("`state`"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_response_with_a_wrong_state_is_no_answer_to_the_login() {
    let faults = [
        ("state", json!("hunter2")),
        ("error", json!("access_denied")),
        ("code", Value::Null),
    ];
    let error = refused(&server(), &faults).await;
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert_eq!(error.oauth_code(), None);
}

#[tokio::test(start_paused = true)]
async fn a_response_of_another_issuer_is_refused() {
    for issuer in [
        "https://evil.example.com",
        "https://login.example.com/",
        "HTTPS://login.example.com",
        "",
    ] {
        let error = refused(&server(), &[("iss", json!(issuer))]).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{issuer}");
        assert!(error.to_string().contains("`iss`"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_response_of_another_issuer_is_refused_as_such() {
    let faults = [
        ("iss", json!("https://evil.example.com")),
        ("error", json!("access_denied")),
    ];
    let error = refused(&server(), &faults).await;
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_the_server_always_names_must_not_be_missing() {
    let error = refused(&server(), &[("iss", Value::Null)]).await;
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);

    let member = "authorization_response_iss_parameter_supported";
    let server = server().metadata_member(member, false);
    server.authorization_fault(Fault::member("iss", Value::Null));
    let login = AuthorizationCode::new(client(&server));
    log_in(&server, &login).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_without_discovery_checks_the_issuer_that_it_is_told() {
    let server = server();
    let login = AuthorizationCode::new(configured_client(&server)).issuer(ISSUER);
    log_in(&server, &login).await.unwrap();
    for issuer in [json!("https://evil.example.com"), Value::Null] {
        server.authorization_fault(Fault::member("iss", issuer));
        let error = log_in(&server, &login).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    }
    assert_eq!(server.code_grants(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_code_of_another_server_is_never_sent_to_this_one() {
    // The person logs in at the evil server, which sends the browser on to the good one with the parameters of this login.
    const EVIL: &str = "https://evil.example.com";
    let (good, evil) = (server(), server_at(EVIL));
    let login = AuthorizationCode::new(client_at(EVIL, &evil));
    let (url, pending) = login.begin(REDIRECT_URI).await.unwrap();
    let response = visit(&good, &url.replace(EVIL, ISSUER)).await;
    let error = login.finish(pending, response).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert_eq!((evil.token_requests(), good.token_requests()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_another_client_has_begun_is_refused() {
    const OTHER: &str = "https://other.example.com";
    let (server, other) = (server(), server_at(OTHER));
    let login = AuthorizationCode::new(client(&server));
    let (url, pending) = login.begin(REDIRECT_URI).await.unwrap();
    let response = visit(&server, &url).await;
    let wrong = AuthorizationCode::new(client_at(OTHER, &other));
    let error = wrong.finish(pending, response).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert_eq!(other.token_requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_parameter_that_occurs_twice_is_refused() {
    let server = server();
    let login = AuthorizationCode::new(client(&server));
    for name in ["code", "state", "iss"] {
        let (url, pending) = login.begin(REDIRECT_URI).await.unwrap();
        let response = visit(&server, &url).await;
        let value = &parameters(&response)[name];
        let twice = form_urlencoded::Serializer::new(response.clone() + "&")
            .append_pair(name, value)
            .finish();
        let error = login.finish(pending, twice).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{name}");
    }
    assert_eq!(server.code_grants(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_response_becomes_an_error_that_says_what_to_do() {
    for (code, kind, words) in [
        (
            "access_denied",
            TokenErrorKind::LoginDenied,
            "only if the person wants",
        ),
        ("login_required", TokenErrorKind::ReauthRequired, "prompt"),
        ("invalid_scope", TokenErrorKind::InvalidRequest, "scope"),
        ("server_error", TokenErrorKind::Server, "later"),
    ] {
        let faults = [
            ("error", json!(code)),
            ("error_description", json!("hunter2 says no")),
            ("code", Value::Null),
        ];
        let error = refused(&server(), &faults).await;
        assert_eq!((error.kind(), error.oauth_code()), (kind, Some(code)));
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_not_taken_for_a_dead_session() {
    // A web application redirects to the login if an error is final, and would ask the person over and over.
    let error = refused(&server(), &[("error", json!("access_denied"))]).await;
    assert_eq!(error.kind().as_str(), "login_denied");
    assert!(!error.is_final() && !error.is_transient());
    let text = error.to_string();
    assert!(text.starts_with("the login was denied: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_state_asks_for_the_whole_query() {
    for query in ["", "error=access_denied", "code=hunter2"] {
        let server = server();
        let login = AuthorizationCode::new(client(&server));
        let (_, pending) = login.begin(REDIRECT_URI).await.unwrap();
        let error = login.finish(pending, query).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        let text = error.to_string();
        assert!(
            text.contains("has no `state`; pass the whole query"),
            "{text}"
        );
        assert_hides(&error, &["hunter2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_code_that_is_not_registered_is_not_repeated() {
    let error = refused(&server(), &[("error", json!("hunter2"))]).await;
    assert_eq!(error.kind(), TokenErrorKind::InvalidRequest);
    assert_eq!(error.oauth_code(), None);
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_code_is_an_error() {
    for code in [Value::Null, json!("")] {
        let error = refused(&server(), &[("code", code)]).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_is_sent_once_even_if_its_response_is_lost() {
    let server = server();
    let login = AuthorizationCode::new(client(&server));
    server.fault(Fault::DropReplyAfterCommit);
    let error = log_in(&server, &login).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport);
    assert_eq!((server.code_grants(), server.token_requests()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_cannot_work_does_not_begin() {
    let server = server();
    let anonymous = OAuthClient::discover_with_transport(ISSUER, server.clone()).unwrap();
    let no_endpoint = server_at(ISSUER).metadata_member("authorization_endpoint", Value::Null);
    let http_endpoint = server_at(ISSUER).metadata_member(
        "authorization_endpoint",
        "http://login.example.com/authorize",
    );
    let with_fragment = server_at(ISSUER).metadata_member(
        "authorization_endpoint",
        "https://login.example.com/authorize#x",
    );
    let good = || AuthorizationCode::new(client(&server));
    let insecure = TokenErrorKind::InsecureOrigin;
    for (login, redirect_uri, kind) in [
        (
            AuthorizationCode::new(anonymous),
            REDIRECT_URI,
            TokenErrorKind::Config,
        ),
        (
            AuthorizationCode::new(client(&no_endpoint)),
            REDIRECT_URI,
            TokenErrorKind::Config,
        ),
        (
            AuthorizationCode::new(client(&http_endpoint)),
            REDIRECT_URI,
            insecure,
        ),
        (
            AuthorizationCode::new(client(&with_fragment)),
            REDIRECT_URI,
            TokenErrorKind::InvalidResponse,
        ),
        (
            good().parameter("state", "mine"),
            REDIRECT_URI,
            TokenErrorKind::Config,
        ),
        (good(), "http://app.example.com/", insecure),
        (good(), "https://app.example.com/#x", TokenErrorKind::Config),
        (good(), "/callback", TokenErrorKind::Config),
        (good(), "", TokenErrorKind::Config),
    ] {
        let error = login.begin(redirect_uri).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{redirect_uri}: {error}");
        assert!(!error.to_string().contains("with a token"), "{error}");
    }
    for redirect_uri in ["http://127.0.0.1:7000/", "com.example.app:/callback"] {
        drop(good().begin(redirect_uri).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn an_authorization_endpoint_that_cannot_be_used_disturbs_no_token_request() {
    let server = server().metadata_member("authorization_endpoint", "http://login.example.com/");
    let session = server.issue_refresh_token();
    let cache = TokenCache::new(RefreshTokenSource::new(client(&server), session));
    cache.token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_debug_shows_a_secret() {
    let server = server();
    let login = AuthorizationCode::new(client(&server)).parameter("login_hint", "hunter2");
    let (url, pending) = login.begin(REDIRECT_URI).await.unwrap();
    let shown = format!("{login:?}{pending:?}{pending:#?}");
    let kept = serde_json::to_value(&pending).unwrap();
    let response = visit(&server, &url).await;
    let session = login.finish(pending, response).await.unwrap();
    let shown = format!("{shown}{session:?}");
    let stored = serde_json::to_value(&session).unwrap();
    for secret in [
        &json!("hunter2"),
        &kept["state"],
        &kept["verifier"],
        &stored["refresh_token"],
        &stored["access"]["token"],
    ] {
        let secret = secret.as_str().unwrap();
        assert!(!shown.contains(secret), "{shown}");
    }
}
