//! The steps of a refresh: use the stored token, or take the lease and obtain another one.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    GrantSource,
    attempt::{Attempt, Granted},
    lease::{AtLease, IsLast, is_held},
    unsaved::LeaseSlot,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    grant::Grant,
    store::{BoxStoreLease, StoredSession, TokenStore},
    token::Token,
    token_source::TokenContext,
};

/// How often one call begins. It begins again if another process has saved in between.
const MAX_ROUNDS: u32 = 3;

/// A lease that was asked for less than this long ago is assumed to be held, which saves a command. By default a lease of Redis or
/// a database lasts 15 seconds.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

impl<G: Grant> GrantSource<G> {
    pub(super) async fn refresh(&self, cx: &TokenContext) -> Result<Token, TokenError> {
        let mut round = 1;
        loop {
            match self.adopt_or_refresh(cx).await {
                // The store has a newer session, or will have one soon.
                Err(error) if error.kind() == TokenErrorKind::LeaseLost && round < MAX_ROUNDS => {
                    tracing::debug!(%error, "lease lost, starting over");
                    round += 1;
                }
                result => return result,
            }
        }
    }

    async fn adopt_or_refresh(&self, cx: &TokenContext) -> Result<Token, TokenError> {
        let revocations = self.revocations();
        let stored = self.load().await?;
        self.with_state(|state| state.has_seen_another_client = false);
        if let Some(token) = self.adopt(stored.as_ref(), cx) {
            return Ok(token);
        }
        self.check_not_ended(&self.newest(stored), cx)?;
        // Before the mark, which would say that a credential may have been sent.
        self.client.prepare(cx.clock()).await?;
        let mut slot = self.lease_slot().lock_owned().await;
        // The lease begins before the response that says so.
        let asked = Instant::now();
        let (mut lease, at_lease) = self.take_lease(&mut slot).await?;
        let asked = (!matches!(at_lease, AtLease::Kept)).then_some(asked);
        // A task of its own: from here on a refresh token may be spent, and its successor must be saved even if the
        // caller stops waiting.
        let (source, cx) = (self.clone(), self.after_revocations(revocations, cx));
        let task = tokio::spawn(
            async move {
                let result = source
                    .refresh_under_lease(&mut lease, at_lease, asked, &mut slot, &cx)
                    .await;
                let was_overtaken = is_lease_lost(&result);
                source.put_back(lease, &mut slot, was_overtaken).await;
                result
            }
            .in_current_span(),
        );
        task.await.unwrap_or_else(|error| {
            let message = "the task that was refreshing the session ended early";
            Err(TokenError::new(TokenErrorKind::Interrupted, message).with_source(error))
        })
    }

    async fn refresh_under_lease(
        &self,
        lease: &mut BoxStoreLease,
        at_lease: AtLease,
        asked: Option<Instant>,
        slot: &mut LeaseSlot,
        cx: &TokenContext,
    ) -> Result<Token, TokenError> {
        // The last holder of the lease may have refreshed the session.
        let stored = self.load_under_lease(at_lease).await?;
        self.check_owner(stored.as_ref())?;
        if let Some(token) = self.adopt(stored.as_ref(), cx) {
            return Ok(token);
        }
        let session = self.newest(stored.clone());
        self.check_not_revoked(&session, cx)?;
        let mut attempt = self.mark(lease, slot, session, stored, cx).await?;
        check_held(lease, asked).await?;
        let mut result = self.send(&mut attempt, lease, cx.clock()).await;

        // Before a rejected credential ends the session, or the grant begins another, look for a newer one in the store.
        let newest = if may_be_dead(&result) {
            match self.store.load().await {
                Ok(newest) => newest,
                Err(error) => {
                    result = still_unknown(result, error);
                    None
                }
            }
        } else {
            None
        };
        self.check_owner(newest.as_ref())?;
        // An earlier refresh token may end a session that lives. So it is sent only if ours is dead for certain.
        let may_replace = |newest: &StoredSession, has_credential: bool| {
            !newest.is_before(&attempt.session) || (has_credential && is_reauth_required(&result))
        };
        if let Some(newest) = newest
            && let credential = self.credential_identity(&newest)
            && credential != self.credential_identity(&attempt.session)
            && may_replace(&newest, credential.is_some())
            && !self.is_superseded(credential.as_ref())
        {
            if let Some(token) = self.adopt(Some(&newest), cx) {
                return Ok(token);
            }
            // What is saved from here on is about the newest session.
            self.note_failed(&attempt.session, &attempt.dead, false);
            self.check_not_revoked(&newest, cx)?;
            if newest.version() != attempt.replaces && newest.refreshing_since().is_some() {
                return Err(overtaken());
            }
            let stored = Some(newest.clone());
            attempt = self.mark(lease, slot, newest, stored, cx).await?;
            check_held(lease, asked).await?;
            result = self.send(&mut attempt, lease, cx.clock()).await;
        }
        if may_be_dead(&result)
            && self.can_begin_anew(&attempt.session)
            && !self.skips(&attempt, &self.identity)
        {
            // Another process may be doing the same, because this one has lost its lease.
            match self.may_send_more(&mut attempt, lease).await {
                Ok(true) => {
                    tracing::info!("the refresh token is invalid, beginning the session anew");
                    result = self.send_grant(&mut attempt, lease, cx.clock()).await;
                }
                Ok(false) => {
                    // It cannot be saved here that the refresh token is dead.
                    self.note_failed(&attempt.session, &attempt.dead, false);
                    return Err(overtaken());
                }
                Err(error) => result = still_unknown(result, error),
            }
        }
        match result {
            Ok(granted) => self.save(lease, slot, &attempt, granted).await,
            Err(error) => Err(self
                .record_failure(lease, slot, attempt, error, cx.clock())
                .await),
        }
    }

