//! A lease that ends while its process does not know it: what another process sends meanwhile is not sent twice.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{
    sync::{Mutex as LeaseMutex, OwnedMutexGuard},
    time::sleep,
};
use tower::service_fn;
use tower_bearer::{
    ExchangeTokenSource, OAuthClient, RefreshTokenSource, StoreLease, StoredSession, TokenContext,
    TokenError, TokenErrorKind, TokenSource, TokenStore,
};

/// How long a lease lasts. Nothing extends it.
const LEASE: Duration = Duration::from_secs(3);

/// How long a slow save takes.
const SLOW: Duration = Duration::from_secs(5);

/// How long a token request takes.
const RESPONSE: Duration = Duration::from_millis(2_500);

/// The time limit of a token request in the test of one without a response.
const TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slow {
    No,
    /// The response that says that the lease is taken takes long.
    Lease,
    /// The request takes long.
    Before,
    /// The request takes a while.
    ABitBefore,
    /// The response takes long.
    After,
}

/// A store whose leases end by themselves.
#[derive(Clone)]
struct LapsingStore {
    session: Arc<Mutex<Option<StoredSession>>>,
    lease: Arc<LeaseMutex<()>>,
    slow: Slow,
}

struct LapsingLease {
    store: LapsingStore,
    held: Arc<Mutex<Option<OwnedMutexGuard<()>>>>,
}

fn text(session: Option<&StoredSession>) -> String {
    serde_json::to_string(&session).unwrap()
}

impl LapsingStore {
    /// A store with a session of which one refresh was interrupted.
    fn interrupted() -> Self {
        let identity = RefreshTokenSource::new(client(&Sent::default()), "rt-0");
        let session = StoredSession::new(identity.identity().clone()).with_refresh_token("rt-7");
        let mut json = serde_json::to_value(session).unwrap();
        json["refreshing_since"] = 1_700_000_000_000_u64.into();
        Self {
            session: Arc::new(Mutex::new(serde_json::from_value(json).unwrap())),
            lease: Arc::default(),
            slow: Slow::No,
        }
    }

    fn slow(self, slow: Slow) -> Self {
        Self { slow, ..self }
    }

    /// Another process saves its session.
    fn change(&self, change: impl Fn(&mut serde_json::Value)) {
        let mut stored = self.session.lock().unwrap();
        let mut json = serde_json::to_value(&*stored).unwrap();
        json["version"] = (json["version"].as_u64().unwrap() + 1).into();
        json["generation"] = (json["generation"].as_u64().unwrap() + 1).into();
        json["refreshing_since"] = serde_json::Value::Null;
        json.as_object_mut().unwrap().remove("refresh_id");
        change(&mut json);
        *stored = serde_json::from_value(json).unwrap();
    }
}

impl TokenStore for LapsingStore {
    type Lease = LapsingLease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        Ok(self.session.lock().unwrap().clone())
    }

    async fn lease(&self) -> Result<LapsingLease, TokenError> {
        let guard = Arc::clone(&self.lease).lock_owned().await;
        let held = Arc::new(Mutex::new(Some(guard)));
        let lapses = Arc::clone(&held);
        tokio::spawn(async move {
            sleep(LEASE).await;
            lapses.lock().unwrap().take();
        });
        if self.slow == Slow::Lease {
            sleep(SLOW).await;
        }
        let store = self.clone();
        Ok(LapsingLease { store, held })
    }
}

impl StoreLease for LapsingLease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let slow = std::mem::replace(&mut self.store.slow, Slow::No);
        match slow {
            Slow::Before => sleep(SLOW).await,
            Slow::ABitBefore => sleep(SLOW / 3).await,
            Slow::No | Slow::Lease | Slow::After => {}
        }
        {
            let mut stored = self.store.session.lock().unwrap();
            let is_repeated = text(stored.as_ref()) == text(Some(session));
            let version = stored.as_ref().map_or(0, StoredSession::version);
            if version != replaces && !is_repeated {
                let message = "another version is stored";
                return Err(TokenError::new(TokenErrorKind::LeaseLost, message));
            }
            *stored = Some(session.clone());
        }
        if slow == Slow::After {
            sleep(SLOW).await;
        }
        Ok(())
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        Ok(self.held.lock().unwrap().is_some())
    }
}

type Sent = Arc<Mutex<Vec<String>>>;

/// A client of a server that takes its time.
fn client(sent: &Sent) -> OAuthClient {
    client_of(sent, |_| RESPONSE)
}

/// A client of a server that takes this time for each request, counted from 1.
fn client_of(sent: &Sent, time: fn(usize) -> Duration) -> OAuthClient {
    let sent = Arc::clone(sent);
    let transport = service_fn(move |request: Request<Full<Bytes>>| {
        let sent = Arc::clone(&sent);
        async move {
            let Ok(body) = request.into_body().collect().await;
            let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            let number = {
                let mut sent = sent.lock().unwrap();
                sent.push(body);
                sent.len()
            };
            sleep(time(number)).await;
            let tokens = format!(
                r#"{{"access_token":"at-{number}","refresh_token":"new-{number}","expires_in":900}}"#
            );
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(tokens)))
        }
    });
    OAuthClient::with_transport("https://login.example/token", transport).unwrap()
}

