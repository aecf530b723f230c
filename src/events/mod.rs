//! What happens to a session: for logs, metrics, traces, health checks and observers of your own.
//!
//! Each [`Event`] is logged with [`tracing`], and given to the [observers](Observer) of its cache. With the feature `metrics`,
//! `TokenCacheBuilder::metrics` is one of them. Events contain no secret.
//!
//! # Names
//!
//! Every cache has a [group](crate::TokenCacheBuilder::group) and a [name](crate::TokenCacheBuilder::name). The group is a
//! label of metrics, so there should be few. By default it is the host of the token endpoint. The name is for logs alone, and
//! may tell users or tenants apart. Caches that a factory of `Sessions` makes should all get the same group, and each a name.
//!
//! # Log lines
//!
//! All have the target `tower_bearer::events`. Other lines of this crate say what happens within a refresh, and have the
//! modules of this crate as targets.
//!
//! | `event` | Level | Message | Fields besides `name`, `group` and `grant` |
//! |---|---|---|---|
//! | `reauth_required` | error | a person must log in again | `reason`, `duration`, `error_kind`, `error` |
//! | `not_saved` | error | session not saved, it goes on from memory | `error_kind`, `error` |
//! | `failed` | warn | refresh failed | `reason`, `duration`, `next_due_in`, `error_kind`, `error` |
//! | `rejected` | info | token rejected | `generation` |
//! | `saved_late` | info | session saved in the background | `duration` |
//! | `logged_in` | info | a new login has taken the place of the session | `generation`, `expires_in`, `next_due_in` |
//! | `revoked` | info | session revoked | |
//! | `refreshed` | debug | token refreshed | `reason`, `generation`, `duration`, `expires_in`, `next_due_in` |
//! | `adopted` | debug | token of another process adopted | as `refreshed` |
//! | `superseded` | debug | the result of a refresh is not used | `reason`, `duration`, those of a token or of an error |
//! | `replayed` | debug | by its outcome, such as: request replayed | `outcome`, `generation`, `error_kind`, `error` |
//!
//! `duration`, `expires_in` and `next_due_in` are in seconds. Fields that are not known are left out. What happens all the
//! time in a session that is well is on the level debug: thousands of sessions would fill a log with it, and metrics count it.
//!
//! Look for `reauth_required`: nothing but a person ends that. `not_saved` should be followed by `saved_late` soon, or a
//! restart may lose the session. `failed` is tried again by itself, in `next_due_in` seconds at the earliest. If its `reason`
//! is `more_scope`, an API has asked for scope that could not be had: the token stays in use, and other requests go on.
//!
//! Each refresh that ends is one of `refreshed`, `adopted`, `failed`, `reauth_required` and `superseded`. Reading
//! the store without finding a newer token is no event.
//!
//! # Costs
//!
//! Observers cost a request with a fresh token nothing, unless they [want requests](Observer::wants_requests). Metrics do: they
//! add about 180 instructions to the 2,300 of [`BearerAuthLayer`](crate::BearerAuthLayer), one reading of the clock, and no
//! allocation.
//!
//! # Traces
//!
//! A refresh has a span of its own with the name `refresh`, the target `tower_bearer::events` and the level info. Its token
//! request and its event are inside it. It has no parent, because it outlives the request that starts it. It
//! [follows from](https://docs.rs/tracing/latest/tracing/struct.Span.html#method.follows_from) the span of that request:
//! `tracing-opentelemetry` makes a link of it.
//!
//! # Metrics
//!
//! | Name | Type | Labels besides `group` and `grant` |
//! |---|---|---|
//! | `tower_bearer_requests_total` | counter | |
//! | `tower_bearer_refreshes_total` | counter | `reason`, `outcome`, `error` |
//! | `tower_bearer_rejections_total` | counter | |
//! | `tower_bearer_replays_total` | counter | `outcome` |
//! | `tower_bearer_sessions_not_saved_total` | counter | |
//! | `tower_bearer_wait_duration_seconds` | histogram | |
//! | `tower_bearer_refresh_duration_seconds` | histogram | |
//! | `tower_bearer_token_expiry_timestamp_seconds` | gauge | |
//! | `tower_bearer_reauth_required` | gauge | |
//!
//! - `requests_total` counts each request that is sent with a token, replays included.
//! - `refreshes_total`: `reason` is a [`RefreshReason`], `outcome` one of the five events that end a refresh, and `error` a
//!   [`TokenErrorKind`](crate::TokenErrorKind) or `none`.
//! - `rejections_total` counts tokens, not requests: the first rejection of each. `replays_total` counts requests that were
//!   rejected, or needed more scope, by their [`ReplayOutcome`].
//! - `wait_duration_seconds` has only the callers that had to wait. The others, which are nearly all, wait for nothing.
//! - `token_expiry_timestamp_seconds` is the end of the newest token of the group, in seconds since 1970. It is a time and not
//!   a number of seconds to go, as is the custom with Prometheus: it is set once for each token, and never out of date.
//!   `tower_bearer_token_expiry_timestamp_seconds - time()` is the rest of its life. In a group of many sessions, it has
//!   passed only if none of them gets tokens.
//! - `reauth_required` is how many sessions in the memory of this process need a person to log in. One that was revoked on
//!   purpose is not counted.
//!
//! With `metrics-exporter-prometheus`, set the buckets of the two histograms, or they become summaries:
//! `PrometheusBuilder::set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &[0.01, 0.1, 1.0, 10.0])`.
//!
//! Other systems: OpenTelemetry's Collector reads what Prometheus reads, with its `prometheus` receiver. To report to a
//! `Meter` directly, write an observer:
//!
//! ```ignore
//! struct Refreshes(opentelemetry::metrics::Counter<u64>);
//!
//! impl Observer for Refreshes {
//!     fn on_event(&self, event: &Event<'_>) {
//!         // No `name`: it may tell users apart.
//!         if let Some(reason) = event.reason {
//!             let labels = [
//!                 KeyValue::new("group", event.group.to_owned()),
//!                 KeyValue::new("reason", reason.as_str()),
//!                 KeyValue::new("outcome", event.kind.as_str()),
//!             ];
//!             self.0.add(1, &labels);
//!         }
//!     }
//! }
//!
//! let refreshes = opentelemetry::global::meter("tower_bearer").u64_counter("tower_bearer.refreshes").build();
//! let cache = TokenCache::builder(source).observer(Refreshes(refreshes)).build();
//! ```
//!
//! # Alerts
//!
//! The example `observed_service` has a file with rules for Prometheus. The first of them means that a person must log in:
//!
//! ```yaml
//! - alert: LoginNeeded
//!   expr: sum by (group) (tower_bearer_reauth_required) > 0
//!   for: 1m
//! - alert: RefreshesFail
//!   expr: sum by (group, error) (rate(tower_bearer_refreshes_total{outcome="failed",reason!="more_scope"}[10m])) > 0
//!   for: 15m
//! - alert: SessionNotSaved
//!   expr: sum by (group) (increase(tower_bearer_sessions_not_saved_total[15m])) > 0
//! ```
//!
//! # Health
//!
//! A health check is about one session, so it reads the [status](crate::TokenCache::status) and not a metric. A service that
//! needs a person to log in is not healthy. One whose refresh has failed may be, because its token is still good:
//!
//! ```
//! use http::StatusCode;
//! use tower_bearer::{TokenCache, TokenError};
//!
//! fn health(cache: &TokenCache) -> (StatusCode, String) {
//!     let status = cache.status();
//!     let needs_login = status.last_error.as_ref().is_some_and(TokenError::is_final);
//!     let code = if needs_login { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
//!     (code, serde_json::to_string(&status).unwrap_or_default())
//! }
//! # let cache = TokenCache::new(tower_bearer::source_fn(|_| async { tower_bearer::Token::new("abc") }));
//! # assert_eq!(health(&cache).0, StatusCode::OK);
//! ```
//!
//! Before the process ends, wait for a refresh that is running with [`TokenCache::close`](crate::TokenCache::close).

mod delivery;
mod event;
mod log;
#[cfg(feature = "metrics")]
mod metrics;
mod observer;

#[cfg(feature = "metrics")]
pub(crate) use self::metrics::Metrics;
pub(crate) use self::{
    delivery::Events,
    event::{Names, Record},
};
pub use self::{
    event::{Event, EventKind, RefreshReason, ReplayOutcome},
    observer::Observer,
};
