//! A credential that the server has declared dead is not sent again by any process that shares the store.

#[path = "support/endpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
mod endpoint;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use endpoint::{DEAD, DOWN, TokenEndpoint, first, json, next};
use serde_json::Value;
use tokio::time::sleep;
use tower_bearer::{
    DeadGrant, ExchangeTokenSource, Grant, GrantContext, GrantSource, Identity, MemoryStore,
    OAuthClient, Parameters, RefreshTokenSource, StoreLease, StoredSession, TokenCache,
    TokenContext, TokenError, TokenErrorKind, TokenSource, TokenStore, source_fn,
    testing::SimulatedClock,
};

const SECOND: Duration = Duration::from_secs(1);

fn client(endpoint: &TokenEndpoint) -> OAuthClient {
    endpoint.client("https://login.example/token")
}

async fn stored(store: &MemoryStore) -> Value {
    json(&store.load().await.unwrap().unwrap())
}

fn assert_is_dead(error: &TokenError) {
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    assert!(error.is_final(), "{error}");
}

/// A store with a session whose refresh token `rt-1` was declared dead.
async fn ended(endpoint: &TokenEndpoint) -> MemoryStore {
    let store = MemoryStore::new();
    let source = process(endpoint, &store);
    let token = first(&source).await.unwrap();
    endpoint.respond_next([DEAD]);
    assert_is_dead(&next(&source, &token).await.unwrap_err());
    endpoint.sent();
    store
}

/// A process that shares the store, and begins without a token of its own.
fn process(endpoint: &TokenEndpoint, store: &MemoryStore) -> RefreshTokenSource {
    RefreshTokenSource::new(client(endpoint), "rt-0").store(store.clone())
}

/// The context of a process that needs another token than the stored one.
async fn needed(store: &MemoryStore) -> TokenContext {
    let session = stored(store).await;
    let token = session["access"]["token"].as_str().unwrap();
    TokenContext::new().replacing(tower_bearer::Token::new(token).unwrap())
}

mod marks {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_process_sends_a_dead_refresh_token_once_more() {
        let endpoint = TokenEndpoint::default();
        let store = ended(&endpoint).await;
        let before = stored(&store).await;
        for _ in 0..3 {
            let source = process(&endpoint, &store).reauth_hint("log in at the portal");
            let error = source.token(needed(&store).await).await.unwrap_err();
            assert_is_dead(&error);
            let text = error.to_string();
            assert!(text.contains("log in at the portal"), "{text}");
            assert!(
                text.contains("declared the session's credential dead on "),
                "{text}"
            );
            assert!(text.contains("GMT, so it is not sent again"), "{text}");
            assert!(!text.contains("interrupted"), "{text}");
            assert!(!source.has_changed().await);
        }
        assert_eq!(endpoint.sent(), [""; 0]);
        assert_eq!(stored(&store).await, before, "no mark, no save");
    }

