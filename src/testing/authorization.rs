//! The authorization endpoint of an [`AuthorizationServer`](super::AuthorizationServer) (RFC 6749 §4.1), and its codes.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, Response, StatusCode, Uri, header::LOCATION};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    body::ResponseBody,
    dialect::{Dialect, Rejected, is_resource},
    faults,
    grants::reject_other_grants,
    params::Params,
    recorded::RecordedRequest,
    rules::{Invalid, Issued, Rules},
    server::{AuthorizationServer, State},
    sessions::{Sessions, end, is_past},
};

/// The path of the endpoint, after the prefix.
pub(super) const PATH: &str = "/authorize";

pub(super) const AUTHORIZATION_CODE: &str = "authorization_code";

/// RFC 6749 §4.1.2 recommends at most ten minutes.
const CODE_LIFETIME: Duration = Duration::from_secs(60);

impl AuthorizationServer {
    /// The path of the authorization endpoint (RFC 6749 §3.1) of [`Dialect::Rfc6749`], with the prefix.
    ///
    /// Its person always agrees, at once: the response redirects to the `redirect_uri` with a code, the `state`, and `iss` if
    /// there is an [`issuer`](Self::issuer). The redirect URI may be any, and PKCE is required (`S256`, RFC 7636). A code is
    /// valid for 60 seconds and once: if it is used again, its session ends (RFC 6749 §4.1.2).
    ///
    /// # Examples
    ///
    /// ```
    /// use http::Request;
    /// use tower::ServiceExt;
    /// use tower_bearer::testing::{AuthorizationServer, Dialect};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let server = AuthorizationServer::new(Dialect::Rfc6749).public_client("app");
    /// let url = format!(
    ///     "{}?response_type=code&client_id=app&redirect_uri=https://app.example/&state=xyz&code_challenge_method=S256\
    ///      &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    ///     server.authorization_path(),
    /// );
    /// let response = server.clone().oneshot(Request::get(url).body(String::new())?).await?;
    ///
    /// assert_eq!(response.status(), 302);
    /// assert!(response.headers()["location"].to_str()?.starts_with("https://app.example/?"));
    /// assert_eq!(server.authorizations(), 1);
    /// # Ok(()) }
    /// ```
    pub fn authorization_path(&self) -> String {
        format!("{}{PATH}", self.lock().settings.prefix)
    }
}

/// An authorization code, and what it is bound to.
#[derive(Debug)]
pub(super) struct Code {
    challenge: String,
    redirect_uri: String,
    resources: Vec<String>,
    expires: Option<SystemTime>,
    /// The session that it has begun.
    session: Option<usize>,
}

/// A token request with a code (RFC 6749 §4.1.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CodeRequest {
    code: String,
    redirect_uri: String,
    verifier: String,
    resources: Vec<String>,
}

impl CodeRequest {
    pub(super) fn read(params: &Params) -> Result<Self, Rejected> {
        reject_other_grants(params, &["refresh_token", "assertion", "subject_token"])?;
        Ok(Self {
            code: params.required("code")?.to_owned(),
            redirect_uri: params.required("redirect_uri")?.to_owned(),
            verifier: params.required("code_verifier")?.to_owned(),
            resources: params.all("resource").map(str::to_owned).collect(),
        })
    }
}

impl State {
    pub(super) fn is_authorization(&self, request: &RecordedRequest) -> bool {
        let path = request.uri.path().strip_prefix(&*self.settings.prefix);
        self.settings.dialect == Dialect::Rfc6749 && path == Some(PATH)
    }

