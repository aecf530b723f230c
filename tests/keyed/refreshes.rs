//! When sessions are refreshed without requests.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower_bearer::{Schedule, Sessions, SessionsBuilder, Token, TokenCache, source_fn};

/// The seconds at which tokens were requested.
type Requested = Arc<Mutex<Vec<u64>>>;

/// Tokens of `lifetime` seconds, refreshed in the background.
fn sessions(lifetime: u64) -> (SessionsBuilder<u64>, Requested) {
    let requested = Requested::default();
    let begin = Instant::now();
    let builder = Sessions::builder({
        let requested = Arc::clone(&requested);
        move |key| {
            let requested = Arc::clone(&requested);
            let source = source_fn(move |_| {
                let mut requested = requested.lock().unwrap();
                requested.push(begin.elapsed().as_secs());
                let token = Token::new(format!("{key}-{}", requested.len()));
                async move { Ok(token?.expires_in(Duration::from_secs(lifetime))) }
            });
            let schedule = Schedule::default().background_refresh(true);
            async move { Ok(TokenCache::builder(source).schedule(schedule).build()) }
        }
    });
    (builder, requested)
}

#[tokio::test(start_paused = true)]
async fn a_session_is_refreshed_in_the_background_until_it_is_dropped() {
    let (builder, requested) = sessions(100);
    let count = || requested.lock().unwrap().len();
    let sessions = builder.idle_timeout(Duration::from_secs(1_000)).build();
    sessions.get(&1).await.unwrap().token().await.unwrap();
    sleep(Duration::from_secs(1_000)).await;
    assert!(sessions.peek(&1).is_some());
    // Each after four to five fifths of the lifetime.
    assert!((9..=13).contains(&count()), "{}", count());

    // No request uses it. Soon it has been idle for long enough.
    sleep(Duration::from_secs(251)).await;
    assert!(sessions.is_empty());
    let last = count();
    sleep(Duration::from_secs(10_000)).await;
    assert_eq!(count(), last);

    // The next one is refreshed again, and removed.
    sessions.get(&1).await.unwrap().token().await.unwrap();
    sleep(Duration::from_secs(300)).await;
    assert!(count() > last + 2);
    sessions.remove(&1).await.unwrap();
    let last = count();
    sleep(Duration::from_secs(10_000)).await;
    assert_eq!(count(), last);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_began_in_the_same_second_are_refreshed_in_different_ones() {
    const SESSIONS: usize = 10_000;
    let (builder, requested) = sessions(3_600);
    let sessions = builder
        .capacity(2 * SESSIONS)
        .idle_timeout(Duration::from_secs(86_400))
        .build();
    for key in 0..SESSIONS as u64 {
        sessions.get(&key).await.unwrap().token().await.unwrap();
    }
    assert!(requested.lock().unwrap().iter().all(|second| *second == 0));
    sleep(Duration::from_secs(3_599)).await;
    let mut seconds = requested.lock().unwrap().split_off(SESSIONS);
    assert_eq!(seconds.len(), SESSIONS, "each was refreshed once");
    seconds.sort_unstable();
    let busiest = seconds
        .chunk_by(|a, b| a == b)
        .map(<[_]>::len)
        .max()
        .unwrap();
    // They are spread over 240 seconds, 42 in each. More than 100 in one of them is as good as impossible.
    assert!(busiest <= 100, "{busiest} in the busiest second");
    let seconds = *seconds.last().unwrap() - seconds[0];
    assert!((230..=241).contains(&seconds), "within {seconds} seconds");
}
