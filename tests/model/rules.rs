//! What must hold in every state.

use crate::{
    events::Event,
    process::Process,
    run::Run,
    session::{Credential, Credentials, Session},
    state::{State, System},
    step::Step,
    store::Undo,
};

/// A rule that a step can break. Each has a name, and its exceptions are those that `guarantees.md` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    SpentToken,
    OneAtATime,
    SavedBeforeUse,
    LaterLoginStays,
    RevocationHolds,
    RevokedNotSent,
    DeadNotSent,
    ToldOnce,
    Agreement,
    OneFamily,
    NotGivenUp,
    GoesOn,
}

impl Rule {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SpentToken => "no process sends a refresh token if it could know a later one",
            Self::OneAtATime => "one process at a time sends a refresh token",
            Self::SavedBeforeUse => "a token is used after its session is saved",
            Self::LaterLoginStays => "an earlier login does not replace a later one",
            Self::RevocationHolds => "only a new login passes a revocation",
            Self::RevokedNotSent => "nothing of a revoked login is sent",
            Self::DeadNotSent => "nothing is sent that the store says is dead",
            Self::ToldOnce => "a process is told once that a credential is dead",
            Self::Agreement => "processes would send the same credential next",
            Self::OneFamily => "one token family of a login is in use",
            Self::NotGivenUp => "a session that can live is not given up",
            Self::GoesOn => "a session that can live goes on in every process",
        }
    }
}

/// A set of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Rules(u16);

impl Rules {
    pub(crate) fn contains(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u16) != 0
    }

    fn insert(&mut self, rule: Rule) {
        self.0 |= 1 << rule as u16;
    }
}

impl State {
    pub(crate) fn break_rule(&mut self, rule: Rule) {
        self.history.broken.insert(rule);
    }

    /// Saves `session`. Every write to the store comes here.
    pub(crate) fn write(&mut self, session: Session, system: &System) {
        let stored = self.store.session.replace(session);
        if self.left.failovers > 0 {
            self.store.undo = Undo::To(stored);
        }
        let used = self.history.used;
        let is_reliable = !self.is_store_unreliable(system);
        if let Some(stored) = stored {
            let is_known =
                used.contains(session.identity) || stored.former.contains(session.identity);
            let is_older = session.identity < stored.identity && is_known;
            if is_older && !self.history.has_failed_over {
                self.break_rule(Rule::LaterLoginStays);
            }
            if session.identity > stored.identity && stored.has_tokens() {
                system.saw(Event::LoginReplacesSession);
            }
            if stored.is_revoked && !session.is_revoked && session.has_tokens() {
                let login = self.server.login(session.identity);
                let is_old =
                    used.contains(session.identity) || self.history.revoked.contains(login);
                if is_old && is_reliable {
                    self.break_rule(Rule::RevocationHolds);
                }
                if !is_old {
                    system.saw(Event::LoginPassesRevocation);
                }
            }
        }
        if session.is_revoked {
            self.forget_dead_logins();
        }
        if let Some(refresh_token) = session.refresh_token {
            self.history.used = used.with(session.identity);
            self.history.saved = self.history.saved.with(refresh_token);
        }
    }

    /// The session after a revoked one, and an imported one, do not say which other logins are dead. Each may be sent once
    /// more.
    pub(crate) fn forget_dead_logins(&mut self) {
        self.history.declared = Credentials::default();
        for process in &mut self.processes {
            let told = &mut process.past.told_dead;
            for login in told.iter().filter(|it| self.server.login(*it) == *it) {
                *told = told.without(login);
            }
        }
    }

    /// The store says that the session of this login was revoked.
    pub(crate) fn note_revoked(&mut self, session: &Session) {
        let login = self.server.login(session.identity);
        self.history.revoked = self.history.revoked.with(login);
    }

    /// The store has lost a write. Or a lease has ended before its holder, and a save has failed as well: then two processes
    /// can be at work that do not see each other. Only the first rules hold in such a case.
    pub(crate) fn is_store_unreliable(&self, system: &System) -> bool {
        let (limits, left) = (&system.setup.limits, &self.left);
        let has_ended = left.ended_leases < limits.ended_leases;
        let has_failed = left.failed_saves < limits.failed_saves;
        self.history.has_failed_over || (has_ended && has_failed)
    }

    /// What the server has said of a credential may not be in the store: it could not be saved, or a process that has lost
    /// its lease has saved a session without it.
    fn may_have_lost_outcome(&self, system: &System) -> bool {
        let (limits, left) = (&system.setup.limits, &self.left);
        self.history.has_failed_over
            || left.failed_saves < limits.failed_saves
            || left.ended_leases < limits.ended_leases
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let is_idle = |process: &Process| process.step == Step::Idle;
        self.processes.iter().all(is_idle)
    }

    /// [`Rule::Agreement`]. Not of a process that cannot use what it would send.
    pub(crate) fn agrees(&self, system: &System) -> bool {
        let Some(stored) = self.store.session.filter(|it| !it.is_revoked) else {
            return true;
        };
        self.is_store_unreliable(system)
            || self.processes.iter().all(|process| {
                let next = process.credential(&process.newest(&system.setup, Some(&stored)));
                process.step != Step::Idle
                    || process.unsaved.is_some()
                    || next == process.credential(&stored)
                    || !next.is_some_and(|next| self.server.accepts(next))
            })
    }

