//! The log lines of events, the span of a refresh, and that neither shows a secret.

use std::{
    cell::RefCell,
    fmt::{Debug, Write},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::sleep;
use tower_bearer::testing::Fault;
use tracing::{
    Instrument, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_core::span::Current;

use crate::world::{Recorder, SECOND, World, locked};

const TARGET: &str = "tower_bearer::events";

/// Keeps lines, and how spans are connected.
#[derive(Clone, Default)]
struct Log(Arc<LogState>);

#[derive(Default)]
struct LogState {
    lines: Mutex<Vec<Line>>,
    spans: Mutex<Vec<Span>>,
    /// The spans that a thread is in. All tests here have one thread.
    entered: Mutex<Vec<u64>>,
    last_id: AtomicU64,
}

struct Line {
    level: Level,
    target: String,
    fields: Fields,
    /// The innermost span.
    span: Option<u64>,
}

struct Span {
    id: u64,
    metadata: &'static Metadata<'static>,
    fields: Fields,
    parent: Option<u64>,
    follows: Vec<u64>,
}

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }
}

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| value.as_str())
    }
}

thread_local! {
    /// The log of the test that runs in this thread.
    static LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// The subscriber of all tests of this program: `tracing` remembers for all threads which lines have a subscriber. Each line
/// gets to the log of its thread.
struct OfThisThread;

fn with_log<T>(call: impl FnOnce(&Log) -> T) -> Option<T> {
    LOG.with_borrow(|log| log.as_ref().map(call))
}

impl Subscriber for OfThisThread {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        with_log(|log| log.new_span(attributes)).unwrap_or_else(|| Id::from_u64(u64::MAX))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        with_log(|log| log.follows_from(span, follows));
    }

    fn event(&self, event: &tracing::Event<'_>) {
        with_log(|log| log.line(event));
    }

    fn enter(&self, span: &Id) {
        with_log(|log| locked(&log.0.entered).push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        with_log(|log| {
            let left = locked(&log.0.entered).pop();
            assert_eq!(left, Some(span.into_u64()));
        });
    }

    fn current_span(&self) -> Current {
        with_log(Log::current_span).unwrap_or_else(Current::none)
    }
}

impl Log {
    /// The log of this thread from now on.
    fn start() -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            tracing::subscriber::set_global_default(OfThisThread).unwrap();
        });
        let log = Self::default();
        LOG.set(Some(log.clone()));
        log
    }

    /// The lines of events so far, as `level event: message`.
    fn events(&self) -> Vec<String> {
        let lines = locked(&self.0.lines);
        let of_this_cache = |line: &&Line| line.fields.get("name") == Some(crate::world::NAME);
        let events = lines.iter().filter(|line| line.target == TARGET);
        events
            .filter(of_this_cache)
            .map(|line| {
                let field = |name| line.fields.get(name).unwrap();
                assert_eq!(field("group"), crate::world::GROUP);
                assert_eq!(field("grant"), "refresh_token");
                format!("{} {}: {}", line.level, field("event"), field("message"))
            })
            .collect()
    }

    /// All that was logged.
    fn text(&self) -> String {
        let mut text = String::new();
        for line in &*locked(&self.0.lines) {
            writeln!(text, "{} {} {:?}", line.level, line.target, line.fields.0).unwrap();
        }
        for span in &*locked(&self.0.spans) {
            writeln!(text, "{} {:?}", span.metadata.name(), span.fields.0).unwrap();
        }
        text
    }
}

impl Log {
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.0.last_id.fetch_add(1, Ordering::SeqCst) + 1;
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = if attributes.is_contextual() {
            locked(&self.0.entered).last().copied()
        } else {
            attributes.parent().map(Id::into_u64)
        };
        locked(&self.0.spans).push(Span {
            id,
            metadata: attributes.metadata(),
            fields,
            parent,
            follows: Vec::new(),
        });
        Id::from_u64(id)
    }

    fn follows_from(&self, span: &Id, follows: &Id) {
        let mut spans = locked(&self.0.spans);
        let span = spans.iter_mut().find(|it| it.id == span.into_u64());
        span.unwrap().follows.push(follows.into_u64());
    }

    fn line(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = Line {
            level: *event.metadata().level(),
            target: event.metadata().target().to_owned(),
            fields,
            span: locked(&self.0.entered).last().copied(),
        };
        locked(&self.0.lines).push(line);
    }

    fn current_span(&self) -> Current {
        let entered = locked(&self.0.entered).last().copied();
        let spans = locked(&self.0.spans);
        let span = spans.iter().find(|span| Some(span.id) == entered);
        span.map_or_else(Current::none, |span| {
            Current::new(Id::from_u64(span.id), span.metadata)
        })
    }
}

