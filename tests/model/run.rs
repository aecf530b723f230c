//! What a process does next: `src/source/refresh.rs`, `attempt.rs`, `outcome.rs`, `unsaved.rs` and `revoke.rs`.
//!
//! A function here is one step: it contains at most one operation that others can see, and whatever the process does
//! before and after it alone.

use crate::{
    process::{Answer, Attempt, End, Failed, Process, Sends, Stage, Step, Unsaved},
    rules::Event,
    session::{Credential, Credentials, Session},
    setup::Fault,
    state::{State, System},
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

    fn has(&self, fault: Fault) -> bool {
        self.system.setup.has(fault)
    }

    fn saw(&self, event: Event) {
        self.system.saw(event);
    }

    fn go(&mut self, step: Step) {
        self.me().step = step;
    }

    fn adopt(&mut self, stored: Option<&Session>) -> Option<Credential> {
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

    /// Whether `take_lease` of `unsaved.rs` would return.
    pub(crate) fn can_take_lease(&self) -> bool {
        let lease = self.state.store.lease;
        lease.is_none() || lease == Some(self.number())
    }

    fn take_lease(&mut self) {
        let number = self.number();
        if !self.me().has_lease || self.state.store.lease != Some(number) {
            self.state.store.lease = Some(number);
            self.me().has_lease = true;
            self.me().past.has_lost_lease = false;
        }
    }

    fn release_lease(&mut self) {
        if self.state.store.lease == Some(self.number()) {
            self.state.store.lease = None;
        }
        self.me().has_lease = false;
    }

    #[allow(clippy::cast_possible_truncation, reason = "there are at most three")]
    fn number(&self) -> u8 {
        self.id as u8
    }

    fn is_held(&self) -> bool {
        self.state.store.lease == Some(self.number())
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
        self.go(Step::Marking {
            session,
            replaces: stored.map_or(0, |stored| stored.version),
            is_second: false,
        });
    }

    /// `mark`.
    pub(crate) fn mark(&mut self, saved: Saved) {
        let Step::Marking {
            session,
            replaces,
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
        let replaces = match result {
            Ok(()) => {
                self.me().unsaved = None;
                session.version
            }
            Err(SaveError::LeaseLost) => {
                self.saw(Event::FencedMark);
                return self.go(Step::Releasing(End::Again));
            }
            Err(SaveError::Store)
                if self.is_held()
                    && self.state.store.version() != replaces
                    && saved == Saved::No
                    && !self.has(Fault::SendsUnmarkedUnchecked) =>
            {
                self.saw(Event::FencedMark);
                return self.go(Step::Releasing(End::Again));
            }
            Err(SaveError::Store) if self.is_held() || self.has(Fault::NoMark) => {
                self.saw(Event::SentWithoutMark);
                replaces
            }
            Err(SaveError::Store) => {
                return self.go(Step::Releasing(End::Failed { is_final: false }));
            }
        };
        self.me().past.is_overtaken = false;
        let attempt = Attempt {
            session,
            replaces,
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
        if is_second {
            self.saw(Event::SecondCredential);
        }
        let is_skipped = self
            .me()
            .credential_of(&attempt)
            .is_none_or(|credential| session.says_is_dead(credential));
        if is_skipped {
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

    /// New tokens have come: the beginning of `save` in `outcome.rs`.
    fn granted(&mut self, attempt: &Attempt, refresh_token: Credential) {
        let session = match attempt.sends {
            Sends::Grant => {
                let mut session = Session::begin(self.me().config, Some(&attempt.session));
                if self.has(Fault::ForgetsFormerIdentities) {
                    session.former = Credentials::default();
                }
                session.of_client()
            }
            Sends::RefreshToken(_) | Sends::Nothing => attempt.session,
        };
        let mut session = session.at(attempt.replaces).merged(refresh_token);
        let sent = self.me().credential_of(attempt);
        for gone in sent.into_iter().chain(attempt.session.refresh_token) {
            session.ended = session.ended.without(gone);
        }
        if self.has(Fault::ForgetsDeadLogins) {
            session.ended = Credentials::default();
        }
        self.me().newest = Some(session);
        self.me().failed = None;
        if self.has(Fault::PublishesBeforeSaving) {
            self.publish(refresh_token);
        }
        self.go(Step::Saving {
            session,
            replaces: attempt.replaces,
        });
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
                if !self.is_unchanged(&attempt) && !self.has(Fault::SendsAgainUnchecked) {
                    self.saw(Event::NotSentAgain);
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

    /// `is_unchanged`: no other process has saved since the mark.
    fn is_unchanged(&self, attempt: &Attempt) -> bool {
        let store = &self.state.store;
        store.version() == attempt.replaces || store.session == Some(attempt.session)
    }

    /// The rest of `refresh_under_lease`, after a request that has failed.
    fn failed(&mut self, mut attempt: Attempt, failure: Failure) {
        let system = self.system;
        let stored = self.state.store.session;
        if attempt.stage == Stage::First
            && failure.may_mean_dead()
            && let Some(stored) = stored
            && self.me().credential(&stored) != self.me().credential(&attempt.session)
            && (failure != Failure::Unexplained
                || !Process::is_before(&system.setup, &stored, &attempt.session)
                || self.has(Fault::SendsEarlierAfterPage))
        {
            if let Some(token) = self.adopt(Some(&stored)) {
                return self.go(Step::Releasing(End::Token(token)));
            }
            if !self.me().may_use(&stored) {
                return self.go(Step::Releasing(End::Failed { is_final: true }));
            }
            if stored.version != attempt.replaces && stored.mark.is_some() {
                return self.go(Step::Releasing(End::Again));
            }
            return self.go(Step::Marking {
                session: stored,
                replaces: stored.version,
                is_second: true,
            });
        }
        let may_mean_dead = failure.may_mean_dead()
            || (failure == Failure::Page && self.has(Fault::BeginsAnewOnAnyPage));
        if attempt.stage != Stage::Anew
            && may_mean_dead
            && self.me().can_begin_anew(&system.setup, &attempt.session)
        {
            if !self.is_unchanged(&attempt) && !self.has(Fault::BeginsAnewUnchecked) {
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

    /// `record_failure`.
    fn record_failure(&mut self, attempt: &Attempt, failure: Failure) {
        let is_settled = !attempt.was_sent || failure == Failure::Dead;
        let has_ended = !attempt.dead.is_empty() && attempt.session.has_client;
        let is_page = matches!(failure, Failure::Unexplained | Failure::Page);
        let is_final = matches!(failure, Failure::Dead | Failure::NotSent)
            || (is_page && self.has(Fault::EndsOnAnyPage));
        if failure != Failure::Transport {
            let credential = self.me().credential(&attempt.session);
            self.me().failed = Some(Failed {
                generation: attempt.session.generation,
                credential: credential.unwrap_or(self.me().config),
                is_final,
            });
        }
        if !is_settled && !has_ended {
            return self.go(Step::Releasing(End::Failed { is_final }));
        }
        let mark = if is_settled {
            attempt.unknown
        } else {
            attempt.session.mark
        };
        let mut outcome = attempt.session.settled(mark);
        if has_ended {
            outcome = outcome.with_dead(attempt.dead);
        }
        self.go(Step::Recording {
            outcome,
            replaces: attempt.replaces,
            is_final,
        });
    }

    /// The save of `record_failure`.
    pub(crate) fn record(&mut self, saved: Saved) {
        let Step::Recording {
            mut outcome,
            replaces,
            is_final,
        } = self.me().step
        else {
            return;
        };
        let declared = outcome.ended;
        if self.has(Fault::ForgetsDeadCredentials) {
            outcome.ended = Credentials::default();
        }
        if self.save_session(replaces, outcome, saved).is_ok() {
            let history = &mut self.state.history;
            history.declared = history.declared.union(declared);
            if !declared.is_empty() {
                self.saw(Event::DeadRecorded);
            }
        }
        self.go(Step::Releasing(End::Failed { is_final }));
    }

    /// The save of `save` in `outcome.rs`.
    pub(crate) fn save(&mut self, saved: Saved) {
        let Step::Saving { session, replaces } = self.me().step else {
            return;
        };
        let result = self.save_session(replaces, session, saved);
        self.keep_unsaved(session, replaces, result);
        let end = session.refresh_token.map_or(End::Again, End::Token);
        self.go(Step::Releasing(end));
    }

    fn keep_unsaved(&mut self, session: Session, replaces: u8, result: Result<(), SaveError>) {
        if result == Err(SaveError::LeaseLost) {
            self.saw(Event::FencedSave);
        }
        let is_held = self.is_held();
        self.me().unsaved = result.err().map(|error| Unsaved {
            session,
            replaces,
            is_lease_lost: error == SaveError::LeaseLost && !is_held,
        });
        if result.is_ok() {
            self.me().past.has_lost_lease = false;
        }
    }

    /// `put_back`, and what the cache does with the result.
    pub(crate) fn release(&mut self) {
        let Step::Releasing(end) = self.me().step else {
            return;
        };
        let is_lost = matches!(end, End::Again | End::RevokeAgain);
        let has_lost = is_lost && (!self.is_held() || self.has(Fault::ReleasesWhenOvertaken));
        let keeps = self.me().unsaved.is_some_and(|it| !it.is_lease_lost)
            && !has_lost
            && !self.has(Fault::ReleasesWhileUnsaved);
        if !keeps {
            self.release_lease();
        }
        if let Some(unsaved) = &mut self.state.processes[self.id].unsaved
            && !self.system.setup.has(Fault::KeepsNoSecondLease)
        {
            unsaved.is_lease_lost = false;
        }
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        self.go(Step::Idle);
        match end {
            End::Token(token) => {
                self.publish(token);
                self.me().is_dead = false;
            }
            End::Failed { is_final } => self.me().is_dead = is_final,
            End::Again => self.begin(),
            End::Revoked => {
                self.me().published = None;
                self.me().is_dead = true;
            }
            End::NotRevoked => {}
            End::RevokeAgain => self.go(Step::RevocationWantsLease),
        }
    }

    fn publish(&mut self, token: Credential) {
        self.check_published(token);
        self.me().published = Some(token);
    }

    /// Whether `LeaseSlot::save` in `unsaved.rs` has something to do, and would not wait for the lease.
    pub(crate) fn can_save_in_background(&self) -> bool {
        let process = &self.state.processes[self.id];
        let Some(unsaved) = &process.unsaved else {
            return false;
        };
        let is_accepted = self.state.store.accepts(unsaved.replaces, &unsaved.session);
        process.step == Step::Idle && (self.can_take_lease() || (process.has_lease && is_accepted))
    }

    /// `LeaseSlot::save`.
    pub(crate) fn save_in_background(&mut self) {
        let Some(mut unsaved) = self.me().unsaved else {
            return;
        };
        if !self.me().has_lease {
            self.take_lease();
        }
        let store = &self.state.store;
        let stored = store.session;
        if store.accepts(unsaved.replaces, &unsaved.session) {
            self.write(unsaved.session);
            self.saw(Event::SavedInBackground);
        } else {
            self.take_lease();
            let is_newer = stored
                .is_none_or(|it| Process::is_before(&self.system.setup, &it, &unsaved.session));
            if is_newer || self.has(Fault::SavesInBackgroundOverAnything) {
                let replaces = self.state.store.version();
                unsaved.session = unsaved.session.at(replaces + 1);
                self.write(unsaved.session);
                self.saw(Event::SavedInBackground);
            } else {
                self.saw(Event::NotSavedInBackground);
            }
        }
        let is_stored = self.state.store.session == Some(unsaved.session);
        if is_stored && unsaved.session.is_revoked {
            self.state.note_revoked(&unsaved.session);
        }
        self.me().unsaved = None;
        self.me().past.has_lost_lease = false;
        self.release_lease();
    }

    /// `revoke_under_lease` until it sends something.
    pub(crate) fn revoke_under_lease(&mut self) {
        self.take_lease();
        let (system, stored) = (self.system, self.state.store.session);
        let replaces = stored.map_or(0, |stored| stored.version);
        let session = self.me().newest(&system.setup, stored.as_ref());
        if self.me().is_revoked(&session) {
            if stored.is_some_and(|stored| stored.is_revoked) {
                return self.go(Step::Releasing(End::Revoked));
            }
            return self.go(Step::SavingRevoked {
                session: session.at(replaces + 1),
                replaces,
            });
        }
        // `tokens_of`
        let mut tokens = Credentials::default();
        if let Some(refresh_token) = session.refresh_token {
            tokens = tokens.with(refresh_token);
        }
        if self.me().sends(&session) == Sends::Grant && !system.setup.grant_can_repeat {
            tokens = tokens.with(self.me().config);
        }
        self.go(Step::Revoking {
            session,
            replaces,
            tokens,
        });
    }

    /// The server revokes the tokens, and its answer is read.
    pub(crate) fn revoke_tokens(&mut self, is_answered: bool) {
        let Step::Revoking {
            session,
            replaces,
            tokens,
        } = self.me().step
        else {
            return;
        };
        for token in 0..=self.state.server.last() {
            if tokens.contains(token) {
                self.state.server.revoke(token);
            }
        }
        if !is_answered {
            return self.go(Step::Releasing(End::NotRevoked));
        }
        let config = self.me().config;
        let session = if self.me().is_new_login(&session) {
            Session::begin(config, Some(&session))
        } else {
            session
        };
        let credentials = tokens.with(session.identity);
        let session = session.at(replaces).of_client().revoked(credentials);
        self.me().newest = Some(session);
        self.me().failed = Some(Failed {
            generation: session.generation,
            credential: config,
            is_final: true,
        });
        self.go(Step::SavingRevoked { session, replaces });
    }

    /// `save_revoked`.
    pub(crate) fn save_revoked(&mut self, saved: Saved) {
        let Step::SavingRevoked { session, replaces } = self.me().step else {
            return;
        };
        let result = if self.has(Fault::RevokesInMemoryOnly) {
            Ok(())
        } else {
            self.save_session(replaces, session, saved)
        };
        self.keep_unsaved(session, replaces, result);
        let end = match result {
            Ok(()) => {
                self.state.note_revoked(&session);
                self.saw(Event::RevocationSaved);
                End::Revoked
            }
            Err(SaveError::LeaseLost) => End::RevokeAgain,
            Err(SaveError::Store) => End::NotRevoked,
        };
        self.go(Step::Releasing(end));
    }

    /// `save_repeatedly`.
    fn save_session(
        &mut self,
        replaces: u8,
        session: Session,
        saved: Saved,
    ) -> Result<(), SaveError> {
        let is_accepted = self.state.store.accepts(replaces, &session);
        if saved == Saved::No {
            return Err(SaveError::Store);
        }
        if !is_accepted && !self.has(Fault::SavesWithoutVersion) {
            return Err(SaveError::LeaseLost);
        }
        self.write(session);
        match saved {
            Saved::Unknown => Err(SaveError::Store),
            Saved::Yes | Saved::No => Ok(()),
        }
    }

    fn write(&mut self, session: Session) {
        let lease = self.state.store.lease;
        for (number, process) in (0..).zip(&mut self.state.processes) {
            let Step::Sending(attempt) = &process.step else {
                continue;
            };
            // A lease that was extended after it had ended protects nothing.
            let is_held = lease == Some(number) && !process.past.has_lost_lease;
            let is_protected = is_held && attempt.is_marked();
            process.past.is_overtaken |= usize::from(number) != self.id && !is_protected;
        }
        self.state.write(session, self.system);
    }
}
