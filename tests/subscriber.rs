//! A subscriber of `tracing` that panics must not keep a token from those who wait for it.
//!
//! Alone in its process: whether anybody hears an event is decided for all threads by the one that is the first at it.

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

/// Panics over the first event, and only there.
#[derive(Clone, Default)]
struct Fragile(Arc<AtomicBool>);

impl Subscriber for Fragile {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_bearer")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        assert!(self.0.swap(true, Ordering::SeqCst), "as it was told");
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_landing_that_panics_leaves_nobody_waiting() {
    let subscriber = Fragile::default();
    tracing::subscriber::set_global_default(subscriber.clone()).unwrap();
    let calls = AtomicUsize::new(0);
    let cache = TokenCache::new(source_fn(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Token::new(format!("token-{call}")) }
    }));

    let token = timeout(Duration::from_secs(25), cache.token()).await;

    assert!(subscriber.0.load(Ordering::SeqCst), "it heard nothing");
    assert_eq!(token.unwrap().unwrap().expose_secret(), "token-2");
}