/// Uses everything that leads to a log line.
async fn long_run(world: &World) {
    assert_eq!(world.get().await.unwrap(), 200);
    world.server.revoke_access_tokens();
    assert_eq!(world.get().await.unwrap(), 200);
    world.api.reject_next(2);
    assert_eq!(world.get().await.unwrap(), 401);
    sleep(601 * SECOND).await;
    world.server.fault(Fault::error("server_error"));
    world.get().await.unwrap_err();
    sleep(601 * SECOND).await;
    world.store_fails(true);
    assert_eq!(world.get().await.unwrap(), 200);
    sleep(60 * SECOND).await;
    world.store_fails(false);
    sleep(60 * SECOND).await;
    let other = world.other_process();
    other.refresh().await.unwrap();
    sleep(60 * SECOND).await;
    other.refresh().await.unwrap();
    world.cache.refresh().await.unwrap();
    world.server.revoke_sessions();
    sleep(601 * SECOND).await;
    world.get().await.unwrap_err();
    world.cache.login(world.login()).await.unwrap();
    assert_eq!(world.get().await.unwrap(), 200);
    world.cache.revoke().await.unwrap();
    world.get().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn each_event_is_one_line() {
    let log = Log::start();
    let world = World::new(Recorder::default());
    long_run(&world).await;
    let expected = [
        "DEBUG refreshed: token refreshed",
        "INFO rejected: token rejected",
        "DEBUG refreshed: token refreshed",
        "DEBUG replayed: request replayed",
        "INFO rejected: token rejected",
        "DEBUG refreshed: token refreshed",
        "DEBUG replayed: request replayed, and rejected again",
        "INFO rejected: token rejected",
        "WARN failed: refresh failed",
        "DEBUG refreshed: token refreshed",
        "ERROR not_saved: session not saved, it goes on from memory",
        "INFO saved_late: session saved in the background",
        "DEBUG adopted: token of another process adopted",
        "ERROR reauth_required: a person must log in again",
        "INFO logged_in: a new login has taken the place of the session",
        "DEBUG refreshed: token refreshed",
        "INFO revoked: session revoked",
    ];
    let events = log.events();
    assert_eq!(events, expected, "\n{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn lines_have_the_documented_fields() {
    let log = Log::start();
    let world = World::new(Recorder::default());
    world.get().await.unwrap();
    sleep(601 * SECOND).await;
    world.server.fault(Fault::TooManyRequests {
        retry_after: 90 * SECOND,
    });
    world.get().await.unwrap_err();

    let lines = locked(&log.0.lines);
    let mut events = lines.iter().filter(|line| line.target == TARGET);
    let refreshed = &events.next().unwrap().fields;
    assert_eq!(refreshed.get("reason"), Some("no_token"));
    assert_eq!(refreshed.get("duration"), Some("0.0"));
    assert_eq!(refreshed.get("expires_in"), Some("600"));
    let due_in: u64 = refreshed.get("next_due_in").unwrap().parse().unwrap();
    assert!((300..600).contains(&due_in), "{due_in}");
    assert!(refreshed.get("generation").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(refreshed.get("error"), None);
    let failed = &events.next().unwrap().fields;
    assert_eq!(failed.get("reason"), Some("expired"));
    assert_eq!(failed.get("next_due_in"), Some("90"));
    assert_eq!(failed.get("error_kind"), Some("rate_limited"));
    assert!(failed.get("error").unwrap().contains("HTTP 429"));
    assert_eq!(failed.get("generation"), None);
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_refresh_follows_from_that_of_its_caller() {
    let log = Log::start();
    let world = World::new(Recorder::default());
    let caller = tracing::info_span!("the caller");
    let caller_id = caller.id().unwrap().into_u64();
    world.get().instrument(caller).await.unwrap();

    let spans = locked(&log.0.spans);
    let is_refresh = |span: &&Span| span.metadata.name() == "refresh";
    let refreshes: Vec<_> = spans.iter().filter(is_refresh).collect();
    let [refresh] = refreshes[..] else {
        panic!("one refresh has run");
    };
    assert_eq!(refresh.metadata.target(), TARGET);
    assert_eq!(refresh.parent, None);
    assert_eq!(refresh.follows, [caller_id]);
    assert_eq!(refresh.fields.get("reason"), Some("no_token"));
    assert_eq!(refresh.fields.get("group"), Some(crate::world::GROUP));

    let lines = locked(&log.0.lines);
    let mut events = lines.iter().filter(|line| line.target == TARGET);
    assert_eq!(events.next().unwrap().span, Some(refresh.id));
}

#[tokio::test(start_paused = true)]
async fn lines_within_a_refresh_are_in_its_span() {
    let log = Log::start();
    let world = World::new(Recorder::default());
    world.server.fault(Fault::DropBeforeCommit);
    world.get().await.unwrap();
    let lines = locked(&log.0.lines);
    let resent = lines.iter().find(|line| {
        let message = line.fields.get("message");
        message.is_some_and(|it| it.starts_with("no response to a refresh"))
    });
    let span = resent.unwrap().span.unwrap();
    let spans = locked(&log.0.spans);
    let span = spans.iter().find(|it| it.id == span).unwrap();
    assert_eq!(span.metadata.name(), "refresh");
}

#[tokio::test(start_paused = true)]
async fn no_line_and_no_event_shows_a_secret() {
    let log = Log::start();
    let world = World::new(Recorder::of_requests());
    long_run(&world).await;
    let secrets = world.secrets();
    // A server that repeats what it was sent, as a text and as its error code.
    let again = World::new(Recorder::of_requests());
    for fault in [
        Fault::raw(http::StatusCode::BAD_REQUEST, "application/json", {
            format!(r#"{{"error":"{}","error_description":"{0}"}}"#, secrets[1])
        }),
        Fault::raw(
            http::StatusCode::BAD_GATEWAY,
            "text/html",
            secrets.join(" "),
        ),
    ] {
        again.server.fault(fault);
        again.get().await.unwrap_err();
        sleep(1_000 * SECOND).await;
    }

    let text = log.text() + &locked(&world.observer.shown) + &locked(&again.observer.shown);
    assert!(secrets.len() > 10, "{secrets:?}");
    for secret in secrets.into_iter().chain(again.secrets()) {
        assert!(!text.contains(&secret), "`{secret}` is shown in:\n{text}");
    }
    assert!(text.contains("reauth_required"));
}