/// A server that answers slowly that everything is dead.
fn slow_and_dead(sent: &Sent) -> OAuthClient {
    let received = Arc::clone(sent);
    let transport = service_fn(move |request: Request<Full<Bytes>>| {
        let sent = Arc::clone(&received);
        async move {
            let Ok(body) = request.into_body().collect().await;
            let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            sent.lock().unwrap().push(body);
            sleep(SLOW).await;
            let dead = Full::<Bytes>::from(r#"{"error":"invalid_grant"}"#);
            Ok::<_, Infallible>(Response::builder().status(400).body(dead).unwrap())
        }
    });
    OAuthClient::with_transport("https://login.example/token", transport).unwrap()
}

/// Two processes refresh the session. The lease of the first one ends while it saves its mark.
async fn two_processes(slow: Slow) -> Vec<String> {
    let (store, sent) = (LapsingStore::interrupted(), Sent::default());
    let process = |store| RefreshTokenSource::new(client(&sent), "rt-0").store(store);
    let first = process(store.clone().slow(slow));
    let second = process(store);
    let (first, second) = tokio::join!(first.token(TokenContext::new()), async {
        sleep(Duration::from_secs(1)).await;
        second.token(TokenContext::new()).await
    });
    assert_eq!(first.unwrap().header(), second.unwrap().header());
    sent.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_mark_is_not_taken_for_that_of_another_process() {
    let sent = two_processes(Slow::Before).await;
    assert_eq!(sent.len(), 1, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_slow_mark_nothing_is_sent_without_the_lease() {
    let sent = two_processes(Slow::After).await;
    assert_eq!(sent.len(), 1, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_slow_response_to_taking_the_lease_nothing_is_sent_without_it() {
    let sent = two_processes(Slow::Lease).await;
    assert_eq!(sent.len(), 1, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_a_refresh_token_is_not_sent_again_at_once() {
    let (store, sent) = (LapsingStore::interrupted(), Sent::default());
    // No response to the first request comes in time.
    let time = |number| Duration::from_secs(if number == 1 { 60 } else { 1 });
    let process = |store| {
        let client = client_of(&sent, time).timeout(TIMEOUT);
        RefreshTokenSource::new(client, "rt-0").store(store)
    };
    let first = process(store.clone());
    // It has the lease when the first one gives up, and has not marked the session yet.
    let second = process(store.slow(Slow::ABitBefore));
    let (first, second) = tokio::join!(first.token(TokenContext::new()), async {
        sleep(Duration::from_secs(1)).await;
        second.token(TokenContext::new()).await
    });
    assert_eq!(first.unwrap().header(), second.unwrap().header());
    assert_eq!(sent.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_the_refresh_token_of_another_process_is_not_sent_after_ours_is_dead() {
    let (store, sent) = (LapsingStore::interrupted(), Sent::default());
    let change = |change: &dyn Fn(&mut serde_json::Value)| store.change(change);
    let process = RefreshTokenSource::new(slow_and_dead(&sent), "rt-0").store(store.clone());
    let (token, ()) = tokio::join!(process.token(TokenContext::new()), async {
        // The lease of the process ends while it waits for the response.
        sleep(LEASE + Duration::from_millis(500)).await;
        let lease = store.lease().await.unwrap();
        change(&|json| json["refresh_token"] = "rt-8".into());
        sleep(Duration::from_millis(2_500)).await;
        change(&|json| {
            json["refresh_token"] = "rt-9".into();
            json["access"] = serde_json::json!({"token": "at-9", "lifetime_secs": 900});
        });
        lease.release().await;
    });
    assert_eq!(token.unwrap().expose_secret(), "at-9");
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 1, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_the_grant_does_not_begin_the_session_anew() {
    let (store, sent) = (LapsingStore::interrupted(), Sent::default());
    let process = ExchangeTokenSource::new(slow_and_dead(&sent), "et-0").store(store.clone());
    let identity = serde_json::to_value(process.identity()).unwrap();
    store.change(|json| json["identity"] = identity.clone());
    let (token, ()) = tokio::join!(process.token(TokenContext::new()), async {
        // The lease of the process ends while it waits for the response. The next one begins the session anew.
        sleep(LEASE + Duration::from_millis(500)).await;
        let lease = store.lease().await.unwrap();
        sleep(Duration::from_millis(2_500)).await;
        store.change(|json| {
            json["refresh_token"] = "rt-9".into();
            json["access"] = serde_json::json!({"token": "at-9", "lifetime_secs": 900});
        });
        lease.release().await;
    });
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(token.unwrap().expose_secret(), "at-9");
}
