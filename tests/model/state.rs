//! The whole system, and everything that can happen next.

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use stateright::{Model, Property, Representative};

use crate::{
    process::{Answer, Process, Step},
    rules::{Event, Rule, Rules},
    run::{Failure, Run},
    server::Server,
    session::{Credential, Credentials, Session},
    setup::{Limits, Setup},
    store::{Saved, Store, Undo},
};

pub(crate) const MAX_PROCESSES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) server: Server,
    pub(crate) store: Store,
    pub(crate) processes: [Process; MAX_PROCESSES],
    /// The credential of the last login that is to be configured.
    pub(crate) login: Credential,
    /// The last access token that has expired.
    pub(crate) expired: Option<Credential>,
    /// A request whose sender has died or given up.
    pub(crate) late: Option<Credential>,
    pub(crate) left: Limits,
    pub(crate) history: History,
}

/// What has happened, as far as a rule or its exceptions need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    /// The logins that have begun a session.
    pub(crate) used: Credentials,
    /// The refresh tokens that were saved.
    pub(crate) saved: Credentials,
    /// The credentials that the store has said are dead.
    pub(crate) declared: Credentials,
    /// The logins whose session was revoked, and that was saved.
    pub(crate) revoked: Credentials,
    /// The store has lost a write.
    pub(crate) has_failed_over: bool,
    /// An unexplained 400 was taken for the end of the session.
    pub(crate) has_guessed: bool,
    pub(crate) broken: Rules,
}

/// What can happen. The number is that of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A caller needs a token other than the one in use.
    Refresh(usize),
    /// A request was rejected, and the process may only adopt.
    Look(usize),
    TakeLease(usize),
    Mark(usize, Saved),
    Send(usize),
    Arrive(usize),
    Read(usize),
    /// The request or its answer is lost.
    Lose(usize),
    /// The process gives up, and the request arrives later.
    GiveUp(usize),
    /// A gateway answers: 400, or another status.
    Page(usize, bool),
    Save(usize, Saved),
    Record(usize, Saved),
    Release(usize),
    SaveInBackground(usize),
    Crash(usize),
    /// The same, and its request arrives later.
    CrashAndSend(usize),
    Revoke(usize),
    RevokeTokens(usize, bool),
    SaveRevoked(usize, Saved),
    /// The process starts again with the new login.
    Deploy(usize),
    EndLease(usize),
    /// A lease that has ended, and that no other process has, is extended again.
    ExtendLease(usize),
    ArriveLate,
    LogIn,
    Import,
    FailOver,
    Expire,
    EndGrace,
    EndFamily,
}

/// The model, and what was seen while it was explored.
pub(crate) struct System {
    pub(crate) setup: Setup,
    /// What must be seen.
    pub(crate) events: &'static [Event],
    seen: AtomicU32,
}

impl System {
    pub(crate) fn new(setup: Setup, events: &'static [Event]) -> Self {
        Self {
            setup,
            events,
            seen: AtomicU32::new(0),
        }
    }

