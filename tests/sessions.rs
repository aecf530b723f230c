//! What sources promise: one use of each refresh token, saved before it is seen, by as many as share a store.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use tokio::{task::JoinSet, time::sleep};
use tower_bearer::{
    ClientAuth, ExchangeTokenSource, MemoryLease, MemoryStore, OAuthClient, RefreshTokenSource,
    Schedule, StoreLease, StoredSession, Token, TokenCache, TokenContext, TokenError,
    TokenErrorKind, TokenSource, TokenStore,
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

/// A store that can fail, and remembers what was done with it.
#[derive(Clone, Default)]
struct Shaky {
    store: MemoryStore,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    log: Vec<&'static str>,
    fail: Vec<(&'static str, TokenErrorKind)>,
    written_by_hand: Option<StoredSession>,
}

impl Shaky {
    /// The next time `what` is done, it fails.
    fn fail(&self, what: &'static str, kind: TokenErrorKind) {
        self.inner.lock().unwrap().fail.push((what, kind));
    }

    fn log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.inner.lock().unwrap().log)
    }

    fn enter(&self, what: &'static str) -> Result<(), TokenError> {
        let mut inner = self.inner.lock().unwrap();
        inner.log.push(what);
        let planned = inner.fail.iter().position(|(planned, _)| *planned == what);
        match planned.map(|at| inner.fail.remove(at)) {
            Some((_, kind)) => Err(TokenError::new(kind, "as it was told")),
            None => Ok(()),
        }
    }
}

struct ShakyLease {
    lease: MemoryLease,
    shaky: Shaky,
    saves: usize,
}

impl TokenStore for Shaky {
    type Lease = ShakyLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.enter("load")?;
        if let Some(session) = &self.inner.lock().unwrap().written_by_hand {
            return Ok(Some(session.clone()));
        }
        self.store.load().await
    }

    async fn lease(&self) -> Result<ShakyLease, TokenError> {
        self.enter("lease")?;
        Ok(ShakyLease {
            lease: self.store.lease().await?,
            shaky: self.clone(),
            saves: 0,
        })
    }
}

impl StoreLease for ShakyLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        // The first save of a turn marks that a refresh has begun.
        self.saves += 1;
        self.shaky
            .enter(if self.saves == 1 { "mark" } else { "save" })?;
        self.lease.save(replaces, session).await
    }

    async fn release(self) {
        let _ = self.shaky.enter("release");
        self.lease.release().await;
    }
}