    /// Whether the grant may begin the session again. It has been used once, or it would have been sent already.
    pub(super) fn can_begin_anew(&self, session: &StoredSession) -> bool {
        session.refresh_token().is_some()
            && session.began_with(&self.identity)
            && self.grant.can_repeat()
    }

    /// Saves `session` in the place of the `stored` one, marked as being refreshed. The save also proves that no other process
    /// has saved since the session was loaded.
    ///
    /// If the mark cannot be saved although the lease is held, as on a full disk, the refresh goes on without it. Should
    /// this process die before the new session is saved, the next one sends the spent refresh token and cannot say why.
    async fn mark(
        &self,
        lease: &mut BoxStoreLease,
        slot: &mut LeaseSlot,
        session: StoredSession,
        stored: Option<StoredSession>,
        cx: &TokenContext,
    ) -> Result<Attempt, TokenError> {
        let replaces = stored.as_ref().map_or(0, StoredSession::version);
        let session = self.with_owner(session);
        let unknown_since = session.refreshing_since();
        let session = session
            .at(replaces)
            .refreshing(cx.clock().wall(), fastrand::u32(..));
        if session.version() <= replaces {
            let message = "the stored session has the highest possible version, so no save can follow: remove it";
            return Err(TokenError::new(TokenErrorKind::Store, message));
        }
        let marked = session.version();
        match Self::save_repeatedly(lease, replaces, &session, IsLast::No).await {
            Ok(()) => {
                slot.saved();
                let mut attempt = Attempt::new(session, marked, unknown_since, cx);
                attempt.stored = Some(attempt.session.clone());
                Ok(attempt)
            }
            Err(error) if error.kind() == TokenErrorKind::LeaseLost => Err(error),
            Err(error) if is_held(lease).await? => {
                let mut attempt = Attempt::new(session, replaces, unknown_since, cx);
                attempt.stored = stored;
                // No save proves it, so the store is asked: the lease may have ended in between, and been taken again.
                if !self.is_unchanged(&mut attempt).await? {
                    return Err(overtaken().with_source(error));
                }
                tracing::warn!(%error, "the store cannot save, the session is refreshed from memory");
                Ok(attempt)
            }
            Err(error) => Err(error),
        }
    }
}

/// The error if another process has saved, or is about to, because this one has lost its lease.
fn overtaken() -> TokenError {
    let message = "another process is refreshing the session";
    TokenError::new(TokenErrorKind::LeaseLost, message)
}

/// Fails if the lease has ended. `asked` is when it was asked for, and `None` for one that was kept from before. Saving a mark proves
/// only that no other process has saved: another one may have the lease by now, and send the same refresh token.
async fn check_held(lease: &BoxStoreLease, asked: Option<Instant>) -> Result<(), TokenError> {
    let is_new = asked.is_some_and(|asked| asked.elapsed() < SHORTEST_LEASE);
    if is_new || is_held(lease).await? {
        return Ok(());
    }
    let message = "the lease has ended while the session was marked";
    Err(TokenError::new(TokenErrorKind::LeaseLost, message))
}

/// Whether the refresh token may be invalid. Some servers reject it with 400 and nothing else.
fn may_be_dead(result: &Result<Granted, TokenError>) -> bool {
    let is_unexplained = |error: &TokenError| {
        error.status() == Some(StatusCode::BAD_REQUEST) && error.oauth_code().is_none()
    };
    is_reauth_required(result) || result.as_ref().is_err_and(is_unexplained)
}

/// The result of an attempt if the store could not be asked, with this `error`, whether another process goes on with the session.
/// Then a rejection does not end it.
fn still_unknown(
    result: Result<Granted, TokenError>,
    error: TokenError,
) -> Result<Granted, TokenError> {
    if is_reauth_required(&result) {
        Err(error)
    } else {
        result
    }
}

fn is_lease_lost(result: &Result<Token, TokenError>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == TokenErrorKind::LeaseLost)
}

fn is_reauth_required(result: &Result<Granted, TokenError>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == TokenErrorKind::ReauthRequired)
}
