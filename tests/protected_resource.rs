//! The metadata of an API (RFC 9728): where they are read, what they must say, and which authorization servers are used.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::{BoxError, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_bearer::{
    Challenge, OAuthClient, ProtectedResource, TokenError, TokenErrorKind,
    testing::{self, AuthorizationServer, Dialect, Fault, ProtectedApi},
};

const API: &str = "https://api.example.com/v2";
const ISSUER: &str = "https://login.example.com";

fn api() -> ProtectedApi {
    AuthorizationServer::new(Dialect::Rfc6749)
        .api()
        .resource_metadata(API, [ISSUER])
}

async fn discover(
    url: &str,
    challenge: Option<&Challenge>,
    api: ProtectedApi,
) -> Result<ProtectedResource, TokenError> {
    ProtectedResource::discover_with_transport(url, challenge, api).await
}

/// A challenge that names this URL.
fn naming(url: &str) -> Challenge {
    let challenge = format!("Bearer resource_metadata=\"{url}\"");
    let challenge = HeaderValue::try_from(challenge).unwrap();
    Challenge::from_headers(&HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge)])).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_document_is_read_at_the_well_known_url_or_where_the_challenge_says() {
    let api = api().resource_member("scopes_supported", json!(["read", "write"]));
    let request = Request::get(API).body(Full::<Bytes>::default()).unwrap();
    let rejection = api.clone().oneshot(request).await.unwrap();
    let challenge = Challenge::from_headers(rejection.headers());
    for challenge in [None, challenge.as_ref()] {
        let found = discover(API, challenge, api.clone()).await.unwrap();
        assert_eq!(found.resource(), API);
        assert_eq!(found.authorization_servers(), [ISSUER]);
        assert_eq!(found.scopes_supported(), ["read", "write"]);
    }
    assert_eq!(api.resource_requests(), 2);
    let requests = api.requests();
    let read = &requests[1];
    assert!(read.headers.keys().all(|name| name == "accept"));
}

/// A server of documents that notes what is asked for.
type Asked = Arc<Mutex<Vec<String>>>;

type Documents = BoxCloneSyncService<Request<Full<Bytes>>, Response<String>, BoxError>;

fn documents(document: Value) -> (Documents, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        noted.lock().unwrap().push(request.uri().to_string());
        let response = Response::new(document.to_string());
        async move { Ok::<_, BoxError>(response) }
    });
    (BoxCloneSyncService::new(service), asked)
}