    /// [`Rule::OneFamily`]. Not if a lease has ended before its holder, or if an unexplained 400 was taken for the end of the
    /// session before.
    pub(crate) fn has_one_family(&self, system: &System) -> bool {
        let has_exception = self.is_store_unreliable(system)
            || self.history.has_guessed
            || self.left.ended_leases < system.setup.limits.ended_leases;
        if has_exception {
            return true;
        }
        let stored = self.store.session.and_then(|stored| stored.refresh_token);
        let known = self.processes.iter().flat_map(Process::refresh_tokens);
        let published = self.processes.iter().filter_map(|it| it.published);
        let used = || known.clone().chain(published.clone()).chain(stored);
        let is_live = |it: &Credential| self.server.is_live_family(self.server.family(*it));
        used().filter(is_live).all(|a| {
            used().filter(is_live).all(|b| {
                self.server.login(a) != self.server.login(b)
                    || self.server.family(a) == self.server.family(b)
            })
        })
    }

    /// [`Rule::NotGivenUp`]. Not in a process whose own new login is dead: its error says so.
    pub(crate) fn gives_up_nothing(&self, system: &System) -> bool {
        let Some(stored) = self.store.session.filter(|it| !it.is_revoked) else {
            return true;
        };
        let is_live = stored
            .refresh_token
            .is_some_and(|it| self.server.accepts(it));
        !is_live
            || self.is_store_unreliable(system)
            || self.processes.iter().all(|process| {
                process.step != Step::Idle
                    || !process.is_dead
                    || process.is_new_login(&stored)
                    || process.has_changed(Some(&stored))
            })
    }
}

impl Run<'_> {
    /// The rules that a token request can break.
    pub(crate) fn check_request(&mut self, credential: Credential) {
        let state = &*self.state;
        let (server, history) = (&state.server, &state.history);
        let process = &state.processes[self.id];
        let others = || {
            let processes = state.processes.iter().enumerate();
            processes.filter(|(id, _)| *id != self.id).map(|(_, it)| it)
        };
        let mut broken = Vec::new();

        // A process that was suspended exactly between its mark and its request, for longer than its lease, and a store
        // that has lost a write: no client can prevent either.
        let is_excused = process.past.is_overtaken || history.has_failed_over;
        // Nor about a process that has lost its lease before it could save, nor about one that has lost its lease before its
        // mark, while the one with the lease can save nothing.
        let holders = others().filter(|other| {
            let is_hidden = process.past.is_loss_unseen && other.could_not_save();
            !other.past.has_lost_lease && !is_hidden
        });
        let is_later = |it: Credential| server.is_successor(it, credential);
        // If the server has said that the later one is dead, there is nothing to lose.
        let is_usable = |it: Credential| is_later(it) && !process.past.told_dead.contains(it);
        let knows = process.refresh_tokens().any(is_usable)
            || (!is_excused && history.saved.iter().any(is_usable))
            || (!is_excused
                && holders
                    .clone()
                    .filter_map(|it| it.unsaved_in_its_lease(state.store.session.as_ref()))
                    .filter_map(|it| it.refresh_token)
                    .any(is_later));
        if knows {
            broken.push(Rule::SpentToken);
        }
        let is_sent_by_another = holders.clone().any(|other| match &other.step {
            Step::Waiting(attempt, _) => other.credential_of(attempt) == Some(credential),
            _ => false,
        });
        if is_sent_by_another && !is_excused {
            broken.push(Rule::OneAtATime);
        }
        let is_excused = is_excused || state.is_store_unreliable(self.system);
        if history.revoked.contains(server.login(credential)) && !is_excused {
            broken.push(Rule::RevokedNotSent);
        }
        // What could not be saved is not known to others.
        let is_excused =
            is_excused || self.state.left.ended_leases < self.system.setup.limits.ended_leases;
        if history.declared.contains(credential) && !is_excused {
            broken.push(Rule::DeadNotSent);
        }
        for rule in broken {
            self.state.break_rule(rule);
        }
    }

    /// The server has declared `credential` dead. Not a second time, unless that could not be saved, or another process has
    /// marked the session because the lease was lost.
    ///
    /// `is_recorded` says that the session has a client. One that was imported has none, and nothing is saved of what the
    /// server says of another login.
    pub(crate) fn check_told_dead(&mut self, credential: Credential, is_recorded: bool) {
        let is_excused = self.state.may_have_lost_outcome(self.system);
        let told = self.me().past.told_dead;
        if told.contains(credential) && !is_excused {
            self.state.break_rule(Rule::ToldOnce);
        }
        if is_recorded {
            self.me().past.told_dead = told.with(credential);
        }
    }

    /// The cache gives `token` to callers.
    pub(crate) fn check_published(&mut self, token: Credential) {
        let unsaved = self.me().unsaved.and_then(|it| it.session.refresh_token);
        if !self.state.history.saved.contains(token) && unsaved != Some(token) {
            self.state.break_rule(Rule::SavedBeforeUse);
        }
    }
}
