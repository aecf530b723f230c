//! Random schedules that try to send a token with the request of another key, or to make two caches for one key.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use http::{Request, Response};
use tokio::{
    runtime::Builder,
    task::{JoinHandle, JoinSet, yield_now},
    time::{advance, sleep, timeout},
};
use tower::{BoxError, ServiceBuilder, util::BoxCloneService};
use tower_bearer::{BearerAuthLayer, Sessions, TokenCache};

use super::world::{Api, Count, World, send};

const KEYS: u64 = 4;

type Client = BoxCloneService<Request<String>, Response<String>, BoxError>;

fn client(world: &World, sessions: &Sessions<u64>) -> Client {
    BoxCloneService::new(
        ServiceBuilder::new()
            .layer(BearerAuthLayer::keyed(sessions.clone()))
            .concurrency_limit(3)
            .service(Api::new(world)),
    )
}

/// Polls a future once, as if it had been woken, or for no reason.
fn poll(future: Pin<&mut (impl Future + ?Sized)>) -> bool {
    future
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

/// Everything that was begun and has not ended.
struct Schedule {
    world: World,
    sessions: Sessions<u64>,
    client: Client,
    /// Polled by hand.
    futures: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    tasks: Vec<JoinHandle<()>>,
    caches: Vec<TokenCache>,
}

impl Schedule {
    fn new() -> Self {
        let world = World::new(true);
        let sessions = world
            .sessions()
            .capacity(fastrand::usize(..3))
            .idle_timeout(Duration::from_secs(fastrand::u64(1..20)))
            .creation_timeout(Duration::from_secs(5))
            .build();
        Self {
            client: client(&world, &sessions),
            world,
            sessions,
            futures: Vec::new(),
            tasks: Vec::new(),
            caches: Vec::new(),
        }
    }

    async fn step(&mut self) {
        let key = fastrand::u64(..KEYS);
        match fastrand::u32(..20) {
            0..4 => {
                let request = send(self.world.clone(), self.client.clone(), key);
                self.futures.push(Box::pin(request));
            }
            4..8 => {
                let request = send(self.world.clone(), self.client.clone(), key);
                self.tasks.push(tokio::spawn(request));
            }
            8 => {
                let removal = self.world.clone().remove(self.sessions.clone(), key);
                self.futures.push(Box::pin(removal));
            }
            9 => self.caches.extend(self.sessions.peek(&key)),
            10 => {
                let sessions = self.sessions.clone();
                let get = async move { drop(sessions.get(&key).await) };
                self.futures.push(Box::pin(get));
            }
            11 => {
                for (_, cache) in self.sessions.iter() {
                    if let Some(token) = cache.peek() {
                        cache.reject(&token);
                    }
                }
            }
            12 => self.caches.clear(),
            13 if !self.futures.is_empty() => {
                drop(
                    self.futures
                        .swap_remove(fastrand::usize(..self.futures.len())),
                );
            }
            14 if !self.tasks.is_empty() => {
                let task = self.tasks.swap_remove(fastrand::usize(..self.tasks.len()));
                task.abort();
            }
            15 => yield_now().await,
            16 => advance(Duration::from_millis(fastrand::u64(..100))).await,
            // Not in one jump: tasks run at their times.
            17 => sleep(Duration::from_millis(fastrand::u64(..10_000))).await,
            _ => self
                .futures
                .retain_mut(|it| fastrand::bool() || !poll(it.as_mut())),
        }
    }

    /// Ends everything, and returns what has happened. In the end, nothing is left.
    async fn end(self) -> Count {
        for mut future in self.futures {
            if fastrand::bool() {
                let is_done = poll(future.as_mut());
                if !is_done {
                    tokio::spawn(future);
                }
            }
        }
        drop((self.client, self.caches));
        sleep(Duration::from_secs(60)).await;
        self.world.check();
        self.world.calm();
        // Whatever is left takes less time, unless something is in use for ever.
        sleep(Duration::from_secs(200)).await;
        assert_eq!(self.sessions.len(), 0, "a session is kept for ever");
        drop(self.sessions);
        yield_now().await;
        self.world.check_all_dropped();
        self.world.book().count
    }
}

#[test]
fn no_random_schedule_sends_a_token_with_the_request_of_another_key() {
    let mut total = Count::default();
    for seed in 0..2_000 {
        fastrand::seed(seed);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let count = std::panic::catch_unwind(|| {
            runtime.block_on(async {
                let mut schedule = Schedule::new();
                for _ in 0..100 {
                    schedule.step().await;
                }
                schedule.end().await
            })
        });
        total.add(count.unwrap_or_else(|_| panic!("seed {seed}")));
    }
    total.check(2_000);
    assert!(total.refresh_failed > 2_000, "{total:?}");
}

/// One of several threads. Each future is dropped at some point, or driven to its end.
async fn work(world: World, sessions: Sessions<u64>, client: Client, steps: u32) {
    let mut cache = None;
    for _ in 0..steps {
        let key = fastrand::u64(..KEYS);
        match fastrand::u32(..12) {
            0 => world.clone().remove(sessions.clone(), key).await,
            1 => {
                let mut removal = Box::pin(world.clone().remove(sessions.clone(), key));
                for _ in 0..fastrand::u32(..3) {
                    if poll(removal.as_mut()) {
                        break;
                    }
                    yield_now().await;
                }
            }
            2 => cache = sessions.peek(&key),
            3 => cache = sessions.iter().map(|(_, cache)| cache).last(),
            4 => {
                if let Some(token) = cache.take().and_then(|it: TokenCache| it.peek()) {
                    sessions.iter().for_each(|(_, cache)| cache.reject(&token));
                }
            }
            5 => drop(sessions.get(&key).await),
            6..8 => {
                let mut request = Box::pin(send(world.clone(), client.clone(), key));
                for _ in 0..fastrand::u32(..6) {
                    if poll(request.as_mut()) {
                        break;
                    }
                    yield_now().await;
                }
            }
            _ => send(world.clone(), client.clone(), key).await,
        }
    }
}

#[test]
fn several_threads_never_send_a_token_with_the_request_of_another_key() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::new(false);
        let sessions = world
            .sessions()
            .capacity(2)
            .idle_timeout(Duration::ZERO)
            .build();
        let client = client(&world, &sessions);
        let mut workers = JoinSet::new();
        for _ in 0..8 {
            workers.spawn(work(world.clone(), sessions.clone(), client.clone(), 1_000));
        }
        workers.join_all().await;
        world.calm();
        drop(client);
        timeout(Duration::from_secs(60), sessions.close())
            .await
            .expect("no refresh hangs")
            .unwrap();
        world.check();
        world.book().count.check(50);
    });
}