#[tokio::test(start_paused = true)]
async fn the_well_known_part_comes_before_the_path() {
    for (url, at) in [
        (
            "https://a.example",
            "https://a.example/.well-known/oauth-protected-resource",
        ),
        (
            "https://a.example/",
            "https://a.example/.well-known/oauth-protected-resource",
        ),
        (
            "https://a.example/x/y",
            "https://a.example/.well-known/oauth-protected-resource/x/y",
        ),
        (
            "https://a.example/x?y=1",
            "https://a.example/.well-known/oauth-protected-resource/x?y=1",
        ),
        (
            "HTTPS://A.Example:443/x",
            "https://a.example/.well-known/oauth-protected-resource/x",
        ),
        (
            "http://localhost:80/x",
            "http://localhost/.well-known/oauth-protected-resource/x",
        ),
    ] {
        let (service, asked) = documents(json!({ "resource": url }));
        let found = ProtectedResource::discover_with_transport(url, None, service).await;
        assert_eq!(found.unwrap().resource(), url);
        assert_eq!(*asked.lock().unwrap(), [at]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_of_another_resource_is_refused() {
    for resource in [
        "https://api.example.com.evil.test/v2",
        "https://api.example.com@evil.test/v2",
        "https://api.example.com/v2/",
        "https://api.example.com/v2/more",
        "https://api.example.com/v",
        "https://api.example.com/",
        "https://api.example.com/V2",
        "https://api.example.com/v2?x",
        "https://api.example.com/v2#x",
        "https://api.example.com/x/../v2",
        "https://api.example.com/%76%32",
        "https://api.example.com:444/v2",
        "http://api.example.com/v2",
        "/v2",
        "",
        " https://api.example.com/v2",
        "https://api.example.com/v2\n",
        "https://user:password@api.example.com/v2",
        "https://api.example.com./v2",
        "https://api.example.com/v2?",
        "https://api.example.com//v2",
        "https://api.example.com/v2;x",
    ] {
        let api = api().resource_member("resource", resource);
        let error = discover(API, None, api).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{resource}");
        assert!(error.to_string().contains("another `resource`"), "{error}");
        assert!(!error.to_string().contains("evil"), "{error}");
    }
    // Only what is written differently.
    for resource in [
        "https://api.example.com:443/v2",
        "HTTPS://API.example.com/v2",
    ] {
        let api = api().resource_member("resource", resource);
        assert!(discover(API, None, api).await.is_ok(), "{resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_challenge_may_not_name_a_url_elsewhere() {
    let insecure = TokenErrorKind::InsecureOrigin;
    let invalid = TokenErrorKind::InvalidResponse;
    for (named, kind) in [
        (
            "https://evil.test/.well-known/oauth-protected-resource/v2",
            invalid,
        ),
        ("https://api.example.com.evil.test/x", invalid),
        ("https://api.example.com@evil.test/x", invalid),
        ("https://api.example.com:444/x", invalid),
        ("http://api.example.com/x", insecure),
        ("http://localhost/x", invalid),
        ("http://169.254.169.254/latest/meta-data", insecure),
        ("/x", invalid),
        ("file:///etc/passwd", invalid),
        ("https://api.example.com\\\\@evil.test/x", invalid),
        ("https://user:password@api.example.com/x", invalid),
        ("https://api.example.com/x#fragment", invalid),
        ("https://api.example.com./x", invalid),
        ("https://[::ffff:169.254.169.254]/x", invalid),
        ("https://169.254.169.254/x", invalid),
    ] {
        let (service, asked) = documents(json!({ "resource": API }));
        let challenge = naming(named);
        assert!(challenge.resource_metadata().is_some(), "{named}");
        let found =
            ProtectedResource::discover_with_transport(API, Some(&challenge), service).await;
        assert_eq!(found.unwrap_err().kind(), kind, "{named}");
        assert!(asked.lock().unwrap().is_empty());
    }
    // At the same origin, the document may be anywhere.
    let (service, asked) = documents(json!({ "resource": API }));
    let challenge = naming("https://api.example.com:443/metadata?of=v2");
    let found = ProtectedResource::discover_with_transport(API, Some(&challenge), service).await;
    assert!(found.is_ok());
    assert_eq!(
        *asked.lock().unwrap(),
        ["https://api.example.com/metadata?of=v2"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_no_document_is_an_error_that_says_why() {
    let moved = Fault::Redirect {
        status: StatusCode::FOUND,
        location: "https://evil.test/".parse().unwrap(),
    };
    let invalid = TokenErrorKind::InvalidResponse;
    for (fault, kind, why) in [
        (
            Fault::Status(StatusCode::NOT_FOUND),
            invalid,
            "publishes no metadata",
        ),
        (
            Fault::Status(StatusCode::UNAUTHORIZED),
            invalid,
            "publishes no metadata",
        ),
        (
            Fault::Html(StatusCode::OK),
            invalid,
            "publishes no metadata",
        ),
        (moved, invalid, "redirects are not followed"),
        (
            Fault::HugeBody(1 << 40),
            invalid,
            "longer than the limit of 65536 bytes",
        ),
        (
            Fault::SlowBody(Duration::from_secs(1)),
            TokenErrorKind::Timeout,
            "",
        ),
        (Fault::NeverAnswers, TokenErrorKind::Timeout, ""),
        (
            Fault::Status(StatusCode::BAD_GATEWAY),
            TokenErrorKind::Server,
            "",
        ),
        (
            Fault::Status(StatusCode::TOO_MANY_REQUESTS),
            TokenErrorKind::RateLimited,
            "",
        ),
        (Fault::DropBeforeCommit, TokenErrorKind::Transport, ""),
        (
            Fault::raw(StatusCode::OK, "application/json", "[]"),
            invalid,
            "not a JSON object",
        ),
        (
            Fault::member("resource", Value::Null),
            invalid,
            "not a JSON object",
        ),
        (
            Fault::member("authorization_servers", "x"),
            invalid,
            "not a JSON object",
        ),
        (
            Fault::member("authorization_servers", vec!["https://a.example"; 1001]),
            invalid,
            "more than 1,000",
        ),
    ] {
        let api = api();
        api.resource_fault(fault.clone());
        let begun = Instant::now();
        let error = discover(API, None, api.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains("metadata"), "{error}");
        assert!(begun.elapsed() <= Duration::from_secs(31));
        assert_eq!(api.received(), 1);
        assert!(discover(API, None, api).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_confirmed_authorization_server_is_used() {
    let servers = [
        "https://evil.test",
        "https://login.example.com.evil.test",
        "http://login.example.com",
        "https://login.example.com/?x",
        "login.example.com",
        ISSUER,
        "https://login.example.org",
    ];
    let api = api().resource_member("authorization_servers", json!(servers));
    let found = discover(API, None, api).await.unwrap();
    let mut asked = Vec::new();
    let issuer = found.confirm_server(|issuer| {
        asked.push(issuer.to_owned());
        issuer == ISSUER
    });
    assert_eq!(issuer.unwrap(), ISSUER);
    // Nobody is asked about one that no secret could be sent to.
    assert_eq!(asked, [servers[0], servers[1], ISSUER]);

    let error = found.confirm_server(|_| false).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
    assert!(error.to_string().contains("no secret is sent"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_api_without_authorization_servers_has_none_to_confirm() {
    for servers in [Value::Null, json!([])] {
        let api = api().resource_member("authorization_servers", servers);
        let found = discover(API, None, api).await.unwrap();
        assert!(found.authorization_servers().is_empty());
        assert!(found.confirm_server(|_| true).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_its_own_document_does_not_confirm_gets_no_secret() {
    let server = AuthorizationServer::new(Dialect::Rfc6749)
        .issuer("https://evil.test")
        .metadata_member("issuer", "https://evil.test");
    let client = OAuthClient::discover_with_transport(ISSUER, server.clone()).unwrap();
    let error = client.grant("client_credentials", &[]).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert_eq!(server.token_requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_url_that_no_token_may_go_to_is_an_error() {
    for (url, kind) in [
        ("http://api.example.com", TokenErrorKind::InsecureOrigin),
        ("api.example.com", TokenErrorKind::Config),
        ("https://api.example.com/#x", TokenErrorKind::Config),
        ("https://me@api.example.com/", TokenErrorKind::Config),
    ] {
        let error = discover(url, None, api()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}");
    }
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn the_document_of_an_api_on_this_machine_is_read_without_following_redirects() {
    let api = AuthorizationServer::new(Dialect::Rfc6749).api();
    let served = testing::serve(api.clone()).await.unwrap();
    let url = format!("{}/v2", served.url());
    let api = api.resource_metadata(&url, [ISSUER]);
    let found = ProtectedResource::discover(&url, None).await.unwrap();
    assert_eq!(found.resource(), url);
    assert_eq!(found.authorization_servers(), [ISSUER]);

    // Followed, it would lead to the document.
    let location = format!("{}/.well-known/oauth-protected-resource/v2", served.url());
    api.resource_fault(Fault::Redirect {
        status: StatusCode::FOUND,
        location: location.parse().unwrap(),
    });
    let error = ProtectedResource::discover(&url, None).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert_eq!(api.resource_requests(), 2);
}
