//! A process: a cache over a source, and tasks that send requests to the API.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};
use tower::{
    BoxError, Layer, ServiceExt,
    util::{BoxCloneSyncService, MapResponse},
};
use tower_bearer::{
    BearerAuthLayer, ClientAuth, ExchangeTokenSource, Grant, GrantSource, OAuthClient,
    RefreshTokenSource, Schedule, TokenCache, TokenError, testing::SimulatedClock,
};

use crate::{
    host::Host,
    observed::Observed,
    oracle::Outcome,
    plan::{GrantKind, Plan, SECOND},
    store_client::SimulatedStore,
    transport::{Api, REVOCATION_URL, TOKEN_URL, Transport},
    world::{World, note},
};

/// How many tasks of a process send requests.
const TASKS: usize = 2;

type Client = BoxCloneSyncService<Request<Full<Bytes>>, StatusCode, BoxError>;

struct Process {
    host: Host,
    client: Client,
    tasks: Vec<AbortHandle>,
}

/// Keeps a process running: starts it, and starts it again some time after it has died.
pub(crate) async fn supervise(world: World, process: usize) {
    loop {
        let (host, died) = {
            let mut state = world.lock();
            let state = &mut state.hosts[process];
            state.life += 1;
            state.is_alive = true;
            // It may be known already that the life before has ended.
            state.died = Arc::default();
            state.clock_was_wrong_by = (state.clock_is_wrong_by, state.clock_is_wrong_by);
            state.unsent = None;
            state.lease = None;
            state.suspended_until = 0;
            state.is_stopping = false;
            state.good_token = None;
            state.dead_at = None;
            state.final_changes = None;
            state.reset_at = None;
            state.has_revoked = false;
            let host = Host {
                world: world.clone(),
                process,
                life: state.life,
            };
            (host, Arc::clone(&state.died))
        };
        let running = Process::start(host);
        died.notified().await;
        running.end().await;
        let downtime = {
            let mut state = world.lock();
            if state.has_faults {
                state.about(5 * SECOND)
            } else {
                SECOND
            }
        };
        sleep(Duration::from_millis(downtime)).await;
    }
}

impl Process {
    fn start(host: Host) -> Self {
        let (plan, credential, seed) = {
            let mut state = host.world.lock();
            let credential = state.hosts[host.process].credential.clone();
            state.hosts[host.process]
                .started_with
                .clone_from(&credential);
            note!(state, "p{} starts with {credential}", host.process);
            state.count("process started");
            (state.plan.clone(), credential, state.rng.u64(..))
        };
        let oauth = OAuthClient::with_transport(TOKEN_URL, Transport(host.clone()))
            .and_then(|client| client.revocation_url(REVOCATION_URL))
            .expect("the URLs are valid")
            .client_auth(ClientAuth::none("simulated"))
            .timeout(Duration::from_millis(plan.token_timeout));
        let clock = SimulatedClock::new(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let cache = match plan.grant {
            GrantKind::RefreshToken => {
                let source = RefreshTokenSource::new(oauth, credential);
                cache(source, &host, &plan, &clock, seed)
            }
            GrantKind::ExchangeToken => {
                let source = ExchangeTokenSource::new(oauth, credential);
                cache(source, &host, &plan, &clock, seed)
            }
        };
        {
            let mut state = host.world.lock();
            let since = (state.now + state.suspended_for) / SECOND;
            let state = &mut state.hosts[host.process];
            // The wall clock is that of the machine, right or wrong.
            clock.step(i64::try_from(since).unwrap_or_default() + state.clock_is_wrong_by);
            state.clock = Some(clock);
            state.cache = Some(cache.clone());
        }
        let client = BearerAuthLayer::from(cache).layer(Api(host.clone()));
        let client = MapResponse::new(client, |response: Response<Full<Bytes>>| response.status());
        let client = BoxCloneSyncService::new(client);
        let tasks = (0..TASKS)
            .map(|_| tokio::spawn(send_requests(host.clone(), client.clone())).abort_handle())
            .collect();
        Self {
            host,
            client,
            tasks,
        }
    }

    async fn end(self) {
        for task in &self.tasks {
            task.abort();
        }
        let Self { host, client, .. } = self;
        drop(client);
        let (cache, is_stopping) = {
            let mut state = host.world.lock();
            let state = &mut state.hosts[host.process];
            (state.cache.take(), state.is_stopping)
        };
        let Some(cache) = cache else { return };
        if is_stopping {
            let closed = timeout(Duration::from_secs(240), cache.close()).await;
            let mut state = host.world.lock();
            if !host.is_dead(&state) {
                note!(state, "p{} closed: {closed:?}", host.process);
                if matches!(closed, Ok(Ok(()))) {
                    state.count("process closed in order");
                    state.check_closed(&host);
                }
                state.crash(host.process);
            }
        }
    }
}

fn cache<G: Grant>(
    source: GrantSource<G>,
    host: &Host,
    plan: &Plan,
    clock: &SimulatedClock,
    seed: u64,
) -> TokenCache {
    let store = SimulatedStore { host: host.clone() };
    let source = source
        .store(store)
        .schedule(Schedule::default().background_refresh(plan.background_refresh));
    let host = host.clone();
    TokenCache::builder(Observed { host, source })
        .clock(clock.clone())
        .seed(seed)
        .refresh_timeout(Duration::from_millis(plan.refresh_timeout))
        .build()
}

async fn send_requests(host: Host, client: Client) {
    loop {
        let (pause, patience) = {
            let mut state = host.world.lock();
            let interval = state.plan.request_interval;
            let pause = state.about(interval);
            let dropped = state.plan.rates.dropped_caller;
            let patience = state.happens(dropped).then(|| state.about(SECOND));
            (pause, patience)
        };
        sleep(Duration::from_millis(pause)).await;
        host.gate().await;
        let request = send_request(&host, client.clone());
        let Some(patience) = patience else {
            request.await;
            continue;
        };
        let waited = timeout(Duration::from_millis(patience), request).await;
        if waited.is_err() {
            host.world.lock().count("caller stopped waiting");
        }
    }
}

/// Sends one request to the API.
async fn send_request(host: &Host, client: Client) {
    let began_at = host.world.lock().now;
    let request = Request::get("https://api.example.com/").body(Full::default());
    let request = request.expect("the request is valid");
    let outcome = match client.oneshot(request).await {
        Ok(StatusCode::OK) => Outcome::Served,
        Ok(_) => Outcome::Rejected,
        Err(error) => match error.downcast::<TokenError>() {
            Ok(error) => Outcome::Failed(*error),
            Err(_) => Outcome::Unreached,
        },
    };
    host.world.lock().request_done(host, began_at, &outcome);
}
