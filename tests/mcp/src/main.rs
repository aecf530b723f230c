//! A client of a Model Context Protocol server that logs in by itself: `mcp-tests URL`.
//!
//! It asks the server which authorization server it trusts (RFC 9728), gets a token there, and lists the server's tools. How
//! it logs in follows from `MCP_CONFORMANCE_CONTEXT`, the JSON object that the conformance suite sets:
//!
//! | Members | Login |
//! |---|---|
//! | `client_id`, `client_secret` | client credentials, `client_secret_basic` |
//! | `client_id`, `private_key_pem`, `signing_algorithm` | client credentials, `private_key_jwt` |
//! | `client_id`, `valid_jwt` | JWT bearer with that assertion, as a workload has it in a file |
//! | `client_id`, `client_secret`, `idp_…` | the id token is exchanged at the identity provider, and the result is the assertion of a JWT bearer grant |

use std::{env, process::ExitCode};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{BoxError, Layer, ServiceExt, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, BoxTokenSource, ClientAuth, ClientCredentialsSource, JwtAlgorithm,
    JwtBearerSource, OAuthClient, Origins, ReqwestTransport, SecurityToken, SigningKey,
    TokenExchange, TokenExchangeSource, TokenSource,
};

const PROTOCOL_VERSION: &str = "2025-11-25";

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Bytes>, BoxError>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let url = env::args()
        .next_back()
        .filter(|url| url.starts_with("http"));
    let url = url.ok_or("the last argument is the URL of the server")?;
    let context: Value = serde_json::from_str(&env::var("MCP_CONFORMANCE_CONTEXT")?)?;

    let transport = ReqwestTransport::new()?;
    let anonymous = reading(transport.clone());
    let issuer = authorization_server(&anonymous, &url).await?;
    let source = source(&context, &issuer, &url)?;
    let layer = BearerAuthLayer::new(source).origins(Origins::only([origin(&url)?])?);
    let client = reading(layer.layer(transport));
    list_tools(&client, &url).await
}

/// Reads the body of each response.
fn reading<S, B>(service: S) -> Client
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: http_body_util::BodyExt<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(
        service
            .map_err(Into::into)
            .and_then(async |response: Response<B>| {
                let (head, body) = response.into_parts();
                let body = body.collect().await.map_err(Into::into)?.to_bytes();
                Ok(Response::from_parts(head, body))
            }),
    )
}

/// The issuer of the authorization server that the MCP server names (RFC 9728).
async fn authorization_server(client: &Client, url: &str) -> Result<String, BoxError> {
    let response = client
        .clone()
        .oneshot(post(url, &initialize(), None)?)
        .await?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return Err(format!("expected 401 without a token, got {}", response.status()).into());
    }
    let metadata_url = metadata_url(response.headers(), url)?;
    let request = Request::get(metadata_url).body(Full::default())?;
    let response = client.clone().oneshot(request).await?;
    if !response.status().is_success() {
        return Err(format!("the metadata of the server: {}", response.status()).into());
    }
    let metadata: Value = serde_json::from_slice(response.body())?;
    // The document is that of another server if it names another resource (RFC 9728 §3.3).
    let resource = metadata["resource"].as_str().unwrap_or_default();
    if resource.trim_end_matches('/') != url.trim_end_matches('/') {
        return Err("the metadata of the server is that of another resource".into());
    }
    let issuer = metadata["authorization_servers"][0].as_str();
    Ok(issuer
        .ok_or("the server names no authorization server")?
        .to_owned())
}

/// `resource_metadata` of the challenge, or else the well-known URL.
fn metadata_url(headers: &HeaderMap, url: &str) -> Result<String, BoxError> {
    let challenge = headers.get(header::WWW_AUTHENTICATE);
    let challenge = challenge.map(|value| value.to_str()).transpose()?;
    let named = challenge.and_then(|it| it.split_once("resource_metadata=\"")?.1.split_once('"'));
    if let Some((metadata_url, _)) = named {
        return Ok(metadata_url.to_owned());
    }
    let origin = origin(url)?;
    let path = &url[origin.len()..];
    Ok(format!(
        "{origin}/.well-known/oauth-protected-resource{path}"
    ))
}

fn origin(url: &str) -> Result<String, BoxError> {
    let uri: http::Uri = url.parse()?;
    let scheme = uri.scheme_str().ok_or("the URL has no scheme")?;
    let authority = uri.authority().ok_or("the URL has no host")?;
    Ok(format!("{scheme}://{authority}"))
}

/// The login that the context describes.
fn source(context: &Value, issuer: &str, url: &str) -> Result<BoxTokenSource, BoxError> {
    let text = |name: &str| context[name].as_str();
    let id = text("client_id").ok_or("the context has no `client_id`")?;
    let client = OAuthClient::discover(issuer)?;
    if let Some(assertion) = text("valid_jwt") {
        let client = client.client_auth(ClientAuth::none(id));
        return Ok(JwtBearerSource::new(client, fixed(assertion)).boxed());
    }
    let auth = match (text("client_secret"), text("private_key_pem")) {
        (Some(secret), _) => ClientAuth::client_secret_basic(id, secret),
        (None, Some(pem)) => {
            ClientAuth::private_key_jwt(id, SigningKey::from_pem(JwtAlgorithm::Es256, pem)?)
        }
        (None, None) => return Err("the context has neither a secret nor a key".into()),
    };
    let client = client.client_auth(auth);
    let (Some(id_token), Some(provider)) = (text("idp_id_token"), text("idp_issuer")) else {
        return Ok(ClientCredentialsSource::new(client).boxed());
    };
    let at_provider = text("idp_client_id").ok_or("the context has no `idp_client_id`")?;
    let provider = OAuthClient::discover(provider)?.client_auth(ClientAuth::none(at_provider));
    let id_type = TokenExchange::ID_TOKEN;
    let grant = TokenExchangeSource::new(provider, "the user", fixed(id_token), id_type)?
        .requested_token_type("urn:ietf:params:oauth:token-type:id-jag")
        .audience(issuer)
        .resource(url);
    Ok(JwtBearerSource::new(client, SecurityToken::from_source(grant)).boxed())
}

fn fixed(text: &str) -> SecurityToken {
    let text = text.to_owned();
    SecurityToken::from_fn(move |_| {
        let text = text.clone();
        async move { Ok(text) }
    })
}

async fn list_tools(client: &Client, url: &str) -> Result<(), BoxError> {
    let mut session = None;
    for message in [
        initialize(),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
    ] {
        let request = post(url, &message, session.as_ref())?;
        let response = client.clone().oneshot(request).await?;
        if !response.status().is_success() {
            return Err(format!("{}: {}", message["method"], response.status()).into());
        }
        session = response
            .headers()
            .get("mcp-session-id")
            .cloned()
            .or(session);
    }
    Ok(())
}

fn initialize() -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": PROTOCOL_VERSION,
            "capabilities": {},
            "clientInfo": {"name": "tower-bearer", "version": env!("CARGO_PKG_VERSION")},
        },
    })
}

fn post(
    url: &str,
    message: &Value,
    session: Option<&http::HeaderValue>,
) -> Result<Request<Full<Bytes>>, BoxError> {
    let mut request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/event-stream")
        .header("mcp-protocol-version", PROTOCOL_VERSION);
    if let Some(session) = session {
        request = request.header("mcp-session-id", session);
    }
    Ok(request.body(message.to_string().into())?)
}
