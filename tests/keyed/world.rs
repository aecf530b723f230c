//! What the random schedules share: a source for each key that does everything a source can do, an API that checks each
//! request, and a book of all sources.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use http_body_util::BodyExt;
use tokio::{
    task::yield_now,
    time::{Sleep, sleep},
};
use tower::{BoxError, Service};
use tower_bearer::{
    ReplayBody, Schedule, SessionKey, Sessions, SessionsBuilder, Token, TokenCache, TokenContext,
    TokenError, TokenErrorKind, TokenSource,
};

/// One run. Random numbers come from the generator of the thread.
#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

struct Inner {
    book: Mutex<Book>,
    /// Time is paused, so nothing happens between two statements of a future. Otherwise there are several threads, and
    /// nothing may take time: then no refresh fails, and tokens are only rejected after they were accepted.
    is_paused: bool,
    /// Nothing more goes wrong.
    is_calm: AtomicBool,
}

/// What has happened.
#[derive(Default)]
pub(super) struct Book {
    last_call: u64,
    last_token: u64,
    /// The newest source of each key.
    newest: HashMap<u64, u64>,
    /// Sources of a key up to this one may have been removed, and may be in use beside the next one.
    removed: HashMap<u64, u64>,
    /// How many removals of a key are running.
    removing: HashMap<u64, u64>,
    /// The sources that exist, and their keys.
    live: BTreeMap<u64, u64>,
    accepted: HashSet<String>,
    rejected: HashSet<String>,
    wrong: Vec<String>,
    pub(super) count: Count,
}

/// How often the things happened that the test is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) made: u64,
    /// To make room, or because they were idle.
    pub(super) dropped: u64,
    pub(super) failed: u64,
    pub(super) sent: u64,
    pub(super) rejected: u64,
    pub(super) answered: u64,
    pub(super) refresh_failed: u64,
}

impl World {
    pub(super) fn new(is_paused: bool) -> Self {
        Self(Arc::new(Inner {
            book: Mutex::default(),
            is_paused,
            is_calm: AtomicBool::new(false),
        }))
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sessions(&self) -> SessionsBuilder<u64> {
        let world = self.clone();
        Sessions::builder(move |key| world.clone().make(key))
    }

    /// Slow, failing, and sometimes without an end.
    async fn make(self, key: u64) -> Result<TokenCache, TokenError> {
        let number = {
            let mut book = self.book();
            book.last_call += 1;
            book.last_call
        };
        let early = self.dice(2).then(|| Source::new(&self, key, number));
        self.pause().await;
        if self.dice(5) {
            self.book().count.failed += 1;
            return Err(error("the factory fails"));
        }
        if self.0.is_paused && self.dice(40) {
            pending::<()>().await;
        }
        if self.dice(40) {
            // As a panic, but without the message.
            std::panic::resume_unwind(Box::new("the factory panics"));
        }
        self.book().count.made += 1;
        let source = early.unwrap_or_else(|| Source::new(&self, key, number));
        let schedule = source.schedule().background_refresh(self.dice(4));
        let cache = TokenCache::builder(source).schedule(schedule);
        Ok(if self.0.is_paused {
            cache.build()
        } else {
            cache.max_wait(Duration::from_millis(5)).build()
        })
    }

    /// Removes the session of a key. From now on, the old one may be in use beside the next one.
    pub(super) async fn remove(self, sessions: Sessions<u64>, key: u64) {
        *self.book().removing.entry(key).or_default() += 1;
        let _ends = Removal(&self, key);
        drop(sessions.remove(&key).await);
    }

    /// A source is in use. No newer one of the key may have been made then.
    fn used(&self, key: u64, number: u64) {
        let mut book = self.book();
        let newest = book.newest.get(&key).copied().unwrap_or_default();
        if newest > number && !book.may_be_removed(key, number) {
            let wrong = format!("source {number} of key {key} is used beside {newest}");
            book.wrong.push(wrong);
        }
    }

    pub(super) fn calm(&self) {
        self.0.is_calm.store(true, Ordering::Relaxed);
    }

    fn is_calm(&self) -> bool {
        self.0.is_calm.load(Ordering::Relaxed)
    }

    /// One time of so many, until the world is calm.
    fn dice(&self, times: u32) -> bool {
        !self.is_calm() && fastrand::u32(..times) == 0
    }

    async fn pause(&self) {
        if self.0.is_paused {
            match fastrand::u32(..4) {
                0 => {}
                1 => yield_now().await,
                2 => sleep(Duration::from_millis(fastrand::u64(1..20))).await,
                _ => sleep(Duration::from_millis(fastrand::u64(1..3_000))).await,
            }
        } else {
            for _ in 0..fastrand::u32(..8) {
                yield_now().await;
            }
        }
    }

    pub(super) fn check(&self) {
        let book = self.book();
        assert!(book.wrong.is_empty(), "{:#?}", book.wrong);
    }

    pub(super) fn check_all_dropped(&self) {
        self.check();
        let book = self.book();
        assert!(book.live.is_empty(), "sources are left: {:?}", book.live);
    }
}

impl Count {
    pub(super) fn add(&mut self, other: Self) {
        self.made += other.made;
        self.dropped += other.dropped;
        self.failed += other.failed;
        self.sent += other.sent;
        self.rejected += other.rejected;
        self.answered += other.answered;
        self.refresh_failed += other.refresh_failed;
    }

