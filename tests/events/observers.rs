//! Observers that panic, that use the cache, and the order of events.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, Identity, Schedule, StoredSession, Token, TokenCache, TokenContext,
    TokenError, TokenSource,
    events::{
        Event,
        EventKind::{self, LoggedIn, Refreshed, Rejected, RequestSent, Superseded, Waited},
        Observer,
    },
    source_fn,
};

use crate::{
    support,
    world::{SECOND, accepting, locked},
};

#[derive(Default)]
struct Panics(AtomicUsize);

impl Observer for Panics {
    fn on_event(&self, event: &Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("the observer panics at {}", event.kind);
    }

    fn wants_requests(&self) -> bool {
        true
    }
}

#[derive(Default)]
struct Kinds(Mutex<Vec<EventKind>>);

impl Observer for Kinds {
    fn on_event(&self, event: &Event<'_>) {
        locked(&self.0).push(event.kind);
    }

    fn wants_requests(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_disturbs_nobody() {
    let calls = AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move { Token::new(format!("token-{call}")) }
    });
    let (panics, kinds) = (Arc::new(Panics::default()), Arc::new(Kinds::default()));
    let cache = TokenCache::builder(source)
        .observer(Arc::clone(&panics))
        .observer(Arc::clone(&kinds))
        .build();
    let client = BearerAuthLayer::from(cache.clone()).layer(accepting());
    for _ in 0..2 {
        let request = support::get("https://api.example.com/");
        let response = timeout(10 * SECOND, client.clone().oneshot(request)).await;
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    let first = cache.peek().unwrap();
    cache.reject(&first);
    let second = timeout(10 * SECOND, cache.token()).await.unwrap().unwrap();

    assert_eq!(second.expose_secret(), "token-1");
    assert_eq!(cache.status().issued, 2);
    let expected = [
        Refreshed,
        Waited,
        RequestSent,
        RequestSent,
        Rejected,
        Refreshed,
        Waited,
    ];
    assert_eq!(*locked(&kinds.0), expected);
    assert_eq!(panics.0.load(Ordering::SeqCst), expected.len());
}

/// Rejects the first token from inside of its own event.
#[derive(Default)]
struct Rejects {
    cache: OnceLock<TokenCache>,
    kinds: Mutex<Vec<EventKind>>,
}

impl Observer for Rejects {
    fn on_event(&self, event: &Event<'_>) {
        let is_first = locked(&self.kinds).is_empty();
        if is_first && let Some(cache) = self.cache.get() {
            cache.reject(&cache.peek().unwrap());
            assert_eq!(cache.status().rejected, 1);
        }
        locked(&self.kinds).push(event.kind);
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_use_the_cache() {
    let calls = AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move { Token::new(format!("token-{call}")) }
    });
    let observer = Arc::new(Rejects::default());
    let cache = TokenCache::builder(source)
        .observer(Arc::clone(&observer))
        .build();
    observer.cache.set(cache.clone()).unwrap();
    timeout(10 * SECOND, cache.token()).await.unwrap().unwrap();
    cache.close().await.unwrap();
    assert_eq!(*locked(&observer.kinds), [Refreshed, Rejected, Refreshed]);
}

/// A source whose logins bring a token.
#[derive(Default)]
struct ByLogin {
    tokens: AtomicUsize,
    /// How long a refresh takes.
    takes: Duration,
}

impl ByLogin {
    fn next(&self) -> Result<Token, TokenError> {
        Token::new(format!(
            "token-{}",
            self.tokens.fetch_add(1, Ordering::SeqCst)
        ))
    }
}

impl TokenSource for ByLogin {
    async fn token(&self, _: TokenContext) -> Result<Token, TokenError> {
        sleep(self.takes).await;
        self.next()
    }

    async fn login(&self, _: StoredSession, _: TokenContext) -> Result<Option<Token>, TokenError> {
        self.next().map(Some)
    }

    fn schedule(&self) -> Schedule {
        Schedule::default().min_interval(Duration::ZERO)
    }
}

fn session(login: &str) -> StoredSession {
    StoredSession::new(Identity::new("refresh", login))
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_login_overtakes_is_superseded() {
    let source = ByLogin {
        takes: 5 * SECOND,
        ..ByLogin::default()
    };
    let kinds = Arc::new(Kinds::default());
    let cache = TokenCache::builder(source)
        .observer(Arc::clone(&kinds))
        .build();
    let waiting = cache.clone();
    let waiting = tokio::spawn(async move { waiting.token().await });
    sleep(SECOND).await;
    cache.login(session("anna")).await.unwrap();
    waiting.await.unwrap().unwrap();
    sleep(10 * SECOND).await;
    assert_eq!(*locked(&kinds.0), [LoggedIn, Waited, Superseded]);
}

#[test]
fn a_refresh_whose_runtime_ends_has_failed() {
    let kinds = Arc::new(Kinds::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let source = source_fn(|_| std::future::pending());
    let cache = TokenCache::builder(source)
        .observer(Arc::clone(&kinds))
        .build();
    runtime.block_on(async {
        let wait = timeout(Duration::from_millis(1), cache.token());
        wait.await.unwrap_err();
    });
    drop(runtime);
    assert_eq!(*locked(&kinds.0), [EventKind::Failed]);
}

/// Gives other threads time to overtake it.
#[derive(Default)]
struct Slow(Mutex<VecDeque<(EventKind, u64)>>);

impl Observer for Slow {
    fn on_event(&self, event: &Event<'_>) {
        thread::yield_now();
        if let Some(generation) = event.generation {
            locked(&self.0).push_back((event.kind, generation));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_come_in_the_order_of_what_happened() {
    let observer = Arc::new(Slow::default());
    let cache = TokenCache::builder(ByLogin::default())
        .observer(Arc::clone(&observer))
        .build();
    let tasks = (0..4).map(|task| {
        let cache = cache.clone();
        tokio::spawn(async move {
            for number in 0..200 {
                let login = format!("login-{task}-{number}");
                cache.login(session(&login)).await.unwrap();
                if let Some(token) = cache.peek() {
                    cache.reject(&token);
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    cache.close().await.unwrap();
    // A refresh that a login has overtaken may still be delivering.
    let are_all_there = || {
        let events = locked(&observer.0);
        let logins = events.iter().filter(|(kind, _)| *kind == LoggedIn);
        let rejections = events.iter().filter(|(kind, _)| *kind == Rejected);
        logins.count() == 800 && rejections.count() as u64 == cache.status().rejected
    };
    let delivered = async {
        while !are_all_there() {
            tokio::task::yield_now().await;
        }
    };
    timeout(60 * SECOND, delivered).await.unwrap();
    // A token comes after the one before it, and only the current one can be rejected.
    let mut current = 0;
    for (kind, generation) in locked(&observer.0).drain(..) {
        match kind {
            Rejected => {
                assert_eq!(generation, current, "an event came too late");
            }
            LoggedIn | Refreshed => {
                assert!(generation > current, "{generation} after {current}");
                current = generation;
            }
            Superseded => {}
            other => panic!("{other}"),
        }
    }
}
