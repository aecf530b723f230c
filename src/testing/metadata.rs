//! The metadata documents of an [`AuthorizationServer`] (RFC 8414).

#[cfg(feature = "jwt")]
use http::header;
use http::{Method, Response, StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::{
    authorization, body::ResponseBody, device, dialect::Dialect, faults, recorded::RecordedRequest,
    responses, revocation, server::AuthorizationServer, settings::Settings,
};

/// Where a metadata document is published.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower::ServiceExt;
/// use tower_bearer::testing::{AuthorizationServer, Dialect, MetadataForm};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let server = AuthorizationServer::new(Dialect::Rfc6749)
///     .issuer("https://login.example.com/tenant")
///     .metadata_forms([MetadataForm::OpenId]);
///
/// let document = Request::get("/tenant/.well-known/openid-configuration").body(String::new())?;
/// assert_eq!(server.clone().oneshot(document).await?.status(), 200);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetadataForm {
    /// `/.well-known/oauth-authorization-server`, before the path of the issuer (RFC 8414 §3.1).
    OAuth,
    /// `/.well-known/openid-configuration`, before the path of the issuer (RFC 8414 §5).
    OpenIdInserted,
    /// `/.well-known/openid-configuration`, after the path of the issuer (`OpenID` Connect Discovery 1.0 §4).
    OpenId,
}

#[derive(Clone, Debug)]
pub(super) struct MetadataSettings {
    pub(super) issuer: Option<String>,
    forms: Vec<MetadataForm>,
    /// Members that replace those of the document.
    members: Map<String, Value>,
}

impl Default for MetadataSettings {
    fn default() -> Self {
        Self {
            issuer: None,
            forms: vec![
                MetadataForm::OAuth,
                MetadataForm::OpenIdInserted,
                MetadataForm::OpenId,
            ],
            members: Map::new(),
        }
    }
}

/// Metadata. Without an issuer there are none.
impl AuthorizationServer {
    /// Publishes metadata with this issuer, such as `https://login.example.com/tenant`. Its endpoints are those of the
    /// server, at the origin of the issuer. Default: no metadata.
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        self.set(|it| it.metadata.issuer = Some(issuer.into()))
    }

    /// Where the metadata are published. Default: in all forms.
    pub fn metadata_forms(self, forms: impl IntoIterator<Item = MetadataForm>) -> Self {
        let forms = forms.into_iter().collect();
        self.set(|it| it.metadata.forms = forms)
    }

    /// Sets a member of the metadata, such as another `issuer`. `null` removes it.
    pub fn metadata_member(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.set(|it| {
            it.metadata.members.insert(name, value);
        })
    }
}

/// Whether the request is for a document that is published.
pub(super) fn is_document(settings: &Settings, request: &RecordedRequest) -> bool {
    let Some(issuer) = &settings.metadata.issuer else {
        return false;
    };
    let path = issuer
        .parse::<Uri>()
        .map(|uri| uri.path().trim_end_matches('/').to_owned())
        .unwrap_or_default();
    let (oauth, openid) = (
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    );
    settings.metadata.forms.iter().any(|form| {
        request.uri.path()
            == match form {
                MetadataForm::OAuth => format!("{oauth}{path}"),
                MetadataForm::OpenIdInserted => format!("{openid}{path}"),
                MetadataForm::OpenId => format!("{path}{openid}"),
            }
    })
}

/// Whether the request is for a document, published or not.
pub(super) fn is_well_known(settings: &Settings, request: &RecordedRequest) -> bool {
    settings.metadata.issuer.is_some() && request.uri.path().contains("/.well-known/")
}

/// The response to a request for a document.
pub(super) fn respond(settings: &Settings, request: &RecordedRequest) -> Response<ResponseBody> {
    let bare = |status| faults::with_status(status, ResponseBody::empty());
    if !is_document(settings, request) {
        return bare(StatusCode::NOT_FOUND);
    }
    if request.method != Method::GET {
        return bare(StatusCode::METHOD_NOT_ALLOWED);
    }
    responses::object(StatusCode::OK, &document(settings))
}

/// The URL of `path` at the origin of the issuer.
pub(super) fn endpoint(settings: &Settings, path: &str) -> String {
    let issuer = settings.metadata.issuer.as_deref().unwrap_or_default();
    let origin_length = issuer
        .match_indices('/')
        .nth(2)
        .map_or(issuer.len(), |(at, _)| at);
    format!("{}{}{path}", &issuer[..origin_length], settings.prefix)
}

/// What an assertion may call this server: its issuer, or the URL of its token endpoint, as far as `request` tells it.
#[cfg(feature = "jwt")]
pub(super) fn audiences(settings: &Settings, request: &RecordedRequest) -> Vec<String> {
    let path = settings.dialect.paths()[0];
    let mut audiences = Vec::new();
    if let Some(issuer) = &settings.metadata.issuer {
        audiences.extend([issuer.clone(), endpoint(settings, path)]);
    }
    let host = request.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let schemes = ["https", "http"].map(Some);
    // Over a connection, the request does not tell its scheme.
    let (schemes, host) = match (request.uri.scheme_str(), request.uri.authority()) {
        (Some(scheme), Some(host)) => ([Some(scheme), None], Some(host.as_str())),
        _ => (schemes, host),
    };
    if let Some(host) = host {
        let schemes = schemes.into_iter().flatten();
        audiences
            .extend(schemes.map(|scheme| format!("{scheme}://{host}{}{path}", settings.prefix)));
    }
    audiences
}

fn document(settings: &Settings) -> Value {
    let (methods, algorithms) = settings.credential.methods();
    let mut document = json!({
        "issuer": settings.metadata.issuer,
        "token_endpoint": endpoint(settings, settings.dialect.paths()[0]),
        "revocation_endpoint": endpoint(settings, revocation::PATH),
        "response_types_supported": ["code"],
        "token_endpoint_auth_methods_supported": methods,
    });
    if !algorithms.is_empty() {
        document["token_endpoint_auth_signing_alg_values_supported"] = json!(algorithms);
    }
    if settings.dialect == Dialect::Rfc6749 {
        document["authorization_endpoint"] = json!(endpoint(settings, authorization::PATH));
        document["device_authorization_endpoint"] = json!(endpoint(settings, device::PATH));
        document["code_challenge_methods_supported"] = json!(["S256"]);
        document["authorization_response_iss_parameter_supported"] = json!(true);
    }
    for (name, value) in &settings.metadata.members {
        match value {
            Value::Null => drop(document.as_object_mut().and_then(|it| it.remove(name))),
            value => document[name] = value.clone(),
        }
    }
    document
}
