//! The outcome of an attempt: save the new tokens, or record the failure and explain it.

use std::time::SystemTime;

use super::{
    GrantSource,
    attempt::{Attempt, Granted},
    lease::{IsLast, is_lost},
    unsaved::{LeaseSlot, Unsaved},
};
use crate::{
    clock::Clock,
    error::{Recovery, TokenError, TokenErrorKind},
    grant::Grant,
    store::BoxStoreLease,
    token::{Token, Warning},
};

impl<G: Grant> GrantSource<G> {
    /// Saves the session before its token is used. If that fails, the session goes on from memory, the token carries a
    /// warning, and `slot` gets the session to be saved later.
    pub(super) async fn save(
        &self,
        lease: &mut BoxStoreLease,
        slot: &mut LeaseSlot,
        attempt: &Attempt,
        granted: Granted,
    ) -> Result<Token, TokenError> {
        let Granted {
            response,
            session,
            sent,
        } = granted;
        let token = response.token.clone();
        let session = session.at(attempt.replaces).without_dead(&sent);
        let session = session.merged(response.into());
        self.with_state(|state| {
            state.newest = Some(session.clone());
            state.failed = None;
            state.superseded = None;
        });
        match Self::save_repeatedly(lease, attempt.replaces, &session, IsLast::Yes).await {
            Ok(()) => {
                slot.saved();
                token
            }
            Err(error) => {
                if token.is_err() {
                    // No token takes the error along.
                    tracing::error!(%error, "the refreshed session was not saved, it goes on from memory");
                }
                let is_fenced = error.kind() == TokenErrorKind::LeaseLost;
                self.supersede(attempt.stored.as_ref(), &session);
                let warning = Warning::new(error);
                slot.unsaved = Some(Unsaved {
                    session,
                    replaces: attempt.replaces,
                    is_lease_lost: is_fenced && is_lost(lease).await,
                    warning: warning.clone(),
                });
                token.map(|token| token.with_warning(warning))
            }
        }
    }

    /// Records that the attempt has failed, and returns the error for the caller.
    pub(super) async fn record_failure(
        &self,
        lease: &mut BoxStoreLease,
        slot: &LeaseSlot,
        attempt: Attempt,
        error: TokenError,
        clock: &Clock,
    ) -> TokenError {
        // Clear the mark only if the server has certainly issued no tokens. Otherwise it tells the next attempt that a
        // rotation may have been lost.
        let is_settled = !attempt.was_sent || was_decided_by_the_server(&error);
        // A new login that was rejected says nothing about a session of another client.
        let has_ended =
            !attempt.dead.is_empty() && attempt.session.client() == Some(&self.client_identity);
        if is_settled || has_ended {
            let mark = if is_settled {
                attempt.unknown_since
            } else {
                attempt.session.refreshing_since()
            };
            let mut outcome = attempt.session.settled(mark);
            if has_ended {
                outcome = outcome.with_dead(&attempt.dead, clock.wall());
            }
            // A session that is not saved yet needs the lease.
            let is_last = if slot.unsaved.is_some() {
                IsLast::No
            } else {
                IsLast::Yes
            };
            let saved = Self::save_repeatedly(lease, attempt.replaces, &outcome, is_last).await;
            if let Err(error) = saved {
                tracing::warn!(%error, "the outcome of a refresh was not saved");
            }
        }
        if error.recovery() != Recovery::Soon || !attempt.dead.is_empty() {
            self.note_failed(&attempt.session, &attempt.dead, error.is_final());
        }
        if error.kind() == TokenErrorKind::ReauthRequired {
            self.explain(error, &attempt, clock.wall())
        } else if attempt.was_resent {
            error.with_more(
                "the same refresh token was sent twice, because no response came to the first request, so it is unknown \
                 whether the server has rotated it",
            )
        } else {
            error
        }
    }

    /// Adds what a person must do, and what may have ended the session.
    pub(super) fn explain(
        &self,
        mut error: TokenError,
        attempt: &Attempt,
        now: SystemTime,
    ) -> TokenError {
        if let Some(reauth_hint) = &self.reauth_hint {
            error = error.with_more(reauth_hint);
        }
        if let Some(ended) = attempt.session.ended().filter(|_| !attempt.was_sent) {
            let on = ended.since().and_then(http_date);
            let on = on.map_or(String::new(), |date| format!(" on {date}"));
            error = error.with_more(&format!(
                "the authorization server declared the session's credential dead{on}, so it is not sent again before a new \
                 login or a reset of the cache"
            ));
        }
        if let Some(since) = attempt.unknown_since.and_then(http_date) {
            error = error.with_more(&format!(
                "a refresh that began on {since} was interrupted, and its tokens may be lost"
            ));
        }
        if attempt.was_resent {
            error = error.with_more(
                "no answer to it came, and the same refresh token was rejected when it was sent again",
            );
        }
        let expired_at = attempt.session.refresh_expires_at().filter(|at| *at <= now);
        match expired_at.and_then(http_date) {
            Some(at) => error.with_more(&format!("the refresh token expired on {at}")),
            None => error,
        }
    }
}

/// Whether the authorization server itself has rejected the request, and so has issued no tokens for it. A response without
/// an OAuth code may be from a gateway, and hide a rotation.
fn was_decided_by_the_server(error: &TokenError) -> bool {
    let has_code = error.oauth_code().is_some();
    has_code
        && matches!(
            error.kind(),
            TokenErrorKind::ReauthRequired
                | TokenErrorKind::InvalidClient
                | TokenErrorKind::InvalidRequest
                | TokenErrorKind::RateLimited
        )
}

/// The date for messages. `None` after the year 9999, which HTTP cannot write.
pub(super) fn http_date(time: SystemTime) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000).then(|| httpdate::fmt_http_date(time))
}
