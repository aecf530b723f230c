//! How the program gets a client id. That is not a part of OAuth's grants, so the crate leaves it to the program.

use std::collections::HashMap;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::{Value, json};
use tower::{BoxError, ServiceExt};
use tower_bearer::{ClientAuth, JwtAlgorithm, ReqwestTransport, SigningKey};

use super::Settings;

/// Where the browser goes after a login. RFC 8252 §7.3 allows any port with it.
pub(super) const REDIRECT_URI: &str = "http://127.0.0.1/callback";

/// Longer documents are not read.
const MAX_DOCUMENT: usize = 64 * 1024;

/// What an authorization server publishes about itself (RFC 8414), as far as registration needs it.
pub(super) struct Metadata {
    issuer: String,
    document: Value,
}

impl Metadata {
    /// Reads the document of `issuer`, from the first URL that has one.
    pub(super) async fn read(transport: &ReqwestTransport, issuer: &str) -> Result<Self, BoxError> {
        let base = issuer.trim_end_matches('/');
        let origin_end = base
            .match_indices('/')
            .nth(2)
            .map_or(base.len(), |(at, _)| at);
        let (origin, path) = base.split_at(origin_end);
        for url in [
            format!("{origin}/.well-known/oauth-authorization-server{path}"),
            format!("{origin}/.well-known/openid-configuration{path}"),
            format!("{base}/.well-known/openid-configuration"),
        ] {
            let (status, document) = exchange(transport, Method::GET, &url, None).await?;
            if status.is_client_error() {
                continue;
            }
            // Another server's document would send what is registered here to that one (RFC 8414 §3.3).
            if document["issuer"] != issuer {
                return Err(format!("the document at {url} is of another issuer").into());
            }
            let issuer = issuer.to_owned();
            return Ok(Self { issuer, document });
        }
        Err(format!("{issuer} publishes no metadata").into())
    }

    /// Whether a person can log in. If not, the server is for machines.
    pub(super) fn has_login(&self) -> bool {
        let grants = &self.document["grant_types_supported"];
        let grants = grants.as_array();
        grants.is_none_or(|all| all.contains(&json!("authorization_code")))
    }

    fn supports(&self, method: &str) -> bool {
        let methods = &self.document["token_endpoint_auth_methods_supported"];
        match methods.as_array() {
            Some(methods) => methods.contains(&json!(method)),
            // RFC 8414 §2
            None => method == "client_secret_basic",
        }
    }
}

/// The clients of this program, each of one authorization server.
pub(super) struct Registrations {
    transport: ReqwestTransport,
    settings: Settings,
    /// By issuer: what one server has issued is never sent to another one.
    known: HashMap<String, ClientAuth>,
}

impl Registrations {
    pub(super) fn new(transport: ReqwestTransport, settings: Settings) -> Self {
        Self {
            transport,
            settings,
            known: HashMap::new(),
        }
    }

    /// The client at this server, in the order that the protocol recommends.
    pub(super) async fn client_auth(&mut self, server: &Metadata) -> Result<ClientAuth, BoxError> {
        if let Some(id) = self.settings.credential("client_id") {
            return self.registered_before(id, server);
        }
        let takes_documents = &server.document["client_id_metadata_document_supported"];
        if let Some(url) = &self.settings.client_id_url
            && *takes_documents == true
        {
            return Ok(ClientAuth::none(url));
        }
        if let Some(known) = self.known.get(&server.issuer) {
            return Ok(known.clone());
        }
        let client = self.register(server).await?;
        self.known.insert(server.issuer.clone(), client.clone());
        Ok(client)
    }

    fn registered_before(&self, id: &str, server: &Metadata) -> Result<ClientAuth, BoxError> {
        let text = |name| self.settings.credential(name);
        if text("issuer").is_some_and(|issuer| issuer != server.issuer) {
            return Err("the client was registered at another authorization server".into());
        }
        Ok(match (text("client_secret"), text("private_key_pem")) {
            (Some(secret), _) if server.supports("client_secret_basic") => {
                ClientAuth::client_secret_basic(id, secret)
            }
            (Some(secret), _) => ClientAuth::client_secret_post(id, secret),
            (None, Some(pem)) => {
                ClientAuth::private_key_jwt(id, SigningKey::from_pem(JwtAlgorithm::Es256, pem)?)
            }
            (None, None) => ClientAuth::none(id),
        })
    }

    /// Registers the program now (RFC 7591).
    async fn register(&self, server: &Metadata) -> Result<ClientAuth, BoxError> {
        let endpoint = server.document["registration_endpoint"].as_str();
        let endpoint =
            endpoint.ok_or("the program is not registered, and the server registers none")?;
        let all = ["none", "client_secret_basic", "client_secret_post"];
        let method = all.into_iter().find(|method| server.supports(method));
        let method = method.ok_or("the server takes none of the program's ways to authenticate")?;
        let program = json!({
            "client_name": "tower-bearer",
            "application_type": "native",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
        });
        let (status, client) =
            exchange(&self.transport, Method::POST, endpoint, Some(&program)).await?;
        if !status.is_success() {
            return Err(format!("the server does not register the program: {status}").into());
        }
        let text = |name: &str| client[name].as_str();
        let id = text("client_id").ok_or("the registration has no `client_id`")?;
        let secret = text("client_secret").ok_or("the registration has no `client_secret`");
        Ok(match text("token_endpoint_auth_method").unwrap_or(method) {
            "client_secret_basic" => ClientAuth::client_secret_basic(id, secret?),
            "client_secret_post" => ClientAuth::client_secret_post(id, secret?),
            _ => ClientAuth::none(id),
        })
    }
}

/// Sends a request with JSON, or without a body, and reads JSON. Anything else is `null`.
async fn exchange(
    transport: &ReqwestTransport,
    method: Method,
    url: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), BoxError> {
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header(header::ACCEPT, "application/json");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    let response = transport
        .clone()
        .oneshot(request.body(Full::new(body))?)
        .await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_DOCUMENT)
        .collect()
        .await?;
    Ok((
        status,
        serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
    ))
}
