//! Requests to the servers, for the tests in this folder.

mod api;
#[cfg(feature = "jwt")]
mod assertions;
mod authorization;
mod conformance;
mod device;
mod dialects;
mod faults;
mod loopback;
mod metadata;
mod scopes;
mod sessions;

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;

use super::{recorded::FORM, *};

const ID: &str = AuthorizationServer::CLIENT_ID;
const SECRET: &str = AuthorizationServer::CLIENT_SECRET;
const JSON: &str = "application/json";

const DIALECTS: [Dialect; 4] = [
    Dialect::Rfc6749,
    Dialect::Winbooks,
    Dialect::TwoBa,
    Dialect::Xoxoday,
];

fn form(params: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(params)
        .finish()
}

fn json_object(params: &[(&str, &str)]) -> String {
    let object: serde_json::Map<_, _> = params
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    Value::Object(object).to_string()
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(credentials))
}

fn encoded_basic() -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    basic(&format!("{}:{}", encode(ID), encode(SECRET)))
}

type TokenRequest = Request<Full<Bytes>>;

fn post(path: &str, content_type: &str, body: String) -> TokenRequest {
    Request::post(path)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ACCEPT, JSON)
        .body(body.into())
        .unwrap()
}

fn with_authorization(mut request: TokenRequest, value: &str) -> TokenRequest {
    let value = value.parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, value);
    request
}

/// A refresh request in the dialect's format.
fn refresh(dialect: Dialect, token: &str) -> TokenRequest {
    let grant = ("grant_type", "refresh_token");
    let (id, secret) = (("client_id", ID), ("client_secret", SECRET));
    match dialect {
        Dialect::Rfc6749 => {
            let request = post("/token", FORM, form(&[grant, ("refresh_token", token)]));
            with_authorization(request, &encoded_basic())
        }
        Dialect::Winbooks => {
            let request = post("/OAuth20/Token", FORM, form(&[grant, ("code", token)]));
            with_authorization(request, &basic(AuthorizationServer::EMAIL))
        }
        Dialect::TwoBa => {
            let body = form(&[grant, ("refresh_token", token), id, secret]);
            post("/OAuth/Token", FORM, body)
        }
        Dialect::Xoxoday => {
            let body = json_object(&[grant, ("refresh_token", token), id, secret]);
            post("/chef/v1/oauth/token/user", JSON, body)
        }
    }
}

fn exchange(code: &str) -> TokenRequest {
    let body = form(&[("grant_type", "exchange_token"), ("code", code)]);
    let request = post("/OAuth20/Token", FORM, body);
    with_authorization(request, &basic(AuthorizationServer::EMAIL))
}

async fn send(server: &AuthorizationServer, request: TokenRequest) -> Response<ResponseBody> {
    server.clone().oneshot(request).await.unwrap()
}

async fn status(server: &AuthorizationServer, request: TokenRequest) -> u16 {
    send(server, request).await.status().as_u16()
}

async fn text<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

async fn answer(server: &AuthorizationServer, request: TokenRequest) -> Value {
    serde_json::from_str(&text(send(server, request).await).await).unwrap()
}

/// Refreshes and returns the new refresh token and access token.
async fn refresh_tokens(
    server: &AuthorizationServer,
    dialect: Dialect,
    token: &str,
) -> (String, String) {
    let answer = answer(server, refresh(dialect, token)).await;
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (text("refresh_token"), text("access_token"))
}

fn call(token: &str) -> Request<Full<Bytes>> {
    let request = Request::get("/things").body(Full::default()).unwrap();
    with_authorization(request, &format!("Bearer {token}"))
}

async fn call_status(api: &ProtectedApi, token: &str) -> u16 {
    let response = api.clone().oneshot(call(token)).await.unwrap();
    response.status().as_u16()
}
