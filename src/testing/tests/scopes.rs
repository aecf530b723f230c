//! Scopes and claims: what tokens are issued with, and what an API requires.

use http::{Request, StatusCode, header::WWW_AUTHENTICATE};
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;

use super::super::{AuthorizationServer, Dialect, Fault, ProtectedApi};
use crate::{ClientAuth, OAuthClient, Parameters, TokenError, clock::Clock};

fn server() -> (AuthorizationServer, OAuthClient) {
    let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
    let client = OAuthClient::with_transport("https://login.example/token", server.clone());
    let client = client.unwrap().client_auth(ClientAuth::none("app"));
    (server, client)
}

/// The access token and the scope of the response.
async fn request(
    client: &OAuthClient,
    parameters: Parameters,
) -> Result<(String, Option<String>), TokenError> {
    let token = client.request(&Clock::System, &parameters).await?.token?;
    let scope = token.scope().map(str::to_owned);
    Ok((token.expose_secret().to_owned(), scope))
}

async fn status(api: &ProtectedApi, path: &str, token: &str) -> (StatusCode, String) {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
    let response = api.clone().oneshot(request).await.unwrap();
    let challenge = response.headers().get(WWW_AUTHENTICATE);
    let challenge = challenge.map_or("", |it| it.to_str().unwrap());
    (response.status(), challenge.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_token_has_the_scope_that_was_requested_or_that_of_its_login() {
    let (server, client) = server();
    let api = server.api().require_scope("/", "read write");
    let refresh = server.issue_refresh_token_with_scope("read write");
    let machine = |scope: &str| Parameters::new("client_credentials").with("scope", scope);
    for (parameters, is_met) in [
        (machine("read write other"), true),
        (machine("read"), false),
        (Parameters::new("client_credentials"), false),
        (Parameters::refresh_token(&refresh), true),
    ] {
        let (token, scope) = request(&client, parameters).await.unwrap();
        assert_eq!(scope, None);
        let (status, challenge) = status(&api, "/", &token).await;
        assert_eq!(status == StatusCode::OK, is_met);
        let named = r#"error="insufficient_scope", scope="read write""#;
        assert_eq!(challenge.contains(named), !is_met, "{challenge}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_not_granted_is_an_error() {
    let (server, client) = server();
    let server = server.rotate(false).grant_scopes(["read", "write"]);
    let refresh = server.issue_refresh_token_with_scope("read");
    let machine = |scope: &str| Parameters::new("client_credentials").with("scope", scope);
    let of_login = |scope: &str| Parameters::refresh_token(&refresh).with("scope", scope);
    for (parameters, granted) in [
        (machine("read write"), Some("read write")),
        (machine("read admin"), None),
        (Parameters::refresh_token(&refresh), Some("read")),
        (of_login("read"), Some("read")),
        // A refresh gets no more than the login (RFC 6749 §6).
        (of_login("read write"), None),
    ] {
        let granted_scope = request(&client, parameters).await;
        match granted {
            Some(scope) => assert_eq!(granted_scope.unwrap().1.unwrap(), scope),
            None => assert_eq!(
                granted_scope.unwrap_err().oauth_code(),
                Some("invalid_scope")
            ),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn claims_must_be_those_of_the_token_request() {
    let (server, client) = server();
    let api = server.api().require_claims("/", r#"{"a":1}"#);
    for (claims, expected) in [(r#"{"a":1}"#, 200), (r#"{"a":2}"#, 401)] {
        let parameters = Parameters::new("client_credentials").with("claims", claims);
        let (token, _) = request(&client, parameters).await.unwrap();
        let (status, challenge) = status(&api, "/", &token).await;
        assert_eq!(status, expected);
        assert_eq!(
            challenge.contains(r#"claims="eyJhIjoxfQ==""#),
            expected == 401
        );
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_are_published_and_named_in_challenges() {
    let (server, _) = server();
    let api = server
        .api()
        .resource_metadata("https://api.example/v2", ["https://login.example"])
        .resource_member("resource_name", "An API")
        .challenge(
            "/named",
            StatusCode::FORBIDDEN,
            "Bearer resource_metadata=x",
        );
    let token = server.issue_access_token();
    let url = "https://api.example/.well-known/oauth-protected-resource/v2";
    let (_, challenge) = status(&api, "/", "unknown").await;
    assert!(
        challenge.ends_with(&format!("resource_metadata=\"{url}\"")),
        "{challenge}"
    );
    let (_, challenge) = status(&api, "/named", &token).await;
    assert_eq!(challenge, "Bearer resource_metadata=x");

    api.resource_fault(Fault::Status(StatusCode::BAD_GATEWAY));
    for expected in [502, 200] {
        let request = Request::get(url).body(Full::<bytes::Bytes>::default());
        let response = api.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), expected);
        if expected == 200 {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(document["resource"], "https://api.example/v2");
            assert_eq!(
                document["authorization_servers"][0],
                "https://login.example"
            );
            assert_eq!(document["resource_name"], "An API");
        }
    }
    assert_eq!(api.resource_requests(), 2);
}