    /// The redirect, or an error for the person if there is nowhere to redirect to (RFC 6749 §4.1.2.1).
    pub(super) fn authorize(&mut self, request: &RecordedRequest) -> Response<ResponseBody> {
        let bare = |status| faults::with_status(status, ResponseBody::empty());
        if request.method != Method::GET {
            return bare(StatusCode::METHOD_NOT_ALLOWED);
        }
        let query = request.uri.query().unwrap_or_default();
        let params = form_urlencoded::parse(query.as_bytes()).into_owned();
        let params = Params::new(params.collect()).ok();
        let is_known = |params: &Params| params.get("client_id") == Some(&*self.settings.client_id);
        let Some(params) = params.filter(is_known) else {
            self.counts.rejected += 1;
            return bare(StatusCode::BAD_REQUEST);
        };
        let redirect_uri = params.get("redirect_uri").map(str::to_owned);
        let Some(redirect_uri) = redirect_uri.filter(|uri| is_resource(uri)) else {
            self.counts.rejected += 1;
            return bare(StatusCode::BAD_REQUEST);
        };
        let (name, value) = match self.code(&params, &redirect_uri) {
            Ok(code) => {
                self.counts.authorizations += 1;
                ("code", code)
            }
            Err(error) => {
                self.counts.rejected += 1;
                ("error", error.to_owned())
            }
        };
        let mut answer = form_urlencoded::Serializer::new(String::new());
        answer.append_pair(name, &value);
        if let Some(state) = params.get("state") {
            answer.append_pair("state", state);
        }
        if let Some(issuer) = &self.settings.metadata.issuer {
            answer.append_pair("iss", issuer);
        }
        let separator = if redirect_uri.contains('?') { '&' } else { '?' };
        redirect(&format!("{redirect_uri}{separator}{}", answer.finish()))
    }

    fn code(&mut self, params: &Params, redirect_uri: &str) -> Result<String, &'static str> {
        if params.get("response_type") != Some("code") {
            return Err("unsupported_response_type");
        }
        let challenge = params.get("code_challenge");
        let challenge = challenge.filter(|_| params.get("code_challenge_method") == Some("S256"));
        let challenge = challenge.ok_or("invalid_request")?.to_owned();
        let resources: Vec<_> = params.all("resource").map(str::to_owned).collect();
        if !resources.iter().all(|uri| is_resource(uri)) {
            return Err("invalid_target");
        }
        let code = Code {
            challenge,
            redirect_uri: redirect_uri.to_owned(),
            resources,
            expires: end(self.settings.now(), CODE_LIFETIME),
            session: None,
        };
        Ok(self.sessions.issue_code(code))
    }
}

impl Sessions {
    fn issue_code(&mut self, code: Code) -> String {
        let value = self.new_token("ac");
        self.codes.insert(value.clone(), code);
        value
    }

    pub(super) fn exchange_code(
        &mut self,
        request: &CodeRequest,
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Result<Issued, Invalid>, Rejected> {
        let Some(code) = self.codes.get(&request.code) else {
            return Ok(Err(Invalid::Unknown));
        };
        if let Some(session) = code.session {
            self.all[session].revoked = true;
            return Ok(Err(Invalid::Spent));
        }
        if is_past(code.expires, now) {
            return Ok(Err(Invalid::Expired));
        }
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&request.verifier));
        if challenge != code.challenge || request.redirect_uri != code.redirect_uri {
            return Ok(Err(Invalid::Unknown));
        }
        let is_authorized = |uri: &String| code.resources.contains(uri);
        if !request.resources.iter().all(is_authorized) {
            return Err(Rejected::InvalidTarget);
        }
        let session = self.all.len();
        if let Some(code) = self.codes.get_mut(&request.code) {
            code.session = Some(session);
        }
        Ok(Ok(self.begin(rules.give_refresh_token, rules, now)))
    }
}

fn redirect(location: &str) -> Response<ResponseBody> {
    let mut response = faults::with_status(StatusCode::FOUND, ResponseBody::empty());
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The response with another value of a parameter of the URL that it redirects to. `null` removes it.
pub(super) fn with_parameter(
    mut response: Response<ResponseBody>,
    name: &str,
    value: &Value,
) -> Response<ResponseBody> {
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|it| it.to_str().ok()?.parse::<Uri>().ok());
    let Some(location) = location else {
        return response;
    };
    let text = location.to_string();
    let (base, query) = text.split_once('?').unwrap_or((&text, ""));
    let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .filter(|(known, _)| known != name)
        .collect();
    let value = match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    pairs.extend(value.map(|value| (name.to_owned(), value)));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    if let Ok(location) = HeaderValue::try_from(format!("{base}?{query}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
