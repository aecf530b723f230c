//! Another process saves in between: because a lease has ended before its holder, or because the store could not save.
//!
//! Each test lets one source run, and plays the other processes at exact places between its calls to the store.

#[path = "support/endpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
mod endpoint;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use endpoint::{DEAD, DOWN, TokenEndpoint, first, json, next};
use tokio::{sync::Barrier, time::sleep};
use tower_bearer::{
    ExchangeTokenSource, Identity, OAuthClient, RefreshTokenSource, StoreLease, StoredSession,
    Token, TokenCache, TokenContext, TokenError, TokenErrorKind, TokenSource, TokenStore,
};

const SECOND: Duration = Duration::from_secs(1);
/// 400 without an OAuth code, as of a gateway. Some servers say so that a refresh token is dead.
const UNEXPLAINED: (u16, &str) = (400, "<html>Bad Request</html>");

fn client(endpoint: &TokenEndpoint) -> OAuthClient {
    endpoint.client("https://login.example/token")
}

fn process(endpoint: &TokenEndpoint, store: &Store) -> RefreshTokenSource {
    RefreshTokenSource::new(client(endpoint), "rt-0").store(store.clone())
}

/// The refresh tokens of the requests.
fn refresh_tokens(endpoint: &TokenEndpoint) -> Vec<String> {
    let value = |request: String| {
        let value = request.split("refresh_token=").nth(1);
        value
            .unwrap_or("none")
            .split('&')
            .next()
            .unwrap()
            .to_owned()
    };
    endpoint.sent().into_iter().map(value).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Lease,
    Load,
    /// A save of a session that is marked as being refreshed.
    Mark,
    Save,
    IsHeld,
    Release,
}

/// What another process does just before a call, and how the call fails.
type Before = dyn FnMut(Call, &mut Stored) -> Result<(), TokenError> + Send;

/// A store in memory, in which leases do not exclude each other.
#[derive(Clone, Default)]
struct Store {
    inner: Arc<Mutex<Inner>>,
    /// Both processes of a test meet here before they save.
    meeting: Option<Arc<Barrier>>,
}

#[derive(Default)]
struct Inner {
    stored: Stored,
    before: Option<Box<Before>>,
}

struct Stored {
    session: Option<StoredSession>,
    is_held: bool,
    /// Marks are saved, and the process does not learn it.
    loses_results: bool,
    calls: Vec<(Call, bool)>,
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            session: None,
            is_held: true,
            loses_results: false,
            calls: Vec::new(),
        }
    }
}

impl Stored {
    fn version(&self) -> u64 {
        self.session.as_ref().map_or(0, StoredSession::version)
    }

    fn change(&mut self, change: impl FnOnce(&mut serde_json::Value)) {
        let mut session = json(self.session.as_ref().unwrap());
        session["version"] = (self.version() + 1).into();
        change(&mut session);
        self.session = Some(serde_json::from_value(session).unwrap());
    }

    /// Another process has marked the session.
    fn mark(&mut self) {
        self.change(|session| {
            session["refreshing_since"] = 1_700_000_000_000_u64.into();
            session["refresh_id"] = 7.into();
        });
    }

    /// Another process has recorded that this refresh token is dead or revoked.
    fn end(&mut self, reason: &str, refresh_token: &str) {
        let ended = serde_json::json!({
            "since": 1_700_000_000_000_u64,
            "credentials": [Identity::new("refresh", refresh_token)],
            "reason": reason,
        });
        self.change(|session| session["ended"] = ended);
    }

    /// Another process has refreshed the session.
    fn refresh(&mut self, token: &str) {
        let access = serde_json::json!({"token": token, "lifetime_secs": 900});
        self.change(|session| {
            session["generation"] = (session["generation"].as_u64().unwrap() + 1).into();
            session["access"] = access;
            session["refresh_token"] = format!("of-{token}").into();
            session["refreshing_since"] = serde_json::Value::Null;
        });
    }
}

impl Store {
    fn before(
        &self,
        before: impl FnMut(Call, &mut Stored) -> Result<(), TokenError> + Send + 'static,
    ) {
        self.inner.lock().unwrap().before = Some(Box::new(before));
    }

    fn repair(&self) {
        self.inner.lock().unwrap().before = None;
    }

    fn calls(&self) -> Vec<(Call, bool)> {
        std::mem::take(&mut self.inner.lock().unwrap().stored.calls)
    }

    fn session(&self) -> serde_json::Value {
        json(self.inner.lock().unwrap().stored.session.as_ref().unwrap())
    }

    fn call<T>(
        &self,
        call: Call,
        run: impl FnOnce(&mut Stored) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { stored, before } = &mut *inner;
        let before = before
            .as_mut()
            .map_or(Ok(()), |before| before(call, stored));
        let result = before.and_then(|()| run(stored));
        stored.calls.push((call, result.is_ok()));
        result
    }
}

