//! The transitions of a session that ends or begins.

use std::{sync::Arc, time::Duration};

use super::State;
use crate::{
    cache::{
        current_token::CurrentToken, effects::Input, refresh_task::RefreshKind,
        running_refresh::RefreshState, waiter::SharedResult,
    },
    clock::Now,
    error::{TokenError, TokenErrorKind},
    events::{EventKind, Record},
    token::Token,
};

impl State {
    /// Another process may have begun or ended a session. Asks the source, or returns the refresh that runs: it may have read
    /// the store before.
    pub(in crate::cache) fn session_may_have_changed(
        &mut self,
        input: Input<'_>,
    ) -> Option<Arc<SharedResult>> {
        if let Some(running) = self.running_result(input.now) {
            return Some(running);
        }
        let cx = self.context(input);
        self.start(input, Duration::ZERO, cx, RefreshKind::Look);
        None
    }

    /// A new login has begun another session. Its token is used at once. Without one, nothing is used until the next
    /// refresh, which starts when a caller wants a token: the token before belongs to another login.
    ///
    /// A refresh that runs may have read the session before it, so it no longer counts.
    pub(in crate::cache) fn logged_in(
        &mut self,
        input: Input<'_>,
        token: Option<Token>,
        asked: Now,
    ) {
        self.throttle.began_anew();
        self.forget_refusals();
        self.look_beside = None;
        self.is_after_reset = false;
        self.effects.notify = true;
        let completed = token.map(|token| {
            let issued = self.issue(input, token, asked);
            self.login_taken(input, Some(&issued));
            self.put_in_use(input, &issued);
            Ok(issued)
        });
        if completed.is_none() {
            self.login_taken(input, None);
            self.warning = None;
            self.challenge = None;
            self.set_token(CurrentToken::None);
        }
        match std::mem::take(&mut self.refresh) {
            RefreshState::Running(running) => {
                self.end_step_ups(Some(&running.kind), completed.as_ref());
                self.effects.wake.push((running.result, completed));
            }
            RefreshState::Idle => {}
        }
    }

    /// The session was revoked. Its token is no longer used, and a refresh that runs brings no other.
    pub(in crate::cache) fn revoked(&mut self, input: Input<'_>, error: &TokenError) {
        let schedule = &input.settings().schedule;
        let random = self.rng.f64();
        self.throttle
            .failed(error, input.now.mono, true, random, schedule);
        self.revoked_up_to = self.counts.refreshes;
        self.is_after_reset = false;
        self.effects.notify = true;
        self.challenge = None;
        self.set_token(CurrentToken::None);
        self.end_step_ups(None, Some(&Err(error.clone())));
        self.record(Record::new(EventKind::Revoked, input.now.wall));
    }

    /// The user wants remembered failures to be forgotten.
    pub(in crate::cache) fn reset(&mut self) {
        self.throttle.reset();
        self.forget_refusals();
        self.is_after_reset = true;
        self.effects.notify = true;
    }
}

#[cold]
pub(in crate::cache) fn session_revoked() -> TokenError {
    let message = "the session was revoked; log in again, or reset the cache to begin it anew";
    TokenError::new(TokenErrorKind::ReauthRequired, message)
}
