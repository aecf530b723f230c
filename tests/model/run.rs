//! What a process does next: `src/source/refresh.rs` and `attempt.rs`. The rest is in
//! `outcome.rs`, `unsaved.rs` and `revoke.rs`.
//!
//! A function here is one step: it contains at most one operation that others can see, and whatever the process does
//! before and after it alone.

use crate::{
    events::Event,
    process::Process,
    session::{Credential, Credentials, Session},
    setup::Fault,
    state::{State, System},
    step::{Answer, Attempt, End, Sends, Stage, Step},
    store::{SaveError, Saved},
};

/// A process that takes a step.
pub(crate) struct Run<'a> {
    pub(crate) system: &'a System,
    pub(crate) state: &'a mut State,
    pub(crate) id: usize,
}

/// Why a token request has brought no token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No answer came.
    Transport,
    /// The server has declared the credential dead.
    Dead,
    /// It was declared dead before, so it was not sent. Or there is nothing to send.
    NotSent,
    /// 400 without an OAuth code. Some servers say so that a refresh token is dead.
    Unexplained,
    /// Another 4xx without an OAuth code, or 5xx.
    Page,
}

impl Failure {
    fn may_mean_dead(self) -> bool {
        matches!(self, Self::Dead | Self::NotSent | Self::Unexplained)
    }
}

