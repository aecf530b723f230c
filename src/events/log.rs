//! Events as lines of a log, and the span of a refresh.

use std::time::{Duration, SystemTime};

use tracing::Span;

use super::{Event, EventKind, RefreshReason, ReplayOutcome, event::Names};

/// The target of all events and of the span. It is documented, so it must not change.
const TARGET: &str = "tower_bearer::events";

/// Logs an event. Those of single requests are no events for a log.
pub(super) fn event(event: &Event<'_>) {
    macro_rules! log {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                target: TARGET,
                event = event.kind.as_str(),
                name = event.name,
                group = event.group,
                grant = event.grant,
                reason = event.reason.map(RefreshReason::as_str),
                outcome = event.outcome.map(ReplayOutcome::as_str),
                generation = event.generation,
                duration = event.duration.as_ref().map(Duration::as_secs_f64),
                expires_in = seconds_until(event.at, event.expires_at),
                next_due_in = seconds_until(event.at, event.next_due),
                error_kind = event.error.map(|error| error.kind().as_str()),
                error = event.error.map(tracing::field::display),
                $message
            )
        };
    }
    match event.kind {
        EventKind::Refreshed => log!(debug, "token refreshed"),
        EventKind::Adopted => log!(debug, "token of another process adopted"),
        EventKind::Failed => log!(warn, "refresh failed"),
        EventKind::ReauthRequired => log!(error, "a person must log in again"),
        EventKind::Superseded => log!(debug, "the result of a refresh is not used"),
        EventKind::Rejected => log!(info, "token rejected"),
        EventKind::Replayed => match event.outcome {
            Some(ReplayOutcome::Accepted) => log!(debug, "request replayed"),
            Some(ReplayOutcome::Rejected) => log!(debug, "request replayed, and rejected again"),
            Some(ReplayOutcome::Failed) => log!(debug, "request replayed without an answer"),
            Some(ReplayOutcome::NotSent) | None => log!(debug, "request not replayed"),
        },
        EventKind::NotSaved => log!(error, "session not saved, it goes on from memory"),
        EventKind::SavedLate => log!(info, "session saved in the background"),
        EventKind::LoggedIn => log!(info, "a new login has taken the place of the session"),
        EventKind::Revoked => log!(info, "session revoked"),
        EventKind::RequestSent | EventKind::Waited => {}
    }
}

/// A span without a parent, because the refresh outlives its caller.
pub(super) fn refresh_span(names: &Names, reason: RefreshReason) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "refresh",
        name = &*names.name,
        group = &*names.group,
        grant = names.grant,
        reason = reason.as_str(),
    );
    span.follows_from(Span::current());
    span
}

/// Whole seconds: these are times of a schedule. Zero if `time` has passed.
fn seconds_until(now: SystemTime, time: Option<SystemTime>) -> Option<u64> {
    Some(time?.duration_since(now).map_or(0, |left| left.as_secs()))
}