    pub(crate) fn saw(&self, event: Event) {
        // Written once: the threads of the checker share it.
        if !self.has_seen(event) {
            self.seen.fetch_or(1 << event as u32, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_seen(&self, event: Event) -> bool {
        self.seen.load(Ordering::Relaxed) & (1 << event as u32) != 0
    }

    pub(crate) fn first_state(&self) -> State {
        let mut server = Server::default();
        let login = server.log_in(self.setup.grant_can_repeat);
        State {
            server,
            store: Store::default(),
            processes: [Process::new(login); MAX_PROCESSES],
            login,
            expired: None,
            late: None,
            left: self.setup.limits,
            history: History::default(),
        }
    }

    fn process_actions(&self, state: &State, id: usize, actions: &mut Vec<Action>) {
        let (process, left) = (&state.processes[id], &state.left);
        let mut copy = *state;
        let run = Run {
            system: self,
            state: &mut copy,
            id,
        };
        let save = |actions: &mut Vec<Action>, save: fn(usize, Saved) -> Action| {
            actions.push(save(id, Saved::Yes));
            if left.failed_saves > 0 {
                actions.push(save(id, Saved::No));
                actions.push(save(id, Saved::Unknown));
            }
        };
        match &process.step {
            Step::Idle => {
                let stored = state.store.session.as_ref();
                if left.refreshes > 0 && (!process.is_dead || process.has_changed(stored)) {
                    actions.push(Action::Refresh(id));
                }
                if process.is_dead && process.published.is_some() {
                    actions.push(Action::Look(id));
                }
                if left.revocations > 0 {
                    actions.push(Action::Revoke(id));
                }
                if run.can_save_in_background() {
                    actions.push(Action::SaveInBackground(id));
                }
                if process.config != state.login && process.unsaved.is_none() {
                    actions.push(Action::Deploy(id));
                }
            }
            Step::WantsLease | Step::RevocationWantsLease => {
                if run.can_take_lease() {
                    actions.push(Action::TakeLease(id));
                }
            }
            Step::Marking { .. } => save(actions, Action::Mark),
            Step::Sending(_) => actions.push(Action::Send(id)),
            Step::Waiting(_, answer) => {
                if *answer == Answer::Pending {
                    actions.push(Action::Arrive(id));
                    if left.late_requests > 0 && state.late.is_none() {
                        actions.push(Action::GiveUp(id));
                    }
                } else {
                    actions.push(Action::Read(id));
                }
                if left.losses > 0 {
                    actions.push(Action::Lose(id));
                }
                if left.pages > 0 {
                    actions.push(Action::Page(id, true));
                    actions.push(Action::Page(id, false));
                }
            }
            Step::Saving { .. } => save(actions, Action::Save),
            Step::Recording { .. } => save(actions, Action::Record),
            Step::Releasing(_) => actions.push(Action::Release(id)),
            Step::Revoking { .. } => {
                actions.push(Action::RevokeTokens(id, true));
                if left.losses > 0 {
                    actions.push(Action::RevokeTokens(id, false));
                }
            }
            Step::SavingRevoked { .. } => save(actions, Action::SaveRevoked),
        }
        let is_new = *process == Process::new(process.config);
        if left.crashes > 0 && !is_new {
            actions.push(Action::Crash(id));
            let is_pending = matches!(process.step, Step::Waiting(_, Answer::Pending));
            if is_pending && left.late_requests > 0 && state.late.is_none() {
                actions.push(Action::CrashAndSend(id));
            }
        }
        if process.has_lease {
            if state.store.lease.is_none() {
                actions.push(Action::ExtendLease(id));
            } else if left.ended_leases > 0 && run.can_take_lease() {
                actions.push(Action::EndLease(id));
            }
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "there are at most three processes"
    )]
    pub(crate) fn apply(&self, state: &mut State, action: Action) {
        match action {
            Action::Refresh(id) => {
                state.left.refreshes -= 1;
                self.run(state, id).begin();
            }
            Action::Look(id) => self.run(state, id).look(),
            Action::TakeLease(id) => {
                if state.processes[id].step == Step::WantsLease {
                    self.run(state, id).refresh_under_lease();
                } else {
                    self.run(state, id).revoke_under_lease();
                }
            }
            Action::Mark(id, saved) => {
                state.count_save(saved);
                self.run(state, id).mark(saved);
            }
            Action::Send(id) => self.run(state, id).send(),
            Action::Arrive(id) => self.run(state, id).arrive(),
            Action::Read(id) => self.run(state, id).read(),
            Action::Lose(id) => {
                state.left.losses -= 1;
                self.run(state, id).fail(Failure::Transport);
            }
            Action::GiveUp(id) => {
                state.send_late(id);
                self.run(state, id).fail(Failure::Transport);
            }
            Action::Page(id, is_400) => {
                state.left.pages -= 1;
                let failure = if is_400 {
                    Failure::Unexplained
                } else {
                    Failure::Page
                };
                self.run(state, id).fail(failure);
            }
            Action::Save(id, saved) => {
                state.count_save(saved);
                self.run(state, id).save(saved);
            }
            Action::Record(id, saved) => {
                state.count_save(saved);
                self.run(state, id).record(saved);
            }
            Action::Release(id) => self.run(state, id).release(),
            Action::SaveInBackground(id) => self.run(state, id).save_in_background(),
            Action::Crash(id) => {
                state.left.crashes -= 1;
                state.restart(id, state.processes[id].config);
            }
            Action::CrashAndSend(id) => {
                state.left.crashes -= 1;
                state.send_late(id);
                state.restart(id, state.processes[id].config);
            }
            Action::Revoke(id) => {
                state.left.revocations -= 1;
                state.processes[id].step = Step::RevocationWantsLease;
            }
            Action::RevokeTokens(id, is_answered) => {
                if !is_answered {
                    state.left.losses -= 1;
                }
                self.run(state, id).revoke_tokens(is_answered);
            }
            Action::SaveRevoked(id, saved) => {
                state.count_save(saved);
                self.run(state, id).save_revoked(saved);
            }
            Action::Deploy(id) => state.restart(id, state.login),
            Action::EndLease(id) => {
                state.left.ended_leases -= 1;
                state.store.lease = None;
                state.processes[id].past.has_lost_lease = true;
            }
            Action::ExtendLease(id) => state.store.lease = Some(id as u8),
            action => self.apply_other(state, action),
        }
    }

    /// What happens outside of the processes.
    fn apply_other(&self, state: &mut State, action: Action) {
        match action {
            Action::ArriveLate => {
                if let Some(credential) = state.late.take() {
                    state.server.handle(credential, self.setup.reuse);
                    self.saw(Event::LateRequest);
                }
            }
            Action::LogIn => {
                state.left.logins -= 1;
                state.login = state.server.log_in(self.setup.grant_can_repeat);
            }
            Action::Import => {
                state.left.imports -= 1;
                let refresh_token = state.server.log_in(false);
                state.forget_dead_logins();
                let session = Session::import(refresh_token, state.store.session.as_ref());
                state.write(session, self);
            }
            Action::FailOver => {
                state.left.failovers -= 1;
                if let Undo::To(before) = std::mem::take(&mut state.store.undo) {
                    state.store.session = before;
                    state.history.has_failed_over = true;
                    self.saw(Event::LostWrite);
                }
            }
            Action::Expire => {
                state.left.expiries -= 1;
                state.expired = Some(state.server.last());
            }
            Action::EndGrace => {
                state.left.grace_ends -= 1;
                state.server.end_grace();
            }
            Action::EndFamily => {
                state.left.ended_families -= 1;
                if let Some(refresh_token) = state.store.session.and_then(|it| it.refresh_token) {
                    state.server.end_family(refresh_token);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn run<'a>(&'a self, state: &'a mut State, id: usize) -> Run<'a> {
        Run {
            system: self,
            state,
            id,
        }
    }
}

impl State {
    fn count_save(&mut self, saved: Saved) {
        if saved != Saved::Yes {
            self.left.failed_saves -= 1;
        }
    }

    /// The request of this process is still on its way when the process does not wait for it any more.
    fn send_late(&mut self, id: usize) {
        let process = &self.processes[id];
        if let Step::Waiting(attempt, _) = &process.step {
            self.late = process.credential_of(attempt);
        }
        self.left.late_requests -= 1;
    }

    /// The process ends, and another one starts in its place.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "there are at most three processes"
    )]
    fn restart(&mut self, id: usize, config: Credential) {
        if self.store.lease == Some(id as u8) {
            self.store.lease = None;
        }
        self.processes[id] = Process::new(config);
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for id in 0..self.setup.processes {
            self.process_actions(state, id, actions);
        }
        let left = &state.left;
        let has_session = state.store.session.is_some();
        let others = [
            (state.late.is_some(), Action::ArriveLate),
            (left.logins > 0, Action::LogIn),
            (
                left.imports > 0 && has_session && state.store.lease.is_none(),
                Action::Import,
            ),
            (
                left.failovers > 0 && state.store.undo != Undo::Impossible,
                Action::FailOver,
            ),
            (
                left.expiries > 0 && state.expired != Some(state.server.last()),
                Action::Expire,
            ),
            (
                left.grace_ends > 0 && state.server.has_grace(),
                Action::EndGrace,
            ),
            (left.ended_families > 0 && has_session, Action::EndFamily),
        ];
        actions.extend(others.iter().filter(|it| it.0).map(|it| it.1));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.apply(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! never_broken {
            ($($rule:ident),*) => {
                [$(Property::always(Rule::$rule.name(), |_: &Self, state: &State| {
                    !state.history.broken.contains(Rule::$rule)
                })),*]
            };
        }
        macro_rules! seen {
            ($($event:ident),*) => {
                [$((Event::$event, Property::sometimes(Event::$event.name(), |system: &Self, _: &State| {
                    system.has_seen(Event::$event)
                }))),*]
            };
        }
        let steps = never_broken![
            SpentToken,
            OneAtATime,
            SavedBeforeUse,
            LaterLoginStays,
            RevocationHolds,
            RevokedNotSent,
            DeadNotSent,
            ToldOnce
        ];
        let states = [
            Property::always(Rule::Agreement.name(), |system: &Self, state: &State| {
                state.agrees(system)
            }),
            Property::always(Rule::OneFamily.name(), |system: &Self, state: &State| {
                state.has_one_family(system)
            }),
            Property::always(Rule::NotGivenUp.name(), |system: &Self, state: &State| {
                state.gives_up_nothing(system)
            }),
            Property::always(Rule::GoesOn.name(), |system: &Self, state: &State| {
                state.goes_on(system)
            }),
        ];
        let events = seen![
            Adopted,
            AnswerLost,
            AcceptedAgain,
            NotSentAgain,
            FencedMark,
            FencedSave,
            SentWithoutMark,
            SavedInBackground,
            NotSavedInBackground,
            SecondCredential,
            BegunAnew,
            RotationHidden,
            DeadRecorded,
            NotSent,
            RevocationSaved,
            LoginPassesRevocation,
            LoginReplacesSession,
            LateRequest,
            LostWrite,
            GoesOn
        ];
        let events = events
            .into_iter()
            .filter(|(event, _)| self.events.contains(event))
            .map(|(_, property)| property);
        steps.into_iter().chain(states).chain(events).collect()
    }

    fn format_action(&self, action: &Action) -> String {
        format!("{action:?}")
    }
}

/// Processes have no names: states that differ only in their order are one.
impl Representative for State {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "there are at most three processes"
    )]
    fn representative(&self) -> Self {
        let mut order: Vec<usize> = (0..MAX_PROCESSES).collect();
        let lease = self.store.lease.map(usize::from);
        order.sort_unstable_by_key(|id| (self.processes[*id], lease == Some(*id)));
        let rename = |id: u8| {
            order
                .iter()
                .position(|old| *old == usize::from(id))
                .map_or(id, |new| new as u8)
        };
        let in_session = |session: Session| Session {
            mark: session.mark.map(rename),
            ..session
        };
        let mut state = *self;
        state.processes = std::array::from_fn(|id| self.processes[order[id]]);
        for process in &mut state.processes {
            process.rename(rename);
        }
        state.store.lease = self.store.lease.map(rename);
        state.store.session = self.store.session.map(in_session);
        if let Undo::To(before) = self.store.undo {
            state.store.undo = Undo::To(before.map(in_session));
        }
        state
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("setup", &self.setup)
            .finish_non_exhaustive()
    }
}
