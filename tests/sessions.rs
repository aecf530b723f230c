//! The invariants of sources: each refresh token is used once, and saved before its access token is used.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use proptest::prelude::*;
use tokio::{task::JoinSet, time::sleep};
use tower::service_fn;
use tower_bearer::{
    ClientAuth, ExchangeTokenSource, Identity, MemoryLease, MemoryStore, OAuthClient,
    RefreshTokenSource, Schedule, StoreLease, StoredSession, Token, TokenCache, TokenContext,
    TokenError, TokenErrorKind, TokenSource, TokenStore,
    testing::{AuthorizationServer, Dialect, Fault, SimulatedClock},
};

const SECOND: Duration = Duration::from_secs(1);

fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}

fn endpoint(server: &AuthorizationServer) -> OAuthClient {
    let url = format!("https://login.example{}", server.token_path());
    let id = AuthorizationServer::CLIENT_ID;
    let secret = AuthorizationServer::CLIENT_SECRET;
    OAuthClient::with_transport(url, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(id, secret))
}

fn refresh(server: &AuthorizationServer) -> RefreshTokenSource {
    RefreshTokenSource::new(endpoint(server), server.issue_refresh_token())
}

fn exchange(server: &AuthorizationServer) -> ExchangeTokenSource {
    ExchangeTokenSource::new(endpoint(server), server.issue_exchange_token())
}

async fn first(source: &impl TokenSource) -> Token {
    source.token(TokenContext::new()).await.unwrap()
}

async fn next(source: &impl TokenSource, token: &Token) -> Result<Token, TokenError> {
    source
        .token(TokenContext::new().replacing(token.clone()))
        .await
}

fn grants(server: &AuthorizationServer) -> Vec<String> {
    let requests = server.requests();
    let grant = |request: &tower_bearer::testing::RecordedRequest| {
        request.param("grant_type").unwrap().to_owned()
    };
    requests.iter().map(grant).collect()
}

/// A store that fails on demand and records the calls.
#[derive(Clone, Default)]
struct FaultyStore {
    store: MemoryStore,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    log: Vec<&'static str>,
    fail: Vec<(&'static str, TokenErrorKind)>,
    broken: Vec<&'static str>,
    /// Leases do not know whether they are still held.
    leases_end: bool,
    replaced_session: Option<StoredSession>,
    foreign_session: Option<StoredSession>,
    after_mark: Option<StoredSession>,
    before_save: Option<StoredSession>,
}

impl Inner {
    fn given_session(&self) -> Option<StoredSession> {
        let replaced = self.replaced_session.clone();
        replaced.or_else(|| self.foreign_session.clone())
    }
}

impl FaultyStore {
    /// The next call of `what` fails.
    fn fail(&self, what: &'static str, kind: TokenErrorKind) {
        self.inner.lock().unwrap().fail.push((what, kind));
    }

    /// The calls of `what` fail until [`repair`](Self::repair).
    fn break_down(&self, what: &[&'static str]) {
        self.inner.lock().unwrap().broken = what.to_vec();
    }

    /// Another process saves although it has no lease.
    fn replace_without_a_lease(&self, session: StoredSession) {
        self.inner.lock().unwrap().foreign_session = Some(session);
    }

    /// Another process saves without a lease, right after the next mark.
    fn replace_after_next_mark(&self, session: StoredSession) {
        self.inner.lock().unwrap().after_mark = Some(session);
    }

    fn repair(&self) {
        self.break_down(&[]);
    }

    fn log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.inner.lock().unwrap().log)
    }

    fn enter(&self, what: &'static str) -> Result<(), TokenError> {
        let mut inner = self.inner.lock().unwrap();
        inner.log.push(what);
        if inner.broken.contains(&what) {
            let message = "the store is broken";
            return Err(TokenError::new(TokenErrorKind::Store, message));
        }
        let planned = inner.fail.iter().position(|(planned, _)| *planned == what);
        match planned.map(|at| inner.fail.remove(at)) {
            Some((_, kind)) => Err(TokenError::new(kind, "the store was set to fail")),
            None => Ok(()),
        }
    }
}

struct FaultyLease {
    lease: MemoryLease,
    faulty: FaultyStore,
}

impl TokenStore for FaultyStore {
    type Lease = FaultyLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.enter("load")?;
        if let Some(session) = self.inner.lock().unwrap().given_session() {
            return Ok(Some(session));
        }
        self.store.load().await
    }

    async fn lease(&self) -> Result<FaultyLease, TokenError> {
        self.enter("lease")?;
        Ok(FaultyLease {
            lease: self.store.lease().await?,
            faulty: self.clone(),
        })
    }
}

impl StoreLease for FaultyLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let json = serde_json::to_value(session).unwrap();
        let is_mark = !json["refreshing_since"].is_null();
        self.faulty.enter(if is_mark { "mark" } else { "save" })?;
        if is_mark && self.faulty.inner.lock().unwrap().after_mark.is_some() {
            self.lease.save(replaces, session).await?;
            let mut inner = self.faulty.inner.lock().unwrap();
            inner.foreign_session = inner.after_mark.take();
            return Ok(());
        }
        let before = self.faulty.inner.lock().unwrap().before_save.take();
        if before.is_some() {
            self.faulty.inner.lock().unwrap().foreign_session = before;
        }
        if let Some(stored) = &mut self.faulty.inner.lock().unwrap().foreign_session {
            if stored.version() != replaces {
                let message = "another process has saved";
                return Err(TokenError::new(TokenErrorKind::LeaseLost, message));
            }
            *stored = session.clone();
            return Ok(());
        }
        self.lease.save(replaces, session).await
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        Ok(!self.faulty.inner.lock().unwrap().leases_end)
    }

    async fn release(self) {
        let _ = self.faulty.enter("release");
        self.lease.release().await;
    }
}

