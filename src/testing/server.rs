//! [`AuthorizationServer`]: the server that issues tokens.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use tower::{BoxError, Service};

#[cfg(feature = "jwt")]
use super::assertion::SeenIds;
use super::{
    body::{ResponseBody, ResponseFuture, ResponseResult, Upload},
    control::Counts,
    dialect::{Dialect, Grant, Rejected},
    faults::{Fault, FaultQueue},
    recorded::{Log, RecordedRequest},
    rules::{Invalid, Issued, Rules},
    sessions::Sessions,
    settings::Settings,
};

/// Longer request bodies are cut off and then rejected. Token requests are small.
const LONGEST_BODY: usize = 1024 * 1024;

/// An authorization server in memory: a `tower::Service` that issues tokens in the style of its [`Dialect`], records
/// the requests, and fails [on demand](AuthorizationServer::fault).
///
/// All clones are the same server. Every setting has a default that fits the dialect. [`serve`](super::serve) puts it
/// behind a socket.
///
/// # Examples
///
/// A refresh token rotates, and the old one is rejected:
///
/// ```
/// use http::Request;
/// use tower::ServiceExt;
/// use tower_bearer::testing::{AuthorizationServer, Dialect};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let server = AuthorizationServer::new(Dialect::Xoxoday).client("id", "secret");
/// let refresh_token = server.issue_refresh_token();
///
/// let body = format!(
///     r#"{{"grant_type":"refresh_token","refresh_token":"{refresh_token}","client_id":"id","client_secret":"secret"}}"#
/// );
/// let request = Request::post("/chef/v1/oauth/token/user")
///     .header("content-type", "application/json")
///     .body(body)?;
/// let response = server.clone().oneshot(request.clone()).await?;
/// assert_eq!(response.status(), 200);
/// assert_eq!(server.refreshes(), 1);
///
/// // The refresh token has been used up.
/// assert_eq!(server.clone().oneshot(request).await?.status(), 400);
/// assert_eq!(server.rejected(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AuthorizationServer {
    state: Arc<Mutex<State>>,
}

pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) sessions: Sessions,
    #[cfg(feature = "jwt")]
    pub(super) seen_ids: SeenIds,
    pub(super) faults: FaultQueue,
    pub(super) metadata_faults: FaultQueue,
    pub(super) revocation_faults: FaultQueue,
    pub(super) authorization_faults: FaultQueue,
    pub(super) device_authorization_faults: FaultQueue,
    pub(super) log: Log,
    pub(super) counts: Counts,
}

impl AuthorizationServer {
    /// The default client id. Its colon must be encoded in Basic credentials.
    pub const CLIENT_ID: &str = "client:1";
    /// The default client secret. Most of its special characters must be encoded.
    pub const CLIENT_SECRET: &str = "s3cr+t/=&% ü";
    /// The default e-mail address.
    pub const EMAIL: &str = "somebody@example.com";

    /// Creates a server for `dialect`, without sessions.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                settings: Settings::new(dialect),
                sessions: Sessions::default(),
                #[cfg(feature = "jwt")]
                seen_ids: SeenIds::default(),
                faults: FaultQueue::default(),
                metadata_faults: FaultQueue::default(),
                revocation_faults: FaultQueue::default(),
                authorization_faults: FaultQueue::default(),
                device_authorization_faults: FaultQueue::default(),
                log: Log::default(),
                counts: Counts::default(),
            })),
        }
    }

    pub(super) fn set(self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.lock().settings);
        self
    }

    /// The path of the token endpoint, with the prefix.
    pub fn token_path(&self) -> String {
        let state = self.lock();
        let path = state.settings.dialect.paths()[0];
        format!("{}{path}", state.settings.prefix)
    }

    pub(super) fn check(&self, access_token: &str) -> Result<(), Invalid> {
        self.lock()
            .with_sessions(|sessions, _, now| sessions.check(access_token, now))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn handle<B>(self, request: Request<B>) -> ResponseResult
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let mut upload = Upload::new(body);
        upload.read(LONGEST_BODY).await?;
        let request = RecordedRequest::new(head, &upload.data);
        // The lock is never held across an await: it is taken to record the request, and again to process it.
        let fault = self.lock().record(request.clone());
        let replacement = match &fault {
            Some(fault) => fault.replacement().await,
            None => None,
        };
        let response = if let Some(response) = replacement {
            response
        } else {
            let response = self.lock().respond(&request, fault.as_ref());
            match &fault {
                Some(fault) => fault.deliver(response).await,
                None => Ok(response),
            }
        };
        response.map(|response| self.lock().add_date(response))
    }
}

