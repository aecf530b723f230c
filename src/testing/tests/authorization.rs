//! The authorization endpoint, and its codes.

use std::collections::BTreeMap;

use super::*;

// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT_URI: &str = "https://app.example.com/callback?from=login";
const API: &str = "https://api.example.com/";

type Changes<'a> = &'a [(&'a str, &'a str)];

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .issuer("https://login.example.com")
        .public_client("app")
}

/// The pairs with other values. An empty value removes one.
fn changed<'a>(pairs: &[(&'a str, &'a str)], changes: Changes<'a>) -> Vec<(&'a str, &'a str)> {
    let is_changed = |name: &str| changes.iter().any(|(it, _)| *it == name);
    let kept = pairs.iter().filter(|(name, _)| !is_changed(name));
    let added = changes.iter().filter(|(_, value)| !value.is_empty());
    kept.chain(added).copied().collect()
}

/// Asks for a code. Returns the parameters of the redirect.
async fn authorize(
    server: &AuthorizationServer,
    changes: Changes<'_>,
) -> Result<BTreeMap<String, String>, u16> {
    let usual = [
        ("response_type", "code"),
        ("client_id", "app"),
        ("redirect_uri", REDIRECT_URI),
        ("state", "a state"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("resource", API),
    ];
    let url = format!(
        "{}?{}",
        server.authorization_path(),
        form(&changed(&usual, changes))
    );
    let response = send(server, Request::get(url).body(Full::default()).unwrap()).await;
    if response.status() != 302 {
        return Err(response.status().as_u16());
    }
    let location = response.headers()[header::LOCATION].to_str().unwrap();
    let query = location.strip_prefix("https://app.example.com/callback?");
    let pairs = form_urlencoded::parse(query.unwrap().as_bytes());
    Ok(pairs.into_owned().collect())
}

async fn code(server: &AuthorizationServer) -> String {
    authorize(server, &[])
        .await
        .unwrap()
        .remove("code")
        .unwrap()
}

/// Exchanges a code. Returns the access token or the error code.
async fn exchange(
    server: &AuthorizationServer,
    code: &str,
    changes: Changes<'_>,
) -> Result<String, String> {
    let usual = [
        ("grant_type", "authorization_code"),
        ("client_id", "app"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    let body = form(&changed(&usual, changes));
    let answer = answer(server, post(&server.token_path(), FORM, body)).await;
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    text("access_token").ok_or_else(|| text("error").unwrap())
}

#[tokio::test]
async fn a_person_agrees_and_the_code_becomes_tokens() {
    let server = server().path_prefix("/v2");
    let mut redirect = authorize(&server, &[]).await.unwrap();
    let code = redirect.remove("code").unwrap();
    let rest: Vec<_> = redirect.into_iter().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        pair("from", "login"),
        pair("iss", "https://login.example.com"),
        pair("state", "a state"),
    ];
    assert_eq!(rest, expected);
    let token = exchange(&server, &code, &[("resource", API)])
        .await
        .unwrap();
    assert!(server.is_live(&token));
    assert_eq!((server.authorizations(), server.code_grants()), (1, 1));
    assert_eq!(
        (server.authorization_requests(), server.token_requests()),
        (1, 1)
    );
}

#[tokio::test]
async fn a_code_is_bound_to_its_verifier_redirect_uri_and_resources() {
    let server = server();
    let code = code(&server).await;
    for (change, error) in [
        (("code_verifier", "another"), "invalid_grant"),
        (("code_verifier", CHALLENGE), "invalid_grant"),
        (("code_verifier", ""), "invalid_request"),
        (
            ("redirect_uri", "https://app.example.com/"),
            "invalid_grant",
        ),
        (("redirect_uri", ""), "invalid_request"),
        (("code", "unknown"), "invalid_grant"),
        (("resource", "https://other.example.com/"), "invalid_target"),
        (("client_id", "another"), "invalid_client"),
        (("refresh_token", "x"), "invalid_request"),
    ] {
        let result = exchange(&server, &code, &[change]).await;
        assert_eq!(result.unwrap_err(), error, "{change:?}");
    }
    exchange(&server, &code, &[]).await.unwrap();
}

#[tokio::test]
async fn a_code_that_is_used_again_ends_its_session() {
    let server = server();
    let code = code(&server).await;
    let token = exchange(&server, &code, &[]).await.unwrap();
    let again = exchange(&server, &code, &[]).await;
    assert_eq!(again.unwrap_err(), "invalid_grant");
    assert!(!server.is_live(&token));
    assert_eq!(server.live_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_code_expires() {
    let server = server();
    let code = code(&server).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    let late = exchange(&server, &code, &[]).await;
    assert_eq!(late.unwrap_err(), "invalid_grant");
}

#[tokio::test]
async fn a_wrong_request_is_answered_at_the_redirect_uri() {
    let server = server();
    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("resource", "not a uri"), "invalid_target"),
    ] {
        let redirect = authorize(&server, &[change]).await.unwrap();
        assert_eq!(redirect["error"], error, "{change:?}");
        assert_eq!(redirect["state"], "a state");
        assert!(!redirect.contains_key("code"));
    }
    // There is nowhere to go.
    for change in [
        ("client_id", "another"),
        ("redirect_uri", ""),
        ("redirect_uri", "/callback"),
    ] {
        assert_eq!(authorize(&server, &[change]).await.unwrap_err(), 400);
    }
    assert_eq!((server.authorizations(), server.rejected()), (0, 7));
}

#[tokio::test]
async fn a_fault_changes_a_parameter_of_the_redirect() {
    let server = server();
    server.authorization_fault(Fault::member("iss", "https://other.example"));
    server.authorization_fault(Fault::member("state", Value::Null));
    server.authorization_fault(Fault::Status(StatusCode::BAD_GATEWAY));
    let redirect = authorize(&server, &[]).await.unwrap();
    assert_eq!(redirect["iss"], "https://other.example");
    let redirect = authorize(&server, &[]).await.unwrap();
    assert!(!redirect.contains_key("state") && redirect.contains_key("code"));
    assert_eq!(authorize(&server, &[]).await.unwrap_err(), 502);
    server.authorization_fault_always(Fault::member("error", "access_denied"));
    for _ in 0..2 {
        let redirect = authorize(&server, &[]).await.unwrap();
        assert_eq!(redirect["error"], "access_denied");
    }
    server.authorization_fault_always(None);
    exchange(&server, &code(&server).await, &[]).await.unwrap();
}

#[tokio::test]
async fn other_dialects_have_no_authorization_endpoint() {
    for dialect in DIALECTS {
        let server = AuthorizationServer::new(dialect).issuer("https://login.example.com");
        let request = Request::get(server.authorization_path()).body(Full::default());
        let status = status(&server, request.unwrap()).await;
        assert_eq!(status == 404, dialect != Dialect::Rfc6749);
        assert_eq!(server.authorization_requests(), usize::from(status != 404));
    }
}