impl TokenStore for Store {
    type Lease = Self;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        self.call(Call::Load, |stored| Ok(stored.session.clone()))
    }

    async fn lease(&self) -> Result<Self, TokenError> {
        self.call(Call::Lease, |_| Ok(self.clone()))
    }
}

impl StoreLease for Store {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let is_mark = !json(session)["refreshing_since"].is_null();
        let call = if is_mark { Call::Mark } else { Call::Save };
        if let Some(meeting) = &self.meeting {
            meeting.wait().await;
        }
        self.call(call, |stored| {
            let is_repeated = |stored| json(stored) == json(session);
            if stored.session.as_ref().is_some_and(is_repeated) {
                let is_lost = stored.loses_results && is_mark;
                return if is_lost { Err(full_disk()) } else { Ok(()) };
            }
            if stored.version() != replaces {
                return Err(TokenError::new(
                    TokenErrorKind::LeaseLost,
                    "another version",
                ));
            }
            stored.session = Some(session.clone());
            if stored.loses_results && is_mark {
                return Err(full_disk());
            }
            Ok(())
        })
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        self.call(Call::IsHeld, |stored| Ok(stored.is_held))
    }

    async fn release(self) {
        self.call(Call::Release, |_| Ok(())).unwrap();
    }
}

fn full_disk() -> TokenError {
    TokenError::new(TokenErrorKind::Store, "the disk is full")
}

/// Nothing can be saved.
fn no_saves(call: Call, _: &mut Stored) -> Result<(), TokenError> {
    match call {
        Call::Save | Call::Mark => Err(full_disk()),
        _ => Ok(()),
    }
}

