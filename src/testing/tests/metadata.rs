//! Metadata documents and the revocation endpoint.

use super::*;

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
        .issuer("https://login.example.com/tenant")
        .path_prefix("/v2")
}

async fn document(server: &AuthorizationServer, path: &str) -> (StatusCode, Option<Value>) {
    let request = Request::get(path).body(String::new()).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).ok())
}

async fn revoke(server: &AuthorizationServer, params: &[(&str, &str)]) -> StatusCode {
    let client = [("client_id", ID), ("client_secret", SECRET)];
    let request = Request::post(server.revocation_path())
        .header("content-type", FORM)
        .body(form(&[params, &client].concat()))
        .unwrap();
    server.clone().oneshot(request).await.unwrap().status()
}

const FORMS: [(MetadataForm, &str); 3] = [
    (
        MetadataForm::OAuth,
        "/.well-known/oauth-authorization-server/tenant",
    ),
    (
        MetadataForm::OpenIdInserted,
        "/.well-known/openid-configuration/tenant",
    ),
    (
        MetadataForm::OpenId,
        "/tenant/.well-known/openid-configuration",
    ),
];

#[tokio::test]
async fn a_document_is_published_in_the_chosen_forms_only() {
    for (form, _) in FORMS {
        let server = server().metadata_forms([form]);
        for (at, path) in FORMS {
            let (status, document) = document(&server, path).await;
            assert_eq!(status == 200, at == form, "{path}");
            assert_eq!(document.is_some(), at == form);
        }
        assert_eq!(
            (server.metadata_requests(), server.token_requests()),
            (3, 0)
        );
    }
    let silent = AuthorizationServer::new(Dialect::Rfc6749);
    for (_, path) in FORMS {
        assert_eq!(document(&silent, path).await.0, 404);
    }
}

#[tokio::test]
async fn a_document_names_the_endpoints_and_its_members_can_be_replaced() {
    let server = server();
    let (_, first) = document(&server, FORMS[0].1).await;
    let first = first.unwrap();
    assert_eq!(first["issuer"], "https://login.example.com/tenant");
    assert_eq!(
        first["token_endpoint"],
        "https://login.example.com/v2/token"
    );
    assert_eq!(
        first["revocation_endpoint"],
        "https://login.example.com/v2/revoke"
    );
    let server = server
        .metadata_member("issuer", "https://other.example")
        .metadata_member("revocation_endpoint", Value::Null);
    let (_, second) = document(&server, FORMS[0].1).await;
    let second = second.unwrap();
    assert_eq!(second["issuer"], "https://other.example");
    assert!(second.get("revocation_endpoint").is_none());
}

#[tokio::test]
async fn a_refresh_token_is_revoked_with_its_session_and_an_access_token_alone() {
    let server = server().detect_reuse(false);
    let refresh_token = server.issue_refresh_token();
    let access_token = server.issue_access_token();
    assert_eq!(revoke(&server, &[("token", &access_token)]).await, 200);
    assert!(!server.is_live(&access_token));
    assert_eq!(server.live_sessions(), 1);
    let hint = ("token_type_hint", "access_token"); // A wrong hint does not matter.
    assert_eq!(
        revoke(&server, &[("token", &refresh_token), hint]).await,
        200
    );
    assert_eq!(server.live_sessions(), 0);
    assert_eq!(revoke(&server, &[("token", "unknown")]).await, 200);
    assert_eq!((server.revocations(), server.revocation_requests()), (3, 3));
}

#[tokio::test]
async fn a_revocation_needs_a_token_and_the_client() {
    let server = server();
    assert_eq!(revoke(&server, &[]).await, 400);
    let request = Request::post("/v2/revoke")
        .header("content-type", FORM)
        .body(form(&[("token", "x")]))
        .unwrap();
    assert_eq!(server.clone().oneshot(request).await.unwrap().status(), 401);
    assert_eq!(document(&server, "/v2/revoke").await.0, 405);
    assert_eq!((server.revocations(), server.rejected()), (0, 3));
}

#[tokio::test]
async fn each_endpoint_has_faults_of_its_own() {
    let server = server();
    server.metadata_fault(Fault::Status(StatusCode::BAD_GATEWAY));
    server.revocation_fault(Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    server.fault(Fault::Status(StatusCode::IM_A_TEAPOT));
    assert_eq!(revoke(&server, &[("token", "x")]).await, 503);
    assert_eq!(document(&server, FORMS[0].1).await.0, 502);
    assert_eq!(document(&server, "/v2/token").await.0, 418);
    server.metadata_fault_always(Fault::Status(StatusCode::BAD_GATEWAY));
    for _ in 0..2 {
        assert_eq!(document(&server, FORMS[0].1).await.0, 502);
    }
    server.metadata_fault_always(None);
    server.metadata_fault(Fault::member("issuer", "https://other.example"));
    for issuer in ["https://other.example", "https://login.example.com/tenant"] {
        let (_, document) = document(&server, FORMS[0].1).await;
        assert_eq!(document.unwrap()["issuer"], issuer);
    }
    server.revocation_fault_always(Fault::error("unsupported_token_type"));
    for _ in 0..2 {
        assert_eq!(revoke(&server, &[("token", "x")]).await, 400);
    }
    server.revocation_fault_always(None);
    assert_eq!(revoke(&server, &[("token", "x")]).await, 200);
}

#[tokio::test]
async fn endpoints_move_with_their_document() {
    let server = server().path_prefix("/v3");
    let (_, document) = document(&server, FORMS[0].1).await;
    let token_endpoint = &document.unwrap()["token_endpoint"];
    assert_eq!(token_endpoint, "https://login.example.com/v3/token");
    let old = post("/v2/token", FORM, String::new());
    assert_eq!(status(&server, old).await, 404);
}
