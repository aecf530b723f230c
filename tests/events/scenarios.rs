//! What happens, and which events come of it.

use std::{pin::Pin, sync::atomic::Ordering};

use http::StatusCode;
use tokio::{task::JoinSet, time::sleep};
use tower::ServiceExt;
use tower_bearer::{events::EventKind, testing::Fault};

use crate::support::get;
use crate::world::{Recorder, SECOND, World};

type Done<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// What happens, after a first token has come if `has_token`, and the events.
struct Scenario {
    what: &'static str,
    has_token: bool,
    happens: for<'a> fn(&'a World) -> Done<'a>,
    events: &'static [&'static str],
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        what: "the first request",
        has_token: false,
        happens: |world| {
            Box::pin(async {
                assert_eq!(world.get().await.unwrap(), 200);
            })
        },
        events: &["refreshed no_token"],
    },
    Scenario {
        what: "many requests at once",
        has_token: false,
        happens: |world| {
            Box::pin(async {
                let mut running = JoinSet::new();
                for _ in 0..20 {
                    let request = get("https://api.example.com/orders");
                    running.spawn(world.client.clone().oneshot(request));
                }
                while let Some(response) = running.join_next().await {
                    assert_eq!(response.unwrap().unwrap().status(), 200);
                }
            })
        },
        events: &["refreshed no_token"],
    },
    Scenario {
        what: "a request with a fresh token",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                assert_eq!(world.get().await.unwrap(), 200);
            })
        },
        events: &[],
    },
    Scenario {
        what: "a request with a due token",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                sleep(580 * SECOND).await;
                assert_eq!(world.get().await.unwrap(), 200);
                sleep(SECOND).await;
            })
        },
        events: &["refreshed due"],
    },
    Scenario {
        what: "a request with an expired token",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                sleep(601 * SECOND).await;
                assert_eq!(world.get().await.unwrap(), 200);
            })
        },
        events: &["refreshed expired"],
    },
    Scenario {
        what: "a refresh that the program asks for",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                sleep(60 * SECOND).await;
                world.cache.refresh().await.unwrap();
            })
        },
        events: &["refreshed requested"],
    },
    Scenario {
        what: "a rejected token, and a replay",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                world.server.revoke_access_tokens();
                assert_eq!(world.get().await.unwrap(), 200);
            })
        },
        events: &["rejected", "refreshed rejected", "replayed accepted"],
    },
    Scenario {
        what: "an API that rejects the next token too",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                world.api.reject_next(2);
                assert_eq!(world.get().await.unwrap(), 401);
            })
        },
        events: &[
            "rejected",
            "refreshed rejected",
            "replayed rejected",
            "rejected",
        ],
    },
    Scenario {
        what: "a connection that breaks during the replay",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                let is_down = world.api_is_down.clone();
                world.server.revoke_access_tokens();
                world.server.fault(Fault::Delay(SECOND));
                let request = world.get();
                let breaks = async {
                    sleep(SECOND / 2).await;
                    is_down.store(true, Ordering::SeqCst);
                };
                let (response, ()) = tokio::join!(request, breaks);
                response.unwrap_err();
            })
        },
        events: &["rejected", "refreshed rejected", "replayed failed"],
    },
    Scenario {
        what: "a rejected token, and no other",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                world.server.revoke_access_tokens();
                world.server.fault(Fault::Status(StatusCode::BAD_GATEWAY));
                assert_eq!(world.get().await.unwrap(), 401);
            })
        },
        events: &[
            "rejected",
            "failed rejected server",
            "replayed not_sent server",
        ],
    },
    Scenario {
        what: "a server that fails, and then answers",
        has_token: false,
        happens: |world| {
            Box::pin(async {
                let retry_after = 30 * SECOND;
                world.server.fault(Fault::TooManyRequests { retry_after });
                world.get().await.unwrap_err();
                world.get().await.unwrap_err();
                sleep(31 * SECOND).await;
                assert_eq!(world.get().await.unwrap(), 200);
            })
        },
        events: &["failed no_token rate_limited", "refreshed no_token"],
    },
    Scenario {
        what: "a dead grant, and a new login",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                world.server.revoke_sessions();
                sleep(601 * SECOND).await;
                for _ in 0..5 {
                    world.get().await.unwrap_err();
                }
                world.cache.login(world.login()).await.unwrap();
                assert_eq!(world.get().await.unwrap(), 200);
            })
        },
        events: &[
            "reauth_required expired reauth_required",
            "logged_in",
            "refreshed no_token",
        ],
    },
    Scenario {
        what: "a revocation",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                world.cache.revoke().await.unwrap();
                world.get().await.unwrap_err();
            })
        },
        events: &["revoked"],
    },
    Scenario {
        what: "a token of another process",
        has_token: true,
        happens: |world| {
            Box::pin(async {
                sleep(60 * SECOND).await;
                let other = world.other_process();
                other.refresh().await.unwrap();
                sleep(60 * SECOND).await;
                other.refresh().await.unwrap();
                world.cache.refresh().await.unwrap();
            })
        },
        events: &["adopted requested"],
    },
    Scenario {
        what: "a store that cannot save for a while",
        has_token: false,
        happens: |world| {
            Box::pin(async {
                world.store_fails(true);
                assert_eq!(world.get().await.unwrap(), 200);
                sleep(60 * SECOND).await;
                world.store_fails(false);
                sleep(60 * SECOND).await;
            })
        },
        events: &["refreshed no_token", "not_saved store", "saved_late"],
    },
];

#[tokio::test(start_paused = true)]
async fn each_event_comes_exactly_once() {
    for scenario in SCENARIOS {
        let world = World::new(Recorder::default());
        if scenario.has_token {
            assert_eq!(world.get().await.unwrap(), 200);
            assert_eq!(world.observer.take(), ["refreshed no_token"]);
        }
        (scenario.happens)(&world).await;
        assert_eq!(world.observer.take(), scenario.events, "{}", scenario.what);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_and_waits_come_only_if_they_are_wanted() {
    let world = World::new(Recorder::of_requests());
    assert_eq!(world.get().await.unwrap(), 200);
    assert_eq!(
        world.observer.take(),
        ["refreshed no_token", "waited", "request_sent"]
    );
    assert_eq!(world.get().await.unwrap(), 200);
    assert_eq!(world.observer.take(), ["request_sent"]);

    world.server.revoke_access_tokens();
    assert_eq!(world.get().await.unwrap(), 200);
    assert_eq!(
        world.observer.take(),
        [
            "request_sent",
            "rejected",
            "refreshed rejected",
            "waited",
            "request_sent",
            "replayed accepted"
        ]
    );

    sleep(601 * SECOND).await;
    world.server.fault(Fault::Status(StatusCode::BAD_GATEWAY));
    world.get().await.unwrap_err();
    assert_eq!(
        world.observer.take(),
        ["failed expired server", "waited server"]
    );
    assert_eq!(world.observer.count(EventKind::RequestSent), 4);
}
