//! The metrics of a cache, with a recorder that keeps what it is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Once},
};

use http::StatusCode;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tokio::time::sleep;
use tower_bearer::{Token, TokenCache, TokenError, TokenErrorKind, source_fn, testing::Fault};

use crate::world::{NAME, SECOND, World, locked};

/// The last value of each series; of a histogram all values.
static SERIES: Mutex<BTreeMap<String, Vec<f64>>> = Mutex::new(BTreeMap::new());
static DESCRIBED: Mutex<BTreeMap<String, Option<Unit>>> = Mutex::new(BTreeMap::new());

/// One series, as Prometheus writes its name and labels.
struct Series(String);

impl Series {
    fn of(key: &Key) -> Arc<Self> {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={:?}", label.key(), label.value()))
            .collect();
        Arc::new(Self(format!("{}{{{}}}", key.name(), labels.join(","))))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<f64>)) {
        change(locked(&SERIES).entry(self.0.clone()).or_default());
    }

    fn set(&self, change: impl FnOnce(f64) -> f64) {
        self.change(|values| *values = vec![change(values.first().copied().unwrap_or(0.0))]);
    }
}

#[allow(clippy::cast_precision_loss)]
impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.set(|before| before + value as f64);
    }

    fn absolute(&self, value: u64) {
        self.set(|_| value as f64);
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.set(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.set(|before| before - value);
    }

    fn set(&self, value: f64) {
        Series::set(self, |_| value);
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.change(|values| values.push(value));
    }
}

struct Kept;

impl Recorder for Kept {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        locked(&DESCRIBED).insert(key.as_str().to_owned(), unit);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        locked(&DESCRIBED).insert(key.as_str().to_owned(), unit);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        locked(&DESCRIBED).insert(key.as_str().to_owned(), unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Series::of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Series::of(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Series::of(key))
    }
}

fn record() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| metrics::set_global_recorder(Kept).unwrap());
}

