//! Discovery: the endpoints of an authorization server, from its metadata.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::json;
use tokio::time::{advance, sleep};
use tower::{BoxError, ServiceExt, service_fn};
use tower_bearer::{
    ClientAuth, ClientCredentialsSource, MemoryStore, OAuthClient, RefreshTokenSource, Token,
    TokenCache, TokenError, TokenErrorKind, TokenStore,
    testing::{AuthorizationServer, Dialect, Fault, MetadataForm},
};

use support::assert_hides;

const ISSUER: &str = "https://login.example.com/tenant";
const OAUTH: &str = "/.well-known/oauth-authorization-server/tenant";
const OPENID_INSERTED: &str = "/.well-known/openid-configuration/tenant";
const OPENID: &str = "/tenant/.well-known/openid-configuration";

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749).issuer(ISSUER)
}

fn client_of(issuer: &str, server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::discover_with_transport(issuer, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ))
}

fn source(server: &AuthorizationServer) -> RefreshTokenSource {
    RefreshTokenSource::new(client_of(ISSUER, server), server.issue_refresh_token())
}

fn cache(server: &AuthorizationServer) -> TokenCache {
    TokenCache::new(source(server))
}

async fn token_of(client: &OAuthClient) -> Result<Token, TokenError> {
    client.grant("client_credentials", &[]).await
}

async fn failed(server: &AuthorizationServer) -> TokenError {
    let error = token_of(&client_of(ISSUER, server)).await.unwrap_err();
    assert_hides(&error, &["hunter2", AuthorizationServer::CLIENT_SECRET]);
    error
}

fn paths(server: &AuthorizationServer) -> Vec<String> {
    let requests = server.requests();
    requests.iter().map(|it| it.uri.path().to_owned()).collect()
}

mod documents {
    use super::*;

    #[tokio::test]
    async fn the_path_of_the_issuer_comes_after_the_well_known_part() {
        let server = server();
        token_of(&client_of(ISSUER, &server)).await.unwrap();
        assert_eq!(paths(&server), [OAUTH, "/token"]);
        let request = &server.requests()[0];
        assert_eq!(request.method, "GET");
        assert_eq!(request.headers["accept"], "application/json");
    }

    #[tokio::test]
    async fn other_forms_are_tried_where_there_is_no_document() {
        for (form, expected) in [
            (MetadataForm::OpenIdInserted, &[OAUTH, OPENID_INSERTED][..]),
            (MetadataForm::OpenId, &[OAUTH, OPENID_INSERTED, OPENID]),
        ] {
            let server = server().metadata_forms([form]);
            token_of(&client_of(ISSUER, &server)).await.unwrap();
            assert_eq!(paths(&server)[..expected.len()], *expected);
            assert_eq!(server.metadata_requests(), expected.len());
        }
    }

    #[tokio::test]
    async fn an_issuer_without_a_path_has_two_forms() {
        for issuer in ["https://login.example.com", "https://login.example.com/"] {
            let server = AuthorizationServer::new(Dialect::Rfc6749)
                .issuer(issuer)
                .metadata_forms([MetadataForm::OpenId]);
            token_of(&client_of(issuer, &server)).await.unwrap();
            assert_eq!(
                paths(&server),
                [
                    "/.well-known/oauth-authorization-server",
                    "/.well-known/openid-configuration",
                    "/token"
                ]
            );
        }
    }

