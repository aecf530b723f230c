//! Many callers and no token yet: each waits in a task of its own. Time is paused, so the token request takes none.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_bearer::{BearerAuthLayer, Token, TokenCache, source_fn};

use super::work::{Bare, Model, Runner, TOKEN};

/// How long the token endpoint takes.
const ENDPOINT: Duration = Duration::from_millis(50);

type Body = Full<Bytes>;

/// Positions in [`contenders`].
pub(crate) const TIMERS: usize = 0;
pub(crate) const FULL: usize = 1;

/// Callers that wait for a timer instead of a token, and callers of the full layer.
pub(crate) fn contenders() -> Vec<Box<dyn Runner>> {
    let timers = || {
        service_fn(|request| async {
            time::sleep(ENDPOINT).await;
            Bare { reads: false }.oneshot(request).await
        })
    };
    let bearer = || {
        let cache = TokenCache::new(source_fn(|_| async {
            time::sleep(ENDPOINT).await;
            Token::new(TOKEN)
        }));
        BearerAuthLayer::from(cache).layer(Bare { reads: false })
    };
    vec![
        waiters("a timer instead of a token", timers),
        waiters("BearerAuthLayer", bearer),
    ]
}

struct Waiters<F> {
    name: &'static str,
    /// Makes a service without a token.
    make: F,
    runtime: Runtime,
    model: Model<Body>,
    requests: Vec<Request<Body>>,
}

fn waiters<F, S>(name: &'static str, make: F) -> Box<dyn Runner>
where
    F: Fn() -> S + Send + 'static,
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
{
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    Box::new(Waiters {
        name,
        make,
        runtime: runtime.expect("a runtime starts"),
        model: Model::new(6, Full::new(Bytes::from_static(&[7; 1024]))),
        requests: Vec::new(),
    })
}

impl<F, S> Runner for Waiters<F>
where
    F: Fn() -> S + Send,
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn fill(&mut self, count: usize) {
        self.requests.clear();
        let request = || self.model.request();
        self.requests
            .extend(std::iter::repeat_with(request).take(count));
    }

    fn run(&mut self) {
        self.runtime.block_on(async {
            let service = (self.make)();
            let mut tasks = JoinSet::new();
            for request in self.requests.drain(..) {
                let service = service.clone();
                tasks.spawn(async move { assert!(service.oneshot(request).await.is_ok()) });
            }
            tasks.join_all().await;
        });
    }
}
