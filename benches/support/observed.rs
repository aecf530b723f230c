//! The layer with observers, and without.

use std::sync::{
    Arc, Once,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http_body_util::Empty;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tower::ServiceBuilder;
use tower_bearer::{
    BearerAuthLayer, TokenCache, TokenCacheBuilder,
    events::{Event, Observer},
};

use super::{
    contenders::session_with,
    work::{Bare, Model, Runner, contender},
};

const HEADERS: usize = 6;

/// Counters that are one atomic number each, as exporters have them. There are no others on the way of a request.
struct Atomics;

impl Recorder for Atomics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(AtomicU64::new(0)))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Counts events. `requests` says whether it wants those of requests.
struct Counts {
    events: AtomicU64,
    requests: bool,
}

impl Observer for Counts {
    fn on_event(&self, _: &Event<'_>) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    fn wants_requests(&self) -> bool {
        self.requests
    }
}

fn counts(requests: bool) -> Counts {
    Counts {
        events: AtomicU64::new(0),
        requests,
    }
}

/// Must run in a Tokio runtime.
pub(crate) async fn contenders() -> Vec<Box<dyn Runner>> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| metrics::set_global_recorder(Atomics).expect("there is no other"));
    let sessions: [(&'static str, TokenCache); 4] = [
        ("no observer", session_with(|it| it).await),
        (
            "an observer",
            session_with(|it| it.observer(counts(false))).await,
        ),
        (
            "an observer of requests",
            session_with(|it| it.observer(counts(true))).await,
        ),
        ("metrics", session_with(TokenCacheBuilder::metrics).await),
    ];
    let model = &Model::new(HEADERS, Empty::<Bytes>::new());
    let bare = Bare { reads: false };
    let mut runners: Vec<Box<dyn Runner>> = vec![contender("bare service", bare, model)];
    for (name, session) in sessions {
        let layer = BearerAuthLayer::from(session);
        let service = ServiceBuilder::new().layer(layer).service(bare);
        runners.push(contender(name, service, model));
    }
    runners
}
