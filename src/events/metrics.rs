//! Events as metrics of the crate `metrics`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use metrics::{Counter, Gauge, Histogram, Label, Unit, counter, gauge, histogram};

use super::{Event, EventKind, Observer, RefreshReason, ReplayOutcome, event::Names};

const REQUESTS: &str = "tower_bearer_requests_total";
const REFRESHES: &str = "tower_bearer_refreshes_total";
const REJECTIONS: &str = "tower_bearer_rejections_total";
const REPLAYS: &str = "tower_bearer_replays_total";
const NOT_SAVED: &str = "tower_bearer_sessions_not_saved_total";
const WAITED: &str = "tower_bearer_wait_duration_seconds";
const REFRESH_DURATION: &str = "tower_bearer_refresh_duration_seconds";
const EXPIRY: &str = "tower_bearer_token_expiry_timestamp_seconds";
const REAUTH_REQUIRED: &str = "tower_bearer_reauth_required";

/// Reports the events of one cache.
///
/// What every request reports to is looked up once. Those series exist from the start, so a query sees the first change.
pub(crate) struct Metrics {
    labels: Vec<Label>,
    requests: Counter,
    rejections: Counter,
    replays: [Counter; ReplayOutcome::ALL.len()],
    not_saved: Counter,
    waited: Histogram,
    refresh_duration: Histogram,
    expiry: Gauge,
    reauth_required: Gauge,
    /// This session is one of those that the gauge counts.
    is_counted: AtomicBool,
}

impl Metrics {
    pub(crate) fn new(names: &Names) -> Self {
        describe();
        let labels = vec![
            Label::new("group", String::from(&*names.group)),
            Label::from_static_parts("grant", names.grant),
        ];
        let counter = |name| {
            let counter = counter!(name, labels.clone());
            counter.increment(0);
            counter
        };
        let replays = ReplayOutcome::ALL.map(|outcome| {
            let counter = counter!(REPLAYS, with(&labels, [("outcome", outcome.as_str())]));
            counter.increment(0);
            counter
        });
        let reauth_required = gauge!(REAUTH_REQUIRED, labels.clone());
        // Not `set`: the other sessions of the group are in it.
        reauth_required.increment(0.0);
        Self {
            requests: counter(REQUESTS),
            rejections: counter(REJECTIONS),
            replays,
            not_saved: counter(NOT_SAVED),
            waited: histogram!(WAITED, labels.clone()),
            refresh_duration: histogram!(REFRESH_DURATION, labels.clone()),
            expiry: gauge!(EXPIRY, labels.clone()),
            reauth_required,
            is_counted: AtomicBool::new(false),
            labels,
        }
    }

    fn refresh_ended(&self, event: &Event<'_>) {
        if let Some(duration) = event.duration {
            self.refresh_duration.record(duration);
        }
        let reason = event.reason.map_or("none", RefreshReason::as_str);
        // No text of a server: of an error only the kind.
        let error = event.error.map_or("none", |error| error.kind().as_str());
        let more = [
            ("reason", reason),
            ("outcome", event.kind.as_str()),
            ("error", error),
        ];
        counter!(REFRESHES, with(&self.labels, more)).increment(1);
    }

    fn token_in_use(&self, event: &Event<'_>) {
        if let Some(expiry) = event.expires_at {
            let since = expiry.duration_since(SystemTime::UNIX_EPOCH);
            self.expiry.set(since.unwrap_or_default().as_secs_f64());
        }
    }

    /// A person must log in, or need not any more.
    fn set_reauth_required(&self, is_required: bool) {
        let was_required = self.is_counted.swap(is_required, Ordering::Relaxed);
        match (was_required, is_required) {
            (false, true) => self.reauth_required.increment(1.0),
            (true, false) => self.reauth_required.decrement(1.0),
            _ => {}
        }
    }
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        match event.kind {
            EventKind::RequestSent => self.requests.increment(1),
            EventKind::Waited => {
                if let Some(duration) = event.duration {
                    self.waited.record(duration);
                }
            }
            EventKind::Refreshed | EventKind::Adopted => {
                self.refresh_ended(event);
                self.token_in_use(event);
                self.set_reauth_required(false);
            }
            EventKind::Failed | EventKind::Superseded => self.refresh_ended(event),
            EventKind::ReauthRequired => {
                self.refresh_ended(event);
                self.set_reauth_required(true);
            }
            EventKind::Rejected => self.rejections.increment(1),
            EventKind::Replayed => {
                for (outcome, counter) in ReplayOutcome::ALL.iter().zip(&self.replays) {
                    if event.outcome == Some(*outcome) {
                        counter.increment(1);
                    }
                }
            }
            EventKind::NotSaved => self.not_saved.increment(1),
            EventKind::SavedLate => {}
            EventKind::LoggedIn => {
                self.token_in_use(event);
                self.set_reauth_required(false);
            }
            // Somebody wanted that.
            EventKind::Revoked => self.set_reauth_required(false),
        }
    }

    fn wants_requests(&self) -> bool {
        true
    }
}

impl Drop for Metrics {
    /// The session is no longer one of this process.
    fn drop(&mut self) {
        self.set_reauth_required(false);
    }
}

fn with<const N: usize>(labels: &[Label], more: [(&'static str, &'static str); N]) -> Vec<Label> {
    let more = more.map(|(name, value)| Label::from_static_parts(name, value));
    [labels, &more].concat()
}

/// Units and descriptions. For each cache, because the recorder may not have been there before.
fn describe() {
    metrics::describe_counter!(REQUESTS, Unit::Count, "Requests sent with a token.");
    metrics::describe_counter!(REFRESHES, Unit::Count, "Refreshes that ended.");
    metrics::describe_counter!(REJECTIONS, Unit::Count, "Tokens that the API rejected.");
    metrics::describe_counter!(
        REPLAYS,
        Unit::Count,
        "Rejected requests, by what came of them."
    );
    metrics::describe_counter!(
        NOT_SAVED,
        Unit::Count,
        "Sessions that could not be saved at once."
    );
    metrics::describe_histogram!(
        WAITED,
        Unit::Seconds,
        "How long callers waited for a token."
    );
    metrics::describe_histogram!(REFRESH_DURATION, Unit::Seconds, "How long refreshes took.");
    metrics::describe_gauge!(
        EXPIRY,
        Unit::Seconds,
        "When the newest token expires, since 1970."
    );
    metrics::describe_gauge!(
        REAUTH_REQUIRED,
        Unit::Count,
        "Sessions that need a person to log in."
    );
}
