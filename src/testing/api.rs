//! [`ProtectedApi`]: the server that accepts the tokens.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    pause::Pause,
    recorded::{Log, RecordedRequest},
    rejection_response::RejectionResponse,
    requirements::{Requirement, ResourceMetadata},
    server::AuthorizationServer,
};

/// An API in memory that accepts requests with a valid token of its [`AuthorizationServer`], and rejects all others.
///
/// It answers an accepted request with 200 and an echo: the body, content type and trailers of the request, its method
/// in `x-echo-method` and its target in `x-echo-uri`. All clones are the same API. [`serve`](super::serve) puts it
/// behind a socket.
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
/// assert_eq!((api.accepted(), api.rejected(), api.attempts()["order-7"]), (1, 1, 2));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ProtectedApi {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) server: AuthorizationServer,
    state: Mutex<State>,
    pub(super) pause: Pause,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) rejection_response: RejectionResponse,
    pub(super) delay: Duration,
    /// How many bytes of a body are read before the token is checked, if not all.
    pub(super) check_after: Option<usize>,
    pub(super) hook: Option<Hook>,
    pub(super) reject_next: usize,
    pub(super) reject_all: bool,
    pub(super) requirements: Vec<Requirement>,
    pub(super) resource: ResourceMetadata,
    pub(super) log: Log,
    pub(super) received: usize,
    pub(super) accepted: usize,
    pub(super) rejected: usize,
    pub(super) attempts: HashMap<String, usize>,
}

pub(super) type Hook = Arc<dyn Fn(&RecordedRequest) + Send + Sync>;

impl ProtectedApi {
    pub(super) fn new(server: AuthorizationServer) -> Self {
        Self {
            shared: Arc::new(Shared {
                server,
                state: Mutex::default(),
                pause: Pause::default(),
            }),
        }
    }

    fn set(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.lock());
        self
    }

    /// How requests are rejected. Default: [`RejectionResponse::InvalidToken`].
    pub fn rejection_response(self, response: RejectionResponse) -> Self {
        self.set(|it| it.rejection_response = response)
    }

    /// How long each request waits before its token is checked, on Tokio's clock. Default: zero.
    pub fn delay(self, delay: Duration) -> Self {
        self.set(|it| it.delay = delay)
    }

    /// Checks the token when this number of bytes of the body has been read, and rejects without reading the rest.
    /// Default: after the whole body.
    pub fn reject_early(self, bytes: usize) -> Self {
        self.set(|it| it.check_after = Some(bytes))
    }

    /// Calls `hook` with each request before its token is checked. The check sees what the hook does to the server.
    pub fn on_request(self, hook: impl Fn(&RecordedRequest) + Send + Sync + 'static) -> Self {
        self.set(|it| it.hook = Some(Arc::new(hook)))
    }

    /// Rejects the next `n` requests, even with valid tokens.
    pub fn reject_next(&self, n: usize) {
        self.lock().reject_next = n;
    }

    /// Whether to reject every request, even with a valid token.
    pub fn reject_all(&self, reject: bool) {
        self.lock().reject_all = reject;
    }

    /// Holds every request back from now on until [`release`](Self::release) is called. A held request has been read,
    /// and its token has not been checked.
    pub fn hold(&self) {
        self.shared.pause.start();
    }

    /// Lets the held requests go on, and ends the holding of later ones.
    pub fn release(&self) {
        self.shared.pause.end();
    }

    /// Waits until at least `n` requests are held.
    ///
    /// # Examples
    ///
    /// A token is revoked while a hundred requests with it are in progress:
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
    /// api.wait_for_held(100).await;
    /// server.revoke_access_tokens();
    /// api.release();
    /// # while api.rejected() < 100 { tokio::task::yield_now().await }
    /// # assert_eq!(api.accepted(), 0);
    /// # Ok(()) }
    /// ```
    pub async fn wait_for_held(&self, n: usize) {
        self.shared.pause.wait_for_held(n).await;
    }

    /// The recorded requests, in the order in which they had been read. Held requests are included.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().log.to_vec()
    }

    /// How many requests arrived.
    pub fn received(&self) -> usize {
        self.lock().received
    }

    /// How many requests were accepted.
    pub fn accepted(&self) -> usize {
        self.lock().accepted
    }

    /// How many requests were rejected.
    pub fn rejected(&self) -> usize {
        self.lock().rejected
    }

    /// How often a request with each `x-request-id` arrived. More than twice means more than one replay.
    pub fn attempts(&self) -> HashMap<String, usize> {
        self.lock().attempts.clone()
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
            .field("rejection_response", &state.rejection_response)
            .field("received", &state.received)
            .field("accepted", &state.accepted)
            .field("rejected", &state.rejected)
            .finish_non_exhaustive()
    }
}
