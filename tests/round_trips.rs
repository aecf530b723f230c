//! What a source sends to its store, and what it does if the answer of a combined call is lost.

#[path = "support/endpoint.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
mod endpoint;

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use endpoint::{DEAD, TokenEndpoint, first, json, next};
use tokio::time::sleep;
use tower_bearer::{
    ClientCredentialsSource, ExchangeTokenSource, Identity, RefreshTokenSource, StoreLease,
    StoredSession, Token, TokenContext, TokenError, TokenErrorKind, TokenSource, TokenStore,
};

const SECOND: Duration = Duration::from_secs(1);

/// What becomes of a save.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The store refuses it.
    Refused,
    /// It is carried out, and its answer is lost.
    AnswerLost,
}

/// A store that is reached over a network, and takes the lease with the session, and releases it with the last save.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Server>>);

#[derive(Default)]
struct Server {
    session: Option<StoredSession>,
    /// The number of the lease that is held.
    lease: Option<u32>,
    leases: u32,
    messages: Vec<&'static str>,
    /// Of the next last saves.
    faults: VecDeque<Fault>,
    cannot_mark: bool,
}

struct Lease {
    store: Store,
    number: u32,
    is_released: bool,
}

fn failed() -> TokenError {
    TokenError::new(TokenErrorKind::Store, "the store did not answer")
}

