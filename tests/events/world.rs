//! A session with an API behind the layer, a store that can fail, and an observer that writes down each event.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, OAuthClient, RefreshTokenSource, ReplayBody, StoredSession,
    TokenCache, TokenCacheBuilder,
    events::{Event, EventKind, Observer},
    testing::{AuthorizationServer, Dialect, ProtectedApi, ResponseBody, SimulatedClock},
};

use crate::support::{self, failing_store::FailingStore};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const NAME: &str = "user-7";
pub(crate) const GROUP: &str = "orders";

/// Writes down each event, and checks that it has the fields that its kind should have.
#[derive(Default)]
pub(crate) struct Recorder {
    lines: Mutex<Vec<String>>,
    kinds: Mutex<Vec<EventKind>>,
    /// All that the events show in `Debug`.
    pub(crate) shown: Mutex<String>,
    wants_requests: bool,
}

impl Recorder {
    pub(crate) fn of_requests() -> Self {
        Self {
            wants_requests: true,
            ..Self::default()
        }
    }

    /// The lines so far, which are then forgotten.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    pub(crate) fn count(&self, kind: EventKind) -> usize {
        let kinds = self.kinds.lock().unwrap();
        kinds.iter().filter(|it| **it == kind).count()
    }
}

impl Observer for Recorder {
    fn on_event(&self, event: &Event<'_>) {
        check_fields(event);
        let reason = event.reason.map(|it| format!(" {it}"));
        let outcome = event.outcome.map(|it| format!(" {it}"));
        let error = event.error.map(|it| format!(" {}", it.kind().as_str()));
        let parts = [reason, outcome, error].into_iter().flatten();
        let line = format!("{}{}", event.kind, parts.collect::<String>());
        self.lines.lock().unwrap().push(line);
        self.kinds.lock().unwrap().push(event.kind);
        let shown = format!("{event:?} {:?}", event.error.map(ToString::to_string));
        self.shown.lock().unwrap().push_str(&shown);
    }

    fn wants_requests(&self) -> bool {
        self.wants_requests
    }
}

/// What the table of the module says.
fn check_fields(event: &Event<'_>) {
    use EventKind as Kind;

    assert_eq!((event.name, event.group), (NAME, GROUP));
    assert_eq!(event.grant, "refresh_token");
    let has = |kinds: &[EventKind]| kinds.contains(&event.kind);
    let ends_refresh = [
        Kind::Refreshed,
        Kind::Adopted,
        Kind::Failed,
        Kind::ReauthRequired,
        Kind::Superseded,
    ];
    assert_eq!(event.reason.is_some(), has(&ends_refresh), "{event:?}");
    let timed = [Kind::SavedLate, Kind::Waited];
    let is_timed = has(&ends_refresh) || has(&timed);
    assert_eq!(event.duration.is_some(), is_timed, "{event:?}");
    let is_replay = has(&[Kind::Replayed]);
    assert_eq!(event.outcome.is_some(), is_replay, "{event:?}");
    if has(&[Kind::Refreshed, Kind::Adopted]) {
        assert!(event.generation.is_some(), "{event:?}");
        assert!(event.expires_at > Some(event.at), "{event:?}");
        assert!(event.next_due > Some(event.at), "{event:?}");
        assert!(event.next_due < event.expires_at, "{event:?}");
    }
    if has(&[Kind::Rejected, Kind::RequestSent]) {
        assert!(event.generation.is_some(), "{event:?}");
    }
    let fails = [Kind::Failed, Kind::ReauthRequired, Kind::NotSaved];
    assert!(event.error.is_some() || !has(&fails), "{event:?}");
    if event.kind == Kind::Failed {
        assert!(event.next_due > Some(event.at), "{event:?}");
    }
}

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody>, BoxError>;

pub(crate) struct World {
    pub(crate) server: AuthorizationServer,
    pub(crate) api: ProtectedApi,
    /// No response comes from the API while this is set.
    pub(crate) api_is_down: Arc<AtomicBool>,
    store: FailingStore,
    refresh_token: String,
    clock: SimulatedClock,
    pub(crate) cache: TokenCache,
    pub(crate) client: Client,
    pub(crate) observer: Arc<Recorder>,
}

