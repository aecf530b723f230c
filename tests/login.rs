//! New logins in running processes: the session of a login takes the place of the one before it.

mod support;

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::Value;
use tokio::{sync::Notify, task::yield_now, time::sleep};
use tower_bearer::{
    ClientAuth, ClientCredentialsSource, ExchangeTokenSource, Identity, MemoryStore, OAuthClient,
    RefreshTokenSource, StoredSession, Token, TokenCache, TokenContext, TokenError, TokenErrorKind,
    TokenSource, TokenState, TokenStore, source_fn,
    testing::{AuthorizationServer, Dialect, Fault},
};

use support::{TOKEN_URL, assert_hides, failing_store::FailingStore};

const SECOND: Duration = Duration::from_secs(1);

/// A server that takes a spent refresh token for a theft, so that a test in which one is sent fails.
fn server() -> AuthorizationServer {
    AuthorizationServer::new(Dialect::Rfc6749)
}

fn client(server: &AuthorizationServer) -> OAuthClient {
    OAuthClient::with_transport(TOKEN_URL, server.clone())
        .unwrap()
        .client_auth(ClientAuth::client_secret_basic(
            AuthorizationServer::CLIENT_ID,
            AuthorizationServer::CLIENT_SECRET,
        ))
}

/// A process that is configured with this refresh token.
fn process(server: &AuthorizationServer, configured: &str, store: &impl CloneStore) -> TokenCache {
    let source = RefreshTokenSource::new(client(server), configured);
    TokenCache::new(source.store(store.clone()))
}

trait CloneStore: TokenStore + Clone {}
impl<T: TokenStore + Clone> CloneStore for T {}

/// A login that brings a refresh token only.
fn refresh_token_login(server: &AuthorizationServer) -> StoredSession {
    let token = server.issue_refresh_token();
    StoredSession::new(Identity::new("refresh", &token)).with_refresh_token(token)
}

/// A login that brings an access token as well, as one in a browser does.
async fn full_login(server: &AuthorizationServer) -> (StoredSession, Token) {
    let (store, token) = (MemoryStore::new(), server.issue_refresh_token());
    let source = RefreshTokenSource::new(client(server), token).store(store.clone());
    let token = source.token(TokenContext::new()).await.unwrap();
    let refresh_token = stored(&store).await["refresh_token"].clone();
    let refresh_token = refresh_token.as_str().unwrap();
    let session = StoredSession::new(Identity::new("refresh", refresh_token))
        .with_refresh_token(refresh_token)
        .with_access_token(&token);
    (session, token)
}

async fn stored(store: &impl TokenStore) -> Value {
    serde_json::to_value(store.load().await.unwrap().unwrap()).unwrap()
}

async fn dead_process(server: &AuthorizationServer, store: &impl CloneStore) -> TokenCache {
    let cache = process(server, "a-refresh-token-of-long-ago", store);
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    cache
}

/// Runs tasks until all of them wait.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