impl State {
    pub(super) fn with_sessions<T>(
        &mut self,
        work: impl FnOnce(&mut Sessions, &Rules, SystemTime) -> T,
    ) -> T {
        let now = self.settings.now();
        work(&mut self.sessions, &self.settings.rules, now)
    }

    pub(super) fn grant(
        &mut self,
        request: &RecordedRequest,
        fault: Option<&Fault>,
    ) -> Result<Issued, Rejected> {
        let grant = self.read(request)?;
        if let Grant::JwtBearer(assertion) = &grant {
            self.check_grant(request, assertion)?;
        }
        let granted = self.scope_of(request, &grant)?;
        let now = self.settings.now();
        let mut rules = self.settings.rules.clone();
        if let Some(fault) = fault {
            fault.adjust_rules(&mut rules);
        }
        let (issued, count) = match grant {
            Grant::Exchange(code) => (
                self.sessions.exchange(&code, &rules, now),
                &mut self.counts.exchanges,
            ),
            Grant::Refresh(token) => (
                self.sessions.refresh(&token, &rules, now),
                &mut self.counts.refreshes,
            ),
            Grant::ClientCredentials => (
                Ok(self.sessions.client_credentials(&rules, now)),
                &mut self.counts.client_credentials,
            ),
            Grant::JwtBearer(_) => (
                Ok(self.sessions.begin_without_refresh(&rules, now)),
                &mut self.counts.jwt_bearers,
            ),
            Grant::TokenExchange(exchange) => (
                self.sessions.token_exchange(&exchange, &rules, now),
                &mut self.counts.token_exchanges,
            ),
            Grant::AuthorizationCode(request) => (
                self.sessions.exchange_code(&request, &rules, now)?,
                &mut self.counts.code_grants,
            ),
            Grant::DeviceCode(request) => (
                self.sessions.exchange_device_code(&request, &rules, now)?,
                &mut self.counts.device_grants,
            ),
            Grant::Password(login) => (
                self.sessions
                    .log_in(&login, self.settings.user.as_ref(), &rules, now),
                &mut self.counts.password_logins,
            ),
        };
        let mut issued = issued.map_err(Rejected::Invalid)?;
        *count += 1;
        if self.settings.scopes.is_some() && !granted.scopes.is_empty() {
            let scopes: Vec<_> = granted.scopes.iter().map(String::as_str).collect();
            issued.scope = Some(scopes.join(" "));
        }
        self.sessions.set_granted(&issued.access, granted);
        Ok(issued)
    }

    fn add_date(&self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        // A `Date` header can only represent the years from 1970 to 9999.
        let year_10000 = Duration::from_secs(253_402_300_800);
        let now = self.settings.now();
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
        if self.settings.date
            && !response.headers().contains_key(header::DATE)
            && since_1970.is_ok_and(|since| since < year_10000)
            && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            response.headers_mut().insert(header::DATE, date);
        }
        response
    }
}

impl<B> Service<Request<B>> for AuthorizationServer
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        ResponseFuture::new(self.clone().handle(request))
    }
}

impl fmt::Debug for AuthorizationServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("AuthorizationServer")
            .field("dialect", &state.settings.dialect)
            .field("token_requests", &state.counts.token_requests)
            .finish_non_exhaustive()
    }
}