impl World {
    pub(crate) fn new(observer: Recorder) -> Self {
        let observer = Arc::new(observer);
        let attached = Arc::clone(&observer);
        Self::build(observer, |builder| builder.observer(attached))
    }

    /// A world without an observer, whose cache has other settings.
    #[cfg(feature = "metrics")]
    pub(crate) fn with(set: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder) -> Self {
        Self::build(Arc::default(), set)
    }

    fn build(
        observer: Arc<Recorder>,
        set: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder,
    ) -> Self {
        let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH + 1_767_225_600 * SECOND);
        let server = AuthorizationServer::new(Dialect::Rfc6749)
            .access_lifetime(600 * SECOND)
            .clock(clock.clone());
        let store = FailingStore::default();
        let refresh_token = server.issue_refresh_token();
        let builder = builder(&server, &refresh_token, &store);
        let cache = set(builder.clock(clock.clone()).seed(7)).build();
        let (api, api_is_down) = (server.api(), Arc::new(AtomicBool::new(false)));
        let (service, is_down) = (api.clone(), api_is_down.clone());
        let service = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let (service, is_down) = (service.clone(), is_down.load(Ordering::SeqCst));
            async move {
                if is_down {
                    return Err(BoxError::from("the connection broke"));
                }
                service.oneshot(request).await
            }
        });
        Self {
            client: Client::new(BearerAuthLayer::from(cache.clone()).layer(service)),
            api,
            api_is_down,
            server,
            store,
            refresh_token,
            clock,
            cache,
            observer,
        }
    }

    /// Another process with the same configuration and the same store.
    pub(crate) fn other_process(&self) -> TokenCache {
        builder(&self.server, &self.refresh_token, &self.store)
            .name("another process")
            .clock(self.clock.clone())
            .build()
    }

    pub(crate) fn store_fails(&self, fails: bool) {
        self.store.fails.store(fails, Ordering::SeqCst);
    }

    pub(crate) async fn get(&self) -> Result<u16, BoxError> {
        let request = support::get(&format!("{}/orders", support::API));
        let response = self.client.clone().oneshot(request).await?;
        Ok(response.status().as_u16())
    }

    pub(crate) fn login(&self) -> StoredSession {
        let refresh_token = self.server.issue_refresh_token();
        StoredSession::new(tower_bearer::Identity::new("refresh", &refresh_token))
            .with_refresh_token(refresh_token)
    }

    /// Everything that must not be shown: the client's secret, and all tokens that were sent.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![
            AuthorizationServer::CLIENT_SECRET.to_owned(),
            self.refresh_token.clone(),
        ];
        for request in self.server.requests() {
            let sent = ["refresh_token", "token", "client_secret"];
            let sent = sent.iter().filter_map(|name| request.param(name));
            secrets.extend(sent.map(ToOwned::to_owned));
        }
        for request in self.api.requests() {
            let value = request.headers.get("authorization").unwrap();
            let value = value.to_str().unwrap();
            secrets.push(value.trim_start_matches("Bearer ").to_owned());
        }
        secrets
    }
}

fn builder(
    server: &AuthorizationServer,
    refresh_token: &str,
    store: &FailingStore,
) -> TokenCacheBuilder {
    let client = OAuthClient::with_transport(support::TOKEN_URL, server.clone())
        .unwrap()
        .revocation_url("https://login.example.com/revoke")
        .unwrap()
        .client_auth(ClientAuth::client_secret_post(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ));
    let source = RefreshTokenSource::new(client, refresh_token).store(store.clone());
    TokenCache::builder(source).name(NAME).group(GROUP)
}

/// The lock of a value in tests.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// An API that answers each request.
pub(crate) fn accepting()
-> impl Service<Request<ReplayBody<Full<Bytes>>>, Response = Response<Full<Bytes>>, Error = Infallible>
+ Clone {
    service_fn(|_| async { Ok(Response::new(Full::default())) })
}
