//! What a [`ProtectedApi`] requires of a valid token, and the metadata that it publishes.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use serde_json::{Map, Value, json};

use super::{
    api::ProtectedApi,
    body::{ResponseBody, ResponseResult},
    faults::{Fault, FaultQueue, with_status},
    recorded::RecordedRequest,
    responses,
    scopes::{GrantedScope, names},
};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// What requests to some paths need besides a valid token.
#[derive(Debug)]
pub(super) struct Requirement {
    path: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scope(String),
    Claims(String),
    /// Never met.
    Challenge(StatusCode, String),
}

/// The metadata of an API (RFC 9728).
#[derive(Debug, Default)]
pub(super) struct ResourceMetadata {
    resource: Option<String>,
    document: Map<String, Value>,
    faults: FaultQueue,
    requests: usize,
}

/// More than a valid token. A path stands for all paths that begin with it.
impl ProtectedApi {
    /// Requires a token with this scope: names with spaces between them. Other tokens get 403 and the challenge
    /// `insufficient_scope`, which names it (RFC 6750 §3.1).
    ///
    /// # Examples
    ///
    /// ```
    /// use http::Request;
    /// use tower::ServiceExt;
    /// use tower_bearer::testing::{AuthorizationServer, Dialect};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let server = AuthorizationServer::new(Dialect::Rfc6749);
    /// let api = server.api().require_scope("/reports", "reports:read");
    /// let get = |path| {
    ///     let authorization = format!("Bearer {}", server.issue_access_token());
    ///     Request::get(path).header("authorization", authorization).body(String::new())
    /// };
    ///
    /// assert_eq!(api.clone().oneshot(get("/invoices")?).await?.status(), 200);
    /// assert_eq!(api.oneshot(get("/reports/7")?).await?.status(), 403);
    /// # Ok(()) }
    /// ```
    pub fn require_scope(self, path: impl Into<String>, scope: impl Into<String>) -> Self {
        self.require(path.into(), Kind::Scope(scope.into()))
    }

    /// Requires a token that was requested with this parameter `claims`, a JSON object. Other tokens get 401 and the challenge
    /// `insufficient_claims`, with the claims in base64.
    pub fn require_claims(self, path: impl Into<String>, claims: impl Into<String>) -> Self {
        self.require(path.into(), Kind::Claims(claims.into()))
    }

    /// Answers each request with a valid token with this status and this `WWW-Authenticate`, such as
    /// `Bearer error="insufficient_user_authentication", max_age="60"` (RFC 9470 §3).
    pub fn challenge(
        self,
        path: impl Into<String>,
        status: StatusCode,
        challenge: impl Into<String>,
    ) -> Self {
        self.require(path.into(), Kind::Challenge(status, challenge.into()))
    }

    /// Publishes metadata of this API (RFC 9728 §2): `resource` is its URL. Challenges name where they are. Default: none.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_bearer::{ProtectedResource, testing::{AuthorizationServer, Dialect}};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer::TokenError> {
    /// let api = AuthorizationServer::new(Dialect::Rfc6749)
    ///     .api()
    ///     .resource_metadata("https://api.example.com/v2", ["https://login.example.com"]);
    ///
    /// let found = ProtectedResource::discover_with_transport("https://api.example.com/v2", None, api).await?;
    /// assert_eq!(found.authorization_servers(), ["https://login.example.com"]);
    /// # Ok(()) }
    /// ```
    pub fn resource_metadata(
        self,
        resource: impl Into<String>,
        authorization_servers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let resource = resource.into();
        let servers: Vec<String> = authorization_servers.into_iter().map(Into::into).collect();
        let members = [
            ("resource", json!(resource)),
            ("authorization_servers", json!(servers)),
            ("bearer_methods_supported", json!(["header"])),
        ];
        let metadata = &mut self.lock().resource;
        metadata.resource = Some(resource);
        for (name, value) in members {
            metadata.document.insert(name.to_owned(), value);
        }
        self.clone()
    }