fn in_background<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_goes_on_at_once_with_the_access_token_of_a_login() {
    let (server, store) = (server(), MemoryStore::new());
    let cache = dead_process(&server, &store).await;
    let (login, token) = full_login(&server).await;
    let requests = server.token_requests();
    cache.login(login).await.unwrap();
    assert!(cache.peek().unwrap().header() == token.header());
    assert_eq!(cache.token().await.unwrap().header(), token.header());
    assert_eq!(server.token_requests(), requests);
    let status = cache.status();
    assert_eq!(status.state, TokenState::Fresh);
    assert!(status.last_error.is_none() && status.held_until.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_goes_on_after_one_refresh_if_the_login_has_no_access_token() {
    let (server, store) = (server(), MemoryStore::new());
    let cache = dead_process(&server, &store).await;
    let requests = server.token_requests();
    cache.login(refresh_token_login(&server)).await.unwrap();
    assert_eq!(cache.status().state, TokenState::Empty);
    let tokens = tokio::join!(cache.token(), cache.token(), cache.token());
    assert_eq!(tokens.0.unwrap().header(), tokens.1.unwrap().header());
    tokens.2.unwrap();
    assert_eq!(server.token_requests(), requests + 1);
}

#[tokio::test(start_paused = true)]
async fn the_token_of_the_session_before_is_not_used_any_more() {
    let (server, store) = (server(), MemoryStore::new());
    let cache = process(&server, &server.issue_refresh_token(), &store);
    let before = cache.token().await.unwrap();
    // As if a person had logged in with another account.
    cache.login(refresh_token_login(&server)).await.unwrap();
    assert!(cache.peek().is_none());
    let after = cache.token().await.unwrap();
    assert_ne!(before.header(), after.header());
    // Late rejections of the old token say nothing of the new one.
    let requests = server.token_requests();
    cache.reject(&before);
    assert_eq!(cache.token().await.unwrap().header(), after.header());
    assert_eq!(cache.status().rejected, 0);
    assert_eq!(server.token_requests(), requests);
}

#[tokio::test(start_paused = true)]
async fn backoff_and_pauses_end_with_a_login() {
    for fault in [
        Fault::Unavailable {
            retry_after: 600 * SECOND,
        },
        Fault::error("invalid_client"),
        Fault::Html(StatusCode::NOT_FOUND),
    ] {
        let (server, store) = (server(), MemoryStore::new());
        let cache = process(&server, &server.issue_refresh_token(), &store);
        server.fault_always(fault.clone());
        cache.token().await.unwrap_err();
        server.fault_always(None);
        cache.token().await.expect_err("it is held back");
        cache.login(refresh_token_login(&server)).await.unwrap();
        cache
            .token()
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_passes_a_revocation() {
    let (server, store) = (server(), MemoryStore::new());
    let client = client(&server)
        .revocation_url("https://login.example.com/revoke")
        .unwrap();
    let source = RefreshTokenSource::new(client, server.issue_refresh_token());
    let cache = TokenCache::new(source.store(store.clone()));
    cache.token().await.unwrap();
    cache.revoke().await.unwrap();
    cache.token().await.unwrap_err();
    cache.login(refresh_token_login(&server)).await.unwrap();
    cache.token().await.unwrap();
    assert!(stored(&store).await["refresh_token"].is_string());
}

#[tokio::test(start_paused = true)]
async fn other_processes_go_on_when_they_look_next() {
    let (server, store) = (server(), MemoryStore::new());
    let (cache, dead) = (
        dead_process(&server, &store).await,
        dead_process(&server, &store).await,
    );
    let (login, token) = full_login(&server).await;
    let requests = server.token_requests();
    cache.login(login).await.unwrap();
    sleep(11 * SECOND).await;
    dead.token().await.expect_err("this call makes it look");
    settle().await;
    assert_eq!(dead.token().await.unwrap().header(), token.header());
    assert_eq!(server.token_requests(), requests);
}

mod after_a_restart {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_old_configuration_goes_on_with_the_session_of_the_login() {
        let (server, store) = (server(), MemoryStore::new());
        let configured = server.issue_refresh_token();
        process(&server, &configured, &store).token().await.unwrap();
        // More logins than identities are kept.
        for _ in 0..12 {
            let cache = process(&server, &configured, &store);
            cache.login(refresh_token_login(&server)).await.unwrap();
            let token = cache.token().await.unwrap();
            let restarted = process(&server, &configured, &store);
            assert_eq!(restarted.token().await.unwrap().header(), token.header());
            sleep(2 * SECOND).await;
            restarted.refresh().await.unwrap();
        }
        assert_eq!((server.rejected(), server.reuse_detected()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_that_was_never_used_does_not_replace_the_login() {
        let (server, store) = (server(), MemoryStore::new());
        let configured = server.issue_refresh_token();
        let cache = process(&server, &configured, &store);
        cache.login(refresh_token_login(&server)).await.unwrap();
        let token = cache.token().await.unwrap();
        let restarted = process(&server, &configured, &store);
        assert_eq!(restarted.token().await.unwrap().header(), token.header());
        assert_eq!(server.token_requests(), 1);
    }

    /// Whatever identity the caller has given to the session.
    #[tokio::test(start_paused = true)]
    async fn the_new_credential_may_be_configured_although_it_is_spent() {
        let configured = server().issue_refresh_token();
        for identity in [
            None,
            Some(Identity::new("refresh", &configured)),
            Some(Identity::new("somebody", "else")),
        ] {
            let (server, store) = (server(), MemoryStore::new());
            let cache = process(&server, &configured, &store);
            for _ in 0..2 {
                let new = server.issue_refresh_token();
                let identity = identity.clone();
                let identity = identity.unwrap_or_else(|| Identity::new("refresh", &new));
                let login = StoredSession::new(identity).with_refresh_token(&new);
                cache.login(login).await.unwrap();
                let token = cache.token().await.unwrap();
                let deployed = process(&server, &new, &store);
                assert_eq!(deployed.token().await.unwrap().header(), token.header());
            }
            assert_eq!((server.rejected(), server.reuse_detected()), (0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_token_does_not_replace_the_session_of_a_later_login() {
        let (server, store) = (server(), MemoryStore::new());
        let exchange_token = server.issue_exchange_token();
        let process = || {
            let source = ExchangeTokenSource::new(client(&server), &exchange_token);
            TokenCache::new(source.store(store.clone()))
        };
        let cache = process();
        cache.token().await.unwrap();
        cache.login(refresh_token_login(&server)).await.unwrap();
        let token = cache.token().await.unwrap();
        assert_eq!(process().token().await.unwrap().header(), token.header());
        server.revoke_sessions();
        sleep(2 * SECOND).await;
        let error = cache.refresh().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
        assert_eq!(server.exchanges(), 1);
    }
}

mod that_is_not_taken {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_error_says_what_is_missing_and_the_session_goes_on() {
        let (server, store) = (server(), MemoryStore::new());
        let cache = process(&server, &server.issue_refresh_token(), &store);
        let token = cache.token().await.unwrap();
        let before = stored(&store).await;
        let empty = || StoredSession::new(Identity::new("a", "b"));
        let expired = Token::new("made-up").unwrap().expires_in(Duration::ZERO);
        for (login, expected) in [
            (empty(), "neither a refresh token nor an access token"),
            (empty().with_access_token(&expired), "has expired"),
        ] {
            let error = cache.login(login).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config);
            assert!(error.to_string().contains(expected), "{error}");
            assert_hides(&error, &["made-up"]);
        }
        assert_eq!(stored(&store).await, before);
        assert_eq!(cache.peek().unwrap().header(), token.header());
    }

    #[tokio::test(start_paused = true)]
    async fn sources_without_a_session_say_so() {
        let server = server();
        let source = ClientCredentialsSource::new(client(&server));
        let closure = source_fn(|_| async { Token::new("abc") });
        for (cache, expected) in [
            (TokenCache::new(source), "requests each token"),
            (TokenCache::new(closure), "keeps no session"),
        ] {
            let token = cache.token().await.unwrap();
            let error = cache.login(refresh_token_login(&server)).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Config);
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(cache.peek().unwrap().header(), token.header());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_living_session_of_another_client_stays_and_a_dead_one_is_replaced() {
        let (server, store) = (server(), MemoryStore::new());
        let other_client = || client(&server).parameter("scope", "other");
        let other = RefreshTokenSource::new(other_client(), server.issue_refresh_token());
        let other = TokenCache::new(other.store(store.clone()));
        other.token().await.unwrap();
        let before = stored(&store).await;
        let cache = process(&server, "a-refresh-token-of-long-ago", &store);
        let error = cache.login(refresh_token_login(&server)).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{error}");
        assert!(error.to_string().contains("another"), "{error}");
        assert_eq!(stored(&store).await, before);
        // A session that says whose it is.
        let theirs: StoredSession = serde_json::from_value(before).unwrap();
        let error = cache.login(theirs).await.unwrap_err();
        assert!(error.to_string().contains("another client"), "{error}");

        server.revoke_sessions();
        sleep(2 * SECOND).await;
        other.refresh().await.unwrap_err();
        cache.login(refresh_token_login(&server)).await.unwrap();
        cache.token().await.unwrap();
    }
}

mod that_cannot_be_saved {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn goes_on_from_memory_and_is_saved_later() {
        let (server, store) = (server(), FailingStore::default());
        let configured = server.issue_refresh_token();
        let cache = process(&server, &configured, &store);
        cache.token().await.unwrap();
        let (login, token) = full_login(&server).await;
        store.fails.store(true, Ordering::SeqCst);
        cache.login(login).await.unwrap();
        assert_eq!(cache.peek().unwrap().header(), token.header());
        let warning = cache.status().last_error.unwrap();
        assert!(warning.to_string().contains("the disk is full"));
        assert_eq!(
            cache.close().await.unwrap_err().kind(),
            TokenErrorKind::Store
        );
        // It is refreshed from memory, too.
        sleep(2 * SECOND).await;
        let refreshed = cache.refresh().await.unwrap();
        store.fails.store(false, Ordering::SeqCst);
        sleep(10 * SECOND).await;
        assert!(cache.status().last_error.is_none());
        let restarted = process(&server, &configured, &store);
        assert_eq!(
            restarted.token().await.unwrap().header(),
            refreshed.header()
        );
        assert_eq!((server.rejected(), server.reuse_detected()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn replaces_a_session_that_could_not_be_saved_before() {
        let (server, store) = (server(), FailingStore::default());
        let configured = server.issue_refresh_token();
        let cache = process(&server, &configured, &store);
        cache.token().await.unwrap();
        store.fails.store(true, Ordering::SeqCst);
        sleep(2 * SECOND).await;
        cache.refresh().await.unwrap();
        cache.login(refresh_token_login(&server)).await.unwrap();
        let token = cache.token().await.unwrap();
        store.fails.store(false, Ordering::SeqCst);
        sleep(10 * SECOND).await;
        let restarted = process(&server, &configured, &store);
        assert_eq!(restarted.token().await.unwrap().header(), token.header());
        assert_eq!((server.rejected(), server.reuse_detected()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_taken_twice_does_not_bring_the_spent_token_back() {
    let (server, store) = (server(), MemoryStore::new());
    let cache = dead_process(&server, &store).await;
    let rejected = server.rejected();
    let login = refresh_token_login(&server);
    cache.login(login.clone()).await.unwrap();
    let token = cache.token().await.unwrap();
    cache.login(login.clone()).await.unwrap();
    assert_eq!(cache.token().await.unwrap().header(), token.header());
    // Also by another process, and by one that knows of nothing.
    for cache in [
        dead_process(&server, &MemoryStore::new()).await,
        process(&server, "another-of-long-ago", &store),
    ] {
        drop(cache);
    }
    process(&server, "another-of-long-ago", &store)
        .login(login)
        .await
        .unwrap();
    sleep(2 * SECOND).await;
    cache.refresh().await.unwrap();
    assert_eq!(server.reuse_detected(), 0);
    assert_eq!(server.rejected(), rejected + 1, "that of the other store");
}

#[tokio::test(start_paused = true)]
async fn a_login_whose_token_is_dead_may_be_taken_again() {
    let (server, store) = (server(), MemoryStore::new());
    let cache = dead_process(&server, &store).await;
    let login = refresh_token_login(&server);
    server.fault(Fault::error("invalid_grant"));
    cache.login(login.clone()).await.unwrap();
    cache.token().await.unwrap_err();
    // The server was wrong.
    cache.login(login).await.unwrap();
    cache.token().await.unwrap();
}

mod at_the_same_time {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refresh_with_the_old_credential_does_not_put_its_token_over_the_login() {
        let (server, store) = (server(), MemoryStore::new());
        let configured = server.issue_refresh_token();
        let cache = process(&server, &configured, &store);
        cache.token().await.unwrap();
        let (login, token) = full_login(&server).await;
        sleep(2 * SECOND).await;
        server.fault(Fault::Delay(5 * SECOND));
        let refresh = in_background({
            let cache = cache.clone();
            async move { cache.refresh().await }
        });
        sleep(SECOND).await;
        cache.login(login).await.unwrap();
        assert_eq!(cache.peek().unwrap().header(), token.header());
        drop(refresh.await.unwrap());
        settle().await;
        assert_eq!(cache.peek().unwrap().header(), token.header());
        assert_eq!(server.reuse_detected(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_whose_caller_stops_waiting_is_taken() {
        let (server, store) = (server(), MemoryStore::new());
        let cache = process(&server, &server.issue_refresh_token(), &store);
        cache.token().await.unwrap();
        let (login, token) = full_login(&server).await;
        sleep(2 * SECOND).await;
        server.fault(Fault::Delay(5 * SECOND));
        let refresh = in_background({
            let cache = cache.clone();
            async move { cache.refresh().await }
        });
        sleep(SECOND).await;
        let caller = tokio::time::timeout(SECOND, cache.login(login)).await;
        assert!(caller.is_err(), "the refresh has the lease");
        drop(refresh.await.unwrap());
        sleep(SECOND).await;
        assert_eq!(cache.peek().unwrap().header(), token.header());
    }

    /// A source whose refreshes end when the test says so, and whose login waits for none of them.
    #[derive(Clone, Default)]
    struct ByHand {
        calls: Arc<AtomicUsize>,
        permit: Arc<Notify>,
        has_access_token: bool,
    }

    impl TokenSource for ByHand {
        async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
            let n = self.calls.fetch_add(1, Ordering::SeqCst);
            self.permit.notified().await;
            Token::new(format!("token-{n}"))
        }

        async fn login(
            &self,
            _: StoredSession,
            _: TokenContext,
        ) -> Result<Option<Token>, TokenError> {
            let token = Token::new("the-login").unwrap();
            Ok(self.has_access_token.then_some(token))
        }
    }

    fn any_login() -> StoredSession {
        StoredSession::new(Identity::new("a", "b")).with_refresh_token("c")
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_wait_for_a_refresh_get_the_token_of_the_login() {
        let source = ByHand {
            has_access_token: true,
            ..ByHand::default()
        };
        let cache = TokenCache::new(source.clone());
        let waiting = in_background({
            let cache = cache.clone();
            async move { cache.token().await }
        });
        settle().await;
        cache.login(any_login()).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().header(), "Bearer the-login");
        // What the refresh brings is of the session before.
        source.permit.notify_one();
        settle().await;
        assert_eq!(cache.peek().unwrap().header(), "Bearer the-login");
        assert_eq!(source.calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_wait_for_a_refresh_wait_for_the_next_one_if_the_login_has_no_token() {
        let source = ByHand::default();
        let cache = TokenCache::new(source.clone());
        let waiting = in_background({
            let cache = cache.clone();
            async move { cache.token().await }
        });
        settle().await;
        cache.login(any_login()).await.unwrap();
        settle().await;
        assert_eq!(source.calls.load(Ordering::SeqCst), 2);
        source.permit.notify_one();
        settle().await;
        assert!(cache.peek().is_none(), "that of the session before");
        source.permit.notify_one();
        assert_eq!(waiting.await.unwrap().unwrap().header(), "Bearer token-1");
        assert_eq!(cache.peek().unwrap().header(), "Bearer token-1");
    }

    /// A source that takes a login at once, and whose first answer comes after that to the second.
    #[derive(Default)]
    struct SlowToAnswer(AtomicUsize);

    impl TokenSource for SlowToAnswer {
        async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
            Token::new("before")
        }

        async fn login(
            &self,
            _: StoredSession,
            _: TokenContext,
        ) -> Result<Option<Token>, TokenError> {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            if n == 0 {
                sleep(SECOND).await;
            }
            Token::new(format!("login-{n}")).map(Some)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_of_the_last_of_two_logins_is_used() {
        let cache = TokenCache::new(SlowToAnswer::default());
        cache.token().await.unwrap();
        let (first, second) = tokio::join!(cache.login(any_login()), cache.login(any_login()));
        first.and(second).unwrap();
        assert_eq!(cache.peek().unwrap().header(), "Bearer login-1");
    }

    /// Callers, rejections, refreshes, revocations and logins in two processes, in a random order.
    #[tokio::test(start_paused = true)]
    async fn the_last_login_or_revocation_counts_whatever_runs() {
        for seed in 0..60 {
            last_one_counts(seed).await;
        }
    }

    async fn last_one_counts(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (server, store) = (server(), MemoryStore::new());
        let configured = server.issue_refresh_token();
        let caches: Vec<TokenCache> = (0..2)
            .map(|_| {
                let client = client(&server)
                    .revocation_url("https://login.example.com/revoke")
                    .unwrap();
                let source = RefreshTokenSource::new(client, &configured);
                TokenCache::new(source.store(store.clone()))
            })
            .collect();
        let mut tasks = tokio::task::JoinSet::new();
        let logins = Arc::new(Mutex::new(0_u32));
        for n in 0..6 {
            let (cache, server) = (caches[n % 2].clone(), server.clone());
            let (mut random, logins) = (random.fork(), Arc::clone(&logins));
            tasks.spawn(async move {
                for _ in 0..12 {
                    sleep(Duration::from_millis(random.u64(0..2_000))).await;
                    if random.u8(..4) == 0 {
                        server.fault(Fault::Delay(Duration::from_millis(random.u64(0..3_000))));
                    }
                    match random.u8(..8) {
                        0 => drop(cache.refresh().await),
                        1 => {
                            if let Some(token) = cache.peek() {
                                cache.reject(&token);
                            }
                        }
                        2 => drop(cache.revoke().await),
                        3 => {
                            *logins.lock().unwrap() += 1;
                            cache.login(refresh_token_login(&server)).await.unwrap();
                        }
                        4 => {
                            *logins.lock().unwrap() += 1;
                            let (login, _) = full_login(&server).await;
                            cache.login(login).await.unwrap();
                        }
                        _ => drop(cache.token().await),
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert!(*logins.lock().unwrap() > 0);
        // The last login: both processes go on with it, and nothing brings another session back.
        let (login, _) = full_login(&server).await;
        caches[0].login(login).await.unwrap();
        let expected = stored(&store).await["identity"].clone();
        for _ in 0..3 {
            sleep(12 * SECOND).await;
            for cache in &caches {
                drop(cache.refresh().await);
                settle().await;
                cache
                    .token()
                    .await
                    .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            assert_eq!(stored(&store).await["identity"], expected, "seed {seed}");
        }
        let restarted = process(&server, &configured, &store);
        restarted.token().await.unwrap();
        assert_eq!(stored(&store).await["identity"], expected, "seed {seed}");
        assert_eq!(server.reuse_detected(), 0, "seed {seed}");
    }
}