mod rotation {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_answers_refresh_token_is_the_next_to_be_used() {
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
        assert_eq!(used.len(), 6, "each once");
        assert_eq!((server.refreshes(), server.reuse_detected()), (6, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn if_no_refresh_token_comes_the_old_one_stays() {
        let server = server().give_refresh_token(false).rotate(false);
        let source = refresh(&server);
        let mut token = first(&source).await;
        for _ in 0..3 {
            token = next(&source, &token).await.unwrap();
        }
        assert_eq!(server.refreshes(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_refresh_token_needs_a_person_and_says_so() {
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

mod exchanging {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_exchanges_once_and_refreshes_afterwards() {
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
    async fn it_exchanges_again_if_the_refresh_token_is_dead() {
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
    async fn it_does_not_if_it_was_told_not_to() {
        let server = server().exchange_once(false);
        let source = exchange(&server).reusable(false);
        let token = first(&source).await;
        server.revoke_sessions();
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        assert_eq!(server.exchanges(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_if_the_exchange_token_works_only_once() {
        let server = server().exchange_once(true);
        let source = exchange(&server);
        let token = first(&source).await;
        server.revoke_sessions();
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
    }

    #[tokio::test(start_paused = true)]
    async fn it_exchanges_each_time_if_no_refresh_token_comes() {
        let server = server().exchange_once(false).give_refresh_token(false);
        let source = exchange(&server);
        let token = first(&source).await;
        next(&source, &token).await.unwrap();
        assert_eq!(grants(&server), ["exchange_token", "exchange_token"]);
    }
}

mod sharing {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_shares_a_store_adopts_what_another_got() {
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
    async fn many_at_once_use_each_refresh_token_once() {
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
    async fn a_new_login_begins_the_session_anew_and_who_is_late_follows() {
        let server = server();
        let store = MemoryStore::new();
        let old = refresh(&server).store(store.clone());
        let token = first(&old).await;
        let new = refresh(&server).store(store.clone());
        let newer = first(&new).await;
        assert_ne!(newer.expose_secret(), token.expose_secret());
        // Still configured with the first login, in a process that hasn't been restarted yet.
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
    async fn before_a_dead_grant_is_believed_the_store_is_read_once_more() {
        let server = server();
        let store = Shaky::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        server.revoke_sessions();
        // Somebody logs in while our request is under way.
        server.fault(Fault::Delay(10 * SECOND));
        let renewal = next(&source, &token);
        let login = async {
            sleep(5 * SECOND).await;
            let other = MemoryStore::new();
            let new = refresh(&server).store(other.clone());
            first(&new).await;
            let session = other.load().await.unwrap().unwrap();
            // Written by hand into the store, without a lease.
            store.inner.lock().unwrap().written_by_hand = Some(session);
        };
        let (renewed, ()) = tokio::join!(renewal, login);
        assert!(server.is_live(renewed.unwrap().expose_secret()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_by_another_process_heals_a_cache_without_a_restart() {
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

    #[tokio::test(start_paused = true)]
    async fn a_dead_session_is_not_asked_for_again_until_the_store_has_another() {
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
        // Somebody asks; behind him it is found out.
        cache.token().await.unwrap_err();
        sleep(SECOND).await;
        let token = cache.token().await.unwrap();
        assert!(server.is_live(token.expose_secret()));
    }
}

mod import {
    use tower_bearer::Identity;

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
}

mod durability {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rotated_token_is_saved_before_anybody_sees_it() {
        let server = server();
        let store = Shaky::default();
        let source = refresh(&server).store(store.clone());
        first(&source).await;
        assert_eq!(
            store.log(),
            ["load", "lease", "load", "mark", "save", "release"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_save_that_fails_is_tried_again() {
        let server = server();
        let store = Shaky::default();
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
    async fn a_session_that_cannot_be_saved_goes_on_from_memory_and_says_so() {
        let server = server().detect_reuse(true);
        let store = Shaky::default();
        let cache = TokenCache::new(refresh(&server).store(store.clone()));
        for _ in 0..3 {
            store.fail("save", TokenErrorKind::Store);
        }
        cache.token().await.unwrap();
        let told = cache.status().last_error.expect("a warning");
        assert_eq!(told.kind(), TokenErrorKind::Store);
        for _ in 0..3 {
            sleep(2 * SECOND).await;
            let token = cache.refresh().await.unwrap();
            assert!(server.is_live(token.expose_secret()));
        }
        assert!(cache.status().last_error.is_none(), "saved by now");
        assert_eq!(server.reuse_detected(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_without_the_store() {
        for what in ["load", "lease", "mark"] {
            let server = server();
            let store = Shaky::default();
            let source = refresh(&server).store(store.clone());
            store.fail(what, TokenErrorKind::Store);
            let error = source.token(TokenContext::new()).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Store, "{what}");
            assert!(error.is_transient());
            assert_eq!(server.token_requests(), 0, "{what}");
            first(&source).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_lost_the_lease_sends_nothing() {
        let server = server();
        let store = Shaky::default();
        let source = refresh(&server).store(store.clone());
        for _ in 0..3 {
            store.fail("mark", TokenErrorKind::LeaseLost);
        }
        let error = source.token(TokenContext::new()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::LeaseLost);
        assert_eq!(server.token_requests(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_lost_the_lease_starts_over_under_a_new_one() {
        let server = server();
        let store = Shaky::default();
        let source = refresh(&server).store(store.clone());
        store.fail("mark", TokenErrorKind::LeaseLost);
        first(&source).await;
        let turn = ["load", "lease", "load", "mark"];
        let lost = [turn.as_slice(), &["release"]].concat();
        let done = [turn.as_slice(), &["save", "release"]].concat();
        assert_eq!(store.log(), [lost, done].concat());
        assert_eq!(server.token_requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_lost_the_lease_adopts_what_was_saved_instead() {
        let server = server();
        let store = Shaky::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        let other = source.clone().store(store.store.clone());
        store.fail("mark", TokenErrorKind::LeaseLost);
        // While one renews, the other has waited for so long that its lease has ended.
        server.fault(Fault::Delay(5 * SECOND));
        let (a, b) = tokio::join!(next(&other, &token), next(&source, &token));
        assert_eq!(a.unwrap().expose_secret(), b.unwrap().expose_secret());
        assert_eq!(server.token_requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_is_healed_at_once_by_a_server_with_grace() {
        let server = server().detect_reuse(true).grace(SECOND);
        let source = refresh(&server);
        let token = first(&source).await;
        server.fault(Fault::DropReplyAfterCommit);
        let token = next(&source, &token).await.unwrap();
        assert!(server.is_live(token.expose_secret()));
        assert_eq!((server.token_requests(), server.reuse_detected()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_is_lost_twice_says_so_and_is_healed_within_the_grace() {
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
    async fn a_reply_lost_on_the_way_from_a_strict_server_is_named_in_the_error() {
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
        // Others who share the session hear it too.
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired);
        assert!(error.to_string().contains("was interrupted"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_has_renewed_meanwhile_is_not_sent_again() {
        let server = server().detect_reuse(true);
        let store = Shaky::default();
        let source = refresh(&server).store(store.clone());
        let token = first(&source).await;
        // The answer takes longer than we wait, and so long that the lease has ended before.
        server.fault(Fault::Delay(40 * SECOND));
        let renewal = next(&source, &token);
        let another = async {
            sleep(20 * SECOND).await;
            let other = MemoryStore::new();
            first(&refresh(&server).store(other.clone())).await;
            let session = other.load().await.unwrap();
            store.inner.lock().unwrap().written_by_hand = session;
        };
        let (renewed, ()) = tokio::join!(renewal, another);
        assert!(server.is_live(renewed.unwrap().expose_secret()));
        assert_eq!((server.token_requests(), server.reuse_detected()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_left_is_not_sent_again_at_once() {
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
    async fn one_transient_failure_wipes_nothing() {
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
            // What gets no answer is tried twice.
            let lost = matches!(fault, Fault::DropBeforeCommit | Fault::NeverAnswers);
            server.fault_next(1 + usize::from(lost), &fault);
            assert!(next(&source, &token).await.unwrap_err().is_transient());
            // Also for who comes after a restart.
            let restarted = source.clone().store(store);
            let token = next(&restarted, &token).await.unwrap();
            assert!(server.is_live(token.expose_secret()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_goes_on_where_the_last_process_stopped() {
        let server = server().detect_reuse(true);
        let store = MemoryStore::new();
        let seed = server.issue_refresh_token();
        let start =
            || RefreshTokenSource::new(endpoint(&server), seed.clone()).store(store.clone());
        let mut token = first(&start()).await;
        assert_eq!(first(&start()).await.expose_secret(), token.expose_secret());
        for _ in 0..5 {
            token = next(&start(), &token).await.unwrap();
        }
        assert_eq!((server.refreshes(), server.reuse_detected()), (6, 0));
    }
}

mod clocks {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_clock_is_an_hour_off_is_understood() {
        use tower_bearer::{BodyFormat, testing::Printed};
        for skew in [3_600, -3_600] {
            let server = AuthorizationServer::new(Dialect::Xoxoday)
                .access_lifetime(Duration::from_secs(900))
                .expires_in(Printed::Absent)
                .expiry(Printed::Text)
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

    /// Any faults, in any order, against a server with grace: in the end the session is alive.
    #[test]
    fn whatever_goes_wrong_on_the_way_the_session_survives(faults in proptest::collection::vec(0u8..7, 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = server().detect_reuse(true).grace(3_600 * SECOND);
            let store = Shaky::default();
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
            // What is left of the faults must not hit the last word.
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