    /// Panics if something hardly happened, so that the test would show little.
    pub(super) fn check(&self, at_least: u64) {
        let Self {
            made,
            dropped,
            failed,
            sent,
            rejected,
            answered,
            refresh_failed: _,
        } = *self;
        for count in [made, dropped, failed, sent, rejected, answered] {
            assert!(count >= at_least, "{self:?}");
        }
    }
}

impl Book {
    fn may_be_removed(&self, key: u64, number: u64) -> bool {
        let is_in_progress = self.removing.get(&key).is_some_and(|it| *it > 0);
        is_in_progress || self.removed.get(&key).is_some_and(|last| number <= *last)
    }
}

struct Removal<'a>(&'a World, u64);

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        let mut book = self.0.book();
        let last = book.last_call;
        book.removed.insert(self.1, last);
        *book.removing.get_mut(&self.1).unwrap() -= 1;
    }
}

fn error(message: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::Transport, message)
}

/// Its tokens say of which key they are.
struct Source {
    world: World,
    key: u64,
    /// Of the factory's call.
    number: u64,
    is_unsaved: AtomicBool,
}

impl Source {
    fn new(world: &World, key: u64, number: u64) -> Self {
        let mut book = world.book();
        // A call whose key was removed meanwhile goes on, for nothing.
        if world.0.is_paused && !book.may_be_removed(key, number) {
            let others = book.live.iter().filter(|(_, of)| **of == key);
            let others: Vec<_> = others.map(|(other, _)| *other).collect();
            for other in others {
                if !book.may_be_removed(key, other) {
                    let wrong = format!("source {number} of key {key} is made beside {other}");
                    book.wrong.push(wrong);
                }
            }
        }
        book.live.insert(number, key);
        drop(book);
        Self {
            world: world.clone(),
            key,
            number,
            is_unsaved: AtomicBool::new(false),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut book = self.world.book();
        book.live.remove(&self.number);
        if !book.may_be_removed(self.key, self.number) {
            book.count.dropped += 1;
            if self.has_unsaved() {
                let wrong = format!("source {} is dropped before it is saved", self.number);
                book.wrong.push(wrong);
            }
        }
    }
}

impl TokenSource for Source {
    async fn token(&self, _cx: TokenContext) -> Result<Token, TokenError> {
        self.world.used(self.key, self.number);
        {
            // It is in use: a newer one that is made now is a mistake.
            let mut book = self.world.book();
            let newest = book.newest.entry(self.key).or_default();
            *newest = self.number.max(*newest);
        }
        self.world.pause().await;
        self.world.used(self.key, self.number);
        if self.world.0.is_paused && self.world.dice(4) {
            self.world.book().count.refresh_failed += 1;
            return Err(error("the refresh fails"));
        }
        self.is_unsaved.store(self.world.dice(6), Ordering::Relaxed);
        let mut book = self.world.book();
        book.last_token += 1;
        let token = format!("{}.{}.{}", self.key, self.number, book.last_token);
        Ok(Token::new(token)?.expires_in(Duration::from_secs(fastrand::u64(2..100))))
    }