    #[tokio::test(start_paused = true)]
    async fn a_configured_credential_that_never_worked_is_not_sent_once_more() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        endpoint.respond_next([DEAD]);
        for _ in 0..3 {
            assert_is_dead(&first(&process(&endpoint, &store)).await.unwrap_err());
        }
        assert_eq!(endpoint.sent().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_waits_for_the_lease_meanwhile_sends_nothing() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let (a, b) = (process(&endpoint, &store), process(&endpoint, &store));
        endpoint.respond_next([DEAD]);
        let (a, b) = tokio::join!(first(&a), first(&b));
        assert_is_dead(&a.unwrap_err());
        assert_is_dead(&b.unwrap_err());
        assert_eq!(endpoint.sent().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_mark_says_when_and_which_and_keeps_the_rest() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let start = SystemTime::UNIX_EPOCH + 1_700_000_000 * SECOND;
        let clock = SimulatedClock::new(start);
        let source = process(&endpoint, &store);
        let cache = TokenCache::builder(source).clock(clock).build();
        cache.token().await.unwrap();
        let before = stored(&store).await;
        endpoint.respond_next([DEAD]);
        sleep(10 * SECOND).await;
        cache.refresh().await.unwrap_err();
        let after = stored(&store).await;
        let dead = Identity::new("refresh", "rt-1");
        let expected = serde_json::json!({"since": 1_700_000_010_000_u64, "credentials": [dead], "reason": "rejected"});
        assert_eq!(after["ended"], expected);
        for member in [
            "generation",
            "identity",
            "former_identities",
            "client",
            "access",
            "refresh_token",
            "refreshing_since",
        ] {
            assert_eq!(after[member], before[member], "{member}");
        }
        assert!(after["version"].as_u64() > before["version"].as_u64());
        // The access token is still usable, and in use.
        assert_eq!(cache.token().await.unwrap().header(), "Bearer at-1");
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_declares_the_grant_dead_is_a_mark() {
        for response in [
            (401, r#"{"error":"invalid_client"}"#),
            (400, r#"{"error":"invalid_scope"}"#),
            (400, r#"{"error":"interaction_required"}"#),
            (400, r#"{"message":"the refresh token is invalid"}"#),
            (404, "<html>no backend</html>"),
            (429, r#"{"error":"invalid_grant"}"#),
            DOWN,
        ] {
            let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
            let source = process(&endpoint, &store);
            let token = first(&source).await.unwrap();
            endpoint.respond_next([response]);
            next(&source, &token).await.unwrap_err();
            assert!(stored(&store).await["ended"].is_null(), "{response:?}");
            next(&process(&endpoint, &store), &token).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_vendors_own_answer_without_a_code_is_a_mark_and_settles_nothing() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let closed = DeadGrant::member("reason", "SESSION CLOSED").with_status(403);
        let source = || {
            RefreshTokenSource::new(client(&endpoint).dead_grant(closed), "rt-0")
                .store(store.clone())
        };
        let token = first(&source()).await.unwrap();
        endpoint.respond_next([(403, r#"{"reason":"SESSION CLOSED"}"#)]);
        let error = next(&source(), &token).await.unwrap_err();
        assert!(
            error.is_final() && error.oauth_code().is_none(),
            "{error:?}"
        );
        let session = stored(&store).await;
        assert!(session["ended"].is_object(), "{session}");
        assert!(session["refreshing_since"].is_number(), "{session}");
        endpoint.sent();
        assert_is_dead(&next(&source(), &token).await.unwrap_err());
        assert_eq!(endpoint.sent(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_access_token_of_an_ended_session_is_used_until_it_expires() {
        let endpoint = TokenEndpoint::default();
        let store = ended(&endpoint).await;
        let clock = SimulatedClock::new(SystemTime::now());
        let cache = TokenCache::builder(process(&endpoint, &store))
            .clock(clock)
            .build();
        let mut seconds = 0;
        while let Ok(token) = cache.token().await {
            assert_eq!(token.header(), "Bearer at-1");
            sleep(SECOND).await;
            seconds += 1;
        }
        assert!((800..=900).contains(&seconds), "{seconds}");
        assert_is_dead(&cache.token().await.unwrap_err());
        assert_eq!(endpoint.sent(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_an_interrupted_refresh_has_ended_says_so_in_every_process() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let token = first(&process(&endpoint, &store)).await.unwrap();
        let lose = (503, "");
        endpoint.respond_next([lose]);
        next(&process(&endpoint, &store), &token).await.unwrap_err();
        endpoint.respond_next([DEAD]);
        let error = next(&process(&endpoint, &store), &token).await.unwrap_err();
        assert!(error.to_string().contains("was interrupted"), "{error}");
        let error = next(&process(&endpoint, &store), &token).await.unwrap_err();
        assert_is_dead(&error);
        assert!(error.to_string().contains("was interrupted"), "{error}");
    }
}

mod ways_on {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_reset_the_credential_is_sent_once() {
        let endpoint = TokenEndpoint::default();
        let store = ended(&endpoint).await;
        let marked_at = stored(&store).await["ended"]["since"].clone();
        let cache = TokenCache::new(process(&endpoint, &store));
        cache.token().await.unwrap();
        for _ in 0..3 {
            sleep(60 * SECOND).await;
            assert_is_dead(&cache.refresh().await.unwrap_err());
        }
        assert_eq!(endpoint.sent(), [""; 0]);

        endpoint.respond_next([DEAD]);
        cache.reset();
        sleep(2 * SECOND).await;
        assert_is_dead(&cache.refresh().await.unwrap_err());
        assert_eq!(endpoint.sent().len(), 1);
        for _ in 0..3 {
            sleep(60 * SECOND).await;
            assert_is_dead(&cache.refresh().await.unwrap_err());
        }
        sleep(1_000 * SECOND).await;
        assert_is_dead(&cache.token().await.unwrap_err());
        assert_eq!(endpoint.sent(), [""; 0], "once");
        assert_eq!(
            stored(&store).await["ended"]["since"],
            marked_at,
            "dead since the first time"
        );

        cache.reset();
        sleep(2 * SECOND).await;
        cache.refresh().await.unwrap();
        assert!(endpoint.sent()[0].contains("refresh_token=rt-1"));
        let session = stored(&store).await;
        assert!(session["ended"].is_null(), "{session}");

        // With its success, the reset is over: what another process has found out counts again.
        endpoint.respond_next([DEAD]);
        let other = process(&endpoint, &store);
        other.token(needed(&store).await).await.unwrap_err();
        assert_eq!(endpoint.sent().len(), 1);
        sleep(2 * SECOND).await;
        assert_is_dead(&cache.refresh().await.unwrap_err());
        assert_eq!(endpoint.sent(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_lasts_until_the_server_has_answered() {
        let endpoint = TokenEndpoint::default();
        let store = ended(&endpoint).await;
        let cache = TokenCache::builder(process(&endpoint, &store))
            .seed(7)
            .build();
        cache.token().await.unwrap();
        cache.reset();
        endpoint.respond_next([DOWN, DOWN]);
        for _ in 0..2 {
            sleep(61 * SECOND).await;
            let error = cache.refresh().await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Server);
        }
        sleep(61 * SECOND).await;
        cache.refresh().await.unwrap();
        assert_eq!(endpoint.sent().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_began_before_a_reset_does_not_use_it_up() {
        let resets = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&resets);
        let source = source_fn(move |cx: TokenContext| {
            seen.lock().unwrap().push(cx.is_after_reset());
            async {
                sleep(10 * SECOND).await;
                Err(TokenError::new(TokenErrorKind::ReauthRequired, "dead"))
            }
        });
        let cache = TokenCache::new(source);
        let reset = async {
            sleep(SECOND).await;
            cache.reset();
        };
        let (first, ()) = tokio::join!(cache.token(), reset);
        assert_is_dead(&first.unwrap_err());
        assert_is_dead(&cache.token().await.unwrap_err());
        assert_eq!(*resets.lock().unwrap(), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn adopting_a_token_does_not_use_up_a_reset() {
        let endpoint = TokenEndpoint::default();
        let store = ended(&endpoint).await;
        let cache = TokenCache::new(process(&endpoint, &store));
        cache.reset();
        cache.token().await.unwrap();
        sleep(2 * SECOND).await;
        cache.refresh().await.unwrap();
        assert_eq!(endpoint.sent().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_login_begins_another_session_that_all_go_on_with() {
        let endpoint = TokenEndpoint::default();
        let store = ended(&endpoint).await;
        let old = TokenCache::new(process(&endpoint, &store));
        old.token().await.unwrap();
        sleep(2 * SECOND).await;
        assert_is_dead(&old.refresh().await.unwrap_err());
        let login = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
        let token = first(&login).await.unwrap();
        assert!(endpoint.sent()[0].contains("refresh_token=login"));
        assert!(stored(&store).await["ended"].is_null());
        sleep(11 * SECOND).await;
        // This call still fails, and the new session is found in the background.
        old.refresh().await.unwrap_err();
        sleep(SECOND).await;
        assert_eq!(old.token().await.unwrap().header(), token.header());
        assert_eq!(endpoint.sent(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_has_sent_nothing_finds_a_new_login() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        endpoint.respond_next([DEAD]);
        first(&process(&endpoint, &store)).await.unwrap_err();
        let cache = TokenCache::new(process(&endpoint, &store));
        assert_is_dead(&cache.token().await.unwrap_err());
        let login = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
        let token = first(&login).await.unwrap();
        sleep(11 * SECOND).await;
        cache.token().await.unwrap_err();
        sleep(SECOND).await;
        assert_eq!(cache.token().await.unwrap().header(), token.header());
        assert_eq!(endpoint.sent().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_login_that_is_dead_too_does_not_stop_the_session_before_it() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let token = first(&process(&endpoint, &store)).await.unwrap();
        endpoint.respond_next([DEAD]);
        let login = || RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
        assert_is_dead(&first(&login()).await.unwrap_err());
        endpoint.sent();
        assert_is_dead(&first(&login()).await.unwrap_err());
        assert_eq!(endpoint.sent(), [""; 0]);
        next(&process(&endpoint, &store), &token).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_login_that_is_dead_is_not_sent_again_after_each_refresh_of_the_session() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let mut token = first(&process(&endpoint, &store)).await.unwrap();
        endpoint.respond_next([DEAD]);
        let login = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
        let cache = TokenCache::new(login);
        assert_is_dead(&cache.token().await.unwrap_err());
        for _ in 0..3 {
            endpoint.sent();
            token = next(&process(&endpoint, &store), &token).await.unwrap();
            sleep(11 * SECOND).await;
            assert_is_dead(&cache.token().await.unwrap_err());
            sleep(SECOND).await;
            assert_is_dead(&cache.token().await.unwrap_err());
            let requests = endpoint.sent();
            assert_eq!(requests.len(), 1, "{requests:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_login_is_not_sent_again_when_the_session_before_it_is_refreshed() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let old = process(&endpoint, &store);
        let token = first(&old).await.unwrap();
        endpoint.respond_next([DEAD]);
        let login = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
        let login = TokenCache::new(login);
        assert_is_dead(&login.token().await.unwrap_err());
        next(&old, &token).await.unwrap();
        endpoint.sent();
        for _ in 0..3 {
            sleep(11 * SECOND).await;
            assert_is_dead(&login.token().await.unwrap_err());
        }
        assert_eq!(endpoint.sent(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_after_a_dead_one_brings_the_process_of_the_dead_one_back() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        first(&process(&endpoint, &store)).await.unwrap();
        endpoint.respond_next([DEAD]);
        let dead = RefreshTokenSource::new(client(&endpoint), "dead").store(store.clone());
        let dead = TokenCache::new(dead);
        assert_is_dead(&dead.token().await.unwrap_err());
        let login = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
        let token = first(&login).await.unwrap();
        endpoint.sent();
        sleep(11 * SECOND).await;
        dead.token().await.unwrap_err();
        sleep(SECOND).await;
        assert_eq!(dead.token().await.unwrap().header(), token.header());
        assert_eq!(endpoint.sent(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_credential_in_the_store_is_sent() {
        let endpoint = TokenEndpoint::default();
        let store = ended(&endpoint).await;
        // An import by hand leaves the mark of the old credential behind.
        let mut session = stored(&store).await;
        let version = session["version"].as_u64().unwrap();
        session["version"] = (version + 1).into();
        session["refresh_token"] = "imported".into();
        let session: StoredSession = serde_json::from_value(session).unwrap();
        let mut lease = store.lease().await.unwrap();
        lease.save(version, &session).await.unwrap();
        lease.release().await;
        let source = process(&endpoint, &store);
        source.token(needed(&store).await).await.unwrap();
        assert!(endpoint.sent()[0].contains("refresh_token=imported"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_mark_of_another_client_does_not_count() {
        let endpoint = TokenEndpoint::default();
        let store = ended(&endpoint).await;
        // Somebody moves the session to the right client.
        let mut session = stored(&store).await;
        let version = session["version"].as_u64().unwrap();
        session["version"] = (version + 1).into();
        session["client"] = Value::Null;
        let session: StoredSession = serde_json::from_value(session).unwrap();
        let mut lease = store.lease().await.unwrap();
        lease.save(version, &session).await.unwrap();
        lease.release().await;
        let source = process(&endpoint, &store);
        source.token(needed(&store).await).await.unwrap();
        assert_eq!(endpoint.sent().len(), 1);
    }
}

mod grants_that_repeat {
    use super::*;

    fn exchange(endpoint: &TokenEndpoint, store: &MemoryStore) -> ExchangeTokenSource {
        ExchangeTokenSource::new(client(endpoint), "x").store(store.clone())
    }

    const EXCHANGE: &str = "/token grant_type=exchange_token&code=x";
    const REFRESH: &str = "/token grant_type=refresh_token&refresh_token=rt-1";

    #[tokio::test(start_paused = true)]
    async fn a_4xx_that_says_something_else_does_not_begin_the_session_anew() {
        for response in [
            (401, "<html>log in to the proxy</html>"),
            (403, "no"),
            (404, "<html>default backend</html>"),
            (400, r#"{"error":"invalid_scope"}"#),
        ] {
            let endpoint = TokenEndpoint::default();
            let source = ExchangeTokenSource::new(client(&endpoint), "exchange");
            let token = first(&source).await.unwrap();
            endpoint.sent();
            endpoint.respond_next([response]);
            next(&source, &token).await.unwrap_err();
            let sent = endpoint.sent();
            assert_eq!(sent.len(), 1, "{response:?}: {sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_session_begins_anew_and_the_dead_refresh_token_is_not_sent_again() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let token = first(&exchange(&endpoint, &store)).await.unwrap();
        endpoint.respond_next([DEAD, DOWN]);
        let error = next(&exchange(&endpoint, &store), &token)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Server);
        assert_eq!(endpoint.sent(), [EXCHANGE, REFRESH, EXCHANGE]);
        // Another process, and twice.
        endpoint.respond_next([DOWN]);
        let error = next(&exchange(&endpoint, &store), &token)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Server);
        next(&exchange(&endpoint, &store), &token).await.unwrap();
        assert_eq!(endpoint.sent(), [EXCHANGE, EXCHANGE]);
        assert!(stored(&store).await["ended"].is_null());
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_died_while_a_process_waited_for_the_lease_is_not_sent_again() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let token = first(&exchange(&endpoint, &store)).await.unwrap();
        endpoint.respond_next([DEAD, DEAD]);
        let (one, other) = (exchange(&endpoint, &store), exchange(&endpoint, &store));
        let (one, other) = tokio::join!(next(&one, &token), next(&other, &token));
        assert_is_dead(&one.unwrap_err());
        assert_is_dead(&other.unwrap_err());
        assert_eq!(endpoint.sent(), [EXCHANGE, REFRESH, EXCHANGE]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_if_the_grant_is_dead_as_well() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let token = first(&exchange(&endpoint, &store)).await.unwrap();
        endpoint.respond_next([DEAD, DEAD]);
        assert_is_dead(
            &next(&exchange(&endpoint, &store), &token)
                .await
                .unwrap_err(),
        );
        assert_eq!(endpoint.sent(), [EXCHANGE, REFRESH, EXCHANGE]);
        assert_is_dead(
            &next(&exchange(&endpoint, &store), &token)
                .await
                .unwrap_err(),
        );
        assert_eq!(endpoint.sent(), [""; 0]);
        // After a reset, both are.
        let cx = TokenContext::new().replacing(token.clone()).after_reset();
        endpoint.respond_next([DEAD]);
        exchange(&endpoint, &store).token(cx).await.unwrap();
        assert_eq!(endpoint.sent(), [REFRESH, EXCHANGE]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_is_allowed_to_repeat_later_begins_the_session_anew() {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let once = || exchange(&endpoint, &store).reusable(false);
        let token = first(&once()).await.unwrap();
        endpoint.respond_next([DEAD]);
        assert_is_dead(&next(&once(), &token).await.unwrap_err());
        assert_is_dead(&next(&once(), &token).await.unwrap_err());
        endpoint.sent();
        next(&exchange(&endpoint, &store), &token).await.unwrap();
        assert_eq!(endpoint.sent(), [EXCHANGE]);
    }

    /// Makes other parameters for each request.
    struct Fresh {
        number: AtomicUsize,
        refreshes: bool,
    }

    impl Grant for Fresh {
        async fn parameters(&self, _cx: &GrantContext<'_>) -> Result<Parameters, TokenError> {
            let number = self.number.fetch_add(1, Ordering::SeqCst).to_string();
            Ok(if self.refreshes {
                Parameters::refresh_token(number)
            } else {
                Parameters::new("assertion").with("assertion", number)
            })
        }

        fn identity(&self) -> Identity {
            Identity::new("fresh", "of the tests")
        }

        fn can_repeat(&self) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_of_parameters_that_are_made_anew_is_no_mark() {
        for refreshes in [false, true] {
            let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
            let grant = Fresh {
                number: AtomicUsize::new(0),
                refreshes,
            };
            let source = GrantSource::with_grant(client(&endpoint), grant).store(store.clone());
            endpoint.respond_next([DEAD]);
            let error = first(&source).await.unwrap_err();
            assert!(!error.is_final(), "{error}");
            assert!(stored(&store).await["ended"].is_null());
            first(&source).await.unwrap();
            let sent = endpoint.sent();
            assert!(sent[1].ends_with("=1"), "{sent:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_died_after_a_revocation_is_older_than_the_next_one() {
    let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
    let process = |login: &str| {
        let client = client(&endpoint).revocation_url("https://login.example/revoke");
        RefreshTokenSource::new(client.unwrap(), login).store(store.clone())
    };
    let source = process("rt-0");
    first(&source).await.unwrap();
    source.revoke(TokenContext::new()).await.unwrap();
    endpoint.respond_next([DEAD]);
    first(&process("dead-login")).await.unwrap_err();
    let token = first(&process("next-login")).await.unwrap();
    endpoint.sent();
    let adopted = first(&process("dead-login")).await.unwrap();
    assert_eq!(adopted.expose_secret(), token.expose_secret());
    assert_eq!(endpoint.sent(), [""; 0]);
}

mod dates_in_errors {
    use super::*;

    const YEAR_10000: u64 = 253_402_300_800;

    /// The error for a session whose refresh token the server declares dead, and which has this time in the store.
    async fn error_with(field: &str, seconds: u64) -> String {
        let (endpoint, store) = (TokenEndpoint::default(), MemoryStore::new());
        let source = process(&endpoint, &store);
        let token = first(&source).await.unwrap();
        let mut session = stored(&store).await;
        let version = session["version"].as_u64().unwrap();
        session["version"] = (version + 1).into();
        session[field] = (seconds * 1_000).into();
        let session: StoredSession = serde_json::from_value(session).unwrap();
        let mut lease = store.lease().await.unwrap();
        lease.save(version, &session).await.unwrap();
        lease.release().await;
        endpoint.respond_next([DEAD]);
        next(&source, &token).await.unwrap_err().to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_says_when_the_refresh_token_expired() {
        let error = error_with("refresh_expires_at", 1_700_000_000).await;
        let expired = "the refresh token expired on Tue, 14 Nov 2023 22:13:20 GMT";
        assert!(error.contains(expired), "{error}");
        let error = error_with("refresh_expires_at", YEAR_10000 - 1).await;
        assert!(!error.contains("expired on"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_date_after_the_year_9999_is_left_out() {
        let error = error_with("refreshing_since", YEAR_10000 - 1).await;
        let interrupted = "a refresh that began on Fri, 31 Dec 9999 23:59:59 GMT was interrupted";
        assert!(error.contains(interrupted), "{error}");
        let error = error_with("refreshing_since", YEAR_10000).await;
        assert!(!error.contains("was interrupted"), "{error}");
    }
}
