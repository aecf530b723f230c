//! Random schedules: what the observer counts agrees with what the server has seen.

use std::pin::pin;

use http::StatusCode;
use tokio::time::sleep;
use tower_bearer::{events::EventKind, testing::Fault};

use crate::world::{Recorder, SECOND, World};

/// Random traffic, faults and rejections. Returns how many refreshes ended, and in how many ways.
async fn run(seed: u64) -> [usize; 3] {
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::new(Recorder::of_requests());
    let mut rejected = 0;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..60 {
        match rng.u8(0..10) {
            0 => world.server.fault(Fault::Status(StatusCode::BAD_GATEWAY)),
            1 => world.server.fault(Fault::TooManyRequests {
                retry_after: u32::from(rng.u8(1..100)) * SECOND,
            }),
            2 => world.server.fault(Fault::error("invalid_client")),
            3 => world.server.fault(Fault::Delay(3 * SECOND)),
            4 => {
                if let Some(token) = world.cache.peek() {
                    let before = world.cache.status().rejected;
                    world.cache.reject(&token);
                    rejected += world.cache.status().rejected - before;
                }
            }
            5 => world.cache.reset(),
            6 => sleep(u32::from(rng.u8(..)) * SECOND).await,
            _ => {
                let cache = world.cache.clone();
                tasks.spawn(async move { drop(cache.token().await) });
            }
        }
        if rng.bool() {
            sleep(SECOND / 10).await;
        }
    }
    while tasks.join_next().await.is_some() {}
    pin!(world.cache.close()).await.unwrap();

    let observer = &world.observer;
    let refreshed = observer.count(EventKind::Refreshed);
    let failed = observer.count(EventKind::Failed);
    let superseded = observer.count(EventKind::Superseded);
    let requests = world.server.token_requests();
    assert_eq!(refreshed + failed + superseded, requests, "seed {seed}");
    assert_eq!(refreshed, world.server.refreshes(), "seed {seed}");
    let status = world.cache.status();
    assert_eq!(refreshed as u64, status.issued, "seed {seed}");
    assert_eq!(failed as u64, status.failed, "seed {seed}");
    assert_eq!(
        observer.count(EventKind::Rejected) as u64,
        status.rejected,
        "seed {seed}"
    );
    [refreshed, failed, usize::try_from(rejected).unwrap()]
}

#[tokio::test(start_paused = true)]
async fn the_counts_agree_with_the_server() {
    let mut total = [0; 3];
    for seed in 0..200 {
        let counts = run(seed).await;
        for (total, count) in total.iter_mut().zip(counts) {
            *total += count;
        }
    }
    assert!(total.iter().all(|count| *count > 200), "{total:?}");
}