    async fn flush(&self) -> Result<(), TokenError> {
        self.world.pause().await;
        if self.world.dice(3) {
            return Err(error("the save fails"));
        }
        self.is_unsaved.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn has_unsaved(&self) -> bool {
        self.is_unsaved.load(Ordering::Relaxed) && !self.world.is_calm()
    }

    fn schedule(&self) -> Schedule {
        let min_interval = if self.world.0.is_paused {
            fastrand::u64(..2_000)
        } else {
            0
        };
        Schedule::default().min_interval(Duration::from_millis(min_interval))
    }
}

/// An API that is not always ready. Readiness belongs to one instance, and is used up by a call.
pub(super) struct Api {
    world: World,
    is_ready: bool,
    delay: Option<Pin<Box<Sleep>>>,
}

impl Api {
    pub(super) fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            is_ready: false,
            delay: None,
        }
    }
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self::new(&self.world)
    }
}

impl Service<Request<ReplayBody<String>>> for Api {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !self.is_ready && self.delay.is_none() && self.world.0.is_paused && self.world.dice(3) {
            let delay = Duration::from_millis(fastrand::u64(1..50));
            self.delay = Some(Box::pin(sleep(delay)));
        }
        if let Some(delay) = &mut self.delay {
            std::task::ready!(delay.as_mut().poll(cx));
            self.delay = None;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<String>>) -> Self::Future {
        assert!(self.is_ready, "called before it was ready");
        self.is_ready = false;
        Box::pin(answer(self.world.clone(), request))
    }
}

async fn answer(
    world: World,
    request: Request<ReplayBody<String>>,
) -> Result<Response<String>, BoxError> {
    let key = request.extensions().get::<SessionKey<u64>>().unwrap().0;
    let token = request.headers()["authorization"].to_str()?;
    let token = token.strip_prefix("Bearer ").unwrap().to_owned();
    let parts: Vec<u64> = token.split('.').map(|it| it.parse().unwrap()).collect();
    {
        let mut book = world.book();
        book.count.sent += 1;
        if parts[0] != key {
            let wrong = format!("the token of key {} is sent with key {key}", parts[0]);
            book.wrong.push(wrong);
        }
    }
    world.used(key, parts[1]);
    world.pause().await;
    let body = if world.dice(4) {
        None
    } else {
        Some(request.into_body().collect().await?.to_bytes())
    };
    if body.is_some_and(|body| body != key.to_string()) {
        let wrong = format!("the body of another request is sent with key {key}");
        world.book().wrong.push(wrong);
    }
    world.pause().await;
    world.used(key, parts[1]);
    let mut book = world.book();
    if world.dice(10) {
        return Err("the connection breaks".into());
    }
    let may_reject = world.0.is_paused || book.accepted.contains(&token);
    let is_rejected = book.rejected.contains(&token) || (may_reject && world.dice(4));
    let mut response = Response::new(key.to_string());
    if is_rejected {
        book.rejected.insert(token);
        book.count.rejected += 1;
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    } else {
        book.accepted.insert(token);
    }
    Ok(response)
}

/// Sends a request, and checks that its answer is for it.
pub(super) async fn send<S>(world: World, client: S, key: u64)
where
    S: Service<Request<String>, Response = Response<String>, Error = BoxError>,
{
    let request = Request::post("https://api.example.com/")
        .extension(SessionKey(key))
        .body(key.to_string())
        .unwrap();
    if let Ok(response) = tower::ServiceExt::oneshot(client, request).await {
        let mut book = world.book();
        book.count.answered += 1;
        if *response.body() != key.to_string() {
            let wrong = format!("the answer of another request was given to key {key}");
            book.wrong.push(wrong);
        }
    }
}
