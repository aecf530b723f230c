//! [`Client`]: sends messages to one server.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneSyncService};
use tower_bearer::{BearerAuthLayer, Challenge, Origins, ReqwestTransport};

use super::{
    Settings,
    login::{LoggedIn, Logins},
};

/// Later versions of the protocol have no sessions of their own: each request says all.
const LAST_WITH_SESSIONS: &str = "2025-11-25";

type Http = BoxCloneSyncService<Request<Full<Bytes>>, Response<Bytes>, BoxError>;

/// A client of one server.
pub(crate) struct Client {
    url: String,
    settings: Settings,
    transport: ReqwestTransport,
    logins: Logins,
    logged_in: Option<LoggedIn>,
    http: Http,
    /// The session of the protocol, which has nothing to do with the login.
    session: Option<HeaderValue>,
    last_id: u64,
}

impl Client {
    pub(crate) fn new(url: &str, settings: Settings) -> Result<Self, BoxError> {
        let transport = ReqwestTransport::new()?;
        Ok(Self {
            url: url.to_owned(),
            logins: Logins::new(transport.clone(), settings.clone()),
            settings,
            logged_in: None,
            http: reading(transport.clone()),
            transport,
            session: None,
            last_id: 0,
        })
    }

    /// Begins the session of the protocol, in the versions that have one.
    pub(crate) async fn begin(&mut self) -> Result<(), BoxError> {
        if self.is_stateless() {
            return Ok(());
        }
        let parameters = json!({
            "protocolVersion": self.settings.protocol,
            "capabilities": {},
            "clientInfo": client_info(),
        });
        self.request("initialize", parameters).await?;
        let message = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.send("notifications/initialized", &message).await?;
        Ok(())
    }

    /// Sends a request, and returns its result.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        parameters: Value,
    ) -> Result<Value, BoxError> {
        self.last_id += 1;
        let mut parameters = parameters;
        if self.is_stateless() {
            parameters["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": self.settings.protocol,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": client_info(),
            });
        }
        let message =
            json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": parameters});
        let response = self.send(method, &message).await?;
        let body = std::str::from_utf8(response.body())?;
        // One message, or a stream of events whose last one is the answer.
        let mut events = body.lines().filter_map(|line| line.strip_prefix("data:"));
        let answer: Value = serde_json::from_str(events.next_back().unwrap_or(body))?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{method}: the server answers {}", answer["error"]).into()),
        }
    }

    /// Sends a message. If the server wants a login, or one with more scope, logs in and sends it once more.
    async fn send(&mut self, method: &str, message: &Value) -> Result<Response<Bytes>, BoxError> {
        let mut response = self.send_once(method, message).await?;
        if let Some(challenge) = self.login_wanted(&response) {
            let before = self.logged_in.take();
            let logged_in = self.logins.log_in(&self.url, &challenge, before).await?;
            let layer = BearerAuthLayer::from(logged_in.cache.clone())
                // The token is for this server, wherever the authorization server says that tokens may go.
                .origins(Origins::only([origin(&self.url)?])?);
            self.http = reading(layer.layer(self.transport.clone()));
            self.logged_in = Some(logged_in);
            response = self.send_once(method, message).await?;
        }
        if !response.status().is_success() {
            return Err(format!("{method}: the server answers {}", response.status()).into());
        }
        let session = response.headers().get("mcp-session-id");
        self.session = session.cloned().or(self.session.take());
        Ok(response)
    }

    async fn send_once(&self, method: &str, message: &Value) -> Result<Response<Bytes>, BoxError> {
        let mut request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", &self.settings.protocol);
        if self.is_stateless() {
            request = request.header("mcp-method", method);
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        let request = request.body(message.to_string().into())?;
        self.http.clone().oneshot(request).await
    }

    /// What the server asks for, if only a login can give that.
    ///
    /// The layer has refreshed the token, and asked for more, where no login is needed for it.
    fn login_wanted(&self, response: &Response<Bytes>) -> Option<Challenge> {
        let challenge = Challenge::from_headers(response.headers());
        match response.status() {
            StatusCode::UNAUTHORIZED => challenge,
            StatusCode::FORBIDDEN if self.logged_in.as_ref()?.is_person => {
                challenge.filter(|it| it.error() == Some("insufficient_scope"))
            }
            _ => None,
        }
    }

    fn is_stateless(&self) -> bool {
        self.settings.protocol.as_str() > LAST_WITH_SESSIONS
    }
}

fn client_info() -> Value {
    json!({"name": "tower-bearer", "version": "1"})
}

fn origin(url: &str) -> Result<String, BoxError> {
    let uri: http::Uri = url.parse()?;
    let scheme = uri.scheme_str().ok_or("the URL has no scheme")?;
    let authority = uri.authority().ok_or("the URL has no host")?;
    Ok(format!("{scheme}://{authority}"))
}

/// Reads the body of each response.
fn reading<S, B>(service: S) -> Http
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>
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
