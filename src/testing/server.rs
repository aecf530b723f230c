//! [`AuthorizationServer`]: the one that issues tokens.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use tower::{BoxError, Service};

use super::{
    answers,
    body::{Reply, ReplyBody, ReplyFuture, Upload},
    dialect::{self, Dialect, Grant, Rejected},
    faults::Fault,
    grants::Grants,
    recorded::{Log, RecordedRequest},
    rules::{Dead, Issued, Rules},
    settings::Settings,
};

/// Token requests are small; what is longer than this is cut, and rejected for it.
const LONGEST_BODY: usize = 1024 * 1024;

/// An authorization server in memory: a `tower::Service` that issues tokens as its [`Dialect`] does, remembers what it
/// was asked, and fails in the ways it is [told to](AuthorizationServer::fault).
///
/// Clones are the same server. Every setting has a default that fits the dialect. To have it behind a socket, see
/// [`serve`](super::serve).
///
/// # Examples
///
/// A session begins, and the refresh token rotates:
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
/// // the token is spent
/// assert_eq!(server.clone().oneshot(request).await?.status(), 400);
/// assert_eq!(server.rejected(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AuthorizationServer {
    state: Arc<Mutex<State>>,
}

pub(super) struct State {
    settings: Settings,
    pub(super) grants: Grants,
    pub(super) faults: VecDeque<Fault>,
    pub(super) always: Option<Fault>,
    pub(super) log: Log,
    pub(super) counts: Counts,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) token_requests: usize,
    pub(super) exchanges: usize,
    pub(super) refreshes: usize,
    pub(super) client_credentials: usize,
    pub(super) rejected: usize,
    pub(super) reuse_detected: usize,
}

impl AuthorizationServer {
    /// The client id it knows unless told another; its colon wants encoding in Basic credentials.
    pub const CLIENT_ID: &str = "client:1";
    /// The client secret it knows unless told another; much of it wants encoding.
    pub const CLIENT_SECRET: &str = "s3cr+t/=&% ü";
    /// The e-mail address it knows unless told another.
    pub const EMAIL: &str = "somebody@example.com";

    /// A server that speaks `dialect`, and knows no session yet.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                settings: Settings::new(dialect),
                grants: Grants::default(),
                faults: VecDeque::new(),
                always: None,
                log: Log::default(),
                counts: Counts::default(),
            })),
        }
    }

    pub(super) fn set(self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.lock().settings);
        self
    }

    /// The path of its token endpoint.
    pub fn token_path(&self) -> String {
        let state = self.lock();
        let path = state.settings.dialect.paths()[0];
        format!("{}{path}", state.settings.prefix)
    }

    pub(super) fn check(&self, access_token: &str) -> Result<(), Dead> {
        self.lock()
            .with_grants(|grants, _, now| grants.check(access_token, now))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer<B>(self, request: Request<B>) -> Reply
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let mut upload = Upload::new(body);
        upload.read(LONGEST_BODY).await?;
        let request = RecordedRequest::new(head, &upload.data);
        // The lock is never held over an await: it is taken to note the request, and again to do the work.
        let fault = self.lock().arrive(request.clone());
        let instead = match &fault {
            Some(fault) => fault.instead().await,
            None => None,
        };
        let reply = if let Some(reply) = instead {
            reply
        } else {
            let response = self.lock().work(&request, fault.as_ref());
            match &fault {
                Some(fault) => fault.after(response).await,
                None => Ok(response),
            }
        };
        reply.map(|response| self.lock().dated(response))
    }
}

impl State {
    fn now(&self) -> SystemTime {
        let wall = self.settings.clock.now();
        let skew = Duration::from_secs(self.settings.skew.unsigned_abs());
        let skewed = if self.settings.skew < 0 {
            wall.checked_sub(skew)
        } else {
            wall.checked_add(skew)
        };
        skewed.unwrap_or(wall)
    }

    pub(super) fn with_grants<T>(
        &mut self,
        work: impl FnOnce(&mut Grants, &Rules, SystemTime) -> T,
    ) -> T {
        let now = self.now();
        work(&mut self.grants, &self.settings.rules, now)
    }

    fn arrive(&mut self, request: RecordedRequest) -> Option<Fault> {
        self.counts.token_requests += 1;
        self.log.push(request);
        self.faults.pop_front().or_else(|| self.always.clone())
    }

    fn work(&mut self, request: &RecordedRequest, fault: Option<&Fault>) -> Response<ReplyBody> {
        match self.grant(request, fault) {
            Ok(issued) => answers::issued(&self.settings, &issued),
            Err(rejected) => {
                self.counts.rejected += 1;
                if rejected == Rejected::Dead(Dead::Reused) {
                    self.counts.reuse_detected += 1;
                }
                answers::rejected(&self.settings, &rejected)
            }
        }
    }

    fn grant(
        &mut self,
        request: &RecordedRequest,
        fault: Option<&Fault>,
    ) -> Result<Issued, Rejected> {
        let grant = dialect::read(&self.settings, request)?;
        let now = self.now();
        let mut rules = self.settings.rules.clone();
        if let Some(fault) = fault {
            fault.bend(&mut rules);
        }
        let (issued, count) = match grant {
            Grant::Exchange(code) => (
                self.grants.exchange(&code, &rules, now),
                &mut self.counts.exchanges,
            ),
            Grant::Refresh(token) => (
                self.grants.refresh(&token, &rules, now),
                &mut self.counts.refreshes,
            ),
            Grant::ClientCredentials => (
                Ok(self.grants.client_credentials(&rules, now)),
                &mut self.counts.client_credentials,
            ),
        };
        let mut issued = issued.map_err(Rejected::Dead)?;
        *count += 1;
        if let Some(fault) = fault {
            fault.rob(&mut issued);
        }
        Ok(issued)
    }

    fn dated(&self, mut response: Response<ReplyBody>) -> Response<ReplyBody> {
        // What `Date` can tell: from 1970 up to the year 9999.
        let year_10000 = Duration::from_secs(253_402_300_800);
        let now = self.now();
        let told = now.duration_since(SystemTime::UNIX_EPOCH);
        if self.settings.date
            && !response.headers().contains_key(header::DATE)
            && told.is_ok_and(|since| since < year_10000)
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
    type Response = Response<ReplyBody>;
    type Error = BoxError;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ReplyFuture {
        ReplyFuture::new(self.clone().answer(request))
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