impl Run<'_> {
    pub(crate) fn me(&mut self) -> &mut Process {
        &mut self.state.processes[self.id]
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.system.setup.has(fault)
    }

    pub(crate) fn saw(&self, event: Event) {
        self.system.saw(event);
    }

    pub(crate) fn go(&mut self, step: Step) {
        self.me().step = step;
    }

    pub(crate) fn adopt(&mut self, stored: Option<&Session>) -> Option<Credential> {
        let (system, expired) = (self.system, self.state.expired);
        let token = self.me().adopt(&system.setup, stored, expired)?;
        self.saw(Event::Adopted);
        Some(token)
    }

    /// `adopt_or_refresh` until it waits for the lease.
    pub(crate) fn begin(&mut self) {
        let (system, stored) = (self.system, self.state.store.session);
        if let Some(token) = self.adopt(stored.as_ref()) {
            return self.finish(End::Token(token));
        }
        let session = self.me().newest(&system.setup, stored.as_ref());
        if self.me().may_send(&system.setup, &session) {
            self.go(Step::WantsLease);
        } else {
            self.saw(Event::NotSent);
            self.finish(End::Failed { is_final: true });
        }
    }

    /// `stored_token`: the cache may not refresh, and looks for a token of another process.
    pub(crate) fn look(&mut self) {
        let stored = self.state.store.session;
        if let Some(token) = self.adopt(stored.as_ref()) {
            self.finish(End::Token(token));
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "there are at most three")]
    pub(crate) fn number(&self) -> u8 {
        self.id as u8
    }

    /// `refresh_under_lease` until it saves the mark.
    pub(crate) fn refresh_under_lease(&mut self) {
        self.take_lease();
        let (system, stored) = (self.system, self.state.store.session);
        if let Some(token) = self.adopt(stored.as_ref()) {
            return self.go(Step::Releasing(End::Token(token)));
        }
        let session = self.me().newest(&system.setup, stored.as_ref());
        if !self.me().may_use(&session) {
            return self.go(Step::Releasing(End::Failed { is_final: true }));
        }
        let would_send = self.me().would_send(stored.as_ref());
        self.go(Step::Marking {
            session,
            replaces: stored.map_or(0, |stored| stored.version),
            stored: would_send,
            is_second: false,
        });
    }

    /// `mark`.
    pub(crate) fn mark(&mut self, saved: Saved) {
        let Step::Marking {
            session,
            replaces,
            stored,
            is_second,
        } = self.me().step
        else {
            return;
        };
        let session = self.me().with_owner(session);
        let unknown = session.mark;
        let mark = match unknown {
            Some(mark) if self.has(Fault::MarksLikeTheOneBefore) => mark,
            _ => self.number(),
        };
        let session = session.at(replaces).refreshing(mark);
        let result = if self.has(Fault::NoMark) {
            Err(SaveError::Store)
        } else {
            self.save_session(replaces, session, saved)
        };
        let mut attempt = Attempt {
            session,
            replaces,
            stored,
            unknown,
            was_resent: false,
            was_sent: false,
            dead: Credentials::default(),
            sends: self.me().sends(&session),
            stage: if is_second {
                Stage::Second
            } else {
                Stage::First
            },
        };
        match result {
            Ok(()) => {
                if let Some(unsaved) = self.me().unsaved.take() {
                    self.check_given_up(&unsaved.session, &session);
                }
                attempt.replaces = session.version;
                attempt.stored = self.me().would_send(Some(&session));
            }
            Err(SaveError::LeaseLost) => {
                self.saw(Event::FencedMark);
                return self.go(Step::Releasing(End::Again));
            }
            Err(SaveError::Store) if self.is_held() || self.has(Fault::NoMark) => {
                let looks = !self.has(Fault::NoMark) && !self.has(Fault::SendsUnmarkedUnchecked);
                if looks && !self.is_unchanged(&mut attempt) {
                    self.saw(Event::FencedMark);
                    return self.go(Step::Releasing(End::Again));
                }
                self.saw(Event::SentWithoutMark);
            }
            Err(SaveError::Store) => {
                return self.go(Step::Releasing(End::Failed { is_final: false }));
            }
        }
        // `check_held`
        let looks = !self.me().past.is_loss_unseen && !self.has(Fault::SendsAfterMarkWithoutLease);
        if looks && !self.is_held() {
            self.saw(Event::NoLeaseAfterMark);
            return self.go(Step::Releasing(End::Again));
        }
        self.me().past.is_overtaken = false;
        if is_second {
            self.saw(Event::SecondCredential);
        }
        let credential = self.me().credential_of(&attempt);
        let skipped = credential.filter(|it| self.me().is_declared_dead(&session, *it));
        if skipped.is_some() || credential.is_none() {
            attempt.dead = skipped.map_or(attempt.dead, |it| attempt.dead.with(it));
            self.failed(attempt, Failure::NotSent);
        } else {
            self.go(Step::Sending(attempt));
        }
    }

    /// The request leaves the process.
    pub(crate) fn send(&mut self) {
        let Step::Sending(mut attempt) = self.me().step else {
            return;
        };
        if let Some(credential) = self.me().credential_of(&attempt) {
            self.check_request(credential);
        }
        attempt.was_sent = true;
        self.me().past.is_overtaken = false;
        self.go(Step::Waiting(attempt, Answer::Pending));
    }

    /// The request arrives at the server, which answers.
    pub(crate) fn arrive(&mut self) {
        let Step::Waiting(attempt, Answer::Pending) = self.me().step else {
            return;
        };
        let Some(credential) = self.me().credential_of(&attempt) else {
            return;
        };
        let answer = match self
            .state
            .server
            .handle(credential, self.system.setup.reuse)
        {
            Some(new) => Answer::New(new),
            None => Answer::Dead,
        };
        if attempt.was_resent && answer != Answer::Dead {
            self.saw(Event::AcceptedAgain);
        }
        self.go(Step::Waiting(attempt, answer));
    }

    /// The process reads the answer.
    pub(crate) fn read(&mut self) {
        let Step::Waiting(mut attempt, answer) = self.me().step else {
            return;
        };
        match answer {
            Answer::Pending => {}
            Answer::New(refresh_token) => self.granted(&attempt, refresh_token),
            Answer::Dead => {
                if let Some(credential) = self.me().credential_of(&attempt) {
                    attempt.dead = attempt.dead.with(credential);
                    self.check_told_dead(credential, attempt.session.has_client);
                }
                self.failed(attempt, Failure::Dead);
            }
        }
    }

    /// No answer comes, or that of a gateway.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let Step::Waiting(mut attempt, answer) = self.me().step else {
            return;
        };
        let is_hidden = matches!(answer, Answer::New(_));
        if failure == Failure::Transport {
            let is_refresh_token =
                attempt.sends != Sends::Grant || !self.system.setup.grant_can_repeat;
            if is_hidden {
                self.saw(Event::AnswerLost);
            }
            if is_refresh_token && !attempt.was_resent {
                // `send_refresh_token`
                let is_unchanged = self.is_unchanged(&mut attempt);
                if !is_unchanged && !self.has(Fault::SendsAgainUnchecked) {
                    self.saw(Event::NotSentAgain);
                    return self.go(Step::Releasing(End::Again));
                }
                if !self.is_held() && !self.has(Fault::SendsAgainWithoutLease) {
                    self.saw(Event::NoLeaseToSendAgain);
                    return self.go(Step::Releasing(End::Again));
                }
                attempt.unknown = attempt.unknown.or(attempt.session.mark);
                attempt.was_resent = true;
                return self.go(Step::Sending(attempt));
            }
        } else if is_hidden {
            self.saw(Event::RotationHidden);
        }
        self.failed(attempt, failure);
    }

    /// `skips`: the grant was declared dead.
    fn skips_grant(&self, attempt: &Attempt) -> bool {
        let process = &self.state.processes[self.id];
        process.is_declared_dead(&attempt.session, process.config)
            && !self.has(Fault::SendsDeadGrant)
    }

    /// `is_unchanged`: no other process has saved since the mark.
    pub(crate) fn is_unchanged(&self, attempt: &mut Attempt) -> bool {
        let store = &self.state.store;
        if store.session == Some(attempt.session) {
            attempt.replaces = attempt.session.version;
            attempt.stored = self.state.processes[self.id].would_send(Some(&attempt.session));
        }
        store.version() == attempt.replaces
    }

    /// The rest of `refresh_under_lease`, after a request that has failed.
    pub(crate) fn failed(&mut self, mut attempt: Attempt, failure: Failure) {
        let system = self.system;
        let stored = self.state.store.session;
        if attempt.stage == Stage::First
            && failure.may_mean_dead()
            && let Some(stored) = stored
            && let credential = self.me().credential(&stored)
            && credential != self.me().credential(&attempt.session)
            && (!Process::is_before(&system.setup, &stored, &attempt.session)
                || (credential.is_some() && failure != Failure::Unexplained)
                || self.has(Fault::SendsEarlierAfterPage))
            && !self.me().is_superseded(credential)
        {
            if let Some(token) = self.adopt(Some(&stored)) {
                return self.go(Step::Releasing(End::Token(token)));
            }
            self.me().note_failed(&attempt.session, attempt.dead, false);
            if !self.me().may_use(&stored) {
                return self.go(Step::Releasing(End::Failed { is_final: true }));
            }
            if stored.version != attempt.replaces && stored.mark.is_some() {
                return self.go(Step::Releasing(End::Again));
            }
            let would_send = self.me().would_send(Some(&stored));
            return self.go(Step::Marking {
                session: stored,
                replaces: stored.version,
                stored: would_send,
                is_second: true,
            });
        }
        let may_mean_dead = failure.may_mean_dead()
            || (failure == Failure::Page && self.has(Fault::BeginsAnewOnAnyPage));
        if attempt.stage != Stage::Anew
            && may_mean_dead
            && self.me().can_begin_anew(&system.setup, &attempt.session)
            && !self.skips_grant(&attempt)
        {
            if !self.is_unchanged(&mut attempt) && !self.has(Fault::BeginsAnewUnchecked) {
                self.me().note_failed(&attempt.session, attempt.dead, false);
                return self.go(Step::Releasing(End::Again));
            }
            let looks =
                !self.has(Fault::BeginsAnewUnchecked) && !self.has(Fault::BeginsAnewWithoutLease);
            if looks && !self.is_held() {
                self.saw(Event::NoLeaseToBeginAnew);
                self.me().note_failed(&attempt.session, attempt.dead, false);
                return self.go(Step::Releasing(End::Again));
            }
            self.saw(Event::BegunAnew);
            self.state.history.has_guessed |= failure == Failure::Unexplained;
            attempt.sends = Sends::Grant;
            attempt.stage = Stage::Anew;
            return self.go(Step::Sending(attempt));
        }
        self.record_failure(&attempt, failure);
    }
}