impl Store {
    fn process(&self, endpoint: &TokenEndpoint) -> RefreshTokenSource {
        let client = endpoint.client("https://login.example/token");
        RefreshTokenSource::new(client, "rt-0").store(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Server> {
        self.0.lock().unwrap()
    }

    fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    /// What was sent since the last call.
    fn messages(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.lock().messages)
    }

    fn refresh_token(&self) -> String {
        let session = json(self.lock().session.as_ref().unwrap());
        session["refresh_token"].as_str().unwrap().to_owned()
    }

    async fn take(&self, message: &'static str) -> (Lease, Option<StoredSession>) {
        loop {
            {
                let mut server = self.lock();
                if server.lease.is_none() {
                    server.leases += 1;
                    let number = server.leases;
                    server.lease = Some(number);
                    server.messages.push(message);
                    let lease = Lease {
                        store: self.clone(),
                        number,
                        is_released: false,
                    };
                    return (lease, server.session.clone());
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Server {
    fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let is_repeated = |stored: &StoredSession| json(stored) == json(session);
        if self.session.as_ref().is_some_and(is_repeated) {
            return Ok(());
        }
        if self.session.as_ref().map_or(0, StoredSession::version) != replaces {
            let message = "another version is stored";
            return Err(TokenError::new(TokenErrorKind::LeaseLost, message));
        }
        self.session = Some(session.clone());
        Ok(())
    }
}

impl TokenStore for Store {
    type Lease = Lease;

    async fn load(&self) -> Result<Option<StoredSession>, TokenError> {
        let mut server = self.lock();
        server.messages.push("load");
        Ok(server.session.clone())
    }

    async fn lease(&self) -> Result<Lease, TokenError> {
        Ok(self.take("lease").await.0)
    }

    async fn lease_and_load(&self) -> Result<(Lease, Option<StoredSession>), TokenError> {
        Ok(self.take("lease and load").await)
    }
}

impl Lease {
    /// Sends what releases the lease.
    fn end(&mut self) {
        if std::mem::replace(&mut self.is_released, true) {
            return;
        }
        let mut server = self.store.lock();
        server.messages.push("release");
        if server.lease == Some(self.number) {
            server.lease = None;
        }
    }
}

impl StoreLease for Lease {
    async fn save(&mut self, replaces: u64, session: &StoredSession) -> Result<(), TokenError> {
        let mut server = self.store.lock();
        let is_mark = !json(session)["refreshing_since"].is_null();
        if is_mark && server.cannot_mark {
            return Err(failed());
        }
        server.messages.push("save");
        server.save(replaces, session)
    }

    async fn save_and_release(
        &mut self,
        replaces: u64,
        session: &StoredSession,
    ) -> Result<(), TokenError> {
        let mut server = self.store.lock();
        server.messages.push("save and release");
        let fault = server.faults.pop_front();
        if fault == Some(Fault::Refused) {
            return Err(failed());
        }
        server.save(replaces, session)?;
        if server.lease == Some(self.number) {
            server.lease = None;
        }
        if fault == Some(Fault::AnswerLost) {
            return Err(failed());
        }
        self.is_released = true;
        Ok(())
    }

    async fn is_held(&self) -> Result<bool, TokenError> {
        let mut server = self.store.lock();
        server.messages.push("is held");
        Ok(server.lease == Some(self.number))
    }

    async fn release(mut self) {
        self.end();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}

const REFRESH: [&str; 4] = ["load", "lease and load", "save", "save and release"];

#[tokio::test(start_paused = true)]
async fn a_refresh_takes_four_round_trips_and_an_adoption_one() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let (one, other) = (store.process(&endpoint), store.process(&endpoint));
    let token = first(&one).await.unwrap();
    assert_eq!(store.messages(), REFRESH);
    assert_eq!(store.lock().lease, None);
    next(&one, &token).await.unwrap();
    assert_eq!(store.messages(), REFRESH);
    next(&other, &token).await.unwrap();
    assert_eq!(store.messages(), ["load"]);
    sleep(60 * SECOND).await;
    assert_eq!(store.messages(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_grant_without_refresh_tokens_takes_three_round_trips() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let client = endpoint.client("https://login.example/token");
    first(&ClientCredentialsSource::new(client).store(store.clone()))
        .await
        .unwrap();
    assert_eq!(
        store.messages(),
        ["load", "lease and load", "save and release"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_process_that_waited_for_the_lease_adopts_what_came_with_it() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let (one, other) = (store.process(&endpoint), store.process(&endpoint));
    let lease = store.take("lease").await.0;
    let both = async { tokio::join!(first(&one), first(&other)) };
    let release = async {
        sleep(SECOND / 2).await;
        store.messages();
        drop(lease);
    };
    let ((first, second), ()) = tokio::join!(both, release);
    assert_eq!(first.unwrap().expose_secret(), "at-1");
    assert_eq!(second.unwrap().expose_secret(), "at-1");
    assert_eq!(endpoint.sent().len(), 1);
    let messages = store.messages();
    let adoption = ["lease and load", "release"];
    assert_eq!(messages, [&["release"], &REFRESH[1..], &adoption].concat());
}

#[tokio::test(start_paused = true)]
async fn a_dead_credential_is_saved_and_the_lease_released_at_once() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = store.process(&endpoint);
    endpoint.respond_next([DEAD]);
    first(&source).await.unwrap_err();
    // Before the session ends, a newer one is looked for.
    let expected = ["load", "lease and load", "save", "load", "save and release"];
    assert_eq!(store.messages(), expected);
    assert_eq!(store.lock().lease, None);
}

/// Something follows the rejection under the same lease, so the rejection is not saved on its own.
#[tokio::test(start_paused = true)]
async fn a_session_that_begins_anew_keeps_its_lease_until_it_is_saved() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let client = endpoint.client("https://login.example/token");
    let source = ExchangeTokenSource::new(client, "et-0").store(store.clone());
    let token = first(&source).await.unwrap();
    store.messages();
    endpoint.respond_next([DEAD]);
    next(&source, &token).await.unwrap();
    assert_eq!(endpoint.sent().len(), 3);
    let messages = store.messages();
    assert_eq!(messages[..3], REFRESH[..3]);
    assert!(messages.contains(&"is held"), "{messages:?}");
    let last = messages.iter().position(|it| *it == "save and release");
    assert_eq!(last, Some(messages.len() - 1), "{messages:?}");
}

#[tokio::test(start_paused = true)]
async fn a_login_takes_two_round_trips() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = store.process(&endpoint);
    let login = StoredSession::new(Identity::new("refresh", "rt-new"))
        .with_refresh_token("rt-new")
        .with_access_token(&Token::new("at-new").unwrap().expires_in(900 * SECOND));
    let token = source.login(login, TokenContext::new()).await.unwrap();
    assert_eq!(token.unwrap().expose_secret(), "at-new");
    assert_eq!(store.messages(), ["lease and load", "save and release"]);
    assert_eq!(store.refresh_token(), "rt-new");
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_kept_while_the_last_save_fails() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let (one, other) = (store.process(&endpoint), store.process(&endpoint));
    let token = first(&one).await.unwrap();
    store.messages();
    store.fail([Fault::Refused; 5]);
    next(&one, &token).await.unwrap();
    assert!(one.has_unsaved());
    assert!(store.lock().lease.is_some());
    let waiting = tokio::spawn(async move { next(&other, &token).await });
    sleep(5 * SECOND).await;
    // The background has saved it, and so released the lease. The other process has used no refresh token.
    let adopted = waiting.await.unwrap().unwrap();
    assert_eq!(adopted.expose_secret(), "at-2");
    assert_eq!(endpoint.sent().len(), 2);
    assert_eq!(store.refresh_token(), "rt-2");
    assert_eq!(store.lock().lease, None);
    assert!(!store.messages().contains(&"lease"));
}

#[tokio::test(start_paused = true)]
async fn a_last_save_whose_answer_was_lost_is_repeated_and_leaves_no_lease() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = store.process(&endpoint);
    store.fail([Fault::AnswerLost]);
    first(&source).await.unwrap();
    assert!(!source.has_unsaved());
    let messages = store.messages();
    assert_eq!(messages, [&REFRESH[..], &["save and release"]].concat());
    assert_eq!(store.lock().lease, None);
}

/// The store has the session and has released the lease, which its process does not know.
#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_know_that_it_has_saved_lets_others_go_on_with_its_session() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let (one, other) = (store.process(&endpoint), store.process(&endpoint));
    let token = first(&one).await.unwrap();
    store.fail([Fault::AnswerLost; 3]);
    let newer = next(&one, &token).await.unwrap();
    assert!(one.has_unsaved());
    let newest = next(&other, &newer).await.unwrap();
    assert_eq!(newest.expose_secret(), "at-3");
    sleep(10 * SECOND).await;
    assert_eq!(store.refresh_token(), "rt-3");
    assert_eq!(store.lock().lease, None);
    assert!(!one.has_unsaved());
    assert_eq!(next(&one, &newer).await.unwrap().expose_secret(), "at-3");
    let sent = endpoint.sent();
    for refresh_token in ["rt-0", "rt-1", "rt-2"] {
        let is_sent = |request: &&String| request.contains(refresh_token);
        assert_eq!(sent.iter().filter(is_sent).count(), 1, "{sent:?}");
    }
}

/// The session could not be saved, nor can the mark of its next refresh, which finds it dead.
#[tokio::test(start_paused = true)]
async fn a_failure_of_an_unsaved_session_keeps_the_lease() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = store.process(&endpoint);
    let token = first(&source).await.unwrap();
    store.fail([Fault::Refused; 3]);
    let token = next(&source, &token).await.unwrap();
    store.lock().cannot_mark = true;
    store.messages();
    endpoint.respond_next([DEAD]);
    next(&source, &token).await.unwrap_err();
    // The rejection is saved under the lease. The background, which comes next, releases it.
    let messages = store.messages();
    let saves = messages.iter().filter(|message| message.contains("save"));
    let expected = ["save", "save and release"];
    assert!(saves.eq(expected.iter()), "{messages:?}");
    sleep(10 * SECOND).await;
    assert_eq!(store.lock().lease, None);
}

/// A caller that stops waiting may not take the lease of an unsaved session with it.
#[tokio::test(start_paused = true)]
async fn a_dropped_refresh_keeps_the_lease_of_an_unsaved_session() {
    let (endpoint, store) = (TokenEndpoint::default(), Store::default());
    let source = store.process(&endpoint);
    let token = first(&source).await.unwrap();
    store.fail([Fault::Refused; 1000]);
    let token = next(&source, &token).await.unwrap();
    store.messages();
    for polls in 1..8 {
        let mut refresh = Box::pin(next(&source, &token));
        for _ in 0..polls {
            poll_fn(|cx| {
                let _ = refresh.as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
        }
        drop(refresh);
        assert!(!store.messages().contains(&"release"), "{polls} polls");
    }
}