/// Nothing can be saved but marks.
fn only_marks(call: Call, _: &mut Stored) -> Result<(), TokenError> {
    match call {
        Call::Save => Err(full_disk()),
        _ => Ok(()),
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_that_mark_an_interrupted_session_one_finds_the_mark_of_the_other() {
    let (endpoint, mut store) = (TokenEndpoint::default(), Store::default());
    let token = first(&process(&endpoint, &store)).await.unwrap();
    store.inner.lock().unwrap().stored.mark();
    store.calls();
    store.meeting = Some(Arc::new(Barrier::new(2)));
    let (one, other) = (process(&endpoint, &store), process(&endpoint, &store));
    let both = async { tokio::join!(next(&one, &token), next(&other, &token)) };
    // One process saves its mark, and both meet no more.
    drop(tokio::time::timeout(SECOND, both).await);
    let calls = store.calls();
    let marks: Vec<_> = calls
        .iter()
        .filter(|(call, _)| *call == Call::Mark)
        .collect();
    assert_eq!(marks[..2], [&(Call::Mark, true), &(Call::Mark, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_mark_cannot_be_saved_is_not_sent_if_another_process_has_saved() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    endpoint.sent();
    let mut has_saved = false;
    store.before(move |call, stored| {
        if call != Call::Mark {
            return Ok(());
        }
        if !std::mem::replace(&mut has_saved, true) {
            stored.refresh("of-the-other");
        }
        Err(full_disk())
    });
    let token = next(&source, &token).await.unwrap();
    assert_eq!(token.expose_secret(), "of-the-other");
    assert_eq!(endpoint.sent(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_was_saved_although_the_store_said_no_is_not_that_of_another_process() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    lock(&store).stored.loses_results = true;
    endpoint.sent();
    let token = next(&source, &token).await.unwrap();
    assert_eq!(token.expose_secret(), "at-2");
    assert_eq!(refresh_tokens(&endpoint), ["rt-1"]);
    // It replaces the mark, at once.
    assert_eq!(store.session()["refresh_token"], "rt-2");
}

#[tokio::test(start_paused = true)]
async fn a_dead_credential_is_saved_over_a_mark_that_was_saved_although_the_store_said_no() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    lock(&store).stored.loses_results = true;
    endpoint.respond_next([DEAD]);
    next(&source, &token).await.unwrap_err();
    assert_eq!(store.session()["ended"]["reason"], "rejected");
}

/// The calls that give up the lease, or take another one.
fn lease_changes(store: &Store) -> Vec<Call> {
    let calls = store.calls().into_iter().map(|(call, _)| call);
    calls
        .filter(|call| matches!(call, Call::Lease | Call::Release))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_process_with_an_unsaved_session_keeps_its_lease_while_the_store_is_not_reached() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    store.before(only_marks);
    let token = next(&source, &token).await.unwrap();
    lease_changes(&store);
    let is_reached = |call| matches!(call, Call::Lease | Call::Release);
    // Nothing is reached at first. Then one answer to the question whether the lease is held is lost.
    store.before(move |call, _| {
        if is_reached(call) {
            Ok(())
        } else {
            Err(full_disk())
        }
    });
    next(&source, &token).await.unwrap_err();
    let mut is_lost = false;
    store.before(move |call, _| match call {
        Call::IsHeld if !std::mem::replace(&mut is_lost, true) => Err(full_disk()),
        Call::Save => Err(full_disk()),
        _ => Ok(()),
    });
    next(&source, &token).await.unwrap();
    assert_eq!(lease_changes(&store), []);
    store.repair();
    sleep(10 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "rt-3");
    assert_eq!(lease_changes(&store), [Call::Release]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_finds_its_own_mark_keeps_its_lease_although_an_answer_is_lost() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    lease_changes(&store);
    // The mark is saved later, after the process has found that it was not saved.
    let (mut mark, mut is_lost) = (None, false);
    store.before(move |call, stored| match call {
        Call::Mark => {
            mark = Some(());
            Err(full_disk())
        }
        Call::Save if mark.take().is_some() => {
            stored.mark();
            Ok(())
        }
        Call::IsHeld if mark.is_none() && !std::mem::replace(&mut is_lost, true) => {
            Err(full_disk())
        }
        _ => Ok(()),
    });
    next(&source, &token).await.unwrap();
    assert_eq!(lease_changes(&store), [Call::Lease]);
    sleep(10 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "rt-2");
    assert_eq!(lease_changes(&store), [Call::Release]);
}

#[tokio::test(start_paused = true)]
async fn a_process_with_an_unsaved_session_keeps_its_lease_while_the_store_does_not_say_that_it_is_lost()
 {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    lease_changes(&store);
    // The store loses the mark, as in a failover. So the save finds another version.
    let (mut unmarked, mut is_lost) = (None, false);
    store.before(move |call, stored| {
        match call {
            Call::Mark => unmarked.clone_from(&stored.session),
            Call::Save if !std::mem::replace(&mut is_lost, true) => {
                stored.session.clone_from(&unmarked);
            }
            Call::Save | Call::IsHeld => return Err(full_disk()),
            _ => {}
        }
        Ok(())
    });
    next(&source, &token).await.unwrap();
    sleep(10 * SECOND).await;
    assert_eq!(lease_changes(&store), [Call::Lease]);
    store.repair();
    sleep(10 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "rt-2");
    assert_eq!(lease_changes(&store), [Call::Release]);
}

/// A source whose session cannot be saved, while another process with the lease records in the store that `login` is dead.
async fn unsaved_when_a_login_is_recorded_as_dead(
    endpoint: &TokenEndpoint,
    store: &Store,
    login: &str,
) -> (RefreshTokenSource, Token) {
    let source = process(endpoint, store);
    let token = first(&source).await.unwrap();
    store.before(no_saves);
    let token = next(&source, &token).await.unwrap();
    lock(store).stored.end("rejected", login);
    store.repair();
    endpoint.sent();
    (source, token)
}

/// The process of the dead login gets an error, and sends nothing.
async fn assert_login_stays_dead(endpoint: &TokenEndpoint, store: &Store) {
    endpoint.sent();
    let login = RefreshTokenSource::new(client(endpoint), "login").store(store.clone());
    let error = first(&login).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    assert_eq!(endpoint.sent(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_saved_in_the_background_keeps_the_logins_recorded_as_dead() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let (_source, _) = unsaved_when_a_login_is_recorded_as_dead(&endpoint, &store, "login").await;
    sleep(10 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "rt-2");
    assert_login_stays_dead(&endpoint, &store).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_refreshed_from_memory_keeps_the_logins_recorded_as_dead() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let (source, token) =
        unsaved_when_a_login_is_recorded_as_dead(&endpoint, &store, "login").await;
    next(&source, &token).await.unwrap();
    assert_eq!(store.session()["refresh_token"], "rt-3");
    assert_login_stays_dead(&endpoint, &store).await;
}

/// Of a server that does not rotate refresh tokens, so that the session keeps its login.
const NOT_ROTATED: (u16, &str) = (200, r#"{"access_token":"at","expires_in":900}"#);

#[tokio::test(start_paused = true)]
async fn a_login_that_is_still_the_refresh_token_and_was_recorded_as_dead_is_not_sent_from_memory()
{
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    endpoint.respond_next([NOT_ROTATED, NOT_ROTATED]);
    let (source, token) = unsaved_when_a_login_is_recorded_as_dead(&endpoint, &store, "rt-0").await;
    let error = next(&source, &token).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    assert_eq!(endpoint.sent(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_still_the_refresh_token_stays_dead_after_a_save_in_the_background() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    endpoint.respond_next([NOT_ROTATED, NOT_ROTATED]);
    let (_source, token) =
        unsaved_when_a_login_is_recorded_as_dead(&endpoint, &store, "rt-0").await;
    sleep(10 * SECOND).await;
    assert_eq!(store.session()["generation"], 2);
    next(&process(&endpoint, &store), &token).await.unwrap_err();
    assert_eq!(endpoint.sent(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_the_server_accepts_after_a_reset_is_not_dead_although_that_was_not_saved()
 {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let other = (200, r#"{"access_token":"other","expires_in":900}"#);
    endpoint.respond_next([NOT_ROTATED, DEAD, other, NOT_ROTATED]);
    let cache = TokenCache::new(process(&endpoint, &store));
    cache.token().await.unwrap();
    cache.refresh().await.unwrap_err();
    assert_eq!(store.session()["ended"]["reason"], "rejected");
    store.before(only_marks);
    cache.reset();
    cache.refresh().await.unwrap();
    cache.refresh().await.unwrap();
    assert_eq!(refresh_tokens(&endpoint), ["rt-0"; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_died_after_a_revocation_is_not_sent_when_an_unsaved_session_passes_the_revocation()
 {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    first(&process(&endpoint, &store)).await.unwrap();
    store.before(no_saves);
    let source = RefreshTokenSource::new(client(&endpoint), "rt-new").store(store.clone());
    let token = first(&source).await.unwrap();
    // Another process, which has the lease, has revoked the session before.
    lock(&store).stored.change(|session| {
        session["generation"] = 2.into();
        session["access"] = serde_json::Value::Null;
        session["refresh_token"] = serde_json::Value::Null;
    });
    lock(&store).stored.end("revoked", "rt-1");
    store.repair();
    endpoint.respond_next([DEAD]);
    let login = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
    first(&login).await.unwrap_err();
    sleep(10 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "rt-2");
    endpoint.sent();
    // It goes on with the session of the later login.
    let started = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
    let adopted = first(&started).await.unwrap();
    assert_eq!(adopted.expose_secret(), token.expose_secret());
    assert_eq!(endpoint.sent(), [""; 0]);
}

/// A process has begun a session with a new login, and could not save it. Another new login was dead meanwhile.
#[tokio::test(start_paused = true)]
async fn a_login_that_died_before_the_session_of_a_later_one_was_saved_is_an_earlier_login() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    first(&process(&endpoint, &store)).await.unwrap();
    store.before(no_saves);
    let source = RefreshTokenSource::new(client(&endpoint), "rt-new").store(store.clone());
    let token = first(&source).await.unwrap();
    store.repair();
    lock(&store).stored.end("rejected", "login");
    sleep(10 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "rt-2");
    endpoint.sent();
    // A process that is configured with it goes on with the session of the later login.
    let login = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
    let adopted = first(&login).await.unwrap();
    assert_eq!(adopted.expose_secret(), token.expose_secret());
    assert_eq!(endpoint.sent(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_refresh_token_in_the_store_is_not_sent_after_an_unexplained_400() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    store.before(only_marks);
    let token = next(&source, &token).await.unwrap();
    assert_eq!(refresh_tokens(&endpoint), ["rt-0", "rt-1"]);
    assert_eq!(store.session()["refresh_token"], "rt-1");
    // The store has `rt-1`, which is spent. A strict server ends the session when it comes back.
    store.before(no_saves);
    endpoint.respond_next([UNEXPLAINED]);
    next(&source, &token).await.unwrap_err();
    assert_eq!(refresh_tokens(&endpoint), ["rt-2"]);
}

/// What a source sends that has `rt-2`, if the store has lost its last save, can save nothing, and the server answers so. The
/// earlier session in the store has the mark of a refresh that was interrupted.
async fn sent_with_an_earlier_session_in_the_store(answer: (u16, &'static str)) -> Vec<String> {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    let earlier = lock(&store).stored.session.clone();
    let token = next(&source, &token).await.unwrap();
    lock(&store).stored.session = earlier;
    lock(&store).stored.mark();
    store.before(no_saves);
    endpoint.sent();
    endpoint.respond_next([answer, answer]);
    next(&source, &token).await.unwrap_err();
    let sent = refresh_tokens(&endpoint);
    drop(next(&source, &token).await);
    let again = refresh_tokens(&endpoint);
    if answer == UNEXPLAINED {
        // Nor does the failure make the earlier session the newest.
        assert_eq!(again, ["rt-2"]);
    } else {
        assert!(again.is_empty(), "{again:?}");
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn an_earlier_refresh_token_in_the_store_is_sent_only_if_the_later_one_is_dead() {
    let sent = sent_with_an_earlier_session_in_the_store(UNEXPLAINED).await;
    assert_eq!(sent, ["rt-2"]);
    let sent = sent_with_an_earlier_session_in_the_store(DEAD).await;
    assert_eq!(sent, ["rt-2", "rt-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_in_memory_is_not_sent_again_if_the_stored_one_has_nothing_to_send() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let old = RefreshTokenSource::new(client(&endpoint), "rt-old").store(store.clone());
    endpoint.respond_next([DEAD]);
    first(&old).await.unwrap_err();
    store.before(no_saves);
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    endpoint.sent();
    endpoint.respond_next([DEAD]);
    for _ in 0..3 {
        let error = next(&source, &token).await.unwrap_err();
        assert!(error.is_final(), "{error}");
    }
    assert_eq!(refresh_tokens(&endpoint), ["rt-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_in_memory_is_not_sent_again_if_an_earlier_one_was_revoked() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    first(&process(&endpoint, &store)).await.unwrap();
    lock(&store).stored.change(|session| {
        session["access"] = serde_json::Value::Null;
        session["refresh_token"] = serde_json::Value::Null;
    });
    lock(&store).stored.end("revoked", "rt-1");
    store.before(no_saves);
    let source = RefreshTokenSource::new(client(&endpoint), "rt-new").store(store.clone());
    let token = first(&source).await.unwrap();
    endpoint.sent();
    endpoint.respond_next([DEAD]);
    for _ in 0..3 {
        let error = next(&source, &token).await.unwrap_err();
        assert!(error.is_final(), "{error}");
        assert!(!error.to_string().contains("revoked"), "{error}");
    }
    assert_eq!(refresh_tokens(&endpoint), ["rt-2"]);
}

/// The session of our login could not be saved, and another process has saved that of another login, which does not know ours.
#[tokio::test(start_paused = true)]
async fn a_revocation_counts_for_a_login_whose_session_was_never_saved() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    first(&process(&endpoint, &store)).await.unwrap();
    store.before(no_saves);
    let start = |login: &str| {
        let client = client(&endpoint).revocation_url("https://login.example/revoke");
        RefreshTokenSource::new(client.unwrap(), login).store(store.clone())
    };
    let source = start("rt-new");
    let token = first(&source).await.unwrap();
    lock(&store).stored.change(|session| {
        session["former_identities"] = serde_json::json!([session["identity"]]);
        session["identity"] = json_identity("rt-other");
        session["generation"] = 3.into();
        session["refresh_token"] = "rt-other-1".into();
    });
    store.repair();
    endpoint.respond_next([(200, ""); 3]);
    let cx = TokenContext::new().replacing(token);
    source.revoke(cx).await.unwrap();
    assert_eq!(store.session()["ended"]["reason"], "revoked");
    endpoint.sent();
    first(&start("rt-new")).await.unwrap_err();
    assert_eq!(endpoint.sent(), [""; 0]);
    // Nor after the next login.
    first(&start("rt-last")).await.unwrap();
    endpoint.sent();
    first(&start("rt-new")).await.unwrap();
    assert_eq!(endpoint.sent(), [""; 0]);
}

fn json_identity(refresh_token: &str) -> serde_json::Value {
    serde_json::to_value(Identity::new("refresh", refresh_token)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_dead_login_that_was_not_saved_as_dead_is_not_sent_after_a_refresh_of_another_process() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    first(&process(&endpoint, &store)).await.unwrap();
    store.before(only_marks);
    let login = RefreshTokenSource::new(client(&endpoint), "login").store(store.clone());
    endpoint.respond_next([DEAD]);
    first(&login).await.unwrap_err();
    store.repair();
    lock(&store).stored.refresh("other");
    endpoint.sent();
    let error = first(&login).await.unwrap_err();
    assert!(error.is_final(), "{error}");
    assert_eq!(endpoint.sent(), [""; 0]);
}

/// A lease that is kept while a session is not saved was taken long ago, so it may end at any moment.
#[tokio::test(start_paused = true)]
async fn a_kept_lease_that_ends_while_the_session_is_marked_does_not_count_as_a_new_one() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    store.before(only_marks);
    let token = first(&source).await.unwrap();
    endpoint.sent();
    store.calls();
    let sent = endpoint.clone();
    store.before(move |call, stored| {
        match call {
            Call::Mark => stored.is_held = false,
            Call::Lease => {
                assert_eq!(sent.sent(), [""; 0], "without the lease");
                stored.is_held = true;
            }
            _ => {}
        }
        Ok(())
    });
    next(&source, &token).await.unwrap();
    assert!(store.calls().iter().any(|(call, _)| *call == Call::Lease));
}

/// The store has only marks, each with the refresh token before the one that the source has.
#[tokio::test(start_paused = true)]
async fn the_refresh_token_of_the_last_mark_is_not_sent_after_a_dead_one() {
    for refreshes in 0..3 {
        let (endpoint, store) = (TokenEndpoint::default(), Store::default());
        store.before(only_marks);
        let source = process(&endpoint, &store);
        let mut token = first(&source).await.unwrap();
        for _ in 0..refreshes {
            token = next(&source, &token).await.unwrap();
        }
        store.before(no_saves);
        endpoint.sent();
        endpoint.respond_next([DEAD]);
        next(&source, &token).await.unwrap_err();
        let newest = format!("rt-{}", refreshes + 1);
        assert_eq!(refresh_tokens(&endpoint), [newest]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_session_is_not_sent_while_another_process_refreshes_it() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    endpoint.sent();
    endpoint.respond_next([DEAD]);
    // The source has lost its lease after its mark.
    let mut loads = 0;
    store.before(move |call, stored| {
        loads += usize::from(call == Call::Load);
        match (call, loads) {
            (Call::Load, 3) => {
                stored.refresh("expired");
                stored.change(|session| session["access"] = serde_json::Value::Null);
                stored.mark();
            }
            (Call::Lease, 4) => stored.refresh("of-the-other"),
            _ => {}
        }
        Ok(())
    });
    let token = next(&source, &token).await.unwrap();
    assert_eq!(token.expose_secret(), "of-the-other");
    assert_eq!(refresh_tokens(&endpoint), ["rt-1"]);
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_an_unsaved_session_is_kept_while_the_store_cannot_be_reached() {
    for revokes in [false, true] {
        let (endpoint, store) = (TokenEndpoint::default(), Store::default());
        let source = revocable(&endpoint, &store);
        let token = first(&source).await.unwrap();
        store.calls();
        let mut is_down = false;
        store.before(move |call, _| {
            is_down |= call == Call::Save;
            match call {
                Call::Save | Call::IsHeld if is_down => Err(full_disk()),
                _ => Ok(()),
            }
        });
        if revokes {
            source.revoke(TokenContext::new()).await.unwrap_err();
        } else {
            next(&source, &token).await.unwrap();
        }
        store.calls();
        sleep(SECOND).await;
        let calls = store.calls();
        let lost = |(call, _): &(Call, bool)| matches!(call, Call::Release | Call::Lease);
        assert!(!calls.iter().any(lost), "{calls:?}");
        store.repair();
        sleep(60 * SECOND).await;
        assert_eq!(store.session()["refresh_token"] == "rt-2", !revokes);
        assert_eq!(store.session()["ended"]["reason"] == "revoked", revokes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_lease_of_an_unsaved_session_while_the_store_cannot_be_reached()
{
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    store.before(only_marks);
    let token = next(&source, &token).await.unwrap();
    store.calls();
    // It is held when the refresh takes it over and when the mark cannot be saved. After that the store does not say so.
    let mut asked = 0;
    store.before(move |call, _| {
        asked += usize::from(call == Call::IsHeld);
        match call {
            Call::Save | Call::Mark => Err(full_disk()),
            Call::IsHeld if asked > 2 => Err(full_disk()),
            _ => Ok(()),
        }
    });
    endpoint.respond_next([DOWN]);
    next(&source, &token).await.unwrap_err();
    let calls = store.calls();
    assert!(calls.contains(&(Call::IsHeld, true)), "{calls:?}");
    assert!(!calls.contains(&(Call::Release, true)), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_of_an_earlier_login_is_not_saved_over_a_later_one_whatever_the_generations_are()
{
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let mut token = first(&source).await.unwrap();
    store.before(no_saves);
    for _ in 0..3 {
        token = next(&source, &token).await.unwrap();
    }
    // It loses its lease, and another process begins a session with a new login.
    {
        let mut inner = lock(&store);
        let stored = inner.stored.session.as_ref().unwrap();
        let login = StoredSession::new(Identity::new("refresh", "login"))
            .with_refresh_token("of-the-login")
            .with_access_token(&Token::new("at-of-the-login").unwrap())
            .replacing(stored);
        inner.stored.session = Some(login);
        inner.stored.is_held = false;
    }
    store.repair();
    sleep(60 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "of-the-login");
    endpoint.sent();
    let token = next(&source, &token).await.unwrap();
    assert_eq!(token.expose_secret(), "at-of-the-login");
    next(&source, &token).await.unwrap();
    assert_eq!(refresh_tokens(&endpoint), ["of-the-login"]);
}

fn lock(store: &Store) -> std::sync::MutexGuard<'_, Inner> {
    store.inner.lock().unwrap()
}

/// A source with a session that could not be saved, and whose lease another process has had.
async fn overtaken(endpoint: &TokenEndpoint, store: &Store) -> (RefreshTokenSource, Token) {
    let source = process(endpoint, store);
    let token = first(&source).await.unwrap();
    let mut has_marked = false;
    store.before(move |call, stored| {
        if call == Call::Save && !std::mem::replace(&mut has_marked, true) {
            stored.mark();
            stored.is_held = false;
        }
        Ok(())
    });
    let token = next(&source, &token).await.unwrap();
    lock(store).stored.is_held = true;
    store.before(only_marks);
    endpoint.sent();
    store.calls();
    (source, token)
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_after_another_was_lost_is_kept_until_the_session_is_saved() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let (source, token) = overtaken(&endpoint, &store).await;
    store.before(no_saves);
    endpoint.respond_next([DOWN]);
    next(&source, &token).await.unwrap_err();
    assert_eq!(refresh_tokens(&endpoint), ["rt-2"]);
    let calls = store.calls();
    assert!(calls.contains(&(Call::Lease, true)), "{calls:?}");
    assert!(!calls.contains(&(Call::Release, true)), "{calls:?}");
    store.repair();
    sleep(60 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "rt-2");
    assert!(store.calls().contains(&(Call::Release, true)));
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_an_unsaved_session_is_kept_although_a_process_without_it_has_saved() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    store.before(only_marks);
    let token = next(&source, &token).await.unwrap();
    store.calls();
    endpoint.sent();
    let mut has_saved = false;
    store.before(move |call, stored| {
        if call == Call::Mark && !std::mem::replace(&mut has_saved, true) {
            stored.change(|session| session["refresh_id"] = 8.into());
        }
        only_marks(call, stored)
    });
    let token = next(&source, &token).await.unwrap();
    assert_eq!(token.expose_secret(), "at-3");
    assert_eq!(refresh_tokens(&endpoint), ["rt-2"]);
    let calls = store.calls();
    assert!(calls.contains(&(Call::Mark, false)), "{calls:?}");
    for lost in [Call::Release, Call::Lease] {
        assert!(!calls.contains(&(lost, true)), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_with_other_settings_knows_nothing_of_the_session_before() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = ExchangeTokenSource::new(client(&endpoint), "et").store(store.clone());
    let begun = {
        first(&source).await.unwrap();
        endpoint.sent()
    };
    for other in [
        source.clone().session_name("another"),
        source.clone().reusable(false),
    ] {
        lock(&store).stored.session = None;
        first(&other).await.unwrap();
        assert_eq!(endpoint.sent(), begun);
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_kept_although_a_process_without_it_has_saved_before_the_new_session() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    store.calls();
    let mut has_marked = false;
    store.before(move |call, stored| {
        if call == Call::Save && !std::mem::replace(&mut has_marked, true) {
            stored.mark();
        }
        Ok(())
    });
    next(&source, &token).await.unwrap();
    let calls = store.calls();
    assert!(calls.contains(&(Call::Save, false)), "{calls:?}");
    assert!(!calls.contains(&(Call::Release, true)), "{calls:?}");
    sleep(60 * SECOND).await;
    assert_eq!(store.session()["refresh_token"], "rt-2");
    let calls = store.calls();
    assert!(!calls.contains(&(Call::Lease, true)), "{calls:?}");
    assert!(calls.contains(&(Call::Release, true)), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_begun_anew_while_another_process_refreshes_it() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = ExchangeTokenSource::new(client(&endpoint), "et").store(store.clone());
    let token = first(&source).await.unwrap();
    endpoint.sent();
    endpoint.respond_next([DEAD]);
    // The source has lost its lease after its mark.
    let mut loads = 0;
    store.before(move |call, stored| {
        loads += usize::from(call == Call::Load);
        match (call, loads) {
            (Call::Load, 3) => stored.mark(),
            (Call::Lease, 5) => stored.refresh("of-the-other"),
            _ => {}
        }
        Ok(())
    });
    let token = next(&source, &token).await.unwrap();
    assert_eq!(token.expose_secret(), "of-the-other");
    assert_eq!(endpoint.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_not_final_if_the_store_does_not_say_whether_another_process_has_refreshed()
{
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    endpoint.respond_next([DEAD]);
    let mut loads = 0;
    store.before(move |call, stored| {
        loads += usize::from(call == Call::Load);
        if (call, loads) == (Call::Load, 3) {
            stored.refresh("of-the-other");
            return Err(full_disk());
        }
        Ok(())
    });
    let error = next(&source, &token).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
    let token = next(&source, &token).await.unwrap();
    assert_eq!(token.expose_secret(), "of-the-other");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_begun_anew_if_the_store_does_not_say_whether_another_process_refreshes_it()
 {
    for unanswered in [Call::Load, Call::IsHeld] {
        let (endpoint, store) = (TokenEndpoint::default(), Store::default());
        let source = ExchangeTokenSource::new(client(&endpoint), "et").store(store.clone());
        let token = first(&source).await.unwrap();
        endpoint.sent();
        endpoint.respond_next([DEAD]);
        let mut loads = 0;
        store.before(move |call, _| {
            loads += usize::from(call == Call::Load);
            if loads >= 4 && call == unanswered {
                return Err(full_disk());
            }
            Ok(())
        });
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Store, "{error}");
        assert_eq!(refresh_tokens(&endpoint), ["rt-1"]);
        store.repair();
        next(&source, &token).await.unwrap();
        assert_eq!(refresh_tokens(&endpoint), ["none"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_refresh_token_is_not_sent_again_by_a_refresh_that_begins_again() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = ExchangeTokenSource::new(client(&endpoint), "et").store(store.clone());
    let token = first(&source).await.unwrap();
    endpoint.sent();
    endpoint.respond_next([DEAD]);
    // The store loses the mark, as in a failover.
    let (mut loads, mut unmarked) = (0, None);
    store.before(move |call, stored| {
        loads += usize::from(call == Call::Load);
        match (call, loads) {
            (Call::Load, 2) => unmarked.clone_from(&stored.session),
            (Call::Load, 3) => stored.session.clone_from(&unmarked),
            _ => {}
        }
        Ok(())
    });
    next(&source, &token).await.unwrap();
    assert_eq!(refresh_tokens(&endpoint), ["rt-1", "none"]);
}

#[tokio::test(start_paused = true)]
async fn neither_a_dead_grant_nor_its_refresh_token_is_sent_again_although_that_was_not_saved() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = ExchangeTokenSource::new(client(&endpoint), "et").store(store.clone());
    let token = first(&source).await.unwrap();
    endpoint.sent();
    endpoint.respond_next([DEAD, DEAD]);
    store.before(only_marks);
    for _ in 0..3 {
        let error = next(&source, &token).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    }
    assert_eq!(refresh_tokens(&endpoint), ["rt-1", "none"]);
}

fn revocable(endpoint: &TokenEndpoint, store: &Store) -> RefreshTokenSource {
    let client = client(endpoint).revocation_url("https://login.example/revoke");
    RefreshTokenSource::new(client.unwrap(), "rt-0").store(store.clone())
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_saved_although_a_process_without_the_lease_has_saved() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = revocable(&endpoint, &store);
    first(&source).await.unwrap();
    store.calls();
    let mut has_marked = false;
    store.before(move |call, stored| {
        if call == Call::Save && !std::mem::replace(&mut has_marked, true) {
            stored.mark();
        }
        Ok(())
    });
    source.revoke(TokenContext::new()).await.unwrap();
    assert_eq!(store.session()["ended"]["reason"], "revoked");
    let calls = store.calls();
    assert!(calls.contains(&(Call::Save, false)), "{calls:?}");
    let leases = calls.iter().filter(|(call, _)| *call == Call::Lease);
    assert_eq!(leases.count(), 1, "the lease is kept: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_others_overtake_again_and_again_is_saved_in_the_background() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = revocable(&endpoint, &store);
    first(&source).await.unwrap();
    store.before(move |call, stored| {
        if call == Call::Save {
            stored.mark();
        }
        Ok(())
    });
    let error = source.revoke(TokenContext::new()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LeaseLost);
    assert!(error.is_final(), "{error}");
    let saves = store.calls();
    let saves = saves.iter().filter(|(call, _)| *call == Call::Save);
    assert!((2..10).contains(&saves.count()));
    store.repair();
    sleep(60 * SECOND).await;
    assert_eq!(store.session()["ended"]["reason"], "revoked");
}

/// A source that has revoked its session, and a store that could not save that.
async fn unsaved_revocation(endpoint: &TokenEndpoint, store: &Store) -> RefreshTokenSource {
    let source = revocable(endpoint, store);
    let mut token = first(&source).await.unwrap();
    store.before(no_saves);
    for _ in 0..3 {
        token = next(&source, &token).await.unwrap();
    }
    source.revoke(TokenContext::new()).await.unwrap_err();
    endpoint.sent();
    source
}

#[tokio::test(start_paused = true)]
async fn after_a_revocation_that_could_not_be_saved_no_earlier_session_is_used() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = unsaved_revocation(&endpoint, &store).await;
    // As after a fail-over.
    lock(&store)
        .stored
        .change(|session| session["refresh_token"] = "rt-0".into());
    let error = first(&source).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::ReauthRequired, "{error}");
    assert_eq!(endpoint.sent(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_new_login_passes_a_revocation_that_could_not_be_saved() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = unsaved_revocation(&endpoint, &store).await;
    // It knows neither the revoked login nor how often its session was refreshed.
    let login = StoredSession::new(Identity::new("refresh", "login"))
        .with_refresh_token("of-the-login")
        .with_access_token(&Token::new("at-of-the-login").unwrap());
    lock(&store).stored.session = Some(login);
    let token = first(&source).await.unwrap();
    assert_eq!(token.expose_secret(), "at-of-the-login");
}

#[tokio::test(start_paused = true)]
async fn a_source_sees_a_change_if_another_process_has_refreshed_the_session() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    first(&source).await.unwrap();
    assert!(!source.has_changed().await);
    // One that has no session yet uses the stored one when it is asked for a token.
    assert!(!process(&endpoint, &store).has_changed().await);
    lock(&store).stored.refresh("of-the-other");
    assert!(source.has_changed().await);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_a_refresh_that_kept_the_refresh_token_is_a_change_too() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = first(&source).await.unwrap();
    endpoint.respond_next([UNEXPLAINED]);
    next(&source, &token).await.unwrap_err();
    assert!(!source.has_changed().await);
    let generation = |session: &mut serde_json::Value, change: i64| {
        let before = session["generation"].as_i64().unwrap();
        session["generation"] = (before + change).into();
    };
    lock(&store).stored.change(|session| generation(session, 1));
    assert!(source.has_changed().await);
    // And so is another refresh token.
    lock(&store).stored.change(|session| {
        generation(session, -1);
        session["refresh_token"] = "another".into();
    });
    assert!(source.has_changed().await);
}

#[test]
fn a_session_that_could_not_be_saved_is_saved_although_its_runtime_has_shut_down() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = process(&endpoint, &store);
    let token = runtime().block_on(async {
        let token = first(&source).await.unwrap();
        store.before(only_marks);
        next(&source, &token).await.unwrap()
    });
    runtime().block_on(async {
        next(&source, &token).await.unwrap();
        store.repair();
        sleep(60 * SECOND).await;
    });
    assert_eq!(store.session()["refresh_token"], "rt-3");
}
