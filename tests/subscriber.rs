//! A `tracing` subscriber that panics must not prevent waiting callers from getting a token.
//!
//! This test is alone in its process, because `tracing` caches for all threads whether an event has a subscriber.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use tower_bearer::{Token, TokenCache, source_fn};
use tracing::{Event, Metadata, Subscriber, span};

/// Panics at the first event only.
#[derive(Clone, Default)]
struct PanicsOnce(Arc<AtomicBool>);

impl Subscriber for PanicsOnce {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_bearer")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        assert!(
            self.0.swap(true, Ordering::SeqCst),
            "the subscriber panics at its first event"
        );
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_subscriber_does_not_leave_callers_waiting() {
    let subscriber = PanicsOnce::default();
    tracing::subscriber::set_global_default(subscriber.clone()).unwrap();
    let calls = AtomicUsize::new(0);
    let cache = TokenCache::new(source_fn(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Token::new(format!("token-{call}")) }
    }));

    let token = timeout(Duration::from_secs(25), cache.token()).await;

    assert!(subscriber.0.load(Ordering::SeqCst), "it got no event");
    assert_eq!(token.unwrap().unwrap().expose_secret(), "token-1");
}