    #[tokio::test]
    async fn only_a_missing_document_lets_the_next_form_be_tried() {
        // Amazon Cognito answers 400 where it has nothing, gateways 401 or 403, and single-page applications 200.
        for status in [400, 401, 403, 404, 405, 410, 200] {
            let server = server();
            server.metadata_fault(Fault::Html(status.try_into().unwrap()));
            token_of(&client_of(ISSUER, &server)).await.unwrap();
            assert_eq!(paths(&server), [OAUTH, OPENID_INSERTED, "/token"]);
        }
        for (status, kind) in [
            (204, TokenErrorKind::InvalidResponse),
            (302, TokenErrorKind::InvalidResponse),
            (408, TokenErrorKind::Server),
            (429, TokenErrorKind::RateLimited),
            (500, TokenErrorKind::Server),
            (503, TokenErrorKind::Server),
        ] {
            let server = server();
            server.metadata_fault(Fault::Status(status.try_into().unwrap()));
            let error = failed(&server).await;
            assert_eq!(
                (server.requests().len(), error.kind()),
                (1, kind),
                "{status}"
            );
            assert_eq!(error.status().unwrap().as_u16(), status);
            assert!(error.to_string().contains(OAUTH), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_without_a_document_is_an_error_that_says_so() {
        let server = server().metadata_forms([]);
        let error = failed(&server).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(
            error.to_string().contains("no metadata document"),
            "{error}"
        );
        assert_eq!(paths(&server), [OAUTH, OPENID_INSERTED, OPENID]);
    }

    #[tokio::test]
    async fn the_document_must_name_exactly_the_configured_issuer() {
        for other in [
            "https://login.example.com/tenant/",
            "https://login.example.com/Tenant",
            "https://login.example.com:443/tenant",
            "https://login.example.com/",
            "https://hunter2.example/tenant",
            "",
        ] {
            let server = server().metadata_member("issuer", other);
            let error = failed(&server).await;
            assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{other}");
            assert!(error.to_string().contains("another `issuer`"), "{error}");
            let is_slash = other.ends_with("tenant/");
            assert_eq!(error.to_string().contains("slash at its end"), is_slash);
            assert_eq!(server.token_requests(), 0);
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_less_secure_than_the_issuer_is_not_used() {
        for (name, url, kind) in [
            (
                "token_endpoint",
                "http://login.example.com/token",
                TokenErrorKind::InsecureOrigin,
            ),
            (
                "token_endpoint",
                "http://localhost/token",
                TokenErrorKind::InsecureOrigin,
            ),
            (
                "revocation_endpoint",
                "http://login.example.com/r",
                TokenErrorKind::InsecureOrigin,
            ),
            (
                "token_endpoint",
                "https://user:hunter2@login.example.com/token",
                TokenErrorKind::InvalidResponse,
            ),
            ("token_endpoint", "/token", TokenErrorKind::InvalidResponse),
            (
                "token_endpoint",
                "https://login.example.com/token#hunter2",
                TokenErrorKind::InvalidResponse,
            ),
        ] {
            let server = server().metadata_member(name, url);
            let error = failed(&server).await;
            assert_eq!(error.kind(), kind, "{url}: {error}");
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(server.token_requests(), 0);
        }
        let aliases = json!({"token_endpoint": "http://mtls.example.com/token"});
        let server = server().metadata_member("mtls_endpoint_aliases", aliases);
        assert_eq!(failed(&server).await.kind(), TokenErrorKind::InsecureOrigin);
    }

    #[tokio::test]
    async fn a_byte_order_mark_before_the_document_does_no_harm() {
        let server = server();
        let document = format!(
            "\u{feff}{{\"issuer\":\"{ISSUER}\",\"token_endpoint\":\"https://login.example.com/token\"}}"
        );
        server.metadata_fault(Fault::raw(StatusCode::OK, "application/json", document));
        token_of(&client_of(ISSUER, &server)).await.unwrap();
        assert_eq!(paths(&server), [OAUTH, "/token"]);
    }

    #[tokio::test]
    async fn a_document_that_is_none_is_an_error_without_its_text() {
        for body in [
            "",
            "hunter2",
            "[]",
            "{}",
            r#"{"issuer":"hunter2"}"#,
            r#"{"issuer":7,"token_endpoint":"https://a.example"}"#,
            r#"{"issuer":"https://login.example.com/tenant"}"#,
            r#"{"issuer":"https://login.example.com/tenant","token_endpoint":["hunter2"]}"#,
        ] {
            let server = server();
            server.metadata_fault(Fault::raw(StatusCode::OK, "application/json", body));
            let error = failed(&server).await;
            assert_eq!(
                error.kind(),
                TokenErrorKind::InvalidResponse,
                "{body}: {error}"
            );
            assert_eq!(server.requests().len(), 1);
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let server = server();
        server.metadata_fault(Fault::Redirect {
            status: StatusCode::FOUND,
            location: Uri::from_static("https://elsewhere.example/hunter2"),
        });
        let error = failed(&server).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(
            error.to_string().contains("redirects are not followed"),
            "{error}"
        );
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn a_huge_document_is_cut_off() {
        let server = server();
        server.metadata_fault(Fault::HugeBody(1 << 40));
        let error = failed(&server).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(
            error.to_string().contains("limit of 65536 bytes"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_document_ends_at_the_time_limit() {
        for fault in [Fault::SlowBody(Duration::from_secs(1)), Fault::NeverAnswers] {
            let server = server();
            server.metadata_fault(fault);
            let error = failed(&server).await;
            assert_eq!(error.kind(), TokenErrorKind::Timeout, "{error}");
            assert!(
                error
                    .to_string()
                    .contains("GET https://login.example.com/.well-known")
            );
        }
    }

    #[tokio::test]
    async fn discovery_sends_no_secret() {
        let server = server();
        let client = client_of(ISSUER, &server)
            .header("x-api-key", "hunter2")
            .unwrap()
            .parameter("scope", "hunter2");
        token_of(&client).await.unwrap();
        let request = &server.requests()[0];
        assert!(!format!("{:?}{:?}", request.headers, request.uri).contains("hunter2"));
        assert!(request.headers.get("authorization").is_none() && request.body.is_empty());
    }

    #[tokio::test]
    async fn an_unsupported_client_authentication_is_explained() {
        let methods = json!(["private_key_jwt", "hunter2", "tls_client_auth"]);
        let server = server().metadata_member("token_endpoint_auth_methods_supported", methods);
        server.fault(Fault::error("invalid_client"));
        let error = failed(&server).await;
        assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
        let expected = "the client sent `client_secret_basic`, and the server's metadata name private_key_jwt, tls_client_auth";
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn an_issuer_that_cannot_be_one_is_rejected() {
    let transport = service_fn(|_: Request<Full<bytes::Bytes>>| async {
        Ok::<_, BoxError>(Response::new(Full::<bytes::Bytes>::default()))
    });
    for (issuer, kind) in [
        ("", TokenErrorKind::Config),
        ("login.example.com", TokenErrorKind::Config),
        (
            "https://login.example.com?tenant=hunter2",
            TokenErrorKind::Config,
        ),
        ("https://login.example.com#hunter2", TokenErrorKind::Config),
        (
            "https://a:hunter2@login.example.com",
            TokenErrorKind::Config,
        ),
        (
            "https://login.example.com/.well-known/openid-configuration",
            TokenErrorKind::Config,
        ),
        ("http://login.example.com", TokenErrorKind::InsecureOrigin),
    ] {
        let error = OAuthClient::discover_with_transport(issuer, transport).unwrap_err();
        assert_eq!(error.kind(), kind, "{issuer}");
        assert!(error.to_string().contains("issuer"), "{error}");
        assert_hides(&error, &["hunter2"]);
    }
    for issuer in [
        "http://localhost:8080",
        "http://[::1]/a",
        " https://a.example/ ",
    ] {
        drop(OAuthClient::discover_with_transport(issuer, transport).unwrap());
    }
}

#[test]
fn the_endpoints_of_a_client_have_one_scheme() {
    let server = server();
    for url in ["http://localhost/refresh", "http://127.0.0.1/refresh"] {
        let error = client_of(ISSUER, &server).refresh_url(url).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{error}");
    }
}

mod times {
    use super::*;

    #[tokio::test]
    async fn nothing_is_requested_before_the_first_token() {
        let server = server();
        let cache = cache(&server);
        assert!(server.requests().is_empty());
        cache.token().await.unwrap();
        cache.refresh().await.unwrap();
        assert_eq!((server.metadata_requests(), server.refreshes()), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_down_delays_only_the_first_token() {
        let server = server();
        server.metadata_fault_always(Fault::Status(StatusCode::BAD_GATEWAY));
        let cache = cache(&server);
        let error = cache.token().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("the metadata endpoint failed"),
            "{error}"
        );
        // Nothing was sent, so no refresh is doubtful.
        assert_eq!(server.token_requests(), 0);
        server.metadata_fault_always(None);
        sleep(Duration::from_secs(2)).await;
        cache.token().await.unwrap();
        assert_eq!((server.refreshes(), server.reuse_detected()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_discovery_marks_no_session() {
        let server = server();
        server.metadata_fault(Fault::DropBeforeCommit);
        let store = MemoryStore::new();
        let cache = TokenCache::new(source(&server).store(store.clone()));
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
        assert!(error.to_string().contains("GET "), "{error}");
        assert!(!error.to_string().contains("sent twice"), "{error}");
        assert!(store.load().await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_callers_share_one_read() {
        let server = server();
        server.metadata_fault(Fault::Delay(Duration::from_secs(1)));
        let client = client_of(ISSUER, &server);
        let tasks: Vec<_> = (0..1_000)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { token_of(&client).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(server.metadata_requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_callers_share_one_failure() {
        let server = server();
        server.metadata_fault_always(Fault::Status(StatusCode::BAD_GATEWAY));
        let delay = Duration::from_secs(1);
        let slow = tower::ServiceBuilder::new()
            .map_future(move |future| async move {
                sleep(delay).await;
                future.await
            })
            .service(server.clone());
        let client = OAuthClient::discover_with_transport(ISSUER, slow).unwrap();
        let tasks: Vec<_> = (0..1_000)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { token_of(&client).await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().unwrap_err().is_transient());
        }
        assert_eq!(server.metadata_requests(), 1);
        // The next caller reads again.
        token_of(&client).await.unwrap_err();
        assert_eq!(server.metadata_requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_leaves_the_read_to_the_next() {
        let server = server();
        server.metadata_fault(Fault::NeverAnswers);
        let client = client_of(ISSUER, &server);
        let first = tokio::spawn({
            let client = client.clone();
            async move { token_of(&client).await }
        });
        tokio::task::yield_now().await;
        let second = tokio::spawn(async move { token_of(&client).await });
        tokio::task::yield_now().await;
        first.abort();
        second.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_document_is_read_again_when_the_token_endpoint_has_moved() {
        let server = server();
        let cache = cache(&server);
        cache.token().await.unwrap();
        let server = server.path_prefix("/v2");
        sleep(Duration::from_secs(60)).await;
        let error = cache.refresh().await.unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
        assert_eq!(server.metadata_requests(), 1);
        cache.reset();
        cache.refresh().await.unwrap();
        assert_eq!((server.metadata_requests(), server.refreshes()), (2, 2));
        assert_eq!(server.requests().last().unwrap().uri.path(), "/v2/token");
    }

    #[tokio::test(start_paused = true)]
    async fn the_document_is_read_again_for_a_grant_without_refresh_tokens_as_well() {
        let server = server();
        let source = ClientCredentialsSource::new(client_of(ISSUER, &server));
        let cache = TokenCache::new(source);
        cache.token().await.unwrap();
        let server = server.path_prefix("/v2");
        sleep(Duration::from_secs(60)).await;
        cache.refresh().await.unwrap_err();
        cache.reset();
        cache.refresh().await.unwrap();
        assert_eq!(server.metadata_requests(), 2);
        assert_eq!(server.requests().last().unwrap().uri.path(), "/v2/token");
    }

    #[tokio::test(start_paused = true)]
    async fn each_sign_of_a_moved_endpoint_lets_the_document_be_read_again() {
        let redirect = Fault::Redirect {
            status: StatusCode::PERMANENT_REDIRECT,
            location: Uri::from_static("https://login.example.com/v2/token"),
        };
        for (fault, reads) in [
            (Fault::Status(StatusCode::NOT_FOUND), 2),
            (Fault::Status(StatusCode::METHOD_NOT_ALLOWED), 2),
            (Fault::Status(StatusCode::GONE), 2),
            (redirect, 2),
            // These say nothing about where the endpoint is.
            (Fault::Status(StatusCode::BAD_REQUEST), 1),
            (Fault::Status(StatusCode::BAD_GATEWAY), 1),
            (
                Fault::raw(
                    StatusCode::NOT_FOUND,
                    "application/json",
                    r#"{"error":"invalid_grant"}"#,
                ),
                1,
            ),
            (Fault::DropBeforeCommit, 1),
        ] {
            let server = server();
            let client = client_of(ISSUER, &server);
            token_of(&client).await.unwrap();
            advance(Duration::from_secs(61)).await;
            server.fault(fault.clone());
            token_of(&client).await.unwrap_err();
            token_of(&client).await.unwrap();
            assert_eq!(server.metadata_requests(), reads, "{fault:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_gone_lets_the_document_be_read_again() {
        let server = server().metadata_member("token_endpoint", "https://old.example.com/token");
        let inner = server.clone();
        let transport = service_fn(move |request: Request<Full<bytes::Bytes>>| {
            let inner = inner.clone();
            async move {
                if request.uri().host() == Some("old.example.com") {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
                }
                inner.oneshot(request).await
            }
        });
        let client = OAuthClient::discover_with_transport(ISSUER, transport)
            .unwrap()
            .client_auth(ClientAuth::client_secret_basic(
                AuthorizationServer::CLIENT_ID,
                AuthorizationServer::CLIENT_SECRET,
            ));
        token_of(&client).await.unwrap_err();
        let server = server.metadata_member("token_endpoint", "https://login.example.com/token");
        // Not at once: reads are spaced.
        token_of(&client).await.unwrap_err();
        assert_eq!(server.metadata_requests(), 1);
        advance(Duration::from_secs(60)).await;
        token_of(&client).await.unwrap();
        assert_eq!(server.metadata_requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_stays_while_the_document_cannot_be_read_again() {
        let server = server();
        let client = client_of(ISSUER, &server);
        token_of(&client).await.unwrap();
        advance(Duration::from_secs(61)).await;
        server.metadata_fault_always(Fault::Status(StatusCode::BAD_GATEWAY));
        server.fault(Fault::Status(StatusCode::NOT_FOUND));
        token_of(&client).await.unwrap_err();
        for _ in 0..10 {
            token_of(&client).await.unwrap();
        }
        assert_eq!(server.metadata_requests(), 2);
    }
}

mod sessions {
    use super::*;

    async fn client_of_session(store: &MemoryStore) -> serde_json::Value {
        let session = store.load().await.unwrap().unwrap();
        serde_json::to_value(session).unwrap()["client"].clone()
    }

    #[tokio::test]
    async fn a_session_belongs_to_the_issuer_wherever_its_endpoints_are() {
        let server = server();
        let store = MemoryStore::new();
        let login = server.issue_refresh_token();
        let process = || {
            let source = RefreshTokenSource::new(client_of(ISSUER, &server), login.clone());
            TokenCache::new(source.store(store.clone()))
        };
        process().token().await.unwrap();
        let client = client_of_session(&store).await;
        let _moved = server.clone().path_prefix("/v2");
        let cache = process();
        cache.token().await.unwrap();
        cache.refresh().await.unwrap();
        assert_eq!(client_of_session(&store).await, client);
    }

    #[tokio::test]
    async fn the_stored_token_is_used_without_discovery() {
        let server = server();
        let store = MemoryStore::new();
        let login = server.issue_refresh_token();
        let process = || {
            let source = RefreshTokenSource::new(client_of(ISSUER, &server), login.clone());
            TokenCache::new(source.store(store.clone()))
        };
        process().token().await.unwrap();
        server.metadata_fault_always(Fault::NeverAnswers);
        process().token().await.unwrap();
        assert_eq!(server.metadata_requests(), 1);
    }

    #[tokio::test]
    async fn another_issuer_is_another_client() {
        let server = server();
        let store = MemoryStore::new();
        let first = TokenCache::new(source(&server).store(store.clone()));
        first.token().await.unwrap();
        let server = server.issuer("https://login.example.com/other");
        let other = client_of("https://login.example.com/other", &server);
        let other =
            RefreshTokenSource::new(other, server.issue_refresh_token()).store(store.clone());
        let error = TokenCache::new(other).token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{error}");
    }
}

#[derive(Clone, Default)]
struct Audiences(Arc<Mutex<Vec<String>>>);

impl tower_bearer::Grant for Audiences {
    async fn parameters(
        &self,
        cx: &tower_bearer::GrantContext<'_>,
    ) -> Result<tower_bearer::Parameters, TokenError> {
        self.0.lock().unwrap().push(cx.audience().to_owned());
        Ok(tower_bearer::Parameters::new("client_credentials"))
    }

    fn identity(&self) -> tower_bearer::Identity {
        tower_bearer::Identity::new("test", "")
    }

    fn can_repeat(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_audience_of_an_assertion_is_the_issuer() {
    let server = server();
    let grant = Audiences::default();
    let source = tower_bearer::GrantSource::with_grant(client_of(ISSUER, &server), grant.clone());
    TokenCache::new(source).token().await.unwrap();
    assert_eq!(*grant.0.lock().unwrap(), [ISSUER]);
}

mod over_sockets {
    use super::*;

    #[tokio::test]
    async fn a_loopback_issuer_is_discovered_and_its_redirects_are_not_followed() {
        let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
        let loopback = tower_bearer::testing::serve(server.clone()).await.unwrap();
        let server = server.issuer(loopback.url());
        let client = || {
            OAuthClient::discover(loopback.url())
                .unwrap()
                .client_auth(ClientAuth::none("app"))
        };
        let source = RefreshTokenSource::new(client(), server.issue_refresh_token());
        let cache = TokenCache::new(source);
        cache.token().await.unwrap();
        cache.revoke().await.unwrap();
        assert_eq!((server.metadata_requests(), server.revocations()), (1, 2));

        server.metadata_fault(Fault::Redirect {
            status: StatusCode::FOUND,
            location: format!("{}/.well-known/openid-configuration", loopback.url())
                .parse()
                .unwrap(),
        });
        let error = token_of(&client()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse, "{error}");
        assert_eq!(server.metadata_requests(), 2);
    }

    #[tokio::test]
    async fn a_redirect_that_the_users_client_has_followed_is_an_error() {
        let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
        let loopback = tower_bearer::testing::serve(server.clone()).await.unwrap();
        let server = server.issuer(loopback.url());
        server.metadata_fault(Fault::Redirect {
            status: StatusCode::FOUND,
            location: format!("{}/.well-known/openid-configuration", loopback.url())
                .parse()
                .unwrap(),
        });
        let transport = tower_bearer::ReqwestTransport::from_client(
            reqwest::Client::builder().no_proxy().build().unwrap(),
        );
        let client = OAuthClient::discover_with_transport(loopback.url(), transport).unwrap();
        let error = token_of(&client).await.unwrap_err();
        assert!(error.to_string().contains("followed a redirect"), "{error}");
        assert_eq!(server.token_requests(), 0);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_yet_is_a_transient_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = token_of(&OAuthClient::discover(url).unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
        assert!(error.is_transient());
    }
}