mod rotation {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_new_refresh_token_is_used_next_and_once() {
        let server = server();
        let source = refresh(&server);
        let mut token = first(&source).await;
        for _ in 0..5 {
            token = next(&source, &token).await.unwrap();
        }
        let requests = server.requests();
        let used: std::collections::HashSet<_> = requests
            .iter()
            .map(|request| request.param("refresh_token").unwrap())
            .collect();
        assert_eq!(used.len(), 6, "each refresh token once");
        assert_eq!((server.refreshes(), server.reuse_detected()), (6, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_new_refresh_token_the_old_one_stays() {
        let server = server().give_refresh_token(false).rotate(false);
        let source = refresh(&server);
        let mut token = first(&source).await;
        for _ in 0..3 {
            token = next(&source, &token).await.unwrap();
        }
        assert_eq!(server.refreshes(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_invalid_refresh_token_is_an_error_with_the_reauth_hint() {
        let server = server();
        let source = refresh(&server).reauth_hint("log in at the portal again");
        let token = first(&source).await;
        server.revoke_sessions();
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        assert_eq!(error.oauth_code(), Some("invalid_grant"));
        assert!(
            error.to_string().contains("log in at the portal again"),
            "{error}"
        );
        assert!(!error.to_string().contains("interrupted"), "{error}");
    }
}

mod exchange_tokens {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_exchange_token_is_exchanged_once_and_then_refreshed() {
        let server = server();
        let source = exchange(&server);
        let mut token = first(&source).await;
        for _ in 0..3 {
            token = next(&source, &token).await.unwrap();
        }
        assert_eq!(
            grants(&server),
            [
                "exchange_token",
                "refresh_token",
                "refresh_token",
                "refresh_token"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_invalid_refresh_token_is_replaced_by_another_exchange() {
        let server = server().exchange_once(false);
        let source = exchange(&server);
        let token = first(&source).await;
        server.revoke_sessions();
        let token = next(&source, &token).await.unwrap();
        assert!(server.is_live(token.expose_secret()));
        next(&source, &token).await.unwrap();
        assert_eq!(
            grants(&server),
            [
                "exchange_token",
                "refresh_token",
                "exchange_token",
                "refresh_token"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn reusable_false_prevents_another_exchange() {
        let server = server().exchange_once(false);
        let source = exchange(&server).reusable(false);
        let token = first(&source).await;
        server.revoke_sessions();
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        assert_eq!(server.exchanges(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_exchange_token_ends_the_session() {
        let server = server().exchange_once(true);
        let source = exchange(&server);
        let token = first(&source).await;
        server.revoke_sessions();
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_refresh_token_each_token_costs_an_exchange() {
        let server = server().exchange_once(false).give_refresh_token(false);
        let source = exchange(&server);
        let token = first(&source).await;
        next(&source, &token).await.unwrap();
        assert_eq!(grants(&server), ["exchange_token", "exchange_token"]);
    }
}

mod shared_stores {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sources_with_one_store_adopt_each_others_tokens() {
        let server = server();
        let store = MemoryStore::new();
        let a = refresh(&server).store(store.clone());
        let b = a.clone().store(store);
        let token = first(&a).await;
        assert_eq!(first(&b).await.expose_secret(), token.expose_secret());
        let newer = next(&a, &token).await.unwrap();
        assert_eq!(
            next(&b, &token).await.unwrap().expose_secret(),
            newer.expose_secret()
        );
        assert_eq!(server.token_requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_sources_at_once_use_each_refresh_token_once() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let server = server().detect_reuse(true);
            let store = MemoryStore::new();
            let origin = refresh(&server);
            let mut sources = JoinSet::new();
            for _ in 0..8 {
                let source = origin.clone().store(store.clone());
                let pauses: Vec<u64> = (0..10).map(|_| rng.u64(0..30)).collect();
                let server = server.clone();
                sources.spawn(async move {
                    let mut token = first(&source).await;
                    for pause in pauses {
                        sleep(Duration::from_millis(pause)).await;
                        server.fault(Fault::Delay(Duration::from_millis(pause)));
                        token = next(&source, &token).await.unwrap();
                    }
                });
            }
            sources.join_all().await;
            assert_eq!(server.reuse_detected(), 0, "seed {seed}");
            assert_eq!(server.live_sessions(), 1, "seed {seed}");
            assert_eq!(server.refreshes(), server.token_requests(), "seed {seed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_login_replaces_the_session_and_running_sources_adopt_it() {
        let server = server();
        let store = MemoryStore::new();
        let old = refresh(&server).store(store.clone());
        let token = first(&old).await;
        let new = refresh(&server).store(store.clone());
        let newer = first(&new).await;
        assert_ne!(newer.expose_secret(), token.expose_secret());
        // This source still has the first login, like a process that hasn't been restarted yet.
        assert_eq!(
            next(&old, &token).await.unwrap().expose_secret(),
            newer.expose_secret()
        );
        let newest = next(&old, &newer).await.unwrap();
        assert_eq!(
            next(&new, &newer).await.unwrap().expose_secret(),
            newest.expose_secret()
        );
        assert_eq!(server.reuse_detected(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn after_invalid_grant_the_store_is_read_again() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        server.revoke_sessions();
        // A new login happens while the refresh is running.
        server.fault(Fault::Delay(10 * SECOND));
        let refreshing = next(&source, &token);
        let login = async {
            sleep(5 * SECOND).await;
            let other = MemoryStore::new();
            let new = refresh(&server).store(other.clone());
            first(&new).await;
            let session = other.load().await.unwrap().unwrap();
            // The store changes without a lease.
            store.inner.lock().unwrap().replaced_session = Some(session);
        };
        let (refreshed, ()) = tokio::join!(refreshing, login);
        assert!(server.is_live(refreshed.unwrap().expose_secret()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_adopts_a_login_of_another_process_without_a_restart() {
        let server = server();
        let store = MemoryStore::new();
        let cache = TokenCache::new(refresh(&server).store(store.clone()));
        cache.token().await.unwrap();
        server.revoke_sessions();
        sleep(2 * SECOND).await;
        let error = cache.refresh().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        let requests = server.token_requests();
        sleep(60 * SECOND).await;
        cache.reset();
        first(&refresh(&server).store(store)).await;
        assert_eq!(server.token_requests(), requests + 1);
        let token = cache.refresh().await.unwrap();
        assert!(server.is_live(token.expose_secret()));
        assert_eq!(
            server.token_requests(),
            requests + 1,
            "adopted, not refreshed"
        );
    }

    /// Caches over one store, each with a source of its own.
    fn processes(server: &AuthorizationServer, count: u8) -> Vec<TokenCache> {
        let token = server.issue_refresh_token();
        let store = MemoryStore::new();
        let process = |seed: u8| {
            let source = RefreshTokenSource::new(endpoint(server), token.clone());
            let builder = TokenCache::builder(source.store(store.clone()));
            builder.seed(seed.into()).build()
        };
        (0..count).map(process).collect()
    }

    fn two_processes(server: &AuthorizationServer) -> (TokenCache, TokenCache) {
        let mut caches = processes(server, 2).into_iter();
        (caches.next().unwrap(), caches.next().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_finds_the_token_of_another_process_while_refreshes_are_held_back() {
        let server = server();
        let (ours, other) = two_processes(&server);
        // Each token is rejected as soon as it comes, so the next refresh starts later and later.
        for held_back in [1, 2, 4, 8, 16, 32] {
            ours.reject(&ours.token().await.unwrap());
            sleep(held_back * SECOND).await;
            ours.token().await.unwrap();
            sleep(SECOND / 10).await;
        }
        let rejected = ours.token().await.unwrap();
        let requests = server.token_requests();
        ours.reject(&rejected);
        sleep(10 * SECOND).await;
        assert_eq!(server.token_requests(), requests, "refreshes are held back");

        other.token().await.unwrap();
        let newer = other.refresh().await.unwrap();
        assert_ne!(newer.expose_secret(), rejected.expose_secret());
        let requests = server.token_requests();
        sleep(SECOND / 10).await;
        ours.reject(&rejected);
        sleep(SECOND / 100).await;
        let adopted = ours.token().await.unwrap();
        assert_eq!(adopted.expose_secret(), newer.expose_secret());
        assert_eq!(
            server.token_requests(),
            requests,
            "it was only read from the store"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_store_is_read_at_most_ten_times_a_second_for_rejections() {
        let server = server();
        let store = FaultyStore::default();
        let cache = TokenCache::new(refresh(&server).store(store.clone()));
        for _ in 0..4 {
            cache.reject(&cache.token().await.unwrap());
            sleep(SECOND).await;
        }
        let rejected = cache.token().await.unwrap();
        cache.reject(&rejected);
        store.inner.lock().unwrap().log.clear();
        let requests = server.token_requests();
        for _ in 0..100 {
            cache.reject(&rejected);
            sleep(SECOND / 100).await;
        }
        let log = store.inner.lock().unwrap().log.clone();
        assert!(log.iter().all(|call| *call == "load"), "{log:?}");
        assert!((5..=11).contains(&log.len()), "{}", log.len());
        assert_eq!(server.token_requests(), requests);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_whose_tokens_are_always_rejected_sends_hardly_more_than_one_process() {
        for count in [1_u8, 2, 5, 10] {
            let server = server();
            let caches = processes(&server, count);
            for _ in 0..30 * 60 {
                for cache in &caches {
                    if let Ok(token) = cache.token().await {
                        cache.reject(&token);
                    }
                    sleep(SECOND / u32::from(count)).await;
                }
            }
            let requests = server.token_requests();
            assert!(requests <= 60, "{count} processes: {requests}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn adopting_a_token_does_not_delay_the_first_refresh() {
        let server = server();
        let (other, ours) = two_processes(&server);
        other.token().await.unwrap();
        server.revoke_access_tokens();
        let begin = tokio::time::Instant::now();
        let adopted = ours.token().await.unwrap();
        ours.reject(&adopted);
        let fresh = ours.token().await.unwrap();
        assert_ne!(fresh.expose_secret(), adopted.expose_secret());
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn before_a_session_begins_anew_the_store_is_read_again() {
        for body in [r#"{"error":"invalid_grant"}"#, r#"{"message":"bad"}"#, ""] {
            let (store, sent) = (FaultyStore::default(), Arc::new(AtomicUsize::new(0)));
            let (shared_store, count) = (store.clone(), sent.clone());
            let transport = service_fn(move |_: Request<Full<Bytes>>| {
                let (store, count) = (shared_store.clone(), count.clone());
                async move {
                    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                    let first = r#"{"access_token":"first","expires_in":900,"refresh_token":"r1"}"#;
                    let mut response = Response::new(Full::<Bytes>::from(first));
                    if number > 1 {
                        // Another process, which has the lease now, has refreshed the session meanwhile.
                        let before = store.store.load().await.unwrap().unwrap();
                        let token = Token::new("of-the-other").unwrap().expires_in(900 * SECOND);
                        let newer = StoredSession::new(Identity::new("exchange", "x"))
                            .with_refresh_token("r2")
                            .with_access_token(&token);
                        store.replace_without_a_lease(newer.replacing(&before));
                        *response.body_mut() = Full::from(body);
                        *response.status_mut() = StatusCode::BAD_REQUEST;
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            let client = OAuthClient::with_transport("https://login.example/token", transport);
            let source = ExchangeTokenSource::new(client.unwrap(), "x").store(store);
            let token = first(&source).await;
            let newer = next(&source, &token).await.unwrap();
            assert_eq!(newer.expose_secret(), "of-the-other", "{body:?}");
            assert_eq!(sent.load(Ordering::SeqCst), 2, "{body:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_session_is_not_requested_again_until_the_store_has_another() {
        let server = server();
        let store = MemoryStore::new();
        let clock = SimulatedClock::new(SystemTime::now());
        let cache = TokenCache::builder(refresh(&server).store(store.clone()))
            .clock(clock)
            .build();
        server.revoke_sessions();
        cache.token().await.unwrap_err();
        for _ in 0..600 {
            cache.token().await.unwrap_err();
            sleep(SECOND).await;
        }
        assert_eq!(server.token_requests(), 1);
        first(&refresh(&server).store(store)).await;
        // This call still fails, and the new session is found in the background.
        cache.token().await.unwrap_err();
        sleep(SECOND).await;
        let token = cache.token().await.unwrap();
        assert!(server.is_live(token.expose_secret()));
    }
}

mod import {

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_imported_session_is_adopted_by_a_source_of_its_identity() {
        let server = server();
        let store = MemoryStore::new();
        let imported = first(&refresh(&server)).await.with_extra("tenant", "eu");
        let session = StoredSession::new(Identity::new("refresh", "the configured one"))
            .with_access_token(&imported)
            .with_refresh_token(server.issue_refresh_token());
        let mut lease = store.lease().await.unwrap();
        lease.save(0, &session).await.unwrap();
        lease.release().await;
        let requests = server.token_requests();

        let source =
            RefreshTokenSource::new(endpoint(&server), "the configured one").store(store.clone());
        let token = first(&source).await;
        assert_eq!(token.expose_secret(), imported.expose_secret());
        assert_eq!(token.extra("tenant").unwrap(), "eu");
        assert_eq!(server.token_requests(), requests);

        // The imported refresh token is sent, and not the configured one, which the server does not know.
        let refreshed = next(&source, &token).await.unwrap();
        assert!(server.is_live(refreshed.expose_secret()));
        assert_eq!(server.token_requests(), requests + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_of_the_old_identity_adopts_an_imported_session_that_replaces_its_own() {
        let server = server();
        let store = MemoryStore::new();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;

        let login = server.issue_refresh_token();
        let imported = first(&refresh(&server)).await;
        let mut lease = store.lease().await.unwrap();
        let stored = store.load().await.unwrap().unwrap();
        let session = StoredSession::new(Identity::new("refresh", &login))
            .with_access_token(&imported)
            .with_refresh_token(login)
            .replacing(&stored);
        lease.save(stored.version(), &session).await.unwrap();
        lease.release().await;

        let requests = server.token_requests();
        let adopted = next(&source, &token).await.unwrap();
        assert_eq!(adopted.expose_secret(), imported.expose_secret());
        assert_eq!(server.token_requests(), requests);
    }

    #[tokio::test(start_paused = true)]
    async fn an_imported_session_replaces_a_dead_one_of_a_running_process() {
        let server = server();
        let store = MemoryStore::new();
        let source = refresh(&server).store(store.clone());
        let identity = source.identity().clone();
        let cache = TokenCache::new(source);
        for _ in 0..3 {
            cache.refresh().await.unwrap();
            sleep(20 * SECOND).await;
        }
        server.revoke_sessions();
        let error = cache.refresh().await.unwrap_err();
        assert!(error.is_final(), "{error}");
        cache.reject(&cache.token().await.unwrap());

        // Its generation is lower than that of the dead session.
        let mut lease = store.lease().await.unwrap();
        let dead = store.load().await.unwrap().unwrap();
        let imported =
            StoredSession::new(identity.clone()).with_refresh_token(server.issue_refresh_token());
        let mut json = serde_json::to_value(&imported).unwrap();
        json["version"] = (dead.version() + 1).into();
        let imported = serde_json::from_value(json).unwrap();
        lease.save(dead.version(), &imported).await.unwrap();
        lease.release().await;

        sleep(30 * SECOND).await;
        let token = cache.refresh().await.unwrap();
        assert!(server.is_live(token.expose_secret()));
        assert_eq!(server.live_sessions(), 1);
    }
}

mod durability {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rotated_token_is_saved_before_it_is_returned() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        first(&source).await;
        assert_eq!(
            store.log(),
            ["load", "lease", "load", "mark", "save", "release"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_save_is_tried_again() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.fail("save", TokenErrorKind::Store);
        store.fail("save", TokenErrorKind::Store);
        let token = first(&source).await;
        assert_eq!(
            store.log()[3..],
            ["mark", "save", "save", "save", "release"]
        );
        next(&source, &token).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_cannot_be_saved_goes_on_from_memory_with_a_warning() {
        let server = server().detect_reuse(true);
        let store = FaultyStore::default();
        let cache = TokenCache::new(refresh(&server).store(store.clone()));
        for _ in 0..3 {
            store.fail("save", TokenErrorKind::Store);
        }
        cache.token().await.unwrap();
        let warning = cache.status().last_error.expect("a warning");
        assert_eq!(warning.kind(), TokenErrorKind::Store);
        for _ in 0..3 {
            sleep(2 * SECOND).await;
            let token = cache.refresh().await.unwrap();
            assert!(server.is_live(token.expose_secret()));
        }
        assert!(cache.status().last_error.is_none(), "saved by now");
        assert_eq!(server.reuse_detected(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_warning_stays_until_the_session_is_saved_in_the_background() {
        let server = server();
        let store = FaultyStore::default();
        let cache = TokenCache::new(refresh(&server).store(store.clone()));
        store.break_down(&["save"]);
        cache.token().await.unwrap();
        sleep(60 * SECOND).await;
        assert!(cache.status().last_error.is_some(), "not saved");
        store.repair();
        sleep(10 * SECOND).await;
        assert!(cache.status().last_error.is_none(), "saved");
        assert_eq!(server.token_requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_warning_ends_with_the_mark_that_saves_its_session() {
        let server = server();
        let store = FaultyStore::default();
        let cache = TokenCache::new(refresh(&server).store(store.clone()));
        store.break_down(&["save"]);
        cache.token().await.unwrap();
        // The mark of the next refresh saves the session. The refresh itself fails.
        server.fault(Fault::Status(http::StatusCode::BAD_GATEWAY));
        sleep(2 * SECOND).await;
        let error = cache.refresh().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Server);
        cache.reset();
        assert!(cache.status().last_error.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_if_the_store_fails() {
        for what in ["load", "lease", "mark"] {
            let server = server();
            let store = FaultyStore::default();
            let source = refresh(&server).store(store.clone());
            store.break_down(&[what]);
            store.inner.lock().unwrap().leases_end = true;
            let error = source.token(TokenContext::new()).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Store, "{what}");
            assert!(error.is_transient());
            assert_eq!(server.token_requests(), 0, "{what}");
            store.repair();
            first(&source).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_loss_of_every_lease_nothing_is_sent() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        for _ in 0..3 {
            store.fail("mark", TokenErrorKind::LeaseLost);
        }
        let error = source.token(TokenContext::new()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::LeaseLost);
        assert_eq!(server.token_requests(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_loss_of_a_lease_the_refresh_starts_again_under_a_new_one() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.fail("mark", TokenErrorKind::LeaseLost);
        first(&source).await;
        let attempt = ["load", "lease", "load", "mark"];
        let lost = [attempt.as_slice(), &["release"]].concat();
        let done = [attempt.as_slice(), &["save", "release"]].concat();
        assert_eq!(store.log(), [lost, done].concat());
        assert_eq!(server.token_requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_loss_of_a_lease_a_saved_token_is_adopted() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        let other = source.clone().store(store.store.clone());
        store.fail("mark", TokenErrorKind::LeaseLost);
        // While one source refreshes, the lease of the other one has expired.
        server.fault(Fault::Delay(5 * SECOND));
        let (a, b) = tokio::join!(next(&other, &token), next(&source, &token));
        assert_eq!(a.unwrap().expose_secret(), b.unwrap().expose_secret());
        assert_eq!(server.token_requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_lost_reply_the_request_is_sent_again_within_the_grace() {
        let server = server().detect_reuse(true).grace(SECOND);
        let source = refresh(&server);
        let token = first(&source).await;
        server.fault(Fault::DropReplyAfterCommit);
        let token = next(&source, &token).await.unwrap();
        assert!(server.is_live(token.expose_secret()));
        assert_eq!((server.token_requests(), server.reuse_detected()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_is_lost_twice_is_reported_and_a_later_attempt_succeeds() {
        let server = server().detect_reuse(true).grace(60 * SECOND);
        let source = refresh(&server);
        let token = first(&source).await;
        server.fault_next(2, &Fault::DropReplyAfterCommit);
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
        assert!(error.to_string().contains("was sent twice"), "{error}");
        assert_eq!(server.token_requests(), 3, "twice and no more");
        let token = next(&source, &token).await.unwrap();
        assert!(server.is_live(token.expose_secret()));
        assert_eq!(server.reuse_detected(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_of_a_strict_server_is_named_in_the_error() {
        let server = server().detect_reuse(true);
        let source = refresh(&server);
        let token = first(&source).await;
        server.fault(Fault::DropReplyAfterCommit);
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        assert!(error.to_string().contains("was interrupted"), "{error}");
        assert!(
            error.to_string().contains("no answer to it came"),
            "{error}"
        );
        // Later calls report the same.
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        assert!(error.to_string().contains("was interrupted"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_token_that_was_replaced_meanwhile_is_not_sent_again() {
        let server = server().detect_reuse(true);
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        // The reply takes longer than the timeout and longer than the lease.
        server.fault(Fault::Delay(40 * SECOND));
        let refreshing = next(&source, &token);
        let another = async {
            sleep(20 * SECOND).await;
            let other = MemoryStore::new();
            first(&refresh(&server).store(other.clone())).await;
            let session = other.load().await.unwrap();
            store.inner.lock().unwrap().replaced_session = session;
        };
        let (refreshed, ()) = tokio::join!(refreshing, another);
        assert!(server.is_live(refreshed.unwrap().expose_secret()));
        assert_eq!((server.token_requests(), server.reuse_detected()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_never_sent_is_not_sent_again_at_once() {
        let calls = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&calls);
        let transport = tower::service_fn(move |_: http::Request<_>| {
            *counted.lock().unwrap() += 1;
            let error = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            std::future::ready(Err::<http::Response<String>, _>(error))
        });
        let endpoint = OAuthClient::with_transport("https://login.example/token", transport);
        let source = RefreshTokenSource::new(endpoint.unwrap(), "rt");
        let error = source.token(TokenContext::new()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Transport);
        assert!(!error.to_string().contains("twice"), "{error}");
        assert_eq!(*calls.lock().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transient_failure_does_not_end_the_session() {
        for fault in [
            Fault::Status(http::StatusCode::INTERNAL_SERVER_ERROR),
            Fault::Html(http::StatusCode::BAD_GATEWAY),
            Fault::DropBeforeCommit,
            Fault::TooManyRequests {
                retry_after: SECOND,
            },
            Fault::NeverAnswers,
        ] {
            let server = server();
            let store = MemoryStore::new();
            let source = refresh(&server).store(store.clone());
            let token = first(&source).await;
            // A request without a reply is sent twice.
            let lost = matches!(fault, Fault::DropBeforeCommit | Fault::NeverAnswers);
            server.fault_next(1 + usize::from(lost), &fault);
            assert!(next(&source, &token).await.unwrap_err().is_transient());
            // A restarted process can go on, too.
            let restarted = source.clone().store(store);
            let token = next(&restarted, &token).await.unwrap();
            assert!(server.is_live(token.expose_secret()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_process_continues_the_session() {
        let server = server().detect_reuse(true);
        let store = MemoryStore::new();
        let refresh_token = server.issue_refresh_token();
        let start = || {
            RefreshTokenSource::new(endpoint(&server), refresh_token.clone()).store(store.clone())
        };
        let mut token = first(&start()).await;
        assert_eq!(first(&start()).await.expose_secret(), token.expose_secret());
        for _ in 0..5 {
            token = next(&start(), &token).await.unwrap();
        }
        assert_eq!((server.refreshes(), server.reuse_detected()), (6, 0));
    }
}

/// A session whose saves fail after the token request.
mod marks {
    use tower_bearer::{Grant, GrantContext, GrantSource, Parameters};

    use super::*;

    /// A grant whose parameters can be made a few times.
    struct Assertion {
        left: AtomicUsize,
    }

    fn assertions(left: usize) -> Assertion {
        let left = left.into();
        Assertion { left }
    }

    impl Grant for Assertion {
        async fn parameters(&self, _cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
            let left = self.left.load(Ordering::Relaxed);
            let Some(left) = left.checked_sub(1) else {
                let message = "the key is missing";
                return Err(TokenError::new(TokenErrorKind::Config, message));
            };
            self.left.store(left, Ordering::Relaxed);
            Ok(Parameters::new("assertion").with("assertion", "signed"))
        }

        fn identity(&self) -> Identity {
            Identity::new("assertion", "key-1")
        }

        fn can_repeat(&self) -> bool {
            true
        }
    }

    /// A client whose requests get no response.
    fn silent() -> OAuthClient {
        let service = service_fn(|_: Request<Full<Bytes>>| async {
            Err::<Response<Full<Bytes>>, _>(std::io::Error::from(
                std::io::ErrorKind::ConnectionReset,
            ))
        });
        OAuthClient::with_transport("https://login.example/token", service).unwrap()
    }

    /// Refreshes until it fails, at most twice, and returns the error and whether the stored session is marked as being refreshed.
    async fn failure<G: Grant>(source: GrantSource<G>) -> (TokenErrorKind, bool) {
        let store = MemoryStore::new();
        let source = source.store(store.clone());
        let mut result = source.token(TokenContext::new()).await;
        if let Ok(token) = &result {
            result = next(&source, token).await;
        }
        let error = result.unwrap_err();
        let stored = store.load().await.unwrap().unwrap();
        let json = serde_json::to_value(stored).unwrap();
        (error.kind(), !json["refreshing_since"].is_null())
    }

    #[tokio::test]
    async fn a_grant_whose_parameters_fail_leaves_no_mark() {
        let source = GrantSource::with_grant(silent(), assertions(0));
        assert_eq!(failure(source).await, (TokenErrorKind::Config, false));
    }

    #[tokio::test]
    async fn a_request_without_a_response_keeps_its_mark() {
        let source = GrantSource::with_grant(silent(), assertions(1));
        assert_eq!(failure(source).await, (TokenErrorKind::Transport, true));
        let source = RefreshTokenSource::new(silent(), "a-refresh-token");
        assert_eq!(failure(source).await, (TokenErrorKind::Transport, true));
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_made_leaves_no_mark() {
        let client = silent().client_auth(ClientAuth::none(""));
        let source = RefreshTokenSource::new(client, "a-refresh-token");
        assert_eq!(failure(source).await, (TokenErrorKind::Config, false));
    }

    #[tokio::test]
    async fn a_grant_that_fails_after_a_refresh_token_was_sent_keeps_the_mark() {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let service = service_fn(move |_: Request<Full<Bytes>>| {
            let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                let (status, body) = if is_first {
                    (200, r#"{"access_token":"a","refresh_token":"r"}"#)
                } else {
                    (400, "")
                };
                let response = Response::builder().status(status);
                response.body(Full::<Bytes>::from(body))
            }
        });
        let client = OAuthClient::with_transport("https://login.example/token", service).unwrap();
        let source = GrantSource::with_grant(client, assertions(1));
        assert_eq!(failure(source).await, (TokenErrorKind::Config, true));
        assert_eq!(requests.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_response_whose_token_cannot_be_used_keeps_the_mark() {
        let service = service_fn(|_: Request<Full<Bytes>>| async {
            let body = r#"{"access_token":"a","token_type":"dpop"}"#;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body)))
        });
        let client = OAuthClient::with_transport("https://login.example/token", service).unwrap();
        let source = RefreshTokenSource::new(client, "a-refresh-token");
        assert_eq!(failure(source).await, (TokenErrorKind::Config, true));
    }
}

mod failed_saves {
    use super::*;

    /// A source in another process with the same store.
    fn another(source: &RefreshTokenSource, store: &FaultyStore) -> RefreshTokenSource {
        source.clone().store(store.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn the_session_is_saved_in_the_background() {
        let server = server().detect_reuse(true);
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        for _ in 0..3 {
            store.fail("save", TokenErrorKind::Store);
        }
        let token = first(&source).await;
        sleep(10 * SECOND).await;
        let adopted = first(&another(&source, &store)).await;
        assert_eq!(adopted.expose_secret(), token.expose_secret());
        assert_eq!((server.token_requests(), server.reuse_detected()), (1, 0));
        // The lease is free again.
        store.log();
        sleep(600 * SECOND).await;
        assert!(store.log().is_empty(), "saving has ended");
        next(&another(&source, &store), &token).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn another_process_cannot_send_the_spent_token_while_this_one_lives() {
        let server = server().detect_reuse(true);
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.break_down(&["save"]);
        let token = first(&source).await;
        let other = another(&source, &store);
        let waiting = tokio::time::timeout(3_600 * SECOND, first(&other)).await;
        assert!(waiting.is_err(), "the lease is held");
        assert_eq!(server.token_requests(), 1);
        store.repair();
        let adopted = first(&other).await;
        assert_eq!(adopted.expose_secret(), token.expose_secret());
        assert_eq!((server.token_requests(), server.reuse_detected()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_credential_is_not_sent_again_although_that_was_not_saved() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        store.break_down(&["mark", "save"]);
        server.revoke_sessions();
        for _ in 0..3 {
            let error = next(&source, &token).await.unwrap_err();
            assert!(error.is_final(), "{error}");
        }
        assert_eq!(server.token_requests(), 2);
        // A reset sends it once more.
        let cx = || TokenContext::new().rejected(token.clone());
        source.token(cx().after_reset()).await.unwrap_err();
        source.token(cx()).await.unwrap_err();
        assert_eq!(server.token_requests(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_session_goes_on_from_memory_for_as_long_as_nothing_can_be_saved() {
        let server = server().detect_reuse(true);
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.break_down(&["mark", "save"]);
        let mut token = first(&source).await;
        for _ in 0..5 {
            sleep(60 * SECOND).await;
            token = next(&source, &token).await.unwrap();
        }
        assert!(server.is_live(token.expose_secret()));
        store.repair();
        sleep(60 * SECOND).await;
        let adopted = first(&another(&source, &store)).await;
        assert_eq!(adopted.expose_secret(), token.expose_secret());
        assert_eq!((server.token_requests(), server.reuse_detected()), (6, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_in_memory_that_has_died_does_not_go_on_with_the_older_one_of_the_store() {
        let server = server();
        let store = FaultyStore::default();
        let cache = TokenCache::new(refresh(&server).store(store.clone()));
        cache.token().await.unwrap();
        store.break_down(&["mark", "save"]);
        for _ in 0..2 {
            sleep(60 * SECOND).await;
            cache.refresh().await.unwrap();
        }
        server.revoke_sessions();
        for _ in 0..4 {
            sleep(60 * SECOND).await;
            let error = cache.refresh().await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
        }
        // The newest refresh token was sent once more, and no older one.
        assert_eq!(server.token_requests(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_login_in_memory_that_has_died_does_not_go_on_with_the_session_before_it() {
        let server = server();
        let store = FaultyStore::default();
        // A session that is dead, and is known to be.
        let before = refresh(&server).store(store.clone());
        let token = first(&before).await;
        server.revoke_sessions();
        next(&before, &token).await.unwrap_err();
        // A new login, whose session cannot be saved, and dies.
        let source = refresh(&server).store(store.clone());
        store.break_down(&["mark", "save"]);
        let token = first(&source).await;
        server.revoke_sessions();
        for _ in 0..4 {
            let error = next(&source, &token).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
        }
        // Both logins once, and what came of each once.
        assert_eq!(server.token_requests(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_session_of_another_process_is_not_sent_again_and_again_if_nothing_can_be_saved()
    {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let clock = SimulatedClock::new(SystemTime::now());
        let cache = TokenCache::builder(source.clone()).clock(clock).build();
        let token = cache.token().await.unwrap();
        next(&another(&source, &store), &token).await.unwrap();
        server.revoke_sessions();
        store.break_down(&["mark", "save"]);
        // The token of the other process has expired, so it is not adopted.
        sleep(1_000 * SECOND).await;
        for _ in 0..10 {
            sleep(15 * SECOND).await;
            drop(cache.refresh().await);
        }
        assert_eq!(server.token_requests(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_that_fails_once_is_saved_again_before_anything_is_sent() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.fail("mark", TokenErrorKind::Store);
        first(&source).await;
        assert_eq!(
            store.log()[2..],
            ["load", "mark", "mark", "save", "release"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_fails_keeps_the_session_that_is_not_saved() {
        let server = server().detect_reuse(true);
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.break_down(&["mark", "save"]);
        let token = first(&source).await;
        server.fault(Fault::Status(http::StatusCode::BAD_GATEWAY));
        next(&source, &token).await.unwrap_err();
        store.repair();
        sleep(60 * SECOND).await;
        let newer = next(&another(&source, &store), &token).await.unwrap();
        assert!(server.is_live(newer.expose_secret()));
        assert_eq!(server.reuse_detected(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn saving_ends_when_another_process_has_saved_a_newer_session() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.break_down(&["save"]);
        first(&source).await;
        let other = MemoryStore::new();
        let newer = first(&refresh(&server).store(other.clone())).await;
        let session = other.load().await.unwrap().unwrap();
        // The store is changed without a lease.
        store.replace_without_a_lease(session);
        store.repair();
        sleep(60 * SECOND).await;
        store.log();
        sleep(600 * SECOND).await;
        assert!(store.log().is_empty(), "saving has ended");
        let adopted = first(&source).await;
        assert_eq!(adopted.expose_secret(), newer.expose_secret());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_clone_that_is_dropped_has_the_session_saved_once_more() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let other = another(&source, &store);
        store.break_down(&["save"]);
        let token = first(&source).await;
        sleep(3_600 * SECOND).await;
        store.repair();
        drop(source);
        // Long before the next save would be due.
        sleep(Duration::from_millis(1)).await;
        assert_eq!(first(&other).await.expose_secret(), token.expose_secret());
        assert_eq!(server.token_requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_source_releases_the_lease_even_if_the_session_cannot_be_saved() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.break_down(&["save"]);
        first(&source).await;
        drop(source);
        sleep(SECOND).await;
        store.log();
        let lease = tokio::time::timeout(SECOND, store.lease()).await;
        lease.expect("the lease is free").unwrap();
        sleep(600 * SECOND).await;
        assert_eq!(store.log(), ["lease"], "saving has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn flush_saves_the_session_or_says_that_it_cannot() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        source.flush().await.expect("nothing to save");
        store.break_down(&["save"]);
        let token = first(&source).await;
        let error = source.flush().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store);
        let error = TokenSource::flush(&source.clone().boxed()).await;
        assert_eq!(error.unwrap_err().kind(), TokenErrorKind::Store);
        store.repair();
        source.flush().await.unwrap();
        let adopted = first(&another(&source, &store)).await;
        assert_eq!(adopted.expose_secret(), token.expose_secret());
    }

    #[tokio::test(start_paused = true)]
    async fn flush_waits_for_a_refresh_that_is_running() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        server.fault(Fault::Delay(10 * SECOND));
        let waiting = tokio::time::timeout(SECOND, first(&source)).await;
        assert!(waiting.is_err(), "the caller has stopped waiting");
        source.flush().await.unwrap();
        assert_eq!(store.log().last(), Some(&"release"));
        assert_eq!(server.token_requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_lease_was_lost_is_saved_under_the_next_one() {
        let server = server().detect_reuse(true);
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.break_down(&["save"]);
        store.inner.lock().unwrap().leases_end = true;
        let token = first(&source).await;
        // Another process has had the lease, and has saved no more than its mark.
        let mut marked = serde_json::to_value(store.load().await.unwrap().unwrap()).unwrap();
        marked["version"] = 7.into();
        let marked = serde_json::from_value(marked).unwrap();
        store.replace_without_a_lease(marked);
        store.repair();
        sleep(60 * SECOND).await;
        let adopted = first(&another(&source, &store)).await;
        assert_eq!(adopted.expose_secret(), token.expose_secret());
        assert_eq!((server.token_requests(), server.reuse_detected()), (1, 0));
    }
}

/// The store has a session of another client by now.
mod other_clients {
    use super::*;

    /// A session of another client. Its generation is lower than any that a source has obtained.
    fn foreign(version: u64) -> StoredSession {
        let session = StoredSession::new(Identity::new("refresh", "of the other"))
            .with_refresh_token("of-the-other")
            .with_access_token(&Token::new("of-the-other").unwrap());
        let mut json = serde_json::to_value(session).unwrap();
        json["client"] = "another".into();
        json["version"] = version.into();
        json["generation"] = 0.into();
        serde_json::from_value(json).unwrap()
    }

    /// The stored session is that of the other client, and as it was.
    async fn assert_untouched(store: &FaultyStore, version: u64) {
        let stored = store.load().await.unwrap().unwrap();
        let expected = serde_json::to_value(foreign(version)).unwrap();
        assert_eq!(serde_json::to_value(stored).unwrap(), expected);
    }

    fn is_of_another_client(error: &TokenError) -> bool {
        error.kind() == TokenErrorKind::Config
            && error.to_string().contains("another token endpoint")
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_session_in_memory_is_neither_sent_nor_saved_over_it() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let mut token = first(&source).await;
        token = next(&source, &token).await.unwrap();
        store.replace_without_a_lease(foreign(1));
        for _ in 0..3 {
            let error = next(&source, &token).await.unwrap_err();
            assert!(is_of_another_client(&error), "{error}");
        }
        assert_eq!(server.token_requests(), 2);
        assert_untouched(&store, 1).await;
        // The session in memory goes on when the store is ours again.
        store.inner.lock().unwrap().foreign_session = None;
        next(&source, &token).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn saving_in_the_background_does_not_overwrite_it_whatever_its_version_is() {
        // The mark has version 1, so the session would replace version 1.
        for version in [1, 7] {
            let server = server();
            let store = FaultyStore::default();
            let source = refresh(&server).store(store.clone());
            store.break_down(&["save"]);
            let token = first(&source).await;
            store.replace_without_a_lease(foreign(version));
            store.repair();
            sleep(60 * SECOND).await;
            assert_untouched(&store, version).await;
            let error = source.flush().await.unwrap_err();
            assert!(is_of_another_client(&error), "{error}");
            let lease = tokio::time::timeout(SECOND, store.lease()).await;
            drop(lease.expect("the other client can have the lease"));
            // It is not lost, should somebody correct the store.
            store.inner.lock().unwrap().foreign_session = None;
            sleep(60 * SECOND).await;
            let adopted = first(&source.clone().store(store.clone())).await;
            assert_eq!(adopted.expose_secret(), token.expose_secret());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn saving_in_the_background_does_not_overwrite_one_that_comes_just_before_it() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.break_down(&["save"]);
        first(&source).await;
        store.inner.lock().unwrap().before_save = Some(foreign(9));
        store.repair();
        sleep(60 * SECOND).await;
        assert_untouched(&store, 9).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_during_a_refresh_is_not_overwritten_and_nothing_more_is_sent() {
        let dead = Fault::error("invalid_grant");
        // After the one the grant would begin the session anew, after the other the refresh token would be sent again.
        for fault in [dead, Fault::NeverAnswers] {
            let server = server().exchange_once(false);
            let store = FaultyStore::default();
            let source = exchange(&server).store(store.clone());
            let token = first(&source).await;
            server.fault(fault.clone());
            store.replace_after_next_mark(foreign(9));
            let error = next(&source, &token).await.unwrap_err();
            assert!(is_of_another_client(&error), "{error}");
            assert_eq!(server.token_requests(), 2, "{fault:?}");
            assert_untouched(&store, 9).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_before_the_save_is_not_overwritten() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        store.replace_after_next_mark(foreign(9));
        let cache = TokenCache::new(source);
        let token = cache.token().await.unwrap();
        assert!(
            server.is_live(token.expose_secret()),
            "it goes on from memory"
        );
        assert!(cache.status().last_error.is_some());
        sleep(60 * SECOND).await;
        assert_untouched(&store, 9).await;
        assert!(cache.status().last_error.is_some(), "it is still not saved");
    }
}

mod dead_grants {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mark_that_cannot_be_saved_changes_no_error_and_the_next_process_sends_again() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        server.revoke_sessions();
        store.break_down(&["save"]);
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.oauth_code(), Some("invalid_grant"));
        store.repair();
        let requests = server.token_requests();
        let other = source.clone().store(store.clone());
        let error = next(&other, &token).await.unwrap_err();
        assert_eq!(error.oauth_code(), Some("invalid_grant"));
        assert_eq!(server.token_requests(), requests + 1);
        next(&other, &token).await.unwrap_err();
        assert_eq!(server.token_requests(), requests + 1, "marked now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_not_saved_yet_is_not_stopped_by_a_mark_of_the_one_before() {
        let server = server();
        let store = FaultyStore::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        store.break_down(&["mark", "save"]);
        let newer = next(&source, &token).await.unwrap();
        // Another process without the lease has sent the spent refresh token.
        store.repair();
        store.inner.lock().unwrap().leases_end = true;
        let mut json = serde_json::to_value(store.load().await.unwrap().unwrap()).unwrap();
        let spent = json["refresh_token"].as_str().unwrap().to_owned();
        json["version"] = 9.into();
        json["ended"] = serde_json::json!({
            "since": 1_700_000_000_000_u64, "credentials": [Identity::new("refresh", &spent)], "reason": "rejected",
        });
        store.replace_without_a_lease(serde_json::from_value(json).unwrap());
        let newest = next(&source, &newer).await.unwrap();
        assert!(server.is_live(newest.expose_secret()));
        let stored = store.load().await.unwrap().unwrap();
        let stored = serde_json::to_value(stored).unwrap();
        assert!(stored["ended"].is_null(), "{stored}");
    }
}

mod clocks {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_clock_that_is_an_hour_off_does_not_matter() {
        use tower_bearer::{BodyFormat, testing::NumberFormat};
        for skew in [3_600, -3_600] {
            let server = AuthorizationServer::new(Dialect::Xoxoday)
                .access_lifetime(Duration::from_secs(900))
                .expires_in_format(NumberFormat::Omitted)
                .expiry_format(NumberFormat::String)
                .skew(skew);
            let id = AuthorizationServer::CLIENT_ID;
            let secret = AuthorizationServer::CLIENT_SECRET;
            let url = format!("https://login.example{}", server.token_path());
            let endpoint = OAuthClient::with_transport(url, server.clone())
                .unwrap()
                .client_auth(ClientAuth::client_secret_post(id, secret))
                .body_format(BodyFormat::Json);
            let source = RefreshTokenSource::new(endpoint, server.issue_refresh_token());
            let cache = TokenCache::builder(source)
                .clock(SimulatedClock::new(SystemTime::now()))
                .schedule(Schedule::default())
                .build();
            let token = cache.token().await.unwrap();
            sleep(Duration::from_secs(600)).await;
            let same = cache.token().await.unwrap();
            assert_eq!(same.expose_secret(), token.expose_secret(), "skew {skew}");
            sleep(Duration::from_secs(297)).await;
            assert!(server.is_live(cache.token().await.unwrap().expose_secret()));
            assert_eq!(server.refreshes(), 2, "skew {skew}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// With a server that has a grace period, the session is alive after any faults in any order.
    #[test]
    fn the_session_survives_any_series_of_faults(faults in proptest::collection::vec(0u8..7, 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = server().detect_reuse(true).grace(3_600 * SECOND);
            let store = FaultyStore::default();
            let source = refresh(&server).store(store.clone());
            let mut token = first(&source).await;
            for fault in faults {
                match fault {
                    0 => server.fault(Fault::DropReplyAfterCommit),
                    1 => server.fault(Fault::Status(http::StatusCode::SERVICE_UNAVAILABLE)),
                    2 => server.fault(Fault::Html(http::StatusCode::OK)),
                    3 => store.fail("save", TokenErrorKind::Store),
                    4 => store.fail("mark", TokenErrorKind::Store),
                    5 => store.fail("load", TokenErrorKind::Store),
                    _ => {}
                }
                if let Ok(newer) = next(&source, &token).await {
                    token = newer;
                }
            }
            // The last refresh must not get a remaining fault.
            server.fault_always(None);
            store.inner.lock().unwrap().fail.clear();
            let mut last = next(&source, &token).await;
            if last.is_err() {
                last = next(&source, &token).await;
            }
            assert!(server.is_live(last.unwrap().expose_secret()));
        });
    }
}