/// The series of a group, without the name of the crate and the labels that all have.
fn series(group: &str) -> BTreeMap<String, Vec<f64>> {
    let series = locked(&SERIES);
    let label = format!("group={group:?},grant=\"refresh_token\"");
    let of_group = series.iter().filter(|(key, _)| key.contains(&label));
    of_group
        .map(|(key, values)| {
            let key = key.replace("tower_bearer_", "").replace(&label, "");
            (key.replace("{}", "").replace("{,", "{"), values.clone())
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_what_has_happened() {
    record();
    let group = "all metrics";
    let world = World::with(|builder| builder.group(group).metrics());
    let first = series(group);
    assert_eq!(first["requests_total"], [0.0]);
    assert_eq!(first["reauth_required"], [0.0]);
    assert_eq!(first[r#"replays_total{outcome="not_sent"}"#], [0.0]);

    world.server.fault(Fault::Delay(2 * SECOND));
    assert_eq!(world.get().await.unwrap(), 200);
    assert_eq!(world.get().await.unwrap(), 200);
    world.server.revoke_access_tokens();
    assert_eq!(world.get().await.unwrap(), 200);
    let expires_at = world.cache.status().expires_at.unwrap();
    sleep(601 * SECOND).await;
    world.server.fault(Fault::Status(StatusCode::BAD_GATEWAY));
    world.get().await.unwrap_err();
    sleep(60 * SECOND).await;
    world.server.revoke_sessions();
    world.get().await.unwrap_err();

    let now = series(group);
    let expected = [
        ("requests_total", 4.0),
        ("rejections_total", 1.0),
        ("sessions_not_saved_total", 0.0),
        ("reauth_required", 1.0),
        (r#"replays_total{outcome="accepted"}"#, 1.0),
        (r#"replays_total{outcome="failed"}"#, 0.0),
        (r#"replays_total{outcome="not_sent"}"#, 0.0),
        (r#"replays_total{outcome="rejected"}"#, 0.0),
        (
            r#"refreshes_total{reason="no_token",outcome="refreshed",error="none"}"#,
            1.0,
        ),
        (
            r#"refreshes_total{reason="rejected",outcome="refreshed",error="none"}"#,
            1.0,
        ),
        (
            r#"refreshes_total{reason="expired",outcome="failed",error="server"}"#,
            1.0,
        ),
        (
            r#"refreshes_total{reason="expired",outcome="reauth_required",error="reauth_required"}"#,
            1.0,
        ),
        (
            "token_expiry_timestamp_seconds",
            expires_at
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs_f64(),
        ),
    ];
    for (name, value) in expected {
        assert_eq!(now[name], [value], "{name}\n{now:#?}");
    }
    assert_eq!(now["wait_duration_seconds"], [2.0, 0.0, 0.0, 0.0]);
    assert_eq!(now["refresh_duration_seconds"], [2.0, 0.0, 0.0, 0.0]);
    assert_eq!(now.len(), expected.len() + 2, "{now:#?}");

    let described = locked(&DESCRIBED).clone();
    for name in now.keys() {
        let name = name.split('{').next().unwrap();
        let unit = described[&format!("tower_bearer_{name}")];
        let is_time = name.ends_with("_seconds");
        let expected = if is_time { Unit::Seconds } else { Unit::Count };
        assert_eq!(unit, Some(expected), "{name}");
    }

    world.cache.login(world.login()).await.unwrap();
    assert_eq!(series(group)["reauth_required"], [0.0]);
}

#[tokio::test(start_paused = true)]
async fn the_sessions_that_need_a_login_are_counted_while_they_are_in_memory() {
    record();
    let group = "dead sessions";
    let caches: Vec<_> = (0..3)
        .map(|user| {
            let world = World::with(|it| it.group(group).name(format!("user-{user}")).metrics());
            world.server.revoke_sessions();
            world
        })
        .collect();
    for world in &caches {
        world.get().await.unwrap_err();
        world.get().await.unwrap_err();
    }
    assert_eq!(series(group)["reauth_required"], [3.0]);
    caches[0].cache.login(caches[0].login()).await.unwrap();
    assert_eq!(series(group)["reauth_required"], [2.0]);
    drop(caches);
    assert_eq!(series(group)["reauth_required"], [0.0]);
}

#[tokio::test(start_paused = true)]
async fn no_label_tells_a_user() {
    record();
    let world = World::with(|builder| builder.name(NAME).metrics());
    world.get().await.unwrap();
    world.server.revoke_sessions();
    sleep(601 * SECOND).await;
    world.get().await.unwrap_err();
    // The text of an error may tell the user too. Its kind does not.
    let source = source_fn(|_| async {
        let message = format!("{NAME} has no account");
        Err::<Token, _>(TokenError::new(TokenErrorKind::Source, message).with_oauth_code(NAME))
    });
    let cache = TokenCache::builder(source).name(NAME).metrics().build();
    cache.token().await.unwrap_err();

    let series = locked(&SERIES);
    let failed = r#"group="source_fn",grant="source_fn",reason="no_token",outcome="failed","#;
    assert!(series.keys().any(|key| key.contains(failed)), "{series:#?}");
    assert!(!series.keys().any(|key| key.contains(NAME)), "{series:#?}");
}

#[cfg(feature = "sessions")]
#[tokio::test(start_paused = true)]
async fn the_sessions_of_all_users_share_their_series() {
    record();
    let sessions = tower_bearer::Sessions::new(|user: &'static str| async move {
        let source = source_fn(move |_| async move { Token::new(format!("token-of-{user}")) });
        let builder = TokenCache::builder(source);
        Ok(builder.group("keyed users").name(user).metrics().build())
    });
    for user in ["anna", "bert", "anna"] {
        let cache = sessions.get(&user).await.unwrap();
        assert_eq!((cache.name(), cache.group()), (user, "keyed users"));
        cache.token().await.unwrap();
    }
    let series = locked(&SERIES);
    let key = "tower_bearer_refreshes_total{group=\"keyed users\",grant=\"source_fn\",reason=\"no_token\",\
               outcome=\"refreshed\",error=\"none\"}";
    assert_eq!(series[key], [2.0]);
    let tells = |key: &String| key.contains("anna") || key.contains("bert");
    assert!(!series.keys().any(tells), "{series:#?}");
}
