//! How a refresh ends: `src/source/outcome.rs`, and what the cache does with it.

use crate::{
    events::Event,
    run::{Failure, Run},
    session::{Credential, Credentials, Session},
    setup::Fault,
    step::{Attempt, End, Sends, Step},
    store::Saved,
};

impl Run<'_> {
    /// New tokens have come: the beginning of `save` in `outcome.rs`.
    pub(crate) fn granted(&mut self, attempt: &Attempt, refresh_token: Credential) {
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
        self.me().superseded = None;
        if self.has(Fault::PublishesBeforeSaving) {
            self.publish(refresh_token);
        }
        self.go(Step::Saving {
            session,
            replaces: attempt.replaces,
            stored: attempt.stored,
        });
    }

    /// `record_failure`.
    pub(crate) fn record_failure(&mut self, attempt: &Attempt, failure: Failure) {
        let is_settled = !attempt.was_sent || failure == Failure::Dead;
        let has_ended = !attempt.dead.is_empty() && attempt.session.has_client;
        let is_page = matches!(failure, Failure::Unexplained | Failure::Page);
        let is_final = matches!(failure, Failure::Dead | Failure::NotSent)
            || (is_page && self.has(Fault::EndsOnAnyPage));
        if failure != Failure::Transport || !attempt.dead.is_empty() {
            self.me()
                .note_failed(&attempt.session, attempt.dead, is_final);
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
        let Step::Saving {
            session,
            replaces,
            stored,
        } = self.me().step
        else {
            return;
        };
        let result = self.save_session(replaces, session, saved);
        if result.is_err() {
            self.me().supersede(stored, &session);
        }
        self.keep_unsaved(session, replaces, result);
        let end = session.refresh_token.map_or(End::Again, End::Token);
        self.go(Step::Releasing(end));
    }

    pub(crate) fn finish(&mut self, end: End) {
        self.go(Step::Idle);
        match end {
            End::Token(token) | End::LoggedIn(token) => {
                self.publish(token);
                self.me().is_dead = false;
            }
            End::LoginAgain(login) => self.go(Step::LoginWantsLease(login)),
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

    pub(crate) fn publish(&mut self, token: Credential) {
        self.check_published(token);
        self.me().published = Some(token);
    }
}
