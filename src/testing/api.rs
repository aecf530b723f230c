//! [`ProtectedApi`]: the one that takes tokens.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    gate::Gate,
    recorded::{Log, RecordedRequest},
    rejection::Rejection,
    server::AuthorizationServer,
};

/// An API in memory that serves whoever brings a live token of its [`AuthorizationServer`], and rejects everybody else.
///
/// It answers 200 with the request's own body, content type and trailers, its method in `x-echo-method` and its target
/// in `x-echo-uri`. Clones are the same API. To have it behind a socket, see [`serve`](super::serve).
///
/// # Examples
///
/// ```
/// use http::Request;
/// use http_body_util::BodyExt;
/// use tower::ServiceExt;
/// use tower_bearer::testing::{AuthorizationServer, Dialect};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let server = AuthorizationServer::new(Dialect::Rfc6749);
/// let api = server.api();
///
/// let order = Request::post("/orders")
///     .header("authorization", format!("Bearer {}", server.issue_access_token()))
///     .header("x-request-id", "order-7")
///     .body(String::from("a bicycle"))?;
///
/// let response = api.clone().oneshot(order.clone()).await?;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.headers()["x-echo-method"], "POST");
/// assert_eq!(response.into_body().collect().await?.to_bytes(), "a bicycle");
///
/// server.revoke_access_tokens();
/// let response = api.clone().oneshot(order).await?;
/// assert_eq!(response.status(), 401);
/// assert_eq!((api.accepted(), api.rejected(), api.seen()["order-7"]), (1, 1, 2));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ProtectedApi {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) server: AuthorizationServer,
    state: Mutex<State>,
    pub(super) gate: Gate,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) rejection: Rejection,
    pub(super) delay: Duration,
    /// How much of a body is read before the token is looked at, if not all.
    pub(super) look_after: Option<usize>,
    pub(super) hook: Option<Hook>,
    pub(super) reject_next: usize,
    pub(super) reject_all: bool,
    pub(super) log: Log,
    pub(super) received: usize,
    pub(super) accepted: usize,
    pub(super) rejected: usize,
    pub(super) seen: HashMap<String, usize>,
}

pub(super) type Hook = Arc<dyn Fn(&RecordedRequest) + Send + Sync>;

impl ProtectedApi {
    pub(super) fn new(server: AuthorizationServer) -> Self {
        Self {
            shared: Arc::new(Shared {
                server,
                state: Mutex::default(),
                gate: Gate::default(),
            }),
        }
    }

    fn set(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.lock());
        self
    }

    /// How it rejects. Default: [`Rejection::Challenge`].
    pub fn rejection(self, rejection: Rejection) -> Self {
        self.set(|it| it.rejection = rejection)
    }

    /// How long it thinks about each request, by Tokio's time, before it looks at the token. Default: not at all.
    pub fn delay(self, delay: Duration) -> Self {
        self.set(|it| it.delay = delay)
    }

    /// Looks at the token once so many bytes of the body are there, and sends a rejection without reading the rest.
    /// Default: after the whole body.
    pub fn reject_early(self, bytes: usize) -> Self {
        self.set(|it| it.look_after = Some(bytes))
    }

    /// Calls `hook` with each request, before it looks at the token: what the hook does to the server counts already.
    pub fn on_request(self, hook: impl Fn(&RecordedRequest) + Send + Sync + 'static) -> Self {
        self.set(|it| it.hook = Some(Arc::new(hook)))
    }

    /// Rejects the next `n` requests, however good their tokens.
    pub fn reject_next(&self, n: usize) {
        self.lock().reject_next = n;
    }

    /// Whether to reject every request, however good its token.
    pub fn reject_all(&self, reject: bool) {
        self.lock().reject_all = reject;
    }

    /// From now on parks every request, read but with its token not yet looked at, until [`release`](Self::release).
    pub fn hold(&self) {
        self.shared.gate.close();
    }

    /// Lets the parked requests go on, and later ones pass.
    pub fn release(&self) {
        self.shared.gate.open();
    }

    /// Waits until at least `n` requests are parked.
    ///
    /// # Examples
    ///
    /// A hundred requests are under way when their token is revoked:
    ///
    /// ```
    /// # use http::Request;
    /// # use tower::ServiceExt;
    /// # use tower_bearer::testing::{AuthorizationServer, Dialect};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// # let server = AuthorizationServer::new(Dialect::Rfc6749);
    /// # let token = server.issue_access_token();
    /// let api = server.api();
    /// api.hold();
    /// for _ in 0..100 {
    /// #   let request = Request::get("/").header("authorization", format!("Bearer {token}")).body(String::new())?;
    ///     tokio::spawn(api.clone().oneshot(request));
    /// }
    /// api.parked(100).await;
    /// server.revoke_access_tokens();
    /// api.release();
    /// # while api.rejected() < 100 { tokio::task::yield_now().await }
    /// # assert_eq!(api.accepted(), 0);
    /// # Ok(()) }
    /// ```
    pub async fn parked(&self, n: usize) {
        self.shared.gate.parked(n).await;
    }

    /// The requests it answered or holds, in the order in which it had read them.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().log.to_vec()
    }

    /// How many requests arrived.
    pub fn received(&self) -> usize {
        self.lock().received
    }

    /// How many it served.
    pub fn accepted(&self) -> usize {
        self.lock().accepted
    }

    /// How many it rejected.
    pub fn rejected(&self) -> usize {
        self.lock().rejected
    }

    /// How often each `x-request-id` arrived: more than twice is more than one replay.
    pub fn seen(&self) -> HashMap<String, usize> {
        self.lock().seen.clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ProtectedApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("ProtectedApi")
            .field("rejection", &state.rejection)
            .field("received", &state.received)
            .field("accepted", &state.accepted)
            .field("rejected", &state.rejected)
            .finish_non_exhaustive()
    }
}