    /// Sets a member of the metadata, such as another `resource`. `null` removes it.
    pub fn resource_member(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let (name, value) = (name.into(), value.into());
        let document = &mut self.lock().resource.document;
        match value {
            Value::Null => document.remove(&name),
            value => document.insert(name, value),
        };
        self.clone()
    }

    /// Adds a fault for one request of the metadata, after those that were added before.
    pub fn resource_fault(&self, fault: Fault) {
        self.lock().resource.faults.next.push_back(fault);
    }

    /// How many requests for the metadata arrived, with any result.
    pub fn resource_requests(&self) -> usize {
        self.lock().resource.requests
    }

    fn require(self, path: String, kind: Kind) -> Self {
        self.lock().requirements.push(Requirement { path, kind });
        self
    }

    /// The response to a request for the metadata. `None` if it is for something else.
    pub(super) async fn metadata(&self, request: &RecordedRequest) -> Option<ResponseResult> {
        let (fault, response) = {
            let mut state = self.lock();
            let metadata = &mut state.resource;
            let resource = metadata.resource.as_ref()?;
            if request.method != Method::GET || request.uri.path() != well_known(resource) {
                return None;
            }
            metadata.requests += 1;
            let document = Value::Object(metadata.document.clone());
            let response = responses::object(StatusCode::OK, &document);
            (metadata.faults.take(), response)
        };
        let Some(fault) = fault else {
            return Some(Ok(response));
        };
        match fault.replacement().await {
            Some(replacement) => Some(replacement),
            None => Some(fault.deliver(response).await),
        }
    }

    /// The response to a request whose valid token does not meet a requirement.
    pub(super) fn unmet(
        &self,
        request: &RecordedRequest,
        granted: &GrantedScope,
    ) -> Option<Response<ResponseBody>> {
        let state = self.lock();
        let on_path = |it: &&Requirement| request.uri.path().starts_with(&it.path);
        let mut all = state.requirements.iter().filter(on_path);
        let (status, challenge) = all.find_map(|it| it.kind.unmet(granted))?;
        let mut response = with_status(status, ResponseBody::empty());
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        Some(response)
    }

    /// Names the metadata in the `Bearer` challenge of a response, if there are any.
    pub(super) fn with_metadata_url(
        &self,
        mut response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        let state = self.lock();
        let challenge = response.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|it| it.to_str().ok());
        if let (Some(resource), Some(challenge)) = (&state.resource.resource, challenge)
            && challenge.starts_with("Bearer ")
            && !challenge.contains("resource_metadata")
        {
            let url = format!("{}{}", origin(resource), well_known(resource));
            let challenge = format!("{challenge}, resource_metadata=\"{url}\"");
            if let Ok(challenge) = HeaderValue::try_from(challenge) {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }
}

impl Kind {
    /// The challenge of a token that does not meet the requirement.
    fn unmet(&self, granted: &GrantedScope) -> Option<(StatusCode, String)> {
        match self {
            Self::Scope(scope) => {
                let challenge =
                    format!(r#"Bearer realm="api", error="insufficient_scope", scope="{scope}""#);
                let is_met = names(scope).is_subset(&granted.scopes);
                (!is_met).then_some((StatusCode::FORBIDDEN, challenge))
            }
            Self::Claims(claims) => {
                let encoded = BASE64_STANDARD.encode(claims);
                let challenge = format!(
                    r#"Bearer realm="api", error="insufficient_claims", claims="{encoded}""#
                );
                let is_met = granted.claims.as_ref() == Some(claims);
                (!is_met).then_some((StatusCode::UNAUTHORIZED, challenge))
            }
            Self::Challenge(status, challenge) => Some((*status, challenge.clone())),
        }
    }
}

/// The path of the metadata of `resource` (RFC 9728 §3.1).
fn well_known(resource: &str) -> String {
    let path = resource.parse::<Uri>();
    let path = path.map(|uri| uri.path().trim_end_matches('/').to_owned());
    format!("{WELL_KNOWN}{}", path.unwrap_or_default())
}

fn origin(resource: &str) -> &str {
    let slash = resource.match_indices('/').nth(2);
    &resource[..slash.map_or(resource.len(), |(at, _)| at)]
}
