//! More permission when the API asks for it: which challenges are followed, what is requested, and what it costs if the API
//! asks in vain.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use support::{
    API, get, order, source, status,
    step_up::{
        Client, allowed, api, asks, cache, client, machine, oauth, ok, reason, requested, send,
        server,
    },
};
use tokio::{
    task::JoinSet,
    time::{advance, sleep},
};
use tower::{ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_bearer::{
    AddTokenLayer, BearerAuthLayer, Challenge, ClientCredentialsSource, JwtBearerSource,
    MemoryStore, ReplayBody, SecurityToken, StepUp, StoredSession, Token, TokenCache, TokenContext,
    TokenError, TokenErrorKind, TokenExchange, TokenExchangeSource, TokenSource, TokenStore,
    Verdict,
    events::{Event, EventKind, Observer},
    source_fn,
    testing::Fault,
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_request_that_needs_more_is_sent_again_with_a_token_that_has_more() {
    let server = server();
    let api = api(&server);
    let cache = cache(machine(&server));
    let client = client(&cache, &api);

    assert!(ok(&client, "/invoices").await);
    let response = client.clone().oneshot(order("order-1", "a bicycle")).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    assert!(reason(&response).is_none());
    assert_eq!(requested(&server), ["read", "read write"]);
    assert_eq!(api.attempts()["order-1"], 2);

    // The wider token is that of all requests, and what is asked for next is added to it.
    assert!(ok(&client, "/orders").await && ok(&client, "/invoices").await);
    assert!(ok(&client, "/orders/7").await);
    assert_eq!(
        requested(&server),
        ["read", "read write", "read delete write"]
    );
}

#[tokio::test(start_paused = true)]
async fn every_form_of_the_challenge_is_followed() {
    for (status, challenge) in [
        (
            403,
            r#"Bearer realm="a", error="insufficient_scope", scope="read write""#,
        ),
        (401, r#"Bearer error="insufficient_scope", scope="write""#),
        (403, "bearer error=insufficient_scope, scope=write"),
        (
            403,
            r#"Basic realm="a", Bearer error="insufficient_scope", scope="write""#,
        ),
    ] {
        let step_up = StepUp::new().scopes(["read write"]);
        let cache = TokenCache::builder(narrow_then_wide())
            .step_up(step_up)
            .build();
        let api = service_fn(
            move |request: Request<ReplayBody<Full<Bytes>>>| async move {
                let is_wide = request.headers()["authorization"] == "Bearer wide";
                let mut response = Response::builder().status(if is_wide { 200 } else { status });
                if !is_wide {
                    response = response.header("www-authenticate", challenge);
                }
                response.body(Full::<Bytes>::default())
            },
        );
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(api);
        assert_eq!(support::status(&client, get(API)).await, 200, "{challenge}");
        // Later refreshes ask for the same.
        for _ in 0..3 {
            advance(HOUR).await;
            assert_eq!(cache.refresh().await.unwrap().expose_secret(), "wide");
        }
    }
}

/// Returns a wider token if it is asked for one.
fn narrow_then_wide() -> impl TokenSource {
    source_fn(|cx: TokenContext| async move {
        let scopes: Vec<&str> = cx.scopes().collect();
        if cx.is_step_up() {
            assert_eq!(cx.previous_token().unwrap().expose_secret(), "narrow");
            assert!(cx.rejected_token().is_none());
            assert_eq!(cx.challenge().unwrap().error(), Some("insufficient_scope"));
        }
        Token::new(if scopes.contains(&"write") {
            "wide"
        } else {
            "narrow"
        })
    })
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_the_response_is_the_callers() {
    let server = server();
    let api = api(&server);
    let cache = TokenCache::new(machine(&server));
    let client = client(&cache, &api);
    for _ in 0..3 {
        let response = send(&client, "/orders").await;
        assert_eq!(response.status(), 403);
        assert!(reason(&response).is_none());
    }
    assert_eq!(api.received(), 3);
    assert_eq!(requested(&server), ["read"]);
}

#[tokio::test(start_paused = true)]
async fn responses_that_ask_for_nothing_are_the_callers() {
    let challenges = [
        (403, None),
        (403, Some("Bearer")),
        (403, Some(r#"Bearer error="invalid_request""#)),
        (403, Some(r#"Basic realm="a""#)),
        // Claims are not allowed here.
        (
            403,
            Some(r#"Bearer error="insufficient_claims", claims="e30=""#),
        ),
        (
            404,
            Some(r#"Bearer error="insufficient_scope", scope="write""#),
        ),
        (
            200,
            Some(r#"Bearer error="insufficient_scope", scope="write""#),
        ),
    ];
    for (status, challenge) in challenges {
        let server = server();
        let mut api = server.api();
        if let Some(challenge) = challenge {
            let status = StatusCode::from_u16(status).unwrap();
            api = api.challenge("/", status, challenge);
        } else {
            api = api.challenge("/", StatusCode::FORBIDDEN, "");
        }
        let client = client(&cache(machine(&server)), &api);
        let response = send(&client, "/orders").await;
        assert_eq!(response.status(), status);
        assert!(reason(&response).is_none(), "{challenge:?}");
        assert_eq!((api.received(), server.token_requests()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_on_the_list_is_refused_with_the_apis_own_response() {
    let server = server();
    let many: Vec<String> = (0..10_000).map(|number| format!("s{number}")).collect();
    let api = api(&server)
        .require_scope("/both", "write admin")
        .require_scope("/many", many.join(" "))
        .challenge(
            "/unnamed",
            StatusCode::FORBIDDEN,
            "Bearer error=insufficient_scope",
        );
    let client = client(&cache(machine(&server)), &api);
    for (path, why) in [
        ("/admin", "not on the list"),
        ("/both", "not on the list"),
        ("/many", "too long"),
        ("/unnamed", "names no scope"),
    ] {
        let response = send(&client, path).await;
        assert_eq!(response.status(), 403);
        let reason = reason(&response).unwrap();
        assert_eq!(reason.kind(), TokenErrorKind::InsufficientScope);
        assert!(reason.to_string().contains(why), "{reason}");
        assert!(!format!("{reason:?}").contains("admin"), "{reason:?}");
        // The caller finds it where the API has put it.
        let challenge = Challenge::from_headers(response.headers()).unwrap();
        assert_eq!(
            challenge.scopes().any(|it| it == "admin"),
            why.contains("list")
        );
    }
    assert_eq!(requested(&server), ["read"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_source_requests_anyway_need_not_be_on_the_list() {
    let server = server();
    let api = server.api().require_scope("/orders", "read write");
    let client = client(&cache(machine(&server)), &api);
    assert!(ok(&client, "/orders").await);
    assert_eq!(requested(&server), ["read", "read write"]);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_asks_for_what_the_token_has_causes_no_request() {
    let server = server();
    let says_so = r#"Bearer error="insufficient_scope", scope="read""#;
    let api = server.api().challenge("/", StatusCode::FORBIDDEN, says_so);
    let client = client(&cache(machine(&server)), &api);
    let response = send(&client, "/orders").await;
    assert!(reason(&response).unwrap().to_string().contains("already"));
    assert_eq!((api.received(), server.token_requests()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_that_need_more_cause_one_step_up() {
    for _ in 0..200 {
        let server = server();
        let api = api(&server);
        let cache = cache(machine(&server));
        let client = client(&cache, &api);
        cache.token().await.unwrap();
        server.fault(Fault::Delay(Duration::from_millis(50)));
        let mut all = JoinSet::new();
        for number in 0..100 {
            let client = client.clone();
            all.spawn(async move {
                sleep(Duration::from_millis(number)).await;
                ok(&client, "/orders").await
            });
        }
        assert!(all.join_all().await.into_iter().all(|is_ok| is_ok));
        assert_eq!(requested(&server), ["read", "read write"]);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_need_different_things_get_all_of_them() {
    for _ in 0..200 {
        let server = server();
        let api = server
            .api()
            .require_scope("/a", "write")
            .require_scope("/b", "delete");
        let cache = cache(machine(&server));
        let client = client(&cache, &api);
        cache.token().await.unwrap();
        let mut all = JoinSet::new();
        for number in 0..50 {
            let client = client.clone();
            let path = if number % 2 == 0 { "/a" } else { "/b" };
            all.spawn(async move { ok(&client, path).await });
        }
        assert!(all.join_all().await.into_iter().all(|is_ok| is_ok));
        let requested = requested(&server);
        assert_eq!(requested[2..], ["read delete write"], "{requested:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_stays_in_use_while_a_step_up_runs_and_after_it_has_failed() {
    let server = server().grant_scopes(["read"]);
    let api = api(&server);
    let cache = cache(machine(&server));
    let client = client(&cache, &api);
    assert!(ok(&client, "/invoices").await);

    server.fault(Fault::Delay(Duration::from_secs(5)));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { send(&client, "/orders").await }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(cache.status().refreshing && !waiting.is_finished());
    assert!(ok(&client, "/invoices").await);
    let response = waiting.await.unwrap();
    assert_eq!(response.status(), 403);
    let reason = reason(&response).unwrap();
    assert_eq!(reason.kind(), TokenErrorKind::InsufficientScope);
    assert_eq!(reason.oauth_code(), Some("invalid_scope"));
    assert!(reason.to_string().contains("`write`"), "{reason}");
    assert!(ok(&client, "/invoices").await);
    assert_eq!((cache.status().issued, cache.status().failed), (1, 0));
    assert_eq!(requested(&server), ["read", "read write"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_up_does_not_fail_requests_that_need_any_token() {
    for _ in 0..200 {
        let source = source_fn(|cx: TokenContext| async move {
            if cx.is_step_up() {
                sleep(Duration::from_secs(20)).await;
                return Err(TokenError::new(TokenErrorKind::Server, "down"));
            }
            Ok(Token::new("narrow")?.expires_in(Duration::from_secs(12)))
        });
        let cache = cache(source);
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(service_fn(asks));
        let wanting_more = tokio::spawn(client.oneshot(get(API)));
        // The token expires while the step-up runs.
        sleep(Duration::from_secs(13)).await;
        assert!(cache.peek().is_none() && cache.status().refreshing);
        let others: Vec<_> = (0..10)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.token().await.is_ok() })
            })
            .collect();
        for other in others {
            assert!(other.await.unwrap());
        }
        let response = wanting_more.await.unwrap().unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(reason(&response).unwrap().kind(), TokenErrorKind::Server);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_a_layer_below_knows_to_be_of_others_is_the_callers() {
    let server = server();
    let cache = cache(machine(&server));
    let elsewhere = |request| async {
        let mut response = asks(request).await?;
        // As after a redirect to another origin, which has not received the token.
        response.extensions_mut().insert(Verdict::Unrelated);
        Ok::<_, http::Error>(response)
    };
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache))
        .service(service_fn(elsewhere));
    let response = client.oneshot(get(API)).await.unwrap();
    assert!(reason(&response).is_none());
    assert_eq!(requested(&server), ["read"]);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_always_asks_costs_a_bounded_number_of_token_requests() {
    // One that asks for the same, one that names other scopes each time, and one that invents claims.
    let scopes = r#"Bearer error="insufficient_scope", scope="{}""#;
    let claims = r#"Bearer error="insufficient_claims", claims="{}""#;
    for (is_granted, is_same, form, at_most) in [
        (true, true, scopes, 1),
        (false, true, scopes, 4),
        (true, false, scopes, 70),
        (false, false, scopes, 70),
        (true, true, claims, 5),
        (true, false, claims, 70),
        (false, false, claims, 70),
    ] {
        let server = server();
        let server = if is_granted {
            server
        } else {
            server.grant_scopes(["read"])
        };
        let step_up = StepUp::new()
            .scopes((0..1000).map(|number| format!("s{number}")))
            .claims(true);
        let cache = TokenCache::builder(machine(&server))
            .step_up(step_up)
            .build();
        let asked = Arc::new(Mutex::new(0));
        let api = service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            let number = if is_same { 0 } else { *asked % 1000 };
            let wanted = if form == claims {
                // The number, in base64, is a part of the JSON.
                use base64::{Engine, prelude::BASE64_STANDARD};
                BASE64_STANDARD.encode(format!("{{\"n\":{number}}}"))
            } else {
                format!("s{number}")
            };
            let response = Response::builder()
                .status(403)
                .header("www-authenticate", form.replace("{}", &wanted))
                .body(Full::<Bytes>::default());
            async move { response }
        });
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(api);
        cache.token().await.unwrap();
        let before = server.token_requests();
        for _ in 0..3600 {
            assert_eq!(status(&client, get(API)).await, 403);
            advance(Duration::from_secs(1)).await;
        }
        // Refreshes of a token that is due are not counted.
        let step_ups = server.token_requests() - before - 5;
        assert!(
            step_ups <= at_most,
            "{step_ups} of {at_most}: {form} {is_granted} {is_same}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn later_refreshes_ask_for_the_same() {
    let server = server();
    let cache = cache(machine(&server));
    let client = client(&cache, &api(&server));
    assert!(ok(&client, "/orders").await);
    for _ in 0..3 {
        advance(HOUR).await;
        assert!(ok(&client, "/orders").await && ok(&client, "/invoices").await);
    }
    assert_eq!(requested(&server)[1..], ["read write"; 4]);

    // Also after a rejection, and after a reset.
    server.revoke_access_tokens();
    assert!(ok(&client, "/orders").await);
    cache.reset();
    cache.refresh().await.unwrap();
    assert_eq!(requested(&server)[5..], ["read write"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_again_goes_on_with_the_stored_scope() {
    let server = server();
    let store = MemoryStore::new();
    let process = |step_up: StepUp| {
        let source = machine(&server).store(store.clone());
        TokenCache::builder(source).step_up(step_up).build()
    };
    let api = api(&server);
    assert!(ok(&client(&process(allowed()), &api), "/orders").await);
    assert_eq!(requested(&server), ["read", "read write"]);

    // It adopts the token, and refreshes with the scope that came with it.
    let again = process(allowed());
    assert!(ok(&client(&again, &api), "/orders").await);
    advance(HOUR).await;
    assert!(ok(&client(&again, &api), "/orders").await);
    assert_eq!(requested(&server)[2..], ["read write"]);

    // The list of this process decides, not the store.
    advance(HOUR).await;
    let narrower = process(StepUp::new().scopes(["delete"]));
    let response = send(&client(&narrower, &api), "/orders").await;
    assert_eq!(response.status(), 403);
    assert_eq!(requested(&server)[3..], ["read"]);
}

#[tokio::test(start_paused = true)]
async fn a_process_without_the_setting_shares_the_store() {
    let server = server();
    let store = MemoryStore::new();
    let source = || machine(&server).store(store.clone());
    let (with, without) = (cache(source()), TokenCache::new(source()));
    let api = api(&server);
    let (with_client, without_client) = (client(&with, &api), client(&without, &api));

    // It uses the wider token as any other, and requests its own scope when it refreshes.
    assert!(ok(&with_client, "/orders").await);
    assert!(ok(&without_client, "/orders").await);
    assert_eq!(requested(&server).len(), 2);
    advance(HOUR).await;
    assert!(ok(&without_client, "/invoices").await);
    assert_eq!(requested(&server)[2..], ["read"]);

    // The other one does not adopt that token.
    assert!(ok(&with_client, "/orders").await);
    assert_eq!(requested(&server)[3..], ["read write"]);
    for _ in 0..10 {
        assert!(ok(&without_client, "/invoices").await && ok(&with_client, "/orders").await);
    }
    assert_eq!(requested(&server).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_a_store_step_up_once() {
    let server = server();
    let store = MemoryStore::new();
    let api = api(&server);
    let clients: Vec<_> = (0..5)
        .map(|_| client(&cache(machine(&server).store(store.clone())), &api))
        .collect();
    for client in &clients {
        assert!(ok(client, "/invoices").await);
    }
    let mut all = JoinSet::new();
    for client in clients {
        all.spawn(async move { ok(&client, "/orders").await });
    }
    assert!(all.join_all().await.into_iter().all(|is_ok| is_ok));
    assert_eq!(requested(&server), ["read", "read write"]);
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_no_longer_granted_does_not_end_the_session() {
    let server = server();
    let store = MemoryStore::new();
    let cache = cache(machine(&server).store(store.clone()));
    let client = client(&cache, &api(&server));
    assert!(ok(&client, "/orders").await);
    let server = server.grant_scopes(["read"]);
    advance(HOUR).await;
    assert!(ok(&client, "/invoices").await);
    assert_eq!(requested(&server)[2..], ["read write", "read"]);
    // It is not asked for at each refresh.
    advance(HOUR).await;
    assert!(ok(&client, "/invoices").await);
    assert_eq!(requested(&server)[4..], ["read"]);
    let stored = serde_json::to_value(store.load().await.unwrap()).unwrap();
    assert!(stored["access"]["added_scope"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_late_challenge_to_an_older_token_sends_the_request_again_and_nothing_more() {
    let server = server();
    let api = api(&server);
    let cache = cache(machine(&server));
    let client = client(&cache, &api);
    cache.token().await.unwrap();
    api.hold();
    let late = tokio::spawn({
        let client = client.clone();
        async move { ok(&client, "/orders").await }
    });
    api.wait_for_held(1).await;
    // The held request has the narrow token. Another one gets a wider token meanwhile.
    let wide = cache_step_up(&cache).await;
    api.release();
    assert!(late.await.unwrap());
    assert_eq!(requested(&server), ["read", "read write"]);
    assert_eq!(cache.peek().unwrap().expose_secret(), wide);
}

/// Lets the cache step up by a request to another API. Returns its token.
async fn cache_step_up(cache: &TokenCache) -> String {
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache.clone()))
        .service(service_fn(asks));
    assert_eq!(support::status(&client, get(API)).await, 403);
    cache.peek().unwrap().expose_secret().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_at_most_once() {
    let server = server();
    let ask = r#"Bearer error="insufficient_scope", scope="write""#;
    let api = server.api().challenge("/", StatusCode::FORBIDDEN, ask);
    let client = client(&cache(machine(&server)), &api);
    let response = client.clone().oneshot(order("order-1", "")).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(
        reason(&response).unwrap().kind(),
        TokenErrorKind::InsufficientScope
    );
    assert_eq!(api.attempts()["order-1"], 2);
    // From now on, it is known that the token has the scope.
    for _ in 0..10 {
        assert_eq!(send(&client, "/orders").await.status(), 403);
    }
    assert_eq!(api.received(), 12);
    assert_eq!(requested(&server), ["read", "read write"]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_gets_no_more_and_the_error_says_so() {
    let server = server();
    let api = api(&server);
    let cache = cache(source(&server).reauth_hint("log in at https://portal.example"));
    let client = client(&cache, &api);
    assert!(ok(&client, "/invoices").await);
    for _ in 0..10 {
        let response = send(&client, "/orders").await;
        assert_eq!(response.status(), 403);
        let reason = reason(&response).unwrap();
        assert_eq!(reason.kind(), TokenErrorKind::InsufficientScope);
        for part in ["`write`", "a person must log in", "https://portal.example"] {
            assert!(reason.to_string().contains(part), "{reason}");
        }
    }
    assert!(ok(&client, "/invoices").await);
    assert_eq!(server.token_requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_with_more_is_used_at_once() {
    let server = server();
    let cache = cache(source(&server));
    let client = client(&cache, &api(&server));
    assert_eq!(send(&client, "/orders").await.status(), 403);

    let refresh_token = server.issue_refresh_token_with_scope("read write");
    let identity = tower_bearer::Identity::new("refresh", &refresh_token);
    let session = StoredSession::new(identity).with_refresh_token(refresh_token);
    cache.login(session).await.unwrap();
    assert!(ok(&client, "/orders").await);
}

#[tokio::test(start_paused = true)]
async fn another_login_is_asked_for_in_words() {
    for (challenge, words) in [
        (r#"acr_values="urn:x""#, "a login of another kind"),
        ("max_age=60", "at most 60 seconds old"),
        (
            r#"acr_values="urn:x", max_age=60"#,
            "a recent login of another kind",
        ),
        ("realm=a", "another login"),
    ] {
        let challenge = format!("Bearer error=\"insufficient_user_authentication\", {challenge}");
        let server = server();
        let api = server
            .api()
            .challenge("/", StatusCode::UNAUTHORIZED, challenge);
        for cache in [cache(source(&server)), cache(machine(&server))] {
            let client = client(&cache, &api);
            for _ in 0..3 {
                let response = send(&client, "/").await;
                assert_eq!(response.status(), 401);
                let reason = reason(&response).unwrap();
                assert!(reason.to_string().contains(words), "{reason}");
                assert!(!reason.to_string().contains("urn:x"), "{reason}");
            }
        }
        assert_eq!(server.token_requests(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn claims_are_passed_on_if_that_is_allowed() {
    let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
    let server = server();
    let api = server.api().require_claims("/", claims);
    let with = |step_up| {
        TokenCache::builder(machine(&server))
            .step_up(step_up)
            .build()
    };

    // Otherwise it is a rejection like others: a new token does not help.
    let response = send(&client(&with(allowed()), &api), "/").await;
    assert_eq!(reason(&response).unwrap().kind(), TokenErrorKind::Rejected);
    assert!(
        server
            .requests()
            .iter()
            .all(|it| it.param("claims").is_none())
    );

    let before = server.token_requests();
    let client = client(&with(StepUp::new().claims(true)), &api);
    for _ in 0..10 {
        assert!(ok(&client, "/").await);
    }
    let requests = server.requests();
    let sent: Vec<_> = requests[before..]
        .iter()
        .map(|it| it.param("claims"))
        .collect();
    assert_eq!(sent, [None, Some(claims)]);
}

#[tokio::test(start_paused = true)]
async fn claims_of_a_challenge_are_merged_with_those_of_the_client() {
    let server = server();
    let all = r#"{"access_token":{"nbf":{"essential":true},"xms_cc":{"values":["cp1"]}}}"#;
    let asked = "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZX19fQ";
    let challenge = format!("Bearer error=insufficient_claims, claims={asked}");
    let api = server
        .api()
        .challenge("/", StatusCode::UNAUTHORIZED, challenge);
    let own = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;
    let source = ClientCredentialsSource::new(oauth(&server).parameter("claims", own));
    let cache = TokenCache::builder(source)
        .step_up(StepUp::new().claims(true))
        .build();
    assert_eq!(send(&client(&cache, &api), "/").await.status(), 401);
    let requests = server.requests();
    let sent: Vec<_> = requests.iter().map(|it| it.param("claims")).collect();
    assert_eq!(sent, [Some(own), Some(all)]);
}

#[tokio::test(start_paused = true)]
async fn other_grants_that_request_each_token_step_up_too() {
    let server = server();
    server.accept_assertion("an-assertion");
    server.accept_security_token("a-subject", TokenExchange::JWT);
    let fixed =
        |text: &'static str| SecurityToken::from_fn(move |_| async move { Ok(text.to_owned()) });
    let sources = [
        JwtBearerSource::new(oauth(&server), fixed("an-assertion"))
            .scope("read")
            .boxed(),
        TokenExchangeSource::new(
            oauth(&server),
            "the user",
            fixed("a-subject"),
            TokenExchange::JWT,
        )
        .unwrap()
        .scope("read")
        .boxed(),
        // The scope of the client is that of its source.
        ClientCredentialsSource::new(oauth(&server).parameter("scope", "read")).boxed(),
    ];
    let api = server.api().require_scope("/orders", "read write");
    for source in sources {
        let before = server.token_requests();
        let client = client(&cache(source), &api);
        assert!(ok(&client, "/orders").await);
        assert_eq!(requested(&server)[before..], ["read", "read write"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_was_granted_unasked_is_asked_for_with_the_other() {
    let server = server().grant_scopes(["read", "write"]);
    let cache = cache(ClientCredentialsSource::new(oauth(&server)));
    let client = client(&cache, &api(&server));
    server.fault(Fault::member("scope", "read"));
    assert!(ok(&client, "/orders").await);
    assert_eq!(requested(&server), ["-", "read write"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_less_is_neither_used_nor_stored() {
    let server = server().grant_scopes(["read", "write"]);
    let store = MemoryStore::new();
    let cache = cache(machine(&server).store(store.clone()));
    let client = client(&cache, &api(&server));
    let first = cache.token().await.unwrap();
    for scope in ["write", "read"] {
        server.fault(Fault::member("scope", scope));
        let response = send(&client, "/orders").await;
        assert_eq!(response.status(), 403);
        assert_eq!(
            reason(&response).unwrap().kind(),
            TokenErrorKind::InsufficientScope
        );
        assert_eq!(cache.peek().unwrap().expose_secret(), first.expose_secret());
        let stored = serde_json::to_value(store.load().await.unwrap()).unwrap();
        assert_eq!(stored["access"]["token"], first.expose_secret());
        cache.reset();
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_had_is_forgotten_by_a_reset_and_after_a_while() {
    let server = server().grant_scopes(["read"]);
    let cache = cache(machine(&server).scope("read"));
    let client = client(&cache, &api(&server));
    let step_ups = || {
        let requested = requested(&server);
        requested.iter().filter(|it| it.contains("write")).count()
    };
    for expected in [1, 1] {
        assert!(!ok(&client, "/orders").await);
        assert_eq!(step_ups(), expected);
    }
    cache.reset();
    assert!(!ok(&client, "/orders").await);
    assert_eq!(step_ups(), 2);
    advance(Duration::from_secs(899)).await;
    assert!(!ok(&client, "/orders").await);
    assert_eq!(step_ups(), 2);
    advance(Duration::from_secs(2)).await;
    let server = server.clone().grant_scopes(["read", "write"]);
    assert!(ok(&client, "/orders").await);
    assert_eq!(requested(&server).last().unwrap(), "read read write");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_tried_again_soon() {
    let server = server();
    let cache = cache(machine(&server));
    let client = client(&cache, &api(&server));
    cache.token().await.unwrap();
    server.fault(Fault::Status(StatusCode::BAD_GATEWAY));
    let response = send(&client, "/orders").await;
    assert_eq!(reason(&response).unwrap().kind(), TokenErrorKind::Server);
    assert!(!ok(&client, "/orders").await);
    assert_eq!(server.token_requests(), 2);
    // It is no failure of the session.
    assert!(cache.refresh().await.is_ok());
    advance(Duration::from_secs(31)).await;
    assert!(ok(&client, "/orders").await);
}

#[tokio::test(start_paused = true)]
async fn a_step_up_waits_for_the_refresh_that_runs() {
    for _ in 0..200 {
        let server = server();
        let cache = cache(machine(&server));
        let client = client(&cache, &api(&server));
        cache.token().await.unwrap();
        sleep(Duration::from_secs(2)).await;
        server.fault(Fault::Delay(Duration::from_secs(5)));
        let refresh = tokio::spawn({
            let cache = cache.clone();
            async move { cache.refresh().await.map(drop) }
        });
        sleep(Duration::from_millis(1)).await;
        assert!(ok(&client, "/orders").await);
        refresh.await.unwrap().unwrap();
        assert_eq!(requested(&server), ["read", "read", "read write"]);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_every_caller_does_not_cancel_a_step_up() {
    let server = server();
    let cache = cache(machine(&server));
    let client = client(&cache, &api(&server));
    cache.token().await.unwrap();
    server.fault(Fault::Delay(Duration::from_secs(1)));
    let caller = tokio::spawn(async move { ok(&client, "/orders").await });
    sleep(Duration::from_millis(500)).await;
    caller.abort();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(requested(&server), ["read", "read write"]);
    assert_eq!(cache.status().issued, 2);
}

#[tokio::test(start_paused = true)]
async fn a_login_and_a_revocation_end_the_step_up_that_runs() {
    for is_login in [true, false] {
        let calls = Arc::new(Mutex::new(0));
        let cache = cache(ByHand {
            calls: Arc::clone(&calls),
        });
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(service_fn(asks));
        let waiting = tokio::spawn(client.oneshot(get(API)));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*calls.lock().unwrap(), 2);
        let begun = tokio::time::Instant::now();
        if is_login {
            let identity = tower_bearer::Identity::new("login", "1");
            cache.login(StoredSession::new(identity)).await.unwrap();
        } else {
            cache.revoke().await.unwrap();
        }
        let response = waiting.await.unwrap().unwrap();
        assert_eq!(response.status(), 403);
        assert!(reason(&response).is_some());
        // Only the revocation leaves it to the step-up to tell those that wait.
        assert_eq!(begun.elapsed() < Duration::from_secs(1), is_login);
        let token = cache.peek();
        let token = token.as_ref().map(Token::expose_secret);
        assert_eq!(token, is_login.then_some("of-the-login"));
        sleep(HOUR).await;
        assert_eq!(*calls.lock().unwrap(), 2);
    }
}

/// A source whose step-ups take ten seconds, and whose revocations take two.
struct ByHand {
    calls: Arc<Mutex<usize>>,
}

impl TokenSource for ByHand {
    async fn token(&self, cx: TokenContext) -> Result<Token, TokenError> {
        *self.calls.lock().unwrap() += 1;
        if cx.is_step_up() {
            sleep(Duration::from_secs(10)).await;
        }
        Token::new(format!("token-{}", *self.calls.lock().unwrap()))
    }

    async fn login(&self, _: StoredSession, _: TokenContext) -> Result<Option<Token>, TokenError> {
        Token::new("of-the-login").map(Some)
    }

    async fn revoke(&self, _: TokenContext) -> Result<(), TokenError> {
        sleep(Duration::from_secs(2)).await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_not_kept_gets_the_response_and_the_next_request_the_token() {
    let server = server();
    let api = api(&server);
    let cache = cache(machine(&server));
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::from(cache.clone()).replay_limit(1))
        .service(api);
    let client: Client = BoxCloneSyncService::new(stack);
    let response = client
        .clone()
        .oneshot(order("1", "a bicycle"))
        .await
        .unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(
        reason(&response).unwrap().kind(),
        TokenErrorKind::NotReplayed
    );
    sleep(Duration::from_secs(1)).await;
    assert!(
        client
            .oneshot(order("2", "a bicycle"))
            .await
            .unwrap()
            .status()
            .is_success()
    );
}

#[tokio::test(start_paused = true)]
async fn without_replays_the_next_request_has_the_wider_token() {
    let server = server();
    let cache = cache(machine(&server));
    let stack = ServiceBuilder::new()
        .layer(AddTokenLayer::from(cache))
        .service(api(&server));
    let client: Client = BoxCloneSyncService::new(stack);
    assert_eq!(send(&client, "/orders").await.status(), 403);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(send(&client, "/orders").await.status(), 200);
    assert!(reason(&send(&client, "/admin").await).is_some());
    assert_eq!(requested(&server), ["read", "read write"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_sees_the_challenge_of_a_rejection() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let source = source_fn({
        let seen = Arc::clone(&seen);
        move |cx: TokenContext| {
            let mut seen = seen.lock().unwrap();
            let challenge = cx.challenge().map(|it| it.error().map(str::to_owned));
            seen.push((challenge, cx.rejected_token().is_some(), cx.is_step_up()));
            let token = Token::new(format!("token-{}", seen.len()));
            async move { token }
        }
    });
    let challenges = ["Bearer error=\"invalid_token\"", "Basic realm=a", "Bearer"];
    let requests = Arc::new(Mutex::new(0));
    let api = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let mut requests = requests.lock().unwrap();
        *requests += 1;
        let token = format!("Bearer token-{}", *requests / 2 + 1);
        let mut response = Response::builder().status(200);
        if request.headers()["authorization"] != token.as_str() {
            let challenge = challenges[*requests / 2 - 1];
            response = response.status(401).header("www-authenticate", challenge);
        }
        async move { response.body(Full::<Bytes>::default()) }
    });
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(api);
    for _ in 0..4 {
        assert_eq!(status(&client, get(API)).await, 200);
        advance(HOUR).await;
    }
    let invalid_token = Some(Some("invalid_token".to_owned()));
    let expected = [
        (None, false, false),
        (invalid_token, true, false),
        (None, true, false),
        (Some(None), true, false),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[derive(Default)]
struct Events(Mutex<Vec<String>>);

impl Observer for Events {
    fn on_event(&self, event: &Event<'_>) {
        let reason = event.reason.map(|it| it.to_string());
        let outcome = event.outcome.map(|it| it.to_string());
        let error = event.error.map(|it| it.kind().as_str().to_owned());
        let failed = event.kind == EventKind::Failed;
        let held = failed.then(|| {
            let held = event.next_due.unwrap().duration_since(event.at);
            format!("{:?}", held.unwrap())
        });
        let parts = [reason, outcome, error, held].into_iter().flatten();
        let parts = std::iter::once(event.kind.to_string()).chain(parts);
        let line = parts.collect::<Vec<_>>().join(" ");
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_up_is_an_event_like_each_refresh() {
    let server = server().grant_scopes(["read", "write"]);
    let api = api(&server);
    let events = Arc::new(Events::default());
    let cache = TokenCache::builder(machine(&server))
        .step_up(allowed())
        .observer(Arc::clone(&events))
        .build();
    let client = client(&cache, &api);
    for (path, is_ok, expected) in [
        ("/invoices", true, &["refreshed no_token"][..]),
        (
            "/orders",
            true,
            &["refreshed more_scope", "replayed accepted"],
        ),
        // The server does not grant it. That is no end of the session.
        (
            "/orders/7",
            false,
            &[
                "failed more_scope insufficient_scope 900s",
                "replayed not_sent insufficient_scope",
            ],
        ),
        // Refused without a token request: it could not be had, or is not on the list.
        (
            "/orders/7",
            false,
            &["replayed not_sent insufficient_scope"],
        ),
        ("/admin", false, &["replayed not_sent insufficient_scope"]),
        ("/invoices", true, &[]),
    ] {
        assert_eq!(ok(&client, path).await, is_ok, "{path}");
        assert_eq!(*std::mem::take(&mut *events.0.lock().unwrap()), *expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_up_that_a_login_or_a_revocation_overtakes_is_superseded() {
    for is_login in [true, false] {
        let events = Arc::new(Events::default());
        let source = ByHand {
            calls: Arc::default(),
        };
        let cache = TokenCache::builder(source)
            .step_up(allowed())
            .observer(Arc::clone(&events))
            .build();
        cache.token().await.unwrap();
        let client = ServiceBuilder::new()
            .layer(BearerAuthLayer::from(cache.clone()))
            .service(service_fn(asks));
        // The step-up begins while the session is being revoked, or before the login.
        let other = cache.clone();
        let revoking = tokio::spawn(async move {
            if !is_login {
                other.revoke().await.unwrap();
            }
        });
        sleep(Duration::from_secs(1)).await;
        let waiting = tokio::spawn(client.oneshot(get(API)));
        sleep(Duration::from_secs(3)).await;
        if is_login {
            let identity = tower_bearer::Identity::new("login", "1");
            cache.login(StoredSession::new(identity)).await.unwrap();
        }
        revoking.await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().status(), 403);
        sleep(HOUR).await;
        let events = events.0.lock().unwrap();
        let ends: Vec<_> = events
            .iter()
            .filter(|it| it.contains("more_scope"))
            .collect();
        assert_eq!(ends.len(), 1, "{events:?}");
        assert!(ends[0].starts_with("superseded more_scope"), "{events:?}");
    }
}
