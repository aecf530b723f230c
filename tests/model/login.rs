//! A login in a running process: `src/source/login.rs`.

use crate::{
    events::Event,
    process::Process,
    rules::Rule,
    run::Run,
    session::{Credential, Credentials, Session},
    setup::Fault,
    step::{End, Step},
    store::{SaveError, Saved},
};

impl Run<'_> {
    /// `take_under_lease` until it saves.
    pub(crate) fn take_under_lease(&mut self, login: Credential) {
        self.take_lease();
        let (stored, newest) = (self.state.store.session, self.me().newest);
        let replaces = stored.map_or(0, |stored| stored.version);
        let configured = self.me().config;
        let mut session = Session::of_login(login, stored.iter().chain(&newest), configured);
        if self.has(Fault::LoginForgetsFormerIdentities) {
            session.former = Credentials::default();
        }
        self.go(Step::SavingLogin {
            session: session.at(replaces + 1),
            replaces,
            stored: self.state.processes[self.id].would_send(stored.as_ref()),
        });
    }

    /// The save of `take_under_lease`, and what comes of it.
    pub(crate) fn save_login(&mut self, saved: Saved) {
        let Step::SavingLogin {
            session,
            replaces,
            stored,
        } = self.me().step
        else {
            return;
        };
        // A login may replace what says that others are dead.
        let result = self.save_session(replaces, session, saved);
        if self.state.store.session == Some(session) {
            self.state.forget_dead_logins();
        }
        if result == Err(SaveError::LeaseLost) {
            self.saw(Event::FencedLogin);
            return self.go(Step::Releasing(End::LoginAgain(session.identity)));
        }
        self.go_on_with(&session);
        if result.is_ok() {
            self.saw(Event::LoginTaken);
            self.me().unsaved = None;
            self.me().past.has_lost_lease = false;
            self.me().supersede(None, &session);
        } else {
            self.saw(Event::LoginUnsaved);
            self.me().supersede(stored, &session);
            if !self.has(Fault::ForgetsUnsavedLogin) {
                self.keep_unsaved(session, replaces, result);
            }
        }
        self.go(Step::Releasing(End::LoggedIn(session.identity)));
    }

    /// `go_on_with`.
    fn go_on_with(&mut self, session: &Session) {
        let system = self.system;
        let is_later = |newest: Session| Process::is_before(&system.setup, session, &newest);
        if !self.me().newest.is_some_and(is_later) {
            self.me().newest = Some(*session);
        }
        self.me().failed = None;
    }

    /// `unsaved` is not saved any more, because `session` is in the store. It must not be of an earlier login, as far as
    /// that is known, unless `unsaved` is dead.
    pub(crate) fn check_given_up(&mut self, unsaved: &Session, session: &Session) {
        let told_dead = self.me().past.told_dead;
        let is_dead = unsaved
            .refresh_token
            .is_some_and(|it| told_dead.contains(it));
        let is_later = unsaved.former.contains(session.identity);
        if is_later && !is_dead && !session.former.contains(unsaved.identity) {
            self.state.break_rule(Rule::LaterLoginStays);
        }
    }
}
