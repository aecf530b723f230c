//! What the tests of step-ups share: a machine that asks for `read`, and an API whose paths need more.

use std::future::{Ready, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, ClientCredentialsSource, OAuthClient, ReplayBody, StepUp,
    TokenCache, TokenError, TokenSource,
    testing::{AuthorizationServer, Dialect, ProtectedApi, ResponseBody},
};

use super::{API, FullRequest, TOKEN_URL, get};

pub type Client = BoxCloneSyncService<FullRequest, Response<ResponseBody>, BoxError>;

pub fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}

pub fn oauth(server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::with_transport(TOKEN_URL, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ))
}

/// A machine that asks for `read`.
pub fn machine(server: &AuthorizationServer) -> ClientCredentialsSource {
    ClientCredentialsSource::new(oauth(server)).scope("read")
}

pub fn allowed() -> StepUp {
    StepUp::new().scopes(["write", "delete"])
}

pub fn cache(source: impl TokenSource) -> TokenCache {
    TokenCache::builder(source).step_up(allowed()).build()
}

pub fn client(cache: &TokenCache, api: &ProtectedApi) -> Client {
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache.clone()))
        .service(api.clone());
    BoxCloneSyncService::new(stack)
}

pub fn url(path: &str) -> String {
    format!("{API}{path}")
}

pub async fn send(client: &Client, path: &str) -> Response<ResponseBody> {
    client.clone().oneshot(get(&url(path))).await.unwrap()
}

pub async fn ok(client: &Client, path: &str) -> bool {
    send(client, path).await.status() == StatusCode::OK
}

/// Why there was no more.
pub fn reason<R>(response: &Response<R>) -> Option<TokenError> {
    response.extensions().get().cloned()
}

/// The scopes of all token requests.
pub fn requested(server: &AuthorizationServer) -> Vec<String> {
    let requests = server.requests();
    let scope = requests.iter().map(|it| it.param("scope").unwrap_or("-"));
    scope.map(str::to_owned).collect()
}

pub fn api(server: &AuthorizationServer) -> ProtectedApi {
    server
        .api()
        .require_scope("/orders", "write")
        .require_scope("/orders/7", "delete")
        .require_scope("/admin", "admin")
}

/// An API that asks all requests for `write`.
pub fn asks(_: Request<ReplayBody<Full<Bytes>>>) -> Ready<Result<Response<String>, http::Error>> {
    let challenge = r#"Bearer error="insufficient_scope", scope="write""#;
    let response = Response::builder()
        .status(403)
        .header("www-authenticate", challenge);
    ready(response.body(String::new()))
}
